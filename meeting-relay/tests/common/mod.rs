//! A relay in this process, and agents that say exactly what a test tells them to.

pub mod narrow;
pub mod program;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use meeting_relay::counters::{Count, Counters};
use meeting_relay::{Config, Relay, limits, reset};
use meeting_wire::{
    Admission, Decode, Encode, FromRelay, GroupHeader, Kind, MeetingId, ParticipantId, Record, RecordKind,
    Route, Slot, StreamId, ToRelay, VERSION,
};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub const MEETING: MeetingId = MeetingId([1; 16]);
pub const ALICE: ParticipantId = ParticipantId([0xa; 16]);
pub const BOB: ParticipantId = ParticipantId([0xb; 16]);
pub const CAROL: ParticipantId = ParticipantId([0xc; 16]);
pub const EVE: ParticipantId = ParticipantId([0xe; 16]);

/// A running relay.
pub struct Rig {
    pub address: SocketAddr,
    pub counters: Arc<Counters>,
    pub certificate: CertificateDer<'static>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
    pub state: tempfile::TempDir,
}

impl Rig {
    /// With the defaults of development mode.
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// With settings of the test.
    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let state = tempfile::tempdir().expect("a directory");
        let mut config = Config::development(state.path());
        change(&mut config);
        let relay = Relay::bind(config).expect("loopback is free");
        let certificate = CertificateDer::from_pem_file(state.path().join("certificate.pem")).expect("made");
        let (stop, stopped) = oneshot::channel::<()>();
        let (address, counters) = (relay.local_addr(), relay.counters());
        let running = tokio::spawn(async move {
            let shutdown = async { drop(stopped.await) };
            relay.run(shutdown).await.expect("runs to its end");
        });
        Self { address, counters, certificate, stop: Some(stop), running, state }
    }

    /// Shuts the relay down and waits for its end.
    pub async fn stop(mut self) -> tempfile::TempDir {
        drop(self.stop.take());
        soon(self.running).await.expect("no panic");
        self.state
    }

    /// A connection without a word said.
    pub async fn connect(&self, transport: TransportConfig) -> Connection {
        connect(self.address, self.certificate.clone(), transport).await
    }

    /// An agent that has said hello, and the answer.
    pub async fn hello(&self, hello: ToRelay, transport: TransportConfig) -> (Agent, FromRelay) {
        Agent::greet(self.connect(transport).await, hello).await
    }

    /// An agent that opened the meeting.
    pub async fn create(&self, participant: ParticipantId) -> Agent {
        let admission = Admission::Create { token: String::new() };
        let (agent, answer) = self.hello(hello(participant, admission), TransportConfig::default()).await;
        assert!(matches!(answer, FromRelay::Welcome { version: VERSION, .. }), "{answer:?}");
        agent
    }

    /// An agent in the meeting that somebody opened.
    pub async fn join(&self, participant: ParticipantId) -> Agent {
        self.join_over(participant, TransportConfig::default()).await
    }

    /// The same, with QUIC settings.
    pub async fn join_over(&self, participant: ParticipantId, transport: TransportConfig) -> Agent {
        let (agent, answer) = self.hello(hello(participant, Admission::Join), transport).await;
        assert!(matches!(answer, FromRelay::Welcome { .. }), "{answer:?}");
        agent
    }
}

/// One agent.
pub struct Agent {
    pub connection: Connection,
    pub send: SendStream,
    pub recv: RecvStream,
}

impl Agent {
    /// Says hello, and gives the answer.
    pub async fn greet(connection: Connection, hello: ToRelay) -> (Self, FromRelay) {
        let (send, recv) = connection.open_bi().await.expect("one is allowed");
        let mut agent = Self { connection, send, recv };
        agent.say(hello).await;
        let answer = agent.hear().await;
        (agent, answer)
    }

    pub async fn say(&mut self, message: ToRelay) {
        let bytes = message.to_bytes();
        self.send.write_all(&(bytes.len() as u32).to_be_bytes()).await.expect("sent");
        self.send.write_all(&bytes).await.expect("sent");
    }

    /// Says it to a relay that may have hung up.
    pub async fn say_to_whom_it_may(&mut self, message: ToRelay) {
        let bytes = message.to_bytes();
        let framed = [&(bytes.len() as u32).to_be_bytes()[..], &bytes].concat();
        let _ = self.send.write_all(&framed).await;
    }

    pub async fn post(&mut self, slot: Slot, body: &'static [u8]) {
        self.say(ToRelay::Post { slot, body: Bytes::from_static(body) }).await;
    }

    /// The next message.
    pub async fn hear(&mut self) -> FromRelay {
        self.try_hear().await.expect("a message")
    }

    /// The next message, `None` at the end of the connection.
    pub async fn try_hear(&mut self) -> Option<FromRelay> {
        let mut len = [0; 4];
        soon(self.recv.read_exact(&mut len)).await.ok()?;
        let mut bytes = vec![0; meeting_wire::message_len(len).expect("within bounds")];
        soon(self.recv.read_exact(&mut bytes)).await.ok()?;
        Some(FromRelay::from_bytes(&bytes).expect("a message"))
    }

    /// The next message, which has to be a post.
    pub async fn hear_post(&mut self) -> meeting_wire::Post {
        match self.hear().await {
            FromRelay::Post(post) => post,
            other => panic!("a post expected: {other:?}"),
        }
    }

    /// Publishes a stream and waits until `other` has heard of it.
    pub async fn publish_to(&mut self, other: &mut Agent, stream: StreamId, kind: Kind) -> Route {
        self.say(ToRelay::Publish { stream, kind }).await;
        match other.hear().await {
            FromRelay::Published { stream: heard, kind: as_kind, route, .. } => {
                assert_eq!((heard, as_kind), (stream, kind));
                route
            }
            other => panic!("a stream expected: {other:?}"),
        }
    }

    /// Subscribes, and posts to itself to know that the relay has taken it in.
    pub async fn subscribe(&mut self, me: ParticipantId, route: Route) {
        self.say(ToRelay::Subscribe { route }).await;
        self.post(Slot::Direct(me), b"subscribed").await;
        assert_eq!(&self.hear_post().await.body[..], b"subscribed");
    }

    /// Opens a group.
    pub async fn open_group(&self, stream: StreamId, group: u64, layer: u8) -> SendStream {
        let mut send = self.connection.open_uni().await.expect("allowed");
        let header = GroupHeader { route: Route(stream.0), group, layer };
        send.write_all(&header.to_bytes()).await.expect("sent");
        send
    }

    /// Sends a whole group.
    pub async fn send_group(&self, stream: StreamId, group: u64, layer: u8, records: &[Record]) {
        let mut send = self.open_group(stream, group, layer).await;
        for record in records {
            send.write_all(&record.to_bytes()).await.expect("sent");
        }
        send.finish().expect("open");
    }

    /// Sends a group of pictures, and again where it was late: on a busy machine that is no fault. Gives what `other` got
    /// in the end, and how often it was sent.
    pub async fn show(
        &self,
        other: &Agent,
        stream: StreamId,
        (group, layer): (u64, u8),
        records: &[Record],
    ) -> (GroupHeader, Vec<u8>, u64) {
        for times in 1..=10 {
            let sent = Instant::now();
            self.send_group(stream, group, layer, records).await;
            let code = match other.next_group().await {
                (header, Ok(bytes)) => return (header, bytes, times),
                (_, Err(code)) => code,
            };
            assert_eq!(code, u64::from(reset::LATE));
            assert!(sent.elapsed() > limits::LATE, "it was not late");
        }
        panic!("it was late again and again");
    }

    /// The next group, whole: its header and the bytes after it, or the code that it was reset with.
    pub async fn next_group(&self) -> (GroupHeader, Result<Vec<u8>, u64>) {
        loop {
            let mut recv = soon(self.connection.accept_uni()).await.expect("connected");
            let mut header = [0; GroupHeader::LEN];
            // A stream that was reset before its header came tells nothing.
            if soon(recv.read_exact(&mut header)).await.is_err() {
                continue;
            }
            let header = GroupHeader::from_bytes(&header).expect("a header");
            return match soon(recv.read_to_end(64 * 1024 * 1024)).await {
                Ok(bytes) => (header, Ok(bytes)),
                Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) => {
                    (header, Err(code.into_inner()))
                }
                Err(error) => panic!("{error}"),
            };
        }
    }

    /// Waits for the relay to close the connection: the code and the reason.
    pub async fn closed(&self) -> (u32, String) {
        match soon(self.connection.closed()).await {
            ConnectionError::ApplicationClosed(close) => (
                close.error_code.into_inner() as u32,
                String::from_utf8(close.reason.to_vec()).expect("text"),
            ),
            other => panic!("closed by the relay expected: {other}"),
        }
    }
}

/// A connection to whoever has this certificate, from a socket of its own.
pub async fn connect(
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    transport: TransportConfig,
) -> Connection {
    let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("a socket");
    let connecting = endpoint.connect_with(client(certificate, transport), address, "localhost");
    soon(connecting.expect("valid settings")).await.expect("connected")
}

/// Settings that take this certificate and no other.
pub fn client(certificate: CertificateDer<'static>, transport: TransportConfig) -> quinn::ClientConfig {
    let crypto = QuicClientConfig::try_from(tls(certificate)).expect("TLS 1.3");
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    config
}

/// TLS as an agent speaks it.
pub fn tls(certificate: CertificateDer<'static>) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![meeting_wire::ALPN.to_vec()];
    tls
}

pub fn hello(participant: ParticipantId, admission: Admission) -> ToRelay {
    ToRelay::Hello {
        version: VERSION,
        meeting: MEETING,
        participant,
        claim: meeting_wire::Claim(participant.0),
        since: 0,
        admission,
    }
}

/// A record of `len` bytes that differ from those of other seeds.
pub fn record(kind: RecordKind, seed: u8, len: usize) -> Record {
    let body: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
    // Flags 0: nothing in an envelope that would make the frame droppable.
    let body = [&[0, 0, 0], &body[..]].concat();
    Record { kind, body: body.into() }
}

/// Waits for what has to happen; a minute is long enough for the slowest machine.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it never happened")
}

/// Waits until so many were counted.
pub async fn counted(count: &Count, least: u64) {
    soon(async {
        while count.value() < least {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

//! A relay, and devices that publish and watch without a session.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use meeting_protocol::{
    beacon::Vouch,
    frame::{Header, KeyId},
    local::FromAgent,
};
use meeting_relay::{Config, Relay};
use meeting_wire::{
    ALPN, Admission, Claim, Decode, Envelope, Flags, FromRelay, Kind, MeetingId, NEWCOMER, ParticipantId,
    Post, StreamId, ToRelay,
};
use quinn::{Endpoint, ServerConfig, crypto::rustls::QuicServerConfig};
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::PrivatePkcs8KeyDer;
use sha2::{Digest, Sha256};
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use crate::{
    counters::{Counters, reason},
    publish::{Pipeline, Publisher},
    relay_link::{Hail, LinkEvent, Media, RelayLink},
    watch::{Queue, Stated, Watcher, Watching},
};

const MEETING: MeetingId = MeetingId([7; 16]);
pub const ALICE: ParticipantId = ParticipantId([0xa; 16]);
pub const BOB: ParticipantId = ParticipantId([0xb; 16]);
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A relay of one test; dropped, it stops.
pub struct Running {
    address: SocketAddr,
    certificate: [u8; 32],
    counted: Arc<meeting_relay::counters::Counters>,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    pub fn start(folder: &Path, listen: Option<SocketAddr>) -> Self {
        Self::with(folder, |config| config.listen = listen.unwrap_or(config.listen))
    }

    pub fn with(folder: &Path, change: impl Fn(&mut Config)) -> Self {
        let bind = || {
            let mut config = Config::development(folder);
            change(&mut config);
            Relay::bind(config)
        };
        // a port is free again only when the former relay's last task has seen its end
        let until = Instant::now() + PATIENCE;
        let relay = loop {
            match bind() {
                Err(_) if Instant::now() < until => std::thread::yield_now(),
                bound => break bound.unwrap(),
            }
        };
        let (address, certificate, counted) =
            (relay.local_addr(), relay.certificate_hash(), relay.counters());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            relay.run(async { stopped.await.unwrap_or(()) }).await.unwrap();
        });
        Self { address, certificate, counted, stop: Some(stop), task }
    }

    pub async fn stop(mut self) -> SocketAddr {
        drop(self.stop.take());
        (&mut self.task).await.unwrap();
        self.address
    }

    /// What comes; none where a frame of `publisher` was too old for it or for the relay.
    pub async fn unless_late<T>(&self, publisher: &Device, comes: impl Future<Output = T>) -> Option<T> {
        let late = async {
            while self.counted.frames_dropped_late.value() == 0
                && !publisher.counters.read().2.contains_key(reason::LATE)
            {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            biased;
            what = comes => Some(what),
            () = late => None,
        }
    }

    pub fn hail(&self, participant: ParticipantId) -> Hail {
        Hail {
            relay: self.address.to_string(),
            certificate: Some(self.certificate),
            meeting: MEETING,
            participant,
            claim: Claim(participant.0),
            admission: Admission::Create { token: String::new() },
            since: Arc::new(AtomicU64::new(NEWCOMER)),
        }
    }
}

/// Something in a relay's place that hangs up at each hello, with this code and no word.
pub fn hangs_up(code: u32) -> Hail {
    let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let certificate = Sha256::digest(signed.cert.der()).into();
    let key = PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key.into())
        .unwrap();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let endpoint = Endpoint::server(server, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let relay = endpoint.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let Ok(connection) = incoming.await else { continue };
            drop(connection.accept_bi().await);
            connection.close(code.into(), b"");
        }
    });
    Hail {
        relay,
        certificate: Some(certificate),
        meeting: MEETING,
        participant: ALICE,
        claim: Claim(ALICE.0),
        admission: Admission::Join,
        since: Arc::new(AtomicU64::new(NEWCOMER)),
    }
}

/// One device without a session.
pub struct Device {
    pub link: RelayLink,
    pub media: Media,
    pub counters: Arc<Counters>,
    pub queue: Arc<Queue>,
}

impl Device {
    pub fn start(hail: Hail) -> Self {
        let counters = Arc::new(Counters::default());
        let media = Media {
            publisher: Publisher::new(counters.clone()),
            watching: Watching::new(counters.clone(), mpsc::channel(8).0),
        };
        let queue = Arc::new(Queue::default());
        media.watching.add(1, Watcher::new(String::new(), String::new(), queue.clone()));
        let link = RelayLink::start(hail, media.clone()).unwrap();
        Self { link, media, counters, queue }
    }

    pub async fn event(&mut self) -> LinkEvent {
        timeout(PATIENCE, self.link.events.recv()).await.unwrap().unwrap()
    }

    pub async fn up(&mut self) {
        loop {
            match self.event().await {
                LinkEvent::Up => return,
                LinkEvent::Down(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next post.
    pub async fn post(&mut self) -> Post {
        loop {
            if let LinkEvent::Message(FromRelay::Post(post)) = self.event().await {
                return post;
            }
        }
    }

    /// Offers streams as the driver does.
    pub async fn publish(&self, streams: &[(u32, Kind)]) {
        for (id, kind) in streams {
            self.open(StreamId(*id), *kind);
            self.link.out.send(ToRelay::Publish { stream: StreamId(*id), kind: *kind }).await.unwrap();
        }
    }

    /// Opens a stream, whose key is there at once.
    pub fn open(&self, stream: StreamId, kind: Kind) {
        self.open_for(owner(), stream, kind);
    }

    /// The same for pipelines of this user.
    pub fn open_for(&self, user: u32, stream: StreamId, kind: Kind) {
        self.media.publisher.open(stream, kind, user);
        self.media.publisher.sealed_under(stream, KeyId::new(stream, 1, 1));
    }

    /// Subscribes to what is offered, as the driver does, up to `n` streams.
    pub async fn subscribe(&mut self, n: usize) {
        for _ in 0..n {
            let LinkEvent::Message(FromRelay::Published { from, stream, kind, route }) = self.event().await
            else {
                panic!("no stream")
            };
            let caps = String::new();
            self.media.watching.offered(route, (from, stream), kind);
            let stated = Stated { name: "Alice".into(), track: stream.0.to_string(), kind, caps };
            let key = (KeyId::new(stream, 1, 1), 1);
            let stated = self.media.watching.stated((from, stream), stated, key);
            let heard = self.media.watching.vouched(from, &Vouch { spans: Vec::new(), delay: None });
            for message in stated.into_iter().chain(heard.messages) {
                self.link.out.send(message).await.unwrap();
            }
        }
    }

    pub async fn frame(&self) -> (StreamId, Envelope) {
        loop {
            let popped = timeout(PATIENCE, self.queue.pop()).await;
            let bytes = popped.unwrap_or_else(|_| panic!("no frame; {:?}", self.counters.read())).unwrap();
            if let FromAgent::Frame { from: ALICE, stream, envelope } =
                FromAgent::from_bytes(&bytes[4..]).unwrap()
            {
                return (stream, envelope);
            }
        }
    }
}

/// Has something done over where it says that the machine stood still for longer than pictures live: that shows nothing.
pub async fn over_again(mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..4 {
        if done().await {
            return;
        }
    }
    panic!("late again and again");
}

/// Alice and Bob, connected.
pub async fn both(relay: &Running) -> (Device, Device) {
    let (mut alice, mut bob) = (Device::start(relay.hail(ALICE)), Device::start(relay.hail(BOB)));
    alice.up().await;
    bob.up().await;
    (alice, bob)
}

/// Alice and Bob, who watches these streams of hers: all of them come through, since pictures are asked for last.
pub async fn watched(relay: &Running, streams: &[(u32, Kind)]) -> (Device, Device) {
    let (mut alice, mut bob) = both(relay).await;
    alice.publish(streams).await;
    bob.subscribe(streams.len()).await;
    for (id, _) in streams.iter().filter(|(_, kind)| *kind == Kind::Video) {
        wanted(&mut alice, *id).await;
    }
    (alice, bob)
}

/// A sealed frame's header (RFC 9605 4.3) in front of `len` bytes that tell it from others.
pub fn frame(stream: u32, n: u64, flags: u8, len: usize) -> Envelope {
    let mut sealed = vec![0; Header::MAX_LEN];
    let kid = KeyId::new(StreamId(stream), 1, 1).into();
    let header = Header { kid, ctr: n }.emit(sealed.first_chunk_mut().unwrap());
    sealed.truncate(header);
    sealed.resize(header + len, n as u8);
    Envelope { pts: Some(n), dts: None, duration: None, flags: Flags(flags), layer: 0, sealed: sealed.into() }
}

/// Waits for the relay's word that somebody subscribed to this stream of ours.
pub async fn wanted(device: &mut Device, id: u32) {
    loop {
        if let LinkEvent::Message(FromRelay::KeyframeWanted { stream }) = device.event().await {
            assert_eq!(stream, StreamId(id));
            return;
        }
    }
}

/// The agent's own user.
pub fn owner() -> u32 {
    rustix::process::getuid().as_raw()
}

/// Somebody who shares the agent.
pub fn guest() -> u32 {
    owner() + 1
}

/// A pipeline of the agent's own user.
pub fn source() -> (Pipeline, mpsc::Receiver<StreamId>) {
    let (wishes, wished) = mpsc::channel(8);
    (Pipeline { user: owner(), wishes }, wished)
}

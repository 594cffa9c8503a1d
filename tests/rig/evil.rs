//! A relay of its own will between one agent and the real one: it reads what a relay reads and passes on what it likes.

mod flood;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use meeting_protocol::link::MeetingLink;
use meeting_wire::{
    ALPN, AudioDatagram, Decode, Encode, Envelope, FromRelay, GroupHeader, Record, RecordKind, Route,
    StreamId, message_len,
};
use quinn::{
    ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use tokio::{runtime::Runtime, sync::Mutex as AsyncMutex, time::sleep};

/// What becomes of a frame.
pub enum Fate {
    /// It goes on, as it is now.
    Pass,
    /// It does not.
    Drop,
    /// It goes on later.
    Later(Duration),
    /// It goes on, and so much later again; in a group of pictures right behind itself.
    Twice(Duration),
}

/// Decides over each frame of a stream (0 carries the beacons).
pub type Will = Box<dyn FnMut(StreamId, &mut Envelope) -> Fate + Send>;

/// A running one, for one agent.
pub struct EvilRelay {
    address: SocketAddr,
    certificate: [u8; 32],
    inside: Arc<Inside>,
    runtime: Runtime,
}

struct Inside {
    real: SocketAddr,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    will: Option<Will>,
    victim: Option<Connection>,
    control: Option<Arc<AsyncMutex<SendStream>>>,
    shut: Option<Instant>,
    routes: Vec<(Route, StreamId)>,
    /// When the last frame came, or it was decided anew, and the longest time between two.
    came: Option<Instant>,
    pause: Duration,
}

impl EvilRelay {
    /// Starts one in front of `real`, which does nothing evil yet.
    pub fn start(real: SocketAddr) -> Result<Self> {
        let (server, certificate) = server()?;
        let runtime = Runtime::new()?;
        let inside = Arc::new(Inside { real, state: Mutex::default() });
        let _guard = runtime.enter();
        let endpoint = Endpoint::server(server, (Ipv4Addr::LOCALHOST, 0).into())?;
        let address = endpoint.local_addr()?;
        let shared = inside.clone();
        runtime.spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                if shared.state().shut.is_some_and(|until| Instant::now() < until) {
                    incoming.refuse();
                    continue;
                }
                let Ok(agent) = incoming.await else { continue };
                let shared = shared.clone();
                tokio::spawn(async move {
                    let _ = serve(agent, shared).await;
                });
            }
        });
        drop(_guard);
        Ok(Self { address, certificate, inside, runtime })
    }

    /// The link for whoever is to come by here.
    pub fn bend(&self, link: &str) -> Result<String> {
        let mut link = MeetingLink::parse(link.trim())?;
        link.relay = self.address.to_string();
        link.relay_certificate = Some(self.certificate);
        Ok(link.reveal().to_string())
    }

    /// From now on this decides.
    pub fn decide(&self, will: impl FnMut(StreamId, &mut Envelope) -> Fate + Send + 'static) {
        let mut state = self.inside.state();
        state.will = Some(Box::new(will));
        (state.came, state.pause) = (Some(Instant::now()), Duration::ZERO);
    }

    /// The longest time since it was decided in which no frame came.
    pub fn longest_pause(&self) -> Duration {
        let state = self.inside.state();
        state.came.map_or(Duration::ZERO, |came| came.elapsed().max(state.pause))
    }

    /// Lets go of the agent, and takes it on again after a while.
    pub fn cut(&self, time: Duration) -> Result<()> {
        let mut state = self.inside.state();
        state.shut = Some(Instant::now() + time);
        state.victim.take().context("nobody is connected")?.close(0u32.into(), b"");
        Ok(())
    }

    /// Puts a frame of somebody's stream among the honest ones.
    pub fn inject(&self, stream: StreamId, envelope: Envelope) -> Result<()> {
        let state = self.inside.state();
        let victim = state.victim.as_ref().context("nobody is connected")?;
        let (route, _) =
            state.routes.iter().rev().find(|(_, id)| *id == stream).context("no such stream is offered")?;
        let datagram = AudioDatagram { route: *route, envelope };
        Ok(victim.send_datagram(datagram.to_bytes().into())?)
    }
}

impl Inside {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decide(&self, route: Route, envelope: &mut Envelope) -> Fate {
        let mut state = self.state();
        if let Some(pause) = state.came.replace(Instant::now()).map(|came| came.elapsed()) {
            state.pause = state.pause.max(pause);
        }
        let stream = state.routes.iter().find(|(known, _)| *known == route).map(|(_, stream)| *stream);
        match (stream, &mut state.will) {
            (Some(stream), Some(will)) => will(stream, envelope),
            _ => Fate::Pass,
        }
    }
}

async fn serve(agent: Connection, inside: Arc<Inside>) -> Result<()> {
    let mut endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
    endpoint.set_default_client_config(client()?);
    let relay = endpoint.connect(inside.real, "127.0.0.1")?.await?;
    inside.state().victim = Some(agent.clone());
    let (agent_send, agent_recv) = agent.accept_bi().await?;
    let (relay_send, relay_recv) = relay.open_bi().await?;
    let agent_send = Arc::new(AsyncMutex::new(agent_send));
    inside.state().control = Some(agent_send.clone());
    let both = tokio::join!(
        copy(agent_recv, relay_send),
        control(relay_recv, agent_send, &inside),
        groups_up(&agent, &relay),
        groups_down(&relay, &agent, &inside),
        datagrams_up(&agent, &relay),
        datagrams_down(&relay, &agent, &inside),
    );
    drop(both);
    Ok(())
}

async fn copy(mut from: RecvStream, mut to: SendStream) -> Result<()> {
    while let Some(chunk) = from.read_chunk(64 * 1024, true).await? {
        to.write_all(&chunk.bytes).await?;
    }
    to.finish()?;
    Ok(())
}

/// Passes the relay's words on, and notes which route is which stream.
async fn control(mut from: RecvStream, to: Arc<AsyncMutex<SendStream>>, inside: &Inside) -> Result<()> {
    loop {
        let mut len = [0; 4];
        from.read_exact(&mut len).await?;
        let mut message = vec![0; message_len(len)?];
        from.read_exact(&mut message).await?;
        if let FromRelay::Published { route, stream, .. } = FromRelay::from_bytes(&message)? {
            inside.state().routes.push((route, stream));
        }
        let mut to = to.lock().await;
        to.write_all(&len).await?;
        to.write_all(&message).await?;
    }
}

async fn groups_up(agent: &Connection, relay: &Connection) -> Result<()> {
    loop {
        let (from, to) = (agent.accept_uni().await?, relay.open_uni().await?);
        tokio::spawn(copy(from, to));
    }
}

async fn groups_down(relay: &Connection, agent: &Connection, inside: &Arc<Inside>) -> Result<()> {
    loop {
        let (from, to) = (relay.accept_uni().await?, agent.open_uni().await?);
        tokio::spawn(group(from, to, inside.clone()));
    }
}

async fn group(mut from: RecvStream, mut to: SendStream, inside: Arc<Inside>) -> Result<()> {
    let mut header = [0; GroupHeader::LEN];
    from.read_exact(&mut header).await?;
    to.write_all(&header).await?;
    let route = GroupHeader::from_bytes(&header)?.route;
    let mut head = [0; Record::HEAD];
    while from.read_exact(&mut head).await.is_ok() {
        let (kind, len) = Record::head(head)?;
        let mut body = vec![0; len];
        from.read_exact(&mut body).await?;
        let mut record = Record { kind, body: body.into() };
        if kind == RecordKind::Frame {
            let mut envelope = Envelope::from_bytes(&record.body)?;
            let fate = inside.decide(route, &mut envelope);
            record = Record::frame(&envelope);
            match fate {
                Fate::Pass => {}
                Fate::Drop => continue,
                Fate::Later(time) => sleep(time).await,
                Fate::Twice(_) => to.write_all(&record.to_bytes()).await?,
            }
        }
        to.write_all(&record.to_bytes()).await?;
    }
    let _ = to.finish();
    Ok(())
}

async fn datagrams_up(agent: &Connection, relay: &Connection) -> Result<()> {
    loop {
        let _ = relay.send_datagram(agent.read_datagram().await?);
    }
}

async fn datagrams_down(relay: &Connection, agent: &Connection, inside: &Inside) -> Result<()> {
    loop {
        let mut datagram = AudioDatagram::from_bytes(&relay.read_datagram().await?)?;
        let (now, later) = match inside.decide(datagram.route, &mut datagram.envelope) {
            Fate::Pass => (true, None),
            Fate::Drop => (false, None),
            Fate::Later(time) => (false, Some(time)),
            Fate::Twice(time) => (true, Some(time)),
        };
        let datagram = datagram.to_bytes();
        if now {
            let _ = agent.send_datagram(datagram.clone().into());
        }
        if let Some(time) = later {
            let agent = agent.clone();
            tokio::spawn(async move {
                sleep(time).await;
                let _ = agent.send_datagram(datagram.into());
            });
        }
    }
}

/// What a relay shows, and the hash of its certificate.
pub fn server() -> Result<(ServerConfig, [u8; 32])> {
    let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let certificate = Sha256::digest(signed.cert.der()).into();
    let key = PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key.into())?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    Ok((ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?)), certificate))
}

fn client() -> Result<ClientConfig> {
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(2)));
    transport.max_concurrent_uni_streams(VarInt::from_u32(128));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// The real relay is this test's own.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("QUIC has no TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

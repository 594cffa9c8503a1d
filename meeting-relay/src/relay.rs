//! The relay, put together once: socket, TLS, limits, accept loop, sweeper, counters.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, IdleTimeout, Incoming, TransportConfig, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, info, warn};

use crate::certificate::Certificate;
use crate::config::Config;
use crate::counters::Counters;
use crate::error::Error;
use crate::files;
use crate::limits;
use crate::meeting::Meetings;
use crate::monitor::Monitor;
use crate::record::Recorder;
use crate::reset_key;
use crate::session;

/// A relay that listens.
#[derive(Debug)]
pub struct Relay {
    config: Config,
    endpoint: Endpoint,
    local_addr: SocketAddr,
    certificate_hash: [u8; 32],
    meetings: Arc<Meetings>,
    counters: Arc<Counters>,
    recorder: Arc<Recorder>,
    monitor: Option<Monitor>,
}

impl Relay {
    /// Opens the socket. Needs a tokio runtime around it.
    pub fn bind(config: Config) -> Result<Self, Error> {
        config.check()?;
        let certificate = match &config.certificate {
            Some((chain, key)) => Certificate::from_files(chain, key)?,
            None => Certificate::self_signed(&config.state, &config.names)?,
        };
        let certificate_hash = certificate.hash();
        let recorder = match &config.record {
            Some(path) => Recorder::open(path)?,
            None => Recorder::default(),
        };
        let monitor = config.monitor.map(Monitor::bind).transpose()?;
        let listen = |error| Error::Listen { address: config.listen, error };
        let socket = std::net::UdpSocket::bind(config.listen).map_err(listen)?;
        let settings = reset_key::endpoint(certificate.private_key());
        let server = Some(server_config(certificate)?);
        let endpoint =
            Endpoint::new(settings, server, socket, Arc::new(quinn::TokioRuntime)).map_err(listen)?;
        let local_addr = endpoint.local_addr().map_err(Error::io("asking for the address"))?;
        Ok(Self {
            endpoint,
            local_addr,
            certificate_hash,
            meetings: Arc::new(Meetings::new(config.meetings.clone())),
            counters: Arc::default(),
            recorder: Arc::new(recorder),
            monitor,
            config,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// SHA-256 over its certificate (DER).
    pub fn certificate_hash(&self) -> [u8; 32] {
        self.certificate_hash
    }

    /// Where its counters and its health are served, if they are.
    pub fn monitor_addr(&self) -> Option<SocketAddr> {
        self.monitor.as_ref().map(Monitor::local_addr)
    }

    /// What it has counted so far.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Serves until `shutdown` is done, then tells everybody and waits a moment for the news to arrive.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        self.announce()?;
        let gauges = (self.counters.clone(), self.meetings.clone());
        let monitor = self.monitor.take().map(|monitor| monitor.serve(gauges.0, gauges.1));
        let connections = Arc::new(Semaphore::new(self.config.meetings.max_connections));
        // Those above the limit are told so, as long as they are few.
        let beyond = Arc::new(Semaphore::new(BEYOND));
        let mut tick = tokio::time::interval(TICK.min(self.config.meetings.keep_empty / 2 + ONE_MS));
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                _ = tick.tick() => {
                    self.meetings.sweep(Instant::now());
                    self.write_stats();
                }
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => self.take(incoming, &connections, &beyond),
                    None => break,
                }
            }
        }
        info!(meetings = self.meetings.count(), "shutting down");
        // Whoever watches the health learns of the end before the connections do.
        drop(monitor);
        self.endpoint.close(VarInt::from_u32(session::SHUTDOWN), b"the relay is shutting down");
        let _ = tokio::time::timeout(PARTING, self.endpoint.wait_idle()).await;
        self.write_stats();
        Ok(())
    }

    fn take(&self, incoming: Incoming, connections: &Arc<Semaphore>, beyond: &Arc<Semaphore>) {
        let free = connections.available_permits();
        // Under load an address has to show that it is not made up before it costs any memory.
        if free < self.config.meetings.max_connections / 4 && incoming.may_retry() {
            let _ = incoming.retry();
            return;
        }
        let (permit, busy): (OwnedSemaphorePermit, bool) = match connections.clone().try_acquire_owned() {
            Ok(permit) => (permit, false),
            Err(_) => match beyond.clone().try_acquire_owned() {
                Ok(permit) => (permit, true),
                Err(_) => {
                    debug!("too many connections");
                    return incoming.refuse();
                }
            },
        };
        let (meetings, counters) = (self.meetings.clone(), self.counters.clone());
        let recorder = self.recorder.clone();
        tokio::spawn(async move {
            session::serve(incoming, busy, &meetings, counters, recorder).await;
            drop(permit);
        });
    }

    fn announce(&self) -> Result<(), Error> {
        let hash = hex::encode(self.certificate_hash);
        info!(address = %self.local_addr, certificate = hash, "listening");
        if self.config.is_development() {
            warn!(
                "DEVELOPMENT MODE: no create_tokens are set, so everybody on this machine may open meetings"
            );
        }
        match &self.config.ready_file {
            Some(path) => files::replace(path, &format!("{} {hash}\n", self.local_addr), 0o644)
                .map_err(Error::io(format!("writing {}", path.display()))),
            None => Ok(()),
        }
    }

    fn write_stats(&self) {
        self.recorder.flush();
        if let Some(path) = &self.config.stats
            && let Err(error) = files::replace(path, &self.counters.to_text(), 0o644)
        {
            warn!(%error, "cannot write the counters");
        }
    }
}

fn server_config(certificate: Certificate) -> Result<quinn::ServerConfig, Error> {
    let crypto = QuicServerConfig::try_from(certificate.into_server()?)
        .map_err(|error| Error::Certificate { what: "TLS for QUIC".into(), message: error.to_string() })?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport())).migration(true);
    Ok(config)
}

/// quinn's settings; the reasons stand with the numbers in [`limits`]. The congestion controller is quinn's
/// default, CUBIC.
fn transport() -> TransportConfig {
    let idle = IdleTimeout::from(VarInt::from_u32(limits::IDLE.as_millis() as u32));
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(limits::INCOMING_STREAMS))
        .receive_window(VarInt::from_u32(limits::RECEIVE_WINDOW))
        .stream_receive_window(VarInt::from_u32(limits::STREAM_RECEIVE_WINDOW))
        .send_window(limits::SEND_WINDOW)
        .datagram_receive_buffer_size(Some(limits::DATAGRAM_RECEIVE))
        .datagram_send_buffer_size(limits::DATAGRAM_SEND)
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(limits::KEEP_ALIVE));
    transport
}

const TICK: Duration = Duration::from_secs(1);
const ONE_MS: Duration = Duration::from_millis(1);
const PARTING: Duration = Duration::from_secs(2);
const BEYOND: usize = 64;

//! The relay, put together once: socket, TLS, limits, accept loop, sweeper, counters.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, IdleTimeout, Incoming, TransportConfig, VarInt};
use tokio::sync::{Notify, Semaphore};
use tracing::{error, info, warn};

use crate::certificate::Certificate;
use crate::config::Config;
use crate::counters::Counters;
use crate::error::Error;
use crate::files;
use crate::limits;
use crate::meeting::Meetings;
use crate::monitor::Monitor;
use crate::record::Recorder;
use crate::renewal::InUse;
use crate::reset_key;
use crate::session::{self, House};
use crate::sockets::Sockets;

/// A relay that listens.
#[derive(Debug)]
pub struct Relay {
    config: Config,
    endpoint: Endpoint,
    local_addr: SocketAddr,
    certificate: InUse,
    certificate_ends: Arc<AtomicU64>,
    renewal: Arc<Notify>,
    house: Arc<House>,
    monitor: Option<Monitor>,
    stats_fail: bool,
    memory_short: bool,
}

impl Relay {
    /// Opens the sockets, and stands on them. Needs a tokio runtime around it.
    pub fn bind(config: Config) -> Result<Self, Error> {
        Self::on(Sockets::open(&config)?, config)
    }

    /// On sockets that are open. Needs a tokio runtime around it.
    pub fn on(sockets: Sockets, config: Config) -> Result<Self, Error> {
        let certificate = Certificate::load(&config)?;
        let in_use = InUse::new(&config, &certificate);
        let recorder = match &config.record {
            Some(path) => Recorder::open(path)?,
            None => Recorder::default(),
        };
        let monitor = sockets.monitor.map(Monitor::on).transpose()?;
        let listen = |error| Error::Listen { address: config.listen, error };
        let settings = reset_key::endpoint(certificate.private_key());
        let server = server_config(certificate.into_server()?)?;
        let endpoint = Endpoint::new(settings, Some(server), sockets.media, Arc::new(quinn::TokioRuntime))
            .map_err(listen)?;
        let local_addr = endpoint.local_addr().map_err(Error::io("asking for the address"))?;
        let house = House {
            meetings: Meetings::new(config.meetings.clone()),
            counters: Arc::default(),
            recorder: Arc::new(recorder),
            connections: Arc::new(Semaphore::new(config.meetings.max_connections)),
            lobby: Arc::default(),
        };
        Ok(Self {
            endpoint,
            local_addr,
            certificate_ends: Arc::new(in_use.ends().into()),
            certificate: in_use,
            renewal: Arc::default(),
            house: Arc::new(house),
            monitor,
            stats_fail: false,
            memory_short: false,
            config,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// SHA-256 over its certificate (DER).
    pub fn certificate_hash(&self) -> [u8; 32] {
        self.certificate.hash()
    }

    /// Where its counters and its health are served, if they are.
    pub fn monitor_addr(&self) -> Option<SocketAddr> {
        self.monitor.as_ref().map(Monitor::local_addr)
    }

    /// What it has counted so far.
    pub fn counters(&self) -> Arc<Counters> {
        self.house.counters.clone()
    }

    /// Whoever notifies this makes it read its certificate again; it also does so when the files change.
    pub fn renewal(&self) -> Arc<Notify> {
        self.renewal.clone()
    }

    /// Serves until `shutdown` is done, then tells everybody and waits a moment for the news to arrive.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        self.announce()?;
        let ends = self.certificate_ends.clone();
        let monitor = self.monitor.take().map(|monitor| monitor.serve(self.house.clone(), ends));
        let mut tick = tokio::time::interval(TICK.min(self.config.meetings.keep_empty / 2 + ONE_MS));
        let renewal = self.renewal.clone();
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                _ = tick.tick() => {
                    self.house.meetings.sweep(Instant::now());
                    self.watch_memory();
                    self.write_stats();
                    self.certificate.warn(SystemTime::now());
                    if self.certificate.has_changed() {
                        self.renew();
                    }
                }
                () = renewal.notified() => self.renew(),
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => self.take(incoming),
                    None => break,
                }
            }
        }
        info!(meetings = self.house.meetings.count(), "shutting down");
        // Whoever watches the health learns of the end before the connections do.
        drop(monitor);
        self.endpoint.close(VarInt::from_u32(session::SHUTDOWN), b"the relay is shutting down");
        let _ = tokio::time::timeout(PARTING, self.endpoint.wait_idle()).await;
        self.write_stats();
        Ok(())
    }

    fn take(&self, incoming: Incoming) {
        // Under load an address has to show that it is not made up before it costs any memory.
        let full = self.house.connections.available_permits() < self.config.meetings.max_connections / 4;
        if (full || self.house.lobby.is_busy()) && incoming.may_retry() {
            let _ = incoming.retry();
            return;
        }
        let house = self.house.clone();
        tokio::spawn(async move { session::serve(incoming, &house).await });
    }

    /// Takes the new certificate for new connections; a broken one changes nothing.
    fn renew(&mut self) {
        let renewed = self.certificate.renew().and_then(|server| server.map(server_config).transpose());
        match renewed {
            Ok(None) => info!("the certificate is the same as before"),
            Ok(Some(server)) => {
                self.endpoint.set_server_config(Some(server));
                self.certificate_ends.store(self.certificate.ends(), Ordering::Relaxed);
                if let Err(error) = self.write_ready_file() {
                    error!("{error}");
                }
            }
            Err(error) => error!("the new certificate is not used, the old one stays: {error}"),
        }
    }

    fn announce(&self) -> Result<(), Error> {
        let hash = hex::encode(self.certificate_hash());
        info!(address = %self.local_addr, certificate = hash, "listening");
        if self.config.is_development() {
            warn!(
                "DEVELOPMENT MODE: no create_tokens are set, so everybody on this machine may open meetings"
            );
        }
        if self.config.ready_file.is_some()
            && self.config.public_address.is_none()
            && self.local_addr.ip().is_unspecified()
        {
            warn!(
                "links made from the ready file name {}, which nobody can reach: set public_address",
                self.local_addr
            );
        }
        self.write_ready_file()
    }

    /// Where agents reach it, and what they know it by.
    fn write_ready_file(&self) -> Result<(), Error> {
        let Some(path) = &self.config.ready_file else { return Ok(()) };
        let local = self.local_addr.to_string();
        let address = self.config.public_address.as_deref().unwrap_or(&local);
        let line = format!("{address} {}\n", hex::encode(self.certificate_hash()));
        files::replace(path, &line, 0o644).map_err(Error::io(format!("writing {}", path.display())))
    }

    /// Says when newcomers begin to be refused for want of memory, and when that is over.
    fn watch_memory(&mut self) {
        let memory = self.house.meetings.memory();
        let short = !memory.has_room_for_new(limits::MEMBER_BYTES);
        if short && !self.memory_short {
            let limit = self.config.meetings.max_memory_mb;
            warn!("memory is short (max_memory_mb = {limit}): newcomers are refused, meetings go on");
        }
        // Half of it is free again: said once for each shortage, not for each connection that goes and comes.
        self.memory_short = short || (self.memory_short && memory.used() > memory.limit() / 2);
    }

    fn write_stats(&mut self) {
        self.house.recorder.flush();
        let Some(path) = &self.config.stats else { return };
        let written = files::replace(path, &self.house.counters.to_text(), 0o644);
        // Said once, not every second.
        if let (Err(error), false) = (&written, self.stats_fail) {
            warn!(
                "cannot write the counters to {}: {error}; the relay goes on, and tries again",
                path.display()
            );
        }
        self.stats_fail = written.is_err();
    }
}

fn server_config(tls: rustls::ServerConfig) -> Result<quinn::ServerConfig, Error> {
    let crypto = QuicServerConfig::try_from(tls)
        .map_err(|error| Error::Certificate { what: "TLS for QUIC".into(), message: error.to_string() })?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport())).migration(true);
    Ok(config)
}

/// quinn's settings; the reasons stand with the numbers in [`limits`]. The congestion controller is quinn's
/// default, CUBIC.
fn transport() -> TransportConfig {
    let mut cubic = CubicConfig::default();
    cubic.initial_window(limits::INITIAL_WINDOW);
    let idle = IdleTimeout::from(VarInt::from_u32(limits::IDLE.as_millis() as u32));
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(limits::INCOMING_STREAMS))
        .receive_window(VarInt::from_u32(limits::RECEIVE_WINDOW))
        .stream_receive_window(VarInt::from_u32(limits::STREAM_RECEIVE_WINDOW))
        .send_window(limits::SEND_WINDOW)
        .congestion_controller_factory(Arc::new(cubic))
        .datagram_receive_buffer_size(Some(limits::DATAGRAM_RECEIVE))
        .datagram_send_buffer_size(limits::DATAGRAM_SEND)
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(limits::KEEP_ALIVE));
    transport
}

const TICK: Duration = Duration::from_secs(1);
const ONE_MS: Duration = Duration::from_millis(1);
const PARTING: Duration = Duration::from_secs(2);

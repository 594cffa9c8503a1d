//! The sockets of a relay, opened before all else: for a port below 1024 that takes a right which is given up then.

use std::net::{TcpListener, UdpSocket};

use crate::config::Config;
use crate::error::Error;
use crate::monitor;

/// Sockets that are open and not served yet.
#[derive(Debug)]
pub struct Sockets {
    pub(crate) media: UdpSocket,
    pub(crate) monitor: Option<TcpListener>,
}

impl Sockets {
    /// Opens those that the settings name. Needs no tokio runtime.
    pub fn open(config: &Config) -> Result<Self, Error> {
        config.check()?;
        let listen = |error| Error::Listen { address: config.listen, error };
        let monitor = config.monitor.map(monitor::listen).transpose()?;
        Ok(Self { media: UdpSocket::bind(config.listen).map_err(listen)?, monitor })
    }
}

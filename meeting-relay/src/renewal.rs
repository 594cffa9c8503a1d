//! The certificate in use, and the next one: connections that are there go on, new ones get the new one, and a broken
//! one changes nothing.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tracing::{info, warn};

use crate::certificate::{Certificate, Validity};
use crate::config::Config;
use crate::error::Error;

/// The certificate in use.
#[derive(Debug)]
pub struct InUse {
    hash: [u8; 32],
    validity: Option<Validity>,
    /// Chain and key.
    files: [PathBuf; 2],
    seen: [Option<SystemTime>; 2],
    settling: bool,
    warned: Option<SystemTime>,
}

impl InUse {
    /// The one that these settings brought.
    pub fn new(config: &Config, certificate: &Certificate) -> Self {
        let files = match &config.certificate {
            Some((chain, key)) => [chain.clone(), key.clone()],
            None => Certificate::state_files(&config.state),
        };
        Self::from_files(files, certificate)
    }

    fn from_files(files: [PathBuf; 2], certificate: &Certificate) -> Self {
        let (hash, validity) = (certificate.hash(), certificate.validity());
        let seen = times(&files);
        Self { hash, validity, files, seen, settling: false, warned: None }
    }

    /// SHA-256 over it (DER).
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// When it ends, in seconds since 1970; 0 if it does not say.
    pub fn ends(&self) -> u64 {
        self.validity.map_or(0, |validity| seconds(validity.until))
    }

    /// Whether its files have changed. Chain and key are two files, so it is asked again and again, and they have
    /// changed when they were the same twice.
    pub fn has_changed(&mut self) -> bool {
        let now = times(&self.files);
        let changing = now != self.seen;
        self.seen = now;
        std::mem::replace(&mut self.settling, changing) && !changing
    }

    /// Reads it again; nothing if it is the same, an error if it cannot be used.
    pub fn renew(&mut self) -> Result<Option<rustls::ServerConfig>, Error> {
        // Files that have gone are not made anew: they may be about to be replaced.
        let [chain, key] = &self.files;
        let certificate = Certificate::from_files(chain, key)?;
        if certificate.hash() == self.hash {
            return Ok(None);
        }
        let next = Self::from_files(self.files.clone(), &certificate);
        let server = certificate.into_server()?;
        *self = next;
        info!(certificate = hex::encode(self.hash), "a new certificate is in use for new connections");
        Ok(Some(server))
    }

    /// Says once a day what agents will say of it, if they will not like it.
    pub fn warn(&mut self, now: SystemTime) {
        let recently = |warned: SystemTime| now.duration_since(warned).is_ok_and(|since| since < DAY);
        let Some(validity) = self.validity else { return };
        if self.warned.is_some_and(recently) {
            return;
        }
        let left = validity.until.duration_since(now);
        match left {
            Err(_) => warn!(
                "the certificate has expired: agents that do not know it by its hash refuse it; renew it, the relay \
                 takes the new one by itself"
            ),
            Ok(left) if left < NOTICE => warn!(
                days = left.as_secs() / DAY.as_secs(),
                "the certificate is about to expire: renew it, the relay takes the new one by itself"
            ),
            Ok(_) if validity.from > now => {
                warn!("the certificate is not valid yet: is this machine's clock right?")
            }
            Ok(_) => return,
        }
        self.warned = Some(now);
    }
}

fn times(files: &[PathBuf; 2]) -> [Option<SystemTime>; 2] {
    files.each_ref().map(|file| fs::metadata(file).and_then(|metadata| metadata.modified()).ok())
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Renewal services renew 30 days before the end: half of that later something is wrong with them.
const NOTICE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

//! Why the relay does not start, or cannot go on. The fault of a connected agent is never here.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

/// A reason, by blame; each says what to do. What the system said stands in the text, so it is no `source`.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The config file is not readable as one.
    #[error("{path}: {message}", path = path.display())]
    ConfigFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with the line.
        message: String,
    },
    /// The settings contradict each other.
    #[error("{key}: {message}")]
    Config {
        /// The key to blame, as in the config file.
        key: &'static str,
        /// What is wrong with it, and what would be right.
        message: &'static str,
    },
    /// A certificate or key cannot be used.
    #[error("{what}: {message}")]
    Certificate {
        /// Which one.
        what: String,
        /// What is wrong with it.
        message: String,
    },
    /// The state directory cannot be used.
    #[error("cannot keep the certificate in {}: {error}; make it writable for the user that runs the relay, with room on its disk, or name another by --state", path.display())]
    State {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}; {}", remedy(error))]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The monitor's address cannot be listened on.
    #[error("the monitor cannot listen on {address} (TCP): {error}; name another by --monitor")]
    Monitor {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// It cannot become the user that it should.
    #[error("user {name:?}: {message}")]
    User {
        /// Whom.
        name: String,
        /// What is wrong, and what to do.
        message: String,
    },
    /// Landlock is there and did not do what was asked.
    #[error("cannot close the file system to this relay: {0}")]
    Fence(String),
    /// The system refused something.
    #[error("{what}: {error}")]
    Io {
        /// What the relay was about to do.
        what: String,
        /// What the system said.
        error: io::Error,
    },
}

impl Error {
    /// Names what was being done when the system refused.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "stop the program that has this UDP port, or name another by --listen",
        io::ErrorKind::AddrNotAvailable => "name an address of this machine by --listen",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities), or name another by --listen"
        }
        _ => "name another address by --listen",
    }
}

//! What can go wrong, by blame. Each text is for a person and ends with what to do.

use std::path::PathBuf;

use meeting_protocol::link::LinkError;
use thiserror::Error;

/// Why the agent does not start or does not do what was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AgentError {
    /// Another agent serves this socket.
    #[error(
        "another agent is running on {}: use it, or give this one `--socket` and `--state` of its own",
        .0.display()
    )]
    AlreadyRunning(PathBuf),
    /// A path with the wrong owner, mode or kind.
    #[error("{} {problem}: {remedy}", .path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
        /// What to type.
        remedy: String,
    },
    /// The device key's file is not one.
    #[error(
        "{} is not a device key this version can read: restore it, or move it away for a new identity \
         (others will then have to approve this device again)", .0.display()
    )]
    DamagedKey(PathBuf),
    /// The state directory cannot be made or used.
    #[error("cannot keep the device key in {}: {error}; make room or make it writable, or name another place by `--state`", .path.display())]
    State {
        /// Which.
        path: PathBuf,
        /// What came back.
        error: std::io::Error,
    },
    /// The operating system said no.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// What came back.
        error: std::io::Error,
    },
    /// No randomness, no keys.
    #[error("the operating system gives no randomness ({0}): nothing can be kept secret without it")]
    Randomness(String),
    /// Landlock is there and did not do what was asked.
    #[error("cannot close the file system to this agent: {0}")]
    Fence(String),
    /// The link cannot be used.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The relay's address cannot be used.
    #[error("the relay's address {0:?} is not HOST or HOST:PORT")]
    RelayAddress(String),
    /// TLS could not be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// The session refused to start.
    #[error("{0}")]
    Session(String),
    /// What the user asked for is not possible now.
    #[error("{0}")]
    Refused(String),
}

impl AgentError {
    /// Names what was tried when the system said no.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }
}

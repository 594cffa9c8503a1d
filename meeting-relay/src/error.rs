//! Why the relay does not start, or cannot go on. The fault of a connected agent is never here.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// A reason, by blame; each says what to do.
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
    #[error("{0}")]
    Config(&'static str),
    /// A certificate or key cannot be used.
    #[error("{what}: {message}")]
    Certificate {
        /// Which one.
        what: String,
        /// What is wrong with it.
        message: String,
    },
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What the relay was about to do.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// Names what was being done when the system refused.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

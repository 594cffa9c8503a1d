//! The socket file: private, never in another agent's way, and gone with its agent.

use std::{
    fs, io,
    os::unix::{fs::FileTypeExt, fs::OpenOptionsExt, fs::PermissionsExt, net},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{FlockOperation, OFlags, flock},
    io::Errno,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tracing::{debug, warn};

use crate::{agent::Shared, error::AgentError, private};

/// A bound socket; dropped, its file goes.
pub struct Listener {
    listener: net::UnixListener,
    path: PathBuf,
    /// Held as long as this agent lives: whoever holds it may replace the socket file.
    _lock: fs::File,
}

impl Listener {
    /// Binds `path`, for the members of `group` too if there is one. A file left behind by an agent that died is replaced, a living agent's is not.
    pub fn bind(path: &Path, group: Option<u32>) -> Result<Self, AgentError> {
        let failed = |what: &str| AgentError::io(format!("cannot {what} {}", path.display()));
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).ok_or_else(|| {
            AgentError::Path {
                path: path.into(),
                problem: "names no directory",
                remedy: "give `--socket` with a directory of its own, such as ./agent/agent.sock".into(),
            }
        })?;
        private::shared_directory(directory, group)?;
        let lock = lock(path)?;
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("look at")(error)),
            Ok(meta) if !meta.file_type().is_socket() => {
                return Err(AgentError::Path {
                    path: path.into(),
                    problem: "is there and is no socket (symbolic links are not followed)",
                    remedy: "move it away, or give another `--socket`".into(),
                });
            }
            Ok(_) => match net::UnixStream::connect(path) {
                Ok(_) => return Err(AgentError::AlreadyRunning(path.into())),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    debug!("replacing the socket of an agent that is gone");
                    fs::remove_file(path).map_err(failed("replace"))?;
                }
                Err(error) => return Err(failed("try")(error)),
            },
        }
        // the directory is closed to others, so nobody connects before the mode is set
        let listener = net::UnixListener::bind(path).map_err(failed("listen on"))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed("close to others"))?;
        if let Some(group) = group {
            private::share(path, group, 0o660)?;
        }
        Ok(Self { listener, path: path.into(), _lock: lock })
    }

    /// Accepts connections for ever; those above the limit are closed at once.
    pub async fn serve(&self, shared: &Arc<Shared>) -> Result<(), AgentError> {
        let failed = AgentError::io("cannot serve the socket");
        let listener = self.listener.try_clone().and_then(|listener| {
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)
        });
        let listener = listener.map_err(failed)?;
        let places = Places::new(shared.config.max_clients);
        let mut said = false;
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => {
                    said = false;
                    stream
                }
                Err(error) => {
                    // Said once, not ten times a second.
                    if !std::mem::replace(&mut said, true) {
                        warn!("local connections have to wait, meetings go on: {error}{}", remedy(&error));
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(place) = places.take(&stream) else {
                warn!("too many local connections: one was closed");
                continue;
            };
            let shared = shared.clone();
            tokio::spawn(async move {
                super::serve(stream, shared).await;
                drop(place);
            });
        }
    }
}

/// Room for so many connections. Those of others than the agent's own user leave an eighth of it: whoever may use an agent
/// cannot keep its user from it.
struct Places {
    all: Arc<Semaphore>,
    of_others: Arc<Semaphore>,
}

impl Places {
    fn new(most: usize) -> Self {
        let semaphore = |places| Arc::new(Semaphore::new(places));
        Self { all: semaphore(most), of_others: semaphore(most - most / 8) }
    }

    fn take(&self, stream: &UnixStream) -> Option<(OwnedSemaphorePermit, Option<OwnedSemaphorePermit>)> {
        let user = stream.peer_cred().ok()?.uid();
        let of_others = match private::may_command(user) {
            true => None,
            false => Some(self.of_others.clone().try_acquire_owned().ok()?),
        };
        Some((self.all.clone().try_acquire_owned().ok()?, of_others))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE) => {
            "; this agent has no file descriptors left: raise its limit (`ulimit -n`, systemd: LimitNOFILE)"
        }
        Some(Errno::NFILE) => "; this machine has no file descriptors left: `sysctl fs.file-max`",
        _ => "",
    }
}

fn lock(path: &Path) -> Result<fs::File, AgentError> {
    let path_of_lock = path.with_extension("lock");
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(&path_of_lock)
        .map_err(AgentError::io(format!("cannot open {}", path_of_lock.display())))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(AgentError::AlreadyRunning(path.into())),
        Err(error) => Err(AgentError::io(format!("cannot lock {}", path_of_lock.display()))(error.into())),
    }
}

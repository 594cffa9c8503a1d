//! The connection of one element to the agent, without async: a thread that reads, one that writes.
//!
//! ```text
//!  element --send--> Outbox (bounded) --writer--> socket --reader--> Client::message
//!                                                   |
//!                                       lost: Client::down, then again with back-off, Client::up
//! ```

use std::{
    io::{Read, Write},
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::{self, JoinHandle},
    time::Duration,
};

use meeting_protocol::local::{self, FromAgent, Purpose, ToAgent};
use meeting_wire::{Decode, MeetingId};
use rustix::{
    net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt},
    process::geteuid,
};
use zeroize::Zeroizing;

use crate::{lock::lock, outbox::Outbox};

/// Why there is no connection. The text is for a person and says what to type.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Nobody listens on the socket.
    #[error("no agent is running (nothing answers on {0}): start one with `meeting-agent run`")]
    NoAgent(PathBuf),
    /// Somebody else could have put the socket there.
    #[error(
        "the directory of {0} can be written by others: `chmod 700` it and start `meeting-agent run` anew"
    )]
    Exposed(PathBuf),
    /// The process behind the socket is another user's.
    #[error(
        "the agent on {0} belongs to another user: start your own with `meeting-agent run`, or have theirs serve \
         your group (`run --group`, a directory outside /tmp)"
    )]
    Stranger(PathBuf),
    /// It accepted and said nothing.
    #[error("the agent on {0} does not answer: stop it and start it anew with `meeting-agent run`")]
    Silent(PathBuf),
    /// Agent and plugin are from different versions.
    #[error("the agent on {0} speaks another version: install agent and plugin of the same release")]
    Version(PathBuf),
    /// The agent said no and why.
    #[error("{0}")]
    Refused(String),
}

/// What an element does with its connection. Called from the link's thread, never from two at once.
pub trait Client: Send + Sync + 'static {
    /// What to connect for, also when connecting again.
    fn purpose(&self) -> Purpose;
    /// How long the agent may take to answer when connecting again.
    fn patience(&self) -> Duration {
        PATIENCE
    }
    /// Connected again after [`down`](Self::down), to this meeting: say everything anew.
    fn up(&self, meeting: MeetingId);
    /// The agent said something.
    fn message(&self, message: FromAgent);
    /// The connection is lost; the next attempt follows by itself.
    fn down(&self, why: &str);
}

/// A connection that comes back by itself until it is dropped.
pub struct Link {
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    path: PathBuf,
    live: Mutex<Live>,
    stopping: Condvar,
}

#[derive(Default)]
struct Live {
    stop: bool,
    socket: Option<UnixStream>,
}

impl Link {
    /// Serves `client` from a thread named `name`, first over `connection`, if there is one. `outbox` is what the
    /// element writes to.
    ///
    /// # Errors
    ///
    /// [`LinkError`] if there is no thread to be had.
    pub fn open(
        name: &str,
        path: PathBuf,
        outbox: Arc<Outbox>,
        connection: impl Into<Option<Connection>>,
        client: Arc<dyn Client>,
    ) -> Result<Self, LinkError> {
        let shared = Arc::new(Shared { path, live: Mutex::default(), stopping: Condvar::new() });
        let (inside, writes) = (shared.clone(), outbox.clone());
        let first = connection.into();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || inside.run(first, &writes, &*client))
            .map_err(|_| LinkError::Silent(shared.path.clone()))?;
        Ok(Self { shared, outbox, thread: Some(thread) })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.outbox.drain(LAST_WORDS);
        {
            let mut live = self.shared.live();
            live.stop = true;
            if let Some(socket) = live.socket.take() {
                let _ = socket.shutdown(std::net::Shutdown::Both);
            }
        }
        self.outbox.close();
        self.shared.stopping.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn live(&self) -> MutexGuard<'_, Live> {
        lock(&self.live)
    }

    fn run(&self, first: Option<Connection>, outbox: &Arc<Outbox>, client: &dyn Client) {
        let mut next = first;
        let mut backoff = FIRST_BACKOFF;
        let mut again = next.is_none();
        while !self.live().stop {
            let attempt = match next.take() {
                Some(connection) => Ok(connection),
                None => Connection::open(&self.path, client.purpose(), client.patience()),
            };
            match attempt {
                Ok(connection) => {
                    backoff = FIRST_BACKOFF;
                    if !self.serve(connection, outbox, client, again) {
                        return;
                    }
                    client.down("the connection to the agent is lost: is `meeting-agent run` still running?");
                }
                Err(error) => client.down(&error.to_string()),
            }
            again = true;
            let live = self.live();
            let waited = self.stopping.wait_timeout_while(live, backoff, |live| !live.stop);
            drop(waited);
            backoff = (backoff * 2).min(LAST_BACKOFF);
        }
    }

    /// Serves one connection to its end. Gives false if it ended because the element wants it to.
    fn serve(&self, connection: Connection, outbox: &Arc<Outbox>, client: &dyn Client, again: bool) -> bool {
        let Connection { mut socket, meeting } = connection;
        let (Ok(held), Ok(mut writing)) = (socket.try_clone(), socket.try_clone()) else { return true };
        {
            let mut live = self.live();
            if live.stop {
                return false;
            }
            live.socket = Some(held);
        }
        if again {
            outbox.reopen();
            client.up(meeting);
        }
        let queue = outbox.clone();
        let writer = thread::Builder::new().name("e2ee-writer".into()).spawn(move || {
            while let Some(bytes) = queue.pop() {
                if writing.write_all(&bytes).is_err() {
                    break;
                }
            }
            let _ = writing.shutdown(std::net::Shutdown::Both);
        });
        while let Some(message) = read(&mut socket) {
            client.message(message);
        }
        let _ = socket.shutdown(std::net::Shutdown::Both);
        outbox.close();
        if let Ok(writer) = writer {
            let _ = writer.join();
        }
        let mut live = self.live();
        live.socket = None;
        !live.stop
    }
}

/// A socket whose other end has said [`FromAgent::Welcome`].
pub struct Connection {
    socket: UnixStream,
    /// The meeting it serves.
    pub meeting: MeetingId,
}

impl Connection {
    /// Connects to the agent on `path` and says what for.
    ///
    /// # Errors
    ///
    /// [`LinkError`], within `patience`.
    pub fn open(path: &Path, purpose: Purpose, patience: Duration) -> Result<Self, LinkError> {
        let here = || path.to_owned();
        let no_agent = |_: std::io::Error| LinkError::NoAgent(here());
        let folder = path.parent().ok_or_else(|| LinkError::NoAgent(here()))?;
        let folder = folder.canonicalize().map_err(no_agent)?;
        let meta = folder.metadata().map_err(no_agent)?;
        let folder = local::Directory { path: folder, owner: meta.uid(), mode: meta.mode() };
        if folder.mode & 0o022 != 0 {
            return Err(LinkError::Exposed(here()));
        }

        // To be let in takes an agent no time; to answer may.
        let mut socket = connect(path, patience / 4).map_err(|error| no_agent(error.into()))?;
        let peer = sockopt::socket_peercred(&socket).map_err(|error| no_agent(error.into()))?;
        let us = geteuid().as_raw();
        if !local::trusts(us, peer.uid.as_raw(), &folder) {
            let ours = folder.owner == us || folder.owner == 0;
            return Err(if ours { LinkError::Stranger(here()) } else { LinkError::Exposed(here()) });
        }

        let hello = ToAgent::Hello { version: local::VERSION, purpose };
        socket.set_read_timeout(Some(patience * 3 / 4)).map_err(no_agent)?;
        socket.write_all(&local::packed(&hello)).map_err(|_| LinkError::Silent(here()))?;
        let answer = read(&mut socket).ok_or_else(|| LinkError::Silent(here()))?;
        socket.set_read_timeout(None).map_err(no_agent)?;
        socket.set_write_timeout(None).map_err(no_agent)?;
        match answer {
            FromAgent::Welcome { version: local::VERSION, meeting } => Ok(Self { socket, meeting }),
            FromAgent::Refused { text } => Err(LinkError::Refused(text)),
            _ => Err(LinkError::Version(here())),
        }
    }
}

/// A Unix socket's `connect` waits while the listener's queue is full, so the time limit is set first.
fn connect(path: &Path, patience: Duration) -> rustix::io::Result<UnixStream> {
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(patience))?;
    net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixStream::from(socket))
}

fn read(socket: &mut UnixStream) -> Option<FromAgent> {
    let mut len = [0; 4];
    socket.read_exact(&mut len).ok()?;
    let mut body = Zeroizing::new(vec![0; local::message_len(len).ok()?]);
    socket.read_exact(&mut body).ok()?;
    FromAgent::from_bytes(&body).ok()
}

/// How long an agent may take to read what was said before the connection is closed.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Under the 2 s within which an element says what is wrong.
pub const PATIENCE: Duration = Duration::from_millis(1800);
/// The first pause before connecting again, each one doubled after it: an agent whose stay ended is there again at once.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The longest pause: an element notices an agent that was started anew within 2 s.
const LAST_BACKOFF: Duration = Duration::from_secs(2);

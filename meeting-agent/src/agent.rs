//! The daemon, put together once: identity, socket, meetings.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use meeting_protocol::{
    identity::DeviceKey,
    link::MeetingLink,
    session::{Role, Successors},
};
use meeting_wire::MeetingId;
use tracing::info;

use crate::{
    clock,
    config::Config,
    error::AgentError,
    identity_file, local,
    meeting::{Creator, Meeting, Plan, Start, ToMeeting},
    relay_link,
};

/// A daemon that listens.
pub struct Agent {
    listener: local::Listener,
    shared: Arc<Shared>,
}

/// What every local connection can reach.
pub struct Shared {
    /// Paths and limits.
    pub config: Config,
    device: Arc<DeviceKey>,
    meetings: Mutex<BTreeMap<MeetingId, Meeting>>,
    connections: AtomicU64,
}

/// How to be shown in a meeting.
pub struct Who {
    /// The display name, else the daemon's.
    pub name: Option<String>,
    /// What for.
    pub role: Role,
    /// Whether to use a fresh device key.
    pub guest: bool,
}

impl Agent {
    /// Reads or makes the device key and opens the socket.
    pub fn bind(config: Config) -> Result<Self, AgentError> {
        clock::rng()?;
        let device = identity_file::load_or_create(&config.state)?;
        let listener = local::Listener::bind(&config.socket, config.group)?;
        // no path: people name folders after people
        info!(device = %device.public().fingerprint(), "listening");
        let shared = Shared { config, device, meetings: Mutex::default(), connections: AtomicU64::new(1) };
        Ok(Self { listener, shared: Arc::new(shared) })
    }

    /// Serves until `shutdown` is done, then leaves every meeting.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
        tokio::select! {
            () = shutdown => {}
            result = self.listener.serve(&self.shared) => result?,
        }
        let meetings = std::mem::take(&mut *self.shared.lock());
        info!(meetings = meetings.len(), "leaving");
        let leaving: Vec<_> = meetings
            .into_values()
            .map(|meeting| tokio::spawn(async move { meeting.ask(ToMeeting::Leave).await }))
            .collect();
        let _ = tokio::time::timeout(PARTING, async {
            for left in leaving {
                let _ = left.await;
            }
        })
        .await;
        Ok(())
    }
}

impl Shared {
    /// Opens a new meeting and leads it.
    pub fn create(
        &self,
        relay: String,
        certificate: Option<[u8; 32]>,
        creator: Creator,
        who: Who,
    ) -> Result<(Meeting, MeetingLink), AgentError> {
        relay_link::address(&relay)?;
        let device = self.device(who.guest)?;
        let link = MeetingLink::new(relay, device.public().fingerprint(), certificate, &mut clock::rng()?);
        let copy = link.duplicate();
        Ok((self.start(link, device, Some(creator), who, Start::Create)?, copy))
    }

    /// Asks for a place; on the creator's own device, leads if nobody does.
    pub fn join(&self, link: MeetingLink, who: Who) -> Result<Meeting, AgentError> {
        relay_link::address(&link.relay)?;
        let device = self.device(who.guest)?;
        let ours = link.creator == device.public().fingerprint();
        let creator = ours.then(|| Creator { token: String::new(), successors: Successors::default() });
        self.start(link, device, creator, who, Start::Join)
    }

    fn start(
        &self,
        link: MeetingLink,
        device: Arc<DeviceKey>,
        creator: Option<Creator>,
        who: Who,
        start: Start,
    ) -> Result<Meeting, AgentError> {
        let id = link.meeting;
        let mut meetings = self.lock();
        if meetings.get(&id).is_some_and(|meeting| !meeting.ended()) {
            return Err(AgentError::Refused(format!(
                "this agent is in meeting {id} already: `meeting-agent leave` first, or use an agent of its own \
                 (`--socket` and `--state`)"
            )));
        }
        if meetings.len() >= MAX_MEETINGS {
            meetings.retain(|_, meeting| !meeting.ended());
        }
        if meetings.len() >= MAX_MEETINGS {
            return Err(AgentError::Refused(format!(
                "this agent is in {MAX_MEETINGS} meetings, which is the most: `meeting-agent leave` one first"
            )));
        }
        let name = who.name.unwrap_or_else(|| self.config.name.clone());
        if name.trim().is_empty() || name.len() > MAX_NAME {
            return Err(AgentError::Refused(format!(
                "a display name has 1 to {MAX_NAME} bytes: `--name NAME` sets it"
            )));
        }
        let state = self.config.state.clone();
        let meeting = Meeting::start(Plan { link, device, name, role: who.role, state, creator }, start)?;
        meetings.insert(id, meeting.clone());
        Ok(meeting)
    }

    /// The meeting that a person or element means: by the start of its id, or the only one.
    pub fn select(&self, wanted: Option<&str>) -> Result<Meeting, String> {
        let meetings = self.lock();
        let matching = |live_only: bool| -> Vec<&Meeting> {
            meetings
                .values()
                .filter(|meeting| wanted.is_none_or(|start| meeting.id.to_string().starts_with(start)))
                .filter(|meeting| !live_only || !meeting.ended())
                .collect()
        };
        let mut found = matching(true);
        if found.is_empty() {
            found = matching(false);
        }
        match (&found[..], wanted) {
            ([meeting], _) => Ok((*meeting).clone()),
            ([], None) => Err("this agent is in no meeting: `meeting-agent join` with a link, or \
                               `meeting-agent create --relay HOST:PORT`"
                .into()),
            ([], Some(_)) => Err(format!(
                "this agent is in no such meeting ({}): `meeting-agent join` with its link",
                if meetings.is_empty() {
                    "nor in any other".into()
                } else {
                    format!("it is in {}", list(meetings.values()))
                }
            )),
            _ => Err(format!(
                "this agent is in several meetings: say which with `--meeting ID` (elements: `meeting=ID`): {}",
                list(found.into_iter())
            )),
        }
    }

    /// Takes a meeting that was left off the list.
    pub fn forget(&self, id: MeetingId) {
        self.lock().remove(&id);
    }

    /// A number for a local connection.
    pub fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    fn device(&self, guest: bool) -> Result<Arc<DeviceKey>, AgentError> {
        if guest { identity_file::guest() } else { Ok(self.device.clone()) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<MeetingId, Meeting>> {
        self.meetings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn list<'a>(meetings: impl Iterator<Item = &'a Meeting>) -> String {
    let ids: Vec<String> = meetings.map(|meeting| meeting.id.to_string()).collect();
    ids.join(", ")
}

/// Meetings at once: a switchboard's worth, each with a connection of its own.
const MAX_MEETINGS: usize = 64;
/// The longest display name in bytes (PROTOCOL.md 3).
const MAX_NAME: usize = 64;
/// How long leaving may take when the daemon stops.
const PARTING: Duration = Duration::from_secs(3);

//! One joined meeting: the handle that others hold, and the plan of how to be in it.
//!
//! ```text
//!  command line, elements --ToMeeting--> driver --feeds, drains--> Session
//!  relay link          --LinkEvent-->      |
//!                                          +--> relay link, key holders, watching, publisher
//! ```

mod driver;

pub use driver::TRYING;

use std::{path::PathBuf, sync::Arc};

use meeting_protocol::{
    identity::DeviceKey,
    link::MeetingLink,
    local::ToAgent,
    session::{Role, Successors},
};
use meeting_wire::{MeetingId, ParticipantId, StreamId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    control::Status, counters::Counters, error::AgentError, keyholders, local::Pace, publish::Publisher,
    relay_link::Media, task::Task, watch::Watcher, watch::Watching,
};

/// How to be in a meeting, again and again if need be.
pub struct Plan {
    /// Where and with which secret.
    pub link: MeetingLink,
    /// Signs announces.
    pub device: Arc<DeviceKey>,
    /// The display name.
    pub name: String,
    /// What for.
    pub role: Role,
    /// Where evidence is kept.
    pub state: PathBuf,
    /// On the creator's device, what it takes to open the meeting.
    pub creator: Option<Creator>,
}

/// What only a meeting's creator has.
#[derive(Clone, Debug)]
pub struct Creator {
    /// The relay's token, empty for a relay in development mode.
    pub token: String,
    /// Who may take over.
    pub successors: Successors,
}

/// How a stay begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Opens a new instance and leads it.
    Create,
    /// Asks for a place; a creator that finds no leader creates.
    Join,
}

/// What others want of a meeting.
pub enum ToMeeting {
    /// The user wants something done; the answer is a sentence either way.
    User(UserCommand, oneshot::Sender<Result<String, String>>),
    /// The user leaves, or the daemon stops.
    Leave(oneshot::Sender<()>),
    /// A glance.
    Look(oneshot::Sender<Status>),
    /// A connection that holds keys, of this user.
    Keys(u64, u32, mpsc::Sender<keyholders::Packed>),
    /// What such a connection says.
    Said(u64, ToAgent),
    /// Such a connection is gone.
    KeysGone(u64),
    /// A connection that watches.
    Watch(u64, Watcher),
    /// It is gone.
    WatchGone(u64),
    /// It needs a keyframe.
    Keyframe(ParticipantId, StreamId),
    /// The last frames of a closed stream are with the relay.
    Drained(StreamId),
}

/// What a user can want done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserCommand {
    /// Removes somebody, by name or id.
    Remove(String),
    /// Makes a new key.
    Rotate,
    /// Lets nobody new in, or does.
    Lock(bool),
    /// Lets somebody in, by name or id.
    Approve(String),
    /// The code over the roster as it is now.
    RosterCode,
    /// Takes down that these digits are the leader's, or (none) that the codes differ.
    Verify(Option<String>),
}

/// Phase and detail, for those who wait for a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// `joining`, `live`, `stale` or `ended`.
    pub phase: &'static str,
    /// For a person.
    pub detail: String,
}

/// A joined meeting, for everybody who deals with it. Dropped by all, the meeting ends without a goodbye.
#[derive(Clone)]
pub struct Meeting {
    /// Which.
    pub id: MeetingId,
    /// To its driver.
    pub commands: mpsc::Sender<ToMeeting>,
    /// Where it stands.
    pub glance: watch::Receiver<Glance>,
    /// Frames out, past the driver.
    pub publisher: Arc<Publisher>,
    /// How fast pipelines may have wishes.
    pub pace: Arc<Pace>,
    _driver: Arc<Task>,
}

impl Meeting {
    /// Starts being in a meeting.
    pub fn start(plan: Plan, start: Start) -> Result<Self, AgentError> {
        let id = plan.link.meeting;
        let counters = Arc::new(Counters::default());
        let publisher = Publisher::new(counters.clone());
        let (beacons, to_check) = mpsc::channel(QUEUED);
        let watching = Watching::new(counters.clone(), beacons);
        let (commands, wishes) = mpsc::channel(QUEUED);
        let (seen, glance) = watch::channel(Glance { phase: "joining", detail: String::new() });
        let media = Media { publisher: publisher.clone(), watching };
        let driver = driver::Driver::new(
            plan,
            start,
            (media, to_check),
            counters,
            wishes,
            commands.downgrade(),
            seen,
        )?;
        let pace = Arc::default();
        Ok(Self { id, commands, glance, publisher, pace, _driver: Arc::new(Task::spawn(driver.run())) })
    }

    /// Whether it is over for this device.
    pub fn ended(&self) -> bool {
        self.commands.is_closed() || self.glance.borrow().phase == "ended"
    }

    /// Asks the driver and waits for its answer; none when it has ended.
    pub async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> ToMeeting) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(question(answer)).await.ok()?;
        answered.await.ok()
    }
}

/// Wishes that wait for the driver; who sends more waits too.
const QUEUED: usize = 256;

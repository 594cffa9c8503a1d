//! The keys that the agent gave one `meetingkey`, as the sealing and opening elements in its reach share them.
//!
//! ```text
//!  link thread --apply--> KeyStore --take_key, rules--> e2eeseal   (each key once)
//!                            |  '-----find, rules-----> e2eeopen   (a duplicate for each)
//!                            '--Uplink--> agent, or the loopback
//! ```
//!
//! Elements remember [`KeyStore::generation`] and lock only when it has moved.
//!
//! - `sealing.rs` is what a sealing element has of it, `opening.rs` what an opening one has.
//! - `archive.rs` holds the keys of a key file, which are there in place of an agent's.

mod archive;
mod opening;
mod sealing;
#[cfg(test)]
mod tests;

pub use archive::{Archive, ArchiveError};
pub use opening::{Found, Sender};
pub use sealing::{NewKey, SealStream, Stated};

use std::{
    collections::HashMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use meeting_protocol::{
    BootTime,
    frame::{CipherSuite, OpenKey, Rules, SealKey},
    local::{FromAgent, ToAgent},
};
use meeting_wire::MeetingId;

use self::{opening::OpenKeys, sealing::Sealing};
use crate::lock::lock;

/// Where the store's wishes go: the agent, or the loopback.
pub trait Uplink: Send + Sync {
    /// Passes a message on; one that cannot be sent is lost.
    fn send(&self, message: ToAgent);
}

/// The keys of one meeting in this process.
pub struct KeyStore {
    meeting: MeetingId,
    /// Everything sealed here is opened here: openers may know what sealers were told.
    local: bool,
    generation: AtomicU64,
    inner: Mutex<Inner>,
    changed: Condvar,
    uplink: OnceLock<Box<dyn Uplink>>,
}

#[derive(Default)]
struct Inner {
    closed: bool,
    rules: Rules,
    next_request: u32,
    /// By the request for each.
    seals: HashMap<u32, Sealing>,
    opens: OpenKeys,
    archive: Option<Arc<Archive>>,
    want_open: bool,
}

impl KeyStore {
    /// A store without keys, which allows nothing until a lease comes. `local`: of the loopback.
    pub fn new(meeting: MeetingId, local: bool) -> Arc<Self> {
        Arc::new(Self {
            meeting,
            local,
            generation: AtomicU64::new(1),
            inner: Mutex::default(),
            changed: Condvar::new(),
            uplink: OnceLock::new(),
        })
    }

    /// A store of the keys in a key file, good for ever.
    pub fn of_archive(meeting: MeetingId, archive: Archive) -> Arc<Self> {
        let store = Self::new(meeting, false);
        {
            let mut inner = store.inner();
            inner.archive = Some(Arc::new(archive));
            inner.rules.until = for_ever();
        }
        store
    }

    /// The keys of a key file, if it holds those.
    pub fn archive(&self) -> Option<Arc<Archive>> {
        self.inner().archive.clone()
    }

    /// Says where wishes go; once.
    pub fn attach(&self, uplink: Box<dyn Uplink>) {
        let _ = self.uplink.set(uplink);
    }

    /// The meeting.
    pub fn meeting(&self) -> MeetingId {
        self.meeting
    }

    /// Moves with every change.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether `meetingkey` is gone.
    pub fn is_closed(&self) -> bool {
        self.inner().closed
    }

    /// Until when and for which epochs sealing and opening is allowed.
    pub fn rules(&self) -> Rules {
        self.inner().rules.clone()
    }

    /// Takes in what the agent said.
    pub fn apply(&self, message: FromAgent) {
        let mut inner = self.inner();
        if inner.closed {
            return;
        }
        let reply = inner.apply(message);
        self.publish(inner);
        if let Some(reply) = reply {
            self.send(reply);
        }
    }

    /// The connection is back: every stream is opened anew, under new instance ids. The agent may be another one, in
    /// another instance of the meeting, so nothing is allowed before it says so.
    pub fn reconnected(&self) {
        let mut wishes = Vec::new();
        let mut inner = self.inner();
        for (request, sealing) in &mut inner.seals {
            wishes.push(sealing.again(*request));
        }
        inner.rules = Rules::default();
        inner.opens.doubt();
        if inner.want_open {
            wishes.push(ToAgent::WantOpenKeys);
        }
        self.publish(inner);
        wishes.into_iter().for_each(|wish| self.send(wish));
    }

    /// Wipes all keys and allows nothing more.
    pub fn close(&self) {
        let mut inner = self.inner();
        *inner = Inner { closed: true, ..Inner::default() };
        self.publish(inner);
    }

    /// Makes waiting elements look at what cancels them.
    pub fn wake(&self) {
        drop(self.inner());
        self.changed.notify_all();
    }

    fn wait_until<T>(&self, deadline: Instant, mut done: impl FnMut(&mut Inner) -> Option<T>) -> Option<T> {
        let mut inner = self.inner();
        loop {
            if let Some(found) = done(&mut inner) {
                return Some(found);
            }
            let left =
                deadline.checked_duration_since(Instant::now()).filter(|left| *left > Duration::ZERO)?;
            inner = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn publish(&self, inner: MutexGuard<'_, Inner>) {
        self.generation.fetch_add(1, Ordering::Release);
        drop(inner);
        self.changed.notify_all();
    }

    fn send(&self, message: ToAgent) {
        if let Some(uplink) = self.uplink.get() {
            uplink.send(message);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

impl Inner {
    /// Gives what is to be answered.
    fn apply(&mut self, message: FromAgent) -> Option<ToAgent> {
        match message {
            FromAgent::StreamOpened { request, stream, track } => match self.seals.get_mut(&request) {
                Some(sealing) => return sealing.opened(stream, track),
                // Its element has gone in the meantime.
                None => return Some(ToAgent::CloseStream { stream }),
            },
            FromAgent::StreamRefused { request, text } => {
                if let Some(sealing) = self.seals.get_mut(&request) {
                    sealing.refuse(text);
                }
            }
            FromAgent::SealKey { stream, epoch, kid, suite, base_key, keyframe } => {
                let suite = CipherSuite::try_from(suite).ok()?;
                let sealing = self.seals.values_mut().find(|sealing| sealing.is(stream))?;
                sealing.give(NewKey { epoch, key: SealKey::new(kid, suite, base_key), keyframe });
            }
            FromAgent::Retire { before, at } => self.rules.retire(before, at),
            FromAgent::Lease { until } => self.rules.until = until,
            FromAgent::OpenKey { from, name, track, epoch, kid, suite, base_key, floor, .. } => {
                let suite = CipherSuite::try_from(suite).ok()?;
                let who = Sender { participant: from, name, track };
                self.opens.insert(OpenKey { kid, suite, base_key, floor }, epoch, who);
            }
            FromAgent::CloseKey { from, stream } => self.opens.close(from, stream),
            FromAgent::Expire { before } => self.opens.expire(before),
            _ => {}
        }
        None
    }
}

impl std::fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyStore").field("meeting", &self.meeting).finish_non_exhaustive()
    }
}

/// A lease without end, for keys that no agent stands behind: the loopback's, and those of a key file.
pub fn for_ever() -> BootTime {
    BootTime(u64::MAX)
}

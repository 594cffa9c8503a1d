//! The keys that the agent gave one `meetingkey`, as the sealing and opening elements in its reach share them.
//!
//! ```text
//!  link thread --apply--> KeyStore --take_key, rules--> e2eeseal   (each key once)
//!                            |  '-----find, rules-----> e2eeopen   (a duplicate for each)
//!                            '--Uplink--> agent, or the loopback
//! ```
//!
//! Elements remember [`KeyStore::generation`] and lock only when it has moved.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use meeting_protocol::{
    BootTime,
    frame::{CipherSuite, KeyId, Lease, OpenKey, Rules},
    local::{FromAgent, ToAgent},
    secret::Secret,
};
use meeting_wire::{Kind, MeetingId, ParticipantId, StreamId};

use crate::recording::Archive;

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
    serial: u64,
    seals: HashMap<u32, Slot>,
    opens: HashMap<KeyId, Entry>,
    archive: Option<Arc<Archive>>,
    want_open: bool,
}

/// Caps with all codec headers, as a stream's statement has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stated {
    /// Their number in this stream.
    pub version: u32,
    /// As a string, the number included.
    pub caps: String,
}

/// A stream that an element of ours seals.
struct Slot {
    kind: Kind,
    track: String,
    stated: Stated,
    /// What was stated before, the newest last: an opener of the loopback may lag behind.
    before: VecDeque<Stated>,
    /// The version of the caps that the agent has heard of.
    told: u32,
    stream: Option<StreamId>,
    key: Option<SealKey>,
    refused: Option<String>,
    /// The connection was lost since: what was given before is not good any more.
    reset: bool,
}

/// A key to seal with, given once.
pub struct SealKey {
    /// Its epoch.
    pub epoch: u64,
    /// The right to seal with it.
    pub lease: Lease,
    /// Somebody joined: the encoder should make a keyframe.
    pub keyframe: bool,
}

struct Entry {
    who: Arc<Sender>,
    epoch: u64,
    serial: u64,
    suite: CipherSuite,
    base_key: Secret<32>,
    floor: u64,
}

/// Whose stream a key opens.
#[derive(Debug, PartialEq, Eq)]
pub struct Sender {
    /// Who seals it.
    pub participant: ParticipantId,
    /// Their name, as the roster has it.
    pub name: String,
    /// The stream's label.
    pub track: String,
}

/// A key to open with.
pub struct Found {
    /// A duplicate for one opener.
    pub key: OpenKey,
    /// Whose frames it opens.
    pub who: Arc<Sender>,
    /// Differs from that of every other key there was.
    pub serial: u64,
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
            inner.rules.until = never();
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
        for (request, slot) in &mut inner.seals {
            slot.stream = None;
            slot.key = None;
            slot.reset = true;
            slot.told = slot.stated.version;
            wishes.push(slot.wish(*request));
        }
        inner.rules = Rules::default();
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

    /// Asks for a stream to seal.
    pub fn open_stream(self: &Arc<Self>, kind: Kind, track: &str, stated: Stated) -> SealStream {
        let mut inner = self.inner();
        inner.next_request += 1;
        let request = inner.next_request;
        let slot = Slot {
            kind,
            track: track.to_owned(),
            told: stated.version,
            stated,
            before: VecDeque::new(),
            stream: None,
            key: None,
            refused: None,
            reset: false,
        };
        let wish = slot.wish(request);
        inner.seals.insert(request, slot);
        drop(inner);
        self.send(wish);
        SealStream { store: self.clone(), request }
    }

    /// Asks for the keys of everybody's streams, if nobody has yet.
    pub fn want_open_keys(&self) {
        if !std::mem::replace(&mut self.inner().want_open, true) {
            self.send(ToAgent::WantOpenKeys);
        }
    }

    /// A key to open with.
    pub fn find(&self, kid: KeyId) -> Option<Found> {
        self.inner().find(kid)
    }

    /// As [`find`](Self::find), waiting for the key until `deadline` or until `cancelled`.
    pub fn wait_for(&self, kid: KeyId, deadline: Instant, cancelled: impl Fn() -> bool) -> Option<Found> {
        self.wait_until(deadline, |inner| inner.find(kid).map(Some).or_else(|| cancelled().then_some(None)))
            .flatten()
    }

    /// Whether the key is still the one it was.
    pub fn holds(&self, kid: KeyId, serial: u64) -> bool {
        let inner = self.inner();
        inner.archive.is_some() || inner.opens.get(&kid).is_some_and(|entry| entry.serial == serial)
    }

    /// Tells the agent which counters were opened. `last`: the opener is gone, and its successor starts here.
    pub fn report_floor(&self, kid: KeyId, floor: u64, last: bool) {
        let mut inner = self.inner();
        let Some(entry) = inner.opens.get_mut(&kid) else { return };
        if last {
            entry.floor = entry.floor.max(floor);
        }
        let from = entry.who.participant;
        drop(inner);
        self.send(ToAgent::Floor { from, kid, floor });
    }

    /// The caps of a stream that is sealed in this process; of the loopback only.
    pub fn stated(&self, stream: StreamId, version: u32) -> Option<String> {
        let inner = self.inner();
        let slot = inner.seals.values().find(|slot| self.local && slot.stream == Some(stream))?;
        let mut all = slot.before.iter().chain([&slot.stated]);
        all.find(|stated| stated.version == version).map(|stated| stated.caps.clone())
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
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Gives what is to be answered.
    fn apply(&mut self, message: FromAgent) -> Option<ToAgent> {
        match message {
            FromAgent::StreamOpened { request, stream, track } => match self.seals.get_mut(&request) {
                Some(slot) => {
                    slot.stream = Some(stream);
                    slot.track = track;
                    // The caps may have changed while the answer was on its way.
                    return slot.news();
                }
                // Its element has gone in the meantime.
                None => return Some(ToAgent::CloseStream { stream }),
            },
            FromAgent::StreamRefused { request, text } => {
                if let Some(slot) = self.seals.get_mut(&request) {
                    slot.refused = Some(text);
                }
            }
            FromAgent::SealKey { stream, epoch, kid, suite, base_key, keyframe } => {
                let suite = CipherSuite::try_from(suite).ok()?;
                let slot = self.seals.values_mut().find(|slot| slot.stream == Some(stream))?;
                let missed = slot.key.as_ref().is_some_and(|key| key.keyframe);
                let lease = Lease::new(kid, suite, base_key);
                slot.key = Some(SealKey { epoch, lease, keyframe: keyframe || missed });
            }
            FromAgent::Retire { before, at } => self.rules.retire(before, at),
            FromAgent::Lease { until } => self.rules.until = until,
            FromAgent::OpenKey { from, name, track, epoch, kid, suite, base_key, floor, .. } => {
                let suite = CipherSuite::try_from(suite).ok()?;
                let who = Sender { participant: from, name, track };
                self.insert_open(kid, epoch, suite, base_key, floor, who);
            }
            FromAgent::CloseKey { from, stream } => {
                self.opens.retain(|kid, entry| kid.stream() != stream || entry.who.participant != from);
            }
            FromAgent::Expire { before } => self.opens.retain(|_, entry| entry.epoch >= before),
            _ => {}
        }
        None
    }

    fn insert_open(
        &mut self,
        kid: KeyId,
        epoch: u64,
        suite: CipherSuite,
        base_key: Secret<32>,
        floor: u64,
        who: Sender,
    ) {
        let old = self.opens.remove(&kid);
        let same = old.filter(|old| old.base_key.ct_eq(base_key.expose()));
        let serial = same.as_ref().map_or(self.serial + 1, |same| same.serial);
        self.serial = self.serial.max(serial);
        let floor = same.map_or(floor, |same| same.floor.max(floor));
        if self.opens.len() >= MAX_OPEN
            && let Some(oldest) = self.opens.iter().min_by_key(|(_, entry)| entry.serial).map(|(kid, _)| *kid)
        {
            self.opens.remove(&oldest);
        }
        self.opens.insert(kid, Entry { who: Arc::new(who), epoch, serial, suite, base_key, floor });
    }

    fn find(&self, kid: KeyId) -> Option<Found> {
        let entry = self.opens.get(&kid)?;
        let key =
            OpenKey { kid, suite: entry.suite, base_key: entry.base_key.duplicate(), floor: entry.floor };
        Some(Found { key, who: entry.who.clone(), serial: entry.serial })
    }
}

impl Slot {
    fn wish(&self, request: u32) -> ToAgent {
        ToAgent::OpenStream {
            request,
            kind: self.kind,
            track: self.track.clone(),
            caps: self.stated.caps.clone(),
            random: crate::random::bytes(),
        }
    }

    /// Caps that the agent has not heard of, once it can place them.
    fn news(&mut self) -> Option<ToAgent> {
        let stream = self.stream.filter(|_| self.told != self.stated.version)?;
        self.told = self.stated.version;
        Some(ToAgent::StreamCaps { stream, caps: self.stated.caps.clone() })
    }
}

/// One stream that is being sealed; dropping it closes the stream for good.
pub struct SealStream {
    store: Arc<KeyStore>,
    request: u32,
}

impl SealStream {
    /// The key that has come since the last call.
    pub fn take_key(&self) -> Option<SealKey> {
        self.store.inner().seals.get_mut(&self.request)?.key.take()
    }

    /// Whether keys taken earlier must not be used any more; said once.
    pub fn take_reset(&self) -> bool {
        let mut inner = self.store.inner();
        inner.seals.get_mut(&self.request).is_some_and(|slot| std::mem::take(&mut slot.reset))
    }

    /// Waits until there is a key to take, the stream is refused, or `cancelled`; at most until `deadline`.
    pub fn wait(&self, deadline: Instant, cancelled: impl Fn() -> bool) {
        self.store.wait_until(deadline, |inner| {
            let slot = inner.seals.get(&self.request);
            let settled = slot.is_none_or(|slot| slot.key.is_some() || slot.refused.is_some());
            (settled || cancelled()).then_some(())
        });
    }

    /// Why the agent gives no stream; said once.
    pub fn take_refusal(&self) -> Option<String> {
        self.store.inner().seals.get_mut(&self.request)?.refused.take()
    }

    /// The label in force, once the agent has chosen it.
    pub fn label(&self) -> Option<String> {
        let inner = self.store.inner();
        inner.seals.get(&self.request).filter(|slot| slot.stream.is_some()).map(|slot| slot.track.clone())
    }

    /// The caps have changed.
    pub fn set_caps(&self, stated: Stated) {
        let mut inner = self.store.inner();
        let Some(slot) = inner.seals.get_mut(&self.request) else { return };
        if slot.stated == stated {
            return;
        }
        let old = std::mem::replace(&mut slot.stated, stated);
        slot.before.push_back(old);
        if slot.before.len() > MAX_BEFORE {
            slot.before.pop_front();
        }
        let news = slot.news();
        drop(inner);
        if let Some(news) = news {
            self.store.send(news);
        }
    }
}

impl Drop for SealStream {
    fn drop(&mut self) {
        let slot = self.store.inner().seals.remove(&self.request);
        if let Some(stream) = slot.and_then(|slot| slot.stream) {
            self.store.send(ToAgent::CloseStream { stream });
        }
    }
}

/// As many caps of a stream as an envelope tells apart.
const MAX_BEFORE: usize = 7;
/// Keys to open in one process: 1,000 participants with four streams, four epochs each.
const MAX_OPEN: usize = 16 * 1024;

impl std::fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyStore").field("meeting", &self.meeting).finish_non_exhaustive()
    }
}

/// The moment from which nothing more is allowed without word from the agent.
pub fn never() -> BootTime {
    BootTime(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<ToAgent>>>);

    impl Uplink for Heard {
        fn send(&self, message: ToAgent) {
            self.0.lock().expect("heard").push(message);
        }
    }

    impl Heard {
        fn caps(&self) -> Vec<String> {
            let heard = std::mem::take(&mut *self.0.lock().expect("heard"));
            let caps = heard.into_iter().filter_map(|message| match message {
                ToAgent::OpenStream { caps, .. } | ToAgent::StreamCaps { caps, .. } => Some(caps),
                _ => None,
            });
            caps.collect()
        }
    }

    fn stated(version: u32) -> Stated {
        Stated { version, caps: format!("x/n{version}") }
    }

    #[test]
    fn caps_that_change_before_the_stream_is_open_are_stated_when_it_is() {
        let (store, heard) = (KeyStore::new(MeetingId([1; 16]), true), Heard::default());
        store.attach(Box::new(heard.clone()));
        let stream = store.open_stream(Kind::Video, "", stated(0));
        stream.set_caps(stated(1));
        assert_eq!(heard.caps(), ["x/n0"], "nobody could place the others yet");
        let opened = || FromAgent::StreamOpened { request: 1, stream: StreamId(1), track: "video".into() };
        store.apply(opened());
        store.apply(opened());
        assert_eq!(heard.caps(), ["x/n1"]);
        stream.set_caps(stated(1));
        stream.set_caps(stated(2));
        assert_eq!(heard.caps(), ["x/n2"]);
        store.reconnected();
        assert_eq!(heard.caps(), ["x/n2"]);
        assert_eq!(store.stated(StreamId(1), 2), None, "the stream is another one now");
        store.apply(opened());
        assert_eq!((heard.caps(), store.stated(StreamId(1), 1)), (vec![], Some("x/n1".into())));
    }
}

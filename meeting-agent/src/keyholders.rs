//! The local connections that hold keys, and the keys of others that are in force, for those who come later.

use std::collections::{BTreeMap, HashMap};

use meeting_protocol::{
    BootTime,
    frame::{KeyId, WINDOW},
    local::{self, FromAgent, MeetingState},
    secret::Secret,
};
use meeting_wire::{Kind, ParticipantId, StreamId};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::local::may_command;

/// A message behind its length, wiped when dropped.
pub type Frame = Zeroizing<Vec<u8>>;

/// Everybody on this machine who holds keys of one meeting.
#[derive(Debug, Default)]
pub struct KeyHolders {
    holders: HashMap<u64, Holder>,
    streams: BTreeMap<StreamId, Own>,
    keys: BTreeMap<(ParticipantId, StreamId, u64), OpenKey>,
    lease: Option<BootTime>,
    retired: Option<(u64, BootTime)>,
    state: MeetingState,
    last_stream: u32,
}

#[derive(Debug)]
struct Holder {
    user: u32,
    out: mpsc::Sender<Frame>,
    opens: bool,
}

/// A stream of this device.
#[derive(Clone, Debug)]
pub struct Own {
    /// The connection that asked for it.
    pub holder: u64,
    /// The label.
    pub track: String,
    /// What it carries.
    pub kind: Kind,
}

/// A key of somebody else's stream; bounded by [`MAX_KEYS`].
#[derive(Debug)]
pub struct OpenKey {
    /// The sender's name.
    pub name: String,
    /// The label.
    pub track: String,
    /// The caps its sender signed.
    pub caps: String,
    /// Its epoch.
    pub epoch: u64,
    /// Its id.
    pub kid: KeyId,
    /// RFC 9605 cipher suite number.
    pub suite: u16,
    /// RFC 9605 `base_key`.
    pub base_key: Secret<32>,
    /// Counters below are refused.
    pub floor: u64,
}

impl KeyHolders {
    /// A connection of purpose `Keys` and its user: it hears the state, the lease and what is retired.
    pub fn add(&mut self, id: u64, user: u32, out: mpsc::Sender<Frame>) {
        self.holders.insert(id, Holder { user, out, opens: false });
        self.tell(id, &FromAgent::State(self.state.clone()));
        if let Some(until) = self.lease {
            self.tell(id, &FromAgent::Lease { until });
        }
        if let Some((before, at)) = self.retired {
            self.tell(id, &FromAgent::Retire { before, at });
        }
    }

    /// A connection is gone; the streams it had opened are to be closed.
    pub fn remove(&mut self, id: u64) -> Vec<StreamId> {
        self.holders.remove(&id);
        self.streams.iter().filter(|(_, own)| own.holder == id).map(|(stream, _)| *stream).collect()
    }

    /// Whether a connection's user has as many streams as one may who shares this agent; its own user may have all.
    pub fn has_its_share(&self, id: u64) -> bool {
        let Some(user) = self.user(id).filter(|user| !may_command(*user)) else { return false };
        let theirs = self.streams.values().filter(|own| self.user(own.holder) == Some(user));
        theirs.count() >= MAX_SHARED
    }

    /// Whose connection it is, if it is still here.
    pub fn user(&self, id: u64) -> Option<u32> {
        self.holders.get(&id).map(|holder| holder.user)
    }

    /// Ends every connection: a new stay begins, and elements start afresh.
    pub fn dismiss(&mut self) {
        let (last_stream, state) = (self.last_stream, std::mem::take(&mut self.state));
        *self = Self { last_stream, state, ..Self::default() };
    }

    /// An opening element is there: it hears the keys in force, and of every change.
    pub fn want_open_keys(&mut self, id: u64) {
        let Some(holder) = self.holders.get_mut(&id) else { return };
        if std::mem::replace(&mut holder.opens, true) {
            return;
        }
        for ((from, stream, _), key) in &self.keys {
            send(holder, &key.message(*from, *stream));
        }
    }

    /// The label for a new stream: as wished, or the kind's name with the first free number; else why not.
    pub fn label(&self, kind: Kind, wish: &str) -> Result<String, String> {
        let taken = |label: &str| self.streams.values().any(|own| own.track == label);
        if !wish.is_empty() {
            return if taken(wish) {
                Err(format!(
                    "track {:?} is in use by another stream of this device: close that one or choose another \
                     `track`",
                    crate::show::harmless(wish)
                ))
            } else {
                Ok(wish.to_owned())
            };
        }
        let name = crate::glance::kind(kind);
        let numbered = (2..).map(|n| format!("{name}-{n}"));
        let free = std::iter::once(name.to_owned()).chain(numbered).find(|label| !taken(label));
        Ok(free.unwrap_or_default())
    }

    /// The next stream number, never used before by this daemon in this meeting.
    pub fn next_stream(&mut self) -> StreamId {
        self.last_stream += 1;
        StreamId(self.last_stream)
    }

    /// A stream of this device was opened.
    pub fn opened(&mut self, stream: StreamId, own: Own) {
        self.streams.insert(stream, own);
    }

    /// Whether the connection opened this stream.
    pub fn owns(&self, id: u64, stream: StreamId) -> bool {
        self.streams.get(&stream).is_some_and(|own| own.holder == id)
    }

    /// A stream of this device is closed.
    pub fn closed(&mut self, stream: StreamId) {
        self.streams.remove(&stream);
    }

    /// Streams of this device.
    pub fn streams(&self) -> impl Iterator<Item = (StreamId, &Own)> {
        self.streams.iter().map(|(stream, own)| (*stream, own))
    }

    /// A key to seal with, for the one connection that opened the stream.
    pub fn seal(&mut self, stream: StreamId, message: &FromAgent) {
        if let Some(own) = self.streams.get(&stream) {
            let holder = own.holder;
            self.tell(holder, message);
        }
    }

    /// A key to open with.
    pub fn open(&mut self, from: ParticipantId, stream: StreamId, key: OpenKey) {
        let message = key.message(from, stream);
        self.tell_openers(&message);
        let place = (from, stream, u64::from(key.kid));
        if self.keys.contains_key(&place) || self.keys.len() < MAX_KEYS {
            self.keys.insert(place, key);
        }
    }

    /// An opener's floor, for those who come later.
    pub fn floor(&mut self, from: ParticipantId, kid: KeyId, floor: u64) {
        if let Some(key) = self.keys.get_mut(&(from, kid.stream(), u64::from(kid))) {
            key.floor = key.floor.max(floor);
        }
    }

    /// Elements forget what they opened of a stream and start anew with its keys: what was forged may have moved their
    /// replay windows. `signed_below` is one above the newest counter of a key that its sender has signed for.
    pub fn renew(
        &mut self,
        from: ParticipantId,
        stream: StreamId,
        signed_below: impl Fn(KeyId) -> Option<u64>,
    ) {
        let mut messages = vec![FromAgent::CloseKey { from, stream }];
        let keys = self.keys.iter_mut().filter(|((whose, which, _), _)| (*whose, *which) == (from, stream));
        for (_, key) in keys {
            // what is below came before, and the agent itself lets no frame through twice
            key.floor = key.floor.min(signed_below(key.kid).unwrap_or(0).saturating_sub(WINDOW));
            messages.push(key.message(from, stream));
        }
        messages.iter().for_each(|message| self.tell_openers(message));
    }

    /// What is known of who sent a stream's frames.
    pub fn trust(&mut self, message: &FromAgent) {
        self.tell_openers(message);
    }

    /// A stream of somebody else is over.
    pub fn close(&mut self, from: ParticipantId, stream: StreamId) {
        self.keys.retain(|(whose, which, _), _| (*whose, *which) != (from, stream));
        self.tell_openers(&FromAgent::CloseKey { from, stream });
    }

    /// Keys of old epochs are over.
    pub fn expire(&mut self, before: u64) {
        self.keys.retain(|_, key| key.epoch >= before);
        self.tell_openers(&FromAgent::Expire { before });
    }

    /// How long elements may go on.
    pub fn lease(&mut self, until: BootTime) {
        self.lease = Some(until);
        self.tell_all(&FromAgent::Lease { until });
    }

    /// What must not be sealed under any more.
    pub fn retire(&mut self, before: u64, at: BootTime) {
        self.retired = Some((before, at));
        self.tell_all(&FromAgent::Retire { before, at });
    }

    /// The meeting's state, told when it differs.
    pub fn state(&mut self, state: MeetingState) {
        if self.state != state {
            self.state = state;
            self.tell_all(&FromAgent::State(self.state.clone()));
        }
    }

    /// A message to one connection. One that does not read is given up: its streams cannot go on anyway.
    pub fn tell(&mut self, id: u64, message: &FromAgent) {
        if let Some(holder) = self.holders.get(&id)
            && !send(holder, message)
        {
            self.holders.remove(&id);
        }
    }

    fn tell_all(&mut self, message: &FromAgent) {
        self.holders.retain(|_, holder| send(holder, message));
    }

    fn tell_openers(&mut self, message: &FromAgent) {
        self.holders.retain(|_, holder| !holder.opens || send(holder, message));
    }
}

impl OpenKey {
    fn message(&self, from: ParticipantId, stream: StreamId) -> FromAgent {
        FromAgent::OpenKey {
            from,
            name: self.name.clone(),
            stream,
            track: self.track.clone(),
            caps: self.caps.clone(),
            epoch: self.epoch,
            kid: self.kid,
            suite: self.suite,
            base_key: self.base_key.duplicate(),
            floor: self.floor,
        }
    }
}

fn send(holder: &Holder, message: &FromAgent) -> bool {
    holder.out.try_send(local::to_frame(message)).is_ok()
}

/// Streams of a user who shares the agent: half of what a device may have.
const MAX_SHARED: usize = 32;
/// Keys in force: five streams each of 1,000 people in three epochs.
const MAX_KEYS: usize = 16_384;

/// Messages that wait for one connection: every key in force, and room.
pub const QUEUED: usize = MAX_KEYS + 256;

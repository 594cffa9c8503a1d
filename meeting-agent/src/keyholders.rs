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

use crate::private::may_command;

/// A message behind its length, wiped when dropped.
pub type Packed = Zeroizing<Vec<u8>>;

/// Everybody on this machine who holds keys of one meeting.
#[derive(Debug, Default)]
pub struct KeyHolders {
    holders: HashMap<u64, Holder>,
    streams: BTreeMap<StreamId, Own>,
    /// Streams that are closed and whose last frames are not with the relay yet.
    closing: BTreeMap<StreamId, Own>,
    /// Streams of this stay that users opened who share this agent.
    opened_by_guests: usize,
    keys: BTreeMap<(ParticipantId, StreamId, u64), TheirKey>,
    lease: Option<BootTime>,
    retired: Option<(u64, BootTime)>,
    state: MeetingState,
    last_stream: u32,
}

#[derive(Debug)]
struct Holder {
    user: u32,
    out: mpsc::Sender<Packed>,
    opens: bool,
}

/// A stream of this device.
#[derive(Clone, Debug)]
pub struct Own {
    /// The connection that asked for it.
    pub holder: u64,
    /// The user of that.
    pub user: u32,
    /// The label.
    pub track: String,
    /// What it carries.
    pub kind: Kind,
    /// The bytes of its caps.
    pub caps: usize,
}

/// A key of somebody else's stream; bounded by [`MAX_KEYS`].
#[derive(Debug)]
pub struct TheirKey {
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
    pub fn add(&mut self, id: u64, user: u32, out: mpsc::Sender<Packed>) {
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

    /// Whether a user may have one more stream, with caps of so many bytes; else why not. Users who share this agent leave
    /// some to its own user.
    pub fn room(&self, user: u32, caps: usize) -> Result<(), String> {
        if may_command(user) {
            return Ok(());
        }
        let theirs = self.streams.values().filter(|own| own.user == user);
        let text = if theirs.count() >= MAX_SHARED {
            "you have as many streams as one user may who shares this agent: close one"
        } else if self.of_guests().count() >= MAX_OF_GUESTS {
            "all who share this agent have as many streams as they may together: one of them has to close one"
        } else if !self.guests_may_have(caps, None) {
            "the caps of all who share this agent are too long together: one of them has to close a stream"
        } else if self.opened_by_guests >= MAX_USED_BY_GUESTS {
            "all who share this agent have opened as many streams as they may in one stay: its own user has \
             to leave the meeting and join again"
        } else {
            return Ok(());
        };
        Err(text.into())
    }

    /// Whether a stream may have new caps of this length beside those of all who share this agent.
    pub fn takes_caps(&self, stream: StreamId, caps: usize) -> bool {
        let whose = self.streams.get(&stream).map(|own| own.user);
        whose.is_some_and(may_command) || self.guests_may_have(caps, Some(stream))
    }

    /// A stream has caps of this length now.
    pub fn new_caps(&mut self, stream: StreamId, caps: usize) {
        if let Some(own) = self.streams.get_mut(&stream) {
            own.caps = caps;
        }
    }

    fn guests_may_have(&self, caps: usize, instead_of: Option<StreamId>) -> bool {
        let others = self.of_guests().filter(|(stream, _)| Some(**stream) != instead_of);
        caps + others.map(|(_, own)| own.caps).sum::<usize>() <= MAX_CAPS_OF_GUESTS
    }

    fn of_guests(&self) -> impl Iterator<Item = (&StreamId, &Own)> {
        self.streams.iter().chain(&self.closing).filter(|(_, own)| !may_command(own.user))
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
        self.opened_by_guests += usize::from(!may_command(own.user));
        self.streams.insert(stream, own);
    }

    /// Whether the connection opened this stream.
    pub fn owns(&self, id: u64, stream: StreamId) -> bool {
        self.streams.get(&stream).is_some_and(|own| own.holder == id)
    }

    /// A stream of this device is closed.
    pub fn closed(&mut self, stream: StreamId) {
        if let Some(own) = self.streams.remove(&stream) {
            self.closing.insert(stream, own);
        }
    }

    /// And its last frames are with the relay.
    pub fn drained(&mut self, stream: StreamId) {
        self.closing.remove(&stream);
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
    pub fn open(&mut self, from: ParticipantId, stream: StreamId, key: TheirKey) {
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

impl TheirKey {
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
    holder.out.try_send(local::packed(message)).is_ok()
}

/// Streams of a user who shares the agent: half of what a device may have.
const MAX_SHARED: usize = 32;
/// Streams of all such users, those that are closing among them: of the 64 of a device some are its own user's.
const MAX_OF_GUESTS: usize = 56;
/// The bytes of caps that they have: three quarters of what all streams of a device have together.
const MAX_CAPS_OF_GUESTS: usize = 96 * 1024;
/// Streams that they open in one stay: half of the numbers that it has (PROTOCOL.md 3.7).
const MAX_USED_BY_GUESTS: usize = 32 * 1024;
/// Keys in force: five streams each of 1,000 people in three epochs.
const MAX_KEYS: usize = 16_384;

/// Messages that wait for one connection: every key in force, and room.
pub const QUEUED: usize = MAX_KEYS + 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_shares_an_agent_leaves_its_user_streams_and_numbers() {
        let me = rustix::process::getuid().as_raw();
        let (one, other) = (me + 1, me + 2);
        let mut holders = KeyHolders::default();
        let open = |holders: &mut KeyHolders, user| {
            let caps = 1024;
            holders.room(user, caps)?;
            let stream = holders.next_stream();
            let own = Own { holder: 0, user, track: String::new(), kind: Kind::Data, caps };
            holders.opened(stream, own);
            Ok::<_, String>(stream)
        };
        let opened = |holders: &mut KeyHolders, user| -> Vec<StreamId> {
            (0..100).map_while(|_| open(holders, user).ok()).collect()
        };
        let theirs = [one, other].map(|user| opened(&mut holders, user));
        assert_eq!(theirs.each_ref().map(Vec::len), [32, 24]);
        assert_eq!(opened(&mut holders, me).len(), 100, "how many its own user may have the session says");

        let closes = theirs[0][0];
        holders.closed(closes);
        assert!(open(&mut holders, one).is_err(), "its last frames are still on their way");
        holders.drained(closes);
        assert!(open(&mut holders, one).is_ok());

        let [long, closes] = [theirs[1][0], theirs[1][1]];
        assert!(holders.takes_caps(long, 41 * 1024) && !holders.takes_caps(long, 41 * 1024 + 1));
        holders.new_caps(long, 41 * 1024);
        holders.closed(closes);
        holders.drained(closes);
        assert!(holders.room(other, 1024).is_ok() && holders.room(other, 1025).is_err());

        assert_eq!(holders.opened_by_guests, 57, "all that they ever opened");
        holders.opened_by_guests = MAX_USED_BY_GUESTS;
        assert!(open(&mut holders, other).is_err() && open(&mut holders, me).is_ok());
        holders.dismiss();
        assert!(open(&mut holders, other).is_ok(), "a new stay has its own numbers");
    }
}

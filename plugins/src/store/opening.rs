//! What an opening element has of the store: a duplicate of each key that it names.

use std::{collections::HashMap, sync::Arc, time::Instant};

use meeting_protocol::{
    frame::{KeyId, OpenKey},
    local::ToAgent,
};
use meeting_wire::{ParticipantId, StreamId};

use super::KeyStore;

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

/// The keys to open with, one for each KID.
#[derive(Default)]
pub(super) struct OpenKeys {
    keys: HashMap<KeyId, Opening>,
    /// That of the newest key.
    serial: u64,
}

/// A stream that elements of ours open, in one epoch.
struct Opening {
    key: OpenKey,
    epoch: u64,
    who: Arc<Sender>,
    serial: u64,
    /// The agent that we are connected to has said so.
    is_given: bool,
}

impl OpenKeys {
    /// Takes in a key. The same one again keeps its serial, and the higher floor; beyond [`MAX_OPEN`] the oldest goes, first of those that are not given again.
    pub fn insert(&mut self, mut key: OpenKey, epoch: u64, who: Sender) {
        let old = self.keys.remove(&key.kid);
        let same = old.filter(|old| old.key.base_key.ct_eq(key.base_key.expose()));
        let serial = same.as_ref().map_or(self.serial + 1, |same| same.serial);
        self.serial = self.serial.max(serial);
        key.floor = same.map_or(key.floor, |same| same.key.floor.max(key.floor));
        if self.keys.len() >= MAX_OPEN
            && let Some(oldest) = self.keys.values().min_by_key(|opening| (opening.is_given, opening.serial))
        {
            let kid = oldest.key.kid;
            self.keys.remove(&kid);
        }
        self.keys.insert(key.kid, Opening { key, epoch, who: Arc::new(who), serial, is_given: true });
    }

    /// A duplicate of the key of this KID.
    pub fn find(&self, kid: KeyId) -> Option<Found> {
        let opening = self.keys.get(&kid).filter(|opening| opening.is_given)?;
        Some(Found { key: opening.key.duplicate(), who: opening.who.clone(), serial: opening.serial })
    }

    /// The agent is another one, perhaps, and opens nothing that it does not give again: it may have closed meanwhile, and
    /// nobody would check whose frames they are. Their floors stay, for those that are.
    pub fn doubt(&mut self) {
        self.keys.values_mut().for_each(|opening| opening.is_given = false);
    }

    /// A sender has ended a stream.
    pub fn close(&mut self, from: ParticipantId, stream: StreamId) {
        self.keys.retain(|kid, opening| kid.stream() != stream || opening.who.participant != from);
    }

    /// Earlier epochs are over, and so is what the agent has not given again by then.
    pub fn expire(&mut self, before: u64) {
        self.keys.retain(|_, opening| opening.is_given && opening.epoch >= before);
    }
}

impl KeyStore {
    /// Asks for the keys of everybody's streams, if nobody has yet.
    pub fn want_open_keys(&self) {
        if !std::mem::replace(&mut self.inner().want_open, true) {
            self.send(ToAgent::WantOpenKeys);
        }
    }

    /// A key to open with.
    pub fn find(&self, kid: KeyId) -> Option<Found> {
        self.inner().opens.find(kid)
    }

    /// As [`find`](Self::find), waiting for the key until `deadline` or until `cancelled`.
    pub fn wait_for(&self, kid: KeyId, deadline: Instant, cancelled: impl Fn() -> bool) -> Option<Found> {
        let found = self.wait_until(deadline, |inner| {
            inner.opens.find(kid).map(Some).or_else(|| cancelled().then_some(None))
        });
        found.flatten()
    }

    /// Whether the key is still the one it was.
    pub fn holds(&self, kid: KeyId, serial: u64) -> bool {
        let inner = self.inner();
        let is_it = |opening: &Opening| opening.serial == serial && opening.is_given;
        inner.archive.is_some() || inner.opens.keys.get(&kid).is_some_and(is_it)
    }

    /// Tells the agent which counters were opened with the key of this serial. `last`: the opener is gone, and its successor
    /// starts here.
    pub fn report_floor(&self, (kid, serial): (KeyId, u64), floor: u64, last: bool) {
        let mut inner = self.inner();
        let opening = inner.opens.keys.get_mut(&kid).filter(|opening| opening.serial == serial);
        let Some(opening) = opening else { return };
        if last {
            opening.key.floor = opening.key.floor.max(floor);
        }
        let (from, is_given) = (opening.who.participant, opening.is_given);
        drop(inner);
        if is_given {
            self.send(ToAgent::Floor { from, kid, floor });
        }
    }
}

/// Keys to open in one process: 1,000 participants with four streams, four epochs each.
const MAX_OPEN: usize = 16 * 1024;

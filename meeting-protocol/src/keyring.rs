//! The keys of one pipeline, between the link to the agent and the elements.
//!
//! Seal leases go out once: [`KeyRing::take_seal`] gives a lease away, and an epoch that was there before is never
//! taken in again. Open keys stay and are handed out as duplicates, one for each opener that asks.
//! Plain data without locks; everything is bounded.

use std::collections::{BTreeMap, HashMap};

use meeting_wire::{ParticipantId, StreamId};

use crate::frame::{KeyId, Lease, OpenKey};

/// Whose frames a key opens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Who seals them.
    pub participant: ParticipantId,
    /// The label of the stream.
    pub track: String,
}

/// Why the ring did not take a seal lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyRingError {
    /// The stream has seen this epoch or a newer one: epochs only move forward.
    #[error("epoch {0} of this stream is past")]
    EpochPast(u64),
    /// There are [`MAX_STREAMS`] streams.
    #[error("too many streams")]
    TooManyStreams,
}

/// Leases to seal and keys to open, as the agent sent them.
#[derive(Debug, Default)]
pub struct KeyRing {
    seal: HashMap<StreamId, SealSlot>,
    open: HashMap<KeyId, OpenSlot>,
    /// Open keys by when they came, the oldest first.
    order: BTreeMap<u64, KeyId>,
    inserts: u64,
}

#[derive(Debug)]
struct SealSlot {
    epoch: u64,
    lease: Option<Lease>,
}

#[derive(Debug)]
struct OpenSlot {
    key: OpenKey,
    owner: Owner,
    age: u64,
}

impl KeyRing {
    /// An empty ring.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the lease of a stream for an epoch; one of an earlier epoch that nobody took is wiped.
    pub fn insert_seal(&mut self, stream: StreamId, epoch: u64, lease: Lease) -> Result<(), KeyRingError> {
        match self.seal.get(&stream) {
            Some(slot) if epoch <= slot.epoch => return Err(KeyRingError::EpochPast(epoch)),
            None if self.seal.len() >= MAX_STREAMS => return Err(KeyRingError::TooManyStreams),
            _ => {}
        }
        self.seal.insert(stream, SealSlot { epoch, lease: Some(lease) });
        Ok(())
    }

    /// Gives away the newest lease of a stream with its epoch, once.
    pub fn take_seal(&mut self, stream: StreamId) -> Option<(u64, Lease)> {
        let slot = self.seal.get_mut(&stream)?;
        slot.lease.take().map(|lease| (slot.epoch, lease))
    }

    /// Forgets a stream of our own. Its id is never used again in this stay, and so neither are its keys.
    pub fn close_seal(&mut self, stream: StreamId) {
        self.seal.remove(&stream);
    }

    /// Takes in a key to open.
    ///
    /// The same key again keeps the higher floor. One participant has at most [`MAX_OPEN_PER_PARTICIPANT`] keys and
    /// the ring [`MAX_OPEN`]; beyond that the oldest goes, first among those of the same participant.
    pub fn insert_open(&mut self, mut key: OpenKey, owner: Owner) {
        let kid = key.kid;
        if let Some(old) = self.remove_open(kid)
            && old.key.base_key.ct_eq(key.base_key.expose())
        {
            key.floor = key.floor.max(old.key.floor);
        }
        let mut own = self.order.values().filter(|kid| self.owned_by(**kid, owner.participant));
        let oldest_own = own.next().copied();
        let full_own = own.count() + 1 >= MAX_OPEN_PER_PARTICIPANT;
        let victim = match (oldest_own, self.order.first_key_value()) {
            (Some(oldest), _) if full_own => Some(oldest),
            (_, Some((_, oldest))) if self.open.len() >= MAX_OPEN => Some(*oldest),
            _ => None,
        };
        if let Some(victim) = victim {
            self.remove_open(victim);
        }
        self.inserts += 1;
        self.order.insert(self.inserts, kid);
        self.open.insert(kid, OpenSlot { key, owner, age: self.inserts });
    }

    /// A duplicate of a key to open, for an opener to keep.
    pub fn open_key(&self, kid: KeyId) -> Option<OpenKey> {
        self.open.get(&kid).map(|slot| slot.key.duplicate())
    }

    /// Whose frames this key opens.
    pub fn owner(&self, kid: KeyId) -> Option<&Owner> {
        self.open.get(&kid).map(|slot| &slot.owner)
    }

    /// The ids of all keys to open.
    pub fn open_kids(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.order.values().copied()
    }

    /// Never hand this key out again with a lower floor: an opener has accepted all below, or given it up.
    pub fn raise_floor(&mut self, kid: KeyId, floor: u64) {
        if let Some(slot) = self.open.get_mut(&kid) {
            slot.key.floor = slot.key.floor.max(floor);
        }
    }

    /// Forgets the keys of a participant's stream.
    pub fn close(&mut self, participant: ParticipantId, stream: StreamId) {
        self.forget(|kid, owner| kid.stream() == stream && owner.participant == participant);
    }

    /// Forgets all keys of a participant.
    pub fn close_participant(&mut self, participant: ParticipantId) {
        self.forget(|_, owner| owner.participant == participant);
    }

    /// Forgets everything; the streams of our own that were here do not come back.
    pub fn clear(&mut self) {
        self.open.clear();
        self.order.clear();
        for slot in self.seal.values_mut() {
            slot.lease = None;
        }
    }

    fn forget(&mut self, gone: impl Fn(KeyId, &Owner) -> bool) {
        let order = &mut self.order;
        self.open.retain(|kid, slot| {
            let gone = gone(*kid, &slot.owner);
            if gone {
                order.remove(&slot.age);
            }
            !gone
        });
    }

    fn owned_by(&self, kid: KeyId, participant: ParticipantId) -> bool {
        self.open.get(&kid).is_some_and(|slot| slot.owner.participant == participant)
    }

    fn remove_open(&mut self, kid: KeyId) -> Option<OpenSlot> {
        let slot = self.open.remove(&kid)?;
        self.order.remove(&slot.age);
        Some(slot)
    }
}

/// Streams that one pipeline seals.
pub const MAX_STREAMS: usize = 1024;
/// Keys to open in one pipeline: 1,000 participants with four streams, four epochs each.
pub const MAX_OPEN: usize = 16 * 1024;
/// Keys to open of one participant: 64 streams, four epochs each.
pub const MAX_OPEN_PER_PARTICIPANT: usize = 256;

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
    /// The same for each participant.
    owned: HashMap<ParticipantId, BTreeMap<u64, KeyId>>,
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
        if let Some(oldest) = self.victim(owner.participant) {
            self.remove_open(oldest);
        }
        self.inserts += 1;
        self.order.insert(self.inserts, kid);
        self.owned.entry(owner.participant).or_default().insert(self.inserts, kid);
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
        let Some(owned) = self.owned.get(&participant) else {
            return;
        };
        let gone: Vec<_> = owned.values().copied().filter(|kid| kid.stream() == stream).collect();
        for kid in gone {
            self.remove_open(kid);
        }
    }

    /// Forgets all keys of a participant.
    pub fn close_participant(&mut self, participant: ParticipantId) {
        for kid in self.owned.remove(&participant).unwrap_or_default().into_values() {
            self.remove_open(kid);
        }
    }

    /// Forgets every key. An epoch that a stream of our own has seen stays past.
    pub fn clear(&mut self) {
        self.open.clear();
        self.order.clear();
        self.owned.clear();
        for slot in self.seal.values_mut() {
            slot.lease = None;
        }
    }

    /// The key that goes when one more of this participant comes.
    fn victim(&self, participant: ParticipantId) -> Option<KeyId> {
        match self.owned.get(&participant) {
            Some(owned) if owned.len() >= MAX_OPEN_PER_PARTICIPANT => owned.values().next().copied(),
            _ if self.open.len() >= MAX_OPEN => self.order.values().next().copied(),
            _ => None,
        }
    }

    fn remove_open(&mut self, kid: KeyId) -> Option<OpenSlot> {
        let slot = self.open.remove(&kid)?;
        self.order.remove(&slot.age);
        if let Some(owned) = self.owned.get_mut(&slot.owner.participant) {
            owned.remove(&slot.age);
            if owned.is_empty() {
                self.owned.remove(&slot.owner.participant);
            }
        }
        Some(slot)
    }
}

/// Streams that one pipeline seals.
pub const MAX_STREAMS: usize = 1024;
/// Keys to open in one pipeline: 1,000 participants with four streams, four epochs each.
pub const MAX_OPEN: usize = 16 * 1024;
/// Keys to open of one participant: 64 streams, four epochs each.
pub const MAX_OPEN_PER_PARTICIPANT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{frame::CipherSuite, secret::Secret};

    const STREAM: StreamId = StreamId(5);

    fn lease(epoch: u64) -> Lease {
        Lease::new(KeyId::new(STREAM, 1, epoch), CipherSuite::default(), Secret::init_with(|_| ()))
    }

    fn key(kid: KeyId, byte: u8, floor: u64) -> OpenKey {
        OpenKey {
            kid,
            suite: CipherSuite::default(),
            base_key: Secret::init_with(|key| key[0] = byte),
            floor,
        }
    }

    fn owner(id: u32) -> Owner {
        let mut participant = [0; 16];
        participant[..4].copy_from_slice(&id.to_be_bytes());
        Owner { participant: ParticipantId(participant), track: "camera".into() }
    }

    fn kid(stream: u32, index: u16) -> KeyId {
        KeyId::new(StreamId(stream), index, 0)
    }

    #[test]
    fn a_lease_goes_out_once_and_epochs_only_grow() {
        let mut ring = KeyRing::new();
        assert!(ring.take_seal(STREAM).is_none());
        assert_eq!(ring.insert_seal(STREAM, 4, lease(4)), Ok(()));
        assert_eq!(
            ring.take_seal(STREAM).map(|(epoch, lease)| (epoch, lease.kid().epoch_byte())),
            Some((4, 4))
        );
        assert!(ring.take_seal(STREAM).is_none());
        assert_eq!(ring.insert_seal(STREAM, 4, lease(4)), Err(KeyRingError::EpochPast(4)));
        assert_eq!(ring.insert_seal(STREAM, 6, lease(6)), Ok(()));
        assert_eq!(ring.insert_seal(STREAM, 5, lease(5)), Err(KeyRingError::EpochPast(5)));
        ring.clear();
        assert!(ring.take_seal(STREAM).is_none());
        assert_eq!(ring.insert_seal(STREAM, 6, lease(6)), Err(KeyRingError::EpochPast(6)));
    }

    #[test]
    fn own_streams_are_bounded() {
        let mut ring = KeyRing::new();
        for stream in 0..MAX_STREAMS as u32 {
            assert_eq!(ring.insert_seal(StreamId(stream), 1, lease(1)), Ok(()));
        }
        let one_more = StreamId(MAX_STREAMS as u32);
        assert_eq!(ring.insert_seal(one_more, 1, lease(1)), Err(KeyRingError::TooManyStreams));
        assert_eq!(ring.insert_seal(StreamId(0), 2, lease(2)), Ok(()));
        ring.close_seal(StreamId(3));
        assert_eq!(ring.insert_seal(one_more, 1, lease(1)), Ok(()));
    }

    #[test]
    fn floors_only_rise_while_the_key_stays() {
        let mut ring = KeyRing::new();
        ring.insert_open(key(kid(1, 1), 7, 10), owner(1));
        ring.raise_floor(kid(1, 1), 5);
        ring.insert_open(key(kid(1, 1), 7, 3), owner(1));
        assert_eq!(ring.open_key(kid(1, 1)).map(|key| key.floor), Some(10));
        ring.insert_open(key(kid(1, 1), 8, 3), owner(2));
        assert_eq!(ring.open_key(kid(1, 1)).map(|key| (key.floor, key.base_key.expose()[0])), Some((3, 8)));
        assert_eq!(ring.owner(kid(1, 1)), Some(&owner(2)));
    }

    #[test]
    fn closing_takes_exactly_what_it_names() {
        let mut ring = KeyRing::new();
        for (stream, id) in [(1, 1), (2, 1), (1, 2), (2, 2)] {
            ring.insert_open(key(kid(stream, id), 0, 0), owner(id.into()));
        }
        ring.close(owner(1).participant, StreamId(1));
        assert_eq!(ring.open_kids().collect::<Vec<_>>(), [kid(2, 1), kid(1, 2), kid(2, 2)]);
        ring.close_participant(owner(2).participant);
        assert_eq!(ring.open_kids().collect::<Vec<_>>(), [kid(2, 1)]);
        ring.clear();
        assert!(ring.open_key(kid(2, 1)).is_none());
        assert_eq!(ring.open_kids().count(), 0);
    }

    #[test]
    fn a_greedy_participant_pushes_out_only_its_own() {
        let mut ring = KeyRing::new();
        ring.insert_open(key(kid(0, 1), 0, 0), owner(1));
        for stream in 0..MAX_OPEN_PER_PARTICIPANT as u32 + 20 {
            ring.insert_open(key(kid(stream, 2), 0, 0), owner(2));
        }
        assert!(ring.open_key(kid(0, 1)).is_some());
        assert_eq!(ring.open_kids().count(), MAX_OPEN_PER_PARTICIPANT + 1);
        assert!(ring.open_key(kid(19, 2)).is_none() && ring.open_key(kid(20, 2)).is_some());
    }

    #[test]
    fn the_ring_is_bounded() {
        let mut ring = KeyRing::new();
        for n in 0..MAX_OPEN as u32 + 5 {
            ring.insert_open(key(kid(n, 1), 0, 0), owner(n / 100));
        }
        assert_eq!(ring.open_kids().count(), MAX_OPEN);
        assert!(ring.open_key(kid(4, 1)).is_none() && ring.open_key(kid(5, 1)).is_some());
    }
}

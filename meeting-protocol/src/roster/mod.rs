//! Who is in: a header and entries by index, changed by signed links only.
//!
//! ```text
//!  link 0 (genesis) <-- link 1 <-- link 2 <-- ...     each names the hash of the one before
//!     |                   |          |
//!   digest              digest     digest             of the roster after its changes: header and Merkle root
//! ```

mod entry;
mod link;
mod merkle;

use std::collections::{BTreeMap, BTreeSet};

use meeting_wire::{DecodeError, Encode, ParticipantId, Reader, Writer};
use thiserror::Error;

pub use entry::Entry;
pub use link::{Change, EpochOpening, Link, Removal, SignedLink, Successor, Takeover};

use crate::{
    crypto::{
        labels,
        sign::{Hash, StayPublic, hash},
    },
    identity::DevicePublic,
    session::LeaveReason,
};

/// The most entries of a roster.
pub const MAX_ENTRIES: usize = 1000;
/// The most successors.
pub const MAX_SUCCESSORS: usize = 3;
/// The most removed devices a roster remembers; beyond that only a new meeting helps.
pub const MAX_REMOVED: usize = 1000;

/// What a link wants and a roster cannot do. The fault is the leader's.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ApplyError {
    /// An index, participant or device that is in, or was.
    #[error("somebody is added who is in already, under an index that is not the next, or after a removal")]
    Added,
    /// Nobody of that id.
    #[error("somebody is changed who is not in")]
    Nobody,
    /// Over 1,000 entries, 1,000 removed devices or 3 successors.
    #[error("more than a roster holds")]
    TooMany,
}

/// What holds for the meeting as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Who makes the keys.
    pub leader: ParticipantId,
    /// Nobody new comes in.
    pub locked: bool,
    /// Somebody was removed under the current invite secret: unknown devices need approval.
    pub spent: bool,
    /// Which invite secret is in use.
    pub psk_generation: u32,
    /// How many successors the leader's user allows.
    pub successor_limit: u8,
    /// Who may take over, in order.
    pub successors: Vec<Successor>,
    /// Devices that stay out.
    pub removed: BTreeSet<DevicePublic>,
    /// The index of the next entry.
    pub next_index: u16,
}

/// Header and entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    /// What holds for all.
    pub header: Header,
    entries: BTreeMap<u16, Entry>,
}

impl Roster {
    /// The empty roster a genesis link starts from.
    pub fn before_genesis(leader: ParticipantId) -> Self {
        let header = Header {
            leader,
            locked: false,
            spent: false,
            psk_generation: 0,
            successor_limit: 0,
            successors: Vec::new(),
            removed: BTreeSet::new(),
            next_index: 0,
        };
        Self { header, entries: BTreeMap::new() }
    }

    /// A roster as a welcome tells it; the digest has to be compared with a signed one.
    pub(crate) fn from_parts(header: Header, entries: Vec<Entry>) -> Option<Self> {
        let count = entries.len();
        let entries: BTreeMap<_, _> = entries.into_iter().map(|entry| (entry.index, entry)).collect();
        let people: BTreeSet<_> = entries.values().map(|entry| entry.participant).collect();
        let devices: BTreeSet<_> = entries.values().map(|entry| entry.device).collect();
        let used = entries.last_key_value().is_some_and(|(index, _)| *index < header.next_index);
        let removed = devices.iter().any(|device| header.removed.contains(device));
        let unique = entries.len() == count && people.len() == count && devices.len() == count;
        (unique && used && !removed && count <= MAX_ENTRIES).then_some(Self { header, entries })
    }

    /// Everybody, by index.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.values()
    }

    /// The entry of a stay.
    pub fn entry(&self, participant: ParticipantId) -> Option<&Entry> {
        self.entries.values().find(|entry| entry.participant == participant)
    }

    /// The entry of a device.
    pub fn device(&self, device: DevicePublic) -> Option<&Entry> {
        self.entries.values().find(|entry| entry.device == device)
    }

    /// Those of whom a majority is counted: whoever proved to be here, and the leader. An announce makes an entry for
    /// anybody with the link, and such entries neither vote nor make others too few.
    pub fn present(&self) -> impl Iterator<Item = &Entry> {
        self.entries().filter(|entry| entry.present || entry.participant == self.header.leader)
    }

    /// The leader's entry; a link that removes it without naming a new one does not apply.
    pub fn leader(&self) -> Option<&Entry> {
        self.entry(self.header.leader)
    }

    /// The leader's key.
    pub fn leader_signer(&self) -> Option<StayPublic> {
        self.leader().map(|entry| entry.signer)
    }

    /// Place in the order of succession, from 0.
    pub fn rank(&self, participant: ParticipantId) -> Option<usize> {
        self.header.successors.iter().position(|successor| successor.participant == participant)
    }

    /// SHA-256 over header and Merkle root: what links sign.
    pub fn digest(&self) -> Hash {
        let mut out = Writer::default();
        self.header.encode(&mut out);
        out.raw(&merkle::root(self.entries.values().map(Encode::to_bytes)));
        hash(labels::ROSTER_HASH, &out.into_bytes())
    }

    /// The roster after these changes.
    pub fn after(&self, changes: &[Change]) -> Result<Self, ApplyError> {
        let mut roster = self.clone();
        changes.iter().try_for_each(|change| roster.apply(change))?;
        if roster.leader().is_none() { Err(ApplyError::Nobody) } else { Ok(roster) }
    }

    fn apply(&mut self, change: &Change) -> Result<(), ApplyError> {
        match change {
            Change::Add(entry) => {
                let known = self.device(entry.device).is_some() || self.entry(entry.participant).is_some();
                if known
                    || entry.index != self.header.next_index
                    || self.header.removed.contains(&entry.device)
                {
                    return Err(ApplyError::Added);
                }
                if self.entries.len() >= MAX_ENTRIES {
                    return Err(ApplyError::TooMany);
                }
                self.header.next_index = self.header.next_index.checked_add(1).ok_or(ApplyError::TooMany)?;
                self.entries.insert(entry.index, entry.clone());
            }
            Change::Remove(Removal { participant, reason }) => {
                let index = self.entry(*participant).ok_or(ApplyError::Nobody)?.index;
                let entry = self.entries.remove(&index).ok_or(ApplyError::Nobody)?;
                self.header.successors.retain(|successor| successor.participant != *participant);
                if *reason == LeaveReason::Removed {
                    if self.header.removed.len() >= MAX_REMOVED {
                        return Err(ApplyError::TooMany);
                    }
                    self.header.removed.insert(entry.device);
                    self.header.spent = true;
                }
            }
            Change::Present(participant) => {
                let index = self.entry(*participant).ok_or(ApplyError::Nobody)?.index;
                self.entries.get_mut(&index).ok_or(ApplyError::Nobody)?.present = true;
            }
            Change::Lock(locked) => self.header.locked = *locked,
            Change::Succession { limit, order } => {
                if order.len() > MAX_SUCCESSORS {
                    return Err(ApplyError::TooMany);
                }
                let named =
                    |s: &Successor| self.entry(s.participant).is_some_and(|entry| entry.signer == s.signer);
                if !order.iter().all(named) {
                    return Err(ApplyError::Nobody);
                }
                self.header.successor_limit = *limit;
                self.header.successors = order.clone();
            }
            Change::Takeover(Takeover { leader, .. }) => {
                self.header.leader = *leader;
            }
        }
        Ok(())
    }
}

/// Numbers, epochs and times stay below 2^62: what is added to them never overflows, whoever signed them.
pub(crate) fn counter(reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let value = reader.u64()?;
    if value < 1 << 62 { Ok(value) } else { Err(DecodeError::Invalid("a number, epoch or time")) }
}

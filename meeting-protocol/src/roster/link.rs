//! One link of the chain: what changed, and perhaps a new epoch.

use meeting_wire::{Decode, DecodeError, Encode, InstanceId, MeetingId, ParticipantId, Reader, Writer};

use super::{Entry, MAX_ENTRIES, MAX_SUCCESSORS, counter, entry::decode_bool};
use crate::{
    crypto::{
        labels,
        sign::{Hash, Signed, SignedBody, StayPublic, hash},
    },
    session::{LeaveReason, Resignation, SilenceVote},
};

/// One thing that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Somebody is let in.
    Add(Entry),
    /// Somebody is out.
    Remove(Removal),
    /// Somebody proved to be present.
    Present(ParticipantId),
    /// Nobody new, or again.
    Lock(bool),
    /// Who may take over.
    Succession {
        /// How many the leader's user allows.
        limit: u8,
        /// In this order.
        order: Vec<Successor>,
    },
    /// Somebody named before leads from now on, and signs this link.
    Takeover(Takeover),
}

/// Somebody is out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Who.
    pub participant: ParticipantId,
    /// Why.
    pub reason: LeaveReason,
}

/// Somebody who may take over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successor {
    /// Who.
    pub participant: ParticipantId,
    /// Their key, so that a newcomer can check the next leader against a roster it has only the digest of.
    pub signer: StayPublic,
}

/// A change of leader with its grounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Takeover {
    /// The new one.
    pub leader: ParticipantId,
    /// From more than half of those present, unless the old leader resigned.
    pub votes: Vec<Signed<SilenceVote>>,
    /// The old leader's word.
    pub resignation: Option<Signed<Resignation>>,
}

/// The opening of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochOpening {
    /// Counts up by one.
    pub epoch: u64,
    /// HKDF of the meeting key: a key that gives another one is refused.
    pub commitment: Hash,
}

/// What a leader signs to change the roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Which meeting.
    pub meeting: MeetingId,
    /// Which run of it.
    pub instance: InstanceId,
    /// Counts up by one from genesis, 0.
    pub number: u64,
    /// Hash of the link before; zeros in genesis.
    pub previous: Hash,
    /// Who signs.
    pub leader: ParticipantId,
    /// In this order.
    pub changes: Vec<Change>,
    /// Of the roster after the changes.
    pub digest: Hash,
    /// The leader's clock in ms.
    pub time: u64,
    /// For links that rotate.
    pub opening: Option<EpochOpening>,
}

/// A link and its signature.
pub type SignedLink = Signed<Link>;

impl Link {
    /// What the next link and every derivation of the epoch names this link by.
    pub fn hash(&self) -> Hash {
        hash(labels::LINK_HASH, &self.to_bytes())
    }

    /// Whether somebody came.
    pub fn adds(&self) -> bool {
        self.changes.iter().any(|change| matches!(change, Change::Add(_)))
    }

    /// Whether somebody went.
    pub fn removes(&self) -> bool {
        self.changes.iter().any(|change| matches!(change, Change::Remove(_)))
    }

    /// The change of leader, if this link is one.
    pub fn takeover(&self) -> Option<&Takeover> {
        self.changes.iter().find_map(|change| match change {
            Change::Takeover(takeover) => Some(takeover),
            _ => None,
        })
    }
}

impl SignedBody for Link {
    const LABEL: &'static [u8] = labels::LINK;
}

impl Encode for Link {
    fn encode(&self, out: &mut Writer) {
        self.meeting.encode(out);
        self.instance.encode(out);
        out.u64(self.number);
        out.raw(&self.previous);
        self.leader.encode(out);
        out.list(&self.changes);
        out.raw(&self.digest);
        out.u64(self.time);
        out.option(self.opening.as_ref());
    }
}

impl Decode for Link {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            meeting: MeetingId::decode(reader)?,
            instance: InstanceId::decode(reader)?,
            number: counter(reader)?,
            previous: reader.array()?,
            leader: ParticipantId::decode(reader)?,
            changes: reader.list(2 * MAX_ENTRIES + 8, "the changes of a link")?,
            digest: reader.array()?,
            time: counter(reader)?,
            opening: reader.option()?,
        })
    }
}

impl Encode for EpochOpening {
    fn encode(&self, out: &mut Writer) {
        out.u64(self.epoch);
        out.raw(&self.commitment);
    }
}

impl Decode for EpochOpening {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { epoch: counter(reader)?, commitment: reader.array()? })
    }
}

impl Encode for Successor {
    fn encode(&self, out: &mut Writer) {
        self.participant.encode(out);
        self.signer.encode(out);
    }
}

impl Decode for Successor {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { participant: ParticipantId::decode(reader)?, signer: StayPublic::decode(reader)? })
    }
}

impl Encode for Change {
    fn encode(&self, out: &mut Writer) {
        match self {
            Change::Add(entry) => {
                out.u8(0);
                entry.encode(out);
            }
            Change::Remove(Removal { participant, reason }) => {
                out.u8(1);
                participant.encode(out);
                out.u8(match reason {
                    LeaveReason::Left => 0,
                    LeaveReason::Removed => 1,
                    LeaveReason::Missing => 2,
                    LeaveReason::Replaced => 3,
                });
            }
            Change::Present(participant) => {
                out.u8(2);
                participant.encode(out);
            }
            Change::Lock(locked) => {
                out.u8(3);
                out.u8((*locked).into());
            }
            Change::Succession { limit, order } => {
                out.u8(4);
                out.u8(*limit);
                out.list(order);
            }
            Change::Takeover(takeover) => {
                out.u8(5);
                takeover.leader.encode(out);
                out.list(&takeover.votes);
                out.option(takeover.resignation.as_ref());
            }
        }
    }
}

impl Decode for Change {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            0 => Change::Add(Entry::decode(reader)?),
            1 => Change::Remove(Removal {
                participant: ParticipantId::decode(reader)?,
                reason: match reader.u8()? {
                    0 => LeaveReason::Left,
                    1 => LeaveReason::Removed,
                    2 => LeaveReason::Missing,
                    3 => LeaveReason::Replaced,
                    _ => return Err(DecodeError::Invalid("the reason of a removal")),
                },
            }),
            2 => Change::Present(ParticipantId::decode(reader)?),
            3 => Change::Lock(decode_bool(reader)?),
            4 => Change::Succession {
                limit: reader.u8()?,
                order: reader.list(MAX_SUCCESSORS, "the successors")?,
            },
            5 => Change::Takeover(Takeover {
                leader: ParticipantId::decode(reader)?,
                votes: reader.list(MAX_ENTRIES, "the votes of a takeover")?,
                resignation: reader.option()?,
            }),
            _ => return Err(DecodeError::Invalid("the kind of a change")),
        })
    }
}

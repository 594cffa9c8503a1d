//! Who has led and why, with all that somebody who was not there needs to check it.
//!
//! ```text
//!  creator's announce --> genesis ... last link of the one --> first link of the next ... --> head
//!                                     roster of that link: whose votes, or whose resignation
//! ```

use meeting_wire::{Decode, DecodeError, Encode, InstanceId, MeetingId, ParticipantId, Reader, Writer};

use super::succession::is_valid_takeover;
use crate::{
    announce::SignedAnnounce,
    crypto::sign::{Hash, StayPublic},
    identity::Fingerprint,
    roster::{Change, Roster, SignedLink},
};

/// Changes of leader in one instance.
pub(super) const MAX_STEPS: usize = 64;
/// The bytes of a lineage: a welcome carries it beside a roster of a thousand entries.
pub(super) const MAX_LINEAGE: usize = 320 * 1024;

/// The chain of leaders from the creator to today's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lineage {
    /// Link 0.
    pub genesis: SignedLink,
    /// The creator's announce.
    pub creator: SignedAnnounce,
    /// One for each change of leader.
    pub steps: Vec<Step>,
}

/// One change of leader, and the roster of those who could agree to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// The last link of the old leader.
    pub last: SignedLink,
    /// The roster whose digest it signs.
    pub roster: Roster,
    /// The first link of the new leader.
    pub takeover: SignedLink,
}

impl Lineage {
    /// The leader of this instance of this meeting and its key, if every change of leader has its grounds. What a
    /// creator or a successor signed for another meeting says nothing here.
    pub fn leader(&self, of: (MeetingId, InstanceId)) -> Option<(ParticipantId, StayPublic)> {
        let creator = self.creator.verified()?;
        let genesis = &self.genesis.body;
        let of_creator = genesis.number == 0
            && genesis.leader == creator.participant
            && (creator.meeting, creator.instance) == of
            && (genesis.meeting, genesis.instance) == of
            && self.genesis.is_by(&creator.signer)
            && matches!(&genesis.changes[..], [Change::Add(entry), ..] if entry.announce == self.creator.hash());
        if !of_creator {
            return None;
        }
        let start = (creator.participant, creator.signer);
        self.steps.iter().try_fold(start, |leader, step| step.leader(leader, of))
    }

    /// Whether the chain starts at the creator a meeting link names.
    pub fn is_of(&self, creator: Fingerprint) -> bool {
        self.creator.unverified().device.fingerprint() == creator
    }

    /// The step at which this chain leaves another one before which it goes (PROTOCOL.md 3.8); none where it goes
    /// after it, is the same, or has another genesis.
    pub fn before(&self, other: &Self) -> Option<&Step> {
        if self.genesis.body.hash() != other.genesis.body.hash() {
            return None;
        }
        let mut pairs = self.steps.iter().zip(&other.steps);
        match pairs.find(|(one, other)| one.place() != other.place()) {
            Some((one, other)) => (one.place() < other.place()).then_some(one),
            None => self.steps.get(other.steps.len()),
        }
    }

    /// Whether so many more steps of so many bytes leave it one that every newcomer can be shown.
    pub fn fits(&self, steps: usize, bytes: usize) -> bool {
        self.steps.len() + steps <= MAX_STEPS && self.to_bytes().len() + bytes <= MAX_LINEAGE
    }
}

impl Step {
    /// The new leader, if it was that leader's to name and took over on good grounds.
    fn leader(
        &self,
        (leader, signer): (ParticipantId, StayPublic),
        of: (MeetingId, InstanceId),
    ) -> Option<(ParticipantId, StayPublic)> {
        let (last, next) = (&self.last.body, &self.takeover.body);
        let holds = last.leader == leader
            && (last.meeting, last.instance) == of
            && self.last.is_by(&signer)
            && self.roster.digest() == last.digest
            && self.roster.header.leader == leader
            && self.roster.leader_signer() == Some(signer)
            && next.number == last.number + 1
            && is_valid_takeover(&self.takeover, (last.hash(), &self.roster), of);
        let entry = self.roster.entry(next.leader).filter(|_| holds)?;
        Some((entry.participant, entry.signer))
    }

    /// Its place among all that could follow the same leader: from an earlier link before from a later one, and from one
    /// link in the leader's own order. Hashes only order what somebody signed two ways.
    fn place(&self) -> (u64, Hash, Option<usize>, Hash) {
        let last = &self.last.body;
        (last.number, last.hash(), self.roster.rank(self.takeover.body.leader), self.takeover.body.hash())
    }
}

impl Encode for Lineage {
    fn encode(&self, out: &mut Writer) {
        self.genesis.encode(out);
        self.creator.encode(out);
        out.list(&self.steps);
    }
}

impl Decode for Lineage {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            genesis: SignedLink::decode(reader)?,
            creator: SignedAnnounce::decode(reader)?,
            steps: reader.list(MAX_STEPS, "the leaders of a meeting")?,
        })
    }
}

impl Encode for Step {
    fn encode(&self, out: &mut Writer) {
        self.last.encode(out);
        self.roster.encode(out);
        self.takeover.encode(out);
    }
}

impl Decode for Step {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            last: SignedLink::decode(reader)?,
            roster: Roster::decode(reader)?,
            takeover: SignedLink::decode(reader)?,
        })
    }
}

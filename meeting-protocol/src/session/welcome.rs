//! What a newcomer is told: who is in, and why the leader may say so.

use meeting_wire::{Decode, DecodeError, Encode, InstanceId, MeetingId, ParticipantId, Reader, Writer};

use crate::{
    announce::SignedAnnounce,
    crypto::sign::{Hash, StayPublic},
    identity::Fingerprint,
    roster::{Change, Entry, Header, MAX_ENTRIES, Roster, SignedLink, digest},
};

/// Leaders one instance can have had.
const MAX_STEPS: usize = 64;

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

/// One change of leader: the old one named the new one in a roster whose digest it signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// The last link of the old leader.
    pub last: SignedLink,
    /// The header it signed.
    pub header: Header,
    /// The root it signed.
    pub root: Hash,
    /// The first link of the new leader.
    pub takeover: SignedLink,
}

impl Lineage {
    /// The leader of this instance of this meeting and its key, if every link of the chain holds. What a creator or
    /// a successor signed for another meeting says nothing here.
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
        self.steps.iter().try_fold(start, |(leader, signer), step| {
            let (last, next) = (&step.last.body, &step.takeover.body);
            let successor =
                step.header.successors.iter().find(|successor| successor.participant == next.leader)?;
            let holds = last.leader == leader
                && step.last.is_by(&signer)
                && (last.meeting, last.instance) == of
                && digest(&step.header, &step.root) == last.digest
                && (next.meeting, next.instance) == of
                && next.previous == last.hash()
                && next.takeover().is_some_and(|takeover| takeover.leader == next.leader)
                && step.takeover.is_by(&successor.signer);
            holds.then_some((next.leader, successor.signer))
        })
    }

    /// Whether the chain starts at the creator a meeting link names.
    pub fn is_of(&self, creator: Fingerprint) -> bool {
        self.creator.unverified().device.fingerprint() == creator
    }
}

impl Step {
    /// Whether the old leader named `one` before `other`.
    pub fn first(&self, one: ParticipantId, other: ParticipantId) -> bool {
        let rank = |who| self.header.successors.iter().position(|successor| successor.participant == who);
        rank(one) < rank(other)
    }
}

/// All a newcomer needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Welcome {
    /// Of the newcomer's announce.
    pub announce: Hash,
    /// Who leads, and why.
    pub lineage: Lineage,
    /// Today's leader's announce.
    pub leader: SignedAnnounce,
    /// The newest link; signs the roster's digest.
    pub head: SignedLink,
    /// The link that opened the newest epoch, where it is not `head`.
    pub epoch_link: Option<SignedLink>,
    pub header: Header,
    pub entries: Vec<Entry>,
}

impl Welcome {
    /// The roster, if the leader of this instance of this meeting signed it and the links fit.
    pub fn roster(&self, of: (MeetingId, InstanceId)) -> Option<Roster> {
        let (leader, signer) = self.lineage.leader(of)?;
        let announced = self.leader.verified()?;
        let epoch_link = self.epoch_link();
        let roster = Roster::from_parts(self.header.clone(), self.entries.clone())?;
        let holds = announced.participant == leader
            && announced.signer == signer
            && (announced.meeting, announced.instance) == of
            && self.head.body.leader == leader
            && self.head.is_by(&signer)
            && (self.head.body.meeting, self.head.body.instance) == of
            && self.head.body.digest == roster.digest()
            && roster.header.leader == leader
            && roster.leader().is_some_and(|entry| *entry == as_announced(entry, &self.leader))
            && epoch_link.body.leader == leader
            && epoch_link.is_by(&signer)
            && (epoch_link.body.meeting, epoch_link.body.instance) == of
            && epoch_link.body.number <= self.head.body.number
            && epoch_link.body.opening.is_some();
        holds.then_some(roster)
    }

    /// The link that opened the newest epoch.
    pub fn epoch_link(&self) -> &SignedLink {
        self.epoch_link.as_ref().unwrap_or(&self.head)
    }
}

/// The entry that this announce makes, under the index and mark of presence of `entry`.
pub(crate) fn as_announced(entry: &Entry, announce: &SignedAnnounce) -> Entry {
    Entry::new(entry.index, announce.unverified(), announce.hash(), entry.present)
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
        self.header.encode(out);
        out.raw(&self.root);
        self.takeover.encode(out);
    }
}

impl Decode for Step {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            last: SignedLink::decode(reader)?,
            header: Header::decode(reader)?,
            root: reader.array()?,
            takeover: SignedLink::decode(reader)?,
        })
    }
}

impl Encode for Welcome {
    fn encode(&self, out: &mut Writer) {
        out.raw(&self.announce);
        self.lineage.encode(out);
        self.leader.encode(out);
        self.head.encode(out);
        out.option(self.epoch_link.as_ref());
        self.header.encode(out);
        out.list(&self.entries);
    }
}

impl Decode for Welcome {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            announce: reader.array()?,
            lineage: Lineage::decode(reader)?,
            leader: SignedAnnounce::decode(reader)?,
            head: SignedLink::decode(reader)?,
            epoch_link: reader.option()?,
            header: Header::decode(reader)?,
            entries: reader.list(MAX_ENTRIES, "the entries of a welcome")?,
        })
    }
}

//! What a newcomer is told: who is in, and why the leader may say so.

use meeting_wire::{Decode, DecodeError, Encode, InstanceId, MAX_POST, MeetingId, Reader, Writer};

use super::{admission::NEWCOMERS, lineage::Lineage};
use crate::{
    announce::SignedAnnounce,
    crypto::{
        labels,
        sign::{Hash, StayKey},
    },
    roster::{Entry, Header, MAX_ENTRIES, Roster, SignedLink},
};

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
    /// By the leader: these two links are its newest ones, for whom it welcomes.
    pub signature: [u8; 64],
}

impl Welcome {
    /// The same, signed.
    pub fn signed(self, key: &StayKey) -> Self {
        Self { signature: key.sign(labels::WELCOME, &self.signed_bytes()), ..self }
    }

    /// Parts of two welcomes make none: an older epoch link would leave a newcomer without any key, and a member
    /// under one that somebody who was removed has.
    fn signed_bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        self.head.body.meeting.encode(&mut out);
        self.head.body.instance.encode(&mut out);
        out.raw(&self.announce);
        out.raw(&self.head.body.hash());
        out.raw(&self.epoch_link().body.hash());
        out.into_bytes()
    }

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
            && epoch_link.body.opening.is_some()
            && signer.verifies(labels::WELCOME, &self.signed_bytes(), &self.signature);
        holds.then_some(roster)
    }

    /// The link that opened the newest epoch.
    pub fn epoch_link(&self) -> &SignedLink {
        self.epoch_link.as_ref().unwrap_or(&self.head)
    }
}

/// Whether a chain of leaders and a roster of so many bytes make a welcome that is a post, whatever its links say.
pub(super) fn is_a_post(lineage: usize, roster: usize) -> bool {
    lineage + roster + AROUND <= MAX_POST
}

/// The most bytes of an entry.
pub(super) const MAX_ENTRY: usize = 256;
/// The most bytes of the rest: a head by which a thousand are present, an epoch link that lets people in and their old
/// stays out, the leader's announce.
const AROUND: usize = 24 * 1024 + NEWCOMERS * (MAX_ENTRY + 24);

/// The entry that this announce makes, under the index and mark of presence of `entry`.
pub(crate) fn as_announced(entry: &Entry, announce: &SignedAnnounce) -> Entry {
    Entry::new(entry.index, announce.unverified(), announce.hash(), entry.present)
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
        out.raw(&self.signature);
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
            signature: reader.array()?,
        })
    }
}

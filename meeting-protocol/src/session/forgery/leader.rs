//! What a leader with a modified program signs and hands out.

use bytes::Bytes;
use meeting_wire::{Encode, ParticipantId};
use rand_core::CryptoRng;

use super::next;
use crate::{
    crypto::sign::{Hash, Signed},
    identity::DevicePublic,
    roster::{Change, Entry, Link},
    secret::Secret,
    session::{
        Place, Session,
        epoch_key::EpochKey,
        member::Duty,
        message::{Message, Wrap},
    },
};

impl Session {
    /// As a leader, against all rules: the link after the head with these changes, and an epoch of this commitment.
    pub(crate) fn false_link(&self, changes: Vec<Change>, commitment: Option<Hash>) -> Option<Signed<Link>> {
        let Place::Member(member) = &self.place else { return None };
        Some(self.sign(next(self.me.participant, changes, commitment, &member.group)?))
    }

    /// As a leader: a key for somebody, for the epoch that this link opens.
    pub(crate) fn false_wrap(&mut self, to: ParticipantId, link: &Link, key: &Secret<32>) -> Option<Message> {
        let (hash, epoch) = (link.hash(), link.opening?.epoch);
        let Place::Member(member) = &mut self.place else { return None };
        let Duty::Lead(lead) = &mut member.duty else { return None };
        let sealed = lead.pairing(to).again(epoch, &hash, key).ok()?;
        Some(Message::Wrap(Wrap { to, epoch, link: hash, offer: None, sealed }))
    }

    /// Commits to a key as the meeting's epoch links do.
    pub(crate) fn commitment(&self, key: &Secret<32>, epoch: u64) -> Option<Hash> {
        let Place::Member(member) = &self.place else { return None };
        Some(EpochKey::commitment(key, self.me.meeting, member.group.instance, epoch))
    }

    /// What the newest epoch link committed to.
    pub(crate) fn newest_commitment(&self) -> Option<Hash> {
        let Place::Member(member) = &self.place else { return None };
        Some(member.group.epochs.newest.commitment)
    }

    /// Somebody who is nobody.
    pub(crate) fn invented_entry(&self) -> Option<Entry> {
        let Place::Member(member) = &self.place else { return None };
        let roster = &member.group.roster;
        let index = roster.header.next_index;
        let own = roster.entry(self.me.participant)?.clone();
        let participant = ParticipantId([9; 16]);
        Some(Entry { index, participant, device: DevicePublic([9; 32]), present: false, ..own })
    }

    /// Seals a message for the board.
    pub(crate) fn seal(&self, message: &Message, rng: &mut dyn CryptoRng) -> Option<Bytes> {
        let Place::Member(member) = &self.place else { return None };
        Some(self.me.board.seal(member.group.instance, &message.to_bytes(), rng))
    }

    /// As a leader: no key but the one there is.
    pub(crate) fn keep_key(&mut self) {
        if let Place::Member(member) = &mut self.place
            && let Duty::Lead(lead) = &mut member.duty
        {
            lead.keep_key();
        }
    }
}

//! Doors for fuzzers and evil members: bytes to where they normally come behind a seal and a signature.

mod posts;
mod wraps;

pub use posts::Posts;
pub use wraps::{Ends, Paired};

use std::collections::BTreeSet;

use bytes::Bytes;
use meeting_wire::{Decode, Encode, ParticipantId, Reader};
use rand_core::CryptoRng;

use super::{
    Place, Session,
    epoch_key::EpochKey,
    message::{Message, ProvenPulse},
};
use crate::{
    announce::SignedAnnounce,
    beacon::{Context, SignedBeacon},
    crypto::{
        sign::{Signed, SignedBody},
        wrap::Pairing,
    },
    roster::{Change, Link, MAX_ENTRIES, Roster},
    secret::Secret,
};

/// Reads a message as whoever opened a post does, and looks at all in it that needs no session.
///
/// # Panics
///
/// If a value has two byte forms.
pub fn message(bytes: &[u8]) {
    let Ok(message) = Message::from_bytes(bytes) else { return };
    assert_eq!(message.to_bytes(), bytes, "one byte form for each value");
    match &message {
        Message::Announce(announce) => {
            announce.verified();
        }
        Message::Answer(reply) => {
            let genesis = &reply.lineage.genesis.body;
            reply.lineage.leader((genesis.meeting, genesis.instance));
        }
        Message::Branch(branch) => {
            let genesis = &branch.lineage.genesis.body;
            branch.lineage.leader((genesis.meeting, genesis.instance));
        }
        Message::Welcome(welcome) => {
            let head = &welcome.head.body;
            if let Some(roster) = welcome.roster((head.meeting, head.instance)) {
                check(&roster);
            }
        }
        Message::Statement(statement) => {
            let key =
                EpochKey { epoch: 9, link: [0xdd; 32], key: Secret::init_with(|key| *key = [0xee; 32]) };
            statement.body.open(&key, 7, &[0x12; 32]);
        }
        Message::Wrap(wrap) => {
            let start = wrap.offer.as_ref().map_or(7, |offer| offer.start);
            let mut end = Pairing::known(Secret::init_with(|key| *key = [0xcc; 32]), start);
            let _ = end.unwrap(wrap.epoch, &wrap.link, &wrap.sealed);
        }
        _ => {}
    }
}

/// Applies lists of changes one after another, as a follower does with links whose signatures hold. The leader's id
/// comes first.
///
/// # Panics
///
/// If a roster comes of it that cannot be.
pub fn roster(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    let Ok(leader) = ParticipantId::decode(&mut reader) else { return };
    let mut roster = Roster::before_genesis(leader);
    while let Ok(changes) = reader.list::<Change>(8, "changes") {
        if changes.is_empty() {
            return;
        }
        if let Ok(after) = roster.after(&changes) {
            check(&after);
            assert!(after.header.next_index >= roster.header.next_index, "an index is never used again");
            assert!(after.header.removed.is_superset(&roster.header.removed), "who is removed stays out");
            roster = after;
        }
    }
}

fn check(roster: &Roster) {
    let people: BTreeSet<_> = roster.entries().map(|entry| entry.participant).collect();
    let devices: BTreeSet<_> = roster.entries().map(|entry| entry.device).collect();
    let count = roster.entries().len();
    assert!((people.len(), devices.len()) == (count, count) && count <= MAX_ENTRIES);
    assert!(devices.is_disjoint(&roster.header.removed), "a removed device is in");
    assert!(roster.entries().all(|entry| entry.index < roster.header.next_index));
    assert!(roster.leader().is_some(), "somebody leads");
    let again = Roster::from_parts(roster.header.clone(), roster.entries().cloned().collect());
    assert_eq!(again.map(|roster| roster.digest()), Some(roster.digest()), "a welcome can say it");
}

impl Session {
    /// What a post says.
    pub fn overhear(&self, post: &[u8]) -> Option<Vec<u8>> {
        self.me.board.open(post).map(|(_, message)| message)
    }

    /// A post that says `message`, signed by this session wherever a signature is, whether it may say that or not. A link
    /// continues the chain as this session knows it. None for bytes that are no message, and before there is a roster.
    pub fn forge(&self, message: &[u8], rng: &mut dyn CryptoRng) -> Option<Bytes> {
        let Place::Member(member) = &self.place else { return None };
        let group = member.group();
        let message = match Message::from_bytes(message).ok()? {
            Message::Link(link) => Message::Link(self.again(self.next(link.body)?)),
            Message::Links(links) => {
                Message::Links(links.into_iter().map(|link| self.again(link.body)).collect())
            }
            Message::Announce(announce) => {
                let mut announce = announce.unverified().clone();
                announce.device = self.me.device.public();
                Message::Announce(SignedAnnounce::new(announce, &self.me.device))
            }
            Message::Answer(mut reply) => {
                reply.answer = self.again(reply.answer.body);
                Message::Answer(reply)
            }
            Message::Heartbeat(heartbeat) => Message::Heartbeat(self.again(heartbeat.body)),
            Message::Pulse(ProvenPulse { pulse, mac }) => {
                Message::Pulse(ProvenPulse { pulse: self.again(pulse.body), mac })
            }
            Message::Ask(ask) => Message::Ask(self.again(ask.body)),
            Message::Statement(statement) => Message::Statement(self.again(statement.body)),
            Message::Leave(leave) => Message::Leave(self.again(leave.body)),
            Message::Over(over) => Message::Over(self.again(over.body)),
            Message::Resign(resign) => Message::Resign(self.again(resign.body)),
            Message::Vote(vote) => Message::Vote(self.again(vote.body)),
            Message::Head(head) => Message::Head(self.again(head.body)),
            Message::Show(show) => Message::Show(self.again(show.body)),
            Message::Branch(mut branch) => {
                branch.word = self.again(branch.word.body);
                Message::Branch(branch)
            }
            Message::Beacon(beacon) => {
                let context = Context {
                    meeting: &self.me.meeting.0,
                    instance: &group.instance.0,
                    sender: &self.me.participant.0,
                };
                Message::Beacon(SignedBeacon::new(beacon.body, &context, &self.me.signer))
            }
            Message::Welcome(welcome) => Message::Welcome(Box::new(welcome.signed(&self.me.signer))),
            message @ (Message::Wrap(_) | Message::Announces(_)) => message,
        };
        Some(self.me.board.seal(group.instance, &message.to_bytes(), rng))
    }

    fn again<T: SignedBody>(&self, body: T) -> Signed<T> {
        self.me.sign(body)
    }

    /// The link after the head that makes these changes and opens this epoch.
    fn next(&self, link: Link) -> Option<Link> {
        let Place::Member(member) = &self.place else { return None };
        let group = member.group();
        let digest = group.roster.after(&link.changes).map_or(link.digest, |roster| roster.digest());
        let time = group.head().body.time + 1;
        Some(group.next_link(self.me.participant, (link.changes, digest), link.opening, time))
    }
}

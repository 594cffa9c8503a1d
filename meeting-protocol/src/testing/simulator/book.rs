//! The book: what is true, whoever believes what. Every promise is held against it at each step.

use std::collections::{HashMap, HashSet};

use meeting_wire::{Encode, ParticipantId, Slot, StreamId};

use super::super::audit::Audit;
use crate::{
    crypto::sign::Hash,
    identity::DevicePublic,
    link::MeetingLink,
    roster::{Change, Entry, Link, Removal, Takeover},
    session::{LeaveReason, claims::Verdict, inside::HeldKey, message::Message},
};

/// All that leaders signed and senders sealed.
pub(super) struct Book {
    audit: Audit,
    links: HashMap<Hash, LinkFact>,
    /// When each heartbeat and each link was signed.
    words: HashMap<Hash, u64>,
    /// The one key of each epoch.
    keys: HashMap<Hash, Hash>,
    /// When each stay last asked to come in.
    asked: HashMap<Stay, u64>,
    /// Whom each leader let in.
    let_in: HashSet<(ParticipantId, Stay)>,
    /// Who has proved to be there.
    seen: HashSet<ParticipantId>,
    /// Which leaders have ended the meeting.
    pub over: HashSet<ParticipantId>,
    /// Which leaders have handed over.
    resigned: HashSet<ParticipantId>,
    /// Every vote that a leader is silent.
    votes: HashSet<Vec<u8>>,
    /// Whom leaders turned away.
    pub turned_away: HashSet<ParticipantId>,
    pub frames: HashMap<u64, FrameFact>,
    /// A leader that breaks the rules signs what is on no book.
    pub leader_is_evil: bool,
}

/// A device, and what it is called in one of its stays.
type Stay = (DevicePublic, ParticipantId);

struct LinkFact {
    leader: ParticipantId,
    /// The newest epoch at this link.
    epoch_link: Hash,
    /// When this leader opened the epoch after this link's, and when it first removed somebody afterwards.
    superseded: Option<u64>,
    removed: Option<u64>,
}

/// One sealed frame.
pub(super) struct FrameFact {
    pub from: ParticipantId,
    pub stream: StreamId,
    pub link: Hash,
    pub sealed: u64,
    pub forged: bool,
}

/// How long a key may be used after its leader has removed somebody, and after it has opened the next epoch.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub opens: bool,
    pub removal: u64,
    /// A stale member that comes back has 500 ms under the old key where nobody went.
    pub replaced: Option<u64>,
}

impl Book {
    pub fn new(link: &MeetingLink) -> Self {
        Self {
            audit: Audit::new(link),
            links: HashMap::new(),
            words: HashMap::new(),
            keys: HashMap::new(),
            asked: HashMap::new(),
            let_in: HashSet::new(),
            seen: HashSet::new(),
            over: HashSet::new(),
            resigned: HashSet::new(),
            votes: HashSet::new(),
            turned_away: HashSet::new(),
            frames: HashMap::new(),
            leader_is_evil: false,
        }
    }

    /// Somebody says this by the rules; `stood` is for how long their clock stood still since a moment.
    pub fn said(&mut self, now: u64, slot: Slot, message: &Message, stood: impl Fn(u64) -> u64) {
        self.audit.message(slot, message);
        match message {
            Message::Announce(announce) => {
                let announce = announce.unverified();
                self.asked.insert((announce.device, announce.participant), now);
            }
            Message::Heartbeat(beat) => {
                self.words.insert(beat.body.hash(), now);
            }
            Message::Over(over) => {
                self.over.insert(over.body.leader);
            }
            Message::Resign(resign) => {
                self.resigned.insert(resign.body.leader);
            }
            Message::Vote(vote) => {
                self.votes.insert(vote.body.to_bytes());
            }
            Message::Answer(reply) => {
                let answer = &reply.answer.body;
                if matches!(answer.verdict, Verdict::Locked | Verdict::Refused) {
                    self.turned_away.insert(answer.to);
                }
            }
            Message::Link(link) => {
                let (body, hash) = (&link.body, link.body.hash());
                if self.links.contains_key(&hash) {
                    return;
                }
                self.words.insert(hash, now);
                for change in &body.changes {
                    match change {
                        Change::Add(entry) => self.lets_in(now, body, entry, &stood),
                        Change::Takeover(takeover) => self.takes_over(takeover),
                        Change::Present(participant) => _ = self.seen.insert(*participant),
                        Change::Remove(Removal { participant, reason: LeaveReason::Missing })
                            if body.adds() =>
                        {
                            self.makes_room(body.leader, *participant);
                        }
                        _ => {}
                    }
                }
                let before = self.links.get(&body.previous).map(|fact| fact.epoch_link);
                let epoch_link = if body.opening.is_some() { hash } else { before.unwrap_or(hash) };
                if body.opening.is_some()
                    && let Some(old) = before.and_then(|before| self.links.get_mut(&before))
                    && old.leader == body.leader
                {
                    old.superseded.get_or_insert(now);
                }
                if body.removes() {
                    let before = self.links.values_mut().filter(|fact| fact.leader == body.leader);
                    before.for_each(|fact| _ = fact.removed.get_or_insert(now));
                }
                let fact = LinkFact { leader: body.leader, epoch_link, superseded: None, removed: None };
                self.links.insert(hash, fact);
            }
            _ => {}
        }
    }

    /// Whoever is let in has just asked, and for the first time.
    fn lets_in(&mut self, now: u64, link: &Link, entry: &Entry, stood: impl Fn(u64) -> u64) {
        let (stay, name) = ((entry.device, entry.participant), &entry.name);
        if entry.participant == link.leader {
            return;
        }
        let asked = self.asked.get(&stay).copied();
        let age = asked.map(|at| now - at);
        let is_new = asked.is_some_and(|at| now - at <= ASKED + stood(at));
        assert!(is_new, "{name} is let in, and asked {age:?} ms ago");
        assert!(self.let_in.insert((link.leader, stay)), "{name} is let in by one leader twice in one stay");
    }

    /// Whoever takes over was handed the meeting, or others find the leader silent too.
    fn takes_over(&self, Takeover { leader, votes, resignation }: &Takeover) {
        if let Some(resignation) = resignation {
            assert!(
                self.resigned.contains(&resignation.body.leader),
                "{leader} takes over from who leads on"
            );
        }
        // Its own vote it need not send.
        for vote in votes.iter().filter(|vote| vote.body.participant != *leader) {
            let voter = vote.body.participant;
            assert!(
                self.votes.contains(&vote.body.to_bytes()),
                "{leader} takes over by a vote that {voter} never cast"
            );
        }
    }

    /// Who goes unseen so that others can come may come again, but has to ask again.
    fn makes_room(&mut self, leader: ParticipantId, participant: ParticipantId) {
        if !self.seen.contains(&participant) {
            self.let_in.retain(|(by, (_, stay))| (*by, *stay) != (leader, participant));
            self.asked.retain(|(_, stay), _| *stay != participant);
        }
    }

    /// Each key went to those in the signed roster and nobody else.
    pub fn recipients(&self) {
        self.audit.recipients();
    }

    /// Somebody stands at this link, with a roster of this digest.
    pub fn stands(&self, who: &str, head: &Hash, digest: &Hash) {
        match self.audit.digest(head) {
            Some(known) => assert_eq!(known, *digest, "{who} sees another roster at one link"),
            None => assert!(self.leader_is_evil, "{who} stands at a link that no leader signed"),
        }
    }

    /// Somebody holds these keys.
    pub fn holds(&mut self, who: &str, participant: ParticipantId, held: &[HeldKey]) {
        for (epoch, link, key) in held {
            match self.audit.names_at(link, participant) {
                Some(named) => {
                    assert!(named, "{who} holds the key of epoch {epoch}, whose roster is without them")
                }
                None => assert!(self.leader_is_evil, "{who} holds a key of an epoch that no leader opened"),
            }
            let known = self.keys.entry(*link).or_insert(*key);
            assert_eq!(known, key, "two keys in epoch {epoch}: {who} has another one");
        }
    }

    /// When the heartbeat or link that somebody goes by was signed.
    pub fn word(&self, who: &str, hash: &Hash) -> Option<u64> {
        let at = self.words.get(hash).copied();
        assert!(at.is_some() || self.leader_is_evil, "{who} goes by a word that no leader signed");
        at
    }

    /// Somebody honest seals under the epoch that this link opened: its leader has changed the key in time.
    /// `stood` is for how long clocks stood still since a moment.
    pub fn lasts(&self, now: u64, who: &str, link: &Hash, stood: impl Fn(u64) -> u64) {
        let Some(at) = self.words.get(link) else { return };
        let (age, limit) = (now - at, LASTS + stood(*at));
        assert!(age <= limit, "{who} seals under a key that is {age} ms old, {limit} are allowed");
    }

    /// A key of the epoch that this link opened is used: somebody removed since then would hear it.
    pub fn used(&self, now: u64, who: &str, link: &Hash, limits: Limits) {
        let Some(fact) = self.links.get(link) else { return };
        let what = if limits.opens { "opens" } else { "seals" };
        if let Some(age) = fact.removed.map(|at| now - at) {
            let limit = limits.removal;
            assert!(age <= limit, "{who} {what} {age} ms after a removal, {limit} are allowed");
        }
        if let (Some(age), Some(limit)) = (fact.superseded.map(|at| now - at), limits.replaced) {
            assert!(age <= limit, "{who} {what} {age} ms after the key was replaced, {limit} are allowed");
        }
    }
}

/// How long a wish to come in is good for, by clocks that drift.
const ASKED: u64 = 30_100;
/// How long a key is used: 150 s by its leader's clock, and 8 s until the next word that shows it.
const LASTS: u64 = 159_000;

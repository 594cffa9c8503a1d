//! Reads every post on the board, as a holder of the link can, and keeps book over who was given which key.

use std::collections::{BTreeSet, HashMap};

use meeting_wire::{Decode, ParticipantId, Slot};

use crate::{
    board::Board,
    crypto::sign::Hash,
    evidence::{Fact, Word},
    link::MeetingLink,
    roster::{Link, Roster},
    session::message::Message,
};

/// The book.
pub(super) struct Audit {
    board: Board,
    /// The roster each link made, by the link's hash.
    rosters: HashMap<Hash, Roster>,
    epochs: HashMap<Hash, Epoch>,
    /// What each stay has signed of things that can be only one way.
    facts: HashMap<(ParticipantId, Fact), Hash>,
    /// Who contradicted an earlier word of its own.
    contradictions: Vec<(ParticipantId, Fact)>,
}

struct Epoch {
    number: u64,
    leader: ParticipantId,
    roster: BTreeSet<ParticipantId>,
    wrapped: BTreeSet<ParticipantId>,
}

impl Audit {
    pub fn new(link: &MeetingLink) -> Self {
        Self {
            board: Board::new(link.secret.duplicate(), link.meeting),
            rosters: HashMap::new(),
            epochs: HashMap::new(),
            facts: HashMap::new(),
            contradictions: Vec::new(),
        }
    }

    /// Somebody posts.
    pub fn post(&mut self, slot: Slot, body: &[u8]) {
        let Some((_, message)) = self.board.open(body) else { return };
        let message = Message::from_bytes(&message).expect("what sessions post reads back");
        self.compare(&message);
        self.message(slot, &message);
    }

    /// The same, once it is read.
    pub fn message(&mut self, slot: Slot, message: &Message) {
        match message {
            Message::Link(link) => self.link(&link.body),
            Message::Wrap(wrap) => {
                assert_eq!(slot, Slot::Direct(wrap.to), "a wrap goes to its owner only");
                let epoch = self.epochs.get_mut(&wrap.link).expect("a wrap comes after its link");
                assert_eq!(wrap.epoch, epoch.number);
                assert!(epoch.roster.contains(&wrap.to), "a key for {}, who is not in its roster", wrap.to);
                epoch.wrapped.insert(wrap.to);
            }
            _ => {}
        }
    }

    /// Notes what somebody signs for.
    fn compare(&mut self, message: &Message) {
        let (who, facts) = match message {
            Message::Link(link) => (link.body.leader, Word::Link(link.clone()).facts()),
            Message::Heartbeat(beat) => (beat.body.leader, Word::Heartbeat(beat.clone()).facts()),
            Message::Statement(said) => (said.body.participant, Word::Statement(said.clone()).facts()),
            Message::Head(head) => {
                let body = &head.body;
                let (head, epoch) = (Fact::Link(body.number), Fact::Epoch(body.epoch));
                (body.participant, vec![(head, body.head), (epoch, body.epoch_link)])
            }
            _ => return,
        };
        for (fact, hash) in facts {
            if *self.facts.entry((who, fact)).or_insert(hash) != hash {
                self.contradictions.push((who, fact));
            }
        }
    }

    /// Checks that nobody who keeps the rules can be convicted.
    pub fn innocence(&self) {
        assert!(self.contradictions.is_empty(), "signed two ways: {:?}", self.contradictions);
    }

    fn link(&mut self, link: &Link) {
        let before = match link.number {
            0 => Roster::before_genesis(link.leader),
            _ => self.rosters.get(&link.previous).expect("a chain without gaps").clone(),
        };
        let roster = before.after(&link.changes).expect("a link that applies");
        assert_eq!(roster.digest(), link.digest);
        let removed = roster.entries().any(|entry| before.header.removed.contains(&entry.device));
        assert!(!removed, "a removed device is back");
        if let Some(opening) = link.opening {
            let people = roster.entries().map(|entry| entry.participant).collect();
            self.epochs.entry(link.hash()).or_insert(Epoch {
                number: opening.epoch,
                leader: link.leader,
                roster: people,
                wrapped: BTreeSet::new(),
            });
        }
        self.rosters.insert(link.hash(), roster);
    }

    /// Checks that each key was wrapped for exactly those its link's roster names, the leader aside.
    pub fn recipients(&self) {
        for epoch in self.epochs.values() {
            let mut expected = epoch.roster.clone();
            expected.remove(&epoch.leader);
            let other: Vec<_> = epoch.wrapped.symmetric_difference(&expected).collect();
            assert!(
                other.is_empty(),
                "epoch {}, wrapped for who is not in or not for who is: {other:?}",
                epoch.number
            );
        }
    }

    /// Whether the roster of the epoch that this link opened names somebody; none if no leader posted such a link.
    #[cfg(feature = "simulator")]
    pub fn names_at(&self, link: &Hash, participant: ParticipantId) -> Option<bool> {
        self.epochs.get(link).map(|epoch| epoch.roster.contains(&participant))
    }

    /// The digest of the roster that a link made.
    #[cfg(feature = "simulator")]
    pub fn digest(&self, link: &Hash) -> Option<Hash> {
        self.rosters.get(link).map(Roster::digest)
    }

    /// Whether a roster of this epoch, on whichever branch, names somebody.
    pub fn names(&self, epoch: u64, participant: ParticipantId) -> bool {
        self.epochs.values().any(|known| known.number == epoch && known.roster.contains(&participant))
    }
}

//! A follower that has every link of its leader and of the wraps only those it is handed here.

use std::{collections::HashMap, time::Duration};

use meeting_protocol::{
    session::{
        Command, EndReason, Phase, Successors,
        fuzzing::{Paired, Posts},
    },
    testing::{Fate, Meeting},
};
use meeting_wire::{InstanceId, Post, Slot};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::reaches;
use crate::{CRYPTO, cursor::Cursor, fresh};

/// An epoch and the link that opened it.
type Of = (u64, [u8; 32]);

/// Whose wrap was the first that Bob opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// None yet.
    Nobody,
    Leader,
    /// One of `ours`.
    Us(usize),
    /// It came before its link, and was opened when nobody looked.
    Unknown,
}

/// Alice leads, and Bob has no pairing at first.
struct Scene {
    meeting: Meeting,
    posts: Posts,
    instance: InstanceId,
    rng: ChaCha20Rng,
    /// The keys that the leader drew and committed to.
    drawn: HashMap<Of, [u8; 32]>,
    /// Pairings that the leader offers besides.
    ours: Vec<Paired>,
    /// Whose pairing Bob has.
    by: By,
    /// A wrap of another key than the link commits to was sent.
    lied: bool,
}

pub fn run(bytes: &[u8]) {
    let mut scene = Scene::new(fresh::key_of(bytes));
    let mut bytes = Cursor(bytes);
    for _ in 0..STEPS {
        if bytes.is_empty() {
            return;
        }
        match bytes.u8() % 8 {
            0 => scene.meeting.run(Duration::from_millis(bytes.scaled(12))),
            1 => {
                let _ = scene.meeting.command(0, Command::Rotate);
            }
            2 if scene.ours.len() < 4 => {
                let start = scene.epoch(&mut bytes);
                let bob = scene.meeting.nodes[1].session.me();
                scene.ours.extend(scene.meeting.nodes[0].session.pair(bob, start, &mut scene.rng));
            }
            3 => scene.leaders(&mut bytes),
            4 => {
                let len = bytes.scaled(12) as usize;
                let message = [&[WRAP][..], bytes.take(len)].concat();
                scene.hand(&message);
            }
            _ => scene.made(&mut bytes),
        }
        if !scene.look() {
            return;
        }
    }
}

impl Scene {
    fn new(seed: [u8; 32]) -> Self {
        let number = u64::from_be_bytes(*seed[8..].first_chunk().expect("32 bytes"));
        let mut meeting = Meeting::new(fresh::seed() ^ number, Successors::Nobody);
        let link = meeting.link();
        let (posts, relay) = (Posts::of(&link), Posts::of(&link));
        meeting.tamper = Some(Box::new(move |_, _, _, post| match relay.wrap(&post.body) {
            Some(_) => Fate::Drop,
            None => Fate::Deliver,
        }));
        meeting.join("Bob");
        let limit = Duration::from_secs(20);
        meeting.run_until(limit, |meeting| meeting.nodes[1].session.newest().is_some());
        let first = meeting.recorded.first().and_then(|post| posts.open(&post.body));
        let instance = first.map(|(instance, _)| instance).expect("the leader has said something");
        let (drawn, ours, rng) = (HashMap::new(), Vec::new(), ChaCha20Rng::from_seed(seed));
        let mut scene = Self { meeting, posts, instance, rng, drawn, ours, by: By::Nobody, lied: false };
        scene.look();
        scene
    }

    /// Hands Bob a message, as the relay would.
    fn hand(&mut self, message: &[u8]) {
        let body = self.posts.seal(self.instance, message, &mut self.rng);
        let (alice, bob) = (self.meeting.nodes[0].session.me(), self.meeting.nodes[1].session.me());
        self.meeting.inject(1, Post { seq: 0, from: alice, slot: Slot::Direct(bob), body });
    }

    /// A wrap of the leader's own, as it was or altered.
    fn leaders(&mut self, bytes: &mut Cursor<'_>) {
        let wraps = self.meeting.recorded.iter().filter(|post| self.posts.wrap(&post.body).is_some());
        let wraps: Vec<Post> = wraps.cloned().collect();
        if wraps.is_empty() {
            return;
        }
        let post = &wraps[wraps.len() - 1 - bytes.below(wraps.len())];
        let Some((_, original)) = self.posts.open(&post.body) else { return };
        let mut message = original.clone();
        bytes.mutate(&mut message);
        let pairs = matches!(self.by, By::Nobody | By::Leader);
        let opens = pairs && message == original && self.posts.wrap(&post.body) == self.wanted();
        self.hand(&message);
        if opens {
            self.by = By::Leader;
            assert!(self.has(), "a true wrap does not open");
        }
    }

    /// A wrap that is sealed truly, whatever is in it.
    fn made(&mut self, bytes: &mut Cursor<'_>) {
        if self.ours.is_empty() {
            return;
        }
        let (number, wanted) = (bytes.below(self.ours.len()), self.wanted());
        let how = bytes.u8();
        let mut of = self.meeting.nodes[1].session.newest().unwrap_or_default();
        if how & 1 != 0 {
            of.0 = self.epoch(bytes);
        }
        if how & 2 != 0 {
            of.1[bytes.below(32)] ^= bytes.u8();
        }
        let mut key = self.drawn.get(&of).copied().unwrap_or([0x99; 32]);
        if how & 4 != 0 {
            key[bytes.below(32)] ^= bytes.u8();
        }
        let offers = how & 8 == 0;
        let Some(message) = self.ours[number].wrap(of.0, of.1, &key, offers) else { return };
        let lie = self.drawn.get(&of) != Some(&key);
        self.lied |= lie;
        let pairs = match self.by {
            By::Nobody => offers && reaches(self.ours[number].start(), of.0),
            by => by == By::Us(number),
        };
        let opens = wanted == Some(of) && pairs;
        let had = self.has();
        self.hand(&message);
        if !CRYPTO {
            return;
        }
        if opens && lie {
            assert!(self.caught(), "a key that the link does not commit to is taken");
        } else {
            assert_eq!(self.has(), had || opens, "a wrap opens for its pairing, epoch and link alone");
        }
        if opens {
            self.by = By::Us(number);
        }
    }

    /// Around the newest, or far off.
    fn epoch(&self, bytes: &mut Cursor<'_>) -> u64 {
        let newest = self.meeting.nodes[1].session.newest().unwrap_or_default().0;
        (newest + bytes.scaled(13)).saturating_sub(bytes.scaled(2))
    }

    /// The epoch whose key Bob lacks.
    fn wanted(&self) -> Option<Of> {
        self.meeting.nodes[1].session.newest().filter(|_| !self.has())
    }

    /// Whether Bob has the key of the newest epoch he knows.
    fn has(&self) -> bool {
        let bob = &self.meeting.nodes[1].session;
        bob.meeting_keys().iter().any(|(of, _)| Some(*of) == bob.newest())
    }

    fn caught(&self) -> bool {
        self.meeting.phase(1) == Phase::Ended(EndReason::LeaderMisbehaved)
    }

    /// What holds after each step; whether Bob is still there.
    fn look(&mut self) -> bool {
        self.drawn.extend(self.meeting.nodes[0].session.meeting_keys());
        let keys = self.meeting.nodes[1].session.meeting_keys();
        if CRYPTO {
            for (of, key) in &keys {
                assert_eq!(self.drawn.get(of), Some(key), "a key that the leader did not draw");
            }
            assert!(self.lied || !self.caught(), "an honest leader is accused");
        }
        if self.by == By::Nobody && !keys.is_empty() {
            self.by = By::Unknown;
        }
        self.meeting.nodes[1].session.newest().is_some()
    }
}

const STEPS: usize = 24;
/// The first byte of a wrap's message.
const WRAP: u8 = 4;

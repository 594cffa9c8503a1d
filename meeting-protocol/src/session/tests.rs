//! What needs to see the inside: bytes that never change, leaders that break the rules, forgers that hold the link.

#![allow(clippy::unwrap_used)]

mod branches;
mod bytes;
mod codes;
mod evidence;
mod forgers;
mod forks;
mod ghosts;
mod leaders;
mod low_order;
mod pulses;
mod samples;
mod stated;
mod two_keys;

use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering},
};

use meeting_wire::{Decode, Encode, Hex, InstanceId, Kind, MeetingId, ParticipantId, Slot, StreamId};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::{
    claims::{Answer, Ask, Head, Heartbeat, Leads, Leave, Over, Pulse, Show, Verdict},
    epoch_key::EpochKey,
    lineage::{Lineage, Step},
    message::{Branch, Message, Offer, ProvenPulse, Reply, Wrap},
    statement::{Said, Statement, StreamFacts},
    welcome::Welcome,
    *,
};
use crate::{
    announce::{Announce, SignedAnnounce},
    beacon::{Beacon, Context, FrameDigest, SignedBeacon, Span},
    crypto::sign::{Hash, Signed, StayPublic},
    evidence::{Evidence, Word},
    frame::{CipherSuite, KeyId},
    identity::DevicePublic,
    roster::{Change, Entry, EpochOpening, Link, Removal, Roster, SignedLink, Successor, Takeover},
    secret::Secret,
};

const MEETING: MeetingId = MeetingId([0x11; 16]);
const INSTANCE: InstanceId = InstanceId([0x22; 16]);
const ALICE: ParticipantId = ParticipantId([0xa1; 16]);
const BOB: ParticipantId = ParticipantId([0xb0; 16]);

fn secret(byte: u8) -> Secret<32> {
    Secret::init_with(|bytes| *bytes = [byte; 32])
}

fn signer() -> StayKey {
    StayKey::random(&mut ChaCha20Rng::from_seed([1; 32]))
}

/// A leader and a follower that share a meeting, joined by handing posts over by hand.
struct Two {
    rng: ChaCha20Rng,
    alice: Session,
    bob: Session,
    now: BootTime,
    link: MeetingLink,
}

impl Two {
    /// Both are in.
    fn new() -> Self {
        let mut two = Self::unmet();
        for _ in 0..30 {
            two.now = BootTime(two.now.0 + 100);
            two.exchange();
        }
        assert_eq!(two.bob.state().phase, Phase::Live);
        two
    }

    /// Bob has not heard of Alice yet.
    fn unmet() -> Self {
        // The nonce ledger is one for all tests: no two meetings may draw the same.
        static MEETINGS: AtomicU64 = AtomicU64::new(0);
        let mut rng = ChaCha20Rng::seed_from_u64(0x7e57 << 32 | MEETINGS.fetch_add(1, Ordering::Relaxed));
        let device = |rng: &mut ChaCha20Rng| std::sync::Arc::new(DeviceKey::from_seed(&Secret::random(rng)));
        let (alice, bob) = (device(&mut rng), device(&mut rng));
        let link = MeetingLink::new("relay.example".into(), alice.public().fingerprint(), None, &mut rng);
        let now = BootTime(1_000);
        let joining =
            Joining { link: link.duplicate(), device: bob, name: "Bob".into(), role: Role::Participant };
        let creating = Creating {
            link: link.duplicate(),
            device: alice,
            name: "Alice".into(),
            role: Role::Participant,
            successors: Successors::Nobody,
        };
        let alice = Session::create(creating, now, &mut rng).unwrap();
        let bob = Session::join(joining, now, &mut rng);
        Self { rng, alice, bob, now, link }
    }

    /// Lets time pass and hands all posts over.
    fn exchange(&mut self) {
        let Self { rng, alice, bob, now, .. } = self;
        alice.handle(Input::Timeout, *now, rng).unwrap();
        bob.handle(Input::Timeout, *now, rng).unwrap();
        for _ in 0..6 {
            hand_over(alice, bob, *now, rng);
            hand_over(bob, alice, *now, rng);
        }
    }

    /// The leader says this to Bob, against all rules.
    fn say(&mut self, message: &Message) -> Phase {
        let instance = self.group().instance;
        let body = self.alice.me.board.seal(instance, &message.to_bytes(), &mut self.rng);
        let post = Post { seq: 0, from: self.alice.me(), slot: Slot::Log, body };
        self.bob.handle(Input::Post(post), self.now, &mut self.rng).unwrap();
        self.bob.state().phase
    }

    fn group(&self) -> &group::Group {
        match &self.alice.place {
            Place::Member(member) => member.group(),
            _ => unreachable!(),
        }
    }

    /// The link after the head, with these changes and opening, signed by Alice.
    fn next_link(&self, changes: Vec<Change>, opening: Option<EpochOpening>) -> Link {
        let group = self.group();
        let digest = group.roster.after(&changes).unwrap().digest();
        group.next_link(self.alice.me(), (changes, digest), opening, group.head().body.time + 1)
    }

    fn signed(&self, link: Link) -> Message {
        Message::Link(self.alice.me.sign(link))
    }
}

fn hand_over(from: &mut Session, to: &mut Session, now: BootTime, rng: &mut ChaCha20Rng) {
    loop {
        match from.poll_output() {
            Output::Post { slot, body } => {
                let post = Post { seq: 0, from: from.me(), slot, body };
                to.handle(Input::Post(post), now, rng).unwrap();
            }
            Output::Timeout(_) => return,
            _ => {}
        }
    }
}

const CAUGHT: Phase = Phase::Ended(EndReason::LeaderMisbehaved);

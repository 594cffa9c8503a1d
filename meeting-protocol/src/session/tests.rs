//! Bytes that must never change, and leaders that break the rules: both need to see the inside.

#![allow(clippy::unwrap_used)]

use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering},
};

use meeting_wire::{Decode, Encode, Hex, InstanceId, Kind, MeetingId, ParticipantId, Slot, StreamId};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::{
    claims::{Answer, Ask, Heartbeat, Leave, Over, Pulse, Verdict},
    message::{Message, Offer, ProvenPulse, Reply, Wrap},
    statement::{EpochKey, Said, Statement, StreamFacts},
    welcome::{Lineage, Step, Welcome},
    *,
};
use crate::{
    announce::{Announce, SignedAnnounce},
    crypto::sign::{Hash, Signed, StayPublic},
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

fn announce() -> SignedAnnounce {
    let device = DeviceKey::from_seed(&secret(3));
    let announce = Announce {
        version: 1,
        meeting: MEETING,
        instance: INSTANCE,
        challenge: Some([0x33; 32]),
        participant: BOB,
        device: device.public(),
        kem: vec![0x44; 1216],
        signer: signer().public(),
        name: "Bob".into(),
        role: Role::Bot,
        capabilities: 1,
        suites: vec![5, 4],
        kem_id: 0x647a,
    };
    SignedAnnounce::new(announce, &device)
}

fn entry() -> Entry {
    let announce = announce();
    Entry::new(7, announce.unverified(), announce.hash(), true)
}

fn link(changes: Vec<Change>) -> SignedLink {
    let opening = Some(EpochOpening { epoch: 9, commitment: [0x55; 32] });
    let digest = [0x66; 32];
    let body = Link {
        meeting: MEETING,
        instance: INSTANCE,
        number: 8,
        previous: [0x77; 32],
        leader: ALICE,
        changes,
        digest,
        time: 10,
        opening,
    };
    Signed::new(body, &signer())
}

fn vote() -> Signed<SilenceVote> {
    let body = SilenceVote {
        meeting: MEETING,
        instance: INSTANCE,
        participant: BOB,
        leader: ALICE,
        head_number: 8,
        head: [0x77; 32],
        heartbeat: 5,
    };
    Signed::new(body, &signer())
}

fn resignation() -> Signed<Resignation> {
    let body =
        Resignation { meeting: MEETING, instance: INSTANCE, leader: ALICE, head: [0x77; 32], successor: BOB };
    Signed::new(body, &signer())
}

fn header() -> crate::roster::Header {
    let mut header = Roster::before_genesis(ALICE).header;
    header.locked = true;
    header.successors = vec![Successor { participant: BOB, signer: StayPublic([0x88; 32]) }];
    header.removed.insert(DevicePublic([0x99; 32]));
    header
}

fn all_changes() -> Vec<Change> {
    vec![
        Change::Add(entry()),
        Change::Remove(Removal { participant: BOB, reason: LeaveReason::Missing }),
        Change::Present(BOB),
        Change::Lock(true),
        Change::Succession { limit: 2, order: header().successors },
        Change::Takeover(Takeover { leader: BOB, votes: vec![vote()], resignation: Some(resignation()) }),
    ]
}

/// Sealed once: its key seals one message in all tests.
fn statement() -> Signed<Statement> {
    static STATEMENT: LazyLock<Signed<Statement>> = LazyLock::new(seal_statement);
    STATEMENT.clone()
}

fn seal_statement() -> Signed<Statement> {
    let said = Said::Open(StreamFacts {
        stream: StreamId(1),
        kind: Kind::Audio,
        track: "voice".into(),
        caps: "audio/x-opus".into(),
        instance: [0xcc; 16],
        kid: KeyId::new(StreamId(1), 7, 9),
        suite: CipherSuite::default(),
    });
    let key = EpochKey { epoch: 9, link: [0xdd; 32], key: secret(0xee) };
    let head = Statement {
        meeting: MEETING,
        instance: INSTANCE,
        participant: BOB,
        epoch: 9,
        link: key.link,
        counter: 2,
        sealed: Vec::new(),
    };
    Statement::seal(head, &said, &key, (7, &[0x12; 32]), &signer())
}

/// One of each.
fn messages() -> Vec<(&'static str, Message)> {
    let heartbeat = Heartbeat {
        meeting: MEETING,
        instance: INSTANCE,
        leader: ALICE,
        counter: 1,
        head_number: 8,
        head: [1; 32],
        epoch: 9,
        epoch_link: [2; 32],
        challenge: [3; 32],
        time: 11,
        previous: [4; 32],
        echoes: vec![[5; 16]],
    };
    let pulse = Pulse {
        meeting: MEETING,
        instance: INSTANCE,
        participant: BOB,
        nonce: [6; 16],
        head: [7; 32],
        epoch_link: [8; 32],
        heard: 10,
    };
    let answer = Answer {
        meeting: MEETING,
        instance: INSTANCE,
        leader: ALICE,
        to: BOB,
        announce: [1; 32],
        verdict: Verdict::Locked,
    };
    let ask = Ask { meeting: MEETING, instance: INSTANCE, participant: BOB, head: [5; 32], epoch: 6 };
    let step = Step { last: link(vec![]), header: header(), root: [9; 32], takeover: link(vec![]) };
    let lineage = Lineage { genesis: link(vec![]), creator: announce(), steps: vec![step] };
    let welcome = Welcome {
        announce: [1; 32],
        lineage: lineage.clone(),
        leader: announce(),
        head: link(vec![]),
        epoch_link: Some(link(vec![])),
        header: header(),
        entries: vec![entry()],
    };
    let offer = Some(Offer { start: 4, enc: vec![0x13; 1120], signature: [0x14; 64] });
    vec![
        ("link", Message::Link(link(all_changes()))),
        ("announce", Message::Announce(announce())),
        (
            "answer",
            Message::Answer(Box::new(Reply {
                answer: Signed::new(answer, &signer()),
                lineage: lineage.clone(),
            })),
        ),
        ("welcome", Message::Welcome(Box::new(welcome))),
        ("wrap", Message::Wrap(Wrap { to: BOB, epoch: 9, link: [2; 32], offer, sealed: [3; 48] })),
        ("heartbeat", Message::Heartbeat(Signed::new(heartbeat, &signer()))),
        ("pulse", Message::Pulse(ProvenPulse { pulse: Signed::new(pulse, &signer()), mac: [4; 32] })),
        ("ask", Message::Ask(Signed::new(ask, &signer()))),
        ("links", Message::Links(vec![link(vec![Change::Lock(false)])])),
        ("statement", Message::Statement(statement())),
        (
            "leave",
            Message::Leave(Signed::new(
                Leave { meeting: MEETING, instance: INSTANCE, participant: BOB },
                &signer(),
            )),
        ),
        (
            "over",
            Message::Over(Signed::new(
                Over { meeting: MEETING, instance: INSTANCE, leader: ALICE },
                &signer(),
            )),
        ),
        ("resign", Message::Resign(resignation())),
        ("vote", Message::Vote(vote())),
        ("announces", Message::Announces(vec![announce()])),
    ]
}

#[test]
fn the_bytes_of_every_message_are_pinned() {
    let mut now: String =
        messages().iter().map(|(name, message)| format!("{name} {}\n", Hex(&message.to_bytes()))).collect();
    let key = EpochKey { epoch: 9, link: [0xdd; 32], key: secret(0xee) };
    let derived: [(&str, Hash); 5] = [
        ("commitment", EpochKey::commitment(&key.key, MEETING, INSTANCE, 9)),
        ("announce-hash", announce().hash()),
        ("link-hash", link(all_changes()).body.hash()),
        ("roster-digest", Roster::before_genesis(ALICE).digest()),
        (
            "stream-key",
            *key.stream(
                DevicePublic([1; 32]),
                &match opened(&key) {
                    Said::Open(facts) => facts,
                    Said::Close(_) => unreachable!(),
                },
            )
            .expose(),
        ),
    ];
    now.extend(derived.iter().map(|(name, bytes)| format!("{name} {}\n", Hex(bytes))));
    let pinned = include_str!("snapshots.txt");
    for (now, pinned) in now.lines().zip(pinned.lines()) {
        assert_eq!(now, pinned);
    }
    assert_eq!(now.lines().count(), pinned.lines().count());
}

fn opened(key: &EpochKey) -> Said {
    statement().body.open(key, 7, &[0x12; 32]).unwrap()
}

#[test]
fn every_message_reads_back_and_no_cut_or_longer_one_does() {
    for (name, message) in messages() {
        let bytes = message.to_bytes();
        assert_eq!(Message::from_bytes(&bytes).as_ref(), Ok(&message), "{name}");
        assert!(Message::from_bytes(&[&bytes[..], &[0]].concat()).is_err(), "{name}");
        for cut in 0..bytes.len() {
            assert!(Message::from_bytes(&bytes[..cut]).is_err(), "{name} cut to {cut}");
        }
    }
}

#[test]
fn an_announce_is_its_devices_down_to_every_bit() {
    let bytes = announce().to_bytes();
    assert!(announce().verified().is_some());
    for bit in 0..bytes.len() * 8 {
        let mut other = bytes.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        let verified = SignedAnnounce::from_bytes(&other).is_ok_and(|announce| announce.verified().is_some());
        assert!(!verified, "bit {bit}");
    }
}

#[test]
fn a_statement_opens_only_for_its_sender_and_epoch() {
    let statement = statement().body;
    let key = |link: u8| EpochKey { epoch: 9, link: [link; 32], key: secret(0xee) };
    assert!(statement.open(&key(0xdd), 7, &[0x12; 32]).is_some());
    assert!(statement.open(&key(0xdc), 7, &[0x12; 32]).is_none());
    assert!(statement.open(&key(0xdd), 8, &[0x12; 32]).is_none());
    assert!(statement.open(&key(0xdd), 7, &[0x13; 32]).is_none());
    let other = Statement { counter: 3, ..statement };
    assert!(other.open(&key(0xdd), 7, &[0x12; 32]).is_none());
}

#[test]
fn every_part_of_a_stream_key_counts() {
    let key = EpochKey { epoch: 9, link: [0xdd; 32], key: secret(0xee) };
    let facts = match opened(&key) {
        Said::Open(facts) => facts,
        Said::Close(_) => unreachable!(),
    };
    let device = DevicePublic([1; 32]);
    let base = *key.stream(device, &facts).expose();
    let mut others = vec![
        *key.stream(DevicePublic([2; 32]), &facts).expose(),
        *EpochKey { epoch: 9, link: [0xdc; 32], key: secret(0xee) }.stream(device, &facts).expose(),
        *EpochKey { epoch: 9, link: [0xdd; 32], key: secret(0xed) }.stream(device, &facts).expose(),
    ];
    type Alter = fn(&mut StreamFacts);
    let alterations: [Alter; 4] = [
        |facts| facts.track = "screen".into(),
        |facts| facts.kind = Kind::Video,
        |facts| facts.instance[0] ^= 1,
        |facts| facts.kid = KeyId::new(StreamId(2), 7, 9),
    ];
    others.extend(alterations.iter().map(|alter| {
        let mut facts = facts.clone();
        alter(&mut facts);
        *key.stream(device, &facts).expose()
    }));
    assert!(others.iter().all(|other| *other != base));
    let caps = StreamFacts { caps: "other".into(), ..facts };
    assert_eq!(*key.stream(device, &caps).expose(), base, "new caps are no new key");
}

/// A leader and a follower that share a meeting, joined by handing posts over by hand.
struct Two {
    rng: ChaCha20Rng,
    alice: Session,
    bob: Session,
    now: BootTime,
}

impl Two {
    fn new() -> Self {
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
            link,
            device: alice,
            name: "Alice".into(),
            role: Role::Participant,
            successors: Successors::Nobody,
        };
        let alice = Session::create(creating, now, &mut rng).unwrap();
        let bob = Session::join(joining, now, &mut rng);
        let mut two = Self { rng, alice, bob, now };
        for _ in 0..30 {
            two.now = BootTime(two.now.0 + 100);
            two.exchange();
        }
        assert_eq!(two.bob.state().phase, Phase::Live);
        two
    }

    /// Lets time pass and hands all posts over.
    fn exchange(&mut self) {
        let Self { rng, alice, bob, now } = self;
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
        Link {
            meeting: self.alice.me.meeting,
            instance: group.instance,
            number: group.head().body.number + 1,
            previous: group.head_hash(),
            leader: self.alice.me(),
            digest: group.roster.after(&changes).unwrap().digest(),
            changes,
            time: group.head().body.time + 1,
            opening,
        }
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

#[test]
fn two_links_of_one_number_end_the_meeting() {
    let mut two = Two::new();
    let lock = two.signed(two.next_link(vec![Change::Lock(true)], None));
    let other = two.signed(two.next_link(vec![Change::Succession { limit: 1, order: vec![] }], None));
    assert_eq!(two.say(&lock), Phase::Live);
    assert_eq!(two.say(&lock), Phase::Live, "the same one again is a repeat");
    assert_eq!(two.say(&other), CAUGHT);
}

#[test]
fn links_that_break_a_rule_end_the_meeting() {
    type Break = fn(&Two) -> Link;
    let breaks: [(&str, Break); 7] = [
        ("another digest", |two| Link { digest: [0; 32], ..two.next_link(vec![Change::Lock(true)], None) }),
        ("another chain", |two| Link { previous: [0; 32], ..two.next_link(vec![Change::Lock(true)], None) }),
        ("back in time", |two| Link { time: 0, ..two.next_link(vec![Change::Lock(true)], None) }),
        ("an epoch skipped", |two| {
            let epoch = two.group().epochs.newest.epoch + 2;
            two.next_link(vec![], Some(EpochOpening { epoch, commitment: [1; 32] }))
        }),
        ("a commitment again", |two| {
            let newest = two.group().epochs.newest;
            two.next_link(
                vec![],
                Some(EpochOpening { epoch: newest.epoch + 1, commitment: newest.commitment }),
            )
        }),
        ("a removal without a new key", |two| {
            two.next_link(
                vec![Change::Remove(Removal { participant: two.bob.me(), reason: LeaveReason::Left })],
                None,
            )
        }),
        ("somebody added without a new key", |two| {
            let index = two.group().roster.header.next_index;
            two.next_link(vec![Change::Add(Entry { index, ..entry() })], None)
        }),
    ];
    for (name, broken) in breaks {
        let mut two = Two::new();
        let message = two.signed(broken(&two));
        assert_eq!(two.say(&message), CAUGHT, "{name}");
    }
}

#[test]
fn a_link_by_somebody_else_changes_nothing() {
    let mut two = Two::new();
    let link = two.next_link(vec![Change::Lock(true)], None);
    let by_bob = Message::Link(two.bob.me.sign(link.clone()));
    let by_nobody = Message::Link(Signed::new(link, &signer()));
    for message in [by_bob, by_nobody] {
        let forged = two.bob.counters().forged;
        assert_eq!(two.say(&message), Phase::Live);
        assert!(!two.bob.state().locked);
        assert_eq!(two.bob.counters().forged, forged + 1);
    }
}

#[test]
fn a_key_that_was_not_committed_to_is_refused() {
    let mut two = Two::new();
    let newest = two.group().epochs.newest.epoch;
    let link = two.next_link(vec![], Some(EpochOpening { epoch: newest + 1, commitment: [1; 32] }));
    let hash = link.hash();
    let message = two.signed(link);
    assert_eq!(two.say(&message), Phase::Live);
    let bob = two.bob.me();
    let Place::Member(member) = &mut two.alice.place else { unreachable!() };
    let sealed = member.lead_pairing(bob).wrap(newest + 1, &hash, &secret(9)).unwrap();
    let wrap = Message::Wrap(Wrap { to: bob, epoch: newest + 1, link: hash, offer: None, sealed });
    assert_eq!(two.say(&wrap), CAUGHT);
    assert_eq!(two.bob.state().epoch, None);
}

#[test]
fn heartbeats_that_contradict_each_other_end_the_meeting() {
    let beat = |two: &Two, counter: u64, later: u64, challenge: u8| {
        let group = two.group();
        Heartbeat {
            meeting: two.alice.me.meeting,
            instance: group.instance,
            leader: two.alice.me(),
            counter,
            head_number: group.head().body.number,
            head: group.head_hash(),
            epoch: group.epochs.newest.epoch,
            epoch_link: group.epochs.newest.link,
            challenge: [challenge; 32],
            time: group.epochs.newest.time + 10_000 + later,
            previous: [0; 32],
            echoes: vec![],
        }
    };
    type Bad<'a> = &'a dyn Fn(&Two) -> Heartbeat;
    let cases: [(&str, Bad<'_>); 6] = [
        ("one number twice", &|two| beat(two, 1_000, 0, 2)),
        ("back in time", &|two| beat(two, 1_001, 0, 1)),
        ("not chained", &|two| beat(two, 1_001, 1, 1)),
        ("another chain", &|two| Heartbeat { head: [9; 32], ..beat(two, 1_002, 1, 1) }),
        ("another epoch link", &|two| Heartbeat { epoch_link: [9; 32], ..beat(two, 1_002, 1, 1) }),
        ("no rotation", &|two| beat(two, 1_002, 200_000, 1)),
    ];
    for (name, bad) in cases {
        let mut two = Two::new();
        let message = |two: &Two, beat: Heartbeat| Message::Heartbeat(two.alice.me.sign(beat));
        let (first, second) = (message(&two, beat(&two, 1_000, 0, 1)), message(&two, bad(&two)));
        assert_eq!(two.say(&first), Phase::Live, "{name}");
        assert_eq!(two.say(&first), Phase::Live, "{name}: the same again is a repeat");
        assert_eq!(two.say(&second), CAUGHT, "{name}");
    }
}

#[test]
fn a_welcome_holds_only_as_a_whole() {
    let two = Two::new();
    let group = two.group();
    let own = group.lineage.creator.clone();
    let welcome = Welcome {
        announce: [0; 32],
        lineage: group.lineage.clone(),
        leader: own,
        head: group.head().clone(),
        epoch_link: (group.head_hash() != group.epochs.newest.link).then(|| group.epoch_link.clone()),
        header: group.roster.header.clone(),
        entries: group.roster.entries().cloned().collect(),
    };
    let of = (two.alice.me.meeting, group.instance);
    assert!(welcome.roster(of).is_some());
    assert!(welcome.roster((MEETING, of.1)).is_none() && welcome.roster((of.0, INSTANCE)).is_none());
    type Alter = fn(&mut Welcome);
    let alterations: [Alter; 6] = [
        |welcome| welcome.header.locked = true,
        |welcome| welcome.entries[1].name = "Eve".into(),
        |welcome| drop(welcome.entries.pop()),
        |welcome| welcome.leader = announce(),
        |welcome| welcome.lineage.creator = announce(),
        |welcome| welcome.head.body.time += 1,
    ];
    for (i, alter) in alterations.iter().enumerate() {
        let mut other = welcome.clone();
        alter(&mut other);
        assert!(other.roster(of).is_none(), "alteration {i}");
    }
}

//! Heads, and what becomes of those who lie about theirs.

use super::*;
use crate::testing::Meeting;

pub(super) const ALICE: usize = 0;
pub(super) const BOB: usize = 1;
pub(super) const CAROL: usize = 2;

pub(super) fn group(meeting: &Meeting, node: usize) -> &group::Group {
    match &meeting.nodes[node].session.place {
        Place::Member(member) => member.group(),
        _ => unreachable!("somebody in the meeting"),
    }
}

/// Where a node stands, as it would say.
fn head(meeting: &Meeting, node: usize) -> Head {
    let group = group(meeting, node);
    Head {
        meeting: meeting.id(),
        instance: group.instance,
        participant: meeting.nodes[node].session.me(),
        number: group.head().body.number,
        head: group.head_hash(),
        epoch: group.epochs.newest.epoch,
        epoch_link: group.epochs.newest.link,
    }
}

/// Hands `to` something that `from` signs and posts.
pub(super) fn says(meeting: &mut Meeting, from: usize, to: usize, message: &Message) {
    let from = meeting.nodes[from].session.me();
    says_as(meeting, from, to, message);
}

/// Hands `to` something as if somebody of this id had posted it.
pub(super) fn says_as(meeting: &mut Meeting, from: ParticipantId, to: usize, message: &Message) {
    let instance = group(meeting, to).instance;
    // The nonce ledger is one for all tests: no two posts may draw the same.
    static POSTS: AtomicU64 = AtomicU64::new(0);
    let mut rng = ChaCha20Rng::seed_from_u64(0xf04c << 32 | POSTS.fetch_add(1, Ordering::Relaxed));
    let body = meeting.nodes[to].session.me.board.seal(instance, &message.to_bytes(), &mut rng);
    meeting.inject(to, Post { seq: 0, from, slot: Slot::Cell, body });
}

/// A program of somebody's own states what it likes; the facts are made from its index and the epoch.
pub(super) fn states(
    meeting: &mut Meeting,
    from: usize,
    to: usize,
    counter: u64,
    facts: impl FnOnce(u16, u64) -> StreamFacts,
) {
    let (group, me) = (group(meeting, from), &meeting.nodes[from].session.me);
    let (key, own) = (group.epochs.newest_key().unwrap(), group.roster.entry(me.participant).unwrap());
    let said = Said::Open(facts(own.index, key.epoch));
    let head = Statement {
        meeting: me.meeting,
        instance: group.instance,
        participant: me.participant,
        epoch: key.epoch,
        link: key.link,
        counter,
        sealed: Vec::new(),
    };
    let statement = Statement::seal(head, &said, key, (own.index, &own.announce), &me.signer);
    says(meeting, from, to, &Message::Statement(statement));
}

fn told(meeting: &Meeting, node: usize, words: &str) -> usize {
    let said = |event: &&Event| matches!(event, Event::Misbehaviour(text) if text.contains(words));
    meeting.nodes[node].events.iter().filter(said).count()
}

#[test]
fn who_lies_about_its_head_is_named_and_ends_nothing() {
    let mut meeting = Meeting::of(3, 9_001, Successors::Nobody);
    for (number, lie) in [[1; 32], [2; 32], [3; 32]].into_iter().enumerate() {
        let lie = Head { head: lie, epoch_link: lie, ..head(&meeting, CAROL) };
        let signed = Message::Head(meeting.nodes[CAROL].session.me.sign(lie));
        for node in [ALICE, BOB] {
            says(&mut meeting, CAROL, node, &signed);
        }
        meeting.run(std::time::Duration::from_secs(10 + number as u64));
    }
    for node in [ALICE, BOB] {
        assert_eq!(told(&meeting, node, "Carol signs for another chain"), 1, "told once");
        let state = meeting.state(node);
        assert_eq!(state.phase, Phase::Live);
        let forked: Vec<_> = state.roster.iter().filter(|person| person.forked).map(|p| &*p.name).collect();
        assert_eq!(forked, ["Carol"]);
    }
    assert!(meeting.together(&[ALICE, BOB]) || meeting.phase(CAROL) == Phase::Live);
}

#[test]
fn nobody_says_where_another_stands() {
    let mut meeting = Meeting::of(3, 9_002, Successors::Nobody);
    let lie = Head { head: [1; 32], ..head(&meeting, ALICE) };
    let forgeries = [
        Message::Head(meeting.nodes[CAROL].session.me.sign(lie.clone())),
        Message::Head(meeting.nodes[CAROL].session.me.sign(Head { meeting: MEETING, ..lie.clone() })),
        Message::Head(Signed::new(lie, &signer())),
    ];
    for forged in &forgeries {
        says(&mut meeting, CAROL, BOB, forged);
    }
    assert_eq!(meeting.nodes[BOB].session.counters().forged, 3);
    assert_eq!(told(&meeting, BOB, "another chain"), 0);
    assert!(meeting.state(BOB).roster.iter().all(|person| !person.forked));
}

#[test]
fn a_flood_of_heads_causes_few_questions() {
    let mut meeting = Meeting::of(3, 9_003, Successors::Nobody);
    let before = meeting.posts.len();
    for number in 0..2_000_u32 {
        let mut lie = Head { head: [7; 32], ..head(&meeting, CAROL) };
        // Every other one from somebody nobody knows.
        if number % 2 == 0 {
            lie.participant.0[..4].copy_from_slice(&number.to_be_bytes());
        }
        let signed = Message::Head(meeting.nodes[CAROL].session.me.sign(lie));
        says(&mut meeting, CAROL, BOB, &signed);
        meeting.run(std::time::Duration::from_millis(5));
    }
    let direct = meeting.posts[before..]
        .iter()
        .filter(|(_, from, slot, _)| *from == BOB && matches!(slot, Slot::Direct(_)))
        .count();
    // Ten seconds: one question in 2 s to a member, one each second to strangers, and a pulse or two.
    assert!((10..20).contains(&direct), "{direct} posts");
    assert_eq!(meeting.phase(BOB), Phase::Live);
}

#[test]
fn what_is_shown_is_shown_seldom_and_only_to_who_asks() {
    let mut meeting = Meeting::of(3, 9_004, Successors::Nobody);
    let show = |meeting: &Meeting, who: ParticipantId| Show {
        meeting: meeting.id(),
        instance: group(meeting, BOB).instance,
        participant: who,
        number: 1,
        epoch: 1,
    };
    let carol = meeting.nodes[CAROL].session.me();
    let shown = |meeting: &Meeting, to: ParticipantId| {
        let to = Slot::Direct(to);
        meeting.posts.iter().filter(|(_, from, slot, _)| *from == BOB && *slot == to).count()
    };
    // Somebody asks in Carol's name.
    let forged = Message::Show(Signed::new(show(&meeting, carol), &signer()));
    says(&mut meeting, CAROL, BOB, &forged);
    assert_eq!(shown(&meeting, carol), 0);
    let asks = Message::Show(meeting.nodes[CAROL].session.me.sign(show(&meeting, carol)));
    for _ in 0..100 {
        says(&mut meeting, CAROL, BOB, &asks);
    }
    assert_eq!(shown(&meeting, carol), 1, "link 1, once; the one before is not Bob's to know");
}

#[test]
fn a_pulse_for_another_chain_is_told_once_and_returned_to_nobody() {
    let mut two = Two::new();
    let (bob, instance) = (two.bob.me(), two.group().instance);
    for nonce in 1..=3 {
        let pulse = Pulse {
            meeting: two.alice.me.meeting,
            instance,
            participant: bob,
            nonce: [nonce; 16],
            head: [9; 32],
            epoch_link: [9; 32],
            heard: 1,
        };
        let Place::Member(member) = &mut two.alice.place else { unreachable!() };
        let mac = member.lead_pairing(bob).prove(&pulse.to_bytes());
        let message = Message::Pulse(ProvenPulse { pulse: two.bob.me.sign(pulse), mac });
        let body = two.bob.me.board.seal(instance, &message.to_bytes(), &mut two.rng);
        let post = Post { seq: 0, from: bob, slot: Slot::Direct(two.alice.me()), body };
        two.alice.handle(Input::Post(post), two.now, &mut two.rng).unwrap();
    }
    let state = two.alice.state();
    let forked: Vec<_> = state.roster.iter().filter(|person| person.forked).map(|p| p.participant).collect();
    assert_eq!((forked, two.alice.counters().misbehaviour), (vec![bob], 1));
    assert_eq!((state.phase, two.alice.counters().forged), (Phase::Live, 0));
}

#[test]
fn whoever_breaks_rules_again_and_again_is_told_once_and_hides_nobody_else() {
    let mut meeting = Meeting::of(3, 9_011, Successors::Nobody);
    let dave = meeting.join("Dave");
    meeting.run_until(std::time::Duration::from_secs(10), |meeting| {
        meeting.together(&[ALICE, BOB, CAROL, dave])
    });
    for counter in 1_000..1_040 {
        // As if the stream were Dave's.
        states(&mut meeting, CAROL, BOB, counter, |index, epoch| StreamFacts {
            stream: StreamId(1),
            kind: Kind::Video,
            track: "camera".into(),
            caps: "video/x-h264".into(),
            instance: [1; 16],
            kid: KeyId::new(StreamId(1), index + 1, epoch),
            suite: CipherSuite::default(),
        });
    }
    assert_eq!(told(&meeting, BOB, "Carol states a stream"), 1);
    let lie = Head { head: [1; 32], ..head(&meeting, dave) };
    let lie = Message::Head(meeting.nodes[dave].session.me.sign(lie));
    says(&mut meeting, dave, BOB, &lie);
    assert_eq!(told(&meeting, BOB, "Dave signs for another chain"), 1);
}

//! Eve, who holds the link and thereby the board's key, and says what she likes.

use std::time::Duration;

use super::{
    forks::{ALICE as FIRST, group},
    samples::*,
    *,
};
use crate::testing::{Fate, Meeting};

/// Hands Bob a message as if somebody else had posted it.
fn tell_bob(two: &mut Two, instance: InstanceId, message: &Message) {
    let post = eves(&two.alice, instance, message, &mut two.rng);
    two.bob.handle(Input::Post(post), two.now, &mut two.rng).unwrap();
}

/// Hands Alice a message as if somebody else had posted it.
pub(super) fn tell_alice(two: &mut Two, message: &Message) {
    let instance = two.group().instance;
    let post = eves(&two.alice, instance, message, &mut two.rng);
    two.alice.handle(Input::Post(post), two.now, &mut two.rng).unwrap();
}

/// What Eve posts. An announce counts only from the stay it is of, as which she has a connection of her own, or the relay's help.
fn eves(holder: &Session, instance: InstanceId, message: &Message, rng: &mut ChaCha20Rng) -> Post {
    let from = match message {
        Message::Announce(announce) => announce.unverified().participant,
        _ => ParticipantId([0xee; 16]),
    };
    let body = holder.me.board.seal(instance, &message.to_bytes(), rng);
    Post { seq: 0, from, slot: Slot::Log, body }
}

fn announce_of(post: &Output, board: &crate::board::Board) -> Option<SignedAnnounce> {
    let Output::Post { body, .. } = post else { return None };
    match Message::from_bytes(&board.open(body)?.1) {
        Ok(Message::Announce(announce)) => Some(announce),
        _ => None,
    }
}

#[test]
fn a_forged_refusal_turns_nobody_away() {
    let mut two = Two::unmet();
    let instance = two.group().instance;
    two.alice.handle(Input::Timeout, two.now, &mut two.rng).unwrap();
    hand_over(&mut two.alice, &mut two.bob, two.now, &mut two.rng);
    let mut announced = None;
    while announced.is_none() {
        announced = announce_of(&two.bob.poll_output(), &two.alice.me.board);
    }
    let answer = Answer {
        meeting: two.alice.me.meeting,
        instance,
        leader: two.alice.me(),
        to: two.bob.me(),
        announce: announced.unwrap().hash(),
        verdict: Verdict::Refused,
    };
    let lineage = two.group().lineage.clone();
    let by_alice = two.alice.me.sign(answer.clone());
    let reply = |answer: &Signed<Answer>, lineage: &Lineage| {
        Message::Answer(Box::new(Reply { answer: answer.clone(), lineage: lineage.clone() }))
    };
    // Eve opens an instance of her own, whose chain starts with her.
    let eve = std::sync::Arc::new(DeviceKey::from_seed(&secret(0xee)));
    let mut link = two.link.duplicate();
    link.creator = eve.public().fingerprint();
    let creating = Creating {
        link,
        device: eve,
        name: "Eve".into(),
        role: Role::Participant,
        successors: Successors::Nobody,
    };
    let eve = Session::create(creating, two.now, &mut two.rng).unwrap();
    let Place::Member(eves_place) = &eve.place else { unreachable!() };
    let eves_lineage = eves_place.group().lineage.clone();
    let other = Answer { to: ALICE, ..answer.clone() };
    let forgeries = [
        reply(&Signed::new(answer.clone(), &signer()), &lineage),
        reply(&two.bob.me.sign(answer.clone()), &lineage),
        reply(&eve.me.sign(Answer { leader: eve.me(), ..answer.clone() }), &eves_lineage),
        reply(&by_alice, &eves_lineage),
        reply(&two.alice.me.sign(Answer { meeting: MEETING, ..answer.clone() }), &lineage),
        reply(&two.alice.me.sign(Answer { announce: [9; 32], ..answer.clone() }), &lineage),
        reply(&two.alice.me.sign(other), &lineage),
    ];
    for forged in &forgeries {
        tell_bob(&mut two, instance, forged);
        assert_eq!(two.bob.state().phase, Phase::Joining(WaitReason::Answer));
    }
    // Bob asks Eve too, who refuses him in her own right: she leads, but nothing that his link names.
    let mut eve = eve;
    two.now = two.now + Duration::from_millis(250);
    eve.handle(Input::Timeout, two.now, &mut two.rng).unwrap();
    hand_over(&mut eve, &mut two.bob, two.now, &mut two.rng);
    let mut asked = None;
    while asked.is_none() {
        asked = announce_of(&two.bob.poll_output(), &two.alice.me.board);
    }
    let asked = asked.unwrap();
    let eves_instance = asked.unverified().instance;
    assert_ne!(eves_instance, instance);
    let refused = Answer { instance: eves_instance, leader: eve.me(), announce: asked.hash(), ..answer };
    let before = two.bob.counters().unauthorised;
    tell_bob(&mut two, eves_instance, &reply(&eve.me.sign(refused), &eves_lineage));
    assert_eq!(two.bob.state().phase, Phase::Joining(WaitReason::Answer));
    assert_eq!(two.bob.counters().unauthorised, before + 1);
    tell_bob(&mut two, instance, &reply(&by_alice, &lineage));
    assert_eq!(two.bob.state().phase, Phase::Joining(WaitReason::Answer), "others have a moment to answer");
    two.now = two.now + Duration::from_secs(3);
    two.bob.handle(Input::Timeout, two.now, &mut two.rng).unwrap();
    assert_eq!(two.bob.state().phase, Phase::Ended(EndReason::Refused));
}

#[test]
fn a_leader_of_another_meeting_is_no_leader_here() {
    let two = Two::new();
    let group = two.group();
    let here = (two.alice.me.meeting, group.instance);
    assert!(group.lineage.leader(here).is_some());
    // Alice opened this instance; nothing of it says that she, or a successor of hers, leads another meeting.
    assert!(group.lineage.leader((MEETING, group.instance)).is_none());
    let mut moved = group.lineage.clone();
    moved.genesis = two.alice.me.sign(Link { meeting: MEETING, ..moved.genesis.body });
    assert!(moved.leader((MEETING, group.instance)).is_none(), "her announce names the meeting too");
}

#[test]
fn a_forged_wrap_costs_nobody_the_pairing() {
    let mut two = Two::new();
    let bob = two.bob.me();
    let instance = two.group().instance;
    let newest = two.group().epochs.newest.epoch;
    // A true rotation of which Bob gets the link only, until the old key is gone.
    two.alice.handle(Input::Command(Command::Rotate), two.now, &mut two.rng).unwrap();
    let (link, hash) = (two.group().head().clone(), two.group().head_hash());
    let mut wrap = None;
    loop {
        match two.alice.poll_output() {
            Output::Timeout(_) => break,
            Output::Post { body, .. } => {
                let opened = two.bob.me.board.open(&body).unwrap();
                if let Ok(Message::Wrap(found)) = Message::from_bytes(&opened.1) {
                    wrap = Some(found);
                }
            }
            _ => {}
        }
    }
    tell_bob(&mut two, instance, &Message::Link(link));
    two.now = BootTime(two.now.0 + 3_000);
    two.bob.handle(Input::Timeout, two.now, &mut two.rng).unwrap();
    assert_eq!(two.bob.state().epoch, None);
    let garbage = Wrap { to: bob, epoch: newest + 1, link: hash, offer: None, sealed: [7; 48] };
    tell_bob(&mut two, instance, &Message::Wrap(garbage));
    tell_bob(&mut two, instance, &Message::Wrap(wrap.unwrap()));
    assert_eq!(two.bob.state().epoch, Some(newest + 1));
}

#[test]
fn somebody_elses_question_is_not_answered() {
    let mut two = Two::new();
    let ask = Ask {
        meeting: two.alice.me.meeting,
        instance: two.group().instance,
        participant: two.bob.me(),
        head: two.group().lineage.genesis.body.hash(),
        epoch: 0,
    };
    let posts = |two: &mut Two, ask: Signed<Ask>| {
        tell_alice(two, &Message::Ask(ask));
        let mut posts = 0;
        while let output @ (Output::Post { .. } | Output::Keys(_) | Output::Event(_)) =
            two.alice.poll_output()
        {
            posts += usize::from(matches!(output, Output::Post { .. }));
        }
        posts
    };
    assert_eq!(posts(&mut two, Signed::new(ask.clone(), &signer())), 0);
    assert_eq!(
        {
            let asked = two.bob.me.sign(ask);
            posts(&mut two, asked)
        },
        2,
        "links and a wrap"
    );
}

#[test]
fn nobody_slips_into_somebody_elses_place_in_the_queue() {
    let mut two = Two::new();
    let bob = two.bob.me();
    two.alice.handle(Input::Command(Command::Remove(bob)), two.now, &mut two.rng).unwrap();
    let challenge = last_heartbeat(&mut two).body.challenge;
    let (carol, eve) = (carols_announce(&two, challenge, 1), carols_announce(&two, challenge, 2));
    tell_alice(&mut two, &carol);
    let shown = two.alice.state().waiting;
    assert_eq!(shown.len(), 1);
    tell_alice(&mut two, &eve);
    assert_eq!(two.alice.state().waiting, shown, "who is approved is who was shown");

    // The user thinks for so long that Carol has to announce herself anew: her place is hers meanwhile.
    two.now = BootTime(two.now.0 + 16_000);
    let approve = Command::Approve(shown[0].participant);
    two.alice.handle(Input::Command(approve), two.now, &mut two.rng).unwrap();
    assert_eq!(two.alice.state().waiting, []);
    let challenge = last_heartbeat(&mut two).body.challenge;
    let (carol, eve) = (carols_announce(&two, challenge, 1), carols_announce(&two, challenge, 2));
    tell_alice(&mut two, &eve);
    assert_eq!(two.alice.state().waiting, []);
    tell_alice(&mut two, &carol);
    let roster = two.alice.state().roster;
    assert_eq!(roster.iter().map(|person| person.device).collect::<Vec<_>>()[1..], [shown[0].device]);
}

/// Carol's announce from the device of this seed, in answer to a challenge.
fn carols_announce(two: &Two, challenge: Hash, seed: u8) -> Message {
    let device = DeviceKey::from_seed(&secret(seed));
    let announce = Announce {
        meeting: two.alice.me.meeting,
        instance: two.group().instance,
        challenge: Some(challenge),
        device: device.public(),
        participant: ParticipantId([0xca; 16]),
        name: "Carol".into(),
        ..announce().unverified().clone()
    };
    Message::Announce(SignedAnnounce::new(announce, &device))
}

#[test]
fn an_announce_held_back_for_thirty_seconds_lets_nobody_in() {
    for (held, people) in [(28, 3), (32, 2)] {
        let mut two = Two::new();
        let challenge = last_heartbeat(&mut two).body.challenge;
        for _ in 0..held {
            two.now = BootTime(two.now.0 + 1_000);
            two.exchange();
        }
        let carol = carols_announce(&two, challenge, 1);
        tell_alice(&mut two, &carol);
        assert_eq!(two.alice.state().roster.len(), people, "after {held} s");
    }
}

#[test]
fn a_forged_heartbeat_moves_nothing() {
    let mut two = Two::new();
    let instance = two.group().instance;
    let genuine = last_heartbeat(&mut two);
    let later = Heartbeat { time: genuine.body.time + 60_000, ..genuine.body.clone() };
    let (lease, forged) = (two.bob.state().lease, two.bob.counters().forged);
    tell_bob(&mut two, instance, &Message::Heartbeat(Signed::new(later, &signer())));
    assert_eq!((two.bob.state().lease, two.bob.counters().forged), (lease, forged + 1));
    tell_bob(&mut two, instance, &Message::Heartbeat(genuine));
    assert!(two.bob.state().lease > lease, "the leader's own does");
}

/// What Alice says next.
pub(super) fn last_heartbeat(two: &mut Two) -> Signed<Heartbeat> {
    two.now = BootTime(two.now.0 + 2_000);
    two.alice.handle(Input::Timeout, two.now, &mut two.rng).unwrap();
    let mut last = None;
    loop {
        match two.alice.poll_output() {
            Output::Timeout(_) => return last.unwrap(),
            Output::Post { body, .. } => {
                let opened = two.bob.me.board.open(&body).unwrap();
                if let Ok(Message::Heartbeat(heartbeat)) = Message::from_bytes(&opened.1) {
                    last = Some(heartbeat);
                }
            }
            _ => {}
        }
    }
}

#[test]
fn numbers_without_end_are_no_messages() {
    let vote = SilenceVote { heartbeat: u64::MAX, ..vote().body };
    let epoch = Some(EpochOpening { epoch: u64::MAX, commitment: [0; 32] });
    let link = Link { opening: epoch, ..link(vec![]).body };
    let number = Link { number: 1 << 62, ..link.clone() };
    for message in [
        Message::Vote(Signed::new(vote, &signer())),
        Message::Link(Signed::new(link, &signer())),
        Message::Link(Signed::new(number, &signer())),
    ] {
        assert!(Message::from_bytes(&message.to_bytes()).is_err());
    }
}

#[test]
fn a_welcome_put_together_from_true_parts_brings_nobody_in() {
    let mut meeting = Meeting::of(3, 9_327, Successors::Nobody);
    // Welcome and wrap are slow, and Eve is quick.
    meeting.tamper = Some(Box::new(|_, from, _, post| match post.slot {
        Slot::Direct(_) if from == 0 => Fate::Delay(500),
        _ => Fate::Deliver,
    }));
    let bob = meeting.join("Bob");
    let welcome = |meeting: &Meeting| {
        let (me, board) = (meeting.nodes[bob].session.me(), &meeting.nodes[0].session.me.board);
        let direct = meeting.recorded.iter().rev().filter(|post| post.slot == Slot::Direct(me));
        direct.filter_map(|post| Message::from_bytes(&board.open(&post.body)?.1).ok()).find_map(|message| {
            match message {
                Message::Welcome(welcome) => Some(*welcome),
                _ => None,
            }
        })
    };
    meeting.run_until(std::time::Duration::from_secs(5), |meeting| welcome(meeting).is_some());
    let genesis = Some(group(&meeting, 0).lineage.genesis.clone());
    let old = Message::Welcome(Box::new(Welcome { epoch_link: genesis, ..welcome(&meeting).unwrap() }));
    let instance = group(&meeting, 0).instance;
    let post = eves(&meeting.nodes[0].session, instance, &old, &mut ChaCha20Rng::seed_from_u64(0xe7e_0311));
    meeting.inject(bob, post);
    assert_eq!(meeting.nodes[bob].session.counters().forged, 1);
    meeting.run(std::time::Duration::from_secs(1));
    meeting.command(0, Command::Rotate).unwrap();
    meeting.run_until(std::time::Duration::from_secs(3), |meeting| meeting.together(&[0, 1, 2, bob]));
}

/// A heartbeat in the name of `leader`, as the relay hands it on from the one who posted it.
fn pretended(
    meeting: &Meeting,
    (from, leader): (ParticipantId, ParticipantId),
    instance: InstanceId,
    number: u16,
) -> Post {
    let mut challenge = [0xcc; 32];
    challenge[..2].copy_from_slice(&number.to_be_bytes());
    let beat = Heartbeat {
        meeting: meeting.id(),
        instance,
        leader,
        counter: 1,
        head_number: 0,
        head: [1; 32],
        epoch: 1,
        epoch_link: [1; 32],
        challenge,
        time: 1,
        previous: [0; 32],
        echoes: vec![],
    };
    // The nonce ledger is one for all tests: no two posts may draw the same.
    static POSTS: AtomicU64 = AtomicU64::new(0);
    let mut rng = ChaCha20Rng::seed_from_u64(0x9e4d << 32 | POSTS.fetch_add(1, Ordering::Relaxed));
    let message = Message::Heartbeat(Signed::new(beat, &signer()));
    let body = meeting.nodes[FIRST].session.me.board.seal(instance, &message.to_bytes(), &mut rng);
    Post { seq: 0, from, slot: Slot::Cell, body }
}

/// So many people with the link, each of whom pretends to lead an instance, speak before Alice is heard.
fn joins_among(pretenders: u16, seed: u64, limit: Duration) -> usize {
    let mut meeting = Meeting::new(seed, Successors::Nobody);
    meeting.run(Duration::from_secs(3));
    let (alice, instance) = (meeting.nodes[FIRST].session.me(), group(&meeting, FIRST).instance);
    // What Alice says to Bob alone takes half a second.
    meeting.tamper = Some(Box::new(|_, from, _, post| match post.slot {
        Slot::Direct(_) if from == FIRST => Fate::Delay(500),
        _ => Fate::Deliver,
    }));
    let bob = meeting.join("Bob");
    let id = |number: u16| {
        let mut id = [0xee; 16];
        id[..2].copy_from_slice(&number.to_be_bytes());
        id
    };
    for number in 0..pretenders {
        let eve = ParticipantId(id(number));
        let post = pretended(&meeting, (eve, eve), InstanceId(id(number)), number);
        meeting.inject(bob, post);
    }
    // And somebody says that Alice wants other challenges answered.
    for number in 0..20 {
        let post = pretended(&meeting, (ParticipantId(id(0)), alice), instance, number);
        meeting.inject(bob, post);
        meeting.run(Duration::from_millis(100));
    }
    meeting.run_until(limit, |meeting| meeting.together(&[FIRST, bob]));
    meeting.posts.iter().filter(|(_, from, slot, _)| (*from, *slot) == (bob, Slot::Log)).count()
}

#[test]
fn who_pretends_to_lead_keeps_no_newcomer_out_and_has_few_answers() {
    let announces = joins_among(40, 9_301, Duration::from_secs(13));
    assert!(announces < 40, "{announces} announces");
    // More than are listed: whom to forget is drawn.
    let announces = joins_among(400, 9_302, Duration::from_secs(110));
    assert!(announces < 4 * 112, "{announces} announces");
}

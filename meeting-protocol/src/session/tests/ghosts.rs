//! Ghosts: devices and stays that somebody with the link makes up, as many as it likes.

use std::time::Duration;

use super::{
    forks::{ALICE, BOB, CAROL, group, says, says_as},
    samples::announce,
    *,
};
use crate::{
    session::lead::{BEAT, answers},
    testing::{Fate, Meeting},
};

/// Who asks in the name of all of them.
const DAVE: usize = 3;

/// A device that is let in and never proves anything.
struct Ghost {
    device: DeviceKey,
    signer: StayKey,
    participant: ParticipantId,
}

impl Ghost {
    fn new(number: u32) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(0x9057_0000_0000 | u64::from(number));
        let (device, signer) = (DeviceKey::from_seed(&Secret::random(&mut rng)), StayKey::random(&mut rng));
        let mut participant = ParticipantId([0x90; 16]);
        participant.0[..4].copy_from_slice(&number.to_be_bytes());
        Self { device, signer, participant }
    }

    /// An answer to the leader's newest challenge, with this changed.
    fn announce(&self, meeting: &Meeting, change: impl FnOnce(&mut Announce)) -> SignedAnnounce {
        let mut announce = Announce {
            meeting: meeting.id(),
            instance: group(meeting, CAROL).instance,
            challenge: Some(group(meeting, CAROL).last_beat.as_ref().unwrap().body.challenge),
            device: self.device.public(),
            participant: self.participant,
            signer: self.signer.public(),
            name: "Ghost".into(),
            ..announce().unverified().clone()
        };
        change(&mut announce);
        SignedAnnounce::new(announce, &self.device)
    }

    /// Asks a leader for a place, over a connection of its own.
    fn comes(&self, meeting: &mut Meeting, to: usize) {
        let announce = Message::Announce(self.announce(meeting, |_| {}));
        says_as(meeting, self.participant, to, &announce);
    }

    /// A question by one who knows of nothing.
    fn ask(&self, meeting: &Meeting, head: Hash) -> Message {
        let (meeting, instance) = (meeting.id(), group(meeting, ALICE).instance);
        let ask = Ask { meeting, instance, participant: self.participant, head, epoch: 0 };
        Message::Ask(Signed::new(ask, &self.signer))
    }
}

/// Four people, and two hundred ghosts at the door.
fn haunted(seed: u64) -> (Meeting, Vec<Ghost>) {
    let mut meeting = Meeting::of(4, seed, Successors::Nobody);
    meeting.run(Duration::from_secs(3));
    let ghosts: Vec<Ghost> = (0..200).map(Ghost::new).collect();
    ghosts.iter().for_each(|ghost| ghost.comes(&mut meeting, ALICE));
    (meeting, ghosts)
}

#[test]
fn ghosts_that_ask_for_welcomes_cost_a_leader_so_many_bytes_a_second_and_nobody_an_answer() {
    let (mut meeting, ghosts) = haunted(9_321);
    let (start, posts) = (meeting.now, meeting.posts.len());
    for round in 0..50_u8 {
        if round == 20 {
            // Bob misses a key, and how it came to be.
            meeting.tamper = Some(Box::new(move |now, from, to, post| {
                let missed = now < start + 4_500 && from == ALICE && to == BOB && post.slot != Slot::Cell;
                if missed { Fate::Drop } else { Fate::Deliver }
            }));
            meeting.command(ALICE, Command::Rotate).unwrap();
        }
        for ghost in &ghosts {
            let ask = ghost.ask(&meeting, [round; 32]);
            says(&mut meeting, DAVE, ALICE, &ask);
        }
        meeting.run(Duration::from_millis(200));
        for node in [ALICE, CAROL, DAVE] {
            assert_eq!(meeting.phase(node), Phase::Live);
        }
    }
    assert_eq!(meeting.phase(BOB), Phase::Live, "who asks seldom is answered first");
    let welcomes = |size: usize| size > 4_096;
    let sizes =
        meeting.posts[posts..].iter().filter(|(_, from, slot, _)| *from == ALICE && *slot != Slot::Log);
    let sizes: Vec<usize> = sizes.map(|(.., size)| *size).collect();
    let (bytes, asked) = (sizes.iter().sum::<usize>(), sizes.iter().filter(|size| welcomes(**size)).count());
    assert!(bytes <= 11 * answers::BYTES, "{bytes} bytes in ten seconds");
    assert!(asked > 200, "{asked} welcomes");
}

#[test]
fn ghosts_keep_the_door_for_seconds_only() {
    let (mut meeting, _) = haunted(9_322);
    let frank = meeting.join("Frank");
    let most =
        |meeting: &Meeting| meeting.state(ALICE).roster.iter().filter(|person| !person.present).count();
    for _ in 0..100 {
        meeting.run(Duration::from_millis(300));
        assert!(most(&meeting) <= admission::NEWCOMERS);
    }
    assert_eq!(meeting.phase(frank), Phase::Live);
}

#[test]
fn when_indices_run_out_who_was_here_comes_back_and_nobody_else_comes() {
    let mut two = Two::new();
    let Place::Member(member) = &mut two.alice.place else { unreachable!() };
    // As if so many had come and gone.
    member.group_mut().roster.header.next_index = u16::MAX - 4_096;
    let (bob, eve) = (two.bob.me.device.clone(), std::sync::Arc::new(Ghost::new(1).device));
    for (device, phase) in [(eve, Phase::Ended(EndReason::Refused)), (bob, Phase::Live)] {
        let joining =
            Joining { link: two.link.duplicate(), device, name: "Bob".into(), role: Role::Participant };
        two.bob = Session::join(joining, two.now, &mut two.rng);
        for _ in 0..50 {
            two.now = BootTime(two.now.0 + 100);
            two.exchange();
        }
        assert_eq!(two.bob.state().phase, phase);
    }
}

#[test]
fn who_comes_again_and_again_waits_for_seconds_and_is_in_without_a_word() {
    let mut meeting = Meeting::of(2, 9_325, Successors::Nobody);
    let device = meeting.nodes[BOB].device.clone();
    let mut stays = Vec::new();
    for _ in 0..6 {
        let bob = meeting.join_as("Bob", device.clone(), Role::Participant, 0, 0);
        let start = meeting.now;
        meeting.run_until(Duration::from_secs(12), |meeting| meeting.together(&[ALICE, bob]));
        stays.push(meeting.now - start);
    }
    assert!(stays[..2].iter().all(|ms| *ms < 3_000) && stays[2..].iter().any(|ms| *ms > 4_000), "{stays:?}");
}

#[test]
fn a_ghost_under_the_id_of_somebody_who_leads_elsewhere_keeps_no_branches_apart() {
    let mut meeting = Meeting::of(4, 9_326, Successors::FirstPresent(2));
    meeting.run(Duration::from_secs(3));
    meeting.tamper = Some(Box::new(|_, from, to, _| {
        if from != usize::MAX && (from == ALICE) != (to == ALICE) { Fate::Drop } else { Fate::Deliver }
    }));
    meeting.run_until(Duration::from_secs(20), |meeting| meeting.together(&[BOB, CAROL, DAVE]));
    meeting.run(Duration::from_secs(5));
    assert!(meeting.state(ALICE).leading && meeting.state(BOB).leading);
    let alice = Ghost { participant: meeting.nodes[ALICE].session.me(), ..Ghost::new(1) };
    alice.comes(&mut meeting, BOB);
    meeting.run(Duration::from_secs(2));
    assert_eq!(meeting.state(BOB).roster.len(), 3);
    meeting.tamper = None;
    meeting.run_until(Duration::from_secs(10), |meeting| {
        meeting.phase(ALICE) == Phase::Ended(EndReason::Branch)
    });
}

#[test]
fn a_crowd_is_let_in_by_as_many_as_can_be_welcomed() {
    let mut meeting = Meeting::new(9_323, Successors::Nobody);
    let crowd: Vec<usize> = (0..200).map(|_| meeting.join("Bob")).collect();
    let (start, posts) = (meeting.now, meeting.posts.len());
    let all: Vec<usize> = std::iter::once(ALICE).chain(crowd).collect();
    meeting.run(Duration::from_secs(12));
    assert!(meeting.together(&all));
    let directly =
        |(_, from, slot, _): &&(u64, usize, Slot, usize)| *from == ALICE && matches!(slot, Slot::Direct(_));
    let bytes: usize = meeting.posts[posts..].iter().filter(directly).map(|(.., size)| size).sum();
    assert!(bytes <= (meeting.now - start) as usize * answers::BYTES / 1000 + 2 * answers::BYTES, "{bytes}");
}

#[test]
fn who_sees_a_newcomers_id_does_not_take_its_place() {
    let mut meeting = Meeting::of(4, 9_328, Successors::Nobody);
    meeting.run(Duration::from_secs(3));
    let frank = meeting.join("Frank");
    // Dave has made Frank announce himself to a leader of Dave's own, and so knows his id before Alice does.
    let ghost = Ghost { participant: meeting.nodes[frank].session.me(), ..Ghost::new(1) };
    let announce = Message::Announce(ghost.announce(&meeting, |_| {}));
    let before = meeting.nodes[ALICE].session.counters().unauthorised;
    says(&mut meeting, DAVE, ALICE, &announce);
    assert_eq!(meeting.nodes[ALICE].session.counters().unauthorised, before + 1);
    meeting.run_until(Duration::from_secs(5), |meeting| meeting.together(&[ALICE, BOB, CAROL, DAVE, frank]));
}

#[test]
fn a_key_that_nobody_can_pair_with_opens_no_epoch() {
    let mut meeting = Meeting::of(3, 9_329, Successors::Nobody);
    meeting.run(Duration::from_secs(3));
    let (epoch, forged) = (meeting.epoch(ALICE), meeting.nodes[ALICE].session.counters().forged);
    for number in 0..10 {
        let ghost = Ghost::new(number);
        let announce = ghost.announce(&meeting, |announce| announce.kem = vec![0xff; 1216]);
        says_as(&mut meeting, ghost.participant, ALICE, &Message::Announce(announce));
        meeting.run(Duration::from_secs(1));
    }
    assert_eq!(meeting.epoch(ALICE), epoch);
    assert_eq!(meeting.nodes[ALICE].session.counters().forged, forged + 10);
}

#[test]
fn a_link_opens_an_epoch_for_whom_it_lets_in_and_not_for_whom_it_cannot() {
    let mut meeting = Meeting::of(3, 9_330, Successors::Nobody);
    meeting.run(Duration::from_secs(3));
    let [good, bad] = [0x44, 0xff].map(|byte: u8| {
        Ghost::new(byte.into()).announce(&meeting, |announce| announce.kem = vec![byte; 1216])
    });
    let Two { mut rng, mut alice, now, .. } = Two::new();
    let Session { me, place: Place::Member(member), out, counters, .. } = &mut alice else { unreachable!() };
    let member::Member { group, duty: member::Duty::Lead(lead), .. } = &mut **member else { unreachable!() };
    let mut cx = Cx { me, out, counters, now, rng: &mut rng };
    let mut opens = |newcomers, group: &mut group::Group| {
        let (epoch, number) = (group.epochs.newest.epoch, group.head().body.number);
        lead.commit(Vec::new(), newcomers, false, group, &mut cx);
        (group.epochs.newest.epoch - epoch, group.head().body.number - number)
    };
    assert_eq!(opens(vec![bad.clone()], group), (0, 0));
    assert_eq!(opens(vec![bad, good], group), (1, 1));
}

#[test]
fn after_a_removal_a_device_that_nobody_has_seen_needs_approval() {
    // One that was let in before and never proved to be there, and one that was still at the door.
    for waited in [1, 0] {
        let mut meeting = Meeting::of(4, 9_331 + waited, Successors::Nobody);
        meeting.run(Duration::from_secs(3));
        let ghost = Ghost::new(1);
        if waited == 0 {
            // Somebody else came in just now: it has to wait for a second.
            Ghost::new(2).comes(&mut meeting, ALICE);
        }
        ghost.comes(&mut meeting, ALICE);
        meeting.run(Duration::from_millis(waited * 2_000));
        let dave = meeting.nodes[DAVE].session.me();
        meeting.command(ALICE, Command::Remove(dave)).unwrap();
        meeting.run(Duration::from_secs(2));
        let fingerprint = ghost.device.public().fingerprint();
        let is_in = meeting.state(ALICE).roster.iter().any(|person| person.device == fingerprint);
        assert_eq!(is_in, waited == 1);
        let device = std::sync::Arc::new(ghost.device);
        let back = meeting.join_as("Dave", device.clone(), Role::Participant, 0, 0);
        meeting.run(Duration::from_secs(5));
        assert_eq!(meeting.phase(back), Phase::Joining(WaitReason::Approval));
        // Who had proved to be there is known.
        let carols = meeting.nodes[CAROL].device.clone();
        let carol = meeting.join_as("Carol", carols, Role::Participant, 0, 0);
        meeting.run_until(Duration::from_secs(5), |meeting| meeting.phase(carol) == Phase::Live);
    }
}

#[test]
fn one_device_wants_in_once_however_often_it_starts_anew() {
    let mut meeting = Meeting::of(4, 9_334, Successors::Nobody);
    meeting.run(Duration::from_secs(3));
    let dave = meeting.nodes[DAVE].session.me();
    meeting.command(ALICE, Command::Remove(dave)).unwrap();
    meeting.run(BEAT);
    for number in 0..20 {
        let stay = Ghost { participant: Ghost::new(number).participant, ..Ghost::new(1) };
        stay.comes(&mut meeting, ALICE);
    }
    let told = meeting.nodes[ALICE].events.iter().filter(|event| matches!(event, Event::WantsIn(_)));
    assert_eq!((told.count(), meeting.state(ALICE).waiting.len()), (1, 1));
}

/// Frank comes at a crowded door and hears nothing that is for him alone, until he had to make room for others.
fn made_room(seed: u64) -> (Meeting, usize) {
    let mut meeting = Meeting::of(3, seed, Successors::Nobody);
    meeting.run(Duration::from_secs(3));
    let ghosts: Vec<Ghost> = (0..130).map(Ghost::new).collect();
    ghosts[..60].iter().for_each(|ghost| ghost.comes(&mut meeting, ALICE));
    let frank = meeting.join("Frank");
    meeting.tamper = Some(Box::new(move |_, _, to, post| match post.slot {
        Slot::Direct(_) if to == frank => Fate::Drop,
        _ => Fate::Deliver,
    }));
    meeting.run(Duration::from_millis(500));
    ghosts[60..].iter().for_each(|ghost| ghost.comes(&mut meeting, ALICE));
    let is_in = |meeting: &Meeting| meeting.state(ALICE).roster.iter().any(|person| person.name == "Frank");
    meeting.run_until(Duration::from_secs(8), is_in);
    meeting.run_until(Duration::from_secs(15), |meeting| !is_in(meeting));
    meeting.tamper = None;
    (meeting, frank)
}

#[test]
fn who_made_room_and_never_heard_of_it_comes_again() {
    let (mut meeting, frank) = made_room(9_335);
    meeting.run_until(Duration::from_secs(20), |meeting| meeting.phase(frank) == Phase::Live);
}

#[test]
fn what_somebody_said_before_making_room_brings_no_ghost_of_them_back() {
    let (mut meeting, frank) = made_room(9_336);
    meeting.disconnect(frank);
    let me = meeting.nodes[frank].session.me();
    let said: Vec<Post> = meeting.recorded.iter().filter(|post| post.from == me).cloned().collect();
    for _ in 0..20 {
        said.iter().for_each(|post| meeting.inject(ALICE, post.clone()));
        meeting.run(Duration::from_secs(1));
        assert!(meeting.state(ALICE).roster.iter().all(|person| person.participant != me));
    }
}

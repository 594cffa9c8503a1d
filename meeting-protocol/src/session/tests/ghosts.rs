//! Ghosts: devices and stays that somebody with the link makes up, as many as it likes.

use std::time::Duration;

use super::{
    forks::{ALICE, BOB, CAROL, group, says},
    samples::announce,
    *,
};
use crate::{
    session::lead::answers,
    testing::{Fate, Meeting},
};

/// Who speaks for all of them.
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

    /// An answer to the leader's newest challenge.
    fn announce(&self, meeting: &Meeting) -> Message {
        let announce = Announce {
            meeting: meeting.id(),
            instance: group(meeting, CAROL).instance,
            challenge: Some(group(meeting, CAROL).last_beat.as_ref().unwrap().body.challenge),
            device: self.device.public(),
            participant: self.participant,
            signer: self.signer.public(),
            name: "Ghost".into(),
            ..announce().unverified().clone()
        };
        Message::Announce(SignedAnnounce::new(announce, &self.device))
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
    for ghost in &ghosts {
        let announce = ghost.announce(&meeting);
        says(&mut meeting, DAVE, ALICE, &announce);
    }
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
    let announce = alice.announce(&meeting);
    says(&mut meeting, DAVE, BOB, &announce);
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

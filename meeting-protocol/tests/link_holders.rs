//! People at the door who hold the link, or say so, and lie.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use meeting_protocol::{
    session::{Command, EndReason, Phase, Role, Successors, WaitReason},
    testing::{Fate, Meeting},
};
use meeting_wire::Slot;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_wrong_invite_secret_opens_nothing_and_disturbs_nobody() {
    let mut meeting = Meeting::of(2, 8, Successors::Nobody);
    let mut link = meeting.link();
    link.secret = meeting_protocol::secret::Secret::init_with(|secret| *secret = [9; 32]);
    let device = meeting.device();
    let epoch = meeting.epoch(0);
    let eve = meeting.join_by(link, "Eve", device, Role::Participant, 0, 0);
    meeting.run(s(10));
    assert_eq!(meeting.phase(eve), Phase::Joining(WaitReason::Leader));
    assert!(meeting.nodes[eve].session.counters().sealed > 0);
    assert_eq!(meeting.epoch(0), epoch);
    meeting.run_until(s(120), |meeting| meeting.phase(eve) == Phase::Ended(EndReason::Refused));
}

#[test]
fn a_stay_comes_in_once_by_whichever_announce() {
    let mut meeting = Meeting::new(48, Successors::Nobody);
    // The answer is slow, so that Bob announces himself twice.
    meeting.tamper = Some(Box::new(|_, from, _, post| match post.slot {
        Slot::Direct(_) if from == 0 => Fate::Delay(5_000),
        _ => Fate::Deliver,
    }));
    let bob = meeting.join("Bob");
    meeting.run_until(s(30), |meeting| meeting.together(&[0, bob]));
    meeting.tamper = None;
    meeting.command(bob, Command::Leave).unwrap();
    meeting.run_until(s(1), |meeting| meeting.state(0).roster.len() == 1);
    let me = meeting.nodes[bob].session.me();
    let said: Vec<_> = meeting.recorded.iter().filter(|post| post.from == me).cloned().collect();
    for post in said {
        meeting.inject(0, post);
        meeting.run(s(2));
        assert_eq!(meeting.state(0).roster.len(), 1);
    }
}

#[test]
fn who_holds_the_link_cannot_lead_newcomers_away() {
    let mut meeting = Meeting::new(52, Successors::Nobody);
    let eve = meeting.pretend("Eve");
    // Eve is quicker than Alice.
    meeting.tamper = Some(Box::new(|_, from, _, _| if from == 0 { Fate::Delay(400) } else { Fate::Deliver }));
    meeting.run(s(5));
    let bob = meeting.join("Bob");
    meeting.run_until(s(15), |meeting| meeting.together(&[0, bob]));
    assert!(meeting.state(bob).leader_verified);
    assert_ne!(meeting.state(bob).code, meeting.state(eve).code);
}

#[test]
fn nor_whoever_made_the_link() {
    let mut meeting = Meeting::new(59, Successors::Nobody);
    meeting.pretend("Eve");
    meeting.run(s(1));
    meeting.disconnect(0);
    meeting.forget();
    // Alice starts anew and looks for somebody who leads already.
    let device = meeting.nodes[0].device.clone();
    let alice = meeting.join_as("Alice", device, Role::Participant, 0, 0);
    meeting.run(s(20));
    assert_eq!(meeting.phase(alice), Phase::Joining(WaitReason::Answer));
    let session = &meeting.nodes[alice].session;
    assert!(session.heartbeats() > 5 && !session.is_vouched(), "a sign of a leader, and no more");
}

#[test]
fn nor_those_who_wait_for_approval() {
    let mut meeting = Meeting::of(2, 54, Successors::Nobody);
    let bob = meeting.nodes[1].session.me();
    meeting.command(0, Command::Remove(bob)).unwrap();
    meeting.pretend("Eve");
    let carol = meeting.join("Carol");
    meeting.run(s(60));
    assert_eq!(meeting.phase(carol), Phase::Joining(WaitReason::Approval));
    let waiting = meeting.state(0).waiting[0].participant;
    meeting.command(0, Command::Approve(waiting)).unwrap();
    meeting.run_until(s(10), |meeting| meeting.together(&[0, carol]));
}

#[test]
fn who_was_let_in_and_never_heard_of_it_does_not_wait_for_half_an_hour() {
    let mut meeting = Meeting::of(2, 57, Successors::Nobody);
    let bob = meeting.nodes[1].session.me();
    meeting.command(0, Command::Remove(bob)).unwrap();
    let carol = meeting.join("Carol");
    meeting.run_until(s(5), |meeting| meeting.state(0).waiting.len() == 1);
    meeting.run(s(60));
    assert_eq!(meeting.phase(carol), Phase::Joining(WaitReason::Approval), "the user may think");
    // Her welcome is withheld until she is missed.
    meeting.tamper =
        Some(Box::new(
            move |_, _, to, post| {
                if to == carol && post.slot != Slot::Cell { Fate::Drop } else { Fate::Deliver }
            },
        ));
    let waiting = meeting.state(0).waiting[0].participant;
    meeting.command(0, Command::Approve(waiting)).unwrap();
    meeting.run(s(20));
    assert_eq!(meeting.state(0).roster.len(), 2);
    meeting.run_until(s(100), |meeting| meeting.state(0).roster.len() == 1);
    meeting.tamper = None;
    meeting.run_until(s(60), |meeting| meeting.phase(carol) == Phase::Ended(EndReason::Refused));
}

#[test]
fn a_crowd_at_a_locked_door_gets_so_many_answers_a_second() {
    let mut meeting = Meeting::new(55, Successors::Nobody);
    meeting.command(0, Command::Lock(true)).unwrap();
    meeting.run(s(2));
    let crowd: Vec<usize> = (0..100).map(|_| meeting.join("Eve")).collect();
    let start = meeting.now;
    meeting.run(Duration::from_millis(500));
    let answers = meeting
        .posts
        .iter()
        .filter(|(at, from, slot, _)| *at >= start && *from == 0 && matches!(slot, Slot::Direct(_)));
    assert_eq!(answers.count(), 32);
    meeting.run_until(s(20), |meeting| {
        crowd.iter().all(|node| meeting.phase(*node) == Phase::Ended(EndReason::Locked))
    });
}

//! Whole meetings in virtual time.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use meeting_protocol::{
    session::{Command, CommandError, EndReason, Event, LeaveReason, Phase, Role, Successors, WaitReason},
    testing::Meeting,
};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn two_people_meet_and_hear_each_other() {
    let mut meeting = Meeting::new(1, Successors::Nobody);
    let camera = meeting.stream(0, "camera");
    let bob = meeting.join("Bob");
    let voice = meeting.stream(bob, "voice");
    let start = meeting.now;
    meeting.run_until(s(2), |meeting| meeting.phase(bob) == Phase::Live);
    assert!(meeting.now - start <= 8 * meeting.latency + 100, "four round trips: {} ms", meeting.now - start);
    meeting.run_until(s(5), |meeting| meeting.together(&[0, 1]));
    assert!(meeting.hears(0, camera, bob) && meeting.hears(bob, voice, 0));
    assert!(meeting.state(bob).leader_verified && meeting.state(0).leader_verified);
    assert_eq!(meeting.state(bob).streams[0].track, "camera");
    assert!(
        meeting.nodes[0]
            .events
            .iter()
            .any(|event| matches!(event, Event::Arrived { name, .. } if name == "Bob"))
    );
}

#[test]
fn keys_rotate_every_two_minutes_and_nobody_is_lost() {
    let mut meeting = Meeting::of(3, 2, Successors::Nobody);
    let camera = meeting.stream(0, "camera");
    let epoch = meeting.epoch(0);
    for round in 1..=5 {
        meeting.run(s(120));
        meeting.run_until(s(5), |meeting| {
            meeting.together(&[0, 1, 2]) && meeting.hears(0, camera, 1) && meeting.hears(0, camera, 2)
        });
        assert!(meeting.epoch(0) >= epoch + round, "round {round}");
    }
    assert!(meeting.epoch(0) <= epoch + 6);
}

#[test]
fn epochs_in_quick_succession_lose_no_frame_and_each_closes_in_its_time() {
    let mut meeting = Meeting::of(3, 21, Successors::Nobody);
    let camera = meeting.stream(0, "camera");
    meeting.run_until(s(5), |meeting| meeting.hears(0, camera, 1));
    let (alice, first) = (meeting.nodes[0].session.me(), meeting.epoch(0));
    let opens = |meeting: &Meeting, epoch| meeting.nodes[1].opens.contains_key(&(alice, camera, epoch));
    let mut began = Vec::new();
    for _ in 0..3 {
        meeting.command(0, Command::Rotate).unwrap();
        began.push(meeting.now);
        meeting.run(Duration::from_millis(300));
    }
    meeting.run_until(s(1), |meeting| meeting.epoch(1) == first + 3);
    for (old, began) in (first..).zip(&began) {
        // Sealed in the last moment that was allowed, and long on its way.
        let last = began + 500 + 1_900;
        meeting.run(Duration::from_millis(last.saturating_sub(meeting.now)));
        assert!(opens(&meeting, old), "a frame of epoch {old} is lost {last} ms after it was retired");
        meeting.run(Duration::from_millis(100 + 4 * meeting.latency));
        assert!(!opens(&meeting, old), "epoch {old} does not close");
    }
    assert!(opens(&meeting, first + 3));
}

#[test]
fn a_hundred_who_come_at_once_share_rotations() {
    let mut meeting = Meeting::new(3, Successors::Nobody);
    for _ in 0..100 {
        meeting.join("Bob");
        meeting.run(Duration::from_millis(10));
    }
    let all: Vec<usize> = (0..=100).collect();
    meeting.run_until(s(20), |meeting| meeting.together(&all));
    assert!(meeting.epoch(0) <= 5, "{} epochs for one second of joins", meeting.epoch(0));
}

#[test]
fn who_leaves_or_is_removed_gets_no_further_key() {
    let mut meeting = Meeting::of(4, 4, Successors::Nobody);
    let camera = meeting.stream(0, "camera");
    meeting.run(s(1));
    assert!(meeting.hears(0, camera, 3));

    meeting.command(3, Command::Leave).unwrap();
    assert_eq!(meeting.phase(3), Phase::Ended(EndReason::Left));
    meeting.run_until(s(1), |meeting| meeting.together(&[0, 1, 2]) && meeting.hears(0, camera, 2));
    assert!(!meeting.hears(0, camera, 3));

    let carol = meeting.nodes[2].session.me();
    let before = meeting.epoch(0);
    meeting.command(0, Command::Remove(carol)).unwrap();
    let key = meeting.nodes[0].seals[&camera].clone();
    assert_eq!(key.epoch, before + 1, "at once");
    assert_eq!(meeting.nodes[0].retired, (before + 1, meeting.local(0)));
    meeting.run_until(s(1), |meeting| meeting.together(&[0, 1]));
    assert_eq!(meeting.phase(2), Phase::Ended(EndReason::Removed));
    assert!(meeting.nodes[2].opens.is_empty(), "an honest agent closes what it has");
    assert!(
        meeting.nodes[1]
            .events
            .iter()
            .any(|event| matches!(event, Event::Departed { reason: LeaveReason::Removed, .. }))
    );
    assert_eq!(meeting.command(0, Command::Remove(carol)), Err(CommandError::NobodyThere));
    assert_eq!(meeting.command(1, Command::Rotate), Err(CommandError::NotLeader));
}

#[test]
fn a_removed_device_stays_out_and_a_new_key_needs_approval() {
    let mut meeting = Meeting::of(3, 5, Successors::Nobody);
    let eve = meeting.nodes[2].session.me();
    let device = meeting.nodes[2].device.clone();
    meeting.command(0, Command::Remove(eve)).unwrap();
    meeting.run(s(1));
    let again = meeting.join_as("Eve", device, Role::Participant, 0, 0);
    meeting.run_until(s(5), |meeting| meeting.phase(again) == Phase::Ended(EndReason::Refused));

    let fresh = meeting.join("Eve");
    meeting.run_until(s(5), |meeting| meeting.phase(fresh) == Phase::Joining(WaitReason::Approval));
    meeting.run(s(30));
    assert_eq!(meeting.phase(fresh), Phase::Joining(WaitReason::Approval));
    assert_eq!(meeting.state(0).roster.len(), 2);
    let waiting = meeting.state(0).waiting;
    assert_eq!((waiting.len(), waiting[0].name.as_str()), (1, "Eve"));
    assert_eq!(meeting.nodes[0].events.iter().filter(|event| matches!(event, Event::WantsIn(_))).count(), 1);

    // A device that was in before is not unknown.
    let bob = meeting.nodes[1].device.clone();
    meeting.command(1, Command::Leave).unwrap();
    meeting.run(s(1));
    let bob = meeting.join_as("Bob", bob, Role::Participant, 0, 0);
    meeting.run_until(s(10), |meeting| meeting.together(&[0, bob]));

    meeting.command(0, Command::Approve(waiting[0].participant)).unwrap();
    meeting.run_until(s(10), |meeting| meeting.together(&[0, bob, fresh]));
}

#[test]
fn a_second_stay_of_a_device_replaces_the_first() {
    let mut meeting = Meeting::of(2, 6, Successors::Nobody);
    let device = meeting.nodes[1].device.clone();
    let index = meeting.state(0).roster[1].index;
    let epoch = meeting.epoch(0);
    let again = meeting.join_as("Bob", device, Role::Participant, 99, 0);
    meeting.run_until(s(10), |meeting| meeting.together(&[0, again]));
    assert_eq!(meeting.phase(1), Phase::Ended(EndReason::Replaced));
    assert!(meeting.state(0).roster[1].index > index, "an index is never used again");
    assert!(meeting.epoch(0) > epoch);
}

#[test]
fn locked_out() {
    let mut meeting = Meeting::of(2, 7, Successors::Nobody);
    let epoch = meeting.epoch(0);
    meeting.command(0, Command::Lock(true)).unwrap();
    meeting.run(s(1));
    assert_eq!(meeting.epoch(0), epoch, "a lock rotates nothing");
    assert!(meeting.state(1).locked);
    assert_eq!(meeting.nodes[0].session.roster_code(), meeting.nodes[1].session.roster_code());
    let carol = meeting.join("Carol");
    meeting.run_until(s(5), |meeting| meeting.phase(carol) == Phase::Ended(EndReason::Locked));
    let bob = meeting.nodes[1].device.clone();
    let bob = meeting.join_as("Bob", bob, Role::Participant, 0, 0);
    meeting.run_until(s(5), |meeting| meeting.together(&[0, bob]));
    meeting.command(0, Command::Lock(false)).unwrap();
    let carol = meeting.join("Carol");
    meeting.run_until(s(5), |meeting| meeting.together(&[0, bob, carol]));
    assert!(meeting.nodes[bob].events.contains(&Event::Locked(false)));
}

#[test]
fn a_link_that_names_another_creator_shows_an_unverified_leader() {
    let mut meeting = Meeting::new(9, Successors::Nobody);
    let mut link = meeting.link();
    link.creator = meeting_protocol::identity::Fingerprint([7; 32]);
    let device = meeting.device();
    let bob = meeting.join_by(link, "Bob", device, Role::Participant, 0, 0);
    meeting.run_until(s(5), |meeting| meeting.phase(bob) == Phase::Live);
    assert!(!meeting.state(bob).leader_verified);
}

#[test]
fn a_day_of_drifting_clocks_makes_nobody_stale() {
    for (seed, leader, follower) in [(50, 500, -500), (51, -500, 500)] {
        let mut meeting = Meeting::with_clock(seed, Successors::Nobody, 90_000_000, leader);
        let device = meeting.device();
        let bob = meeting.join_as("Bob", device, Role::Participant, 5, follower);
        meeting.run_until(s(5), |meeting| meeting.together(&[0, bob]));
        meeting.run(s(24 * 3600));
        assert!(meeting.together(&[0, bob]));
        let stale = meeting.nodes[bob].events.contains(&Event::Phase(Phase::Stale));
        assert!(!stale && meeting.epoch(0) >= 700);
    }
}

#[test]
fn who_is_silent_for_ninety_seconds_is_gone() {
    let mut meeting = Meeting::of(3, 25, Successors::Nobody);
    let epoch = meeting.epoch(0);
    meeting.disconnect(2);
    meeting.run_until(s(95), |meeting| meeting.state(0).roster.len() == 2);
    assert!(
        meeting.nodes[0]
            .events
            .iter()
            .any(|event| matches!(event, Event::Departed { reason: LeaveReason::Missing, .. }))
    );
    meeting.run_until(s(5), |meeting| meeting.together(&[0, 1]));
    assert!(meeting.epoch(0) > epoch);
}

#[test]
fn who_missed_more_links_than_are_kept_is_told_who_came_meanwhile() {
    let mut meeting = Meeting::of(3, 0xfa4, Successors::Nobody);
    meeting.disconnect(2);
    let frank = meeting.join("Frank");
    meeting.run_until(s(5), |meeting| meeting.phase(frank) == Phase::Live);
    for _ in 0..70 {
        meeting.command(0, Command::Rotate).unwrap();
        meeting.run(s(1));
    }
    meeting.forget();
    meeting.connect(2);
    meeting.run_until(s(10), |meeting| meeting.together(&[0, 1, 2, frank]));
    let told = |event: &Event| matches!(event, Event::LetIn(names) if names.iter().eq(["Frank"]));
    let arrived = |event: &Event| matches!(event, Event::Arrived { name, .. } if name == "Frank");
    let events = &meeting.nodes[2].events;
    assert!(events.iter().any(told) && events.iter().any(arrived), "{events:?}");
}

#[test]
fn streams_are_restated_closed_and_floored() {
    let mut meeting = Meeting::of(2, 40, Successors::Nobody);
    let camera = meeting.stream(0, "camera");
    meeting.run(s(1));
    let alice = meeting.nodes[0].session.me();
    let epoch = meeting.epoch(0);
    let key = meeting.nodes[1].opens[&(alice, camera, epoch)].clone();
    meeting.command(1, Command::Floor { from: alice, kid: key.kid, floor: 77 }).unwrap();
    meeting.command(0, Command::StreamCaps { stream: camera, caps: "video/x-h265".into() }).unwrap();
    meeting.run(s(1));
    let restated = &meeting.nodes[1].opens[&(alice, camera, epoch)];
    assert_eq!(
        (restated.caps.as_str(), restated.floor, restated.base_key),
        ("video/x-h265", 77, key.base_key)
    );
    meeting.command(0, Command::CloseStream(camera)).unwrap();
    meeting.run(s(1));
    assert!(meeting.nodes[1].opens.is_empty() && meeting.state(1).streams.is_empty());
    assert_eq!(meeting.command(0, Command::CloseStream(camera)), Err(CommandError::NoStream));
    let wish = meeting_protocol::session::OpenStream {
        stream: camera,
        kind: meeting_wire::Kind::Audio,
        track: "voice".into(),
        caps: String::new(),
        random: [0; 16],
    };
    assert_eq!(meeting.command(0, Command::OpenStream(wish)), Err(CommandError::StreamUsed));
}

#[test]
fn two_streams_of_one_label_and_one_half_of_randomness_have_different_keys() {
    let mut meeting = Meeting::new(41, Successors::Nobody);
    for stream in [0, 1] {
        let wish = meeting_protocol::session::OpenStream {
            stream: meeting_wire::StreamId(stream),
            kind: meeting_wire::Kind::Video,
            track: "camera".into(),
            caps: String::new(),
            random: [0; 16],
        };
        meeting.command(0, Command::OpenStream(wish)).unwrap();
    }
    let keys: Vec<_> = meeting.nodes[0].seals.values().map(|key| key.base_key).collect();
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn forty_who_leave_at_once_share_rotations_and_the_first_is_out_at_once() {
    let mut meeting = Meeting::new(0x4ea, Successors::Nobody);
    let crowd: Vec<usize> = (0..40).map(|_| meeting.join("Bob")).collect();
    let all: Vec<usize> = (0..=40).collect();
    meeting.run_until(s(20), |meeting| meeting.together(&all));
    let before = meeting.epoch(0);
    for node in &crowd {
        meeting.command(*node, Command::Leave).unwrap();
        meeting.run(Duration::from_millis(10));
    }
    assert_eq!(meeting.epoch(0), before + 1, "the first does not wait");
    meeting.run_until(s(1), |meeting| meeting.state(0).roster.len() == 1);
    assert!(meeting.epoch(0) <= before + 2, "{} rotations", meeting.epoch(0) - before);
}

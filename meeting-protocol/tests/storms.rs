//! Loss and churn, seeded.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use meeting_protocol::{
    session::{Command, Phase, Role, Successors},
    testing::{Fate, Meeting},
};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn storms_of_loss_and_churn_end_in_one_meeting() {
    for seed in 100..112 {
        let mut meeting = Meeting::new(seed, Successors::FirstPresent(if seed % 2 == 0 { 2 } else { 0 }));
        let mut state = seed;
        let mut random = move || {
            // An LCG (Knuth): the weather, not a secret.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        let mut weather = random;
        meeting.tamper = Some(Box::new(move |_, _, _, _| match weather() % 10 {
            0 => Fate::Drop,
            1 => Fate::Delay(weather() % 700),
            _ => Fate::Deliver,
        }));
        let mut people = vec![0];
        for step in 0..25 {
            match random() % 5 {
                0 | 1 => {
                    people.push(meeting.join("Bob"));
                    let newest = people.len() - 1;
                    meeting.stream(people[newest], "camera");
                }
                2 if people.len() > 3 => {
                    let who = people.remove(1 + random() as usize % (people.len() - 1));
                    meeting.command(who, Command::Leave).ok();
                }
                2 if people.len() > 2 => {
                    let who = people.pop().unwrap_or(0);
                    let me = meeting.nodes[who].session.me();
                    if meeting.command(0, Command::Remove(me)).is_err() {
                        people.push(who);
                    }
                }
                3 if people.len() > 2 => {
                    let who = people[1 + random() as usize % (people.len() - 1)];
                    meeting.disconnect(who);
                    meeting.run(Duration::from_millis(random() % 5_000));
                    meeting.connect(who);
                }
                _ => {
                    meeting.command(0, Command::Rotate).ok();
                }
            }
            approve_all(&mut meeting);
            meeting.run(Duration::from_millis(random() % 4_000 + step));
        }
        meeting.tamper = None;
        meeting.audit();
        // Somebody whose leave was lost is missed after 90 s; whoever ended meanwhile is not part of the meeting.
        for _ in 0..40 {
            approve_all(&mut meeting);
            meeting.run(s(5));
        }
        let still: Vec<usize> =
            people.iter().copied().filter(|node| !matches!(meeting.phase(*node), Phase::Ended(_))).collect();
        assert!(still.len() * 2 >= people.len(), "seed {seed}: {} of {}", still.len(), people.len());
        assert!(meeting.together(&still), "seed {seed}");
        meeting.audit();
        for from in still.iter().filter(|node| **node > 0) {
            let heard = still
                .iter()
                .filter(|to| *to != from)
                .all(|to| meeting.hears(*from, meeting_wire::StreamId(0), *to));
            assert!(heard, "seed {seed}: not everybody hears {from}");
        }
        for node in 0..meeting.nodes.len() {
            let misbehaved = meeting.nodes[node].session.counters().misbehaviour;
            assert_eq!(
                misbehaved, 0,
                "seed {seed}: honest people are never accused: {:?}",
                meeting.nodes[node].events
            );
        }
    }
}

#[test]
fn a_third_of_all_posts_lost_each_way_and_successors_named_end_in_one_meeting() {
    for seed in 300..304 {
        let mut meeting = Meeting::of(6, seed, Successors::FirstPresent(3));
        let mut state = seed;
        let mut lost = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33 & 0xff < 77
        };
        // What is lost on the way up comes to nobody, and of the rest as much again on each way down.
        let mut newest = (0, 0, Default::default(), false);
        meeting.tamper = Some(Box::new(move |now, from, _, post| {
            if (newest.0, newest.1, &newest.2) != (now, from, &post.body) {
                newest = (now, from, post.body.clone(), lost());
            }
            if newest.3 || lost() { Fate::Drop } else { Fate::Deliver }
        }));
        let mut people: Vec<usize> = (0..6).collect();
        let mut leaders = 0;
        for _ in 0..120 {
            meeting.run(s(5));
            come_again(&mut meeting, &mut people);
            leaders = leaders.max(leading(&meeting, &people));
        }
        meeting.tamper = None;
        for _ in 0..48 {
            meeting.run(s(5));
            come_again(&mut meeting, &mut people);
        }
        assert_eq!(leading(&meeting, &people), 1, "seed {seed}");
        assert!(meeting.together(&people), "seed {seed}");
        println!("seed {seed}: {leaders} led at once, {} stays", meeting.nodes.len());
        meeting.audit();
    }
}

fn leading(meeting: &Meeting, people: &[usize]) -> usize {
    people.iter().filter(|node| meeting.state(**node).leading).count()
}

/// Whose stay has ended comes again.
fn come_again(meeting: &mut Meeting, people: &mut [usize]) {
    for node in people {
        if matches!(meeting.phase(*node), Phase::Ended(_)) {
            let device = meeting.nodes[*node].device.clone();
            meeting.disconnect(*node);
            *node = meeting.join_as("Bob", device, Role::Participant, 0, 0);
        }
    }
}

/// After a removal newcomers wait for the leader's user.
fn approve_all(meeting: &mut Meeting) {
    for waiting in meeting.state(0).waiting {
        meeting.command(0, Command::Approve(waiting.participant)).expect("somebody who waits");
    }
}

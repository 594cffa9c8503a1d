//! One attack each, by name.

#![allow(clippy::unwrap_used)]

use super::super::Meeting;
use crate::{
    BootTime,
    secret::Secret,
    session::{EndReason, Input, Phase, Successors, forgery::Lie, forgery::Seen, message::Message},
};
use meeting_wire::{Post, Slot, StreamId};

const fn s(seconds: u64) -> std::time::Duration {
    std::time::Duration::from_secs(seconds)
}

/// Hands `to` a post of `from`'s, past the relay.
fn hand(meeting: &mut Meeting, from: usize, to: usize, body: bytes::Bytes) {
    let from = meeting.nodes[from].session.me();
    meeting.inject(to, Post { seq: 0, from, slot: Slot::Log, body });
}

#[test]
fn nothing_a_member_says_in_anothers_name_moves_anybody() {
    // Whoever is made up is let in, as everybody is who holds the link; who lies of its own place in the chain is named for it.
    let lies = Lie::ALL.into_iter().filter(|lie| !matches!(lie, Lie::Ghost | Lie::Head));
    for (number, lie) in lies.enumerate() {
        let mut meeting = Meeting::of(4, 0x11e + number as u64, Successors::FirstPresent(1));
        let camera = meeting.stream(1, "camera");
        meeting.run(s(1));
        let people = |meeting: &Meeting| -> Vec<_> {
            let state = meeting.state(0);
            state.roster.iter().map(|person| (person.participant, person.leader)).collect()
        };
        let before = people(&meeting);
        for victim in 0..3 {
            let name = meeting.nodes[victim].session.me();
            let announce = meeting.nodes[victim].session.announced();
            let node = &mut meeting.nodes[3];
            let seen = Seen { announce, beat: None };
            let body = crate::ledger::Scope::off(|| node.session.lie(lie, name, &seen, &mut node.rng));
            // A leader cannot even be said to be removed.
            let Some(body) = body else { continue };
            for to in 0..3 {
                hand(&mut meeting, 3, to, body.clone());
            }
            meeting.run(s(3));
            assert!(meeting.together(&[0, 1, 2, 3]), "{lie:?}");
            assert_eq!(people(&meeting), before, "{lie:?}");
            let streams = (0..4).map(|node| meeting.state(node).streams.len()).collect::<Vec<_>>();
            assert_eq!(streams, [1, 0, 1, 1], "{lie:?}");
            assert!(meeting.hears(1, camera, 0) && meeting.hears(1, camera, 2), "{lie:?}");
        }
    }
}

#[test]
fn who_wakes_after_a_minute_seals_nothing_before_the_leader_was_heard() {
    let mut meeting = Meeting::of(3, 0x5111, Successors::Nobody);
    let camera = meeting.stream(1, "camera");
    meeting.run(s(31));
    // Suspended: the clock goes on, nothing else does, and nobody has said so to the session.
    (meeting.nodes[1].connected, meeting.nodes[1].timeout) = (false, BootTime(u64::MAX));
    meeting.run(s(60));
    assert!(meeting.nodes[1].sealing(camera, meeting.local(1)).is_none(), "before the agent has noticed");
    meeting.feed(1, Input::Timeout);
    assert_eq!(meeting.phase(1), Phase::Stale);
    assert!(meeting.nodes[1].sealing(camera, meeting.local(1)).is_none());
    meeting.feed(1, Input::Disconnected);
    meeting.connect(1);
    meeting.run_until(s(5), |meeting| meeting.together(&[0, 1, 2]) && meeting.hears(1, camera, 2));
}

/// For five seconds Bob, who comes back, seals under no key of `old` or before, and then under a newer one. That one comes by a post
/// of its own, so that there is a moment with the old one alone.
fn seals_under_none_but_newer(meeting: &mut Meeting, camera: StreamId, old: u64) {
    for _ in 0..5_000 {
        meeting.run(std::time::Duration::from_millis(1));
        let key = meeting.nodes[1].sealing(camera, meeting.local(1));
        assert!(key.is_none_or(|key| key.epoch > old), "seals under the old key");
    }
    assert!(meeting.epoch(1) > old && meeting.hears(1, camera, 2));
}

#[test]
fn a_key_is_not_used_for_half_a_second_more_where_the_leader_overslept_its_end() {
    let mut meeting = Meeting::of(3, 0x5112, Successors::Nobody);
    let camera = meeting.stream(1, "camera");
    meeting.run(s(100));
    let old = meeting.epoch(1);
    (meeting.nodes[0].connected, meeting.nodes[0].timeout) = (false, BootTime(u64::MAX));
    // Longer, and it would take everybody for missing.
    meeting.run(s(55));
    assert_eq!(meeting.phase(1), Phase::Stale);
    meeting.feed(0, Input::Timeout);
    meeting.feed(0, Input::Disconnected);
    meeting.connect(0);
    seals_under_none_but_newer(&mut meeting, camera, old);
}

#[test]
fn who_comes_back_seals_no_more_under_a_key_that_all_others_have_left() {
    let mut meeting = Meeting::of(3, 0x5113, Successors::Nobody);
    let camera = meeting.stream(1, "camera");
    meeting.run(s(100));
    let old = meeting.epoch(1);
    meeting.feed(1, Input::Disconnected);
    meeting.nodes[1].connected = false;
    meeting.run(s(40));
    assert!(meeting.epoch(0) > old && meeting.phase(1) == Phase::Stale);
    meeting.connect(1);
    seals_under_none_but_newer(&mut meeting, camera, old);
}

#[test]
fn two_histories_show_as_soon_as_two_people_compare() {
    let mut meeting = Meeting::of(3, 0xd1, Successors::Nobody);
    for node in [1, 2] {
        meeting.stream(node, "camera");
    }
    meeting.run(s(3));
    // Alice gives each of the two a link and a key of their own.
    for node in [1, 2] {
        let key = Secret::init_with(|key| *key = [node as u8; 32]);
        let to = meeting.nodes[node].session.me();
        let alice = &mut meeting.nodes[0];
        let epoch = alice.session.newest_epoch() + 1;
        let commitment = alice.session.commitment(&key, epoch);
        let link = alice.session.false_link(Vec::new(), commitment).unwrap();
        let wrap = alice.session.false_wrap(to, &link.body, &key).unwrap();
        for message in [Message::Link(link), wrap] {
            let alice = &mut meeting.nodes[0];
            let body = alice.session.seal(&message, &mut alice.rng).unwrap();
            hand(&mut meeting, 0, node, body);
        }
        assert_eq!(meeting.epoch(node), epoch);
    }
    let told = |meeting: &Meeting, node: usize| {
        let session = &meeting.nodes[node].session;
        session.counters().misbehaviour > 0
            || session.state().phase == Phase::Ended(EndReason::LeaderMisbehaved)
    };
    meeting.run_until(s(4), |meeting| told(meeting, 1) && told(meeting, 2));
}

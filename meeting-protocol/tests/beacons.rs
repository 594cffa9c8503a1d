//! Who may sign for a stream's frames, and who may not (PROTOCOL.md 5).

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use meeting_protocol::{
    beacon::{EVERY, FrameDigest, Span},
    frame::KeyId,
    session::{Command, Phase, Successors},
    testing::Meeting,
    weakness::{self, Weakness},
};

const ALICE: usize = 0;
const BOB: usize = 1;
const CAROL: usize = 2;

fn span(kid: KeyId, first: u64) -> Span {
    Span { kid, first, frames: vec![FrameDigest([7; 16])], closed: false }
}

/// Three people with keys of their own, and the key id of Alice's camera.
fn three(seed: u64) -> (Meeting, KeyId) {
    let mut meeting = Meeting::of(3, 7_000 + seed, Successors::Nobody);
    let camera = meeting.stream(ALICE, "camera");
    meeting.run_until(Duration::from_secs(5), |meeting| meeting.hears(ALICE, camera, BOB));
    let kid = meeting.nodes[ALICE].seals[&camera].kid;
    (meeting, kid)
}

#[test]
fn a_beacon_is_heard_by_everybody_and_counts_once() {
    let (mut meeting, kid) = three(1);
    meeting.command(ALICE, Command::Beacon(vec![span(kid, 5)])).unwrap();
    let (alice, beacon) = (meeting.nodes[ALICE].session.me(), meeting.nodes[ALICE].beacons[0].clone());
    for node in [BOB, CAROL] {
        meeting.hand_beacon(node, alice, beacon.clone());
        meeting.hand_beacon(node, alice, beacon.clone());
        let vouched = &meeting.nodes[node].vouched;
        assert_eq!(vouched.len(), 1, "a replayed beacon says nothing");
        assert_eq!((vouched[0].0, &vouched[0].1.spans), (alice, &vec![span(kid, 5)]));
        let delay = vouched[0].1.delay.unwrap();
        assert!(delay < 500, "{delay} ms on its way");
    }
}

#[test]
fn a_beacon_that_another_overtakes_counts_too_and_once() {
    let (mut meeting, kid) = three(6);
    for first in 0..100 {
        meeting.command(ALICE, Command::Beacon(vec![span(kid, first)])).unwrap();
    }
    let (alice, beacons) = (meeting.nodes[ALICE].session.me(), meeting.nodes[ALICE].beacons.clone());
    // Two by two they change places, and each comes twice; the first is long gone by when it comes.
    for pair in beacons[1..].chunks(2) {
        for beacon in pair.iter().rev().chain(pair) {
            meeting.hand_beacon(BOB, alice, beacon.clone());
        }
    }
    meeting.hand_beacon(BOB, alice, beacons[0].clone());
    let mut firsts: Vec<u64> =
        meeting.nodes[BOB].vouched.iter().map(|(_, vouch)| vouch.spans[0].first).collect();
    firsts.sort_unstable();
    assert_eq!(firsts, (1..100).collect::<Vec<_>>());
}

#[test]
fn who_waited_at_the_door_takes_nothing_for_late() {
    let (mut meeting, kid) = three(7);
    let (alice, carol) = (meeting.nodes[ALICE].session.me(), meeting.nodes[CAROL].session.me());
    meeting.command(ALICE, Command::Remove(carol)).unwrap();
    let dora = meeting.join("Dora");
    meeting.run(Duration::from_secs(10));
    let waiting = meeting.state(ALICE).waiting[0].participant;
    meeting.command(ALICE, Command::Approve(waiting)).unwrap();
    meeting.run_until(Duration::from_secs(10), |meeting| meeting.phase(dora) == Phase::Live);
    for _ in 0..30 {
        meeting.command(ALICE, Command::Beacon(vec![span(kid, 5)])).unwrap();
        let beacon = meeting.nodes[ALICE].beacons.last().unwrap().clone();
        meeting.hand_beacon(dora, alice, beacon);
        meeting.run(Duration::from_millis(333));
    }
    let delays: Vec<Option<u64>> = meeting.nodes[dora].vouched.iter().map(|(_, vouch)| vouch.delay).collect();
    assert_eq!(delays.len(), 30);
    assert!(delays.iter().all(|delay| delay.is_none_or(|delay| delay < 3_000)), "{delays:?}");
    assert!(delays[15..].iter().all(Option::is_some), "known once a pulse has returned: {delays:?}");
}

#[test]
fn clocks_are_known_to_a_third_of_a_second_however_long_the_meeting_lasts() {
    let (mut meeting, _) = three(8);
    // Past the first pulses, whose heartbeat comes at once.
    meeting.run(Duration::from_secs(200));
    for (from, to, held) in [(ALICE, BOB, 0), (BOB, ALICE, 4_000), (CAROL, BOB, 4_000)] {
        meeting.command(from, Command::Beacon(Vec::new())).unwrap();
        let (who, beacon) =
            (meeting.nodes[from].session.me(), meeting.nodes[from].beacons.last().unwrap().clone());
        meeting.run(Duration::from_millis(held));
        meeting.hand_beacon(to, who, beacon);
        let delay = meeting.nodes[to].vouched.last().unwrap().1.delay.unwrap();
        assert!(delay.abs_diff(held) < 400, "{delay} ms, held back for {held}");
    }
}

#[test]
fn nobody_signs_for_the_frames_of_another() {
    let (mut meeting, kid) = three(2);
    let alice = meeting.nodes[ALICE].session.me();
    let carol = meeting.nodes[CAROL].session.me();
    // Carol, who holds every key, signs for Alice's camera: in her own name and in Alice's.
    meeting.command(CAROL, Command::Beacon(vec![span(kid, 5)])).unwrap();
    let beacon = meeting.nodes[CAROL].beacons[0].clone();
    meeting.hand_beacon(BOB, carol, beacon.clone());
    meeting.hand_beacon(BOB, alice, beacon);
    assert!(meeting.nodes[BOB].vouched.is_empty());
    assert_eq!(meeting.nodes[BOB].session.counters().forged, 2);
    // A stranger's bytes, and every bit of a beacon of Alice's.
    meeting.command(ALICE, Command::Beacon(vec![span(kid, 5)])).unwrap();
    let beacon = meeting.nodes[ALICE].beacons[0].clone();
    for bit in 0..beacon.len() * 8 {
        let mut other = beacon.to_vec();
        other[bit / 8] ^= 1 << (bit % 8);
        meeting.hand_beacon(BOB, alice, other.into());
    }
    assert!(meeting.nodes[BOB].vouched.is_empty());
    meeting.hand_beacon(BOB, alice, beacon);
    assert_eq!(meeting.nodes[BOB].vouched.len(), 1);
}

#[test]
fn without_the_check_of_its_signature_anybodys_beacon_would_do() {
    let (mut meeting, kid) = three(12);
    let alice = meeting.nodes[ALICE].session.me();
    meeting.command(CAROL, Command::Beacon(vec![span(kid, 5)])).unwrap();
    let beacon = meeting.nodes[CAROL].beacons[0].clone();
    for (off, taken) in [(None, 0), (Some(Weakness::BeaconUnsigned), 1)] {
        weakness::set(off);
        meeting.hand_beacon(BOB, alice, beacon.clone());
        weakness::set(None);
        assert_eq!(meeting.nodes[BOB].vouched.len(), taken, "{off:?}");
    }
}

#[test]
fn who_has_left_signs_for_nothing_more() {
    let (mut meeting, _) = three(3);
    let voice = meeting.stream(CAROL, "voice");
    meeting.run_until(Duration::from_secs(5), |meeting| meeting.hears(CAROL, voice, BOB));
    let (carol, kid) = (meeting.nodes[CAROL].session.me(), meeting.nodes[CAROL].seals[&voice].kid);
    meeting.command(CAROL, Command::Beacon(vec![span(kid, 0)])).unwrap();
    meeting.command(ALICE, Command::Remove(carol)).unwrap();
    meeting.run(Duration::from_secs(2));
    let beacon = meeting.nodes[CAROL].beacons[0].clone();
    meeting.hand_beacon(BOB, carol, beacon);
    assert!(meeting.nodes[BOB].vouched.is_empty());
}

#[test]
fn a_beacon_that_was_held_back_shows_its_age() {
    let (mut meeting, kid) = three(4);
    meeting.command(ALICE, Command::Beacon(vec![span(kid, 5)])).unwrap();
    let (alice, beacon) = (meeting.nodes[ALICE].session.me(), meeting.nodes[ALICE].beacons[0].clone());
    meeting.run(Duration::from_secs(4));
    meeting.hand_beacon(BOB, alice, beacon);
    let delay = meeting.nodes[BOB].vouched[0].1.delay.unwrap();
    assert!((3_900..5_000).contains(&delay), "{delay} ms");
}

#[test]
fn beacons_of_a_stream_stay_under_twelve_kilobits_a_second() {
    let (mut meeting, kid) = three(5);
    // 50 frames of sound a second, in nine seconds.
    let (seconds, tick) = (9, EVERY.as_millis() as usize);
    let until = |n: usize| (n * 50 * tick).div_ceil(1_000);
    for n in 0..seconds * 1_000 / tick {
        let frames = vec![FrameDigest([7; 16]); until(n + 1) - until(n)];
        meeting
            .command(ALICE, Command::Beacon(vec![Span { kid, first: 1 << 20, frames, closed: false }]))
            .unwrap();
    }
    let beacons = meeting.nodes[ALICE].beacons.iter();
    let bytes: usize = beacons.map(|beacon| beacon.len() + RECORD + HEADERS).sum();
    println!("beacons of a stream of 50 frames a second: {} bit/s", bytes * 8 / seconds);
    assert!(bytes * 8 / seconds <= 12_000, "{bytes} bytes in {seconds} seconds");
}

/// Kind and length of the record, and the envelope's head.
const RECORD: usize = 5 + 3;
/// IPv4, UDP, and QUIC with the frame of its stream: a beacon is a packet of its own.
const HEADERS: usize = 20 + 8 + 34;

//! The figures of SECURITY.md that virtual time gives: the same on every machine. Each is printed with `--nocapture`.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use meeting_protocol::{
    session::{Command, Successors},
    testing::Meeting,
};
use meeting_wire::{Slot, StreamId};

/// Bob is cut off at every moment between two heartbeats, and of a pulse's half a minute.
#[test]
fn a_roster_is_tolerated_for_eight_seconds_after_the_leaders_last_word() {
    let ages = (0..50u64).map(|n| {
        let mut meeting = Meeting::of(2, 9_000 + n, Successors::Nobody);
        let camera = meeting.stream(1, "camera");
        meeting.run(ms(3_000 + n * 640));
        let cut = meeting.now;
        meeting.disconnect(1);
        until(&mut meeting, |meeting| !seals(meeting, 1, camera)) - cut
    });
    told("a cut-off member seals for", ages.collect(), 8_001);
}

/// Dave leaves, or is removed, in every phase of the leader's beat.
#[test]
fn who_has_gone_can_open_nothing_that_is_sealed_a_second_later() {
    for removed in [false, true] {
        let spans = (0..60u64).map(|n| {
            let mut meeting = Meeting::of(4, 9_200 + n + u64::from(removed) * 100, Successors::Nobody);
            let cameras: Vec<StreamId> = (0..3).map(|node| meeting.stream(node, "camera")).collect();
            meeting.run(ms(3_000 + n * 35));
            let (gone, at) = (meeting.nodes[3].session.me(), meeting.now);
            if removed {
                meeting.command(0, Command::Remove(gone)).unwrap();
            } else {
                meeting.command(3, Command::Leave).unwrap();
            }
            let opens = |meeting: &Meeting, node: usize| {
                let key = meeting.nodes[node].sealing(cameras[node], meeting.local(node));
                key.is_none_or(|key| meeting.nodes[3].ever.contains_key(&key.base_key))
            };
            until(&mut meeting, |meeting| (0..3).all(|node| !opens(meeting, node))) - at
        });
        let what = if removed { "after a removal" } else { "after a leave" };
        told(&format!("{what} everybody seals under a new key within"), spans.collect(), 1_000);
    }
}

#[test]
fn an_old_key_opens_for_two_seconds_after_all_sealing_under_it_had_to_end() {
    let spans = (0..20u64).map(|n| {
        let mut meeting = Meeting::of(3, 9_500 + n, Successors::Nobody);
        let camera = meeting.stream(0, "camera");
        meeting.run(ms(3_000 + n * 100));
        let (alice, old) = (meeting.nodes[0].session.me(), meeting.epoch(0));
        meeting.command(0, Command::Rotate).unwrap();
        until(&mut meeting, |meeting| meeting.nodes[1].retired.0 > old);
        let opens = |meeting: &Meeting| meeting.nodes[1].opens.contains_key(&(alice, camera, old));
        until(&mut meeting, |meeting| !opens(meeting));
        meeting.local(1).since(meeting.nodes[1].retired.1).as_millis() as u64
    });
    told("an old key opens, after all sealing under it had to end, for", spans.collect(), 2_000);
}

#[test]
fn keys_change_every_two_minutes_and_everybody_shows_to_be_there_every_half_minute() {
    let mut meeting = Meeting::of(2, 9_600, Successors::Nobody);
    let bob = meeting.nodes[1].session.me();
    meeting.run(ms(1_000));
    let (epochs, posts) = (meeting.epoch(0), meeting.recorded.len());
    meeting.run(Duration::from_secs(3_600));
    let epochs = meeting.epoch(0) - epochs;
    let direct = |slot: Slot| matches!(slot, Slot::Direct(_));
    let pulses =
        meeting.recorded[posts..].iter().filter(|post| post.from == bob && direct(post.slot)).count();
    println!("in an hour of quiet: {epochs} new keys, {pulses} pulses of a member");
    assert!(epochs >= 29, "{epochs} epochs");
    // Half a minute from heartbeat to heartbeat.
    assert!(pulses >= 118, "{pulses} pulses");
}

fn seals(meeting: &Meeting, node: usize, stream: StreamId) -> bool {
    meeting.nodes[node].sealing(stream, meeting.local(node)).is_some()
}

/// The first moment, to 5 ms, in which something holds.
fn until(meeting: &mut Meeting, holds: impl Fn(&Meeting) -> bool) -> u64 {
    for _ in 0..4_000 {
        if holds(meeting) {
            break;
        }
        meeting.run(ms(5));
    }
    meeting.now
}

fn told(what: &str, mut spans: Vec<u64>, limit: u64) {
    spans.sort_unstable();
    let (median, most) = (spans[spans.len() / 2], spans[spans.len() - 1]);
    println!("{what} {median} ms (median of {}), {most} ms (most)", spans.len());
    assert!(most <= limit + 5, "{what} {most} ms, {limit} are promised");
}

fn ms(span: u64) -> Duration {
    Duration::from_millis(span)
}

//! The rules as PROTOCOL.md has them, against a relay that does what it likes.

use std::time::Instant;

use meeting_models::{Config, SMALL, TWO_BRANCHES, check};

/// Searches everything; what `happens` names has to happen, so that the promises are not kept by standing still.
fn holds(config: Config, happens: &[&'static str]) {
    let start = Instant::now();
    let outcome = check(config, None);
    println!("{} states in {:.1?}", outcome.states, start.elapsed());
    assert!(outcome.broken.is_empty(), "{:#?}", outcome.broken);
    for what in happens {
        assert!(outcome.happens.contains(what), "never: {what}; only {:#?}", outcome.happens);
    }
}

const ROTATED: &str = "a follower seals under a rotated key";
const STALE: &str = "a follower is stale";
const LIVES_ON: &str = "a follower that hears its leader seals for longer than 8 s";
const OUT: &str = "somebody removed is out";
const TAKEN_OVER: &str = "a follower seals under the key of a leader that took over";
const RACE: &str = "two took over from one head and one of them stepped down";
const RESIGNED: &str = "a leader resigned and is followed by its successor";
const PARTED: &str = "two took over from different links and one of them stepped down";

#[test]
fn rotations_and_removals_hold() {
    holds(Config { rotations: 1, removals: 1, ..SMALL }, &[ROTATED, STALE, LIVES_ON, OUT]);
}

#[test]
fn early_heartbeats_give_nobody_more_time() {
    holds(Config { rotations: 1, early_beats: 1, ..SMALL }, &[ROTATED, STALE, LIVES_ON]);
}

#[test]
fn takeovers_and_races_hold() {
    holds(Config { people: 3, successors: 2, ghosts: 2, ..SMALL }, &[STALE, LIVES_ON, TAKEN_OVER, RACE]);
}

#[test]
fn resignations_hold() {
    let config = Config { people: 3, ticks: 4, successors: 2, resignation: true, ..SMALL };
    holds(config, &[TAKEN_OVER, RESIGNED]);
}

#[test]
fn branches_from_different_links_hold() {
    holds(TWO_BRANCHES, &[PARTED]);
}

#[test]
#[ignore = "takes up to a minute: cargo test -p meeting-models -- --ignored"]
fn two_rotations_over_fourteen_seconds_hold() {
    holds(Config { ticks: 7, rotations: 2, ..SMALL }, &[ROTATED, STALE, LIVES_ON]);
}

#[test]
#[ignore = "takes up to a minute: cargo test -p meeting-models -- --ignored"]
fn a_takeover_and_a_rotation_over_sixteen_seconds_hold() {
    let config = Config { people: 3, ticks: 8, rotations: 1, hands: Some(1), successors: 1, ..SMALL };
    holds(config, &[ROTATED, STALE, TAKEN_OVER]);
}

#[test]
#[ignore = "takes up to a minute: cargo test -p meeting-models -- --ignored"]
fn a_leader_that_sleeps_and_wakes_holds() {
    let config = Config { people: 3, sleeps: 2, successors: 2, ..SMALL };
    holds(config, &[STALE, TAKEN_OVER, RACE]);
}

#[test]
#[ignore = "takes up to a minute: cargo test -p meeting-models -- --ignored"]
fn three_people_a_rotation_and_a_removal_hold() {
    let config = Config { people: 3, ticks: 3, rotations: 1, removals: 1, ..SMALL };
    holds(config, &[ROTATED, STALE, OUT]);
}

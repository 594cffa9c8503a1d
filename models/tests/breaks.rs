//! Each rule taken away breaks a promise: a model that holds without the rule would show nothing.

use meeting_models::{AS_WRITTEN, Age, Config, Rules, SMALL, TWO_BRANCHES, check};

const STALE: &str = "nobody seals under a key whose leader has opened a newer one over 8 s ago";

const MAJORITY: &str = "a takeover takes silence at more than half of those present";

/// The promise that breaks, among those that do.
fn breaks(config: Config, promise: &'static str) {
    let outcome = check(config, Some(promise));
    println!("{} states: {:?}", outcome.states, outcome.broken);
    assert!(outcome.broken.iter().any(|(broken, _)| *broken == promise), "{:#?}", outcome.broken);
}

fn followers(rules: Rules) -> Config {
    Config { rotations: 1, rules, ..SMALL }
}

fn successors(rules: Rules) -> Config {
    Config { people: 3, ticks: 4, successors: 2, rules, ..SMALL }
}

#[test]
fn any_signed_heartbeat_counts() {
    let rules = Rules { age: Age::AnySigned, ..AS_WRITTEN };
    breaks(followers(rules), "heads, epochs and heartbeats only go forward");
}

#[test]
fn a_counter_alone_lets_heartbeats_drip() {
    breaks(followers(Rules { age: Age::Counter, ..AS_WRITTEN }), STALE);
}

#[test]
fn a_counter_against_our_own_clock_believes_the_first_heartbeat() {
    breaks(followers(Rules { age: Age::CounterElapsed, ..AS_WRITTEN }), STALE);
}

#[test]
fn sealing_under_the_old_key_while_waiting_for_a_wrap() {
    let rules = Rules { retire: false, ..AS_WRITTEN };
    breaks(followers(rules), "nobody seals under an old key once they know of a newer one");
}

#[test]
fn a_wrap_that_is_not_bound_to_its_link() {
    let rules = Rules { bound_wrap: false, ..AS_WRITTEN };
    breaks(Config { rotations: 1, ..successors(rules) }, "a key is that of a link of one's own chain");
}

#[test]
fn the_longest_chain_wins() {
    let rules = Rules { chain: false, ..AS_WRITTEN };
    breaks(Config { rotations: 1, ..successors(rules) }, "branches never merge");
}

#[test]
fn a_takeover_without_votes() {
    let rules = Rules { votes: false, ..AS_WRITTEN };
    breaks(successors(rules), MAJORITY);
}

#[test]
fn a_takeover_with_votes_of_devices_that_nobody_has_seen() {
    let rules = Rules { present: false, ..AS_WRITTEN };
    breaks(Config { ghosts: 2, ..successors(rules) }, MAJORITY);
}

#[test]
fn a_takeover_while_the_leader_is_heard() {
    let rules = Rules { silence: false, ..AS_WRITTEN };
    breaks(successors(rules), "nobody who hears the leader follows another");
}

#[test]
fn an_old_leaders_budget_under_a_new_leader() {
    let rules = Rules { cut_budget: false, ..AS_WRITTEN };
    let config = Config { ticks: 8, rotations: 1, hands: Some(1), successors: 1, ..successors(rules) };
    breaks(config, STALE);
}

#[test]
fn a_key_wrapped_for_the_roster_before_the_removal() {
    let rules = Rules { new_roster: false, ..AS_WRITTEN };
    let removal = Config { removals: 1, rules, ..SMALL };
    breaks(removal, "who is not in the roster of an epoch never gets its key");
}

#[test]
fn a_key_derived_from_the_one_before() {
    let rules = Rules { fresh_key: false, ..AS_WRITTEN };
    let removal = Config { removals: 1, rules, ..SMALL };
    breaks(removal, "who is not in the roster of an epoch never gets its key");
}

#[test]
fn a_race_that_nobody_settles() {
    let rules = Rules { step_down: false, ..AS_WRITTEN };
    let outcome = check(Config { ticks: 5, ..successors(rules) }, None);
    let settled = "two took over from one head and one of them stepped down";
    assert!(!outcome.happens.contains(&settled), "without the rule both go on");
}

#[test]
fn branches_from_different_links_that_know_nothing_of_each_other() {
    let rules = Rules { earlier_first: false, ..AS_WRITTEN };
    breaks(Config { rules, ..TWO_BRANCHES }, "of two who lead one gives way when they hear each other");
}

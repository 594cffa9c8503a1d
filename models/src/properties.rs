//! What has to hold in every state, and what has to happen in some.

use meeting_protocol::testing::limits::{LIMIT, is_majority};
use stateright::{Expectation, Property};

use crate::{
    rules::Config,
    state::{Duty, Grounds, Link, LinkId, Person, State, Who},
    steps::{count, ticks},
};

type Holds = fn(&Config, &State) -> bool;

const PROMISES: [(&str, Holds); 9] = [
    ("nobody seals under a key whose leader has opened a newer one over 8 s ago", nobody_is_stale),
    ("nobody seals under an old key once they know of a newer one", nobody_seals_under_what_they_know_is_old),
    ("heads, epochs and heartbeats only go forward", nobody_goes_back),
    ("a key is that of a link of one's own chain", one_key_for_each_epoch),
    ("branches never merge", branches_never_merge),
    ("a takeover takes silence at more than half of those present", no_takeover_without_majority),
    ("nobody who hears the leader follows another", nobody_leaves_a_leader_that_is_heard),
    ("who is not in the roster of an epoch never gets its key", outsiders_get_no_key),
    ("of two who lead one gives way when they hear each other", one_gives_way),
];

const HAPPENS: [(&str, Holds); 8] = [
    ("a follower seals under a rotated key", a_rotated_key_is_used),
    ("a follower is stale", somebody_is_stale),
    ("a follower that hears its leader seals for longer than 8 s", the_first_key_lives_on),
    ("somebody removed is out", somebody_is_out),
    ("a follower seals under the key of a leader that took over", a_takeover_is_followed),
    ("two took over from one head and one of them stepped down", a_race_is_settled),
    ("a leader resigned and is followed by its successor", a_resignation_is_followed),
    ("two took over from different links and one of them stepped down", branches_end_as_one),
];

pub fn all() -> Vec<Property<Config>> {
    let promises = PROMISES.iter().map(|(name, holds)| (Expectation::Always, *name, *holds));
    let happens = HAPPENS.iter().map(|(name, holds)| (Expectation::Sometimes, *name, *holds));
    promises
        .chain(happens)
        .map(|(expectation, name, condition)| Property { expectation, name, condition })
        .collect()
}

pub fn is_promise(name: &str) -> bool {
    PROMISES.iter().any(|(promise, _)| *promise == name)
}

fn everybody(state: &State) -> impl Iterator<Item = Who> {
    0..state.people.len() as u8
}

/// Followers that seal, and under what.
fn sealing<'a>(config: &'a Config, state: &'a State) -> impl Iterator<Item = (Who, LinkId)> + 'a {
    everybody(state)
        .filter(|who| matches!(state.person(*who).duty, Duty::Follow(_)))
        .filter_map(|who| Some((who, state.sealing(config, who)?)))
}

fn nobody_is_stale(config: &Config, state: &State) -> bool {
    sealing(config, state).all(|(who, key)| {
        let leader = state.head(who).leader;
        let old = |(id, link): (usize, &Link)| {
            let newer = link.leader == leader && id != usize::from(key) && state.extends(id as LinkId, key);
            newer && state.now - link.at > ticks(LIMIT)
        };
        !state.links.iter().enumerate().any(old)
    })
}

fn nobody_seals_under_what_they_know_is_old(config: &Config, state: &State) -> bool {
    sealing(config, state).all(|(who, key)| state.link(key).epoch() >= state.person(who).known)
}

fn nobody_goes_back(_: &Config, state: &State) -> bool {
    state.people.iter().all(|person| !person.went_back)
}

fn one_key_for_each_epoch(_: &Config, state: &State) -> bool {
    state.people.iter().all(|person| person.key.is_none_or(|key| state.extends(person.head, key)))
}

fn branches_never_merge(_: &Config, state: &State) -> bool {
    let is_past = |person: &Person, id: LinkId| person.heads & 1 << id == 0 || state.extends(person.head, id);
    state.people.iter().all(|person| (0..state.links.len() as LinkId).all(|id| is_past(person, id)))
}

fn no_takeover_without_majority(_: &Config, state: &State) -> bool {
    state.links.iter().all(|link| match (link.grounds, link.previous) {
        (Grounds::Votes(..), Some(previous)) => {
            let before = state.link(previous);
            let silent = state.votes.iter().filter(|vote| vote.head == previous && before.has(vote.voter));
            is_majority(silent.count(), count(before.roster))
        }
        _ => true,
    })
}

fn nobody_leaves_a_leader_that_is_heard(_: &Config, state: &State) -> bool {
    state.people.iter().all(|person| !person.left_early)
}

fn outsiders_get_no_key(config: &Config, state: &State) -> bool {
    let closed =
        |link: &Link| everybody(state).all(|who| link.has(who) || !state.can_know(config, link, who));
    state.links.iter().all(closed)
}

fn one_gives_way(config: &Config, state: &State) -> bool {
    let leads = |who: &Who| matches!(state.person(*who).duty, Duty::Lead(_));
    everybody(state).filter(leads).all(|one| {
        everybody(state).filter(leads).filter(|other| *other > one).all(|other| {
            let (one, other) = (state.person(one).head, state.person(other).head);
            state.goes_before(config, one, other) != state.goes_before(config, other, one)
        })
    })
}

fn a_rotated_key_is_used(config: &Config, state: &State) -> bool {
    sealing(config, state).any(|(_, key)| state.link(key).grounds == Grounds::Leads && key > 0)
}

fn somebody_is_stale(config: &Config, state: &State) -> bool {
    let stale = |who: &Who| match &state.person(*who).duty {
        Duty::Follow(follow) => follow.last.is_some() && state.sealing(config, *who).is_none(),
        _ => false,
    };
    everybody(state).any(|who| stale(&who))
}

fn the_first_key_lives_on(config: &Config, state: &State) -> bool {
    state.now > ticks(LIMIT) + 1 && sealing(config, state).any(|(_, key)| key == 0)
}

fn somebody_is_out(_: &Config, state: &State) -> bool {
    everybody(state).any(|who| state.person(who).duty == Duty::Out && !state.head(who).has(who))
}

fn a_takeover_is_followed(config: &Config, state: &State) -> bool {
    sealing(config, state).any(|(_, key)| matches!(state.link(key).grounds, Grounds::Votes(..)))
}

fn a_race_is_settled(_: &Config, state: &State) -> bool {
    let takeovers = |link: &&Link| matches!(link.grounds, Grounds::Votes(..));
    state.links.iter().filter(takeovers).any(|one| {
        let same = |other: &&Link| other.previous == one.previous && other.leader != one.leader;
        let out = |who: Who| state.person(who).duty == Duty::Out;
        state.links.iter().filter(takeovers).filter(same).any(|other| out(other.leader) && !out(one.leader))
    })
}

fn branches_end_as_one(_: &Config, state: &State) -> bool {
    let takeovers = |link: &&Link| link.grounds != Grounds::Leads;
    let old = |link: &Link| link.previous.map(|previous| state.link(previous));
    state.links.iter().filter(takeovers).any(|one| {
        let parted = |other: &&Link| match (old(one), old(other)) {
            (Some(last), Some(other)) => last.leader == other.leader && last.number < other.number,
            _ => false,
        };
        let out = |who: Who| state.person(who).duty == Duty::Out;
        state.links.iter().filter(takeovers).filter(parted).any(|other| out(other.leader) && !out(one.leader))
    })
}

fn a_resignation_is_followed(config: &Config, state: &State) -> bool {
    sealing(config, state).any(|(_, key)| state.link(key).grounds == Grounds::Resigned)
}

//! The rules, one function for each thing that happens. Each gives none where it cannot happen.

use meeting_protocol::testing::limits::{BEAT, MAX_BEHIND, RANK, SILENCE, is_majority};

use crate::{
    rules::{self, Config},
    state::{Beat, Duty, Follow, Grounds, Lead, Link, LinkId, State, Vote, Who, nonce, time},
};

/// Heartbeats between two ticks are 50 ms apart.
const EARLY_BEAT: u64 = 50;

pub fn tick(state: &mut State) -> Option<()> {
    state.now += 1;
    for who in 0..state.people.len() as u8 {
        let paired = state.is_paired(who);
        match &mut state.person_mut(who).duty {
            Duty::Lead(lead) => {
                lead.beaten = 0;
                if !lead.asleep {
                    beat(state, who);
                }
            }
            Duty::Follow(_) if paired => state.pulse(who),
            _ => {}
        }
    }
    Some(())
}

/// A heartbeat, which returns the pulses of this tick: the relay holds back the heartbeat if it wants to hold back a pulse.
pub fn beat(state: &mut State, who: Who) -> Option<()> {
    let (now, head) = (state.now, state.person(who).head);
    let Duty::Lead(lead) = &mut state.person_mut(who).duty else { return None };
    let time = time(now).since(time(lead.since)).as_millis() as u64 + 1 + EARLY_BEAT * u64::from(lead.beaten);
    lead.counter += 1;
    lead.beaten += 1;
    let beat = Beat { leader: who, counter: lead.counter, head, time, tick: now };
    state.beats.push(beat);
    Some(())
}

pub fn early_beat(config: &Config, state: &mut State, who: Who) -> Option<()> {
    awake(state, who)?;
    state.early_beats += 1;
    beat(state, who)?;
    (state.early_beats <= config.early_beats).then_some(())
}

/// A leader stops beating, or goes on: a crash is a sleep without end.
pub fn sleep(config: &Config, state: &mut State, who: Who) -> Option<()> {
    let Duty::Lead(lead) = &mut state.person_mut(who).duty else { return None };
    lead.asleep = !lead.asleep;
    state.sleeps += 1;
    (state.sleeps <= config.sleeps).then_some(())
}

pub fn rotate(config: &Config, state: &mut State, who: Who) -> Option<()> {
    awake(state, who)?;
    state.rotations += 1;
    let roster = state.head(who).roster;
    open(state, who, Grounds::Leads, roster);
    (state.rotations <= config.rotations).then_some(())
}

pub fn remove(config: &Config, state: &mut State, who: Who, other: Who) -> Option<()> {
    awake(state, who)?;
    let roster = state.head(who).roster;
    state.removals += 1;
    open(state, who, Grounds::Leads, roster & !(1 << other));
    (state.removals <= config.removals && who != other && roster & 1 << other != 0).then_some(())
}

pub fn resign(config: &Config, state: &mut State, who: Who) -> Option<()> {
    awake(state, who)?;
    state.resigned.push((state.person(who).head, who));
    state.person_mut(who).duty = Duty::Out;
    (config.successors > 0 && config.resignation).then_some(())
}

/// The leader, if it is one and not asleep.
fn awake(state: &State, who: Who) -> Option<&Lead> {
    let Duty::Lead(lead) = &state.person(who).duty else { return None };
    (!lead.asleep).then_some(lead)
}

/// A link after the head of its signer, with a new key.
fn open(state: &mut State, who: Who, grounds: Grounds, roster: u8) {
    let (previous, id) = (state.person(who).head, state.links.len() as LinkId);
    let number = state.link(previous).number + 1;
    state.links.push(Link { previous: Some(previous), number, leader: who, grounds, roster, at: state.now });
    arrive(state, who, id);
    state.person_mut(who).key = Some(id);
}

/// Somebody goes on to a link.
fn arrive(state: &mut State, who: Who, id: LinkId) {
    let epoch = state.link(id).epoch();
    let person = state.person_mut(who);
    person.head = id;
    person.heads |= 1 << id;
    person.known = person.known.max(epoch);
}

/// The follower, if it is one and has heard nothing for so long.
fn silent(state: &State, who: Who, ranks: u8) -> Option<&Follow> {
    let Duty::Follow(follow) = &state.person(who).duty else { return None };
    let silence = time(state.now).since(follow.age.last_heard());
    (silence >= SILENCE + RANK * u32::from(ranks)).then_some(follow)
}

/// Who hears nothing says so, again and again; the newest vote of each at a head is what serves a takeover best.
pub fn vote(config: &Config, state: &mut State) {
    for voter in 0..state.people.len() as u8 {
        let Some(follow) = silent(state, voter, 0).filter(|_| config.successors > 0) else { continue };
        let (head, counter) = (state.person(voter).head, follow.last.map_or(0, |(counter, _)| counter));
        match state.votes.iter_mut().find(|vote| (vote.voter, vote.head) == (voter, head)) {
            Some(vote) => vote.counter = vote.counter.max(counter),
            None => state.votes.push(Vote { voter, head, counter }),
        }
    }
    state.votes.sort_unstable();
}

pub fn take_over(config: &Config, state: &mut State, who: Who) -> Option<()> {
    let (head, before) = (state.person(who).head, state.head(who).clone());
    let rank = before.rank(who).filter(|rank| *rank < config.successors)?;
    let roster = before.roster & !(1 << before.leader);
    let grounds = if rank == 0 && state.resigned.contains(&(head, before.leader)) {
        Grounds::Resigned
    } else {
        let own = silent(state, who, rank)?.last.map_or(0, |(counter, _)| counter);
        let (mut voters, mut oldest) = (1 << who, own);
        let counts =
            |vote: &&Vote| vote.head == head && u64::from(vote.counter) + MAX_BEHIND >= u64::from(own);
        for vote in state.votes.iter().filter(counts) {
            voters |= 1 << vote.voter;
            oldest = oldest.min(vote.counter);
        }
        let ghosts = if config.rules.present { 0 } else { usize::from(config.ghosts) };
        if config.rules.votes && !is_majority(count(voters) + ghosts, count(before.roster) + ghosts) {
            return None;
        }
        Grounds::Votes(voters, oldest)
    };
    open(state, who, grounds, roster);
    state.person_mut(who).duty = Duty::Lead(Lead::new(state.now));
    beat(state, who)
}

pub fn count(people: u8) -> usize {
    people.count_ones() as usize
}

pub fn on_beat(config: &Config, state: &mut State, who: Who, beat: u8) -> Option<()> {
    let Beat { leader, counter, head, time: leader_time, tick } = state.beats.get(usize::from(beat))?.clone();
    if leader != state.head(who).leader {
        return None;
    }
    if let Some(limit) = config.hands {
        state.handed += 1;
        if state.handed > limit {
            return None;
        }
    }
    let (now, epoch) = (time(state.now), state.link(head).epoch());
    let person = state.person_mut(who);
    let Duty::Follow(follow) = &mut person.duty else { return None };
    let newer = follow.last.is_none_or(|(last, _)| counter > last);
    if !newer && config.rules.age != rules::Age::AnySigned {
        return None;
    }
    person.went_back |= !newer;
    follow.last = Some((counter, leader_time));
    follow.age.heard(config.rules.age, (counter, leader_time), nonce(who, tick, leader), now);
    person.known = person.known.max(epoch);
    Some(())
}

pub fn on_link(config: &Config, state: &mut State, who: Who, id: LinkId) -> Option<()> {
    let link = state.link(id).clone();
    if link.leader == who {
        return None;
    }
    if matches!(state.person(who).duty, Duty::Lead(_)) {
        awake(state, who)?;
        return step_down(config, state, who, id);
    }
    let extends = link.previous == Some(state.person(who).head);
    match link.grounds {
        Grounds::Leads if extends && link.leader == state.head(who).leader => {}
        Grounds::Leads => return None,
        _ => {
            let longer = !config.rules.chain && link.number >= state.head(who).number;
            if !(extends || longer && id != state.person(who).head) {
                return None;
            }
            follow_takeover(config, state, who, &link)?;
        }
    }
    arrive(state, who, id);
    if !link.has(who) {
        state.person_mut(who).duty = Duty::Out;
    }
    Some(())
}

/// A successor says that it leads now.
fn follow_takeover(config: &Config, state: &mut State, who: Who, link: &Link) -> Option<()> {
    let is_silent = silent(state, who, 0).is_some();
    let now = time(state.now);
    let person = state.person_mut(who);
    let Duty::Follow(follow) = &mut person.duty else { return None };
    if let Grounds::Votes(_, oldest) = link.grounds {
        let own = follow.last.map_or(0, |(counter, _)| counter);
        let refused = u64::from(oldest) + MAX_BEHIND < u64::from(own) || !is_silent;
        if config.rules.silence && refused {
            return None;
        }
        person.left_early |= !is_silent;
    }
    let resigned = link.grounds == Grounds::Resigned;
    follow.age.new_leader(config.rules.cut_budget && !resigned, now);
    follow.last = None;
    person.known = link.epoch();
    Some(())
}

/// A leader hears of another branch that goes before its own.
fn step_down(config: &Config, state: &mut State, who: Who, id: LinkId) -> Option<()> {
    if !config.rules.step_down || !state.goes_before(config, id, state.person(who).head) {
        return None;
    }
    state.person_mut(who).duty = Duty::Out;
    Some(())
}

pub fn on_wrap(config: &Config, state: &mut State, who: Who, id: LinkId) -> Option<()> {
    let (link, newest) = (state.link(id), state.head(who));
    let fits =
        if config.rules.bound_wrap { id == state.person(who).head } else { link.epoch() == newest.epoch() };
    let missing = state.person(who).key.is_none_or(|key| state.link(key).epoch() < newest.epoch());
    // The key of a removed member's epoch is for the properties: honest people take only what is meant for them.
    if !fits || !missing || !link.has(who) || link.leader == who {
        return None;
    }
    state.person_mut(who).key = Some(id);
    state.pulse(who);
    Some(())
}

/// Ticks that a time takes.
pub fn ticks(time: std::time::Duration) -> u8 {
    (time.as_millis() / BEAT.as_millis()) as u8
}

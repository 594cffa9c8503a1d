//! What may happen next, and the search through all of it.

use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::{
    properties,
    rules::Config,
    state::{Duty, LinkId, State, Who},
    steps,
};

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Two seconds pass.
    Tick,
    /// A leader beats between two ticks.
    EarlyBeat(Who),
    /// A leader's machine sleeps, or wakes.
    Sleep(Who),
    /// A leader opens an epoch for the same people.
    Rotate(Who),
    /// A leader removes somebody.
    Remove(Who, Who),
    /// A leader leaves its place to the first successor.
    Resign(Who),
    /// A successor leads from now on.
    TakeOver(Who),
    /// The relay hands somebody a heartbeat, by its place in the list of all.
    HandBeat(Who, u8),
    /// The relay hands somebody a link.
    HandLink(Who, LinkId),
    /// The relay hands somebody the wrap for a link.
    HandWrap(Who, LinkId),
}

impl Model for Config {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::first(self)]
    }

    fn actions(&self, state: &State, out: &mut Vec<Action>) {
        if state.now < self.ticks {
            out.push(Action::Tick);
        }
        for who in 0..self.people {
            match &state.person(who).duty {
                Duty::Lead(_) => {
                    out.extend([Action::EarlyBeat(who), Action::Sleep(who)]);
                    out.extend([Action::Rotate(who), Action::Resign(who)]);
                    out.extend((0..self.people).map(|other| Action::Remove(who, other)));
                }
                Duty::Follow(_) => {
                    out.push(Action::TakeOver(who));
                    out.extend((0..state.beats.len() as u8).map(|beat| Action::HandBeat(who, beat)));
                    out.extend((0..state.links.len() as u8).map(|link| Action::HandWrap(who, link)));
                }
                Duty::Out => continue,
            }
            out.extend((0..state.links.len() as u8).map(|link| Action::HandLink(who, link)));
        }
    }

    /// None where nothing changes.
    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        let happens = match action {
            Action::Tick => steps::tick(&mut next),
            Action::Sleep(who) => steps::sleep(self, &mut next, who),
            Action::EarlyBeat(who) => steps::early_beat(self, &mut next, who),
            Action::Rotate(who) => steps::rotate(self, &mut next, who),
            Action::Remove(who, other) => steps::remove(self, &mut next, who, other),
            Action::Resign(who) => steps::resign(self, &mut next, who),
            Action::TakeOver(who) => steps::take_over(self, &mut next, who),
            Action::HandBeat(who, beat) => steps::on_beat(self, &mut next, who, beat),
            Action::HandLink(who, link) => steps::on_link(self, &mut next, who, link),
            Action::HandWrap(who, link) => steps::on_wrap(self, &mut next, who, link),
        };
        steps::vote(self, &mut next);
        (happens.is_some() && next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}

/// What a search found.
#[derive(Debug)]
pub struct Outcome {
    /// States that differ.
    pub states: usize,
    /// Properties that do not hold, each with a way there.
    pub broken: Vec<(&'static str, Vec<Action>)>,
    /// What happens somewhere: a model in which nothing happens keeps every promise.
    pub happens: Vec<&'static str>,
}

/// Searches everything, or until this property is broken.
pub fn check(config: Config, until: Option<&'static str>) -> Outcome {
    let finish = until.map_or(HasDiscoveries::All, |name| HasDiscoveries::AnyOf([name].into()));
    let checker = config.checker().threads(2).finish_when(finish).spawn_bfs().join();
    let mut outcome =
        Outcome { states: checker.unique_state_count(), broken: Vec::new(), happens: Vec::new() };
    for (name, path) in checker.discoveries() {
        if properties::is_promise(name) {
            outcome.broken.push((name, path.into_actions()));
        } else {
            outcome.happens.push(name);
        }
    }
    outcome.happens.sort_unstable();
    outcome
}

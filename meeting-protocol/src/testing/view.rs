//! What can be seen of a meeting from outside.

use meeting_wire::{ParticipantId, StreamId};

use super::{Meeting, Node};
use crate::{
    BootTime,
    session::{Person, Phase, State},
};

impl Meeting {
    /// A node's state.
    pub fn state(&self, node: usize) -> State {
        self.nodes[node].session.state()
    }

    /// A node's phase.
    pub fn phase(&self, node: usize) -> Phase {
        self.state(node).phase
    }

    /// A node's local time.
    pub fn local(&self, node: usize) -> BootTime {
        self.nodes[node].local(self.now)
    }

    /// Whether all these are live, present, in one epoch and of one code.
    pub fn together(&self, nodes: &[usize]) -> bool {
        let states: Vec<State> = nodes.iter().map(|node| self.state(*node)).collect();
        states.iter().all(|state| {
            state.phase == Phase::Live
                && (state.epoch, state.code) == (states[0].epoch, states[0].code)
                && state.roster == with_me(&states[0].roster, state.me)
                && state.roster.len() == nodes.len()
                && state.roster.iter().all(|person| person.present)
        })
    }

    /// Whether `to` can open what an element of `from` would seal now.
    pub fn hears(&self, from: usize, stream: StreamId, to: usize) -> bool {
        let sender = &self.nodes[from];
        let Some(key) = sender.sealing(stream, self.local(from)) else { return false };
        let receiver = &self.nodes[to];
        let open = receiver.opens.get(&(sender.session.me(), stream, key.epoch));
        self.local(to) <= receiver.lease
            && open.is_some_and(|open| (open.kid, open.base_key) == (key.kid, key.base_key))
    }

    /// How many epochs have been opened.
    pub fn epoch(&self, node: usize) -> u64 {
        self.state(node).epoch.unwrap_or(0)
    }

    pub(super) fn summary(&self) -> Vec<String> {
        let line = |node: &Node| {
            let state = node.session.state();
            format!(
                "{:?} epoch {:?} roster {:?} streams {} {:?} events {:?}",
                state.phase,
                state.epoch,
                state
                    .roster
                    .iter()
                    .map(|person| (&person.name, person.present, person.leader))
                    .collect::<Vec<_>>(),
                state.streams.len(),
                node.session.counters(),
                node.events.iter().rev().take(5).collect::<Vec<_>>(),
            )
        };
        self.nodes.iter().map(line).collect()
    }
}

fn with_me(roster: &[Person], me: ParticipantId) -> Vec<Person> {
    roster.iter().cloned().map(|person| Person { me: person.participant == me, ..person }).collect()
}

//! Who was in a meeting, so that nobody takes over a stay of the past. Pure and bounded.

use std::collections::HashMap;

use meeting_wire::{Claim, ParticipantId};

use crate::limits;

/// The claims of those who are in a meeting and of those who were.
#[derive(Debug, Default)]
pub struct Claims {
    known: HashMap<ParticipantId, Known>,
    leaves: u64,
}

#[derive(Debug)]
struct Known {
    claim: Claim,
    /// How many had left when this one did; [`HERE`] while it has not.
    left: u64,
}

const HERE: u64 = u64::MAX;

impl Claims {
    /// Whether a place is open to whoever has this claim: nobody had it, or the same one.
    pub fn allow(&self, participant: ParticipantId, claim: Claim) -> bool {
        self.known.get(&participant).is_none_or(|known| known.claim == claim)
    }

    /// Whether somebody with this claim was here before.
    pub fn know(&self, participant: ParticipantId, claim: Claim) -> bool {
        self.known.get(&participant).is_some_and(|known| known.claim == claim)
    }

    /// Notes who comes in. Nobody is refused for those who were here once: the one who has been away for longest is
    /// forgotten.
    pub fn enter(&mut self, participant: ParticipantId, claim: Claim) {
        if self.known.len() >= limits::CLAIMS && !self.known.contains_key(&participant) {
            let away = self.known.iter().filter(|(_, known)| known.left != HERE);
            let longest = away.min_by_key(|(_, known)| known.left).map(|(participant, _)| *participant);
            longest.and_then(|longest| self.known.remove(&longest));
        }
        self.known.insert(participant, Known { claim, left: HERE });
    }

    /// Notes who goes.
    pub fn leave(&mut self, participant: ParticipantId) {
        if let Some(known) = self.known.get_mut(&participant) {
            self.leaves += 1;
            known.left = self.leaves;
        }
    }
}

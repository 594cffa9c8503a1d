//! A queue that several fill: each has a share of it, so that none fills it alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use meeting_wire::ParticipantId;

use crate::budget::Budget;

/// An account of which nobody holds more than a share.
#[derive(Debug)]
pub struct Shares {
    all: Arc<Budget>,
    most: usize,
    of: Each<Budget>,
}

impl Shares {
    /// Parts of `all`, of `most` each.
    pub fn new(all: Arc<Budget>, most: usize) -> Self {
        Self { all, most, of: Each::default() }
    }

    /// One's share; it lasts as long as something is charged to it.
    pub fn of(&self, participant: ParticipantId) -> Arc<Budget> {
        self.of.get(participant, || self.all.part(self.most, 0))
    }
}

/// Something that each participant has for itself, as long as anybody holds it.
#[derive(Debug)]
pub struct Each<T>(Mutex<HashMap<ParticipantId, Weak<T>>>);

impl<T> Default for Each<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Each<T> {
    /// What this one has, or else a new one.
    pub fn get(&self, participant: ParticipantId, new: impl FnOnce() -> Arc<T>) -> Arc<T> {
        let mut each = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = each.get(&participant).and_then(Weak::upgrade) {
            return held;
        }
        // Those of whom nothing is left make room before the map grows.
        if each.len() == each.capacity() {
            each.retain(|_, held| held.strong_count() > 0);
        }
        let held = new();
        each.insert(participant, Arc::downgrade(&held));
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: ParticipantId = ParticipantId([0xa; 16]);
    const EVE: ParticipantId = ParticipantId([0xe; 16]);

    #[test]
    fn who_has_filled_a_share_leaves_room_for_others() {
        let shares = Shares::new(Budget::new(80), 20);
        let eves: Vec<_> = (0..30).filter_map(|_| shares.of(EVE).charge(1)).collect();
        assert_eq!(eves.len(), 20);
        let alices = shares.of(ALICE).charge(20).expect("her own");
        drop(eves);
        assert!(shares.of(EVE).charge(20).is_some());
        drop(alices);
        assert_eq!(shares.all.used(), 0);
    }

    #[test]
    fn who_has_nothing_there_is_forgotten() {
        let shares = Shares::new(Budget::new(80), 20);
        for n in 0..1_000_u32 {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&n.to_be_bytes());
            shares.of(ParticipantId(id)).charge(1).expect("nothing else is there");
        }
        assert!(shares.of.0.lock().expect("no panic").len() < 10);
    }
}

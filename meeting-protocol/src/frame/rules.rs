//! Until when, and under which epochs, frames may be sealed and opened: elements hold it against the clock at each frame.

use crate::{
    BootTime,
    weakness::{self, Weakness},
};

/// What the agent allows. The default allows nothing.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Seal and open until then and no longer.
    pub until: BootTime,
    /// Epochs below the first number are not sealed under from the time on.
    retired: Vec<(u64, BootTime)>,
}

impl Rules {
    /// Seals nothing under epochs below `before` from `at` on.
    pub fn retire(&mut self, before: u64, at: BootTime) {
        self.retired.retain(|&(other, since)| other > before || since < at);
        if self.retired.len() >= MAX_RETIRED {
            // Nobody switches that often: the oldest takes effect at once rather than being forgotten.
            let (oldest, _) = self.retired.remove(0);
            if let Some(first) = self.retired.first_mut() {
                *first = (first.0.max(oldest), BootTime(0));
            }
        }
        self.retired.push((before, at));
    }

    /// Whether a frame may be sealed under a key of this epoch.
    pub fn may_seal(&self, epoch: u64, now: BootTime) -> bool {
        let leased = now < self.until || weakness::is(Weakness::LeaseIgnored);
        let retired = self.retired.iter().any(|&(before, at)| epoch < before && now >= at);
        leased && (!retired || weakness::is(Weakness::OldKeyKept))
    }

    /// Whether a frame may be opened.
    pub fn may_open(&self, now: BootTime) -> bool {
        now < self.until
    }
}

/// Retirements kept: all but the newest one or two took effect long ago, since each is half a second away at most.
const MAX_RETIRED: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_allowed_before_a_lease_or_after_it() {
        let mut rules = Rules::default();
        assert!(!rules.may_seal(1, BootTime(0)) && !rules.may_open(BootTime(0)));
        rules.until = BootTime(100);
        assert!(rules.may_seal(1, BootTime(99)) && rules.may_open(BootTime(99)));
        assert!(!rules.may_seal(1, BootTime(100)) && !rules.may_open(BootTime(100)));
    }

    #[test]
    fn an_epoch_is_retired_at_its_time_and_stays_so() {
        let mut rules = Rules { until: BootTime(1000), ..Rules::default() };
        rules.retire(2, BootTime(50));
        assert!(rules.may_seal(1, BootTime(49)));
        assert!(!rules.may_seal(1, BootTime(50)));
        assert!(rules.may_seal(2, BootTime(50)));
        rules.retire(3, BootTime(200));
        assert!(!rules.may_seal(1, BootTime(60)), "a later and milder word does not bring it back");
        rules.retire(3, BootTime(10));
        assert!(!rules.may_seal(2, BootTime(60)), "an earlier one counts");
    }

    #[test]
    fn a_flood_forgets_nothing() {
        let mut rules = Rules { until: BootTime(1000), ..Rules::default() };
        (1..100).for_each(|epoch| rules.retire(epoch, BootTime(epoch)));
        assert!(rules.retired.len() <= MAX_RETIRED);
        assert!((0..99).all(|epoch| !rules.may_seal(epoch, BootTime(200))));
        assert!(rules.may_seal(99, BootTime(200)));
    }
}

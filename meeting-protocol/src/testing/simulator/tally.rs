//! What was tried and seen in a run, so that nobody takes an empty one for a good one.

use std::collections::BTreeMap;

/// What was tried and seen.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Frames sealed.
    pub sealed: u64,
    /// Frames opened by somebody else.
    pub opened: u64,
    /// Lies told by members, ex-members and leaders.
    pub lies: u64,
    /// Forged and altered frames that went through to an element.
    pub forged: u64,
    /// The longest time until one of them was told, in ms.
    pub noticed: u64,
    /// Stays that were taken up.
    pub stays: u64,
    /// Changes of leader.
    pub takeovers: u64,
    /// Epochs.
    pub epochs: u64,
    /// Honest people in the meeting at the end.
    pub together: u64,
    /// How often each kind of mischief was done.
    pub deeds: BTreeMap<String, u64>,
}

impl Tally {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.sealed += other.sealed;
        self.opened += other.opened;
        self.lies += other.lies;
        self.forged += other.forged;
        self.noticed = self.noticed.max(other.noticed);
        self.stays += other.stays;
        self.takeovers += other.takeovers;
        self.epochs += other.epochs;
        self.together += other.together;
        for (deed, times) in &other.deeds {
            *self.deeds.entry(deed.clone()).or_default() += times;
        }
    }

    /// Somebody did this.
    pub(super) fn did(&mut self, deed: impl Into<String>) {
        *self.deeds.entry(deed.into()).or_default() += 1;
    }
}

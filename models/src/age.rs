//! The age of the leader's word: the real measure, and the broken ones.

use meeting_protocol::{
    BootTime,
    testing::limits::{BEAT, Freshness, LIMIT},
};

use crate::rules;

/// One participant's measure.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Age {
    /// The code of the session.
    real: Freshness,
    /// The deadline of a broken rule.
    broken: Option<BootTime>,
    /// Counter and local time of the first heartbeat, for [`rules::Age::CounterElapsed`].
    first: Option<(u8, BootTime)>,
}

impl Age {
    pub fn new(now: BootTime) -> Self {
        Self { real: Freshness::new(now), broken: None, first: None }
    }

    pub fn sent(&mut self, nonce: [u8; 16], now: BootTime) {
        self.real.sent(nonce, now);
    }

    /// A heartbeat was accepted.
    pub fn heard(&mut self, rule: rules::Age, (counter, time): (u8, u64), nonce: [u8; 16], now: BootTime) {
        self.real.heard(time, &[nonce], now);
        match rule {
            rules::Age::Echoed => {}
            rules::Age::AnySigned | rules::Age::Counter => self.broken = Some(now + LIMIT),
            rules::Age::CounterElapsed => {
                let (first, at) = *self.first.get_or_insert((counter, now));
                self.broken = Some(at + BEAT * u32::from(counter - first) + LIMIT);
            }
        }
    }

    pub fn new_leader(&mut self, ends: bool, now: BootTime) {
        self.real.new_leader(ends, now);
        self.first = None;
    }

    /// When the newest heartbeat came.
    pub fn last_heard(&self) -> BootTime {
        self.real.heard
    }

    pub fn is_fresh(&self, rule: rules::Age, now: BootTime) -> bool {
        match rule {
            rules::Age::Echoed => self.real.is_fresh(now),
            _ => self.broken.is_some_and(|deadline| now <= deadline),
        }
    }
}

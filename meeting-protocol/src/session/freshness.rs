//! How long the leader's word counts: anchored by returned nonces, measured on our own clock.
//!
//! ```text
//!  us       t0 --pulse(nonce)-->                 <--heartbeat(T0, nonce)--      <--heartbeat(T)--
//!  leader                        ...T0...T
//!                                                    allowed until  t0 + (T - T0) + 8 s
//! ```
//!
//! The announce that asked to be let in is the first nonce: a link whose roster holds its entry returns it.
//!
//! The leader sent T0 after we sent the nonce, so T - T0 of its time has passed since t0 at least: old heartbeats, however
//! slowly they are let through, never move the deadline past what the leader's own clock vouches for. Drift between
//! the clocks counts only since the last anchor, 30 s ago. Nor does a word count from later than its coming: our clock may
//! have stood still.

use std::{collections::VecDeque, time::Duration};

use super::claims::Nonce;
use crate::{
    BootTime,
    weakness::{self, Weakness},
};

/// How old the leader's word may be.
pub const LIMIT: Duration = Duration::from_secs(8);
/// Pulses of which the return still counts.
const MAX_SENT: usize = 64;

/// One participant's measure of the leader's age.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Freshness {
    sent: VecDeque<(Nonce, BootTime)>,
    anchor: Option<(BootTime, u64)>,
    deadline: Option<BootTime>,
    /// Whether the anchor is a pulse that has returned, and no wait at the door lies between its two times.
    is_close: bool,
    /// When the last heartbeat came that was newer than all before.
    pub heard: BootTime,
}

impl Freshness {
    /// Of somebody who has heard nothing yet.
    pub fn new(now: BootTime) -> Self {
        Self { sent: VecDeque::new(), anchor: None, deadline: None, is_close: false, heard: now }
    }

    /// A link of the leader at its `time` has taken us in by the announce that left first at `announced`.
    pub fn taken_in(&mut self, announced: BootTime, time: u64, now: BootTime) {
        self.heard = now;
        (self.anchor, self.is_close) = (Some((announced, time)), false);
        self.deadline = Some(announced + LIMIT);
    }

    /// A pulse leaves.
    pub fn sent(&mut self, nonce: Nonce, now: BootTime) {
        if self.sent.len() >= MAX_SENT {
            self.sent.pop_front();
        }
        self.sent.push_back((nonce, now));
    }

    /// A heartbeat of this leader, newer than all before, was accepted. Gives whether it returned one of our nonces.
    pub fn heard(&mut self, time: u64, echoes: &[Nonce], now: BootTime) -> bool {
        self.heard = now;
        let echoed = self.sent.iter().rposition(|(nonce, _)| echoes.contains(nonce));
        if let Some(position) = echoed {
            let (_, sent) = self.sent[position];
            // Older nonces would only give an earlier anchor.
            self.sent.drain(..=position);
            (self.anchor, self.is_close) = (Some((sent, time)), true);
        }
        if let Some((t0, leader_t0)) = &mut self.anchor {
            // No word comes before it was signed: where it seems so, our clock has stood still since t0, or runs behind.
            *leader_t0 = time.saturating_sub(now.since(*t0).as_millis() as u64).max(*leader_t0);
            self.deadline = Some(*t0 + Duration::from_millis(time.saturating_sub(*leader_t0)) + LIMIT);
            if weakness::is(Weakness::FreshByCounter) {
                self.deadline = Some(now + LIMIT);
            }
        }
        echoed.is_some()
    }

    /// Somebody else leads: its clock says nothing before it has returned a nonce. The old budget runs down, or is over
    /// where both may have led at once: then the old leader's time says nothing of how far the new one is.
    pub fn new_leader(&mut self, ends: bool, now: BootTime) {
        self.sent.clear();
        (self.anchor, self.is_close) = (None, false);
        self.heard = now;
        if ends {
            // A deadline of now would still let this moment seal.
            self.deadline = self.deadline.map(|deadline| deadline.min(BootTime(now.0.saturating_sub(1))));
        }
    }

    /// Whether the present leader has returned a nonce.
    pub fn anchored(&self) -> bool {
        self.anchor.is_some()
    }

    /// Since when the leader's clock is measured.
    #[cfg(feature = "simulator")]
    pub fn anchored_at(&self) -> Option<BootTime> {
        self.anchor.map(|(sent, _)| sent)
    }

    /// What others can fill here.
    #[cfg(feature = "simulator")]
    pub fn size(&self) -> super::inside::Size {
        ("pulses sent", self.sent.len(), MAX_SENT)
    }

    /// The leader's time now, ahead by what the last returned pulse waited for its heartbeat, and a way; none before one
    /// has returned.
    pub fn leader_time(&self, now: BootTime) -> Option<u64> {
        self.anchor
            .filter(|_| self.is_close)
            .map(|(t0, leader_t0)| leader_t0 + now.since(t0).as_millis() as u64)
    }

    /// Until when the leader's word counts; none before the first echo.
    pub fn deadline(&self) -> Option<BootTime> {
        self.deadline
    }

    /// Whether it counts now.
    pub fn is_fresh(&self, now: BootTime) -> bool {
        self.deadline.is_some_and(|deadline| now <= deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_echo_starts_the_budget_and_leader_time_extends_it() {
        let mut fresh = Freshness::new(BootTime(100));
        assert!(!fresh.heard(5_000, &[[9; 16]], BootTime(200)) && fresh.deadline().is_none());
        fresh.sent([1; 16], BootTime(1_000));
        assert!(fresh.heard(7_000, &[[1; 16]], BootTime(2_000)));
        assert_eq!(fresh.deadline(), Some(BootTime(9_000)));
        // Genuine, but let through late: the deadline moves by the leader's two seconds, not by ours.
        fresh.heard(9_000, &[], BootTime(8_900));
        assert_eq!(fresh.deadline(), Some(BootTime(11_000)));
        assert!(!fresh.heard(9_500, &[[1; 16]], BootTime(9_500)), "a nonce counts once");
    }

    #[test]
    fn the_link_that_takes_us_in_counts_from_the_announce() {
        let mut fresh = Freshness::new(BootTime(100));
        fresh.taken_in(BootTime(1_000), 50, BootTime(6_000));
        assert_eq!(fresh.deadline(), Some(BootTime(9_000)));
        assert!(!fresh.heard(2_050, &[], BootTime(6_500)));
        assert_eq!(fresh.deadline(), Some(BootTime(11_000)), "the leader's time goes on from there");
        assert_eq!(fresh.leader_time(BootTime(6_500)), None, "ahead by all the wait at the door");
        fresh.sent([1; 16], BootTime(6_500));
        fresh.heard(2_550, &[[1; 16]], BootTime(7_000));
        assert_eq!(fresh.leader_time(BootTime(7_000)), Some(3_050));
    }

    #[test]
    fn a_clock_that_stood_still_makes_no_word_count_longer() {
        let mut fresh = Freshness::new(BootTime(0));
        fresh.sent([1; 16], BootTime(1_000));
        fresh.heard(7_000, &[[1; 16]], BootTime(1_100));
        // A minute of the leader's goes by, and a second of ours: a machine was held.
        fresh.heard(67_000, &[], BootTime(2_000));
        assert_eq!(fresh.deadline(), Some(BootTime(10_000)), "8 s from its coming");
        assert_eq!(fresh.leader_time(BootTime(2_500)), Some(67_500));
        fresh.heard(68_000, &[], BootTime(9_000));
        assert_eq!(fresh.deadline(), Some(BootTime(11_000)), "and what comes late later is late");
    }

    #[test]
    fn a_new_leader_extends_nothing_before_its_echo() {
        let mut fresh = Freshness::new(BootTime(0));
        fresh.sent([1; 16], BootTime(0));
        fresh.heard(1_000_000_000, &[[1; 16]], BootTime(10));
        fresh.new_leader(false, BootTime(3_000));
        fresh.heard(5, &[[1; 16]], BootTime(3_000));
        assert_eq!(fresh.deadline(), Some(BootTime(8_000)));
        fresh.sent([2; 16], BootTime(4_000));
        fresh.heard(900, &[[2; 16]], BootTime(4_100));
        assert_eq!(fresh.deadline(), Some(BootTime(12_000)));
        fresh.new_leader(true, BootTime(5_000));
        assert!(!fresh.is_fresh(BootTime(5_000)));
    }
}

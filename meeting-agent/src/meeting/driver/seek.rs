//! How long a creator that starts looks for somebody who leads already, before it leads itself.

use std::time::Duration;

use meeting_protocol::BootTime;

/// How long a creator waits for a sign of a leader before it leads: two heartbeats and a bad path.
pub const FIND_LEADER: Duration = Duration::from_secs(5);
/// How long signs alone keep it from it: whoever has the link can make them, and a leader would have let it in.
const PATIENCE: Duration = Duration::from_secs(15);

/// A creator that looks.
#[derive(Clone, Copy, Debug)]
pub struct Seek {
    until: BootTime,
    latest: BootTime,
}

impl Seek {
    /// From now on.
    pub fn new(now: BootTime) -> Self {
        Self { until: now + FIND_LEADER, latest: now + PATIENCE }
    }

    /// Somebody says to lead. One that the link vouches for may take its time.
    pub fn heard(&mut self, vouched: bool, now: BootTime) {
        let until = now + FIND_LEADER;
        self.until = if vouched { until } else { until.min(self.latest) };
    }

    /// When the creator leads.
    pub fn until(&self) -> BootTime {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When a creator leads that hears a heartbeat each four seconds, from a leader that answers from some time on.
    fn leads(vouched: Option<u64>) -> Option<u64> {
        let mut seek = Seek::new(BootTime(0));
        for now in (0..120_000).step_by(4_000) {
            if seek.until() <= BootTime(now) {
                return Some(seek.until().0);
            }
            seek.heard(vouched.is_some_and(|at| at <= now), BootTime(now));
        }
        None
    }

    #[test]
    fn who_only_says_to_lead_keeps_no_creator_waiting() {
        assert_eq!(leads(None), Some(15_000));
        assert_eq!(leads(Some(0)), None, "who leads by the link's word is waited for");
        assert_eq!(leads(Some(12_000)), None);
        assert_eq!(
            Seek::new(BootTime(7)).until(),
            BootTime(5_007),
            "and nobody's silence longer than five seconds"
        );
    }
}

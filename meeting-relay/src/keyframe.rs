//! Merges keyframe requests of many subscribers into few for the publisher. Pure: time is an argument.

use std::time::Instant;

use crate::limits::KEYFRAME_EVERY;

/// The requests for one stream: at most one passes in [`KEYFRAME_EVERY`], and the last one always does.
#[derive(Debug, Default)]
pub struct KeyframeGate {
    passed: Option<Instant>,
    waiting: bool,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Tell the publisher now.
    Now,
    /// Call [`KeyframeGate::due`] then.
    At(Instant),
    /// One that is waiting already speaks for this one too.
    Merged,
}

impl KeyframeGate {
    /// Takes a request.
    #[must_use]
    pub fn ask(&mut self, now: Instant) -> Ask {
        if self.waiting {
            return Ask::Merged;
        }
        match self.passed.map(|passed| passed + KEYFRAME_EVERY) {
            Some(free) if free > now => {
                self.waiting = true;
                Ask::At(free)
            }
            _ => {
                self.passed = Some(now);
                Ask::Now
            }
        }
    }

    /// Whether a waiting request passes now.
    #[must_use]
    pub fn due(&mut self, now: Instant) -> bool {
        let passes = self.waiting && self.passed.is_none_or(|passed| passed + KEYFRAME_EVERY <= now);
        if passes {
            self.waiting = false;
            self.passed = Some(now);
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_becomes_two_requests() {
        let start = Instant::now();
        let mut gate = KeyframeGate::default();
        assert_eq!(gate.ask(start), Ask::Now);
        let soon = start + Duration::from_millis(10);
        let Ask::At(due) = gate.ask(soon) else { panic!("the second one waits") };
        assert_eq!(due, start + KEYFRAME_EVERY);
        assert!((0..100).all(|_| gate.ask(soon) == Ask::Merged));
        assert!(!gate.due(soon));
        assert!(gate.due(due));
        assert!(!gate.due(due), "only once");
        assert_eq!(gate.ask(due + KEYFRAME_EVERY), Ask::Now);
    }
}

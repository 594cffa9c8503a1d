//! Which failures are worth a message: at most one a second and five a minute of each reason and stream.

use std::{collections::HashMap, time::Duration};

use meeting_protocol::BootTime;
use meeting_wire::StreamId;

/// Why a buffer was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// There is no key of that id, or it did not come in time.
    NoKey,
    /// It is not what the holder of the key sealed.
    Forged,
    /// It was opened before, or is too old to tell.
    Replayed,
    /// It is not a sealed frame.
    Malformed,
    /// It belongs to another stream than the caps say.
    Mismatch,
    /// The membership could not be confirmed in time: nothing is opened.
    Stale,
}

impl Reason {
    /// All of them, in the order of [`Reason::index`].
    pub const ALL: [Reason; 6] =
        [Reason::NoKey, Reason::Forged, Reason::Replayed, Reason::Malformed, Reason::Mismatch, Reason::Stale];

    /// The word in messages and statistics.
    pub fn word(self) -> &'static str {
        match self {
            Reason::NoKey => "no-key",
            Reason::Forged => "forged",
            Reason::Replayed => "replayed",
            Reason::Malformed => "malformed",
            Reason::Mismatch => "mismatch",
            Reason::Stale => "stale",
        }
    }

    /// The place in a table of counts.
    pub fn index(self) -> usize {
        self as usize
    }
}

/// Remembers what was said lately.
#[derive(Default)]
pub struct Throttle(HashMap<(Reason, Option<StreamId>), Said>);

struct Said {
    last: BootTime,
    minute: BootTime,
    in_minute: u32,
}

impl Throttle {
    /// Whether a failure now is to be said.
    pub fn admits(&mut self, reason: Reason, stream: Option<StreamId>, now: BootTime) -> bool {
        if self.0.len() >= MAX_REMEMBERED {
            self.0.retain(|_, said| now.since(said.minute) < MINUTE);
            if self.0.len() >= MAX_REMEMBERED {
                return false;
            }
        }
        let Some(said) = self.0.get_mut(&(reason, stream)) else {
            self.0.insert((reason, stream), Said { last: now, minute: now, in_minute: 1 });
            return true;
        };
        if now.since(said.minute) >= MINUTE {
            said.minute = now;
            said.in_minute = 0;
        }
        let admitted = now.since(said.last) >= SECOND && said.in_minute < PER_MINUTE;
        if admitted {
            said.last = now;
            said.in_minute += 1;
        }
        admitted
    }
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const PER_MINUTE: u32 = 5;
/// A stranger who makes up stream numbers fills this and no more.
const MAX_REMEMBERED: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_five_a_minute() {
        let mut throttle = Throttle::default();
        let said = |throttle: &mut Throttle, from: u64, to: u64| {
            (from..to).step_by(10).filter(|ms| throttle.admits(Reason::Forged, None, BootTime(*ms))).count()
        };
        assert_eq!(said(&mut throttle, 0, 1000), 1);
        assert_eq!(said(&mut throttle, 1000, 60_000), 4);
        assert_eq!(said(&mut throttle, 60_000, 61_000), 1);
        assert!(throttle.admits(Reason::Replayed, None, BootTime(500)), "each reason for itself");
    }

    #[test]
    fn made_up_streams_do_not_fill_the_memory() {
        let mut throttle = Throttle::default();
        let said =
            (0..10_000).filter(|n| throttle.admits(Reason::NoKey, Some(StreamId(*n)), BootTime(0))).count();
        assert_eq!((said, throttle.0.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
    }
}

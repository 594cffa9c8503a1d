//! Which failures are worth a message: at most one a second and five a minute of each kind.

use std::{collections::HashMap, hash::Hash, time::Duration};

use meeting_protocol::BootTime;

/// Remembers what was said lately.
pub struct Throttle<K>(HashMap<K, Said>);

struct Said {
    last: BootTime,
    minute: BootTime,
    in_minute: u32,
}

impl<K> Default for Throttle<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Throttle<K> {
    /// Whether a failure now is to be said.
    pub fn admits(&mut self, kind: K, now: BootTime) -> bool {
        if self.0.len() >= MAX_REMEMBERED {
            self.0.retain(|_, said| now.since(said.minute) < MINUTE);
            if self.0.len() >= MAX_REMEMBERED {
                return false;
            }
        }
        let Some(said) = self.0.get_mut(&kind) else {
            self.0.insert(kind, Said { last: now, minute: now, in_minute: 1 });
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
        let said = |throttle: &mut Throttle<&str>, from: u64, to: u64| {
            (from..to).step_by(10).filter(|ms| throttle.admits("forged", BootTime(*ms))).count()
        };
        assert_eq!(said(&mut throttle, 0, 1000), 1);
        assert_eq!(said(&mut throttle, 1000, 60_000), 4);
        assert_eq!(said(&mut throttle, 60_000, 61_000), 1);
        assert!(throttle.admits("replayed", BootTime(500)), "each kind for itself");
    }

    #[test]
    fn made_up_streams_do_not_fill_the_memory() {
        let mut throttle = Throttle::default();
        let said = (0..10_000).filter(|n| throttle.admits(*n, BootTime(0))).count();
        assert_eq!((said, throttle.0.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
    }
}

//! How fast something may come: the relay ends a connection that is faster, and an agent keeps below that. Time is an argument.

use std::time::{Duration, Instant};

/// A sustained rate and how much may come at once.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Refilled each second.
    pub per_second: f64,
    /// The most that is saved up.
    pub burst: f64,
}

/// A token bucket over a [`Rate`].
#[derive(Debug)]
pub struct Bucket {
    rate: Rate,
    level: f64,
    at: Instant,
}

impl Bucket {
    /// Starts full.
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self::holding(rate.burst, rate, now)
    }

    /// Starts with so much of the burst.
    pub fn holding(level: f64, rate: Rate, now: Instant) -> Self {
        Self { rate, level, at: now }
    }

    /// Whether so much is there now.
    #[must_use]
    pub fn has(&mut self, amount: f64, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.rate.per_second;
        (self.level, self.at) = ((self.level + gained).min(self.rate.burst), now);
        self.level >= amount
    }

    /// How long until so much is there, of what was there when it was last asked.
    #[must_use]
    pub fn wait(&self, amount: f64) -> Duration {
        Duration::from_secs_f64(((amount - self.level) / self.rate.per_second).max(0.0))
    }

    /// Takes what [`Bucket::has`] found there.
    pub fn spend(&mut self, amount: f64) {
        self.level -= amount;
    }

    /// Takes `amount`; false means that the rate is passed.
    #[must_use]
    pub fn take(&mut self, amount: f64, now: Instant) -> bool {
        let there = self.has(amount, now);
        if there {
            self.spend(amount);
        }
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_refills() {
        let now = Instant::now();
        let mut bucket = Bucket::new(Rate { per_second: 2.0, burst: 3.0 }, now);
        assert!((0..3).all(|_| bucket.take(1.0, now)));
        assert!(!bucket.take(1.0, now));
        assert!(bucket.take(1.0, now + Duration::from_millis(500)));
        assert!(!bucket.take(1.0, now + Duration::from_millis(600)));
        let later = now + Duration::from_secs(60);
        assert!((0..3).all(|_| bucket.take(1.0, later)));
        assert!(!bucket.take(1.0, later), "no more than the burst is saved up");
    }

    #[test]
    fn what_is_saved_up_is_spent_and_comes_back_with_time() {
        let now = Instant::now();
        let mut bucket = Bucket::new(Rate { per_second: 1_000.0, burst: 4_096.0 }, now);
        let mut taken =
            |now| (0..).take_while(|_| bucket.has(1.0, now).then(|| bucket.spend(1.0)).is_some()).count();
        assert_eq!(taken(now), 4_096);
        assert_eq!(taken(now + Duration::from_secs(1)), 1_000);
        assert_eq!(taken(now + Duration::from_secs(60)), 4_096);
    }
}

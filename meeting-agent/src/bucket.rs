//! How much may go out: below what the relay takes of one connection, which it ends for more, with every stream of this
//! device. Time is an argument.

use std::time::{Duration, Instant};

use meeting_wire::{Flags, Kind, MAX_FRAME};

/// A sustained rate and how much may come at once.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Refilled each second.
    per_second: f64,
    /// The most that is saved up.
    burst: f64,
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
        Self { rate, level: rate.burst, at: now }
    }

    /// Whether so much is there now.
    pub fn has(&mut self, amount: f64, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.rate.per_second;
        (self.level, self.at) = ((self.level + gained).min(self.rate.burst), now);
        self.level >= amount
    }

    /// How long until so much is there, of what was there when it was last asked.
    pub fn wait(&self, amount: f64) -> Duration {
        Duration::from_secs_f64(((amount - self.level) / self.rate.per_second).max(0.0))
    }

    /// Takes what is there.
    pub fn take(&mut self, amount: f64) {
        self.level -= amount;
    }
}

/// What a frame counts for.
pub fn cost(kind: Kind, flags: Flags) -> f64 {
    match kind {
        Kind::Video if flags.has(Flags::KEYFRAME | Flags::HEADER) => GROUP,
        _ => 1.0,
    }
}

/// Frames of all streams: the relay takes 4,000 a second and 16,384 at once, beacons among them.
pub const FRAMES: Rate = Rate { per_second: 3_000.0, burst: 8_192.0 };
/// Frames of one stream, so that one that floods leaves the others theirs.
pub const FRAMES_OF_ONE: Rate = Rate { per_second: 1_000.0, burst: 4_096.0 };
/// Of groups the relay takes 1,000 a second and 2,048 at once.
const GROUP: f64 = 5.0;
/// Bytes of all streams, where the relay takes so many Mbit/s, and four seconds of it or two of the largest frames at once.
pub fn bytes(mbit: u32) -> Rate {
    let per_second = f64::from(mbit) * 125_000.0 * 0.9;
    Rate { per_second, burst: (2.0 * per_second).max(MAX_FRAME as f64) }
}

/// Bytes of one stream.
pub fn bytes_of_one(mbit: u32) -> Rate {
    let per_second = bytes(mbit).per_second / 2.0;
    Rate { per_second, burst: (2.0 * per_second).max(MAX_FRAME as f64) }
}

/// Streams opened, and caps changed, by the pipelines of all users. Each is a post on the log, and so is its end: of those
/// the relay takes 20 a second and 512 at once.
pub const WISHES: Rate = Rate { per_second: 8.0, burst: 192.0 };
/// The same of one user.
pub const WISHES_OF_ONE: Rate = Rate { per_second: 4.0, burst: 128.0 };
/// Subscriptions begun and ended: of all messages the relay takes 1,000 a second and 8,192 at once.
pub const SUBSCRIPTIONS: Rate = Rate { per_second: 500.0, burst: 4_096.0 };
/// Beacons of one sender that are looked at: about two a second are made.
pub const BEACONS_OF_ONE: Rate = Rate { per_second: 8.0, burst: 16.0 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_up_is_spent_and_comes_back_with_time() {
        let now = Instant::now();
        let mut bucket = Bucket::new(FRAMES_OF_ONE, now);
        let mut taken =
            |now| (0..).take_while(|_| bucket.has(1.0, now).then(|| bucket.take(1.0)).is_some()).count();
        assert_eq!(taken(now), 4_096);
        assert_eq!(taken(now + Duration::from_secs(1)), 1_000);
        assert_eq!(taken(now + Duration::from_secs(60)), 4_096);
    }

    #[test]
    fn a_keyframe_costs_a_group() {
        assert_eq!(cost(Kind::Video, Flags(Flags::KEYFRAME)), GROUP);
        assert_eq!(cost(Kind::Video, Flags(0)), 1.0);
        assert_eq!(cost(Kind::Audio, Flags(Flags::KEYFRAME)), 1.0);
    }
}

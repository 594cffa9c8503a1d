//! One participant's capture clock, mapped to our running time: sound and picture keep their distance.
//!
//! The fastest frame decides. A frame that came quicker than any before moves the whole timeline at once; a clock
//! that runs slower than ours shows as frames of which even the fastest are late, and the timeline follows gently.

/// From capture time in ns to running time in ns.
#[derive(Debug, Default)]
pub struct Timeline {
    offset: Option<i64>,
    window_start: i64,
    /// The least (running time on arrival - capture time) since then.
    window_least: i64,
}

impl Timeline {
    /// A frame captured at `capture` arrives now, at running time `now`.
    pub fn arrived(&mut self, capture: u64, now: u64) {
        // Both clocks are far below 2^62; what claims to be above is somebody's nonsense and stays harmless.
        let (capture, now) = (clamp(capture), clamp(now));
        let transit = now - capture;
        let Some(offset) = self.offset else {
            *self = Self { offset: Some(transit), window_start: now, window_least: transit };
            return;
        };
        self.window_least = self.window_least.min(transit);
        if transit < offset {
            self.offset = Some(transit);
        }
        if now - self.window_start >= WINDOW {
            let late = self.window_least - offset;
            if late > BREAK {
                self.offset = Some(self.window_least);
            } else if late > 0 {
                self.offset = Some(offset + (late / 8).max(late.min(FINEST)));
            }
            self.window_start = now;
            self.window_least = i64::MAX;
        }
    }

    /// The running time of a capture time.
    pub fn running_time(&self, capture: u64) -> u64 {
        let time = clamp(capture).saturating_add(self.offset.unwrap_or_default());
        u64::try_from(time).unwrap_or_default()
    }
}

fn clamp(time: u64) -> i64 {
    time.min(1 << 61) as i64
}

const SECOND: i64 = 1_000_000_000;
const WINDOW: i64 = 2 * SECOND;
/// A step this long is no skew: the sender was stopped and goes on.
const BREAK: i64 = SECOND;
const FINEST: i64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn sound_and_picture_of_one_moment_meet() {
        let mut timeline = Timeline::default();
        timeline.arrived(1_000 * MS, 50 * MS);
        timeline.arrived(1_000 * MS, 58 * MS);
        assert_eq!(timeline.running_time(1_000 * MS), 50 * MS);
        assert_eq!(timeline.running_time(1_020 * MS), 70 * MS);
    }

    #[test]
    fn a_burst_at_the_start_does_not_delay_what_follows() {
        let mut timeline = Timeline::default();
        for frame in 0..30 {
            timeline.arrived(frame * 33 * MS, 2_000 * MS);
        }
        assert_eq!(timeline.running_time(29 * 33 * MS), 2_000 * MS);
    }

    #[test]
    fn a_slow_clock_is_followed() {
        let mut timeline = Timeline::default();
        let mut worst = 0;
        for n in 0..60_000u64 {
            // 100 ms in a million: 20 minutes of sound whose clock loses 120 ms.
            let capture = n * 20 * MS;
            let now = capture + capture / 10_000 + (n % 7) * MS;
            timeline.arrived(capture, now);
            if n > 5_000 {
                worst = worst.max(now - timeline.running_time(capture));
            }
        }
        assert!(worst < 15 * MS, "{worst}");
    }

    #[test]
    fn a_sender_that_was_stopped_goes_on_from_now() {
        let mut timeline = Timeline::default();
        timeline.arrived(0, 0);
        for n in 0..200u64 {
            timeline.arrived(n * 20 * MS, n * 20 * MS + 5_000 * MS);
        }
        assert_eq!(timeline.running_time(4_000 * MS), 9_000 * MS);
    }

    #[test]
    fn nonsense_does_no_harm() {
        let mut timeline = Timeline::default();
        for capture in [u64::MAX, 0, 1 << 62, 5] {
            timeline.arrived(capture, 10 * MS);
            timeline.running_time(capture);
        }
    }
}

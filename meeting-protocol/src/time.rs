//! Time as an argument.

use std::{ops, time::Duration};

/// Milliseconds of `CLOCK_BOOTTIME`, which goes on while the machine sleeps; the start is arbitrary per machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootTime(pub u64);

impl BootTime {
    /// Time passed since `earlier`, zero if that is in the future.
    pub fn since(self, earlier: BootTime) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl ops::Add<Duration> for BootTime {
    type Output = BootTime;

    fn add(self, duration: Duration) -> BootTime {
        BootTime(self.0.saturating_add(duration.as_millis() as u64))
    }
}

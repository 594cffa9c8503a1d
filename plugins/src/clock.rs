//! The clocks that protocol and media use.

use meeting_protocol::BootTime;
use rustix::time::{ClockId, clock_gettime};

/// Now, for leases and deadlines: it goes on while the machine sleeps.
pub fn boot_now() -> BootTime {
    let now = clock_gettime(ClockId::Boottime);
    BootTime(now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000)
}

/// Now in ns on the clock that stamps captured frames: the one GStreamer's system clock shows, so that all
/// pipelines of a machine share it.
pub fn capture_now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

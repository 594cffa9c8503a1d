//! The two things the session may not take for itself: time and randomness.

use getrandom::SysRng;
use meeting_protocol::BootTime;
use rand_core::{TryRng, UnwrapErr};
use rustix::time::{ClockId, clock_gettime};

use crate::error::AgentError;

/// Now, on the clock that goes on while the machine sleeps.
pub fn now() -> BootTime {
    let time = clock_gettime(ClockId::Boottime);
    BootTime(time.tv_sec.unsigned_abs() * 1_000 + time.tv_nsec.unsigned_abs() / 1_000_000)
}

/// The system's randomness, once it has proved to be there.
///
/// Linux's source cannot fail after its first answer, so this asks once and hands out the infallible form; were
/// it to fail all the same, the task that asked ends and its meeting is reported as ended.
pub fn rng() -> Result<UnwrapErr<SysRng>, AgentError> {
    let mut probe = [0; 16];
    SysRng.try_fill_bytes(&mut probe).map_err(|error| AgentError::Randomness(error.to_string()))?;
    Ok(UnwrapErr(SysRng))
}

/// A number below `bound` for jitter, where nothing secret depends on it.
pub fn jitter(bound: u64) -> u64 {
    let mut bytes = [0; 8];
    match SysRng.try_fill_bytes(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes) % bound.max(1),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_runs_backwards() {
        let earlier = now();
        assert!(now() >= earlier && earlier.0 > 0);
    }

    #[test]
    fn jitter_stays_below_its_bound() {
        assert!((0..100).all(|_| jitter(7) < 7));
        assert_eq!(jitter(0), 0);
    }
}

//! A fork, for tests of what must not go on in one.

/// Whether `work` gives true in a fork of this process. It runs there with this thread alone.
pub fn in_a_fork(work: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child runs `work` and ends without unwinding or running what the parent registered for its end.
    match unsafe { libc::fork() } {
        -1 => panic!("no fork"),
        0 => {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // SAFETY: ends the child on the spot.
            unsafe { libc::_exit(if matches!(outcome, Ok(true)) { 0 } else { 1 }) }
        }
        child => {
            let mut status = 0;
            // SAFETY: waits for the child made above.
            let ended = unsafe { libc::waitpid(child, &mut status, 0) };
            ended == child && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
        }
    }
}

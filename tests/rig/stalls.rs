//! For how long the machine stood still.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Notes for how long threads that want to run do not get to, until it is dropped.
pub struct Stalls(Arc<Noted>);

#[derive(Default)]
struct Noted {
    over: AtomicBool,
    /// In ns.
    longest: AtomicU64,
    total: AtomicU64,
}

impl Stalls {
    /// Begins.
    pub fn watch() -> Self {
        let noted = Arc::<Noted>::default();
        let notes = Arc::clone(&noted);
        thread::spawn(move || {
            while !notes.over.load(Ordering::Relaxed) {
                let asleep = Instant::now();
                thread::sleep(NAP);
                let stall = asleep.elapsed().saturating_sub(NAP);
                notes.longest.fetch_max(stall.as_nanos() as u64, Ordering::Relaxed);
                if stall >= SHORT {
                    notes.total.fetch_add(stall.as_nanos() as u64, Ordering::Relaxed);
                }
            }
        });
        Self(noted)
    }

    /// The longest one so far.
    pub fn longest(&self) -> Duration {
        settle();
        Duration::from_nanos(self.0.longest.load(Ordering::Relaxed))
    }

    /// All so far that may cost something.
    pub fn total(&self) -> Duration {
        settle();
        Duration::from_nanos(self.0.total.load(Ordering::Relaxed))
    }

    /// Whether frames may have become too old, or too many at one time.
    pub fn may_cost_frames(&self) -> bool {
        self.longest() >= SHORT
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// What stood still a moment ago is noted with the nap that it made longer.
fn settle() {
    thread::sleep(2 * NAP);
}

const NAP: Duration = Duration::from_millis(10);
/// Shorter stalls add up to no lost frame.
const SHORT: Duration = Duration::from_millis(30);

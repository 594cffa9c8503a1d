//! Whether this is still the process that it was.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    process,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::pages::Pages;

/// A process, as a value that no fork of it shares.
///
/// What must not go on in two processes at once, such as a counter of nonces, takes a mark at its start and looks
/// whether it still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u64);

impl Mark {
    /// The mark of this process; a fork gives itself one of its own here.
    pub fn here() -> Self {
        let cell = cell();
        match cell.load(Ordering::Relaxed) {
            0 => {
                let new = unique();
                Self(cell.compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed).err().unwrap_or(new))
            }
            mark => Self(mark),
        }
    }

    /// Whether this process made the mark; not so in a fork.
    #[inline]
    pub fn holds(self) -> bool {
        cell().load(Ordering::Relaxed) == self.0
    }
}

#[inline]
fn cell() -> &'static AtomicU64 {
    static CELL: OnceLock<&'static AtomicU64> = OnceLock::new();
    CELL.get_or_init(|| match Pages::wiped_by_forks(size_of::<AtomicU64>()) {
        // SAFETY: the page is zeroed, aligned for a u64, never unmapped, and nobody else knows of it.
        Some(page) => unsafe { page.start.cast::<AtomicU64>().as_ref() },
        // A kernel before 4.14 cannot tell: marks then hold everywhere.
        None => Box::leak(Box::new(AtomicU64::new(0))),
    })
}

/// Not zero, and another number in each process: a fork has the random half of its parent and its own process id.
fn unique() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(process::id());
    hasher.finish() | 1
}

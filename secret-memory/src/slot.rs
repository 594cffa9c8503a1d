//! Pieces of protected pages.

use std::{
    ops::{Deref, DerefMut},
    ptr::NonNull,
    sync::{Mutex, PoisonError},
};

use zeroize::Zeroize;

use crate::{
    mark::Mark,
    pages::{self, Pages, Protection},
};

/// `N` bytes that stay where they are, are zeros at first and are wiped in the end. Over 64 of them cost pages of their own.
///
/// # Panics
///
/// Reading or writing one in a fork of the process that made it panics: the fork does not have the bytes.
pub struct Slot<const N: usize> {
    bytes: NonNull<[u8; N]>,
    mark: Mark,
}

// SAFETY: a slot is its bytes' only owner, and bytes may be used from any thread.
unsafe impl<const N: usize> Send for Slot<N> {}
// SAFETY: as above; through a shared slot its bytes are only read.
unsafe impl<const N: usize> Sync for Slot<N> {}

impl<const N: usize> Slot<N> {
    /// A slot of zeros.
    pub fn new() -> Self {
        with_pool(|pool| {
            let bytes = if N <= SLOT { pool.take() } else { pool.map(N).start };
            Self { bytes: bytes.cast(), mark: pool.mark }
        })
    }

    fn check(&self) {
        assert!(self.mark.holds(), "secrets do not outlive a fork: open what needs them in the new process");
    }
}

impl<const N: usize> Default for Slot<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Deref for Slot<N> {
    type Target = [u8; N];

    #[inline]
    fn deref(&self) -> &[u8; N] {
        self.check();
        // SAFETY: the slot is mapped in the process that made it, holds N bytes, and is ours until it is dropped.
        unsafe { self.bytes.as_ref() }
    }
}

impl<const N: usize> DerefMut for Slot<N> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8; N] {
        self.check();
        // SAFETY: as for reading, and nobody else has a reference while this one lives.
        unsafe { self.bytes.as_mut() }
    }
}

impl<const N: usize> Drop for Slot<N> {
    fn drop(&mut self) {
        if self.mark.holds() {
            self.zeroize();
            if N <= SLOT {
                with_pool(|pool| pool.free.push(self.bytes.cast()));
            } else {
                // SAFETY: nobody else has these pages, and nobody uses them after this.
                unsafe { pages::unmap(self.bytes.cast(), N) };
            }
        }
    }
}

/// How well slots are protected here: as the worst of those there are.
pub fn protection() -> Protection {
    drop(Slot::<1>::new());
    with_pool(|pool| pool.protection)
}

/// Slots that nobody has.
struct Pool {
    mark: Mark,
    free: Vec<NonNull<u8>>,
    protection: Protection,
}

// SAFETY: the free slots are the pool's alone.
unsafe impl Send for Pool {}

impl Pool {
    fn new() -> Self {
        Self { mark: Mark::here(), free: Vec::new(), protection: Protection::Secret }
    }

    fn take(&mut self) -> NonNull<u8> {
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        let pages = self.map(PAGES);
        // SAFETY: the offsets lie within the pages.
        self.free.extend((0..pages.len / SLOT).map(|n| unsafe { pages.start.add(n * SLOT) }));
        self.free.pop().expect("pages have room for a slot")
    }

    fn map(&mut self, len: usize) -> Pages {
        let pages = Pages::map(len).expect("the system gives no memory");
        self.protection = self.protection.max(pages.protection);
        pages
    }
}

fn with_pool<T>(work: impl FnOnce(&mut Pool) -> T) -> T {
    static POOL: Mutex<Option<Pool>> = Mutex::new(None);
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    // A fork begins with no slots: those of before are not mapped in it.
    let current = pool.take().filter(|pool| pool.mark.holds());
    work(pool.insert(current.unwrap_or_else(Pool::new)))
}

/// A cache line, and as long as nearly all secrets.
const SLOT: usize = 64;
/// Pages at a time: 256 slots, far below the 8 MiB that a process may usually lock.
const PAGES: usize = 16 * 1024;

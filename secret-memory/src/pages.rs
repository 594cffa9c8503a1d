//! Mapped pages.

use std::{ffi::c_int, ptr::NonNull};

/// Who can see the pages, from the fewest to the most. None of them is in a core or a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Protection {
    /// This process alone, whatever others may do.
    Secret,
    /// Who may trace this process; never the swap.
    Locked,
    /// Who may trace this process, and the swap: the limit of locked memory is reached.
    Unlocked,
}

/// Zeroed pages of our own.
pub(crate) struct Pages {
    pub start: NonNull<u8>,
    pub len: usize,
    pub protection: Protection,
}

impl Pages {
    /// The best pages that the system gives; none if it gives none at all.
    pub fn map(len: usize) -> Option<Self> {
        Self::secret(len).or_else(|| Self::private(len))
    }

    fn secret(len: usize) -> Option<Self> {
        // SAFETY: the call takes a flag and gives a descriptor, or -1 where the kernel has no such memory.
        let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) } as c_int;
        if fd < 0 {
            return None;
        }
        // SAFETY: the descriptor is ours; it is closed below and nowhere else.
        let sized = unsafe { libc::ftruncate(fd, libc::off_t::try_from(len).ok()?) } == 0;
        let start = if sized { map(len, libc::MAP_SHARED, fd) } else { None };
        // SAFETY: as above; the mapping keeps the memory.
        unsafe { libc::close(fd) };
        let pages = Self { start: start?, len, protection: Protection::Secret };
        // A shared mapping that a fork wiped would be wiped for us too.
        pages.advise(libc::MADV_DONTFORK).then_some(pages)
    }

    fn private(len: usize) -> Option<Self> {
        let start = map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
        // SAFETY: the range was mapped just now.
        let locked = unsafe { libc::mlock(start.as_ptr().cast(), len) } == 0;
        let protection = if locked { Protection::Locked } else { Protection::Unlocked };
        let pages = Self { start, len, protection };
        (pages.advise(libc::MADV_DONTDUMP) && pages.advise(libc::MADV_DONTFORK)).then_some(pages)
    }

    /// A page that is zeros again in each fork.
    pub fn wiped_by_forks(len: usize) -> Option<Self> {
        let start = map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
        let pages = Self { start, len, protection: Protection::Unlocked };
        pages.advise(libc::MADV_WIPEONFORK).then_some(pages)
    }

    fn advise(&self, advice: c_int) -> bool {
        // SAFETY: the range is a mapping of ours, and none of the advices used here takes its contents from us.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.len, advice) == 0 }
    }
}

/// Gives mapped pages back.
///
/// # Safety
///
/// They are the whole of a mapping, and nobody uses them any more.
pub(crate) unsafe fn unmap(start: NonNull<u8>, len: usize) {
    // SAFETY: as the caller promises.
    unsafe { libc::munmap(start.as_ptr().cast(), len) };
}

fn map(len: usize, flags: c_int, fd: c_int) -> Option<NonNull<u8>> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: no address is asked for, so that no mapping of others is replaced.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, fd, 0) };
    if start == libc::MAP_FAILED { None } else { NonNull::new(start.cast()) }
}

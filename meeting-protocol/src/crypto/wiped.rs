//! Libraries leave blocks of keys on the stack, which nobody else would overwrite soon.

use std::hint::black_box;

use zeroize::Zeroize;

/// Does work with a key and wipes the stack that it took.
pub(crate) fn on_a_wiped_stack<T>(work: impl FnOnce() -> T) -> T {
    // Frames of their own: the second lies where the first was.
    #[inline(never)]
    fn apart<T>(work: impl FnOnce() -> T) -> T {
        work()
    }
    #[inline(never)]
    fn wipe() {
        black_box(&mut [0_u64; STACK / 8]).zeroize();
    }
    let result = apart(work);
    wipe();
    result
}

/// More than HKDF, HMAC, a signature and the making of an AES key schedule take of it.
const STACK: usize = 16 * 1024;

//! The system's randomness.

use getrandom::{SysRng, rand_core::UnwrapErr};
use rand_core::Rng;

/// The system's generator; the process ends if the system has none.
pub fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// Random bytes.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rng().fill_bytes(&mut bytes);
    bytes
}

//! Seeds and keys: always the same for a fuzzer, new ones each time where a nonce ledger watches all runs.

use std::{
    hash::{DefaultHasher, Hasher},
    sync::atomic::{AtomicU64, Ordering},
};

/// A seed for a rig.
pub fn seed() -> u64 {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    0xf022 << 32 | if cfg!(fuzzing) { 0 } else { RUNS.fetch_add(1, Ordering::Relaxed) }
}

/// A base key.
pub fn key() -> [u8; 32] {
    key_of(&[])
}

/// A base key of this input alone: a fuzzer sees what a tag is compared with, and would put it into its next input.
pub fn key_of(input: &[u8]) -> [u8; 32] {
    let mut hasher = DefaultHasher::new();
    hasher.write(input);
    let mut key = [0xf0; 32];
    key[..8].copy_from_slice(&seed().to_be_bytes());
    key[8..16].copy_from_slice(&hasher.finish().to_be_bytes());
    key
}

//! Everything that is left to chance, from one seed; and the trace that shows two runs to be the same.

use std::collections::VecDeque;

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};
use sha2::{Digest, Sha256};

/// A source of chance.
pub(super) struct Dice(pub ChaCha20Rng);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha20Rng::seed_from_u64(seed))
    }

    /// Another source, drawn from this one.
    pub fn split(&mut self) -> ChaCha20Rng {
        ChaCha20Rng::seed_from_u64(self.0.next_u64())
    }

    /// From `from` up to, not including, `to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.0.next_u64() % (to - from).max(1)
    }

    /// Whether something of this likelihood in percent happens.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.0.next_u64() % 100 < percent
    }

    /// One of these.
    pub fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        let at = self.between(0, of.len() as u64) as usize;
        of.get(at).cloned()
    }

    pub fn bytes16(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}

/// What happened: the last lines to read, all of them as a hash.
pub(super) struct Trace {
    hash: Sha256,
    tail: VecDeque<String>,
}

impl Trace {
    pub fn new() -> Self {
        Self { hash: Sha256::new(), tail: VecDeque::new() }
    }

    /// Hashes of the protocol stay out: some depend on the order of a hash map, which no rule fixes.
    pub fn line(&mut self, now: u64, text: String) {
        let line = format!("{:>9.3} s  {text}", now as f64 / 1000.0);
        self.hash.update(line.as_bytes());
        if self.tail.len() >= TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    pub fn hash(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }

    pub fn tail(&self) -> String {
        self.tail.iter().map(|line| format!("{line}\n")).collect()
    }
}

const TAIL: usize = 60;

//! What one meeting counts: numbers only, never contents.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Frames of one meeting, both ways.
#[derive(Debug, Default)]
pub struct Counters {
    frames_out: AtomicU64,
    frames_in: AtomicU64,
    dropped: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counters {
    /// A frame of this device was handed to the relay connection.
    pub fn sent(&self) {
        self.frames_out.fetch_add(1, Ordering::Relaxed);
    }

    /// A frame came from the relay.
    pub fn received(&self) {
        self.frames_in.fetch_add(1, Ordering::Relaxed);
    }

    /// `n` frames went nowhere.
    pub fn dropped(&self, why: &'static str, n: usize) {
        if n > 0 {
            let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
            *dropped.entry(why).or_default() += n as u64;
        }
    }

    /// Sent, received, and dropped by reason.
    pub fn read(&self) -> (u64, u64, BTreeMap<String, u64>) {
        let dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        (
            self.frames_out.load(Ordering::Relaxed),
            self.frames_in.load(Ordering::Relaxed),
            dropped.iter().map(|(why, n)| ((*why).to_owned(), *n)).collect(),
        )
    }
}

/// Why frames are dropped, as `status` names it.
pub mod reason {
    /// No relay connection.
    pub const OFFLINE: &str = "offline";
    /// Older than what helps, or behind such a frame.
    pub const LATE: &str = "late";
    /// A queue was full.
    pub const FULL: &str = "queue-full";
    /// More in a second than the relay takes.
    pub const RATE: &str = "too-many";
    /// Cannot be decoded: something before it is missing.
    pub const NO_KEYFRAME: &str = "no-keyframe";
    /// For a stream that is not open, or another user's.
    pub const UNKNOWN: &str = "unknown-stream";
    /// Sealed under a key of another stream, or of another stay.
    pub const FOREIGN_KEY: &str = "foreign-key";
    /// Bytes that mean nothing.
    pub const DAMAGED: &str = "damaged";
}

//! One sealing stream: take the newest key, hold the rules against the clock, seal.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use meeting_protocol::{
    BootTime,
    frame::{Rules, SealError, Sealer},
};
use meeting_wire::Kind;

use crate::store::{KeyStore, SealStream, Stated};

/// One way from clear to sealed, from READY to PAUSED and back.
pub struct Lane {
    store: Arc<KeyStore>,
    kind: Kind,
    track: String,
    stated: Stated,
    stream: SealStream,
    sealer: Option<Sealer>,
    generation: u64,
    rules: Rules,
    waited: bool,
    dropped: bool,
    refused: Option<String>,
    /// What it did so far.
    pub counts: Counts,
}

/// What a lane did so far.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Frames sealed.
    pub sealed: u64,
    /// Their bytes before sealing.
    pub bytes: u64,
    /// Frames dropped because there was no key yet.
    pub no_key: u64,
    /// Frames dropped because key or membership was out of date.
    pub stale: u64,
    /// The epoch of the current key, 0 before the first.
    pub epoch: u64,
    /// The counter that the next frame gets.
    pub ctr: u64,
    /// The label in force, once the agent has chosen it; shared, because these counts are copied at each frame.
    pub track: Arc<str>,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// So many bytes of the output are the sealed frame.
    Frame {
        /// Length of the sealed frame.
        len: usize,
        /// Frames before it were dropped.
        discont: bool,
        /// The encoder should make a keyframe.
        keyframe: bool,
    },
    /// Dropped.
    Dropped {
        /// Why.
        why: Unsealed,
        /// The first after a frame that was sealed, or of all.
        first: bool,
    },
}

/// Why a frame was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsealed {
    /// There is no key yet.
    NoKey,
    /// The lease has ended, or the epoch is retired and the next key is not here.
    Stale,
    /// This process is a fork of the one that has the key.
    Forked,
}

impl Lane {
    /// Opens a stream for frames with these caps.
    pub fn open(store: Arc<KeyStore>, kind: Kind, track: &str, stated: Stated) -> Self {
        let stream = store.open_stream(kind, track, stated.clone());
        Self {
            store,
            kind,
            track: track.to_owned(),
            stated,
            stream,
            sealer: None,
            generation: 0,
            rules: Rules::default(),
            waited: false,
            dropped: false,
            refused: None,
            counts: Counts::default(),
        }
    }

    /// What the frames are.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The stream's caps have changed.
    pub fn set_caps(&mut self, stated: Stated) {
        self.stream.set_caps(stated.clone());
        self.stated = stated;
    }

    /// Why the agent gives no stream, once.
    pub fn take_refusal(&mut self) -> Option<String> {
        self.refused.take()
    }

    /// Lets the very first frame wait for the very first key: the agent answers within milliseconds.
    pub fn wait_once(&mut self, cancelled: impl Fn() -> bool) {
        if !std::mem::replace(&mut self.waited, true) {
            self.stream.wait(Instant::now() + FIRST_KEY, cancelled);
        }
    }

    /// Seals `frame` into `out`, which must have room for [`Sealer::OVERHEAD`] more.
    pub fn seal(&mut self, now: BootTime, frame: &[u8], out: &mut [u8]) -> Sealed {
        let keyframe = self.refresh();
        let Some(sealer) = self.sealer.as_mut() else { return self.drop_frame(Unsealed::NoKey) };
        if !self.rules.may_seal(self.counts.epoch, now) {
            return self.drop_frame(Unsealed::Stale);
        }
        match sealer.seal_into(frame, out) {
            Ok(len) => {
                self.counts.ctr = sealer.ctr();
                self.counts.sealed += 1;
                self.counts.bytes += frame.len() as u64;
                let discont = std::mem::take(&mut self.dropped);
                Sealed::Frame { len, discont, keyframe: keyframe || (discont && self.kind == Kind::Video) }
            }
            Err(SealError::Exhausted) => {
                // A spent stream never seals again; a new one has a number of its own and counts from 0.
                self.sealer = None;
                self.stream = self.store.open_stream(self.kind, &self.track, self.stated.clone());
                self.drop_frame(Unsealed::NoKey)
            }
            Err(SealError::Forked) => self.drop_frame(Unsealed::Forked),
            Err(_) => self.drop_frame(Unsealed::Stale),
        }
    }

    /// Takes over what has changed in the store. Gives whether the new key wants a keyframe.
    fn refresh(&mut self) -> bool {
        let generation = self.store.generation();
        if generation == self.generation {
            return false;
        }
        self.generation = generation;
        self.rules = self.store.rules();
        self.refused = self.stream.take_refusal();
        if self.stream.take_reset() {
            self.sealer = None;
        }
        if let Some(track) = self.stream.label() {
            self.counts.track = track.into();
        }
        let Some(new) = self.stream.take_key() else { return false };
        let same_stream =
            self.sealer.as_ref().is_some_and(|old| old.kid().stream() == new.key.kid().stream());
        match self.sealer.as_mut().filter(|_| same_stream) {
            Some(sealer) => {
                if sealer.switch(new.key).is_err() {
                    return false;
                }
            }
            None => self.sealer = Some(Sealer::new(new.key)),
        }
        self.counts.epoch = new.epoch;
        new.keyframe
    }

    fn drop_frame(&mut self, why: Unsealed) -> Sealed {
        match why {
            Unsealed::NoKey | Unsealed::Forked => self.counts.no_key += 1,
            Unsealed::Stale => self.counts.stale += 1,
        }
        Sealed::Dropped { why, first: !std::mem::replace(&mut self.dropped, true) }
    }
}

/// How long the first frame waits for its key: an agent answers far sooner, and a pipeline without one starts all the same.
const FIRST_KEY: Duration = Duration::from_millis(500);

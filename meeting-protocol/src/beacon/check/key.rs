//! The frames of a stream under one key: which went on, which wait, and what their sender has said of them.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use meeting_wire::Envelope;

use super::{FrameDigest, NOTICE, Span, ranges::Ranges};
use crate::{BootTime, frame::KeyId};

/// The frames under one key.
#[derive(Debug)]
pub(super) struct Key {
    pub kid: KeyId,
    /// None before the key itself has come.
    pub epoch: Option<u64>,
    /// Elements have it no longer.
    pub over: bool,
    pub known: BTreeMap<u64, Known>,
    pub held: BTreeMap<u64, Vec<(FrameDigest, Envelope, BootTime)>>,
    /// Beacons have spoken of all counters below.
    pub covered: Option<u64>,
    /// Counters below that, of which the beacons were lost.
    pub holes: VecDeque<(u64, u64)>,
    /// What is below is forgotten, holes too.
    past: u64,
    /// No counter from here on is used under this key.
    closed: Option<u64>,
    /// Went on, and that is all there was room to remember.
    pub gone: Ranges,
    /// When its newest frame came.
    pub used: BootTime,
}

/// Where a counter is of which nothing is known.
pub(super) enum Place {
    /// No beacon has spoken of so high a one yet.
    Next,
    /// A beacon was lost there.
    Hole,
    /// Before all that is remembered, or gone.
    Past,
    /// Beacons have passed it by: its sender has not used it.
    Never,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Known {
    /// Went on to the elements, and nobody has signed for it; whether that shows.
    Unsigned { digest: FrameDigest, at: BootTime, shows: bool },
    /// Signed for, whether it has come or not.
    Signed { digest: FrameDigest, seen: bool },
}

/// What a beacon says of the frames that came.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Word {
    /// A frame that went on is not its sender's.
    pub forged: bool,
    /// One that waited is not.
    pub refused: bool,
    /// Something went on, and what it was is forgotten.
    pub unknown: bool,
}

impl Key {
    pub fn new(kid: KeyId, now: BootTime) -> Self {
        Self {
            kid,
            epoch: None,
            over: false,
            known: BTreeMap::new(),
            held: BTreeMap::new(),
            covered: None,
            holes: VecDeque::new(),
            past: 0,
            closed: None,
            gone: Ranges::default(),
            used: now,
        }
    }

    /// Whether its sender has left the key before this counter.
    pub fn is_left(&self, ctr: u64) -> bool {
        self.closed.is_some_and(|end| ctr >= end)
    }

    /// Whether all that is remembered waits for a word.
    pub fn is_full(&self) -> bool {
        let undecided = |(first, _): (&u64, _)| self.covered.is_none_or(|covered| *first >= covered);
        self.known.len() >= MEMORY && self.known.first_key_value().is_some_and(undecided)
    }

    /// Whether nothing waits for a word.
    pub fn is_settled(&self) -> bool {
        !self.known.values().any(|known| matches!(known, Known::Unsigned { shows: false, .. }))
    }

    pub fn went_on(&mut self, ctr: u64, digest: FrameDigest, now: BootTime) {
        self.remember(ctr, Known::Unsigned { digest, at: now, shows: false });
    }

    fn remember(&mut self, ctr: u64, known: Known) {
        self.known.insert(ctr, known);
        while self.known.len() > MEMORY {
            match self.known.pop_first() {
                Some((ctr, _)) if self.covered.is_some_and(|covered| ctr < covered) => {
                    self.past = self.past.max(ctr.saturating_add(1));
                }
                Some((ctr, _)) => self.gone.insert(ctr),
                None => return,
            }
        }
    }

    pub fn place(&self, ctr: u64) -> Place {
        let in_hole = || self.holes.iter().any(|(from, to)| (*from..*to).contains(&ctr));
        let before = self.known.first_key_value().is_none_or(|(first, _)| ctr < *first);
        // What would be forgotten at once could go on again and again.
        let room = !before || self.known.len() < MEMORY;
        if ctr < self.past || self.gone.contains(ctr) {
            Place::Past
        } else if self.covered.is_none_or(|covered| ctr >= covered) {
            Place::Next
        } else if room && in_hole() {
            Place::Hole
        } else if before {
            Place::Past
        } else {
            Place::Never
        }
    }

    /// Keeps a frame until its beacon. When there is no room, the counters that are nearest stay: an honest frame's is.
    pub fn hold(&mut self, ctr: u64, digest: FrameDigest, envelope: Envelope, now: BootTime) {
        if let Some(held) = self.held.get_mut(&ctr) {
            if held.iter().any(|(held, ..)| *held == digest) {
                return;
            }
            if held.len() >= CANDIDATES {
                // What came long before its turn is the least likely.
                held.remove(0);
            }
        }
        let (mut frames, mut bytes) = (1, envelope.sealed.len());
        for (_, held, _) in self.held.values().flatten() {
            (frames, bytes) = (frames + 1, bytes + held.sealed.len());
        }
        while frames > HELD || bytes > HELD_BYTES {
            let Some(last) = self.held.last_entry().filter(|last| *last.key() > ctr) else { return };
            let gone = last.remove();
            frames -= gone.len();
            bytes -= gone.iter().map(|(_, held, _)| held.sealed.len()).sum::<usize>();
        }
        self.held.entry(ctr).or_default().push((digest, envelope, now));
    }

    /// Takes in what was signed for.
    pub fn signed(
        &mut self,
        span: &Span,
        now: BootTime,
        delay: Option<u64>,
        mut release: impl FnMut(Envelope),
    ) -> Word {
        let mut word = Word::default();
        // Before the first beacon that we hear there is a gap too, where frames have come from there.
        let first = || self.known.first_key_value().map(|(ctr, _)| *ctr);
        if let Some(gap) = self.covered.or_else(first).filter(|gap| *gap < span.first) {
            self.holes.push_back((gap, span.first));
            if self.holes.len() > HOLES {
                self.past = self.holes.pop_front().map_or(self.past, |(_, end)| end.max(self.past));
            }
        }
        for (ctr, digest) in (span.first..).zip(span.frames.iter().copied()) {
            let mut seen = match self.known.get(&ctr) {
                Some(Known::Unsigned { digest: gone, .. }) => {
                    word.forged |= *gone != digest;
                    *gone == digest
                }
                Some(Known::Signed { .. }) => continue,
                None => {
                    let gone = self.gone.contains(ctr);
                    word.unknown |= gone;
                    gone
                }
            };
            for (held, envelope, _) in self.held.remove(&ctr).unwrap_or_default() {
                if held == digest && !seen {
                    seen = true;
                    release(envelope);
                } else {
                    word.refused |= held != digest;
                }
            }
            self.remember(ctr, Known::Signed { digest, seen });
        }
        self.covered = Some(self.covered.unwrap_or(0).max(span.end()));
        if span.closed {
            self.closed = Some(span.end());
            self.held.retain(|ctr, _| *ctr < span.end());
        }
        // A beacon speaks of all that was sent before it: what came long ago and is not in it was never sent.
        let (end, closed) = (span.end(), span.closed);
        let due = OVERDUE + delay.map_or(NOTICE - OVERDUE, Duration::from_millis);
        let never_sent = |ctr: u64, known: &Known| match known {
            Known::Unsigned { at, .. } => ctr >= end && (closed || now.since(*at) > due),
            Known::Signed { .. } => false,
        };
        let before = self.known.len();
        self.known.retain(|ctr, known| !never_sent(*ctr, known));
        word.forged |= self.known.len() < before;
        word
    }

    /// Notes frames whose beacon should have come; gives whether there are any.
    pub fn overdue(&mut self, now: BootTime) -> bool {
        let mut any = false;
        for known in self.known.values_mut() {
            if let Known::Unsigned { at, shows, .. } = known
                && !*shows
                && now.since(*at) >= NOTICE - LOOK
            {
                (any, *shows) = (true, true);
            }
        }
        any
    }

    /// Takes out what has been held for too long.
    pub fn waited(&mut self, now: BootTime) -> Vec<(u64, FrameDigest, Envelope)> {
        let mut waited = Vec::new();
        self.held.retain(|ctr, candidates| {
            let old = candidates.first().is_some_and(|(_, _, at)| now.since(*at) >= NOTICE);
            if old {
                waited.extend(candidates.drain(..).map(|(digest, envelope, _)| (*ctr, digest, envelope)));
            }
            !old
        });
        waited
    }
}

/// How long after a frame came the beacon that speaks of it may leave, errors of both clocks included.
const OVERDUE: Duration = Duration::from_millis(1_250);
/// Between two looks at what is overdue, at most.
const LOOK: Duration = Duration::from_millis(350);
/// Counters remembered of each key: what is older is no longer opened (the replay window).
pub(super) const MEMORY: usize = crate::frame::WINDOW as usize * 2;
/// Lost beacons remembered.
pub(super) const HOLES: usize = 8;
/// Frames of a key that wait, and their bytes.
pub(super) const HELD: usize = 512;
pub(super) const HELD_BYTES: usize = 8 * 1024 * 1024;
/// Frames that wait under one counter.
const CANDIDATES: usize = 16;

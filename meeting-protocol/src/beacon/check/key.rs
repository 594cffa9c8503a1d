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
    /// Went on, and beacons that should have spoken of it did not.
    pub refused: BTreeMap<u64, FrameDigest>,
    /// When the first of those came for which nobody had signed in time yet.
    forgotten: Option<BootTime>,
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
    /// This one went on under it and was refused: no other goes on but by its sender's word.
    Taken(FrameDigest),
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

impl Known {
    /// When it came, where nobody has signed for it and that does not show.
    fn unsigned(&self) -> Option<BootTime> {
        match self {
            Self::Unsigned { at, shows: false, .. } => Some(*at),
            _ => None,
        }
    }
}

impl Word {
    pub fn or(self, other: Self) -> Self {
        Self {
            forged: self.forged || other.forged,
            refused: self.refused || other.refused,
            unknown: self.unknown || other.unknown,
        }
    }
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
            refused: BTreeMap::new(),
            forgotten: None,
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
        self.forgotten.is_none() && self.unsigned().next().is_none()
    }

    /// When those came that nobody has signed for and of which that does not show.
    pub fn unsigned(&self) -> impl Iterator<Item = BootTime> {
        self.known.values().filter_map(Known::unsigned)
    }

    pub fn went_on(&mut self, ctr: u64, digest: FrameDigest, now: BootTime) {
        self.remember(ctr, Known::Unsigned { digest, at: now, shows: false });
    }

    fn remember(&mut self, ctr: u64, known: Known) {
        self.known.insert(ctr, known);
        while self.known.len() > MEMORY {
            let Some((ctr, old)) = self.known.pop_first() else { return };
            self.forgotten = self.forgotten.into_iter().chain(old.unsigned()).min();
            if self.covered.is_some_and(|covered| ctr < covered) {
                self.past = self.past.max(ctr.saturating_add(1));
            } else {
                self.gone.insert(ctr);
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
        } else if let Some(refused) = self.refused.get(&ctr) {
            Place::Taken(*refused)
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

    /// Frames are asked for from here on: what was sent before is no part of it.
    pub fn begin(&mut self, span: &Span) {
        self.signed(span, |_| {});
        self.past = self.past.max(span.first);
    }

    /// Takes in what was signed for.
    pub fn signed(&mut self, span: &Span, mut release: impl FnMut(Envelope)) -> Word {
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
                // It may have come, and would come again.
                None if ctr < self.past => continue,
                None => match self.refused.remove(&ctr) {
                    // Its sender has sent it, whatever kept the word of that back.
                    Some(refused) => refused == digest,
                    None => {
                        let gone = self.gone.contains(ctr);
                        word.unknown |= gone;
                        gone
                    }
                },
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
            word.forged |= self.refuse(span.end(), |_| true);
        }
        word
    }

    /// Refuses what went on from this counter on, for nobody sent it; gives whether there was any. It does not go on again: a
    /// beacon that was held back refuses what is honest.
    pub fn refuse(&mut self, from: u64, is_due: impl Fn(BootTime) -> bool) -> bool {
        let never_sent = |known: &Known| match known {
            Known::Unsigned { at, .. } => is_due(*at),
            Known::Signed { .. } => false,
        };
        let mut any = false;
        // What beacons have spoken of is below, and is not looked at: empty spans cost next to nothing.
        for (ctr, known) in self.known.extract_if(from.., |_, known| never_sent(known)) {
            let (Known::Unsigned { digest, .. } | Known::Signed { digest, .. }) = known;
            self.refused.insert(ctr, digest);
            any = true;
        }
        while self.refused.len() > MEMORY
            && let Some((ctr, _)) = self.refused.pop_first()
        {
            self.gone.insert(ctr);
        }
        any
    }

    /// Whether something went on under this counter, or may have.
    pub fn has_used(&self, ctr: u64) -> bool {
        ctr < self.past
            || self.known.contains_key(&ctr)
            || self.gone.contains(ctr)
            || self.refused.contains_key(&ctr)
    }

    /// Notes frames whose beacon should have come after `due`; gives when the newest of them came.
    pub fn overdue(&mut self, due: Duration, now: BootTime) -> Option<BootTime> {
        let mut newest = None;
        for known in self.known.values_mut() {
            if let Known::Unsigned { at, shows, .. } = known
                && !*shows
                && now.since(*at) >= due
            {
                (newest, *shows) = (newest.max(Some(*at)), true);
            }
        }
        // Those that are forgotten may have come until now.
        let forgotten = self.forgotten.take_if(|first| now.since(*first) >= due).map(|_| now);
        newest.max(forgotten)
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

/// Counters remembered of each key: what is older is no longer opened (the replay window).
pub(super) const MEMORY: usize = crate::frame::WINDOW as usize * 2;
/// Lost beacons remembered.
pub(super) const HOLES: usize = 8;
/// Frames of a key that wait, and their bytes.
pub(super) const HELD: usize = 512;
pub(super) const HELD_BYTES: usize = 8 * 1024 * 1024;
/// Frames that wait under one counter.
const CANDIDATES: usize = 16;

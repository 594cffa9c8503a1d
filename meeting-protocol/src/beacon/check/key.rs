//! The frames of a stream under one key: which went on, which wait, and what their sender has said of them.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use meeting_wire::Envelope;

use super::{FrameDigest, NOTICE, Span};
use crate::{BootTime, frame::KeyId};

/// The frames under one key.
#[derive(Debug)]
pub(super) struct Key {
    pub kid: KeyId,
    pub known: BTreeMap<u64, Known>,
    pub held: BTreeMap<u64, Vec<(FrameDigest, Envelope, BootTime)>>,
    /// Beacons have spoken of all counters below.
    pub covered: Option<u64>,
    /// Counters below that, of which the beacons were lost.
    holes: VecDeque<(u64, u64)>,
    /// No counter from here on is used under this key.
    closed: Option<u64>,
    /// What is below went on to elements that are no more.
    floor: u64,
}

/// Where a counter is of which nothing is known.
pub(super) enum Place {
    /// No beacon has spoken of so high a one yet.
    Next,
    /// A beacon was lost there.
    Hole,
    /// Before all that is remembered.
    Past,
    /// Beacons have passed it by: its sender has not used it.
    Never,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Known {
    /// Went on to the elements, and its beacon is due.
    Passed(FrameDigest, BootTime),
    /// Went on, and no beacon came.
    Unvouched(FrameDigest),
    /// Signed for, whether it has come or not.
    Vouched { digest: FrameDigest, seen: bool },
}

impl Key {
    pub fn new(kid: KeyId) -> Self {
        Self {
            kid,
            known: BTreeMap::new(),
            held: BTreeMap::new(),
            covered: None,
            holes: VecDeque::new(),
            closed: None,
            floor: 0,
        }
    }

    /// What stays of it while nobody watches: which of its frames went on, as far as nobody has signed for them yet.
    pub fn at_rest(mut self) -> Self {
        let floor = self.floor.max(self.covered.unwrap_or(0));
        let mut known = self.known.split_off(&floor);
        for known in known.values_mut() {
            if let Known::Passed(digest, _) = *known {
                *known = Known::Unvouched(digest);
            }
        }
        Self { known, closed: self.closed, floor, ..Self::new(self.kid) }
    }

    /// Whether its sender has not used this counter: it left the key before, or is far from there.
    pub fn is_beyond(&self, ctr: u64, beacons: bool) -> bool {
        let ahead = self.covered.is_some_and(|covered| beacons && ctr >= covered.saturating_add(AHEAD));
        ahead || self.closed.is_some_and(|end| ctr >= end)
    }

    pub fn remember(&mut self, ctr: u64, known: Known) {
        self.known.insert(ctr, known);
        while self.known.len() > MEMORY {
            self.known.pop_first();
        }
    }

    pub fn place(&self, ctr: u64) -> Place {
        if ctr < self.floor {
            Place::Past
        } else if self.covered.is_none_or(|covered| ctr >= covered) {
            Place::Next
        } else if self.holes.iter().any(|(from, to)| (*from..*to).contains(&ctr)) {
            Place::Hole
        } else if self.known.first_key_value().is_none_or(|(first, _)| ctr < *first) {
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

    /// Takes in what was signed for; gives whether something came that was not.
    pub fn vouched(
        &mut self,
        span: &Span,
        now: BootTime,
        delay: Option<u64>,
        mut release: impl FnMut(Envelope),
    ) -> bool {
        let mut forged = false;
        for (ctr, digest) in (span.first..).zip(span.frames.iter().copied()) {
            let mut seen = match self.known.get(&ctr) {
                Some(Known::Passed(passed, _) | Known::Unvouched(passed)) => {
                    forged |= *passed != digest;
                    *passed == digest
                }
                Some(Known::Vouched { .. }) => continue,
                None => false,
            };
            for (held, envelope, _) in self.held.remove(&ctr).unwrap_or_default() {
                if held == digest && !seen {
                    seen = true;
                    release(envelope);
                } else {
                    forged |= held != digest;
                }
            }
            self.remember(ctr, Known::Vouched { digest, seen });
        }
        if let Some(covered) = self.covered.filter(|covered| *covered < span.first) {
            self.holes.push_back((covered, span.first));
            if self.holes.len() > HOLES {
                self.holes.pop_front();
            }
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
            Known::Passed(_, at) => ctr >= end && (closed || now.since(*at) > due),
            _ => false,
        };
        let before = self.known.len();
        self.known.retain(|ctr, known| !never_sent(*ctr, known));
        forged || self.known.len() < before
    }

    /// Notes frames whose beacon should have come; gives whether there are any.
    pub fn overdue(&mut self, now: BootTime) -> bool {
        let mut any = false;
        for known in self.known.values_mut() {
            if let Known::Passed(digest, at) = *known
                && now.since(at) >= NOTICE
            {
                any = true;
                *known = Known::Unvouched(digest);
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
/// Counters that a sender uses between two beacons, at most.
const AHEAD: u64 = 4_096;
/// Counters remembered of each key: what is older is no longer opened (the replay window).
pub(super) const MEMORY: usize = crate::frame::WINDOW as usize * 2;
/// Lost beacons remembered.
const HOLES: usize = 8;
/// Frames of a key that wait, and their bytes.
pub(super) const HELD: usize = 512;
const HELD_BYTES: usize = 8 * 1024 * 1024;
/// Frames that wait under one counter.
const CANDIDATES: usize = 16;

//! The receiver's side: which frames their sender has vouched for, and what to say of the others.

mod key;

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use meeting_wire::{Envelope, StreamId};

use key::{Key, Known, MEMORY, Place};

use super::{FrameDigest, Span, Vouch};
use crate::{
    BootTime,
    frame::{Header, KeyId},
    weakness::{self, Weakness},
};

/// What is known of who sent a stream's frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Nothing yet: no beacon has come.
    #[default]
    Waiting,
    /// Its sender has signed for all that is older than a moment.
    Vouched,
    /// Frames came that nobody has signed for within [`NOTICE`].
    Unverified,
    /// Somebody else spoke as its sender lately: its frames wait for the signature.
    Forged,
}

/// Something to tell about a stream, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which of the sender's streams.
    pub stream: StreamId,
    /// What.
    pub what: What,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// Frames are signed for, as they should be.
    Vouched,
    /// Nobody signs for its frames.
    Unverified,
    /// A frame came that its sender did not send so: forged by a member, or altered on its way. Elements that have opened
    /// it start anew with this stream's keys, because it may have taken an honest frame's counter.
    Forged,
    /// What comes is older than [`LATE`], in ms.
    Late(u64),
    /// More than half of what was sent did not come.
    Withheld,
}

/// Checks all streams of one sender that are watched here.
#[derive(Debug, Default)]
pub struct Checker {
    streams: HashMap<StreamId, Stream>,
    /// What streams leave behind that nobody watches at the moment.
    resting: HashMap<StreamId, VecDeque<Key>>,
    findings: Vec<Finding>,
}

#[derive(Debug, Default)]
struct Stream {
    keys: VecDeque<Key>,
    trust: Trust,
    last_beacon: Option<BootTime>,
    /// Frames wait for their beacon until then.
    guard: Option<BootTime>,
    guards: u32,
    late: bool,
    withheld: bool,
    share: Share,
    forged: u64,
}

/// How much of what was signed for has come, looked at [`NOTICE`] later.
#[derive(Debug, Default)]
struct Share {
    due: VecDeque<(BootTime, KeyId, u64, u64)>,
    started: bool,
    sent: u32,
    missing: u32,
}

impl Checker {
    /// Frames of this stream are asked for from now on.
    pub fn watch(&mut self, stream: StreamId) {
        let keys = self.resting.remove(&stream).unwrap_or_default();
        self.streams.entry(stream).or_insert_with(|| Stream { keys, ..Stream::default() });
    }

    /// They are not, for now. What went on does not go on again when they are: elements that crashed forgot it.
    pub fn rest(&mut self, stream: StreamId) {
        if let Some(watched) = self.streams.remove(&stream)
            && !weakness::is(Weakness::CrashForgets)
        {
            self.resting.insert(stream, watched.keys.into_iter().map(Key::at_rest).collect());
        }
    }

    /// They never are again: the stream has ended.
    pub fn forget(&mut self, stream: StreamId) {
        self.streams.remove(&stream);
        self.resting.remove(&stream);
    }

    /// What is known of a stream's frames, and how many of them were forged.
    pub fn trust(&self, stream: StreamId) -> (Trust, u64) {
        self.streams.get(&stream).map(|stream| (stream.trust, stream.forged)).unwrap_or_default()
    }

    /// One above the newest counter of this key that its sender has signed for; none before the first.
    pub fn signed_below(&self, kid: KeyId) -> Option<u64> {
        let stream = self.streams.get(&kid.stream())?;
        stream.keys.iter().find(|key| key.kid == kid)?.covered
    }

    /// What there is to tell since the last call.
    pub fn findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    /// A frame of `stream` came, with its [`FrameDigest`]. Gives it back if the elements may have it now.
    pub fn frame(
        &mut self,
        stream: StreamId,
        envelope: Envelope,
        digest: FrameDigest,
        now: BootTime,
    ) -> Option<Envelope> {
        let (header, _) = Header::parse(&envelope.sealed)?;
        let kid = KeyId::from(header.kid);
        let watched = self.streams.get_mut(&stream)?;
        if kid.stream() != stream {
            watched.forge(stream, now, &mut self.findings);
            return None;
        }
        let (beacons, guarded) = (watched.has_beacons(now), watched.guard.is_some());
        let key = watched.key(kid);
        let ctr = header.ctr;
        if key.is_beyond(ctr, beacons) {
            watched.forge(stream, now, &mut self.findings);
            return None;
        }
        match key.known.get_mut(&ctr) {
            Some(Known::Vouched { digest: vouched, seen }) if *vouched == digest => {
                return (!std::mem::replace(seen, true)).then_some(envelope);
            }
            Some(Known::Passed(passed, _) | Known::Unvouched(passed)) if *passed == digest => return None,
            Some(Known::Vouched { .. }) => watched.forge(stream, now, &mut self.findings),
            Some(_) => {
                // Two frames for one counter: one is forged, and the beacon will say which.
                key.hold(ctr, digest, envelope, now);
                watched.forge(stream, now, &mut self.findings);
            }
            None => match key.place(ctr) {
                Place::Past => {}
                Place::Never => watched.forge(stream, now, &mut self.findings),
                // What waits under its counter goes on first, or the beacon says which of them.
                Place::Next if guarded || key.held.contains_key(&ctr) => key.hold(ctr, digest, envelope, now),
                Place::Hole if guarded => {}
                // Of a hole too it has to show that nobody has signed for it.
                Place::Next | Place::Hole => {
                    key.remember(ctr, Known::Passed(digest, now));
                    return Some(envelope);
                }
            },
        }
        None
    }

    /// The sender has signed for what it sent. Gives the frames that have waited for that, in order.
    pub fn beacon(&mut self, vouch: &Vouch, now: BootTime) -> Vec<(StreamId, Envelope)> {
        let mut released = Vec::new();
        for span in &vouch.spans {
            let stream = span.kid.stream();
            let Some(watched) = self.streams.get_mut(&stream) else { continue };
            if watched.last_beacon.is_none() {
                // Those from before the beacons were asked for: nobody will ever sign for them again.
                watched.key(span.kid).known.retain(|ctr, _| *ctr >= span.first);
            }
            let forged = watched.key(span.kid).vouched(span, now, vouch.delay, |envelope| {
                released.push((stream, envelope));
            });
            watched.share.sent(span, now);
            watched.last_beacon = Some(now);
            if forged {
                watched.forge(stream, now, &mut self.findings);
            } else if watched.guard.is_none() {
                watched.become_trusted(Trust::Vouched, stream, &mut self.findings);
            }
            let late = vouch.delay.unwrap_or_default();
            if late > LATE.as_millis() as u64 && !std::mem::replace(&mut watched.late, true) {
                self.findings.push(Finding { stream, what: What::Late(late) });
            }
            watched.late &= late * 2 > LATE.as_millis() as u64;
        }
        released
    }

    /// Lets time pass: about four times a second. Gives frames that waited in vain where no beacons come at all.
    pub fn tick(&mut self, now: BootTime) -> Vec<(StreamId, Envelope)> {
        let mut released = Vec::new();
        for (id, stream) in &mut self.streams {
            let beacons = stream.has_beacons(now);
            let mut overdue = false;
            for key in &mut stream.keys {
                overdue |= key.overdue(now);
                let waited = key.waited(now);
                if beacons {
                    stream.forged += waited.len() as u64;
                } else {
                    overdue |= !waited.is_empty();
                    for (ctr, digest, envelope) in waited {
                        // Of each counter only what came first: elements start anew, and might open both again.
                        if key.known.contains_key(&ctr) {
                            continue;
                        }
                        key.remember(ctr, Known::Unvouched(digest));
                        released.push((*id, envelope));
                    }
                }
            }
            if stream.guard.is_some_and(|until| until <= now || !beacons) {
                stream.guard = None;
            }
            if overdue && stream.guard.is_none() {
                stream.become_trusted(Trust::Unverified, *id, &mut self.findings);
            }
            let withheld = stream.withheld(now);
            if withheld && !stream.withheld {
                self.findings.push(Finding { stream: *id, what: What::Withheld });
            }
            stream.withheld = withheld;
        }
        released
    }
}

impl Stream {
    fn key(&mut self, kid: KeyId) -> &mut Key {
        let at = self.keys.iter().position(|key| key.kid == kid).unwrap_or_else(|| {
            if self.keys.len() >= KEYS {
                self.keys.pop_front();
            }
            self.keys.push_back(Key::new(kid));
            self.keys.len() - 1
        });
        &mut self.keys[at]
    }

    fn has_beacons(&self, now: BootTime) -> bool {
        self.last_beacon.is_some_and(|last| now.since(last) < NOTICE)
    }

    fn forge(&mut self, id: StreamId, now: BootTime, findings: &mut Vec<Finding>) {
        self.forged += 1;
        if self.guard.is_none() {
            findings.push(Finding { stream: id, what: What::Forged });
            self.guards = (self.guards + 1).min(5);
        }
        self.trust = Trust::Forged;
        // Longer each time: who did it once may wait for the guard to end.
        self.guard = Some(now + GUARD * (1 << (self.guards - 1)));
    }

    fn become_trusted(&mut self, trust: Trust, id: StreamId, findings: &mut Vec<Finding>) {
        let before = std::mem::replace(&mut self.trust, trust);
        let what = match trust {
            _ if before == trust => return,
            Trust::Vouched => What::Vouched,
            _ => What::Unverified,
        };
        findings.push(Finding { stream: id, what });
    }

    fn withheld(&mut self, now: BootTime) -> bool {
        while let Some((_, kid, from, to)) =
            self.share.due.front().copied().filter(|due| now.since(due.0) >= NOTICE)
        {
            self.share.due.pop_front();
            let Some(key) = self.keys.iter().find(|key| key.kid == kid) else { continue };
            for known in key.known.range(from..to) {
                if let Known::Vouched { digest, seen } = known.1
                    && *digest != FrameDigest::NONE
                {
                    self.share.sent += 1;
                    self.share.missing += u32::from(!seen);
                }
            }
        }
        let Share { sent, missing, .. } = self.share;
        if sent < JUDGED {
            return self.withheld;
        }
        (self.share.sent, self.share.missing) = (0, 0);
        missing * 2 > sent
    }
}

impl Share {
    fn sent(&mut self, span: &Span, now: BootTime) {
        // The first beacon also speaks of frames from before we asked for any.
        if std::mem::replace(&mut self.started, true) && self.due.len() < MEMORY {
            self.due.push_back((now, span.kid, span.first, span.end()));
        }
    }
}

/// How long a frame may go without its sender's signature before a person is told.
pub const NOTICE: Duration = Duration::from_secs(2);
/// From when on media counts as late, by the leader's time.
pub const LATE: Duration = Duration::from_secs(3);
/// How long frames wait for their beacon after a forgery; doubled each time, up to 16 times as long.
const GUARD: Duration = Duration::from_secs(10);
/// Keys of one stream: the epoch, the one before, and one that is on its way.
const KEYS: usize = 3;
/// Frames after which the share that came is looked at.
const JUDGED: u32 = 60;

#[cfg(test)]
pub(super) mod tests;

//! The receiver's side: which frames their sender has vouched for, and what to say of the others.

mod key;
mod keys;
mod ranges;
#[cfg(feature = "simulator")]
mod sizes;

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use meeting_wire::{Envelope, StreamId};

use key::{Key, Known, MEMORY, Place};
use keys::Keys;

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
    /// While frames wait for their beacon, one is found forged that had gone on before. Elements start anew once more;
    /// a person has been told.
    ForgedBefore,
    /// What comes is older than [`LATE`], in ms.
    Late(u64),
    /// More than half of what was sent did not come.
    Withheld,
    /// Nothing comes of its sender, not even beacons.
    Silent,
}

/// Checks all streams of one sender.
#[derive(Debug, Default)]
pub struct Checker {
    streams: HashMap<StreamId, Stream>,
    last_beacon: Option<BootTime>,
    findings: Vec<Finding>,
}

#[derive(Debug, Default)]
struct Stream {
    /// Since when frames are asked for; none while they are not.
    watched: Option<BootTime>,
    keys: Keys,
    has_ended: bool,
    trust: Trust,
    /// Frames wait for their beacon until then.
    guard: Option<BootTime>,
    guards: u32,
    /// What nobody has signed for shows until then.
    doubt: Option<BootTime>,
    doubts: u32,
    late: bool,
    withheld: bool,
    silent: bool,
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
    /// A key to open a stream with is there, of this epoch.
    pub fn opened(&mut self, kid: KeyId, epoch: u64, now: BootTime) {
        let stream = self.streams.entry(kid.stream()).or_default();
        stream.has_ended = false;
        stream.keys.opened(kid, epoch, now);
    }

    /// Keys of epochs before this one are over.
    pub fn expire(&mut self, before: u64) {
        self.streams.values_mut().for_each(|stream| stream.keys.expire(before));
    }

    /// Frames of this stream are asked for from now on.
    pub fn watch(&mut self, stream: StreamId, now: BootTime) {
        let stream = self.streams.entry(stream).or_default();
        if stream.watched.is_none() {
            stream.watched = Some(now);
            stream.trust = if stream.guard.is_some() { Trust::Forged } else { Trust::Waiting };
            (stream.share, stream.late, stream.withheld) = (Share::default(), false, false);
        }
    }

    /// They are not, for now. What went on does not go on again when they are: elements that crashed forgot it. What has
    /// gone on is still to be signed for.
    pub fn rest(&mut self, stream: StreamId) {
        if weakness::is(Weakness::CrashForgets) {
            self.streams.remove(&stream);
        } else if let Some(stream) = self.streams.get_mut(&stream) {
            stream.watched = None;
            stream.keys.let_go_of_held();
        }
    }

    /// They never are again: the stream has ended.
    pub fn forget(&mut self, stream: StreamId) {
        if let Some(ended) = self.streams.get_mut(&stream) {
            ended.has_ended = true;
            self.rest(stream);
        }
    }

    /// Whether no frame that went on waits for its sender's word.
    pub fn is_settled(&self) -> bool {
        self.streams.values().all(Stream::is_settled)
    }

    /// What is known of a stream's frames, and how many of them were forged.
    pub fn trust(&self, stream: StreamId) -> (Trust, u64) {
        let Some(stream) = self.streams.get(&stream) else { return Default::default() };
        let idle = stream.watched.is_none() && stream.trust == Trust::Vouched;
        (if idle { Trust::Waiting } else { stream.trust }, stream.forged)
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
        let (kid, ctr) = (KeyId::from(header.kid), header.ctr);
        let beacons = self.has_beacons(now);
        let watched = self.streams.get_mut(&stream).filter(|stream| stream.watched.is_some())?;
        if kid.stream() != stream {
            watched.forge(stream, false, now, &mut self.findings);
            return None;
        }
        let guarded = watched.guard.is_some();
        // Counters go on from key to key.
        let signed = watched.keys.iter().filter_map(|key| key.covered).max();
        let key = watched.keys.of_frame(kid, now)?;
        let ahead = beacons && signed.is_some_and(|signed| ctr >= signed.saturating_add(AHEAD));
        if ahead || key.is_left(ctr) {
            watched.forge(stream, false, now, &mut self.findings);
            return None;
        }
        match key.known.get_mut(&ctr) {
            Some(Known::Signed { digest: signed, seen }) if *signed == digest => {
                return (!std::mem::replace(seen, true)).then_some(envelope);
            }
            Some(Known::Unsigned { digest: gone, .. }) if *gone == digest => return None,
            Some(Known::Signed { .. }) => watched.forge(stream, false, now, &mut self.findings),
            Some(_) => {
                // Two frames for one counter: one is forged, and the beacon will say which.
                key.hold(ctr, digest, envelope, now);
                watched.forge(stream, false, now, &mut self.findings);
            }
            None => match key.place(ctr) {
                Place::Past => {}
                Place::Never => watched.forge(stream, false, now, &mut self.findings),
                // What waits under its counter goes on first, or the beacon says which of them.
                Place::Next if guarded || key.held.contains_key(&ctr) => key.hold(ctr, digest, envelope, now),
                // Nobody sends so much between two beacons, and what went on must not be forgotten for it.
                Place::Next if beacons && key.is_full() => {
                    watched.forge(stream, false, now, &mut self.findings);
                }
                Place::Hole if guarded => {}
                // Of a hole too it has to show that nobody has signed for it.
                Place::Next | Place::Hole => {
                    key.went_on(ctr, digest, now);
                    return Some(envelope);
                }
            },
        }
        None
    }

    /// The sender has signed for what it sent. Gives the frames that have waited for that, in order.
    pub fn beacon(&mut self, vouch: &Vouch, now: BootTime) -> Vec<(StreamId, Envelope)> {
        let mut released = Vec::new();
        self.last_beacon = Some(now);
        for span in &vouch.spans {
            let stream = span.kid.stream();
            let checked = |checked: &&mut Stream| checked.watched.is_some() || !checked.is_settled();
            let Some(checked) = self.streams.get_mut(&stream).filter(checked) else { continue };
            let word = checked.keys.of_beacon(span.kid, now).signed(span, now, vouch.delay, |envelope| {
                released.push((stream, envelope));
            });
            checked.share.sent(span, now);
            if word.unknown {
                checked.doubt(stream, now, &mut self.findings);
            }
            if word.forged || word.refused {
                checked.forge(stream, word.forged, now, &mut self.findings);
            } else if checked.guard.is_none() && checked.doubt.is_none_or(|until| until <= now) {
                checked.doubt = None;
                checked.become_trusted(Trust::Vouched, stream, &mut self.findings);
            }
            let late = vouch.delay.unwrap_or_default();
            if late > LATE.as_millis() as u64 && !std::mem::replace(&mut checked.late, true) {
                self.findings.push(Finding { stream, what: What::Late(late) });
            }
            checked.late &= late * 2 > LATE.as_millis() as u64;
        }
        released
    }

    /// Lets time pass: about four times a second. Gives frames that waited in vain where no beacons come at all.
    pub fn tick(&mut self, now: BootTime) -> Vec<(StreamId, Envelope)> {
        let mut released = Vec::new();
        let (beacons, last_beacon) = (self.has_beacons(now), self.last_beacon);
        for (id, stream) in &mut self.streams {
            let mut overdue = false;
            stream.keys.let_go(now);
            for key in stream.keys.iter_mut() {
                // Elements have opened nothing without the key.
                overdue |= key.epoch.is_some() && key.overdue(now);
                let waited = key.waited(now);
                if beacons {
                    stream.forged += waited.len() as u64;
                } else {
                    overdue |= !waited.is_empty();
                    for (ctr, digest, envelope) in waited {
                        // Of each counter only what came first: elements start anew, and might open both again.
                        if !key.known.contains_key(&ctr) && !key.gone.contains(ctr) {
                            key.went_on(ctr, digest, now);
                            released.push((*id, envelope));
                        }
                    }
                }
            }
            if stream.guard.is_some_and(|until| until <= now || !beacons) {
                stream.guard = None;
            }
            if overdue && stream.guard.is_none() {
                stream.doubt(*id, now, &mut self.findings);
            }
            let withheld = stream.withheld(now);
            if withheld && !stream.withheld {
                self.findings.push(Finding { stream: *id, what: What::Withheld });
            }
            stream.withheld = withheld;
            let heard = stream.watched.map(|since| last_beacon.map_or(since, |last| last.max(since)));
            let silent = heard.is_some_and(|heard| now.since(heard) >= SILENCE);
            if silent && !stream.silent {
                self.findings.push(Finding { stream: *id, what: What::Silent });
            }
            stream.silent = silent;
        }
        self.streams.retain(|_, stream| !stream.has_ended || !stream.is_settled());
        released
    }

    fn has_beacons(&self, now: BootTime) -> bool {
        self.last_beacon.is_some_and(|last| now.since(last) < NOTICE)
    }
}

impl Stream {
    fn is_settled(&self) -> bool {
        self.keys.iter().all(Key::is_settled)
    }

    /// A frame is not its sender's; whether it had gone on.
    fn forge(&mut self, id: StreamId, had_gone_on: bool, now: BootTime, findings: &mut Vec<Finding>) {
        self.forged += 1;
        if self.guard.is_none() {
            findings.push(Finding { stream: id, what: What::Forged });
            self.guards = (self.guards + 1).min(5);
        } else if had_gone_on {
            findings.push(Finding { stream: id, what: What::ForgedBefore });
        }
        self.trust = Trust::Forged;
        // Longer each time: who did it once may wait for the guard to end.
        self.guard = Some(now + GUARD * (1 << (self.guards - 1)));
    }

    /// Nobody has signed for a frame that went on.
    fn doubt(&mut self, id: StreamId, now: BootTime, findings: &mut Vec<Finding>) {
        if self.trust != Trust::Unverified {
            self.doubts = (self.doubts + 1).min(5);
        }
        self.become_trusted(Trust::Unverified, id, findings);
        // Longer each time: a person is not told over and over.
        self.doubt = Some(now + NOTICE * (1 << (self.doubts.max(1) - 1)));
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
                if let Known::Signed { digest, seen } = known.1
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
/// Counters that a sender uses between two beacons, at most.
const AHEAD: u64 = 4_096;
/// After so long without any beacon nothing comes of a sender: one that has streams signs every two seconds at least.
const SILENCE: Duration = Duration::from_secs(5);
/// Frames after which the share that came is looked at.
const JUDGED: u32 = 60;

#[cfg(test)]
pub(super) mod tests;

//! The receiver's side: which frames their sender has vouched for, and what to say of the others.

mod key;
mod keys;
mod ranges;
#[cfg(feature = "simulator")]
mod sizes;
mod stream;

use std::{collections::HashMap, time::Duration};

use meeting_wire::{Envelope, StreamId};

use key::{Known, Place, Word};
pub use stream::LOOK;
use stream::{Share, Stream};

use super::{FrameDigest, Span, Vouch};
use crate::{
    BootTime,
    frame::{Header, KeyId},
    weakness::{self, Weakness},
};

/// What is known of who sent a stream's frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Nothing yet: no beacon has come, or none since the connection broke.
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
    /// Nobody has signed for its last frames, and nothing more came: its sender was gone, or a connection was. Accuses
    /// nobody, and is said once before its sender signs again.
    CutOff,
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
    /// What the newest beacon says of streams that nobody watches.
    unwatched: Vec<Span>,
    findings: Vec<Finding>,
}

impl Checker {
    /// A key to open a stream with is there, of this epoch.
    pub fn opened(&mut self, kid: KeyId, epoch: u64, now: BootTime) {
        let stream = self.streams.entry(kid.stream()).or_default();
        stream.has_ended = false;
        if stream.keys.opened(kid, epoch, now) && stream.guard.is_none() {
            stream.doubt(kid.stream(), now, &mut self.findings);
        }
    }

    /// Keys of epochs before this one are over.
    pub fn expire(&mut self, before: u64) {
        self.streams.values_mut().for_each(|stream| stream.keys.expire(before));
    }

    /// Frames of this stream are asked for from now on.
    pub fn watch(&mut self, id: StreamId, now: BootTime) {
        let stream = self.streams.entry(id).or_default();
        if stream.watched.is_none() {
            stream.watched = Some(now);
            stream.trust = if stream.guard.is_some() { Trust::Forged } else { Trust::Waiting };
            (stream.share, stream.late, stream.withheld) = (Share::default(), false, false);
            // A beacon overtakes the picture it speaks of.
            let spans = self.unwatched.extract_if(.., |span| span.kid.stream() == id);
            stream.named = false;
            for span in spans {
                stream.keys.of_beacon(span.kid, now).begin(&span);
                stream.named = true;
            }
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

    /// They cannot be, for now: the way they came by has broken, and their beacon may have been on it.
    pub fn cut(&mut self, stream: StreamId, now: BootTime) {
        if let Some(cut) = self.streams.get_mut(&stream) {
            cut.cut = Some(now);
            self.rest(stream);
        }
    }

    /// Those of no stream can be, for now.
    pub fn cut_all(&mut self, now: BootTime) {
        let streams: Vec<StreamId> = self.streams.keys().copied().collect();
        streams.into_iter().for_each(|stream| self.cut(stream, now));
    }

    /// They never are again: the stream has ended.
    pub fn forget(&mut self, stream: StreamId) {
        if let Some(ended) = self.streams.get_mut(&stream) {
            ended.has_ended = true;
            self.rest(stream);
        }
    }

    /// Whether there may be more to tell of a stream.
    pub fn knows(&self, stream: StreamId) -> bool {
        self.streams.contains_key(&stream)
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
        // What was signed for before a pause says nothing of how far its sender is.
        let beacons = beacons && watched.named;
        let signed = watched.keys.covered();
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
                Place::Taken(refused) if refused == digest => {}
                Place::Taken(_) => key.hold(ctr, digest, envelope, now),
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
        self.unwatched.clear();
        // It speaks of all that was sent before it: what came long ago and is not in it was never sent.
        let due = OVERDUE + vouch.delay.map_or(NOTICE - OVERDUE, Duration::from_millis);
        let due = vouch.speaks_of_all().then_some(due);
        let mut spans: Vec<&Span> = vouch.spans.iter().collect();
        spans.sort_by_key(|span| span.kid.stream());
        for spans in spans.chunk_by(|one, next| one.kid.stream() == next.kid.stream()) {
            let Some(id) = spans.first().map(|span| span.kid.stream()) else { continue };
            let stream = self.streams.get_mut(&id);
            if stream.as_ref().is_none_or(|stream| stream.watched.is_none()) {
                self.unwatched.extend(spans.iter().copied().cloned());
            }
            let is_checked = |stream: &&mut Stream| stream.watched.is_some() || !stream.is_settled();
            let Some(stream) = stream.filter(is_checked) else { continue };
            let word = stream.signed(spans, due, now, |envelope| released.push((id, envelope)));
            stream.hear(word, id, now, &mut self.findings);
            if spans.iter().any(|span| !span.frames.is_empty()) {
                stream.came_late(vouch.delay.unwrap_or_default(), id, &mut self.findings);
            }
        }
        // Where a sender has sent anything it names the stream.
        let unnamed = |id: &StreamId| spans.binary_search_by_key(id, |span| span.kid.stream()).is_err();
        for (id, stream) in self.streams.iter_mut().filter(|(id, stream)| stream.is_unused() && unnamed(id)) {
            if due.is_some_and(|due| stream.keys.refuse(due, now)) {
                stream.hear(Word { forged: true, ..Word::default() }, *id, now, &mut self.findings);
            }
        }
        released
    }

    /// Lets time pass: at least once in [`LOOK`]. Gives frames that waited in vain where no beacons come at all.
    pub fn tick(&mut self, now: BootTime) -> Vec<(StreamId, Envelope)> {
        let mut released = Vec::new();
        let (beacons, last_beacon) = (self.has_beacons(now), self.last_beacon);
        for (id, stream) in &mut self.streams {
            stream.keys.let_go(now);
            let mut overdue = stream.overdue(last_beacon, now);
            for key in stream.keys.iter_mut() {
                let waited = key.waited(now);
                if beacons {
                    stream.forged += waited.len() as u64;
                } else {
                    for (ctr, digest, envelope) in waited {
                        overdue = Some(What::Unverified);
                        // Of each counter only what came first: elements start anew, and might open both again.
                        if !key.has_used(ctr) {
                            key.went_on(ctr, digest, now);
                            released.push((*id, envelope));
                        }
                    }
                }
            }
            if stream.guard.is_some_and(|until| until <= now || !beacons) {
                stream.guard = None;
            }
            match overdue.filter(|_| stream.guard.is_none()) {
                Some(What::CutOff) => stream.cut_off(*id, now, &mut self.findings),
                Some(_) => stream.doubt(*id, now, &mut self.findings),
                None => {}
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

/// How long a frame may go without its sender's signature before a person is told.
pub const NOTICE: Duration = Duration::from_secs(2);
/// From when on media counts as late, by the leader's time.
pub const LATE: Duration = Duration::from_secs(3);
/// How long after a frame came the beacon that speaks of it may leave, errors of both clocks included.
const OVERDUE: Duration = Duration::from_millis(1_250);
/// Counters that a sender uses between two beacons, at most.
const AHEAD: u64 = 4_096;
/// After so long without any beacon nothing comes of a sender: one that has streams signs every 1.8 s at least.
const SILENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
pub(super) mod tests;

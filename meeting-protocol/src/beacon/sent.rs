//! The sender's side: digests of what went out, until the next beacon takes them.

use std::collections::{BTreeMap, BTreeSet};

use meeting_wire::{Envelope, StreamId};

use super::{FrameDigest, MAX_FRAMES, MAX_SPANS, SPAN, Span};
use crate::frame::{Header, KeyId};

/// What a device has sent and not vouched for yet.
#[derive(Debug, Default)]
pub struct Sent {
    spans: Vec<Span>,
    /// The key each stream is under, and the counter that follows.
    newest: BTreeMap<StreamId, (KeyId, u64)>,
    frames: usize,
}

impl Sent {
    /// A sealed frame is on its way, the frames of a stream in their order. What could not be sent is left out.
    pub fn frame(&mut self, envelope: &Envelope) {
        let Some((header, _)) = Header::parse(&envelope.sealed) else { return };
        let kid = KeyId::from(header.kid);
        let newest = self.newest.insert(kid.stream(), (kid, header.ctr.saturating_add(1)));
        if self.frames >= MAX_UNTAKEN {
            // Left out, and its key is not closed before it.
            return;
        }
        if let Some((old, end)) = newest.filter(|(old, _)| *old != kid) {
            self.span(old, end).closed = true;
        }
        let first = newest.filter(|(old, _)| *old == kid).map_or(header.ctr, |(_, end)| end);
        // a counter that went back would be vouched for twice, one far ahead would cost its own length
        let skipped = header.ctr.checked_sub(first).and_then(|skipped| usize::try_from(skipped).ok());
        let Some(skipped) = skipped.filter(|skipped| *skipped <= MAX_SKIPPED) else {
            self.frames += 1;
            return self.spans.push(Span {
                kid,
                first: header.ctr,
                frames: vec![FrameDigest::of(envelope)],
                closed: false,
            });
        };
        let span = self.span(kid, first);
        span.frames.extend(std::iter::repeat_n(FrameDigest::NONE, skipped));
        span.frames.push(FrameDigest::of(envelope));
        self.frames += skipped + 1;
    }

    /// A stream has ended for good.
    pub fn ended(&mut self, stream: StreamId) {
        if let Some((kid, end)) = self.newest.remove(&stream) {
            self.span(kid, end).closed = true;
        }
    }

    /// What the next beacon speaks of: all that was sent, and of each other stream that nothing was; none if nothing was
    /// sent at all.
    pub fn take(&mut self) -> Vec<Span> {
        let mut taken = 0;
        let fits = self.spans.iter().take(MAX_SPANS).take_while(|span| {
            taken += span.frames.len();
            taken <= MAX_FRAMES
        });
        let n = fits.count();
        let rest = self.spans.split_off(n);
        let mut spans = std::mem::replace(&mut self.spans, rest);
        self.frames -= spans.iter().map(|span| span.frames.len()).sum::<usize>().min(self.frames);
        if self.spans.is_empty() && !spans.is_empty() {
            let named: BTreeSet<StreamId> = spans.iter().map(|span| span.kid.stream()).collect();
            spans.extend(self.idle().into_iter().filter(|idle| !named.contains(&idle.kid.stream())));
            spans.truncate(MAX_SPANS);
        }
        spans
    }

    /// What a beacon speaks of where nothing was sent: how far each stream is. A frame beyond that is not its sender's.
    pub fn idle(&self) -> Vec<Span> {
        let streams = self.newest.values().take(MAX_SPANS);
        streams.map(|(kid, end)| Span { kid: *kid, first: *end, frames: Vec::new(), closed: false }).collect()
    }

    /// The span to continue, or a new one that starts with counter `first`.
    fn span(&mut self, kid: KeyId, first: u64) -> &mut Span {
        let continues = |span: &Span| {
            span.kid == kid && span.end() == first && !span.closed && span.frames.len() + MAX_SKIPPED < SPAN
        };
        let at = self.spans.iter().rposition(continues).unwrap_or_else(|| {
            self.spans.push(Span { kid, first, frames: Vec::new(), closed: false });
            self.spans.len() - 1
        });
        &mut self.spans[at]
    }
}

/// Counters in a row that were not sent, at most, before a new span begins.
const MAX_SKIPPED: usize = 64;
/// Frames that wait for a beacon; more are left out and show as unverified.
const MAX_UNTAKEN: usize = 4 * MAX_FRAMES;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beacon::check::tests::frame;

    fn kid(stream: u32, epoch: u64) -> KeyId {
        KeyId::new(StreamId(stream), 7, epoch)
    }

    #[test]
    fn spans_follow_streams_and_keys() {
        let mut sent = Sent::default();
        for (stream, epoch, ctr) in [(1, 1, 5), (2, 1, 0), (1, 1, 6), (1, 1, 9), (1, 2, 10), (2, 1, 1)] {
            sent.frame(&frame(kid(stream, epoch), ctr, b"x"));
        }
        let spans = sent.take();
        let shape: Vec<_> = spans.iter().map(|s| (s.kid, s.first, s.end(), s.closed)).collect();
        assert_eq!(
            shape,
            [(kid(1, 1), 5, 10, true), (kid(2, 1), 0, 2, false), (kid(1, 2), 10, 11, false)],
            "the old key is closed behind its last frame"
        );
        assert_eq!(spans[0].frames[2..4], [FrameDigest::NONE; 2], "7 and 8 were never sent");
        assert!(sent.take().is_empty());
        sent.frame(&frame(kid(1, 2), 11, b"x"));
        sent.ended(StreamId(1));
        let spans = sent.take();
        assert!((spans[0].first, spans[0].end(), spans[0].closed) == (11, 12, true), "{spans:?}");
    }

    #[test]
    fn a_stream_that_rests_is_named_until_it_ends() {
        let mut sent = Sent::default();
        assert!(sent.take().is_empty() && sent.idle().is_empty());
        for stream in [1, 2, 3] {
            sent.frame(&frame(kid(stream, 1), 5, b"x"));
        }
        sent.ended(StreamId(3));
        sent.take();
        sent.frame(&frame(kid(1, 1), 6, b"x"));
        let at_rest = Span { kid: kid(2, 1), first: 6, frames: Vec::new(), closed: false };
        assert_eq!(sent.take()[1..], *std::slice::from_ref(&at_rest));
        assert!(sent.take().is_empty(), "nothing was sent");
        assert_eq!(sent.idle()[1..], [at_rest]);
    }

    #[test]
    fn a_key_that_ends_between_two_beacons_is_closed_by_the_next() {
        let mut sent = Sent::default();
        sent.frame(&frame(kid(1, 1), 0, b"x"));
        sent.take();
        sent.frame(&frame(kid(1, 2), 1, b"x"));
        let spans = sent.take();
        assert_eq!((spans[0].kid, spans[0].first, spans[0].end(), spans[0].closed), (kid(1, 1), 1, 1, true));
    }

    #[test]
    fn counters_that_jump_and_keys_that_alternate_pile_nothing_up() {
        for (step, keys) in [(1_000, 1), (1, 2), (0, 1)] {
            let mut sent = Sent::default();
            for n in 0..50_000 {
                sent.frame(&frame(kid(1, 1 + n % keys), n * step, b"x"));
            }
            assert!(sent.spans.len() <= 2 * MAX_UNTAKEN, "{} spans wait", sent.spans.len());
            assert!(sent.frames <= MAX_UNTAKEN + MAX_SKIPPED);
        }
    }

    #[test]
    fn a_key_is_not_closed_before_frames_that_were_left_out() {
        let mut sent = Sent::default();
        for ctr in 0..MAX_UNTAKEN as u64 + 10 {
            sent.frame(&frame(kid(1, 1), ctr, b"x"));
        }
        sent.frame(&frame(kid(1, 2), MAX_UNTAKEN as u64 + 10, b"x"));
        while sent.frames > 0 {
            assert!(sent.take().iter().all(|span| !span.closed));
        }
        sent.frame(&frame(kid(1, 2), MAX_UNTAKEN as u64 + 11, b"x"));
        let spans = sent.take();
        assert!(spans.iter().all(|span| span.kid == kid(1, 2) && !span.closed), "{spans:?}");
    }

    #[test]
    fn no_beacon_and_no_backlog_is_too_long() {
        let mut sent = Sent::default();
        for ctr in 0..30_000 {
            sent.frame(&frame(kid(1, 1), ctr, b"x"));
        }
        assert!(sent.frames <= MAX_UNTAKEN);
        let mut beacons = 0;
        loop {
            let spans = sent.take();
            if spans.is_empty() {
                break;
            }
            assert!(spans.iter().map(|span| span.frames.len()).sum::<usize>() <= MAX_FRAMES);
            beacons += 1;
            assert!(beacons < 100);
        }
    }
}

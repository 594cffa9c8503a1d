//! Reading a recording record by record, without what it does not need: of a frame only what is clear.

use meeting_wire::{DecodeError, Envelope};

use super::format::{FRAME, FRAME_HEAD, FrameHead, INDEX, RECORD_HEAD, Record, RecordHead, Source};

/// Bytes that can be read anywhere.
pub trait Bytes {
    /// Why not.
    type Error;

    /// The bytes at `at`: fewer than `len` at the end, none after it.
    fn read(&self, at: u64, len: usize) -> Result<Vec<u8>, Self::Error>;
}

impl Bytes for &[u8] {
    type Error = std::convert::Infallible;

    fn read(&self, at: u64, len: usize) -> Result<Vec<u8>, Self::Error> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        Ok(rest[..len.min(rest.len())].to_vec())
    }
}

/// Why reading ended before the recording did.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop<E> {
    /// It was cut within the record here.
    Cut(u64),
    /// What stands here is no record.
    Damaged(u64, DecodeError),
    /// It cannot be read.
    Unread(E),
}

impl<E> Stop<E> {
    /// One sentence for a person; none if there is nothing to say about the recording.
    pub fn sentence(&self) -> Option<String> {
        match self {
            Stop::Cut(at) => Some(format!("the recording is cut at byte {at}: it plays up to there")),
            Stop::Damaged(0, _) => Some("this is no sealed recording of this release".into()),
            Stop::Damaged(at, error) => {
                Some(format!("the recording is damaged at byte {at} ({error}): it plays up to there"))
            }
            Stop::Unread(_) => None,
        }
    }
}

/// What a record is, as far as it was read.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A track begins.
    Track(Source),
    /// A frame, which [`Walk::envelope`] gives.
    Frame(FrameHead),
    /// A track is over.
    End(u32),
    /// Nothing to play.
    Other,
}

/// A way through a recording.
pub struct Walk<B> {
    bytes: B,
    at: u64,
    /// The body of the record that was stepped over last.
    body: (u64, usize),
    block_at: u64,
    block: Vec<u8>,
}

impl<B: Bytes> Walk<B> {
    /// Begins at a record.
    pub fn new(bytes: B, at: u64) -> Self {
        Self { bytes, at, body: (at, 0), block_at: 0, block: Vec::new() }
    }

    /// Goes to another record.
    pub fn go_to(&mut self, at: u64) {
        self.at = at;
    }

    /// The record that comes next.
    pub fn offset(&self) -> u64 {
        self.at
    }

    /// The next record and where it stands; none at the end.
    pub fn step(&mut self) -> Result<Option<(u64, Step)>, Stop<B::Error>> {
        let at = self.at;
        let head = self.peek(at, RECORD_HEAD)?;
        if head.is_empty() {
            return Ok(None);
        }
        let head: &[u8; RECORD_HEAD] = head.try_into().map_err(|_| Stop::Cut(at))?;
        let damaged = |error| Stop::Damaged(at, error);
        let RecordHead { kind, len } = RecordHead::parse(head).map_err(damaged)?;
        let body_at = at + RECORD_HEAD as u64;
        let needed = match kind {
            FRAME => len.min(FRAME_HEAD),
            INDEX => 0,
            _ => len,
        };
        let body = self.peek(body_at, needed)?;
        if body.len() < needed {
            return Err(Stop::Cut(at));
        }
        let step = match kind {
            FRAME => Step::Frame(FrameHead::parse(body).map_err(damaged)?),
            INDEX => Step::Other,
            _ => match Record::parse(kind, body).map_err(damaged)? {
                Record::Track(source) => Step::Track(source),
                Record::End(track) => Step::End(track),
                _ => Step::Other,
            },
        };
        // A frame whose end is missing is no frame: its last byte has to be there.
        let end = body_at + len as u64;
        if len > needed && self.peek(end - 1, 1)?.is_empty() {
            return Err(Stop::Cut(at));
        }
        self.body = (body_at, len);
        self.at = end;
        Ok(Some((at, step)))
    }

    /// The frame that was stepped over last.
    pub fn envelope(&self) -> Result<Envelope, Stop<B::Error>> {
        let (at, len) = self.body;
        let body = self.bytes.read(at, len).map_err(Stop::Unread)?;
        if body.len() < len {
            return Err(Stop::Cut(at));
        }
        match Record::parse(FRAME, &body) {
            Ok(Record::Frame { envelope, .. }) => Ok(envelope),
            Ok(_) => Err(Stop::Damaged(at, DecodeError::Invalid("a frame"))),
            Err(error) => Err(Stop::Damaged(at, error)),
        }
    }

    /// Bytes at `at`, from the block that is here or the next one.
    fn peek(&mut self, at: u64, len: usize) -> Result<&[u8], Stop<B::Error>> {
        let inside = |block_at: u64, block: &[u8]| {
            at.checked_sub(block_at)
                .and_then(|start| usize::try_from(start).ok())
                .filter(|start| start.saturating_add(len) <= block.len())
        };
        let start = match inside(self.block_at, &self.block) {
            Some(start) => start,
            None => {
                self.block = self.bytes.read(at, BLOCK.max(len)).map_err(Stop::Unread)?;
                self.block_at = at;
                0
            }
        };
        Ok(&self.block[start..self.block.len().min(start + len)])
    }
}

/// Small records lie close together; a picture is stepped over.
const BLOCK: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use bytes::Bytes as Shared;
    use meeting_wire::{Flags, Kind, ParticipantId, StreamId};
    use proptest::prelude::*;

    use super::{super::format::MAGIC, *};

    fn recording() -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let source = Source { from: ParticipantId([1; 16]), stream: StreamId(3), kind: Kind::Video };
        bytes.extend(Record::Track(source).to_bytes());
        for n in 0..9_u64 {
            let sealed = [&[0x38, n as u8 + 8][..], &vec![n as u8; n as usize * 2_000]].concat();
            let envelope = Envelope {
                pts: Some(n * 100),
                dts: None,
                duration: None,
                flags: Flags(0),
                layer: 0,
                sealed: Shared::from(sealed),
            };
            bytes.extend(Record::Frame { track: 0, envelope }.to_bytes());
        }
        bytes.extend(Record::End(0).to_bytes());
        bytes
    }

    fn frames(bytes: &[u8]) -> (Vec<u64>, Option<Stop<std::convert::Infallible>>) {
        let mut walk = Walk::new(bytes, MAGIC.len() as u64);
        let mut frames = Vec::new();
        loop {
            match walk.step() {
                Ok(Some((_, Step::Frame(_)))) => {
                    frames.push(walk.envelope().expect("whole").pts.unwrap_or(u64::MAX))
                }
                Ok(Some(_)) => {}
                Ok(None) => return (frames, None),
                Err(stop) => return (frames, Some(stop)),
            }
        }
    }

    #[test]
    fn every_frame_is_walked_past_in_its_order() {
        assert_eq!(frames(&recording()), ((0..9).map(|n| n * 100).collect(), None));
    }

    #[test]
    fn a_cut_anywhere_leaves_what_came_before() {
        let whole = recording();
        let mut most = 0;
        for cut in MAGIC.len()..whole.len() {
            let (frames, stop) = frames(&whole[..cut]);
            assert!(frames.iter().copied().eq((0..frames.len() as u64).map(|n| n * 100)), "{cut}");
            assert!(frames.len() >= most && !matches!(stop, Some(Stop::Damaged(..))), "{cut}");
            most = frames.len();
        }
        assert_eq!(most, 9);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0_u8..7) {
            let bytes = [&MAGIC[..], &[0, 0, 0, 60, kind], &bytes].concat();
            let _ = frames(&bytes);
        }

        #[test]
        fn a_flipped_bit_never_panics(bit in 0_usize..8 * 60_000) {
            let mut bytes = recording();
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut walk = Walk::new(bytes.as_slice(), MAGIC.len() as u64);
            for _ in 0..20 {
                if walk.step().is_err() {
                    break;
                }
                let _ = walk.envelope();
            }
        }
    }
}

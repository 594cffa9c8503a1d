//! Where to begin reading for a time: each track's keyframes, at most one in a second.

use meeting_protocol::frame::KeyId;
use meeting_wire::{Decode, DecodeError, Encode, Kind, ParticipantId, Reader, StreamId, Writer};

use super::{
    format::{Epochs, FrameHead, INDEX, MAGIC, MAX_TRACKS, RECORD_HEAD, Record, RecordHead, Source, record},
    walk::{Bytes, Step, Stop, Walk},
};

/// Where the frames of a recording are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// By number.
    pub tracks: Vec<Track>,
    /// When the last frame is over.
    pub until: u64,
    entries: usize,
    spacing: u64,
}

/// An index, and what stopped its making before the end of the recording.
#[derive(Debug)]
pub struct Indexed<E> {
    /// The index.
    pub index: Index,
    /// What is wrong with the recording, as far as that shows.
    pub stop: Option<Stop<E>>,
}

/// One track's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    /// Whose it is.
    pub source: Source,
    /// Its first frame, once there is one.
    pub first: Option<First>,
    /// Keyframes, in the order of the file.
    pub entries: Vec<Entry>,
}

/// A track's first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    /// Where its record is.
    pub offset: u64,
    /// When it shows.
    pub time: u64,
    /// The key it names: epochs are counted from here.
    pub kid: KeyId,
}

/// A keyframe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where its record is.
    pub offset: u64,
    /// When it shows.
    pub time: u64,
    /// How many epochs after the first frame's.
    pub epochs: u32,
}

/// Takes in a recording as it is written or read.
#[derive(Debug, Default)]
pub struct Indexer {
    /// What is known so far.
    pub index: Index,
    epochs: Vec<Epochs>,
}

impl Indexer {
    /// A track begins; gives its number, or nothing if there are too many.
    pub fn track(&mut self, source: Source) -> Option<u32> {
        let number = self.index.tracks.len();
        if number >= MAX_TRACKS {
            return None;
        }
        self.index.tracks.push(Track { source, first: None, entries: Vec::new() });
        self.epochs.push(Epochs::default());
        Some(number as u32)
    }

    /// A frame stands at `offset`.
    pub fn frame(&mut self, offset: u64, frame: &FrameHead) {
        let number = frame.track as usize;
        let (Some(track), Some(epochs)) = (self.index.tracks.get_mut(number), self.epochs.get_mut(number))
        else {
            return;
        };
        epochs.frame(frame.kid);
        let Some(time) = frame.time else { return };
        self.index.until = self.index.until.max(frame.until.unwrap_or(time));
        track.first.get_or_insert(First { offset, time, kid: frame.kid });
        let spacing = self.index.spacing.max(SPACING);
        if frame.keyframe && track.entries.last().is_none_or(|last| time >= last.time.saturating_add(spacing))
        {
            let since = epochs.since.clamp(0, u32::MAX.into()) as u32;
            track.entries.push(Entry { offset, time, epochs: since });
            self.index.entries += 1;
            if self.index.entries > MAX_ENTRIES {
                self.index.thin(spacing.saturating_mul(2));
            }
        }
    }
}

impl Index {
    /// When the first frame of all shows: the recording begins here.
    pub fn origin(&self) -> u64 {
        self.tracks.iter().filter_map(|track| track.first).map(|first| first.time).min().unwrap_or(0)
    }

    /// How long it is, in ns.
    pub fn duration(&self) -> u64 {
        self.until.saturating_sub(self.origin())
    }

    /// The index of a recording of `len` bytes: as it stands at its end, else made by reading.
    pub fn of<B: Bytes + Clone>(bytes: B, len: u64) -> Result<Indexed<B::Error>, Stop<B::Error>> {
        let magic = bytes.read(0, MAGIC.len()).map_err(Stop::Unread)?;
        if magic != MAGIC {
            return Err(Stop::Damaged(0, DecodeError::Invalid("the beginning of a recording")));
        }
        if let Some(index) = Self::at_the_end(&bytes, len) {
            return Ok(Indexed { index, stop: None });
        }
        let mut indexer = Indexer::default();
        let mut walk = Walk::new(bytes, MAGIC.len() as u64);
        let stop = loop {
            match walk.step() {
                Ok(Some((_, Step::Track(source)))) if indexer.track(source).is_none() => {
                    break Some(Stop::Damaged(walk.offset(), DecodeError::TooLong("the list of tracks")));
                }
                Ok(Some((offset, Step::Frame(frame)))) => indexer.frame(offset, &frame),
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(stop @ Stop::Unread(_)) => return Err(stop),
                Err(stop) => break Some(stop),
            }
        };
        Ok(Indexed { index: indexer.index, stop })
    }

    fn at_the_end<B: Bytes>(bytes: &B, len: u64) -> Option<Self> {
        let last = Record::IndexAt(0).to_bytes().len();
        let end = len.checked_sub(last as u64)?;
        let tail = bytes.read(end, last).ok()?;
        let (head, body) = tail.split_first_chunk::<RECORD_HEAD>()?;
        let head = RecordHead::parse(head).ok()?;
        let Ok(Record::IndexAt(offset)) = Record::parse(head.kind, body) else { return None };
        let head = bytes.read(offset, RECORD_HEAD).ok()?;
        let head = RecordHead::parse(head.as_slice().try_into().ok()?).ok()?;
        let body_at = offset.checked_add(RECORD_HEAD as u64)?;
        if head.kind != INDEX || body_at.checked_add(head.len as u64) != Some(end) {
            return None;
        }
        Self::from_bytes(&bytes.read(body_at, head.len).ok()?).ok().filter(|index| index.fits(offset))
    }

    /// Whether everything it names stands before `end`.
    fn fits(&self, end: u64) -> bool {
        let inside = |track: &Track| {
            track.first.is_none_or(|first| first.offset < end)
                && track.entries.iter().all(|entry| entry.offset < end)
        };
        self.tracks.iter().all(inside)
    }

    /// The record that holds it.
    pub fn to_record(&self) -> Vec<u8> {
        record(INDEX, &self.to_bytes())
    }

    fn thin(&mut self, spacing: u64) {
        self.spacing = spacing;
        self.entries = 0;
        for track in &mut self.tracks {
            let mut last: Option<u64> = None;
            track.entries.retain(|entry| {
                let keep = last.is_none_or(|last| entry.time >= last.saturating_add(spacing));
                if keep {
                    last = Some(entry.time);
                }
                keep
            });
            self.entries += track.entries.len();
        }
    }
}

impl Encode for Index {
    fn encode(&self, out: &mut Writer) {
        out.u64(self.until);
        out.list(&self.tracks);
    }
}

impl Decode for Index {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let until = time(reader)?;
        let tracks: Vec<Track> = reader.list(MAX_TRACKS, "the list of tracks")?;
        let entries = tracks.iter().map(|track| track.entries.len()).sum();
        Ok(Self { tracks, until, entries, spacing: 0 })
    }
}

impl Encode for Track {
    fn encode(&self, out: &mut Writer) {
        self.source.from.encode(out);
        self.source.stream.encode(out);
        self.source.kind.encode(out);
        out.option(self.first.as_ref());
        out.list(&self.entries);
    }
}

impl Decode for Track {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let source = Source {
            from: ParticipantId::decode(reader)?,
            stream: StreamId::decode(reader)?,
            kind: Kind::decode(reader)?,
        };
        Ok(Self { source, first: reader.option()?, entries: reader.list(MAX_ENTRIES + 1, "an index")? })
    }
}

impl Encode for First {
    fn encode(&self, out: &mut Writer) {
        out.u64(self.offset);
        out.u64(self.time);
        out.u64(self.kid.into());
    }
}

impl Decode for First {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { offset: reader.u64()?, time: time(reader)?, kid: KeyId::from(reader.u64()?) })
    }
}

impl Encode for Entry {
    fn encode(&self, out: &mut Writer) {
        out.u64(self.offset);
        out.u64(self.time);
        out.u32(self.epochs);
    }
}

impl Decode for Entry {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { offset: reader.u64()?, time: time(reader)?, epochs: reader.u32()? })
    }
}

/// Times of frames are below 2^62, and no frame lasts longer.
fn time(reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let time = reader.u64()?;
    if time >> 63 == 0 { Ok(time) } else { Err(DecodeError::Invalid("a time")) }
}

/// Keyframes closer than that are found by reading on.
const SPACING: u64 = 1_000_000_000;
/// More entries than that are thinned out: a recorder's memory stays bounded.
const MAX_ENTRIES: usize = 1024 * 1024;
/// The longest index in bytes.
pub const MAX_BYTES: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(track: u32, time: u64, keyframe: bool, epoch: u64) -> FrameHead {
        let kid = KeyId::new(StreamId(3), 4, epoch);
        FrameHead { track, time: Some(time), until: Some(time + 5), keyframe, version: 0, kid }
    }

    fn indexer(seconds: u64) -> Indexer {
        let mut indexer = Indexer::default();
        let source = Source { from: ParticipantId([1; 16]), stream: StreamId(3), kind: Kind::Video };
        assert_eq!(indexer.track(source), Some(0));
        for n in 0..seconds * 4 {
            indexer.frame(n * 100, &frame(0, n * SPACING / 4 + 7, n % 2 == 0, 5 + n));
        }
        indexer
    }

    #[test]
    fn one_keyframe_in_a_second_and_epochs_past_their_byte() {
        let index = indexer(100).index;
        let track = &index.tracks[0];
        assert_eq!(track.entries.len(), 100);
        assert_eq!(track.entries[99], Entry { offset: 396 * 100, time: 99 * SPACING + 7, epochs: 396 });
        assert_eq!((index.origin(), index.duration()), (7, 399 * SPACING / 4 + 5));
        assert_eq!(Index::from_bytes(&index.to_bytes()).map(|read| read.tracks), Ok(index.tracks));
    }

    #[test]
    fn thinning_keeps_the_first_and_the_order() {
        let mut index = indexer(100).index;
        index.thin(10 * SPACING);
        let times: Vec<u64> = index.tracks[0].entries.iter().map(|entry| entry.time / SPACING).collect();
        assert_eq!(times, (0..10).map(|n| n * 10).collect::<Vec<_>>());
        assert_eq!(index.entries, 10);
    }

    #[test]
    fn an_index_that_points_behind_itself_is_made_anew() {
        let mut index = indexer(3).index;
        assert!(index.fits(1_200) && !index.fits(300));
        index.tracks[0].entries[1].offset = u64::MAX;
        let at = MAGIC.len() as u64;
        let bytes = [&MAGIC[..], &index.to_record(), &Record::IndexAt(at).to_bytes()].concat();
        let read = Index::of(bytes.as_slice(), bytes.len() as u64).expect("a recording");
        assert_eq!(read.index, Index::default());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), begin in 0_usize..3) {
            let mut all = [&b""[..], &MAGIC, b"\0\0\0\x16\0"][begin].to_vec();
            if begin == 2 {
                all = [&MAGIC[..], &all, &[1; 16], &[0, 0, 0, 3, 1]].concat();
            }
            all.extend(&bytes);
            let _ = Index::of(all.as_slice(), all.len() as u64);
            let _ = Index::from_bytes(&bytes);
        }
    }
}

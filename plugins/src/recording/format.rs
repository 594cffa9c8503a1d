//! The bytes of a sealed recording: what the relay saw, in the order in which it came (PROTOCOL.md 9).
//!
//! ```text
//!  magic | version
//!  length | kind | body        track, frame, end: as long as the recording runs
//!  length | index              where to begin for a time; made anew by reading where a crash left none
//!  length | index at | offset  the last bytes of a file that was finished
//! ```
//!
//! No name, label or caps stand here: a frame's flags have the number of its caps, as the relay sees it.

use meeting_protocol::frame::{Header, KeyId};
use meeting_wire::{
    Decode, DecodeError, Encode, Envelope, Flags, Kind, MAX_FRAME, ParticipantId, Reader, StreamId, Writer,
};

/// The first bytes of a recording.
pub const MAGIC: [u8; 5] = *b"e2er\x01";

/// Bytes before a record's body: a length, which counts the kind, and the kind.
pub const RECORD_HEAD: usize = 5;

/// So many bytes of a frame record's body tell all that is clear in it.
pub const FRAME_HEAD: usize = 4 + 3 + 3 * 8 + Header::MAX_LEN;

/// Tracks of one recording: everybody of a large meeting comes several times.
pub const MAX_TRACKS: usize = 16 * 1024;

/// One record; frames are told apart from their bytes by [`FrameHead`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A track begins; its number is how many began before it.
    Track(Source),
    /// A frame, as it came.
    Frame {
        /// Its track.
        track: u32,
        /// The frame.
        envelope: Envelope,
    },
    /// No frame of this track follows.
    End(u32),
    /// The index, read by itself.
    Index,
    /// Where the index is.
    IndexAt(u64),
    /// A kind of a later version.
    Other,
}

/// Whose stream a track is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Who seals it.
    pub from: ParticipantId,
    /// Its number.
    pub stream: StreamId,
    /// Picture, sound or data.
    pub kind: Kind,
}

/// What kind of record, and how long its body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead {
    /// One of the constants below.
    pub kind: u8,
    /// Bytes of the body.
    pub len: usize,
}

impl RecordHead {
    /// Reads it; a length that no record of this kind has is refused before anything is allocated.
    pub fn parse(bytes: &[u8; RECORD_HEAD]) -> Result<Self, DecodeError> {
        let [a, b, c, d, kind] = *bytes;
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        let len = len.checked_sub(1).ok_or(DecodeError::Invalid("the length of a record"))?;
        let most = match kind {
            FRAME => MAX_FRAME + FRAME_HEAD,
            INDEX => super::index::MAX_BYTES,
            _ => 1024,
        };
        if len > most {
            return Err(DecodeError::TooLong("a record"));
        }
        Ok(Self { kind, len })
    }
}

impl Record {
    /// The record with its length.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        match self {
            Record::Track(source) => {
                source.from.encode(&mut out);
                source.stream.encode(&mut out);
                source.kind.encode(&mut out);
                record(TRACK, &out.into_bytes())
            }
            Record::End(track) => {
                out.u32(*track);
                record(END, &out.into_bytes())
            }
            Record::Frame { track, envelope } => {
                let mut bytes = frame_head(*track, envelope);
                bytes.extend_from_slice(&envelope.sealed);
                bytes
            }
            Record::IndexAt(offset) => {
                out.u64(*offset);
                record(INDEX_AT, &out.into_bytes())
            }
            Record::Index | Record::Other => Vec::new(),
        }
    }

    /// Reads the body of a record.
    pub fn parse(kind: u8, body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let record = match kind {
            TRACK => Record::Track(Source {
                from: ParticipantId::decode(&mut reader)?,
                stream: StreamId::decode(&mut reader)?,
                kind: Kind::decode(&mut reader)?,
            }),
            FRAME => Record::Frame { track: reader.u32()?, envelope: Envelope::decode(&mut reader)? },
            END => Record::End(reader.u32()?),
            INDEX => return Ok(Record::Index),
            INDEX_AT => Record::IndexAt(reader.u64()?),
            _ => return Ok(Record::Other),
        };
        reader.finish()?;
        Ok(record)
    }
}

/// All of a frame record but the sealed bytes, which follow.
pub fn frame_head(track: u32, envelope: &Envelope) -> Vec<u8> {
    let mut body = Writer::with_capacity(FRAME_HEAD);
    body.u32(track);
    envelope.encode_head(&mut body);
    let body = body.into_bytes();
    let mut out = Writer::with_capacity(RECORD_HEAD + body.len() + envelope.sealed.len());
    out.u32((1 + body.len() + envelope.sealed.len()) as u32);
    out.u8(FRAME);
    out.raw(&body);
    out.into_bytes()
}

/// A record of these parts.
pub fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Writer::with_capacity(RECORD_HEAD + body.len());
    out.u32(1 + body.len() as u32);
    out.u8(kind);
    out.raw(body);
    out.into_bytes()
}

/// What is clear in a frame record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Its track.
    pub track: u32,
    /// When it shows in ns, on the recorder's clock; none if it does not say.
    pub time: Option<u64>,
    /// When it is over.
    pub until: Option<u64>,
    /// Whether playing can begin with it.
    pub keyframe: bool,
    /// Which of its track's caps it has (see [`Flags::caps_version`]).
    pub version: u8,
    /// The key it names.
    pub kid: KeyId,
}

impl FrameHead {
    /// Reads it from the first [`FRAME_HEAD`] bytes of a body, or all of a shorter one.
    pub fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let track = reader.u32()?;
        let envelope = Envelope::decode(&mut reader)?;
        let (header, _) =
            Header::parse(&envelope.sealed).ok_or(DecodeError::Invalid("the header of a sealed frame"))?;
        let time = envelope.pts.or(envelope.dts);
        Ok(Self {
            track,
            time,
            until: time.map(|time| time.saturating_add(envelope.duration.unwrap_or(0))),
            keyframe: envelope.flags.has(Flags::KEYFRAME),
            version: envelope.flags.caps_version(),
            kid: KeyId::from(header.kid),
        })
    }
}

/// Full epochs from the one byte that each KID has of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    /// The key of the newest frame.
    pub kid: Option<KeyId>,
    /// How many epochs after the first frame's its epoch is.
    pub since: i64,
}

impl Epochs {
    /// A frame of `kid`: of the nearest epoch that fits, as a late frame may step back.
    pub fn frame(&mut self, kid: KeyId) {
        let Some(last) = self.kid.replace(kid) else { return };
        let step = kid.epoch_byte().wrapping_sub(last.epoch_byte()) as i8;
        self.since = self.since.saturating_add(step.into());
    }
}

/// Kinds of records.
pub const TRACK: u8 = 0;
/// See [`Record::Frame`].
pub const FRAME: u8 = 1;
/// See [`Record::End`].
pub const END: u8 = 2;
/// See [`Record::Index`].
pub const INDEX: u8 = 3;
/// See [`Record::IndexAt`].
pub const INDEX_AT: u8 = 4;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn samples() -> Vec<Record> {
        let envelope = Envelope {
            pts: Some(1_000),
            dts: None,
            duration: Some(20),
            flags: Flags(Flags::KEYFRAME),
            layer: 0,
            sealed: Bytes::from_static(&[0x9b, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
        };
        let source = Source { from: ParticipantId([0xa1; 16]), stream: StreamId(3), kind: Kind::Audio };
        vec![Record::Track(source), Record::Frame { track: 0, envelope }, Record::End(0), Record::IndexAt(77)]
    }

    #[test]
    fn records_read_back_and_no_cut_or_longer_one_does() {
        for record in samples() {
            let bytes = record.to_bytes();
            let (head, body) = bytes.split_first_chunk().expect("a head");
            let head = RecordHead::parse(head).expect("a head");
            assert_eq!(head.len, body.len());
            assert_eq!(Record::parse(head.kind, body), Ok(record.clone()));
            if head.kind != FRAME {
                assert!((0..body.len()).all(|cut| Record::parse(head.kind, &body[..cut]).is_err()));
                assert!(Record::parse(head.kind, &[body, &[0]].concat()).is_err());
            }
        }
    }

    #[test]
    fn the_bytes_are_pinned() {
        let bytes: Vec<String> = samples().iter().map(|record| hex::encode(record.to_bytes())).collect();
        assert_eq!(
            bytes,
            [
                "0000001600a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a10000000301",
                "00000017010000000005010043e8149b030405060708090a0b0c0d",
                "000000050200000000",
                "0000000904000000000000004d",
            ]
        );
    }

    #[test]
    fn lengths_are_bounded_before_anything_is_read() {
        let head = |len: u32, kind| {
            RecordHead::parse(&[&len.to_be_bytes()[..], &[kind]].concat().try_into().expect("5"))
        };
        assert!(head(0, FRAME).is_err());
        assert!(head(u32::MAX, FRAME).is_err() && head(u32::MAX, INDEX).is_err() && head(2_000, 9).is_err());
        assert!(head((MAX_FRAME + FRAME_HEAD) as u32, FRAME).is_ok());
    }

    #[test]
    fn epochs_are_counted_past_their_byte_and_a_late_frame_steps_back() {
        let mut epochs = Epochs::default();
        let seen = [250, 251, 250, 300, 420, 547].map(|epoch| {
            epochs.frame(KeyId::new(StreamId(1), 2, epoch));
            epochs.since
        });
        assert_eq!(seen, [0, 1, 0, 50, 170, 297]);
    }
}

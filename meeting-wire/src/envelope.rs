//! A sealed frame in transit: what RTP would carry in its header, and opaque bytes.

use bytes::Bytes;

use crate::{Decode, DecodeError, Encode, Reader, Writer};

/// The longest sealed frame in bytes.
pub const MAX_FRAME: usize = 16 * 1024 * 1024;

/// What transport and decoder may know of a frame without opening it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// Decodable without earlier frames.
    pub const KEYFRAME: u8 = 1;
    /// No other frame needs it: the first to go when a receiver falls behind.
    pub const DROPPABLE: u8 = 2;
    /// Something before it is missing.
    pub const DISCONT: u8 = 4;
    /// Codec headers, no picture.
    pub const HEADER: u8 = 8;
    /// The codec's marker, such as the end of an access unit.
    pub const MARKER: u8 = 16;

    /// Whether the bit is set.
    pub fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    /// Which of its stream's caps the frame has: their number modulo [`CAPS_VERSIONS`](Self::CAPS_VERSIONS).
    ///
    /// Caps travel another way than frames, and a decoder must not meet a frame with those of the frame before.
    pub fn caps_version(self) -> u8 {
        self.0 >> CAPS_SHIFT
    }

    /// The same flags on a frame that has these caps of its stream.
    #[must_use]
    pub fn with_caps_version(self, version: u32) -> Self {
        let version = (version % u32::from(Self::CAPS_VERSIONS)) as u8;
        Self((self.0 & ((1 << CAPS_SHIFT) - 1)) | (version << CAPS_SHIFT))
    }

    /// How many caps of a stream are told apart; the three highest bits hold the number.
    pub const CAPS_VERSIONS: u8 = 8;
}

const CAPS_SHIFT: u8 = 5;

/// One sealed frame and its clear companions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Presentation time in ns on the sender's capture clock, the same for all of a participant's streams.
    pub pts: Option<u64>,
    /// Decode time in ns on the same clock; for sound only where it differs from `pts`.
    pub dts: Option<u64>,
    /// Duration in ns.
    pub duration: Option<u64>,
    /// See [`Flags`].
    pub flags: Flags,
    /// Layer of a scalable stream, 0 for the base.
    pub layer: u8,
    /// One RFC 9605 SFrame ciphertext.
    pub sealed: Bytes,
}

impl Envelope {
    /// Appends everything but the sealed bytes.
    pub fn encode_head(&self, out: &mut Writer) {
        let present = [self.pts, self.dts, self.duration]
            .iter()
            .enumerate()
            .fold(0, |bits, (i, time)| bits | (time.is_some() as u8) << i);
        out.u8(present);
        out.u8(self.flags.0);
        out.u8(self.layer);
        for time in [self.pts, self.dts, self.duration].into_iter().flatten() {
            out.varint(time);
        }
    }
}

impl Encode for Envelope {
    fn encode(&self, out: &mut Writer) {
        self.encode_head(out);
        out.raw(&self.sealed);
    }
}

impl Decode for Envelope {
    /// Takes all that is left as the sealed bytes.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let present = reader.u8()?;
        if present > 7 {
            return Err(DecodeError::Invalid("the time bits of an envelope"));
        }
        let flags = Flags(reader.u8()?);
        let layer = reader.u8()?;
        let mut time = |bit: u8| {
            if present & bit != 0 { reader.varint().map(Some) } else { Ok(None) }
        };
        let (pts, dts, duration) = (time(1)?, time(2)?, time(4)?);
        let sealed = reader.rest();
        if sealed.len() > MAX_FRAME {
            return Err(DecodeError::TooLong("a sealed frame"));
        }
        Ok(Self { pts, dts, duration, flags, layer, sealed: Bytes::copy_from_slice(sealed) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caps_version_leaves_the_other_flags_alone() {
        let flags = Flags(Flags::KEYFRAME | Flags::MARKER);
        for version in 0..20u32 {
            let frame = flags.with_caps_version(7).with_caps_version(version);
            assert_eq!(u32::from(frame.caps_version()), version % 8);
            assert!(frame.has(Flags::KEYFRAME) && frame.has(Flags::MARKER));
            assert!(!frame.has(Flags::DROPPABLE | Flags::DISCONT | Flags::HEADER));
        }
        assert_eq!(flags.caps_version(), 0);
    }
}

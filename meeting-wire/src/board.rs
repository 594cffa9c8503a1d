//! The board: a relay's per-meeting store of posts it cannot read.

use bytes::Bytes;

use crate::{Decode, DecodeError, Encode, ParticipantId, Reader, Writer};

/// The longest post body in bytes: a welcome to a meeting of 1,000 fits.
pub const MAX_POST: usize = 512 * 1024;

/// Where a post goes and how long it stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// To everybody, in one order for all, replayed to those who come later; the oldest fall off.
    Log,
    /// To everybody; the relay keeps each author's newest one for those who come later (heartbeats).
    Cell,
    /// To one participant, if connected; the relay keeps nothing.
    Direct(ParticipantId),
}

/// One post as the relay hands it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// The board's counter over log posts, for asking "what since?"; 0 outside the log.
    pub seq: u64,
    /// Whose connection it came from, as the relay says; only what is signed inside counts.
    pub from: ParticipantId,
    /// How it was addressed.
    pub slot: Slot,
    /// Opaque to the relay: sealed under a key from the invite secret (PROTOCOL.md 3.1).
    pub body: Bytes,
}

impl Encode for Slot {
    fn encode(&self, out: &mut Writer) {
        match self {
            Slot::Log => out.u8(0),
            Slot::Cell => out.u8(1),
            Slot::Direct(to) => {
                out.u8(2);
                to.encode(out);
            }
        }
    }
}

impl Decode for Slot {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            0 => Ok(Slot::Log),
            1 => Ok(Slot::Cell),
            2 => ParticipantId::decode(reader).map(Slot::Direct),
            _ => Err(DecodeError::Invalid("the slot of a post")),
        }
    }
}

impl Encode for Post {
    fn encode(&self, out: &mut Writer) {
        out.u64(self.seq);
        self.from.encode(out);
        self.slot.encode(out);
        out.bytes(&self.body);
    }
}

impl Decode for Post {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            seq: reader.u64()?,
            from: ParticipantId::decode(reader)?,
            slot: Slot::decode(reader)?,
            body: Bytes::copy_from_slice(reader.bytes(MAX_POST, "the body of a post")?),
        })
    }
}

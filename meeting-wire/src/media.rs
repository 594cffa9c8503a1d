//! How frames ride on QUIC: a unidirectional stream for each group of pictures and layer, a datagram for a
//! short audio frame.
//!
//! ```text
//! group stream:  route(4) | group(8) | layer(1) | record*
//! record:        kind(1) | length(4) | body
//! datagram:      route(4) | envelope
//! ```
//!
//! Towards the relay `route` is the sender's own stream id; towards a subscriber it is the one that
//! [`crate::FromRelay::Published`] named.

use bytes::Bytes;

use crate::{Decode, DecodeError, Encode, Envelope, MAX_FRAME, Reader, Route, Writer};

/// What a stream carries, as far as the relay needs to know to forward it well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Pictures in groups: forwarded group by group, newest first.
    Video,
    /// Sound: forwarded frame by frame, late ones dropped.
    Audio,
    /// Anything else, such as subtitles: forwarded in order.
    Data,
}

/// The first bytes of a group stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    /// Which stream the frames belong to.
    pub route: Route,
    /// Counts up; a larger one is newer and makes the older ones worthless.
    pub group: u64,
    /// The layer all its frames have.
    pub layer: u8,
}

impl GroupHeader {
    /// Bytes on the wire.
    pub const LEN: usize = 13;
}

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// An [`Envelope`].
    Frame,
    /// A kind from a later version: carried on, ignored.
    Other(u8),
}

/// One length-prefixed record of a group stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What `body` is.
    pub kind: RecordKind,
    /// At most [`Record::MAX`] bytes.
    pub body: Bytes,
}

impl Record {
    /// Bytes of kind and length.
    pub const HEAD: usize = 5;
    /// The longest body: a frame and its envelope.
    pub const MAX: usize = MAX_FRAME + 64;

    /// A record around an envelope.
    pub fn frame(envelope: &Envelope) -> Self {
        Self { kind: RecordKind::Frame, body: envelope.to_bytes().into() }
    }

    /// Reads kind and length, refusing a length above [`Record::MAX`] before anything is allocated.
    pub fn head(bytes: [u8; Record::HEAD]) -> Result<(RecordKind, usize), DecodeError> {
        let mut reader = Reader::new(&bytes);
        let kind = match reader.u8()? {
            0 => RecordKind::Frame,
            other => RecordKind::Other(other),
        };
        let len = reader.u32()? as usize;
        if len > Record::MAX { Err(DecodeError::TooLong("a record")) } else { Ok((kind, len)) }
    }
}

/// A short audio frame as one QUIC datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioDatagram {
    /// Which stream it belongs to.
    pub route: Route,
    /// The frame.
    pub envelope: Envelope,
}

impl Encode for Kind {
    fn encode(&self, out: &mut Writer) {
        out.u8(match self {
            Kind::Video => 0,
            Kind::Audio => 1,
            Kind::Data => 2,
        });
    }
}

impl Decode for Kind {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            0 => Ok(Kind::Video),
            1 => Ok(Kind::Audio),
            2 => Ok(Kind::Data),
            _ => Err(DecodeError::Invalid("the kind of a stream")),
        }
    }
}

impl Encode for GroupHeader {
    fn encode(&self, out: &mut Writer) {
        self.route.encode(out);
        out.u64(self.group);
        out.u8(self.layer);
    }
}

impl Decode for GroupHeader {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { route: Route::decode(reader)?, group: reader.u64()?, layer: reader.u8()? })
    }
}

impl Encode for Record {
    fn encode(&self, out: &mut Writer) {
        out.u8(match self.kind {
            RecordKind::Frame => 0,
            RecordKind::Other(other) => other,
        });
        out.bytes(&self.body);
    }
}

impl Encode for AudioDatagram {
    fn encode(&self, out: &mut Writer) {
        self.route.encode(out);
        self.envelope.encode(out);
    }
}

impl Decode for AudioDatagram {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { route: Route::decode(reader)?, envelope: Envelope::decode(reader)? })
    }
}

//! Who vouches for a frame: a sender's signed word over what it has just sent (PROTOCOL.md 5).
//!
//! Whoever is in the meeting holds every stream's key, so that a frame that opens proves that *a member* sealed it and no
//! more. The beacon says which one:
//!
//! ```text
//!  sender    frame, frame, frame --Sent--> digests --Session, about 2/s--> signed beacon
//!                                                                             |   stream 0, kind data
//!  receiver  frame, frame, frame --Checker::frame--> on to the elements       v
//!                                 Checker::beacon <--------- Session checks the signature
//!                                       |
//!                                       +--> vouched, or a [`Finding`] that names whose stream it is
//! ```
//!
//! Frames do not wait for their beacon, unless frames of their stream were forged lately. Pure: time is an argument.

mod check;
mod sent;

pub use check::{Checker, Finding, LOOK, NOTICE, Trust, What};
pub use meeting_wire::BEACONS;
pub use sent::Sent;

use std::time::Duration;

use meeting_wire::{Decode, DecodeError, Encode, Envelope, Reader, Writer};
use sha2::{Digest as _, Sha256};

use crate::{
    crypto::{
        labels,
        sign::{Hash, StayKey, StayPublic},
    },
    frame::KeyId,
    roster::counter,
};

/// Between two beacons of whoever sends. One costs 200 bytes besides its frames, and a packet's headers: so that a stream of 50
/// frames a second costs less than 12 kbit/s on the road, and what is forged is told in time.
pub const EVERY: Duration = Duration::from_millis(450);
const _: () = assert!(EVERY.as_millis() < LOOK.as_millis());
/// Frames one beacon speaks of at most.
pub(crate) const MAX_FRAMES: usize = 4_096;
/// Spans one beacon has at most: each stream may change its key once or twice between two.
const MAX_SPANS: usize = 256;
/// Frames of one span that a sender makes.
const SPAN: usize = 512;

/// The first half of SHA-256 over a frame as it travels: header, ciphertext and everything else in its envelope.
///
/// Never of the tag alone: who holds the key can make two ciphertexts with one tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameDigest(pub [u8; 16]);

impl FrameDigest {
    /// Stands for a counter that the sender used for nothing it sent.
    pub const NONE: Self = Self([0; 16]);

    /// Of a frame.
    pub fn of(envelope: &Envelope) -> Self {
        let mut head = Writer::default();
        envelope.encode_head(&mut head);
        let hash = Sha256::new()
            .chain_update(labels::BEACON_FRAME)
            .chain_update(head.into_bytes())
            .chain_update(&envelope.sealed)
            .finalize();
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash[..16]);
        Self(digest)
    }
}

/// Frames of one stream under one key, counter by counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The key, and with it the stream.
    pub kid: KeyId,
    /// The counter of the first.
    pub first: u64,
    /// One for each counter from there on.
    pub frames: Vec<FrameDigest>,
    /// Whether no frame follows under this key.
    pub closed: bool,
}

impl Span {
    /// The counter behind the last.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(self.frames.len() as u64)
    }
}

/// One beacon. Meeting, instance and sender are signed too, but not sent: whoever checks it knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Beacon {
    /// Counts up in a stay.
    pub number: u64,
    /// The sender's newest epoch.
    pub epoch: u64,
    /// The link that opened it: a fork shows here.
    pub link: Hash,
    /// The leader's time in ms as the sender reckons it; 0 while it does not know.
    pub time: u64,
    /// What was sent since the beacon before.
    pub spans: Vec<Span>,
}

/// A beacon and its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SignedBeacon {
    pub body: Beacon,
    signature: [u8; 64],
}

/// What is signed besides the beacon itself.
pub(crate) struct Context<'a> {
    pub meeting: &'a [u8; 16],
    pub instance: &'a [u8; 16],
    pub sender: &'a [u8; 16],
}

impl Context<'_> {
    fn with(&self, beacon: &Beacon) -> Vec<u8> {
        let mut bytes = [self.meeting.as_slice(), self.instance, self.sender].concat();
        bytes.extend_from_slice(&beacon.to_bytes());
        bytes
    }
}

impl SignedBeacon {
    pub fn new(body: Beacon, context: &Context<'_>, key: &StayKey) -> Self {
        let signature = key.sign(labels::BEACON, &context.with(&body));
        Self { body, signature }
    }

    pub fn is_by(&self, key: &StayPublic, context: &Context<'_>) -> bool {
        key.verifies(labels::BEACON, &context.with(&self.body), &self.signature)
    }
}

/// A beacon whose signature has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouch {
    /// Of which frames.
    pub spans: Vec<Span>,
    /// How long it was on its way by the leader's time, in ms; none where either side does not know that.
    pub delay: Option<u64>,
}

impl Vouch {
    /// Whether all that was sent before it had room: its sender names each stream then, if only to say that nothing was.
    fn speaks_of_all(&self) -> bool {
        let frames: usize = self.spans.iter().map(|span| span.frames.len()).sum();
        self.spans.len() < MAX_SPANS && frames + SPAN <= MAX_FRAMES
    }
}

impl Encode for Span {
    fn encode(&self, out: &mut Writer) {
        out.u64(self.kid.into());
        out.varint(self.first);
        out.u8(self.closed.into());
        out.u16(self.frames.len() as u16);
        for frame in &self.frames {
            out.raw(&frame.0);
        }
    }
}

impl Decode for Span {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (kid, first) = (KeyId::from(reader.u64()?), reader.varint()?);
        let closed = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::Invalid("the end of a span")),
        };
        let count = usize::from(reader.u16()?);
        if count > MAX_FRAMES {
            return Err(DecodeError::TooLong("a span of frames"));
        }
        let mut frames = Vec::new();
        for _ in 0..count {
            frames.push(FrameDigest(reader.array()?));
        }
        Ok(Self { kid, first, frames, closed })
    }
}

impl Encode for Beacon {
    fn encode(&self, out: &mut Writer) {
        out.u64(self.number);
        out.u64(self.epoch);
        out.raw(&self.link);
        out.u64(self.time);
        out.list(&self.spans);
    }
}

impl Decode for Beacon {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            number: counter(reader)?,
            epoch: counter(reader)?,
            link: reader.array()?,
            time: counter(reader)?,
            spans: reader.list(MAX_SPANS, "the spans of a beacon")?,
        })
    }
}

impl Encode for SignedBeacon {
    fn encode(&self, out: &mut Writer) {
        self.body.encode(out);
        out.raw(&self.signature);
    }
}

impl Decode for SignedBeacon {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { body: Beacon::decode(reader)?, signature: reader.array()? })
    }
}

//! What a meeting's agents and their relay say to each other.
//!
//! **Rule 1: the relay cannot name a key.** This crate has no key type, no cryptography and no I/O, and it is
//! the only crate of ours that the relay imports. What stands here is all that a relay can know.
//!
//! ```text
//!  agent                                relay
//!    | control stream (one, both ways)    |   hello::{ToRelay, FromRelay}
//!    |----------------------------------->|     length-prefixed, see `message_len`
//!    | media stream (one per group)       |   media::{GroupHeader, Record}
//!    |----------------------------------->|     video: one stream per group of pictures and layer
//!    | datagram                           |   media::AudioDatagram
//!    |----------------------------------->|     audio: one frame each
//! ```
//!
//! PROTOCOL.md section 2 has every byte; `tests/snapshots.rs` pins them as hex.

mod board;
mod codec;
mod envelope;
mod hello;
mod ids;
mod media;
mod rate;

pub use board::{MAX_POST, Post, Slot};
pub use codec::{Decode, DecodeError, Encode, Reader, Writer};
pub use envelope::{Envelope, Flags, MAX_FRAME};
pub use hello::{
    Admission, FromRelay, MAX_CONTROL, MAX_SUBSCRIPTIONS, NEWCOMER, Refusal, ToRelay, VERSION, message_len,
    packed,
};
pub use ids::{BEACONS, Claim, Hex, InstanceId, MeetingId, ParticipantId, Route, StreamId};
pub use media::{AudioDatagram, GroupHeader, Kind, Record, RecordKind};
pub use rate::{Bucket, Rate};

/// The ALPN protocol name of QUIC connections between agent and relay (PROTOCOL.md 2).
pub const ALPN: &[u8] = b"e2ee-meeting/1";

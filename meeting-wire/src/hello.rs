//! The control stream: how an agent introduces itself, and what it and the relay say afterwards.
//!
//! Each message is a 32-bit length and that many bytes. The first is [`ToRelay::Hello`], the answer
//! [`FromRelay::Welcome`] or [`FromRelay::Refused`]. Unknown messages end the connection: a version change is a
//! new [`VERSION`], negotiated in the hello.

use bytes::Bytes;
use thiserror::Error;

use crate::{
    Claim, Decode, DecodeError, Encode, Kind, MAX_POST, MeetingId, ParticipantId, Post, Reader, Route, Slot,
    StreamId, Writer,
};

/// The version this crate speaks.
pub const VERSION: u16 = 1;

/// The longest control message in bytes: one post and its head.
pub const MAX_CONTROL: usize = MAX_POST + 64;

/// The most streams that one agent may have subscribed to; the relay ends the connection for more. The beacons and the voice of
/// each of a thousand people, or ten streams of each of two hundred.
pub const MAX_SUBSCRIPTIONS: usize = 2_048;

/// Stands for the last board counter seen in the hello of somebody who needs nothing of before.
pub const NEWCOMER: u64 = u64::MAX;

/// Why a connection should be let into a meeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Opens the meeting if it is not open; the token is one of the relay's config, empty in development mode.
    Create {
        /// At most 256 bytes.
        token: String,
    },
    /// Enters a meeting that somebody has opened.
    Join,
}

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ToRelay {
    /// The first message.
    Hello {
        /// The version the agent speaks.
        version: u16,
        /// The meeting to enter.
        meeting: MeetingId,
        /// The address for posts; a second connection with the same one and its claim replaces the first.
        participant: ParticipantId,
        /// Drawn with the participant id and said to the relay alone.
        claim: Claim,
        /// The last board counter seen: the log after it is replayed, all of it for 0, nothing of it for
        /// [`NEWCOMER`].
        since: u64,
        /// The right to enter.
        admission: Admission,
    },
    /// Puts something on the board.
    Post {
        /// Where it goes.
        slot: Slot,
        /// At most [`MAX_POST`] bytes.
        body: Bytes,
    },
    /// Offers a stream.
    Publish {
        /// The agent's own number for it.
        stream: StreamId,
        /// How to forward it.
        kind: Kind,
    },
    /// Ends a stream.
    Unpublish {
        /// As in `Publish`.
        stream: StreamId,
    },
    /// Asks for a stream's frames.
    Subscribe {
        /// As named by [`FromRelay::Published`].
        route: Route,
    },
    /// Asks for no more of them.
    Unsubscribe {
        /// As in `Subscribe`.
        route: Route,
    },
    /// Asks the publisher for a keyframe; the relay merges such requests.
    KeyframeRequest {
        /// As in `Subscribe`.
        route: Route,
    },
    /// Leaves for good, so that the others need not wait for a time-out.
    Goodbye,
}

/// What the relay says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FromRelay {
    /// The agent is in.
    Welcome {
        /// The version both will speak.
        version: u16,
        /// The most participants the relay lets into the meeting.
        max_participants: u32,
        /// Mbit/s of media that it takes from this agent, sustained; it ends the connection for more.
        max_publish_mbit: u32,
    },
    /// The agent is not in, or is out; the connection ends.
    Refused(Refusal),
    /// Something was put on the board.
    Post(Post),
    /// Somebody offers a stream.
    Published {
        /// Who, as the relay says.
        from: ParticipantId,
        /// The publisher's number for it.
        stream: StreamId,
        /// How it is forwarded.
        kind: Kind,
        /// The relay's short name for it on this connection, never reused there.
        route: Route,
    },
    /// A stream has ended.
    Unpublished {
        /// As in `Published`.
        route: Route,
    },
    /// A subscriber of this agent's stream cannot decode without a keyframe.
    KeyframeWanted {
        /// The agent's own number.
        stream: StreamId,
    },
    /// A participant's connection has ended, as the relay says.
    Gone {
        /// Whose.
        participant: ParticipantId,
    },
}

/// Why the relay does not let somebody in. Each is the agent's or its user's to mend, as its text says.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// No common version.
    #[error("the relay speaks another protocol version: update the older of the two")]
    Version,
    /// Create without a valid token.
    #[error("the relay does not accept this token: ask its operator for one that may create meetings")]
    Token,
    /// Join, but nobody has opened the meeting.
    #[error("no such meeting is open on this relay: its creator has to start it first")]
    NoMeeting,
    /// The participant cap is reached.
    #[error("the meeting is full")]
    Full,
    /// Too many meetings or connections.
    #[error("the relay is at its limit: try again later")]
    Busy,
    /// Bytes that mean nothing, or a limit passed.
    #[error("the relay could not make sense of what this agent sent")]
    Protocol,
    /// Another connection has taken this participant's place.
    #[error("another connection took this participant's place")]
    Replaced,
    /// The participant's place is claimed by somebody else.
    #[error("this participant's place belongs to another agent: join anew")]
    Taken,
}

/// Reads a control message's length, refusing one above [`MAX_CONTROL`] before anything is allocated.
pub fn message_len(bytes: [u8; 4]) -> Result<usize, DecodeError> {
    let len = u32::from_be_bytes(bytes) as usize;
    if len > MAX_CONTROL { Err(DecodeError::TooLong("a control message")) } else { Ok(len) }
}

/// A control message behind its length, as it travels.
pub fn packed(message: &impl Encode) -> Bytes {
    let mut out = Writer::default();
    out.bytes(&message.to_bytes());
    out.into_bytes().into()
}

impl Encode for ToRelay {
    fn encode(&self, out: &mut Writer) {
        match self {
            ToRelay::Hello { version, meeting, participant, claim, since, admission } => {
                out.u8(0);
                out.u16(*version);
                meeting.encode(out);
                participant.encode(out);
                out.raw(&claim.0);
                out.u64(*since);
                match admission {
                    Admission::Join => out.u8(0),
                    Admission::Create { token } => {
                        out.u8(1);
                        out.str(token);
                    }
                }
            }
            ToRelay::Post { slot, body } => {
                out.u8(1);
                slot.encode(out);
                out.bytes(body);
            }
            ToRelay::Publish { stream, kind } => {
                out.u8(2);
                stream.encode(out);
                kind.encode(out);
            }
            ToRelay::Unpublish { stream } => {
                out.u8(3);
                stream.encode(out);
            }
            ToRelay::Subscribe { route } => {
                out.u8(4);
                route.encode(out);
            }
            ToRelay::Unsubscribe { route } => {
                out.u8(5);
                route.encode(out);
            }
            ToRelay::KeyframeRequest { route } => {
                out.u8(6);
                route.encode(out);
            }
            ToRelay::Goodbye => out.u8(7),
        }
    }
}

impl Decode for ToRelay {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            0 => ToRelay::Hello {
                version: reader.u16()?,
                meeting: MeetingId::decode(reader)?,
                participant: ParticipantId::decode(reader)?,
                claim: Claim(reader.array()?),
                since: reader.u64()?,
                admission: match reader.u8()? {
                    0 => Admission::Join,
                    1 => Admission::Create { token: reader.str(MAX_TOKEN, "the token")?.to_owned() },
                    _ => return Err(DecodeError::Invalid("the admission of a hello")),
                },
            },
            1 => ToRelay::Post {
                slot: Slot::decode(reader)?,
                body: Bytes::copy_from_slice(reader.bytes(MAX_POST, "the body of a post")?),
            },
            2 => ToRelay::Publish { stream: StreamId::decode(reader)?, kind: Kind::decode(reader)? },
            3 => ToRelay::Unpublish { stream: StreamId::decode(reader)? },
            4 => ToRelay::Subscribe { route: Route::decode(reader)? },
            5 => ToRelay::Unsubscribe { route: Route::decode(reader)? },
            6 => ToRelay::KeyframeRequest { route: Route::decode(reader)? },
            7 => ToRelay::Goodbye,
            _ => return Err(DecodeError::Invalid("the kind of a message to the relay")),
        })
    }
}

impl Encode for FromRelay {
    fn encode(&self, out: &mut Writer) {
        match self {
            FromRelay::Welcome { version, max_participants, max_publish_mbit } => {
                out.u8(0);
                out.u16(*version);
                out.u32(*max_participants);
                out.u32(*max_publish_mbit);
            }
            FromRelay::Refused(refusal) => {
                out.u8(1);
                refusal.encode(out);
            }
            FromRelay::Post(post) => {
                out.u8(2);
                post.encode(out);
            }
            FromRelay::Published { from, stream, kind, route } => {
                out.u8(3);
                from.encode(out);
                stream.encode(out);
                kind.encode(out);
                route.encode(out);
            }
            FromRelay::Unpublished { route } => {
                out.u8(4);
                route.encode(out);
            }
            FromRelay::KeyframeWanted { stream } => {
                out.u8(5);
                stream.encode(out);
            }
            FromRelay::Gone { participant } => {
                out.u8(6);
                participant.encode(out);
            }
        }
    }
}

impl Decode for FromRelay {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            0 => FromRelay::Welcome {
                version: reader.u16()?,
                max_participants: reader.u32()?,
                max_publish_mbit: reader.u32()?,
            },
            1 => FromRelay::Refused(Refusal::decode(reader)?),
            2 => FromRelay::Post(Post::decode(reader)?),
            3 => FromRelay::Published {
                from: ParticipantId::decode(reader)?,
                stream: StreamId::decode(reader)?,
                kind: Kind::decode(reader)?,
                route: Route::decode(reader)?,
            },
            4 => FromRelay::Unpublished { route: Route::decode(reader)? },
            5 => FromRelay::KeyframeWanted { stream: StreamId::decode(reader)? },
            6 => FromRelay::Gone { participant: ParticipantId::decode(reader)? },
            _ => return Err(DecodeError::Invalid("the kind of a message from the relay")),
        })
    }
}

impl Encode for Refusal {
    fn encode(&self, out: &mut Writer) {
        out.u8(match self {
            Refusal::Version => 0,
            Refusal::Token => 1,
            Refusal::NoMeeting => 2,
            Refusal::Full => 3,
            Refusal::Busy => 4,
            Refusal::Protocol => 5,
            Refusal::Replaced => 6,
            Refusal::Taken => 7,
        });
    }
}

impl Decode for Refusal {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            0 => Refusal::Version,
            1 => Refusal::Token,
            2 => Refusal::NoMeeting,
            3 => Refusal::Full,
            4 => Refusal::Busy,
            5 => Refusal::Protocol,
            6 => Refusal::Replaced,
            7 => Refusal::Taken,
            _ => return Err(DecodeError::Invalid("the reason of a refusal")),
        })
    }
}

/// The longest creation token in bytes.
const MAX_TOKEN: usize = 256;

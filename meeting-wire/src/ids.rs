//! Names of things, each its own type so that they never mix.

use std::fmt;

use crate::{Decode, DecodeError, Encode, Reader, Writer};

/// Bytes that print as lower-case hex.
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Hex(&self.0).fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl std::str::FromStr for $name {
            type Err = DecodeError;

            /// Reads 32 hex digits.
            fn from_str(text: &str) -> Result<Self, DecodeError> {
                let digits = text.as_bytes();
                if digits.len() != 32 {
                    return Err(DecodeError::Invalid(stringify!($name)));
                }
                let mut id = [0; 16];
                for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
                    let nibble = |digit: u8| (digit as char).to_digit(16);
                    *byte = match (nibble(pair[0]), nibble(pair[1])) {
                        (Some(high), Some(low)) => (high << 4 | low) as u8,
                        _ => return Err(DecodeError::Invalid(stringify!($name))),
                    };
                }
                Ok(Self(id))
            }
        }

        impl Encode for $name {
            fn encode(&self, out: &mut Writer) {
                out.raw(&self.0);
            }
        }

        impl Decode for $name {
            fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                reader.array().map(Self)
            }
        }
    };
}

id!(
    /// A meeting as its link names it; it outlives any one run of the meeting.
    MeetingId
);
id!(
    /// One run of a meeting, opened by a genesis link.
    InstanceId
);
id!(
    /// One participant's stay, drawn at random for each announce; the relay's address for posts.
    ParticipantId
);

/// What only a participant's agent and the relay know, so that nobody else takes its place on the relay. It
/// protects a connection and nothing secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Claim(pub [u8; 16]);

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claim(..)")
    }
}

/// A stream of one participant: the context number of its KID (PROTOCOL.md 4), never reused in a stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u32);

/// The stream that carries a participant's beacons: small, and of little use when they are late. Elements' streams count from 1.
pub const BEACONS: StreamId = StreamId(0);

/// The relay's short name for (participant, stream) towards one subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route(pub u32);

macro_rules! number {
    ($name:ident) => {
        impl Encode for $name {
            fn encode(&self, out: &mut Writer) {
                out.u32(self.0);
            }
        }

        impl Decode for $name {
            fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                reader.u32().map(Self)
            }
        }
    };
}

number!(StreamId);
number!(Route);

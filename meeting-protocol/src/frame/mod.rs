//! Sealed frames: RFC 9605 (SFrame), suites 4 and 5.
//!
//! ```text
//!  +-+---+-+---+------------+------------+----------------------------+----------------+
//!  |X| K |Y| C | KID        | CTR        | the encoded frame, sealed  | tag            |
//!  +-+---+-+---+------------+------------+----------------------------+----------------+
//!   config byte  0-8 bytes    0-8 bytes    as long as the frame         16 bytes
//!  \______________ header ______________/
//!        in clear, authenticated                nonce = salt XOR CTR
//! ```
//!
//! The plaintext is the encoded frame and nothing else, the metadata is empty: every peer that speaks RFC 9605
//! and has the key opens our frames, and the other way round.
//!
//! - A [`Sealer`] is made from a [`SealKey`], which is there once per stream and epoch. It owns the counter:
//!   no call here takes a nonce, and the counter goes on over every change of key.
//! - An [`Opener`] holds an [`OpenKey`] per KID, each with a replay window of [`WINDOW`] frames. It parses, screens,
//!   decrypts and only then records.
//! - Whoever has one of the two asks [`Rules`] before each frame: time is an argument there.

mod header;
mod key;
mod kid;
mod open;
mod replay;
mod rules;
mod seal;

pub use header::Header;
pub use key::{CipherSuite, FrameKey, UnknownSuite};
pub use kid::KeyId;
pub use open::{MAX_KEYS, OpenError, OpenKey, Opener};
pub use replay::WINDOW;
pub use rules::Rules;
pub use seal::{MAX_CTR, SealError, SealKey, Sealer};

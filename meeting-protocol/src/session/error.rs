//! What can be refused, and to whom.

use thiserror::Error;

/// Why a meeting was not opened.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CreateError {
    /// The link names another creator.
    #[error("the link names another device as the meeting's creator: make a new link on this device")]
    NotCreator,
}

/// Why a command was refused; the text is for a person.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommandError {
    /// Only the leader may.
    #[error("only the leader of the meeting can do that")]
    NotLeader,
    /// The session is over.
    #[error("the meeting is over for this device: join again")]
    Ended,
    /// Nobody of that id is here or waits.
    #[error("nobody of that id is in the meeting")]
    NobodyThere,
    /// The leader cannot be removed.
    #[error("the leader cannot be removed: leave instead")]
    Leader,
    /// Stream number used before, or unknown.
    #[error("no open stream has this number")]
    NoStream,
    /// A stream number is used once per stay.
    #[error("this stream number was used before: draw a new one")]
    StreamUsed,
    /// 64 streams are open.
    #[error("this device has 64 streams open, which is the most: close one first")]
    TooManyStreams,
    /// All stream numbers of this stay are used up.
    #[error("this device has opened 65,536 streams in this stay, which is the most: leave and join again")]
    StreamsUsedUp,
    /// A track label over 64 bytes, caps over 16 KiB, or over 128 KiB with those of our other streams.
    #[error(
        "the track label (64 bytes at most) or the caps (16 KiB at most, 128 KiB for all streams) are too long"
    )]
    TooLong,
    /// 1,000 are here.
    #[error("the meeting is full")]
    Full,
}

/// What a session refused, by reason; all count up from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Posts that did not open under the board's key: strangers, another link, damage.
    pub sealed: u64,
    /// Opened, but not a message.
    pub malformed: u64,
    /// A signature or MAC that is not its signer's.
    pub forged: u64,
    /// From before: replayed or out of order.
    pub stale: u64,
    /// From or for somebody who may not.
    pub unauthorised: u64,
    /// Above a limit.
    pub over_limit: u64,
    /// A member broke the protocol; also told as an event.
    pub misbehaviour: u64,
}

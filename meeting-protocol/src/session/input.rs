//! What goes into a session.

use std::sync::Arc;

use bytes::Bytes;
use meeting_wire::{Kind, ParticipantId, Post, StreamId};

use crate::{beacon::Span, frame::KeyId, identity::DeviceKey, link::MeetingLink};

/// What somebody is in a meeting for; signed in the announce and shown to everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// A person or device that takes part.
    #[default]
    Participant,
    /// Writes what it opens to a file.
    Recorder,
    /// Carries the meeting to or from something that is not end-to-end encrypted.
    Gateway,
    /// A program that listens or speaks on its own.
    Bot,
}

/// Who may take over when the leader falls silent (PROTOCOL.md 3.8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Successors {
    /// Nobody: the meeting ends with its leader.
    #[default]
    Nobody,
    /// The first of those present, in order of arrival, at most this many (never over 3); never recorders or bots.
    FirstPresent(u8),
}

/// All it takes to open a new instance of a meeting and lead it.
pub struct Creating {
    /// The link others will join by; its fingerprint must be this device's.
    pub link: MeetingLink,
    /// Signs the announce.
    pub device: Arc<DeviceKey>,
    /// At most 64 bytes of UTF-8; control characters are replaced.
    pub name: String,
    /// See [`Role`].
    pub role: Role,
    /// The leader's choice of successors.
    pub successors: Successors,
}

/// All it takes to ask for a place in a meeting.
pub struct Joining {
    /// The link, with the invite secret.
    pub link: MeetingLink,
    /// Signs the announce.
    pub device: Arc<DeviceKey>,
    /// At most 64 bytes of UTF-8; control characters are replaced.
    pub name: String,
    /// See [`Role`].
    pub role: Role,
}

/// What the world does to a session.
pub enum Input {
    /// Something appeared on the board.
    Post(Post),
    /// A participant's beacon came, past the board.
    Beacon {
        /// Whose, as the relay says: the signature decides.
        from: ParticipantId,
        /// As [`super::Output::Beacon`] gave it there.
        body: Bytes,
    },
    /// The user or an element of this device wants something.
    Command(Command),
    /// The relay connection is up, for the first time or again.
    Connected,
    /// The relay connection is lost; the session stays and its budget runs.
    Disconnected,
    /// The promised time has come.
    Timeout,
}

/// What a user or an element can want.
pub enum Command {
    /// Leave; a leader hands over to its first successor if there is one, else the meeting ends for all.
    Leave,
    /// Leader: remove somebody and refuse the device from then on.
    Remove(ParticipantId),
    /// Leader: a new key now.
    Rotate,
    /// Leader: let nobody new in, or do.
    Lock(bool),
    /// Leader: let somebody in who waits for approval.
    Approve(ParticipantId),
    /// Leader: choose successors anew.
    Successors(Successors),
    /// A sealing element wants a stream.
    OpenStream(OpenStream),
    /// The caps of a stream changed: state it anew.
    StreamCaps {
        /// Which stream.
        stream: StreamId,
        /// A caps string, `codec_data` included.
        caps: String,
    },
    /// The sealing element is gone; the stream's keys are never used again.
    CloseStream(StreamId),
    /// This device has sent these frames: sign for them.
    Beacon(Vec<Span>),
    /// An opening element accepted counters of this stream below `floor`: never open them again after a restart.
    Floor {
        /// Whose stream.
        from: ParticipantId,
        /// The key's id.
        kid: KeyId,
        /// One above the newest accepted counter.
        floor: u64,
    },
}

/// A sealing element's wish for a stream. `stream` is drawn by the agent: the next unused number of this stay.
pub struct OpenStream {
    /// The context number; a number used before in this stay is refused.
    pub stream: StreamId,
    /// How the relay forwards it.
    pub kind: Kind,
    /// The label in every key derivation of the stream, at most 64 bytes.
    pub track: String,
    /// A caps string, `codec_data` included, at most [`MAX_CAPS`](crate::MAX_CAPS) bytes.
    pub caps: String,
    /// The element's half of the stream instance id (PROTOCOL.md 3.7).
    pub random: [u8; 16],
}

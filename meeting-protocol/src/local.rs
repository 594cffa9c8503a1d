//! What an agent and the elements of the same device say to each other over a Unix socket: the only messages
//! outside the core that carry a key, and never the meeting's, only a stream's.
//!
//! Each message is a 32-bit length and that many bytes (PROTOCOL.md 6). The client speaks first with
//! [`ToAgent::Hello`]; the answer is [`FromAgent::Welcome`] or [`FromAgent::Refused`], whose text is for a person.

mod bytes;

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use meeting_wire::{
    DecodeError, Encode, Envelope, Kind, MAX_FRAME, MeetingId, ParticipantId, StreamId, Writer,
};
use zeroize::Zeroizing;

use crate::{BootTime, frame::KeyId, secret::Secret};

/// The version of the local messages.
pub const VERSION: u16 = 4;

/// The longest message in bytes: one frame and its envelope.
pub const MAX_MESSAGE: usize = MAX_FRAME + 4096;

/// What a client connects for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// `meetingkey`: keys to seal and open with.
    Keys {
        /// Which meeting; none where there is only one.
        meeting: Option<MeetingId>,
    },
    /// `meetingsink`: frames out.
    Publish {
        /// As in `Keys`.
        meeting: Option<MeetingId>,
    },
    /// `meetingsrc`: frames in.
    Watch {
        /// As in `Keys`.
        meeting: Option<MeetingId>,
        /// Only this participant: an id in hex, or a display name; empty for everybody.
        participant: String,
        /// Only this track label; empty for all.
        track: String,
    },
    /// The command line: JSON requests and answers.
    Control,
    /// A device monitor: which tracks there are, without their frames.
    Tracks {
        /// As in `Keys`.
        meeting: Option<MeetingId>,
    },
}

/// What elements and the command line say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToAgent {
    /// The first message.
    Hello {
        /// See [`VERSION`].
        version: u16,
        /// What for.
        purpose: Purpose,
    },
    /// Keys: a sealing element wants a stream.
    OpenStream {
        /// Comes back in the answer.
        request: u32,
        /// What it carries.
        kind: Kind,
        /// The label, at most 64 bytes; empty lets the agent choose `video`, `audio`, `video-2`, ...
        track: String,
        /// Caps string, at most [`MAX_CAPS`](crate::MAX_CAPS) bytes.
        caps: String,
        /// The element's half of the stream instance id.
        random: [u8; 16],
    },
    /// Keys: the caps of an open stream changed.
    StreamCaps {
        /// Which stream.
        stream: StreamId,
        /// As in `OpenStream`.
        caps: String,
    },
    /// Keys: the sealing element is gone.
    CloseStream {
        /// Which stream.
        stream: StreamId,
    },
    /// Keys: an opening element is here; send the keys of everybody's streams, now and from now on.
    WantOpenKeys,
    /// Keys: counters below `floor` were opened; sent about twice a second and at the end.
    Floor {
        /// Whose stream.
        from: ParticipantId,
        /// The key.
        kid: KeyId,
        /// One above the newest accepted counter.
        floor: u64,
    },
    /// Publish: a sealed frame of this device. The stream is in its KID.
    Frame {
        /// Which stream.
        stream: StreamId,
        /// The frame.
        envelope: Envelope,
    },
    /// Watch: the decoder needs a keyframe.
    KeyframeRequest {
        /// Whose stream.
        from: ParticipantId,
        /// Which stream.
        stream: StreamId,
    },
    /// Control: a request as JSON, at most 64 KiB.
    Control(String),
}

/// A meeting's state as elements show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeetingState {
    /// `joining`, `live`, `stale` or `ended`.
    pub phase: String,
    /// One sentence for a person: what it waits for, why it ended, what to do.
    pub detail: String,
    /// The security code in groups of five digits; empty before there is one.
    pub security_code: String,
    /// The newest epoch, 0 before the first.
    pub epoch: u64,
    /// How many are in the roster.
    pub participants: u32,
    /// Whether the leader's chain reaches back to the creator named in the link.
    pub leader_verified: bool,
    /// Whether this user has compared the code that holds now with the leader's.
    pub verified: bool,
}

/// What the agent says.
#[derive(Debug)]
pub enum FromAgent {
    /// The client is served.
    Welcome {
        /// See [`VERSION`].
        version: u16,
        /// The meeting; all zero for Control.
        meeting: MeetingId,
    },
    /// The client is not served; the connection ends.
    Refused {
        /// What is wrong and the command to type.
        text: String,
    },
    /// Keys: the meeting's state, now and at each change.
    State(MeetingState),
    /// Keys: the answer to `OpenStream`.
    StreamOpened {
        /// As asked.
        request: u32,
        /// Its number.
        stream: StreamId,
        /// The label in force.
        track: String,
    },
    /// Keys: the other answer to `OpenStream`.
    StreamRefused {
        /// As asked.
        request: u32,
        /// For a person.
        text: String,
    },
    /// Keys: seal this stream with this key from the next frame on.
    SealKey {
        /// Which stream.
        stream: StreamId,
        /// The epoch of the key.
        epoch: u64,
        /// The KID.
        kid: KeyId,
        /// RFC 9605 cipher suite number.
        suite: u16,
        /// RFC 9605 `base_key`.
        base_key: Secret<32>,
        /// Somebody joined: ask the encoder for a keyframe.
        keyframe: bool,
    },
    /// Keys: seal nothing under epochs below `before` from `at` on.
    Retire {
        /// The first epoch that is not retired.
        before: u64,
        /// CLOCK_BOOTTIME in ms.
        at: BootTime,
    },
    /// Keys: open this stream with this key; said again when its caps have changed.
    OpenKey {
        /// Whose stream.
        from: ParticipantId,
        /// Their name, for messages to a person.
        name: String,
        /// Which stream.
        stream: StreamId,
        /// Its label.
        track: String,
        /// The caps its sender signed.
        caps: String,
        /// The epoch of the key.
        epoch: u64,
        /// The KID.
        kid: KeyId,
        /// RFC 9605 cipher suite number.
        suite: u16,
        /// RFC 9605 `base_key`.
        base_key: Secret<32>,
        /// Counters below are refused.
        floor: u64,
    },
    /// Keys: this stream has ended; drop its keys.
    CloseKey {
        /// Whose stream.
        from: ParticipantId,
        /// Which stream.
        stream: StreamId,
    },
    /// Keys: drop open keys of epochs below.
    Expire {
        /// The first epoch that stays.
        before: u64,
    },
    /// Keys: seal and open until then and no longer, unless told anew.
    Lease {
        /// CLOCK_BOOTTIME in ms; in the past when the meeting is stale.
        until: BootTime,
    },
    /// Watch and Tracks: a stream to open, now or with changed caps.
    Track {
        /// Whose stream.
        from: ParticipantId,
        /// Their name.
        name: String,
        /// Which stream.
        stream: StreamId,
        /// Its label.
        track: String,
        /// What it carries.
        kind: Kind,
        /// The caps its sender signed.
        caps: String,
    },
    /// Watch and Tracks: a stream has ended.
    TrackGone {
        /// Whose stream.
        from: ParticipantId,
        /// Which stream.
        stream: StreamId,
    },
    /// Watch: a sealed frame.
    Frame {
        /// Whose stream.
        from: ParticipantId,
        /// Which stream.
        stream: StreamId,
        /// The frame.
        envelope: Envelope,
    },
    /// Keys: what is known of who sent a stream's frames, when that changes (PROTOCOL.md 5).
    Trust {
        /// Whose stream.
        from: ParticipantId,
        /// Their name.
        name: String,
        /// Which stream.
        stream: StreamId,
        /// Its label.
        track: String,
        /// `waiting`, `vouched`, `unverified` or `forged`.
        trust: String,
        /// One sentence for a person.
        detail: String,
    },
    /// Publish: a subscriber needs a keyframe.
    KeyframeWanted {
        /// Which stream.
        stream: StreamId,
    },
    /// Control: an answer as JSON.
    Control(String),
    /// Tracks: all streams that there were were named; what follows has come since.
    Named,
}

/// Where the agent of this user listens unless told otherwise: `$MEETING_AGENT_SOCKET`, else
/// `meeting-agent/agent.sock` in `$XDG_RUNTIME_DIR` or `/run/user/UID` where that exists, else in
/// `/tmp/meeting-agent-UID`.
pub fn socket_path(
    env: impl Fn(&str) -> Option<OsString>,
    uid: u32,
    exists: impl Fn(&Path) -> bool,
) -> PathBuf {
    let set = |name| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = set("MEETING_AGENT_SOCKET") {
        return path;
    }
    let user = PathBuf::from(format!("/run/user/{uid}"));
    match set("XDG_RUNTIME_DIR").or_else(|| exists(&user).then_some(user)) {
        Some(runtime) => runtime.join("meeting-agent/agent.sock"),
        None => PathBuf::from(format!("/tmp/meeting-agent-{uid}/agent.sock")),
    }
}

/// Owner and mode of the directory that holds a socket.
#[derive(Clone, Debug)]
pub struct Directory {
    /// Where it really is, symbolic links followed.
    pub path: PathBuf,
    /// The user it belongs to.
    pub owner: u32,
    /// Its permission bits.
    pub mode: u32,
}

/// Whether the process of user `peer` behind a socket in `directory` may be trusted with what `user` has to say: it is
/// theirs, or root's, or a service user's whose directory nobody else can write to and strangers cannot enter.
///
/// A directory below `/tmp` is never a service user's: anybody could have made it under the name expected there.
pub fn trusts(user: u32, peer: u32, directory: &Directory) -> bool {
    let ours = |uid: u32| uid == user || uid == 0;
    if directory.mode & 0o022 != 0 {
        return false;
    }
    let service = directory.owner == peer && directory.mode & 0o007 == 0;
    (ours(peer) && ours(directory.owner))
        || (service && !TEMPORARY.iter().any(|tmp| directory.path.starts_with(tmp)))
}

/// Reads a message's length, refusing one above [`MAX_MESSAGE`] before anything is allocated.
pub fn message_len(bytes: [u8; 4]) -> Result<usize, DecodeError> {
    let len = u32::from_be_bytes(bytes) as usize;
    if len > MAX_MESSAGE { Err(DecodeError::TooLong("a local message")) } else { Ok(len) }
}

/// A message behind its length, in memory that is wiped when dropped.
pub fn packed(message: &impl Encode) -> Zeroizing<Vec<u8>> {
    let mut out = Writer::with_capacity(256);
    out.u32(0);
    message.encode(&mut out);
    let mut packed = Zeroizing::new(out.into_bytes());
    let len = (packed.len() - 4) as u32;
    packed[..4].copy_from_slice(&len.to_be_bytes());
    packed
}

/// Where anybody may make a directory of any name.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

impl fmt::Display for MeetingState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (epoch {}, {} people)", self.phase, self.epoch, self.participants)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: u32 = 1000;
    const SERVICE: u32 = 900;

    fn at(path: &str, owner: u32, mode: u32) -> Directory {
        Directory { path: path.into(), owner, mode }
    }

    #[test]
    fn a_socket_is_trusted_where_no_stranger_could_have_put_it() {
        assert!(trusts(ME, ME, &at("/run/user/1000/meeting-agent", ME, 0o700)));
        assert!(trusts(ME, 0, &at("/run/meeting-agent", 0, 0o755)));
        assert!(trusts(ME, SERVICE, &at("/run/meeting-agent", SERVICE, 0o750)));
        for (peer, directory) in [
            (ME, at("/run/meeting-agent", ME, 0o770)),
            (ME, at("/run/meeting-agent", SERVICE, 0o750)),
            (SERVICE, at("/run/meeting-agent", ME, 0o750)),
            (SERVICE, at("/run/meeting-agent", SERVICE, 0o755)),
            (SERVICE, at("/tmp/meeting-agent-1000", SERVICE, 0o750)),
        ] {
            assert!(!trusts(ME, peer, &directory), "{peer} in {directory:?}");
        }
    }
}

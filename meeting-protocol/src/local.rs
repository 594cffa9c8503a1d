//! What an agent and the elements of the same device say to each other over a Unix socket: the only messages
//! outside the core that carry a key, and never the meeting's, only a stream's.
//!
//! Each message is a 32-bit length and that many bytes (PROTOCOL.md 6). The client speaks first with
//! [`ToAgent::Hello`]; the answer is [`FromAgent::Welcome`] or [`FromAgent::Refused`], whose text is for a person.

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use meeting_wire::{
    Decode, DecodeError, Encode, Envelope, Kind, MAX_FRAME, MeetingId, ParticipantId, Reader, StreamId,
    Writer,
};
use zeroize::Zeroizing;

use crate::{BootTime, frame::KeyId, secret::Secret};

/// The version of the local messages.
pub const VERSION: u16 = 1;

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
        /// Caps string, at most 16 KiB.
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
    /// Keys: open this stream with this key.
    OpenKey {
        /// Whose stream.
        from: ParticipantId,
        /// Their name, for messages to a person.
        name: String,
        /// Which stream.
        stream: StreamId,
        /// Its label.
        track: String,
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
    /// Watch: a stream to open, now or with changed caps.
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
    /// Watch: a stream has ended.
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
    /// Publish: a subscriber needs a keyframe.
    KeyframeWanted {
        /// Which stream.
        stream: StreamId,
    },
    /// Control: an answer as JSON.
    Control(String),
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

/// Reads a message's length, refusing one above [`MAX_MESSAGE`] before anything is allocated.
pub fn frame_len(bytes: [u8; 4]) -> Result<usize, DecodeError> {
    let len = u32::from_be_bytes(bytes) as usize;
    if len > MAX_MESSAGE { Err(DecodeError::TooLong("a local message")) } else { Ok(len) }
}

/// A message behind its length, in memory that is wiped when dropped.
pub fn to_frame(message: &impl Encode) -> Zeroizing<Vec<u8>> {
    let mut out = Writer::with_capacity(256);
    out.u32(0);
    message.encode(&mut out);
    let mut frame = Zeroizing::new(out.into_bytes());
    let len = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&len.to_be_bytes());
    frame
}

impl Encode for Purpose {
    fn encode(&self, out: &mut Writer) {
        match self {
            Purpose::Keys { meeting } => {
                out.u8(0);
                out.option(meeting.as_ref());
            }
            Purpose::Publish { meeting } => {
                out.u8(1);
                out.option(meeting.as_ref());
            }
            Purpose::Watch { meeting, participant, track } => {
                out.u8(2);
                out.option(meeting.as_ref());
                out.str(participant);
                out.str(track);
            }
            Purpose::Control => out.u8(3),
        }
    }
}

impl Decode for Purpose {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            0 => Purpose::Keys { meeting: reader.option()? },
            1 => Purpose::Publish { meeting: reader.option()? },
            2 => Purpose::Watch {
                meeting: reader.option()?,
                participant: text(reader, MAX_NAME, "a participant")?,
                track: text(reader, MAX_NAME, "a track")?,
            },
            3 => Purpose::Control,
            _ => return Err(DecodeError::Invalid("the purpose of a local connection")),
        })
    }
}

impl Encode for ToAgent {
    fn encode(&self, out: &mut Writer) {
        match self {
            ToAgent::Hello { version, purpose } => {
                out.u8(0);
                out.u16(*version);
                purpose.encode(out);
            }
            ToAgent::OpenStream { request, kind, track, caps, random } => {
                out.u8(1);
                out.u32(*request);
                kind.encode(out);
                out.str(track);
                out.str(caps);
                out.raw(random);
            }
            ToAgent::StreamCaps { stream, caps } => {
                out.u8(2);
                stream.encode(out);
                out.str(caps);
            }
            ToAgent::CloseStream { stream } => {
                out.u8(3);
                stream.encode(out);
            }
            ToAgent::WantOpenKeys => out.u8(4),
            ToAgent::Floor { from, kid, floor } => {
                out.u8(5);
                from.encode(out);
                out.u64((*kid).into());
                out.u64(*floor);
            }
            ToAgent::Frame { stream, envelope } => {
                out.u8(6);
                stream.encode(out);
                envelope.encode(out);
            }
            ToAgent::KeyframeRequest { from, stream } => {
                out.u8(7);
                from.encode(out);
                stream.encode(out);
            }
            ToAgent::Control(json) => {
                out.u8(8);
                out.str(json);
            }
        }
    }
}

impl Decode for ToAgent {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            0 => ToAgent::Hello { version: reader.u16()?, purpose: Purpose::decode(reader)? },
            1 => ToAgent::OpenStream {
                request: reader.u32()?,
                kind: Kind::decode(reader)?,
                track: text(reader, MAX_NAME, "a track")?,
                caps: text(reader, MAX_CAPS, "caps")?,
                random: reader.array()?,
            },
            2 => ToAgent::StreamCaps {
                stream: StreamId::decode(reader)?,
                caps: text(reader, MAX_CAPS, "caps")?,
            },
            3 => ToAgent::CloseStream { stream: StreamId::decode(reader)? },
            4 => ToAgent::WantOpenKeys,
            5 => ToAgent::Floor {
                from: ParticipantId::decode(reader)?,
                kid: KeyId::from(reader.u64()?),
                floor: reader.u64()?,
            },
            6 => ToAgent::Frame { stream: StreamId::decode(reader)?, envelope: Envelope::decode(reader)? },
            7 => ToAgent::KeyframeRequest {
                from: ParticipantId::decode(reader)?,
                stream: StreamId::decode(reader)?,
            },
            8 => ToAgent::Control(text(reader, MAX_CONTROL, "a request")?),
            _ => return Err(DecodeError::Invalid("the kind of a local message")),
        })
    }
}

impl Encode for MeetingState {
    fn encode(&self, out: &mut Writer) {
        out.str(&self.phase);
        out.str(&self.detail);
        out.str(&self.security_code);
        out.u64(self.epoch);
        out.u32(self.participants);
        out.u8(self.leader_verified as u8);
    }
}

impl Decode for MeetingState {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            phase: text(reader, MAX_NAME, "a phase")?,
            detail: text(reader, MAX_TEXT, "a detail")?,
            security_code: text(reader, MAX_NAME, "a code")?,
            epoch: reader.u64()?,
            participants: reader.u32()?,
            leader_verified: flag(reader)?,
        })
    }
}

impl Encode for FromAgent {
    fn encode(&self, out: &mut Writer) {
        match self {
            FromAgent::Welcome { version, meeting } => {
                out.u8(0);
                out.u16(*version);
                meeting.encode(out);
            }
            FromAgent::Refused { text } => {
                out.u8(1);
                out.str(text);
            }
            FromAgent::State(state) => {
                out.u8(2);
                state.encode(out);
            }
            FromAgent::StreamOpened { request, stream, track } => {
                out.u8(3);
                out.u32(*request);
                stream.encode(out);
                out.str(track);
            }
            FromAgent::StreamRefused { request, text } => {
                out.u8(4);
                out.u32(*request);
                out.str(text);
            }
            FromAgent::SealKey { stream, epoch, kid, suite, base_key, keyframe } => {
                out.u8(5);
                stream.encode(out);
                out.u64(*epoch);
                out.u64((*kid).into());
                out.u16(*suite);
                out.raw(base_key.expose());
                out.u8(*keyframe as u8);
            }
            FromAgent::Retire { before, at } => {
                out.u8(6);
                out.u64(*before);
                out.u64(at.0);
            }
            FromAgent::OpenKey { from, name, stream, track, epoch, kid, suite, base_key, floor } => {
                out.u8(7);
                from.encode(out);
                out.str(name);
                stream.encode(out);
                out.str(track);
                out.u64(*epoch);
                out.u64((*kid).into());
                out.u16(*suite);
                out.raw(base_key.expose());
                out.u64(*floor);
            }
            FromAgent::CloseKey { from, stream } => {
                out.u8(8);
                from.encode(out);
                stream.encode(out);
            }
            FromAgent::Expire { before } => {
                out.u8(9);
                out.u64(*before);
            }
            FromAgent::Lease { until } => {
                out.u8(10);
                out.u64(until.0);
            }
            FromAgent::Track { from, name, stream, track, kind, caps } => {
                out.u8(11);
                from.encode(out);
                out.str(name);
                stream.encode(out);
                out.str(track);
                kind.encode(out);
                out.str(caps);
            }
            FromAgent::TrackGone { from, stream } => {
                out.u8(12);
                from.encode(out);
                stream.encode(out);
            }
            FromAgent::Frame { from, stream, envelope } => {
                out.u8(13);
                from.encode(out);
                stream.encode(out);
                envelope.encode(out);
            }
            FromAgent::KeyframeWanted { stream } => {
                out.u8(14);
                stream.encode(out);
            }
            FromAgent::Control(json) => {
                out.u8(15);
                out.str(json);
            }
        }
    }
}

impl Decode for FromAgent {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            0 => FromAgent::Welcome { version: reader.u16()?, meeting: MeetingId::decode(reader)? },
            1 => FromAgent::Refused { text: text(reader, MAX_TEXT, "a refusal")? },
            2 => FromAgent::State(MeetingState::decode(reader)?),
            3 => FromAgent::StreamOpened {
                request: reader.u32()?,
                stream: StreamId::decode(reader)?,
                track: text(reader, MAX_NAME, "a track")?,
            },
            4 => FromAgent::StreamRefused {
                request: reader.u32()?,
                text: text(reader, MAX_TEXT, "a refusal")?,
            },
            5 => FromAgent::SealKey {
                stream: StreamId::decode(reader)?,
                epoch: reader.u64()?,
                kid: KeyId::from(reader.u64()?),
                suite: reader.u16()?,
                base_key: secret(reader)?,
                keyframe: flag(reader)?,
            },
            6 => FromAgent::Retire { before: reader.u64()?, at: BootTime(reader.u64()?) },
            7 => FromAgent::OpenKey {
                from: ParticipantId::decode(reader)?,
                name: text(reader, MAX_NAME, "a name")?,
                stream: StreamId::decode(reader)?,
                track: text(reader, MAX_NAME, "a track")?,
                epoch: reader.u64()?,
                kid: KeyId::from(reader.u64()?),
                suite: reader.u16()?,
                base_key: secret(reader)?,
                floor: reader.u64()?,
            },
            8 => FromAgent::CloseKey {
                from: ParticipantId::decode(reader)?,
                stream: StreamId::decode(reader)?,
            },
            9 => FromAgent::Expire { before: reader.u64()? },
            10 => FromAgent::Lease { until: BootTime(reader.u64()?) },
            11 => FromAgent::Track {
                from: ParticipantId::decode(reader)?,
                name: text(reader, MAX_NAME, "a name")?,
                stream: StreamId::decode(reader)?,
                track: text(reader, MAX_NAME, "a track")?,
                kind: Kind::decode(reader)?,
                caps: text(reader, MAX_CAPS, "caps")?,
            },
            12 => FromAgent::TrackGone {
                from: ParticipantId::decode(reader)?,
                stream: StreamId::decode(reader)?,
            },
            13 => FromAgent::Frame {
                from: ParticipantId::decode(reader)?,
                stream: StreamId::decode(reader)?,
                envelope: Envelope::decode(reader)?,
            },
            14 => FromAgent::KeyframeWanted { stream: StreamId::decode(reader)? },
            15 => FromAgent::Control(text(reader, MAX_ANSWER, "an answer")?),
            _ => return Err(DecodeError::Invalid("the kind of a local message")),
        })
    }
}

impl fmt::Display for MeetingState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (epoch {}, {} people)", self.phase, self.epoch, self.participants)
    }
}

fn text(reader: &mut Reader<'_>, max: usize, what: &'static str) -> Result<String, DecodeError> {
    reader.str(max, what).map(str::to_owned)
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Invalid("a flag")),
    }
}

fn secret(reader: &mut Reader<'_>) -> Result<Secret<32>, DecodeError> {
    let bytes = reader.raw(32)?;
    Ok(Secret::init_with(|key| key.copy_from_slice(bytes)))
}

/// Names and labels in bytes; display names are limited to 64 before they get here.
const MAX_NAME: usize = 256;
/// Sentences for a person in bytes.
const MAX_TEXT: usize = 4096;
/// A caps string in bytes: `codec_data` of a few kilobytes in hex fits.
const MAX_CAPS: usize = 16 * 1024;
/// A request of the command line in bytes.
const MAX_CONTROL: usize = 64 * 1024;
/// An answer to the command line in bytes: the roster of a meeting of 1,000 fits.
const MAX_ANSWER: usize = 1024 * 1024;

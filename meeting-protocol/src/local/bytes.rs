//! The byte forms of the local messages: a tag in the order of the enums, then the fields in theirs.

use meeting_wire::{
    Decode, DecodeError, Encode, Envelope, Kind, MeetingId, ParticipantId, Reader, StreamId, Writer,
};

use super::{FromAgent, MeetingState, Purpose, ToAgent};
use crate::{BootTime, MAX_CAPS, frame::KeyId, secret::Secret};

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
            Purpose::Tracks { meeting } => {
                out.u8(4);
                out.option(meeting.as_ref());
            }
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
            4 => Purpose::Tracks { meeting: reader.option()? },
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
        out.u8(self.verified as u8);
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
            verified: flag(reader)?,
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
            FromAgent::OpenKey { from, name, stream, track, caps, epoch, kid, suite, base_key, floor } => {
                out.u8(7);
                from.encode(out);
                out.str(name);
                stream.encode(out);
                out.str(track);
                out.str(caps);
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
            FromAgent::Trust { from, name, stream, track, trust, detail } => {
                out.u8(16);
                from.encode(out);
                out.str(name);
                stream.encode(out);
                out.str(track);
                out.str(trust);
                out.str(detail);
            }
            FromAgent::Named => out.u8(17),
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
                caps: text(reader, MAX_CAPS, "caps")?,
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
            16 => FromAgent::Trust {
                from: ParticipantId::decode(reader)?,
                name: text(reader, MAX_NAME, "a name")?,
                stream: StreamId::decode(reader)?,
                track: text(reader, MAX_NAME, "a track")?,
                trust: text(reader, MAX_NAME, "a word")?,
                detail: text(reader, MAX_TEXT, "a sentence")?,
            },
            17 => FromAgent::Named,
            _ => return Err(DecodeError::Invalid("the kind of a local message")),
        })
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
/// A request of the command line in bytes.
const MAX_CONTROL: usize = 64 * 1024;
/// An answer to the command line in bytes: the roster of a meeting of 1,000 fits.
const MAX_ANSWER: usize = 1024 * 1024;

#[cfg(test)]
mod tests;

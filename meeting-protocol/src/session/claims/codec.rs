//! The bytes of claims (PROTOCOL.md 3.11).

use meeting_wire::{Decode, DecodeError, Encode, InstanceId, MeetingId, ParticipantId, Reader, Writer};

use super::{
    Answer, Ask, Head, Heartbeat, Leads, Leave, MAX_ECHOES, Over, Pulse, Resignation, Show, SilenceVote,
    Verdict,
};
use crate::roster::counter;

impl Encode for Heartbeat {
    fn encode(&self, out: &mut Writer) {
        self.meeting.encode(out);
        self.instance.encode(out);
        self.leader.encode(out);
        out.u64(self.counter);
        out.u64(self.head_number);
        out.raw(&self.head);
        out.u64(self.epoch);
        out.raw(&self.epoch_link);
        out.raw(&self.challenge);
        out.u64(self.time);
        out.raw(&self.previous);
        out.list(&self.echoes);
    }
}

impl Decode for Heartbeat {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            meeting: MeetingId::decode(reader)?,
            instance: InstanceId::decode(reader)?,
            leader: ParticipantId::decode(reader)?,
            counter: counter(reader)?,
            head_number: counter(reader)?,
            head: reader.array()?,
            epoch: counter(reader)?,
            epoch_link: reader.array()?,
            challenge: reader.array()?,
            time: counter(reader)?,
            previous: reader.array()?,
            echoes: reader.list(MAX_ECHOES, "the echoes of a heartbeat")?,
        })
    }
}

impl Encode for Pulse {
    fn encode(&self, out: &mut Writer) {
        self.meeting.encode(out);
        self.instance.encode(out);
        self.participant.encode(out);
        out.raw(&self.nonce);
        out.raw(&self.head);
        out.raw(&self.epoch_link);
        out.u64(self.heard);
    }
}

impl Decode for Pulse {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            meeting: MeetingId::decode(reader)?,
            instance: InstanceId::decode(reader)?,
            participant: ParticipantId::decode(reader)?,
            nonce: reader.array()?,
            head: reader.array()?,
            epoch_link: reader.array()?,
            heard: counter(reader)?,
        })
    }
}

impl Encode for Answer {
    fn encode(&self, out: &mut Writer) {
        self.meeting.encode(out);
        self.instance.encode(out);
        self.leader.encode(out);
        self.to.encode(out);
        out.raw(&self.announce);
        out.u8(match self.verdict {
            Verdict::Waiting => 0,
            Verdict::Renew => 1,
            Verdict::Locked => 2,
            Verdict::Refused => 3,
        });
    }
}

impl Decode for Answer {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            meeting: MeetingId::decode(reader)?,
            instance: InstanceId::decode(reader)?,
            leader: ParticipantId::decode(reader)?,
            to: ParticipantId::decode(reader)?,
            announce: reader.array()?,
            verdict: match reader.u8()? {
                0 => Verdict::Waiting,
                1 => Verdict::Renew,
                2 => Verdict::Locked,
                3 => Verdict::Refused,
                _ => return Err(DecodeError::Invalid("the verdict of an answer")),
            },
        })
    }
}

impl Encode for Ask {
    fn encode(&self, out: &mut Writer) {
        self.meeting.encode(out);
        self.instance.encode(out);
        self.participant.encode(out);
        out.raw(&self.head);
        out.u64(self.epoch);
    }
}

impl Decode for Ask {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            meeting: MeetingId::decode(reader)?,
            instance: InstanceId::decode(reader)?,
            participant: ParticipantId::decode(reader)?,
            head: reader.array()?,
            epoch: counter(reader)?,
        })
    }
}

impl Encode for Head {
    fn encode(&self, out: &mut Writer) {
        self.meeting.encode(out);
        self.instance.encode(out);
        self.participant.encode(out);
        out.u64(self.number);
        out.raw(&self.head);
        out.u64(self.epoch);
        out.raw(&self.epoch_link);
    }
}

impl Decode for Head {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            meeting: MeetingId::decode(reader)?,
            instance: InstanceId::decode(reader)?,
            participant: ParticipantId::decode(reader)?,
            number: counter(reader)?,
            head: reader.array()?,
            epoch: counter(reader)?,
            epoch_link: reader.array()?,
        })
    }
}

impl Encode for Show {
    fn encode(&self, out: &mut Writer) {
        self.meeting.encode(out);
        self.instance.encode(out);
        self.participant.encode(out);
        out.u64(self.number);
        out.u64(self.epoch);
    }
}

impl Decode for Show {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            meeting: MeetingId::decode(reader)?,
            instance: InstanceId::decode(reader)?,
            participant: ParticipantId::decode(reader)?,
            number: counter(reader)?,
            epoch: counter(reader)?,
        })
    }
}

impl Encode for Leads {
    fn encode(&self, out: &mut Writer) {
        self.meeting.encode(out);
        self.instance.encode(out);
        self.leader.encode(out);
        out.raw(&self.challenge);
    }
}

impl Decode for Leads {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            meeting: MeetingId::decode(reader)?,
            instance: InstanceId::decode(reader)?,
            leader: ParticipantId::decode(reader)?,
            challenge: reader.array()?,
        })
    }
}

impl Encode for SilenceVote {
    fn encode(&self, out: &mut Writer) {
        self.meeting.encode(out);
        self.instance.encode(out);
        self.participant.encode(out);
        self.leader.encode(out);
        out.u64(self.head_number);
        out.raw(&self.head);
        out.u64(self.heartbeat);
    }
}

impl Decode for SilenceVote {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            meeting: MeetingId::decode(reader)?,
            instance: InstanceId::decode(reader)?,
            participant: ParticipantId::decode(reader)?,
            leader: ParticipantId::decode(reader)?,
            head_number: counter(reader)?,
            head: reader.array()?,
            heartbeat: counter(reader)?,
        })
    }
}

impl Encode for Resignation {
    fn encode(&self, out: &mut Writer) {
        self.meeting.encode(out);
        self.instance.encode(out);
        self.leader.encode(out);
        out.raw(&self.head);
        self.successor.encode(out);
    }
}

impl Decode for Resignation {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            meeting: MeetingId::decode(reader)?,
            instance: InstanceId::decode(reader)?,
            leader: ParticipantId::decode(reader)?,
            head: reader.array()?,
            successor: ParticipantId::decode(reader)?,
        })
    }
}

impl Encode for Leave {
    fn encode(&self, out: &mut Writer) {
        self.meeting.encode(out);
        self.instance.encode(out);
        self.participant.encode(out);
    }
}

impl Decode for Leave {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            meeting: MeetingId::decode(reader)?,
            instance: InstanceId::decode(reader)?,
            participant: ParticipantId::decode(reader)?,
        })
    }
}

impl Encode for Over {
    fn encode(&self, out: &mut Writer) {
        self.meeting.encode(out);
        self.instance.encode(out);
        self.leader.encode(out);
    }
}

impl Decode for Over {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            meeting: MeetingId::decode(reader)?,
            instance: InstanceId::decode(reader)?,
            leader: ParticipantId::decode(reader)?,
        })
    }
}

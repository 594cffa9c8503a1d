//! What a leader signs that can be held against it, and when two such words contradict each other.

use std::fmt;

use meeting_wire::{Decode, DecodeError, Encode, InstanceId, MeetingId, ParticipantId, Reader, Writer};

use crate::{
    beacon::{Context, SignedBeacon},
    crypto::sign::{Hash, Signed, StayPublic},
    roster::{Link, SignedLink},
    session::{claims::Heartbeat, statement::Statement},
};

/// Something a leader has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Link(SignedLink),
    Heartbeat(Signed<Heartbeat>),
    Statement(Signed<Statement>),
    Beacon(SignedBeacon),
}

/// Something that can be only one way in one run of a meeting, as its leader says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fact {
    /// Which link has this number.
    Link(u64),
    /// Which link opened this epoch.
    Epoch(u64),
    /// Which heartbeat has this number.
    Beat(u64),
}

/// What cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Two links have this number.
    Links(u64),
    /// Two links opened this epoch.
    Epochs(u64),
    /// Two heartbeats have this number.
    Heartbeats(u64),
    /// What was signed later is older.
    Time,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Links(number) => write!(f, "signed for two different links number {number}"),
            Fault::Epochs(epoch) => write!(f, "signed for two different links that open epoch {epoch}"),
            Fault::Heartbeats(number) => write!(f, "signed for two different heartbeats number {number}"),
            Fault::Time => write!(f, "signed times that go back"),
        }
    }
}

/// Why these two, by one signer in one run of a meeting, cannot both be honest; none if they can.
///
/// An honest leader has one chain: one link of a number, one for an epoch, one heartbeat of a number, and a clock that
/// does not go back.
pub(crate) fn contradiction_of(first: &Word, second: &Word) -> Option<Fault> {
    let (ours, theirs) = (first.facts(), second.facts());
    let differs = ours.iter().find_map(|(fact, hash)| {
        theirs.iter().any(|(other, theirs)| other == fact && theirs != hash).then_some(match fact {
            Fact::Link(number) => Fault::Links(*number),
            Fact::Epoch(epoch) => Fault::Epochs(*epoch),
            Fact::Beat(number) => Fault::Heartbeats(*number),
        })
    });
    let back = || match (first, second) {
        (Word::Link(a), Word::Link(b)) => {
            goes_back((a.body.number, a.body.time), (b.body.number, b.body.time))
        }
        (Word::Heartbeat(a), Word::Heartbeat(b)) => {
            goes_back((a.body.counter, a.body.time), (b.body.counter, b.body.time))
        }
        _ => false,
    };
    differs.or_else(|| back().then_some(Fault::Time))
}

fn goes_back((number, time): (u64, u64), (other, later): (u64, u64)) -> bool {
    (number < other && time > later) || (number > other && time < later)
}

impl Word {
    /// What it says that can be only one way.
    pub fn facts(&self) -> Vec<(Fact, Hash)> {
        let mut facts = Vec::new();
        match self {
            Word::Link(link) => {
                let (body, hash) = (&link.body, link.body.hash());
                facts.push((Fact::Link(body.number), hash));
                facts.extend(body.opening.map(|opening| (Fact::Epoch(opening.epoch), hash)));
                facts.extend(body.number.checked_sub(1).map(|last| (Fact::Link(last), body.previous)));
            }
            Word::Heartbeat(beat) => {
                let body = &beat.body;
                facts.push((Fact::Link(body.head_number), body.head));
                facts.push((Fact::Epoch(body.epoch), body.epoch_link));
                facts.push((Fact::Beat(body.counter), body.hash()));
                // The first has none before it.
                facts.extend((body.counter > 1).then(|| (Fact::Beat(body.counter - 1), body.previous)));
            }
            Word::Statement(statement) => {
                facts.push((Fact::Epoch(statement.body.epoch), statement.body.link));
            }
            Word::Beacon(beacon) => facts.push((Fact::Epoch(beacon.body.epoch), beacon.body.link)),
        }
        facts
    }

    /// Whether this stay signed it in this run of this meeting.
    pub fn is_by(&self, (who, key): (ParticipantId, &StayPublic), of: (MeetingId, InstanceId)) -> bool {
        match self {
            Word::Link(link) => {
                let body = &link.body;
                (body.leader, body.meeting, body.instance) == (who, of.0, of.1) && link.is_by(key)
            }
            Word::Heartbeat(beat) => {
                let body = &beat.body;
                (body.leader, body.meeting, body.instance) == (who, of.0, of.1) && beat.is_by(key)
            }
            Word::Statement(statement) => {
                let body = &statement.body;
                (body.participant, body.meeting, body.instance) == (who, of.0, of.1) && statement.is_by(key)
            }
            Word::Beacon(beacon) => {
                beacon.is_by(key, &Context { meeting: &of.0.0, instance: &of.1.0, sender: &who.0 })
            }
        }
    }

    /// The link, if it is one.
    pub fn link(&self) -> Option<&Link> {
        match self {
            Word::Link(link) => Some(&link.body),
            _ => None,
        }
    }

    /// What it is, for a person.
    pub fn kind(&self) -> &'static str {
        match self {
            Word::Link(_) => "a link of the roster's chain",
            Word::Heartbeat(_) => "a heartbeat",
            Word::Statement(_) => "a stream statement",
            Word::Beacon(_) => "a beacon",
        }
    }
}

impl Encode for Word {
    fn encode(&self, out: &mut Writer) {
        match self {
            Word::Link(link) => {
                out.u8(0);
                link.encode(out);
            }
            Word::Heartbeat(beat) => {
                out.u8(1);
                beat.encode(out);
            }
            Word::Statement(statement) => {
                out.u8(2);
                statement.encode(out);
            }
            Word::Beacon(beacon) => {
                out.u8(3);
                beacon.encode(out);
            }
        }
    }
}

impl Decode for Word {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            0 => Word::Link(SignedLink::decode(reader)?),
            1 => Word::Heartbeat(Signed::decode(reader)?),
            2 => Word::Statement(Signed::decode(reader)?),
            3 => Word::Beacon(SignedBeacon::decode(reader)?),
            _ => return Err(DecodeError::Invalid("the kind of a word")),
        })
    }
}

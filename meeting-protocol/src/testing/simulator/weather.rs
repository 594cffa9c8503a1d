//! The network and the relay's will: what becomes of each parcel on its way.

use bytes::Bytes;
use meeting_wire::{Envelope, ParticipantId, Post, StreamId};

use super::dice::Dice;
use crate::session::message::Message;

/// What travels.
#[derive(Clone)]
pub(super) enum Parcel {
    Post(Post),
    Frame { from: ParticipantId, stream: StreamId, envelope: Envelope },
    Beacon { from: ParticipantId, body: Bytes },
}

/// What a post is about. A relay can guess it by size; one that was given the link can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    Link,
    Wrap,
    Heartbeat,
    Pulse,
    Announce,
    Statement,
    Other,
    Noise,
    Frame,
    Beacon,
}

impl Topic {
    pub fn of(message: &Message) -> Self {
        match message {
            Message::Link(_) | Message::Links(_) | Message::Branch(_) => Self::Link,
            Message::Wrap(_) => Self::Wrap,
            Message::Heartbeat(_) => Self::Heartbeat,
            Message::Pulse(_) => Self::Pulse,
            Message::Announce(_) | Message::Welcome(_) => Self::Announce,
            Message::Statement(_) => Self::Statement,
            _ => Self::Other,
        }
    }

    const TARGETS: [Self; 9] = [
        Self::Link,
        Self::Wrap,
        Self::Heartbeat,
        Self::Heartbeat,
        Self::Pulse,
        Self::Announce,
        Self::Statement,
        Self::Frame,
        Self::Beacon,
    ];
}

/// One device's way to the relay.
pub(super) struct Path {
    pub latency: u64,
    pub jitter: u64,
    /// In percent: what is lost of a stream comes later, what is lost of a datagram does not.
    pub loss: u64,
}

impl Path {
    pub fn new(calm: bool, dice: &mut Dice) -> Self {
        if calm {
            return Self { latency: dice.between(5, 80), jitter: dice.between(0, 20), loss: 0 };
        }
        Self { latency: dice.between(2, 200), jitter: dice.between(0, 150), loss: dice.between(0, 12) }
    }

    /// How long a parcel takes; none if it is lost.
    pub fn time(&self, topic: Topic, dice: &mut Dice) -> Option<u64> {
        let time = self.latency + dice.between(0, self.jitter + 1);
        let lost = dice.chance(self.loss);
        match topic {
            Topic::Frame | Topic::Beacon if lost => None,
            _ if lost => Some(time + self.latency * 2 + dice.between(50, 600)),
            _ => Some(time),
        }
    }
}

/// Something an evil relay does for a while.
pub(super) struct Mood {
    /// None means to everything.
    topic: Option<Topic>,
    /// None means to everybody.
    victim: Option<usize>,
    pub until: u64,
    act: Act,
    /// Parcels it has met.
    met: u64,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Drop,
    Delay(u64),
    /// Each at a time of its own: out of order.
    Shuffle(u64),
    Twice,
    /// One by one, each a little later than the one before.
    Drip(u64),
    /// As freshly as others get it, but only every third.
    Thin,
    /// With a bit changed; what was said may follow.
    Alter,
    /// And something of the same kind from before.
    Again,
}

/// What becomes of a parcel, or comes in its place.
pub(super) enum Fate {
    /// It goes on, so much later.
    On(u64),
    /// It goes on altered.
    Altered,
    /// An earlier one of its kind goes on.
    Again,
}

impl Mood {
    pub fn new(now: u64, people: usize, dice: &mut Dice) -> (Self, String) {
        let topic = if dice.chance(85) { dice.pick(&Topic::TARGETS) } else { None };
        let victim = dice.chance(70).then(|| dice.between(0, people as u64) as usize);
        let act = match dice.between(0, 8) {
            0 => Act::Drop,
            1 => Act::Delay(dice.between(100, 7_000)),
            2 => Act::Shuffle(dice.between(100, 5_000)),
            3 => Act::Twice,
            4 => Act::Drip(dice.between(500, 7_500)),
            5 => Act::Alter,
            6 => Act::Again,
            _ => Act::Thin,
        };
        let until = now + dice.between(1_000, 45_000);
        let text = format!("relay: {act:?} {topic:?} to {victim:?} until {until}");
        (Self { topic, victim, until, act, met: 0 }, text)
    }

    /// What it does.
    pub fn name(&self) -> &'static str {
        match self.act {
            Act::Drop => "drop",
            Act::Delay(_) => "delay",
            Act::Shuffle(_) => "shuffle",
            Act::Twice => "twice",
            Act::Drip(_) => "drip",
            Act::Thin => "thin",
            Act::Alter => "alter",
            Act::Again => "again",
        }
    }

    /// What becomes of a parcel, one for each that comes. None where it is not our business.
    pub fn fate(&mut self, to: usize, topic: Topic, dice: &mut Dice) -> Option<Vec<Fate>> {
        if self.topic.is_some_and(|of| of != topic) || self.victim.is_some_and(|victim| victim != to) {
            return None;
        }
        self.met += 1;
        Some(match self.act {
            Act::Drop => vec![],
            Act::Delay(ms) => vec![Fate::On(ms)],
            Act::Shuffle(ms) => vec![Fate::On(1 + dice.between(0, ms))],
            Act::Twice => vec![Fate::On(0), Fate::On(dice.between(1, 3_000))],
            Act::Drip(ms) => vec![Fate::On((self.met * ms).min(60_000))],
            Act::Thin if self.met.is_multiple_of(3) => vec![Fate::On(0)],
            Act::Thin => vec![],
            Act::Alter if dice.chance(50) => vec![Fate::Altered, Fate::On(dice.between(1, 3_000))],
            Act::Alter => vec![Fate::Altered],
            Act::Again => vec![Fate::On(0), Fate::Again],
        })
    }
}

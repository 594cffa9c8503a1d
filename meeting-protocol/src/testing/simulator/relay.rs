//! The relay: a board as PROTOCOL.md 2.1 has it, and what an evil one does beside.

use std::collections::BTreeMap;

use meeting_wire::{Envelope, ParticipantId, Post, Slot};

use super::{
    World,
    dice::Dice,
    weather::{Mood, Parcel, Topic},
};
use crate::{beacon::FrameDigest, session::message::Message};

/// The board.
#[derive(Default)]
pub(super) struct Relay {
    pub log: Vec<Post>,
    pub seq: u64,
    pub cells: BTreeMap<ParticipantId, Post>,
    pub moods: Vec<Mood>,
    /// Until when it shows two boards, and who is on which.
    pub fork: Option<(u64, u64)>,
    /// Everything it ever saw.
    pub kept: Vec<(Parcel, Topic)>,
}

impl Relay {
    fn fates(&mut self, now: u64, to: usize, topic: Topic, dice: &mut Dice) -> Vec<u64> {
        self.moods.retain(|mood| mood.until > now);
        self.moods.iter_mut().find_map(|mood| mood.fate(to, topic, dice)).unwrap_or_else(|| vec![0])
    }

    /// Whether a forked board keeps these two apart.
    fn apart(&self, now: u64, one: usize, other: usize) -> bool {
        self.fork.is_some_and(|(until, sides)| now < until && (sides >> one ^ sides >> other) & 1 == 1)
    }

    fn keep(&mut self, parcel: &Parcel, topic: Topic) {
        if self.kept.len() >= KEPT {
            self.kept.drain(..KEPT / 2);
        }
        self.kept.push((parcel.clone(), topic));
    }
}

impl World {
    /// A parcel has reached the relay.
    pub(super) fn relays(&mut self, from: usize, mut parcel: Parcel) {
        let topic = self.topic(&parcel);
        let mut only = None;
        if let Parcel::Post(post) = &mut parcel {
            match post.slot {
                Slot::Log => {
                    self.relay.seq += 1;
                    post.seq = self.relay.seq;
                    self.relay.log.push(post.clone());
                    if self.relay.log.len() > 4096 {
                        self.relay.log.remove(0);
                    }
                }
                Slot::Cell => {
                    self.relay.cells.insert(post.from, post.clone());
                }
                Slot::Direct(to) => only = Some(to),
            }
        }
        self.relay.keep(&parcel, topic);
        for to in 0..self.devices.len() {
            let addressed = only.is_none_or(|only| self.devices[to].me() == Some(only));
            if to != from && addressed && !self.relay.apart(self.now, from, to) {
                self.hand(to, parcel.clone(), topic);
            }
        }
    }

    /// Hands a parcel to somebody, as the relay's mood is.
    pub(super) fn hand(&mut self, to: usize, parcel: Parcel, topic: Topic) {
        for late in self.relay.fates(self.now, to, topic, &mut self.dice) {
            self.send_down(to, parcel.clone(), topic, late);
        }
    }

    /// What a new connection is told first.
    pub(super) fn replay_board(&mut self, to: usize) {
        let (me, seen) = (self.devices[to].me(), self.devices[to].seen);
        let author = |world: &Self, post: &Post| {
            world.devices.iter().position(|device| device.me() == Some(post.from))
        };
        let posts: Vec<Post> = self
            .relay
            .log
            .iter()
            .filter(|post| seen.is_some_and(|seen| post.seq > seen))
            .chain(self.relay.cells.values())
            .filter(|post| Some(post.from) != me)
            .filter(|post| author(self, post).is_none_or(|from| !self.relay.apart(self.now, from, to)))
            .cloned()
            .collect();
        for post in posts {
            let parcel = Parcel::Post(post);
            let topic = self.topic(&parcel);
            self.hand(to, parcel, topic);
        }
    }

    /// An evil relay has an idea.
    pub(super) fn mischief(&mut self) {
        let now = self.now;
        match self.dice.between(0, 10) {
            0..=4 => {
                let (mood, text) = Mood::new(now, self.devices.len(), &mut self.dice);
                self.trace.line(now, text);
                self.relay.moods.push(mood);
            }
            5 => {
                let until = now + self.dice.between(1_000, 40_000);
                let sides = self.dice.between(0, 1 << self.devices.len());
                self.trace.line(now, format!("relay: two boards {sides:b} until {until}"));
                self.relay.fork = Some((until, sides));
            }
            6 if self.dice.chance(30) => self.play_joins_again(),
            6 | 7 => self.play_again(),
            8 => self.play_altered(),
            _ => self.roll_back(),
        }
    }

    /// Some of what was said, to anybody, as from anybody.
    fn play_again(&mut self) {
        for _ in 0..self.dice.between(1, 60) {
            let Some((mut parcel, topic)) = self.dice.pick(&self.relay.kept) else { return };
            let to = self.somebody();
            match &mut parcel {
                Parcel::Post(post) if self.dice.chance(30) => {
                    let other = self.somebody();
                    if let Some(other) = self.devices[other].me() {
                        post.from = other;
                    }
                }
                Parcel::Frame { from, stream, .. } if self.dice.chance(30) => {
                    // as another stream, or as somebody else's
                    let other = self.somebody();
                    if let Some(me) = self.devices[other].me() {
                        *from = me;
                    }
                    stream.0 = self.dice.between(1, 4) as u32;
                }
                _ => {}
            }
            self.send_down(to, parcel, topic, 0);
        }
        self.trace.line(self.now, "relay: plays again".into());
    }

    /// To all, as if those who once came in came again.
    fn play_joins_again(&mut self) {
        let is_announce = |post: &Post| matches!(self.read(&post.body), Some(Message::Announce(_)));
        let posts = self.relay.kept.iter().filter(|(_, topic)| *topic == Topic::Announce);
        let announces: Vec<Parcel> = posts
            .filter(|(parcel, _)| matches!(parcel, Parcel::Post(post) if is_announce(post)))
            .map(|(parcel, _)| parcel.clone())
            .collect();
        for parcel in announces {
            for to in 0..self.devices.len() {
                self.send_down(to, parcel.clone(), Topic::Announce, 0);
            }
        }
        self.trace.line(self.now, "relay: plays joins again".into());
    }

    /// To one whose pipelines have started anew, what they may have had.
    pub(super) fn play_frames_again(&mut self, to: usize) {
        let frames = self.relay.kept.iter().rev().filter(|(_, topic)| *topic == Topic::Frame);
        let frames: Vec<_> = frames.take(FRAMES).cloned().collect();
        for (parcel, topic) in frames {
            self.send_down(to, parcel, topic, 0);
        }
    }

    /// What was said with a bit of it changed.
    fn play_altered(&mut self) {
        for _ in 0..self.dice.between(1, 30) {
            let Some((mut parcel, topic)) = self.dice.pick(&self.relay.kept) else { return };
            let to = self.somebody();
            self.alter(&mut parcel);
            self.send_down(to, parcel, topic, 0);
        }
        self.trace.line(self.now, "relay: plays altered".into());
    }

    /// Changes a bit of a parcel: as sealed, or inside, since the relay was given the link.
    fn alter(&mut self, parcel: &mut Parcel) {
        match parcel {
            Parcel::Post(post) => {
                let inside = self.dice.chance(70);
                let opened = self.board.open(&post.body).filter(|_| inside);
                let altered = opened.map(|(instance, mut message)| {
                    flip(&mut message, &mut self.dice);
                    self.board.seal(instance, &message, &mut self.dice.0)
                });
                post.body = altered.unwrap_or_else(|| {
                    let mut body = post.body.to_vec();
                    flip(&mut body, &mut self.dice);
                    body.into()
                });
            }
            Parcel::Frame { envelope, .. } => self.alter_frame(envelope),
            Parcel::Beacon { body, .. } => {
                let mut altered = body.to_vec();
                flip(&mut altered, &mut self.dice);
                *body = altered.into();
            }
        }
    }

    /// Changes a frame, or what stands beside it and is not sealed: then it opens, and a beacon speaks of another one.
    fn alter_frame(&mut self, envelope: &mut Envelope) {
        match self.dice.between(0, 6) {
            0 => envelope.pts = Some(self.dice.between(0, 1 << 40)),
            1 => envelope.duration = Some(self.dice.between(0, 1 << 40)),
            2 => envelope.flags.0 ^= 1 << self.dice.between(0, 8),
            3 => envelope.layer ^= 1,
            _ => {
                let mut sealed = envelope.sealed.to_vec();
                flip(&mut sealed, &mut self.dice);
                envelope.sealed = sealed.into();
                return;
            }
        }
        self.altered.insert(FrameDigest::of(envelope).0);
    }

    /// The board as it was a while ago, to one or to all who come.
    fn roll_back(&mut self) {
        let keep = self.relay.log.len() as u64;
        let keep = self.dice.between(0, keep.max(1)) as usize;
        self.relay.log.truncate(keep);
        let old: Vec<Post> = self
            .relay
            .kept
            .iter()
            .filter(|(_, topic)| *topic == Topic::Heartbeat)
            .filter_map(|(parcel, _)| if let Parcel::Post(post) = parcel { Some(post.clone()) } else { None })
            .collect();
        if let Some(post) = self.dice.pick(&old) {
            self.relay.cells.insert(post.from, post);
        }
        self.trace.line(self.now, format!("relay: back to {keep} posts"));
    }
}

fn flip(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let at = dice.between(0, bytes.len() as u64) as usize;
    match dice.between(0, 8) {
        0 => bytes.truncate(at),
        1 => bytes.push(0),
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << dice.between(0, 8);
            }
        }
    }
}

/// Parcels it remembers, for playing them again.
const KEPT: usize = 4_000;
/// Frames of the last half minute or so.
const FRAMES: usize = 400;

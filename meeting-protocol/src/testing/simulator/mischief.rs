//! What an evil relay does beside its moods: what was said comes again or altered, and the board goes back.

use meeting_wire::{Envelope, Post, Slot};

use super::{
    World,
    dice::Dice,
    relay::Rollback,
    weather::{Mood, Parcel, Topic},
};
use crate::{beacon::FrameDigest, session::message::Message};

impl World {
    /// An evil relay has an idea.
    pub(super) fn mischief(&mut self) {
        let now = self.now;
        match self.dice.between(0, 10) {
            0..=4 => {
                let (mood, text) = Mood::new(now, self.devices.len(), &mut self.dice);
                self.trace.line(now, text);
                self.tally.did(format!("mood {}", mood.name()));
                self.relay.moods.push(mood);
            }
            5 => {
                let until = now + self.dice.between(1_000, 40_000);
                let sides = self.dice.between(0, 1 << self.devices.len());
                self.trace.line(now, format!("relay: two boards {sides:b} until {until}"));
                self.tally.did("two boards");
                self.relay.fork = Some((until, sides));
            }
            6 if self.dice.chance(50) => self.play_joins_again(),
            6 | 7 => self.play_again(),
            8 => self.play_altered(),
            _ => self.roll_back(),
        }
    }

    /// Some of what was said: half of it to whom it was for, the rest to anybody and as from anybody.
    fn play_again(&mut self) {
        for _ in 0..self.dice.between(1, 60) {
            let Some((mut parcel, topic)) = self.recall() else { return };
            if let Some(owner) = self.owner(&parcel).filter(|_| self.dice.chance(50)) {
                self.tally.did("played again to its owner");
                self.send_down(owner, parcel, topic, 0);
                continue;
            }
            self.tally.did("played again to anybody");
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

    /// One of all the parcels, posts as often as media.
    fn recall(&mut self) -> Option<(Parcel, Topic)> {
        let of = if self.dice.chance(50) { &self.relay.posts } else { &self.relay.media };
        let kept = self.dice.pick(of)?;
        Some((kept.parcel, kept.topic))
    }

    /// The one whom a post is for, if it is for one who is there.
    fn owner(&self, parcel: &Parcel) -> Option<usize> {
        let Parcel::Post(Post { slot: Slot::Direct(to), .. }) = parcel else { return None };
        self.devices.iter().position(|device| device.me() == Some(*to))
    }

    /// Something of this topic that this one was told before.
    pub(super) fn recall_for(&mut self, to: usize, topic: Topic) -> Option<Parcel> {
        let me = self.devices[to].me();
        let is_for = |parcel: &Parcel| match parcel {
            Parcel::Post(Post { slot: Slot::Direct(owner), .. }) => Some(*owner) == me,
            _ => true,
        };
        let kept =
            self.relay.posts.iter().rev().take(LATELY).chain(self.relay.media.iter().rev().take(LATELY));
        let parcels: Vec<&Parcel> = kept
            .filter(|kept| kept.topic == topic && is_for(&kept.parcel))
            .map(|kept| &kept.parcel)
            .collect();
        self.dice.pick(&parcels).cloned()
    }

    /// To all, as if those who once came in came again.
    fn play_joins_again(&mut self) {
        let is_announce = |post: &Post| matches!(self.read(&post.body), Some(Message::Announce(_)));
        let posts = self.relay.posts.iter().filter(|kept| kept.topic == Topic::Announce);
        let announces: Vec<Parcel> = posts
            .filter(|kept| matches!(&kept.parcel, Parcel::Post(post) if is_announce(post)))
            .map(|kept| kept.parcel.clone())
            .collect();
        for parcel in announces {
            self.tally.did("join played again");
            for to in 0..self.devices.len() {
                self.send_down(to, parcel.clone(), Topic::Announce, 0);
            }
        }
        self.trace.line(self.now, "relay: plays joins again".into());
    }

    /// To one whose pipelines have started anew, what they may have had.
    pub(super) fn play_frames_again(&mut self, to: usize) {
        let frames = self.relay.media.iter().rev().filter(|kept| kept.topic == Topic::Frame);
        let frames: Vec<Parcel> = frames.take(LATELY).map(|kept| kept.parcel.clone()).collect();
        for parcel in frames {
            self.tally.did("frame played again after a crash");
            self.send_down(to, parcel, Topic::Frame, 0);
        }
    }

    /// What was said with a bit of it changed, to whom it was for where it was for one.
    fn play_altered(&mut self) {
        for _ in 0..self.dice.between(1, 30) {
            let Some((mut parcel, topic)) = self.recall() else { return };
            let to = self.somebody();
            let to = self.owner(&parcel).unwrap_or(to);
            self.alter(&mut parcel);
            self.send_down(to, parcel, topic, 0);
        }
        self.trace.line(self.now, "relay: plays altered".into());
    }

    /// Changes a bit of a parcel: as sealed, or inside, since the relay was given the link.
    pub(super) fn alter(&mut self, parcel: &mut Parcel) {
        self.tally.did(match parcel {
            Parcel::Post(_) => "post altered",
            Parcel::Frame { .. } => "frame altered",
            Parcel::Beacon { .. } => "beacon altered",
        });
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
        self.tally.did("frame altered that opens");
        self.altered.insert(FrameDigest::of(envelope).0);
    }

    /// Whoever connects for a while finds the board as it was before: log and cells of then, nothing later. Somebody or
    /// everybody is made to come.
    fn roll_back(&mut self) {
        let until = self.now + self.dice.between(5_000, 60_000);
        let to = self.now.saturating_sub(self.dice.between(5_000, 180_000));
        self.relay.rollback = Some(Rollback { until, to });
        self.trace.line(self.now, format!("relay: the board of {to} until {until}"));
        let all = self.dice.chance(30);
        let one = self.somebody();
        (0..self.devices.len())
            .filter(|device| all || *device == one)
            .for_each(|device| self.disconnect(device));
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

/// How many of the newest parcels are looked at.
pub(super) const LATELY: usize = 400;

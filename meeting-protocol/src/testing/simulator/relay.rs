//! The relay: a board as PROTOCOL.md 2.1 has it. What an evil one does with it beside is mischief.

use std::collections::BTreeMap;

use meeting_wire::{ParticipantId, Post, Slot};

use super::{
    World,
    dice::Dice,
    weather::{Fate, Mood, Parcel, Topic},
};

/// The board.
#[derive(Default)]
pub(super) struct Relay {
    pub log: Vec<Post>,
    pub seq: u64,
    pub cells: BTreeMap<ParticipantId, Post>,
    pub moods: Vec<Mood>,
    /// Until when it shows two boards, and who is on which.
    pub fork: Option<(u64, u64)>,
    pub rollback: Option<Rollback>,
    /// The newest of all it ever saw: what came over the board, and the rest.
    pub posts: Vec<Kept>,
    pub media: Vec<Kept>,
}

/// A board of before.
#[derive(Clone, Copy)]
pub(super) struct Rollback {
    pub until: u64,
    /// When it looked so.
    pub to: u64,
}

/// A parcel as it came.
#[derive(Clone)]
pub(super) struct Kept {
    pub at: u64,
    pub parcel: Parcel,
    pub topic: Topic,
}

impl Relay {
    /// As a relay that lost its board, and numbers the next one's posts as none before; what it has seen it can still say.
    pub fn restarted(&mut self) -> Self {
        let (posts, media) = (std::mem::take(&mut self.posts), std::mem::take(&mut self.media));
        Self { posts, media, seq: self.seq, ..Self::default() }
    }

    fn fates(&mut self, now: u64, to: usize, topic: Topic, dice: &mut Dice) -> Vec<Fate> {
        self.moods.retain(|mood| mood.until > now);
        self.moods.iter_mut().find_map(|mood| mood.fate(to, topic, dice)).unwrap_or_else(|| vec![Fate::On(0)])
    }

    /// Whether a forked board keeps these two apart.
    fn apart(&self, now: u64, one: usize, other: usize) -> bool {
        self.fork.is_some_and(|(until, sides)| now < until && (sides >> one ^ sides >> other) & 1 == 1)
    }

    fn keep(&mut self, at: u64, parcel: &Parcel, topic: Topic) {
        let kept = if matches!(parcel, Parcel::Post(_)) { &mut self.posts } else { &mut self.media };
        if kept.len() >= KEPT {
            kept.drain(..KEPT / 2);
        }
        kept.push(Kept { at, parcel: parcel.clone(), topic });
    }

    /// What whoever comes is shown: of the log all after what it has seen, and the cells. A board that went back has other
    /// numbers, so that all of its log is new.
    fn board(&self, now: u64, seen: Option<u64>) -> Vec<Post> {
        let Some(back) = self.rollback.filter(|back| now < back.until) else {
            let log = self.log.iter().filter(|post| seen.is_some_and(|seen| post.seq > seen));
            return log.chain(self.cells.values()).cloned().collect();
        };
        let (mut log, mut cells) = (Vec::new(), BTreeMap::new());
        for kept in self.posts.iter().take_while(|kept| kept.at <= back.to) {
            match &kept.parcel {
                Parcel::Post(post) if post.slot == Slot::Cell => _ = cells.insert(post.from, post.clone()),
                Parcel::Post(post) if post.slot == Slot::Log && seen.is_some() => log.push(post.clone()),
                _ => {}
            }
        }
        log.into_iter().chain(cells.into_values()).collect()
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
        self.relay.keep(self.now, &parcel, topic);
        for to in 0..self.devices.len() {
            let addressed = only.is_none_or(|only| self.devices[to].me() == Some(only));
            if to != from && addressed && !self.relay.apart(self.now, from, to) {
                self.hand(to, &parcel, topic);
            }
        }
    }

    /// Hands a parcel to somebody, as the relay's mood is.
    pub(super) fn hand(&mut self, to: usize, parcel: &Parcel, topic: Topic) {
        for fate in self.relay.fates(self.now, to, topic, &mut self.dice) {
            match fate {
                Fate::On(late) => self.send_down(to, parcel.clone(), topic, late),
                Fate::Altered => {
                    let mut parcel = parcel.clone();
                    self.alter(&mut parcel);
                    self.send_down(to, parcel, topic, 0);
                }
                Fate::Again => {
                    if let Some(earlier) = self.recall_for(to, topic) {
                        self.tally.did("parcel with one of before");
                        self.send_down(to, earlier, topic, 0);
                    }
                }
            }
        }
    }

    /// What a new connection is told first.
    pub(super) fn replay_board(&mut self, to: usize) {
        let (me, seen) = (self.devices[to].me(), self.devices[to].seen);
        let author = |post: &Post| self.devices.iter().position(|device| device.me() == Some(post.from));
        if self.relay.rollback.is_some_and(|back| self.now < back.until) {
            self.tally.did("board of before");
        }
        let mut posts = self.relay.board(self.now, seen);
        posts.retain(|post| {
            Some(post.from) != me && author(post).is_none_or(|from| !self.relay.apart(self.now, from, to))
        });
        for post in posts {
            let parcel = Parcel::Post(post);
            let topic = self.topic(&parcel);
            self.hand(to, &parcel, topic);
        }
    }
}

/// Parcels of each kind that it remembers, for saying them again.
const KEPT: usize = 4_000;

//! The queue in front of one local connection that watches. A slow element loses old frames, never the
//! daemon's memory: video whole groups at a time, audio from the oldest on. Where all together are too many, those of the sender
//! who has most there give way, whatever number of streams they are of.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use meeting_protocol::local::{self, FromAgent};
use meeting_wire::{Kind, MAX_FRAME, ParticipantId};
use tokio::sync::Notify;

use super::Source;

/// An encoded message with a frame, and what the queue has to know of it.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Whose.
    pub source: Source,
    /// How it may be dropped.
    pub kind: Kind,
    /// Whether decoding can start here.
    pub keyframe: bool,
    /// The message behind its length.
    pub bytes: Bytes,
}

/// Messages that wait for one connection.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    load: Load,
    messages: usize,
    /// Video streams that lost a frame: nothing more of them before a keyframe.
    skipping: BTreeSet<Source>,
    /// The connection has taken all there was, and waits for more.
    idle: bool,
    closed: bool,
}

/// The frames that wait.
#[derive(Debug, Default)]
struct Load {
    frames: usize,
    bytes: usize,
    /// What those of each sender take ([`Parcel::room`]).
    room: HashMap<ParticipantId, usize>,
}

#[derive(Debug)]
enum Item {
    Message(Bytes),
    Frame(Parcel),
}

impl Queue {
    /// Queues a message that must arrive. A connection that does not even read those is closed.
    pub fn say(&self, message: &FromAgent) {
        let bytes = Bytes::from(local::packed(message).to_vec());
        let mut state = self.lock();
        if state.messages >= MAX_MESSAGES {
            state.closed = true;
        } else {
            state.messages += 1;
            state.items.push_back(Item::Message(bytes));
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Says that a track is gone.
    pub fn gone(&self, (from, stream): Source) {
        self.lock().skipping.remove(&(from, stream));
        self.say(&FromAgent::TrackGone { from, stream });
    }

    /// Queues a frame and says how many frames were dropped, this one included.
    pub fn push(&self, parcel: Parcel) -> usize {
        let mut state = self.lock();
        let video = parcel.kind == Kind::Video;
        if video && parcel.keyframe {
            state.skipping.remove(&parcel.source);
        } else if state.skipping.contains(&parcel.source) {
            return 1;
        }
        let mut dropped = state.relieve(&parcel);
        if !state.load.fits(&parcel) {
            let mut one = true;
            dropped += match parcel.kind {
                Kind::Video => state.drop_where(|_, old| old.source == parcel.source),
                Kind::Audio => {
                    state.drop_where(|_, old| old.source == parcel.source && std::mem::take(&mut one))
                }
                Kind::Data => 0,
            };
            // a newer group makes the older frames worthless; a frame in the middle needs them
            if !state.load.fits(&parcel) || (video && !parcel.keyframe) {
                if video {
                    state.skipping.insert(parcel.source);
                }
                return dropped + 1;
            }
        }
        state.load.add(&parcel);
        state.items.push_back(Item::Frame(parcel));
        drop(state);
        self.filled.notify_one();
        dropped
    }

    /// Pictures that go on with a keyframe alone, where somebody waits for it: who does not read would lose that too.
    pub fn cut(&self) -> Vec<Source> {
        let state = self.lock();
        if state.idle { state.skipping.iter().copied().collect() } else { Vec::new() }
    }

    /// The oldest message, when there is one; none when the connection has to end.
    pub async fn pop(&self) -> Option<Bytes> {
        loop {
            let filled = self.filled.notified();
            {
                let mut state = self.lock();
                if state.closed {
                    return None;
                }
                let taken = state.take();
                state.idle = taken.is_none();
                if taken.is_some() {
                    return taken;
                }
            }
            filled.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self) -> Option<Bytes> {
        Some(match self.items.pop_front()? {
            Item::Message(bytes) => {
                self.messages -= 1;
                bytes
            }
            Item::Frame(parcel) => {
                self.load.remove(&parcel);
                parcel.bytes
            }
        })
    }

    /// Makes room at the cost of the sender who has most of it, if that is somebody who has more than this one would have: its
    /// oldest frames go, and pictures with all that leans on them.
    fn relieve(&mut self, parcel: &Parcel) -> usize {
        let (mut dropped, mut cut) = (0, BTreeSet::new());
        while !self.load.fits(parcel) {
            let own = self.load.of(parcel.source.0) + parcel.room();
            let Some(from) = self.load.most().filter(|from| self.load.of(*from) > own) else { break };
            dropped += self.drop_where(|load, old| {
                let too_much = load.of(from) > own && !load.fits(parcel);
                let gives_way = old.source.0 == from && (too_much || cut.contains(&old.source));
                if gives_way && old.kind == Kind::Video {
                    cut.insert(old.source);
                }
                gives_way
            });
        }
        self.skipping.extend(cut);
        dropped
    }

    /// Drops frames, from the oldest on.
    fn drop_where(&mut self, mut gives_way: impl FnMut(&Load, &Parcel) -> bool) -> usize {
        let Self { items, load, .. } = self;
        let before = load.frames;
        items.retain(|item| match item {
            Item::Frame(parcel) if gives_way(load, parcel) => {
                load.remove(parcel);
                false
            }
            _ => true,
        });
        before - load.frames
    }
}

impl Load {
    fn fits(&self, parcel: &Parcel) -> bool {
        self.frames == 0 || (self.frames < MAX_FRAMES && self.bytes + parcel.bytes.len() <= MAX_BYTES)
    }

    fn of(&self, from: ParticipantId) -> usize {
        self.room.get(&from).copied().unwrap_or(0)
    }

    fn most(&self) -> Option<ParticipantId> {
        self.room.iter().max_by_key(|(_, room)| **room).map(|(from, _)| *from)
    }

    fn add(&mut self, parcel: &Parcel) {
        self.frames += 1;
        self.bytes += parcel.bytes.len();
        *self.room.entry(parcel.source.0).or_default() += parcel.room();
    }

    fn remove(&mut self, parcel: &Parcel) {
        self.frames -= 1;
        self.bytes -= parcel.bytes.len();
        let left = self.of(parcel.source.0) - parcel.room();
        if left == 0 {
            self.room.remove(&parcel.source.0);
        } else {
            self.room.insert(parcel.source.0, left);
        }
    }
}

impl Parcel {
    /// What it takes, in bytes: so many frames fit, and so many bytes.
    fn room(&self) -> usize {
        self.bytes.len() + MAX_BYTES / MAX_FRAMES
    }
}

/// Half a second of 25 people at 40 frames a second each.
const MAX_FRAMES: usize = 512;
/// One longest frame.
const MAX_BYTES: usize = MAX_FRAME;
/// Tracks that come and go unread.
const MAX_MESSAGES: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;
    use meeting_wire::StreamId;

    const VIDEO: Source = (ParticipantId([1; 16]), StreamId(1));
    const AUDIO: Source = (ParticipantId([1; 16]), StreamId(2));

    fn parcel(source: Source, keyframe: bool, mark: u8) -> Parcel {
        let kind = if source == VIDEO { Kind::Video } else { Kind::Audio };
        Parcel { source, kind, keyframe, bytes: Bytes::copy_from_slice(&[mark]) }
    }

    fn marks(queue: &Queue) -> Vec<u8> {
        let mut state = queue.lock();
        std::iter::from_fn(|| state.take()).map(|bytes| bytes[0]).collect()
    }

    #[test]
    fn a_slow_watcher_loses_whole_video_groups_and_no_message() {
        let queue = Queue::default();
        queue.push(parcel(VIDEO, true, 0));
        queue.say(&FromAgent::Welcome { version: 1, meeting: meeting_wire::MeetingId([0; 16]) });
        for _ in 1..MAX_FRAMES {
            assert_eq!(queue.push(parcel(VIDEO, false, 1)), 0);
        }
        assert_eq!(queue.push(parcel(VIDEO, false, 2)), MAX_FRAMES + 1);
        assert_eq!(queue.push(parcel(VIDEO, false, 3)), 1, "nothing before the next keyframe");
        assert_eq!(queue.push(parcel(VIDEO, true, 4)), 0);
        assert_eq!(queue.push(parcel(VIDEO, false, 5)), 0);
        assert_eq!(marks(&queue), [0, 4, 5], "the message, whose length starts with 0, then the new group");
    }

    #[tokio::test]
    async fn a_picture_is_missed_by_whoever_waits_for_it() {
        let queue = Queue::default();
        for _ in 0..=MAX_FRAMES {
            queue.push(parcel(VIDEO, false, 1));
        }
        queue.push(parcel(AUDIO, false, 2));
        assert_eq!(queue.cut(), [], "who does not read misses nothing");
        assert!(queue.pop().await.is_some());
        assert_eq!(queue.cut(), [], "who has not written it yet reads no more");
        tokio::select! {
            biased;
            _ = queue.pop() => panic!("nothing is there"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(queue.cut(), [VIDEO]);
        queue.push(parcel(VIDEO, true, 3));
        assert_eq!(queue.cut(), []);
    }

    #[test]
    fn a_slow_watcher_loses_the_oldest_audio() {
        let queue = Queue::default();
        for mark in 0..MAX_FRAMES {
            assert_eq!(queue.push(parcel(AUDIO, false, mark as u8)), 0);
        }
        assert_eq!(queue.push(parcel(AUDIO, false, 9)), 1);
        assert_eq!(marks(&queue)[0], 1);
    }

    #[test]
    fn who_floods_gives_way_to_the_others_whatever_number_of_streams_it_has() {
        let data = |stream, mark| {
            let source = (ParticipantId([2; 16]), StreamId(stream));
            Parcel { kind: Kind::Data, ..parcel(source, false, mark) }
        };
        let queue = Queue::default();
        for n in 0..MAX_FRAMES {
            assert_eq!(queue.push(data(n as u32 % 64, (n == 1).into())), 0);
        }
        assert_eq!(queue.push(data(64, 2)), 1, "nobody else's");
        let others = [parcel(VIDEO, true, 3), parcel(VIDEO, false, 4), parcel(AUDIO, false, 5)];
        assert_eq!(others.map(|parcel| queue.push(parcel)), [1; 3]);
        assert_eq!(queue.push(data(64, 2)), 1);
        let marks = marks(&queue);
        assert_eq!((marks.len(), &marks[MAX_FRAMES - 4..]), (MAX_FRAMES, &[0, 3, 4, 5][..]));
        assert!(!marks.contains(&1), "what came first goes first");
        assert!(queue.lock().load.room.is_empty(), "nothing waits");
    }

    #[test]
    fn video_that_floods_gives_way_by_the_group() {
        let bobs = (ParticipantId([2; 16]), StreamId(1));
        let queue = Queue::default();
        queue.push(parcel(VIDEO, true, 0));
        for _ in 1..MAX_FRAMES {
            queue.push(parcel(VIDEO, false, 1));
        }
        assert_eq!(queue.push(parcel(bobs, false, 2)), MAX_FRAMES);
        assert_eq!(queue.push(parcel(VIDEO, false, 3)), 1, "nothing before the next keyframe");
        queue.gone(VIDEO);
        assert!(queue.lock().skipping.is_empty(), "nothing is remembered of what is over");
    }

    #[test]
    fn bytes_are_bounded_too() {
        let queue = Queue::default();
        let large =
            |keyframe| Parcel { bytes: vec![0; MAX_BYTES / 2 + 1].into(), ..parcel(VIDEO, keyframe, 0) };
        assert_eq!(queue.push(large(true)), 0);
        assert_eq!(queue.push(large(true)), 1);
        assert!(queue.lock().load.bytes <= MAX_BYTES);
    }
}

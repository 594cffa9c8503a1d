//! The queue in front of one local connection that watches. A slow element loses old frames, never the
//! daemon's memory: video whole groups at a time, audio from the oldest on.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use meeting_protocol::local::{self, FromAgent};
use meeting_wire::{Kind, MAX_FRAME};
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
    frames: usize,
    messages: usize,
    bytes: usize,
    /// Video streams that lost a frame: nothing more of them before a keyframe.
    skipping: BTreeSet<Source>,
    closed: bool,
}

#[derive(Debug)]
enum Item {
    Message(Bytes),
    Frame(Parcel),
}

impl Queue {
    /// Queues a message that must arrive. A connection that does not even read those is closed.
    pub fn say(&self, message: &FromAgent) {
        let bytes = Bytes::from(local::to_frame(message).to_vec());
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

    /// Queues a frame and says how many frames were dropped, this one included.
    pub fn push(&self, parcel: Parcel) -> usize {
        let mut state = self.lock();
        let video = parcel.kind == Kind::Video;
        if video && parcel.keyframe {
            state.skipping.remove(&parcel.source);
        } else if state.skipping.contains(&parcel.source) {
            return 1;
        }
        let mut dropped = 0;
        if !state.fits(&parcel) {
            dropped = match parcel.kind {
                Kind::Video => state.drop_where(|old| old.source == parcel.source, usize::MAX),
                Kind::Audio => state.drop_where(|old| old.source == parcel.source, 1),
                Kind::Data => 0,
            };
            // a newer group makes the older frames worthless; a frame in the middle needs them
            if !state.fits(&parcel) || (video && !parcel.keyframe) {
                if video {
                    state.skipping.insert(parcel.source);
                }
                return dropped + 1;
            }
        }
        state.frames += 1;
        state.bytes += parcel.bytes.len();
        state.items.push_back(Item::Frame(parcel));
        drop(state);
        self.filled.notify_one();
        dropped
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
                if let Some(bytes) = state.take() {
                    return Some(bytes);
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
    fn fits(&self, parcel: &Parcel) -> bool {
        self.frames == 0 || (self.frames < MAX_FRAMES && self.bytes + parcel.bytes.len() <= MAX_BYTES)
    }

    fn take(&mut self) -> Option<Bytes> {
        Some(match self.items.pop_front()? {
            Item::Message(bytes) => {
                self.messages -= 1;
                bytes
            }
            Item::Frame(parcel) => {
                self.frames -= 1;
                self.bytes -= parcel.bytes.len();
                parcel.bytes
            }
        })
    }

    fn drop_where(&mut self, old: impl Fn(&Parcel) -> bool, most: usize) -> usize {
        let (mut dropped, mut bytes) = (0, 0);
        self.items.retain(|item| match item {
            Item::Frame(parcel) if dropped < most && old(parcel) => {
                dropped += 1;
                bytes += parcel.bytes.len();
                false
            }
            _ => true,
        });
        self.frames -= dropped;
        self.bytes -= bytes;
        dropped
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
    use meeting_wire::{ParticipantId, StreamId};

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
    fn bytes_are_bounded_too() {
        let queue = Queue::default();
        let large =
            |keyframe| Parcel { bytes: vec![0; MAX_BYTES / 2 + 1].into(), ..parcel(VIDEO, keyframe, 0) };
        assert_eq!(queue.push(large(true)), 0);
        assert_eq!(queue.push(large(true)), 1);
        assert!(queue.lock().bytes <= MAX_BYTES);
    }
}

//! The queue in front of one stream's writer. Time is an argument.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use meeting_wire::{Envelope, Flags, Kind, MAX_FRAME};
use tokio::sync::Notify;

use crate::counters::reason;

/// A frame that waits.
#[derive(Debug)]
pub struct Waiting {
    /// Since when.
    pub since: Instant,
    /// Whether it opens a new group.
    pub opens: bool,
    /// The frame.
    pub envelope: Envelope,
}

/// Frames of one stream, bounded in number and bytes.
#[derive(Debug)]
pub struct Queue {
    kind: Kind,
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Waiting>,
    bytes: usize,
    /// The next frames cannot be decoded: something before them is gone.
    skipping: bool,
    /// Codec headers opened a group that its keyframe belongs to.
    headed: bool,
    /// The newest group's number.
    group: u64,
    /// No more frames will come.
    closed: bool,
}

impl Queue {
    /// An empty queue; video starts with a keyframe.
    pub fn new(kind: Kind) -> Self {
        let state = State { skipping: kind == Kind::Video, ..State::default() };
        Self { kind, state: Mutex::new(state), filled: Notify::new() }
    }

    /// Queues a frame; the answer says what was dropped for it, if anything.
    pub fn push(&self, envelope: Envelope, now: Instant) -> Option<(&'static str, usize)> {
        let mut state = self.lock();
        let opens = self.kind == Kind::Video && state.opens(envelope.flags);
        if opens {
            state.skipping = false;
        } else if state.skipping {
            return Some((reason::NO_KEYFRAME, 1));
        }
        let fits = state.frames.len() < MAX_WAITING && state.bytes + envelope.sealed.len() <= MAX_BYTES;
        let mut lost = None;
        if !fits {
            let n = match self.kind {
                Kind::Audio => state.drop_first(1),
                Kind::Video | Kind::Data => state.clear(),
            };
            lost = Some((reason::FULL, n));
            if self.kind == Kind::Video && !opens {
                state.skipping = true;
                return Some((reason::FULL, n + 1));
            }
        }
        state.bytes += envelope.sealed.len();
        state.frames.push_back(Waiting { since: now, opens, envelope });
        drop(state);
        self.filled.notify_one();
        lost
    }

    /// The oldest frame, when there is one; none when the queue is closed and empty.
    pub async fn pop(&self) -> Option<Waiting> {
        loop {
            let filled = self.filled.notified();
            {
                let mut state = self.lock();
                let frame = state.take();
                if frame.is_some() || state.closed {
                    return frame;
                }
            }
            filled.await;
        }
    }

    /// Lets the writer end when it has written what waits.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    /// Gives up the group being sent: drops frames up to the next opening one and says how many.
    pub fn give_up_group(&self) -> usize {
        let mut state = self.lock();
        let next = state.frames.iter().position(|frame| frame.opens);
        state.skipping = next.is_none() && self.kind == Kind::Video;
        let n = next.unwrap_or(state.frames.len());
        state.drop_first(n)
    }

    /// Empties the queue for a new connection; video goes on with a keyframe.
    pub fn restart(&self) -> usize {
        let mut state = self.lock();
        state.skipping = self.kind == Kind::Video;
        state.headed = false;
        state.clear()
    }

    /// The number of the next group.
    pub fn next_group(&self) -> u64 {
        let mut state = self.lock();
        state.group += 1;
        state.group
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Headers and the keyframe behind them make one group.
    fn opens(&mut self, flags: Flags) -> bool {
        let headed = self.headed;
        self.headed = flags.has(Flags::HEADER) && !flags.has(Flags::KEYFRAME);
        (self.headed || flags.has(Flags::KEYFRAME)) && !headed
    }

    fn take(&mut self) -> Option<Waiting> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.envelope.sealed.len();
        Some(frame)
    }

    fn drop_first(&mut self, n: usize) -> usize {
        for _ in 0..n {
            self.take();
        }
        n
    }

    fn clear(&mut self) -> usize {
        self.drop_first(self.frames.len())
    }
}

/// Two seconds of 60 pictures a second, or of audio in 20 ms frames twice over.
const MAX_WAITING: usize = 128;
/// One longest frame.
const MAX_BYTES: usize = MAX_FRAME;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn frame(flags: u8, mark: u8) -> Envelope {
        let sealed = vec![mark].into();
        Envelope { pts: None, dts: None, duration: None, flags: Flags(flags), layer: 0, sealed }
    }

    fn marks(queue: &Queue) -> Vec<(u8, bool)> {
        let mut state = queue.lock();
        std::iter::from_fn(|| state.take()).map(|w| (w.envelope.sealed[0], w.opens)).collect()
    }

    #[test]
    fn video_starts_with_a_keyframe() {
        let queue = Queue::new(Kind::Video);
        assert_eq!(queue.push(frame(0, 1), Instant::now()), Some((reason::NO_KEYFRAME, 1)));
        assert_eq!(queue.push(frame(Flags::KEYFRAME, 2), Instant::now()), None);
        assert_eq!(queue.push(frame(0, 3), Instant::now()), None);
        assert_eq!(marks(&queue), [(2, true), (3, false)]);
    }

    #[test]
    fn headers_and_their_keyframe_are_one_group() {
        let queue = Queue::new(Kind::Video);
        for (flags, mark) in [(Flags::HEADER, 1), (Flags::HEADER, 2), (Flags::KEYFRAME, 3), (0, 4)] {
            queue.push(frame(flags, mark), Instant::now());
        }
        queue.push(frame(Flags::HEADER | Flags::KEYFRAME, 5), Instant::now());
        queue.push(frame(Flags::KEYFRAME, 6), Instant::now());
        assert_eq!(marks(&queue), [(1, true), (2, false), (3, false), (4, false), (5, true), (6, true)]);
    }

    #[test]
    fn a_full_video_queue_waits_for_the_next_keyframe() {
        let queue = Queue::new(Kind::Video);
        queue.push(frame(Flags::KEYFRAME, 0), Instant::now());
        for _ in 1..MAX_WAITING {
            assert_eq!(queue.push(frame(0, 1), Instant::now()), None);
        }
        assert_eq!(queue.push(frame(0, 2), Instant::now()), Some((reason::FULL, MAX_WAITING + 1)));
        assert_eq!(queue.push(frame(0, 3), Instant::now()), Some((reason::NO_KEYFRAME, 1)));
        assert_eq!(queue.push(frame(Flags::KEYFRAME, 4), Instant::now()), None);
        assert_eq!(marks(&queue), [(4, true)]);
    }

    #[test]
    fn a_full_audio_queue_loses_the_oldest() {
        let queue = Queue::new(Kind::Audio);
        for mark in 0..=MAX_WAITING {
            let lost = queue.push(frame(0, mark as u8), Instant::now());
            assert_eq!(lost, (mark == MAX_WAITING).then_some((reason::FULL, 1)));
        }
        assert_eq!(marks(&queue)[0].0, 1);
    }

    #[test]
    fn giving_up_a_group_keeps_the_next() {
        let queue = Queue::new(Kind::Video);
        for (flags, mark) in [(Flags::KEYFRAME, 1), (0, 2), (Flags::KEYFRAME, 3), (0, 4)] {
            queue.push(frame(flags, mark), Instant::now());
        }
        assert!(queue.lock().take().unwrap().opens);
        assert_eq!(queue.give_up_group(), 1);
        assert_eq!(marks(&queue), [(3, true), (4, false)]);
    }
}

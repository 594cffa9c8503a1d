//! What waits before one pad: bounded, and leaky in the way that suits its kind.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use meeting_wire::Kind;

/// What goes out of a pad.
#[derive(Debug)]
pub enum Item {
    /// A frame.
    Buffer(gst::Buffer),
    /// Caps, or the end.
    Event(gst::Event),
}

/// A bounded queue of one pad.
pub struct Queue {
    kind: Kind,
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    items: VecDeque<Item>,
    bytes: usize,
    closed: bool,
    /// Pictures before the next keyframe are of no use.
    resync: bool,
    discont: bool,
    dropped: u64,
}

impl Queue {
    /// An empty queue.
    pub fn new(kind: Kind) -> Self {
        Self { kind, inner: Mutex::default(), changed: Condvar::new() }
    }

    /// Queues a frame. Gives false if a keyframe is wanted: something was lost that others need.
    pub fn push(&self, mut buffer: gst::Buffer) -> bool {
        let mut inner = self.inner();
        let keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let full = inner.items.len() >= MAX_FRAMES || inner.bytes + buffer.size() > MAX_BYTES;
        if full {
            inner.make_room(self.kind, buffer.size());
        }
        if keyframe {
            inner.resync = false;
        }
        if inner.resync {
            inner.dropped += 1;
            return false;
        }
        if std::mem::take(&mut inner.discont) {
            buffer.make_mut().set_flags(gst::BufferFlags::DISCONT);
        }
        inner.bytes += buffer.size();
        inner.items.push_back(Item::Buffer(buffer));
        drop(inner);
        self.changed.notify_one();
        true
    }

    /// Queues an event behind what is there.
    pub fn push_event(&self, event: gst::Event) {
        self.inner().items.push_back(Item::Event(event));
        self.changed.notify_one();
    }

    /// Forgets the frames that wait; pictures go on with the next keyframe.
    pub fn skip(&self) {
        self.inner().make_room(self.kind, usize::MAX);
    }

    /// Takes the oldest item, waiting for one; none once closed.
    pub fn pop(&self) -> Option<Item> {
        let waited = self.changed.wait_while(self.inner(), |inner| !inner.closed && inner.items.is_empty());
        let mut inner = waited.unwrap_or_else(PoisonError::into_inner);
        if inner.closed {
            return None;
        }
        let item = inner.items.pop_front();
        if let Some(Item::Buffer(buffer)) = &item {
            inner.bytes -= buffer.size();
        }
        item
    }

    /// Ends it: whoever waits gets nothing.
    pub fn close(&self) {
        *self.inner() = Inner { closed: true, ..Inner::default() };
        self.changed.notify_all();
    }

    /// Frames dropped so far.
    pub fn dropped(&self) -> u64 {
        self.inner().dropped
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Of pictures all go, since they lean on each other; of sound and data the oldest.
    fn make_room(&mut self, kind: Kind, more: usize) {
        let all = kind == Kind::Video;
        self.resync |= all;
        self.discont = true;
        let mut kept = VecDeque::new();
        let mut left = self.items.len();
        for item in std::mem::take(&mut self.items) {
            let room = !all && left < MAX_FRAMES && self.bytes.saturating_add(more) <= MAX_BYTES;
            match item {
                Item::Buffer(buffer) if !room => {
                    self.bytes -= buffer.size();
                    self.dropped += 1;
                    left -= 1;
                }
                item => kept.push_back(item),
            }
        }
        self.items = kept;
    }
}

/// Two seconds of video, over a second of sound.
const MAX_FRAMES: usize = 64;
const MAX_BYTES: usize = 32 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(n: u8, delta: bool) -> gst::Buffer {
        gst::init().expect("GStreamer");
        let mut buffer = gst::Buffer::from_slice([n]);
        if delta {
            buffer.make_mut().set_flags(gst::BufferFlags::DELTA_UNIT);
        }
        buffer
    }

    fn pop(queue: &Queue) -> (u8, bool) {
        match queue.pop() {
            Some(Item::Buffer(buffer)) => {
                let byte = buffer.map_readable().expect("readable")[0];
                (byte, buffer.flags().contains(gst::BufferFlags::DISCONT))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn sound_loses_its_oldest() {
        let queue = Queue::new(Kind::Audio);
        assert!((0..=MAX_FRAMES as u8).all(|n| queue.push(frame(n, false))));
        assert_eq!(queue.dropped(), 1);
        assert_eq!(pop(&queue), (1, false));
        (2..MAX_FRAMES as u8).for_each(|_| drop(queue.pop()));
        assert_eq!(pop(&queue), (MAX_FRAMES as u8, true));
    }

    #[test]
    fn pictures_go_on_with_a_keyframe() {
        let queue = Queue::new(Kind::Video);
        assert!((0..MAX_FRAMES as u8).all(|n| queue.push(frame(n, n > 0))));
        queue.push_event(gst::event::Gap::builder(gst::ClockTime::ZERO).build());
        assert!(!queue.push(frame(200, true)), "a keyframe is wanted");
        assert!(!queue.push(frame(201, true)));
        assert!(queue.push(frame(202, false)));
        assert!(matches!(queue.pop(), Some(Item::Event(_))), "events are not lost");
        assert_eq!(pop(&queue), (202, true));
    }

    #[test]
    fn a_closed_queue_gives_nothing() {
        let queue = Queue::new(Kind::Data);
        queue.push(frame(1, false));
        queue.close();
        assert!(queue.pop().is_none());
    }
}

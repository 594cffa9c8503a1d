//! What waits before one pad: bounded, and leaky in the way that suits its kind.
//!
//! Caps and frames come from the agent by different ways. Each frame names its caps by their number, so the queue puts
//! the caps right before the first frame that has them, and a frame that came first waits for them.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use meeting_wire::{Flags, Kind};

use crate::lock::lock;

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

#[derive(Debug)]
enum Waiting {
    Frame { buffer: gst::Buffer, version: u8, since: Instant },
    Event(gst::Event),
}

enum Next {
    Item(Item),
    /// The caps of the next frame are on their way: for so long at most.
    Wait(Duration),
    Lost,
}

#[derive(Default)]
struct Inner {
    items: VecDeque<Waiting>,
    /// Caps by their number, as far as they are known.
    caps: [Option<gst::Caps>; VERSIONS],
    /// The number of those that the pad has.
    current: u8,
    /// The number of those that were stated last.
    newest: u8,
    bytes: usize,
    closed: bool,
    /// Pictures before the next keyframe are of no use.
    resync: bool,
    discont: bool,
    dropped: u64,
}

impl Queue {
    /// An empty queue before a pad that has these caps of its stream.
    pub fn new(kind: Kind, version: u8, caps: gst::Caps) -> Self {
        let mut inner = Inner { current: version, newest: version, ..Inner::default() };
        inner.caps[slot(version)] = Some(caps);
        Self { kind, inner: Mutex::new(inner), changed: Condvar::new() }
    }

    /// Says what caps of this number are; they go out before the first frame that has them.
    pub fn set_caps(&self, version: u8, caps: gst::Caps) {
        let mut inner = self.inner();
        // What lies ahead of these is left from the round before.
        (1..=AHEAD).for_each(|ahead| inner.caps[slot(version.wrapping_add(ahead))] = None);
        inner.newest = version;
        let old = inner.caps[slot(version)].replace(caps.clone());
        if version == inner.current && old.as_ref() != Some(&caps) {
            inner.items.push_back(Waiting::Event(gst::event::Caps::new(&caps)));
            inner.tidy();
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// Queues a frame that has caps of this number. Gives false if a keyframe is wanted: something was lost that others
    /// need.
    pub fn push(&self, mut buffer: gst::Buffer, version: u8) -> bool {
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
        inner.items.push_back(Waiting::Frame { buffer, version, since: Instant::now() });
        drop(inner);
        self.changed.notify_one();
        true
    }

    /// Queues an event behind what is there.
    pub fn push_event(&self, event: gst::Event) {
        let mut inner = self.inner();
        inner.items.push_back(Waiting::Event(event));
        inner.tidy();
        drop(inner);
        self.changed.notify_one();
    }

    /// Forgets the frames that wait; pictures go on with the next keyframe.
    pub fn skip(&self) {
        self.inner().make_room(self.kind, usize::MAX);
    }

    /// Takes the oldest item, waiting for one; none once closed.
    pub fn pop(&self) -> Option<Item> {
        let mut inner = self.inner();
        loop {
            let idle = |inner: &mut Inner| !inner.closed && inner.items.is_empty();
            inner = self.changed.wait_while(inner, idle).unwrap_or_else(PoisonError::into_inner);
            if inner.closed {
                return None;
            }
            match inner.next() {
                Next::Item(item) => return Some(item),
                Next::Wait(left) => {
                    let waited = self.changed.wait_timeout(inner, left);
                    inner = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                Next::Lost => inner.give_up(self.kind),
            }
        }
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
        lock(&self.inner)
    }
}

impl Inner {
    /// What goes out now: an event, a frame, or before it the caps it has.
    fn next(&mut self) -> Next {
        let (version, waited) = match self.items.front() {
            Some(Waiting::Frame { version, since, .. }) => (*version, since.elapsed()),
            _ => (self.current, Duration::ZERO),
        };
        if version == self.current {
            return match self.items.pop_front() {
                Some(Waiting::Frame { buffer, .. }) => {
                    self.bytes -= buffer.size();
                    Next::Item(Item::Buffer(buffer))
                }
                Some(Waiting::Event(event)) => Next::Item(Item::Event(event)),
                None => Next::Wait(PATIENCE),
            };
        }
        if let Some(caps) = &self.caps[slot(version)] {
            self.current = version;
            return Next::Item(Item::Event(gst::event::Caps::new(caps)));
        }
        // What is behind the newest was stated before we came, and is not again.
        let ahead = version.wrapping_sub(self.newest) % Flags::CAPS_VERSIONS;
        match PATIENCE.checked_sub(waited).filter(|_| ahead <= AHEAD) {
            Some(left) if left > Duration::ZERO => Next::Wait(left),
            _ => Next::Lost,
        }
    }

    /// The frames in front have caps that nobody states: they go, and of pictures those that lean on them.
    fn give_up(&mut self, kind: Kind) {
        let mut lost = None;
        let mut going = true;
        let mut kept = VecDeque::new();
        for mut item in std::mem::take(&mut self.items) {
            if let Waiting::Frame { buffer, version, .. } = &mut item
                && going
            {
                let delta = kind == Kind::Video && buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
                if delta || *lost.get_or_insert(*version) == *version {
                    self.bytes -= buffer.size();
                    self.dropped += 1;
                    continue;
                }
                buffer.make_mut().set_flags(gst::BufferFlags::DISCONT);
                going = false;
            }
            kept.push_back(item);
        }
        self.items = kept;
        self.tidy();
        self.discont |= going;
        self.resync |= going && kind == Kind::Video;
    }

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
                Waiting::Frame { buffer, .. } if !room => {
                    self.bytes -= buffer.size();
                    self.dropped += 1;
                    left -= 1;
                }
                item => kept.push_back(item),
            }
        }
        self.items = kept;
        self.tidy();
    }

    /// A pad may be blocked for long, and events are not lost: of collections only the newest is of use, of caps those that
    /// some frame has and the newest.
    fn tidy(&mut self) {
        let (mut newer_caps, mut newer_collection) = (false, false);
        let mut kept = VecDeque::with_capacity(self.items.len());
        for item in std::mem::take(&mut self.items).into_iter().rev() {
            let newer = match &item {
                Waiting::Frame { .. } => {
                    newer_caps = false;
                    false
                }
                Waiting::Event(event) => match event.type_() {
                    gst::EventType::Caps => std::mem::replace(&mut newer_caps, true),
                    gst::EventType::StreamCollection => std::mem::replace(&mut newer_collection, true),
                    _ => false,
                },
            };
            if !newer {
                kept.push_front(item);
            }
        }
        self.items = kept;
    }
}

/// Two seconds of video, over a second of sound.
const MAX_FRAMES: usize = 64;
const MAX_BYTES: usize = 32 * 1024 * 1024;
const VERSIONS: usize = Flags::CAPS_VERSIONS as usize;
/// So far ahead of the newest caps a frame is taken for one of those to come.
const AHEAD: u8 = 4;
/// How long a frame waits for its caps.
const PATIENCE: Duration = Duration::from_millis(500);

fn slot(version: u8) -> usize {
    usize::from(version) % VERSIONS
}

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

    fn caps(name: &str) -> gst::Caps {
        gst::init().expect("GStreamer");
        gst::Caps::new_empty_simple(name)
    }

    fn queue(kind: Kind) -> Queue {
        Queue::new(kind, 0, caps("x/first"))
    }

    fn pops_caps(queue: &Queue) -> String {
        match queue.pop() {
            Some(Item::Event(event)) => match event.view() {
                gst::EventView::Caps(caps) => caps.caps().to_string(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
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
        let queue = queue(Kind::Audio);
        assert!((0..=MAX_FRAMES as u8).all(|n| queue.push(frame(n, false), 0)));
        assert_eq!(queue.dropped(), 1);
        assert_eq!(pop(&queue), (1, false));
        (2..MAX_FRAMES as u8).for_each(|_| drop(queue.pop()));
        assert_eq!(pop(&queue), (MAX_FRAMES as u8, true));
    }

    #[test]
    fn pictures_go_on_with_a_keyframe() {
        let queue = queue(Kind::Video);
        assert!((0..MAX_FRAMES as u8).all(|n| queue.push(frame(n, n > 0), 0)));
        queue.push_event(gst::event::Gap::builder(gst::ClockTime::ZERO).build());
        assert!(!queue.push(frame(200, true), 0), "a keyframe is wanted");
        assert!(!queue.push(frame(201, true), 0));
        assert!(queue.push(frame(202, false), 0));
        assert!(matches!(queue.pop(), Some(Item::Event(_))), "events are not lost");
        assert_eq!(pop(&queue), (202, true));
    }

    #[test]
    fn a_closed_queue_gives_nothing() {
        let queue = queue(Kind::Data);
        queue.push(frame(1, false), 0);
        queue.close();
        assert!(queue.pop().is_none());
    }

    #[test]
    fn caps_go_out_right_before_the_first_frame_that_has_them() {
        let queue = queue(Kind::Video);
        queue.push(frame(1, false), 0);
        queue.set_caps(1, caps("x/second"));
        queue.push(frame(2, true), 0);
        queue.push(frame(3, false), 1);
        assert_eq!((pop(&queue).0, pop(&queue).0), (1, 2));
        assert_eq!(pops_caps(&queue), "x/second");
        assert_eq!(pop(&queue).0, 3);
    }

    #[test]
    fn a_frame_that_overtakes_its_caps_waits_for_them() {
        const NEXT: u8 = 200;
        let queue = std::sync::Arc::new(queue(Kind::Video));
        let mut waited = 0;
        for version in 1..20u32 {
            let number = Flags::default().with_caps_version(version).caps_version();
            queue.push(frame(version as u8, false), number);
            let states = queue.clone();
            let stating = std::thread::spawn(move || {
                states.set_caps(number, caps(&format!("x/n{version}")));
                states.push(frame(NEXT, false), number);
            });
            assert_eq!(pops_caps(&queue), format!("x/n{version}"));
            let mut popped = pop(&queue).0;
            if popped == version as u8 {
                waited += 1;
                popped = pop(&queue).0;
            }
            assert_eq!(popped, NEXT);
            stating.join().expect("stated");
        }
        // Who states them may stand still for longer than a frame waits, but not each time.
        assert!(waited > 10, "{waited} waited");
        assert_eq!(queue.dropped() + waited, 19);
    }

    #[test]
    fn a_frame_whose_caps_never_come_is_given_up() {
        let queue = queue(Kind::Video);
        queue.push(frame(1, false), 2);
        let started = Instant::now();
        std::thread::scope(|scope| {
            let popped = scope.spawn(|| pop(&queue));
            while queue.dropped() == 0 && started.elapsed() < PATIENCE * 20 {
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(!queue.push(frame(2, true), 0), "a keyframe is wanted");
            assert!(queue.push(frame(3, false), 0));
            assert_eq!(popped.join().expect("a frame"), (3, true));
        });
        // Behind what was stated first there is nothing to wait for.
        let is_given_up_at_once = || {
            let late = Queue::new(Kind::Audio, 3, caps("x/fourth"));
            let started = Instant::now();
            late.push(frame(1, false), 2);
            late.push(frame(2, false), 3);
            assert_eq!(pop(&late), (2, true));
            started.elapsed() < PATIENCE
        };
        // Where the machine stands still anything takes so long.
        assert!((0..5).any(|_| is_given_up_at_once()));
    }

    #[test]
    fn caps_without_a_number_follow_in_their_place() {
        let queue = queue(Kind::Data);
        queue.push(frame(1, false), 0);
        queue.set_caps(0, caps("x/second"));
        queue.set_caps(0, caps("x/second"));
        queue.push(frame(2, false), 0);
        assert_eq!(pop(&queue).0, 1);
        assert_eq!(pops_caps(&queue), "x/second");
        assert_eq!(pop(&queue).0, 2);
    }

    #[test]
    fn a_pad_that_is_blocked_keeps_few_events_and_room_for_frames() {
        let queue = queue(Kind::Video);
        let tell = |n: u64| {
            let collection = gst::StreamCollection::builder(None).build();
            queue.push_event(gst::event::StreamCollection::new(&collection));
            queue.set_caps(0, caps(&format!("x/n{n}")));
        };
        (0..10_000).for_each(tell);
        assert_eq!(queue.inner().items.len(), 2);
        assert!(queue.push(frame(1, false), 0));
        for n in 0..10_000 {
            tell(n);
            queue.push(frame(2, n % 2 == 0), 0);
        }
        assert!(queue.inner().items.len() <= MAX_FRAMES + 1);
        assert!(queue.push(frame(3, false), 0));
        let left = queue.inner().items.len();
        let last = (0..left).filter_map(|_| queue.pop()).last();
        let Some(Item::Buffer(last)) = last else { panic!("{last:?}") };
        assert_eq!(last.map_readable().expect("readable")[0], 3);
    }
}

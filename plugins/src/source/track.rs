//! One pad of `meetingsrc` with its queue and its thread.

use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use meeting_wire::{Envelope, Flags, Kind, ParticipantId, StreamId};

use super::queue::{Item, Queue};
use crate::{caps, clock, envelope, lock::lock, wish::Wish};

/// Which track of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id {
    /// Who seals it.
    pub from: ParticipantId,
    /// Its number.
    pub stream: StreamId,
}

/// What the agent says of a track.
pub struct About {
    /// Which.
    pub id: Id,
    /// The participant's name.
    pub name: String,
    /// The label.
    pub track: String,
    /// Picture, sound or data.
    pub kind: Kind,
    /// The caps its sender signed.
    pub caps: String,
}

impl About {
    /// Caps of the pad; none if the statement names nothing that can be opened.
    pub fn pad_caps(&self) -> Option<gst::Caps> {
        caps::of_track(&self.caps, self.id.from, &self.name, self.id.stream, &self.track)
    }
}

/// A pad and what feeds it.
pub struct Track {
    /// Which track.
    pub id: Id,
    /// Its label.
    pub label: String,
    /// Picture, sound or data.
    pub kind: Kind,
    /// The pad.
    pub pad: gst::Pad,
    /// How it shows in the stream collection.
    pub stream: gst::Stream,
    queue: Queue,
    wish: Mutex<Wish>,
    /// Whether the last frame was taken by nobody.
    unheard: AtomicBool,
    /// Whether whoever is behind the pad has had enough.
    finished: AtomicBool,
    /// Whether its end is queued, or has gone out.
    ended: AtomicBool,
    pushed: AtomicU64,
}

impl Track {
    /// A track on a pad that is not in the element yet.
    pub fn new(about: &About, pad: gst::Pad, stream: gst::Stream, caps: gst::Caps) -> Arc<Self> {
        Arc::new(Self {
            id: about.id,
            label: about.track.clone(),
            kind: about.kind,
            pad,
            stream,
            queue: Queue::new(about.kind, version(&caps), caps),
            wish: Mutex::default(),
            unheard: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            pushed: AtomicU64::new(0),
        })
    }

    /// Starts the pad's thread.
    pub fn start(self: &Arc<Self>, element: &super::MeetingSrc) -> Result<(), glib::BoolError> {
        let (track, element) = (self.clone(), element.downgrade());
        self.pad.start_task(move || match element.upgrade() {
            Some(element) => track.step(&element),
            None => track.pause(),
        })
    }

    /// Ends any wait of the pad's thread, and soon the thread.
    pub fn close(&self) {
        self.queue.close();
    }

    /// Ends the pad's thread and takes the pad out of the element.
    pub fn stop(&self, element: &super::MeetingSrc) {
        self.queue.close();
        let _ = self.pad.set_active(false);
        let _ = self.pad.stop_task();
        let _ = element.remove_pad(&self.pad);
    }

    /// As [`Self::stop`], also where somebody blocks the pad.
    pub fn cut(&self, element: &super::MeetingSrc) {
        self.queue.close();
        let _ = self.pad.push_event(gst::event::FlushStart::new());
        self.stop(element);
    }

    /// Caps of the frames that name them.
    pub fn set_caps(&self, caps: gst::Caps) {
        self.stream.set_caps(Some(&caps));
        self.queue.set_caps(version(&caps), caps);
    }

    /// An event, behind the frames that wait.
    pub fn tell(&self, event: gst::Event) {
        self.queue.push_event(event);
    }

    /// A frame for running time `pts`. False if a keyframe is wanted.
    pub fn push(&self, envelope: Envelope, pts: Option<u64>, dts: Option<u64>) -> bool {
        let version = envelope.flags.caps_version();
        self.queue.push(envelope::to_buffer(envelope, pts, dts), version)
    }

    /// Forgets what waits: nobody plays it.
    pub fn skip(&self) {
        self.queue.skip();
    }

    /// The track has ended: the pad goes after its last frame.
    pub fn end(&self) {
        if !self.ended.swap(true, Ordering::Relaxed) {
            self.tell(gst::event::Eos::new());
        }
    }

    /// Whether it has ended, and its pad has not gone yet.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Whether the sender may be asked for a keyframe now: not more than twice a second. Else the wish is kept.
    pub fn may_ask(&self) -> bool {
        if self.kind != Kind::Video {
            return false;
        }
        let mut wish = self.wish();
        wish.want();
        wish.due(ASK_EVERY, clock::boot_now)
    }

    /// A frame has come. Whether it leaves a wish for a keyframe open.
    pub fn still_wishes(&self, flags: Flags) -> bool {
        let mut wish = self.wish();
        if flags.has(Flags::KEYFRAME) {
            wish.fulfil();
        }
        wish.is_open()
    }

    fn wish(&self) -> MutexGuard<'_, Wish> {
        lock(&self.wish)
    }

    /// Frames pushed and dropped.
    pub fn counts(&self) -> (u64, u64) {
        (self.pushed.load(Ordering::Relaxed), self.queue.dropped())
    }

    fn step(&self, element: &super::MeetingSrc) {
        let flow = match self.queue.pop() {
            None => return self.pause(),
            Some(Item::Event(event)) if event.type_() == gst::EventType::Eos => {
                self.pad.push_event(event);
                self.pause();
                return element.imp().ended(self.id);
            }
            Some(Item::Event(event)) => {
                self.pad.push_event(event);
                return;
            }
            // The queue is emptied all the same, or it would ask for keyframes; and the track's end is still to come.
            Some(Item::Buffer(_)) if self.finished.load(Ordering::Relaxed) => return,
            Some(Item::Buffer(mut buffer)) => {
                if self.unheard.load(Ordering::Relaxed) {
                    buffer.make_mut().set_flags(gst::BufferFlags::DISCONT);
                }
                self.pad.push(buffer)
            }
        };
        // What is being taken down, or was, takes as little as nobody; another may be linked in its place.
        let flow = flow.map_err(|error| match error {
            gst::FlowError::Flushing => gst::FlowError::NotLinked,
            error => error,
        });
        let unheard = flow == Err(gst::FlowError::NotLinked);
        if self.unheard.swap(unheard, Ordering::Relaxed) && !unheard {
            element.imp().ask_for_keyframe(self);
        }
        if flow.is_ok() {
            self.pushed.fetch_add(1, Ordering::Relaxed);
        }
        if flow == Err(gst::FlowError::Eos) {
            // Sinks learn from the event that it is over.
            self.finished.store(true, Ordering::Relaxed);
            self.pad.push_event(gst::event::Eos::new());
        }
        match element.imp().combine(&self.pad, flow) {
            // A pad that nobody wants may still be linked later, and others may come.
            Ok(_) | Err(gst::FlowError::NotLinked | gst::FlowError::Eos) => {}
            Err(error) => {
                self.pause();
                gst::element_error!(
                    element,
                    gst::StreamError::Failed,
                    ("the pipeline took no more"),
                    ["{error}"]
                );
            }
        }
    }

    fn pause(&self) {
        let _ = self.pad.pause_task();
    }
}

/// The number of a pad's caps, as an envelope has it.
fn version(caps: &gst::CapsRef) -> u8 {
    Flags::default().with_caps_version(caps::version(caps)).caps_version()
}

/// Not [`wish::ASK_EVERY`](crate::wish::ASK_EVERY): the agent and the relay pass a request on twice a second (PROTOCOL.md 2.2).
const ASK_EVERY: std::time::Duration = std::time::Duration::from_millis(500);

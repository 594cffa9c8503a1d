//! Where all pads of a `meetingsink` meet: one queue to the agent, and the way back for keyframe wishes.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gst::{glib, prelude::*};
use meeting_protocol::local::{FromAgent, Purpose, ToAgent};
use meeting_wire::{Envelope, MeetingId, StreamId};

use crate::{link::Client, lock::lock, outbox::Outbox, report};

/// What the pads of one `meetingsink` share.
#[derive(Default)]
pub struct Exit {
    /// Frames on their way; closed while there is no agent.
    pub outbox: Arc<Outbox>,
    routes: Mutex<HashMap<StreamId, glib::WeakRef<gst::Pad>>>,
    counts: Counts,
}

/// What was done so far.
#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
    malformed: AtomicU64,
}

impl Exit {
    /// Remembers which pad a stream comes from.
    pub fn route(&self, stream: StreamId, pad: &gst::Pad) {
        let mut routes = self.routes();
        if routes.len() >= MAX_ROUTES {
            routes.retain(|_, pad| pad.upgrade().is_some());
        }
        if routes.len() < MAX_ROUTES {
            routes.insert(stream, pad.downgrade());
        }
    }

    /// Hands a frame to the agent; while it is slow, waits for at most `patience`. False if the frame was dropped.
    pub fn send(&self, stream: StreamId, envelope: Envelope, patience: Duration) -> bool {
        let len = envelope.sealed.len() as u64;
        let sent = self.outbox.push(&ToAgent::Frame { stream, envelope }, patience);
        if sent {
            self.counts.sent.fetch_add(1, Ordering::Relaxed);
            self.counts.bytes.fetch_add(len, Ordering::Relaxed);
        } else {
            self.count_dropped();
        }
        sent
    }

    /// Counts a frame that is not worth sending.
    pub fn count_dropped(&self) {
        self.counts.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a buffer that is no sealed frame. Gives how many there were before.
    pub fn count_malformed(&self) -> u64 {
        self.counts.malformed.fetch_add(1, Ordering::Relaxed)
    }

    /// What the `stats` property shows.
    pub fn stats(&self) -> gst::Structure {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        gst::Structure::builder("meetingsink-stats")
            .field("sent", count(&self.counts.sent))
            .field("bytes", count(&self.counts.bytes))
            .field("dropped", count(&self.counts.dropped))
            .field("malformed", count(&self.counts.malformed))
            .build()
    }

    /// A subscriber cannot decode: its wish goes up the pad the stream comes from.
    fn want_keyframe(&self, stream: StreamId) {
        let pad = self.routes().get(&stream).and_then(glib::WeakRef::upgrade);
        if let Some(pad) = pad {
            pad.push_event(report::want_keyframe());
        }
    }

    fn routes(&self) -> MutexGuard<'_, HashMap<StreamId, glib::WeakRef<gst::Pad>>> {
        lock(&self.routes)
    }
}

/// The element's end of the link.
pub struct Publish {
    /// The element.
    pub element: glib::WeakRef<super::MeetingSink>,
    /// The meeting of the first connection; later ones stay with it.
    pub meeting: MeetingId,
    /// What it serves.
    pub exit: Arc<Exit>,
}

impl Client for Publish {
    fn purpose(&self) -> Purpose {
        Purpose::Publish { meeting: Some(self.meeting) }
    }

    fn up(&self, _meeting: MeetingId) {
        if let Some(element) = self.element.upgrade() {
            report::say_state(element.upcast_ref(), "live", "the agent is back");
        }
    }

    fn message(&self, message: FromAgent) {
        if let FromAgent::KeyframeWanted { stream } = message {
            self.exit.want_keyframe(stream);
        }
    }

    fn down(&self, why: &str) {
        if let Some(element) = self.element.upgrade() {
            report::say_state(element.upcast_ref(), "agent-lost", why);
        }
    }
}

/// Streams that one pad or another has had; a pad's stream changes when its sealer is restarted.
const MAX_ROUTES: usize = 1024;

//! One pad's way out: frames of one track, with the caps, epochs and times that they need.

use std::sync::Arc;

use gst::prelude::*;
use meeting_protocol::frame::KeyId;
use meeting_wire::Envelope;

use super::{
    begin_event,
    format::{Epochs, FrameHead, Source},
};
use crate::{caps, envelope, store::Archive};

/// See the module.
pub struct Line {
    pad: gst::Pad,
    source: Source,
    archive: Option<Arc<Archive>>,
    /// The epoch of the track's first frame.
    first_epoch: u64,
    epochs: Epochs,
    /// The caps, and for which frames they were looked up.
    caps: Option<gst::Caps>,
    looked_up: Option<(KeyId, u8)>,
    stream_start: Option<gst::Event>,
    begin: Option<gst::Event>,
    /// What time 0 is in the recording.
    origin: u64,
}

impl Line {
    /// A line for a track whose first frame names `kid`.
    pub fn new(
        pad: gst::Pad,
        source: Source,
        kid: KeyId,
        archive: Option<Arc<Archive>>,
        stream_start: gst::Event,
        origin: u64,
    ) -> Self {
        let first_epoch = archive.as_ref().map_or(0, |archive| archive.first_epoch(source.from, kid));
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        Self {
            pad,
            source,
            archive,
            first_epoch,
            epochs: Epochs::default(),
            caps: None,
            looked_up: None,
            stream_start: Some(stream_start),
            begin: Some(gst::event::Segment::new(&segment)),
            origin,
        }
    }

    /// Goes on elsewhere, where the track had come to `epochs`; `segment` is said before the next frame.
    pub fn begin(&mut self, epochs: Epochs, segment: gst::Event) {
        self.epochs = epochs;
        self.begin = Some(segment);
    }

    /// Sends a frame on its way.
    pub fn push(&mut self, head: &FrameHead, frame: Envelope) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.epochs.frame(head.kid);
        let epoch = self.first_epoch.saturating_add_signed(self.epochs.since);
        let which = Some((head.kid, head.version));
        let news = std::mem::replace(&mut self.looked_up, which) != which;
        let caps = news.then(|| self.caps_of(head, epoch)).flatten();
        let new_caps = caps.filter(|caps| self.caps.as_ref() != Some(caps));
        if self.caps.is_none() && new_caps.is_none() {
            // Nothing says what it is: its key is not among those that are here.
            return Ok(gst::FlowSuccess::Ok);
        }
        if let Some(start) = self.stream_start.take() {
            self.pad.push_event(start);
        }
        if let Some(caps) = new_caps {
            self.pad.push_event(gst::event::Caps::new(&caps));
            self.caps = Some(caps);
        }
        let mut discont = false;
        if let Some(segment) = self.begin.take() {
            self.pad.push_event(segment);
            if self.archive.is_some() {
                self.pad.push_event(begin_event(epoch));
            }
            discont = true;
        }
        let time = |time: Option<u64>| time.map(|time| time.saturating_sub(self.origin));
        let (pts, dts) = (time(frame.pts), time(frame.dts));
        let mut buffer = envelope::to_buffer(frame, pts, dts);
        if discont {
            buffer.make_mut().set_flags(gst::BufferFlags::DISCONT);
        }
        self.pad.push(buffer)
    }

    /// Nothing more comes.
    pub fn end(&mut self) {
        let before = self.stream_start.take().into_iter().chain(self.begin.take());
        before.chain([gst::event::Eos::new()]).for_each(|event| {
            self.pad.push_event(event);
        });
    }

    /// The caps of a frame; none if nothing is known of them.
    fn caps_of(&self, head: &FrameHead, epoch: u64) -> Option<gst::Caps> {
        if let Some(archive) = &self.archive {
            return archive.caps(self.source.from, head.kid, epoch, head.version);
        }
        let mut caps = caps::sframe();
        let structure = caps.make_mut().structure_mut(0)?;
        structure.set("participant", self.source.from.to_string());
        structure.set("stream", self.source.stream.0);
        Some(caps)
    }
}

//! `meetingkey`: brings a meeting's keys into a pipeline.

mod agent;
mod imp;

use std::sync::Arc;

use gst::{glib, prelude::*, subclass::prelude::*};

use crate::store::KeyStore;

glib::wrapper! {
    /// The one connection to the agent that carries keys. It has no pads; it stands anywhere in the pipeline.
    ///
    /// ```text
    /// gst-launch-1.0 -m meetingkey videotestsrc ! x264enc tune=zerolatency ! e2eeseal ! meetingsink
    /// gst-launch-1.0 meetingkey loopback=true videotestsrc ! x264enc ! e2eeseal ! e2eeopen ! decodebin ! autovideosink
    /// ```
    pub struct MeetingKey(ObjectSubclass<imp::MeetingKey>) @extends gst::Element, gst::Object;
}

impl MeetingKey {
    /// Its keys, from READY to NULL.
    pub(crate) fn store(&self) -> Option<Arc<KeyStore>> {
        self.imp().store()
    }
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "meetingkey", gst::Rank::NONE, MeetingKey::static_type())
}

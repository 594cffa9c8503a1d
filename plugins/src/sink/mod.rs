//! `meetingsink`: gives sealed frames to the agent, which publishes them.

mod exit;
mod imp;
mod track;

use gst::{glib, prelude::*};

glib::wrapper! {
    /// Publishes each of its pads as a track of the meeting. Takes sealed frames only.
    ///
    /// ```text
    /// gst-launch-1.0 meetingkey \
    ///   videotestsrc is-live=true ! x264enc tune=zerolatency ! e2eeseal ! meetingsink name=out \
    ///   audiotestsrc is-live=true ! opusenc ! e2eeseal ! out.
    /// ```
    pub struct MeetingSink(ObjectSubclass<imp::MeetingSink>) @extends gst::Bin, gst::Element, gst::Object, @implements gst::ChildProxy;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "meetingsink", gst::Rank::NONE, MeetingSink::static_type())
}

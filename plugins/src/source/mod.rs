//! `meetingsrc`: the sealed frames of the others in a meeting.

mod imp;
mod queue;
mod timeline;
mod track;
mod watch;

use gst::{glib, prelude::*};

glib::wrapper! {
    /// One pad for each track of the others, as they come and go.
    ///
    /// ```text
    /// gst-launch-1.0 meetingkey meetingsrc name=in \
    ///   in.video_0 ! e2eeopen ! decodebin ! autovideosink  in.audio_0 ! e2eeopen ! decodebin ! autoaudiosink
    /// ```
    pub struct MeetingSrc(ObjectSubclass<imp::MeetingSrc>) @extends gst::Element, gst::Object, @implements gst::URIHandler;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "meetingsrc", gst::Rank::PRIMARY, MeetingSrc::static_type())
}

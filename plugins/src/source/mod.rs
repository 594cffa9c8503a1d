//! `meetingsrc`: the sealed frames of the others in a meeting.

mod imp;
mod keys;
mod queue;
mod timeline;
mod track;
mod watch;

use std::sync::Arc;

use gst::{glib, prelude::*, subclass::prelude::*};
use meeting_wire::MeetingId;

pub(crate) use track::{About, Id};

use crate::store::KeyStore;

glib::wrapper! {
    /// One pad for each track of the others, as they come and go.
    ///
    /// ```text
    /// gst-launch-1.0 meetingkey meetingsrc name=in \
    ///   in.video_0 ! e2eeopen ! decodebin ! autovideosink  in.audio_0 ! e2eeopen ! decodebin ! autoaudiosink
    /// gst-play-1.0 meeting://MEETING-ID/Alice
    /// ```
    pub struct MeetingSrc(ObjectSubclass<imp::MeetingSrc>) @extends gst::Element, gst::Object, @implements gst::URIHandler;
}

impl MeetingSrc {
    /// The meeting it is connected to.
    pub(crate) fn meeting(&self) -> Option<MeetingId> {
        self.imp().meeting()
    }

    /// The keys that it has brought.
    pub(crate) fn store(&self) -> Option<Arc<KeyStore>> {
        self.imp().store()
    }

    /// Brings keys, if it has not yet, and keeps them until NULL. None if that failed; the error is on the bus then.
    pub(crate) fn bring_keys(&self) -> Option<Arc<KeyStore>> {
        self.imp().bring_keys()
    }
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "meetingsrc", gst::Rank::PRIMARY, MeetingSrc::static_type())
}

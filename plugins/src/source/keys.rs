//! The keys that a `meetingsrc` brings where its pipeline has no `meetingkey`.

use std::sync::Arc;

use gst::{glib, prelude::*};
use meeting_wire::MeetingId;

use super::MeetingSrc;
use crate::{meetingkey::MeetingKey, store::KeyStore};

/// A `meetingkey` that stands in no bin, so that nobody but an opener who asked its source has the keys.
pub struct Keys(MeetingKey);

impl Keys {
    /// Connects to the agent of `source`. What `meetingkey` says, the source says; none if it said an error.
    pub fn bring(source: &MeetingSrc, meeting: MeetingId) -> Option<Self> {
        let key: MeetingKey = glib::Object::builder()
            .property("agent", source.property::<String>("agent"))
            .property("meeting", meeting.to_string())
            .build();
        let bus = gst::Bus::new();
        let source = source.downgrade();
        bus.set_sync_handler(move |_, message| {
            // Not the context: it would reach sealers too, and openers of other meetings.
            let said = matches!(message.type_(), gst::MessageType::Element | gst::MessageType::Error);
            if let Some(source) = source.upgrade().filter(|_| said) {
                let _ = source.post_message(message.to_owned());
            }
            gst::BusSyncReply::Drop
        });
        key.set_bus(Some(&bus));
        let keys = Self(key);
        keys.0.set_state(gst::State::Ready).ok().map(|_| keys)
    }

    /// The keys.
    pub fn store(&self) -> Option<Arc<KeyStore>> {
        self.0.store()
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}

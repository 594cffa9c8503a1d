//! One device: what it is called, and the `meetingsrc` that gives it.

use std::sync::OnceLock;

use gst::{glib, subclass::prelude::*};
use meeting_wire::{Kind, MeetingId};

use crate::{CAT, source::About};

/// What `create_element` sets.
struct Wanted {
    agent: String,
    meeting: MeetingId,
    participant: String,
    track: String,
}

/// See [`super::MeetingDevice`].
#[derive(Default)]
pub struct MeetingDevice {
    wanted: OnceLock<Wanted>,
}

impl super::MeetingDevice {
    /// A device for a track; none if nothing could open it.
    pub fn new(agent: &str, meeting: MeetingId, about: &About) -> Option<Self> {
        let (participant, track) = (about.id.from.to_string(), about.track.clone());
        let class = match about.kind {
            Kind::Video => "Video/Source/Network",
            Kind::Audio => "Audio/Source/Network",
            Kind::Data => "Data/Source/Network",
        };
        let properties = gst::Structure::builder("meeting-track")
            .field("meeting", meeting.to_string())
            .field("participant", &participant)
            .field("participant-name", &about.name)
            .field("track", &track)
            .build();
        let device: Self = glib::Object::builder()
            .property("display-name", format!("{} ({track})", about.name))
            .property("device-class", class)
            .property("caps", about.pad_caps()?)
            .property("properties", properties)
            .build();
        let _ = device.imp().wanted.set(Wanted { agent: agent.to_owned(), meeting, participant, track });
        Some(device)
    }
}

#[glib::object_subclass]
impl ObjectSubclass for MeetingDevice {
    const NAME: &'static str = "GstE2eeMeetingDevice";
    type Type = super::MeetingDevice;
    type ParentType = gst::Device;
}

impl ObjectImpl for MeetingDevice {}

impl GstObjectImpl for MeetingDevice {}

impl DeviceImpl for MeetingDevice {
    fn create_element(&self, name: Option<&str>) -> Result<gst::Element, gst::LoggableError> {
        let wanted = self.wanted.get().ok_or_else(|| gst::loggable_error!(CAT, "a device of no track"))?;
        let source = gst::ElementFactory::make("meetingsrc")
            .name_if_some(name)
            .property("agent", &wanted.agent)
            .property("meeting", wanted.meeting.to_string())
            .property("participant", &wanted.participant)
            .property("track", &wanted.track);
        source.build().map_err(|error| gst::loggable_error!(CAT, "no meetingsrc: {error}"))
    }
}

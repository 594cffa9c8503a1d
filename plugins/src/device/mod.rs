//! The tracks of the others as devices, for every application that lists cameras and microphones.
//!
//! ```text
//! gst-device-monitor-1.0 -f Video/Source
//! ```

mod imp;
mod list;
mod provider;

use gst::{glib, prelude::*};

glib::wrapper! {
    /// One track of one participant. It is there as long as the track is; `create_element` gives a `meetingsrc` for it.
    pub struct MeetingDevice(ObjectSubclass<imp::MeetingDevice>) @extends gst::Device, gst::Object;
}

glib::wrapper! {
    /// Lists the tracks of the one meeting that this user's agent is in. Without an agent, or where there are several
    /// meetings, it lists nothing and says nothing.
    pub struct MeetingDeviceProvider(ObjectSubclass<provider::MeetingDeviceProvider>)
        @extends gst::DeviceProvider, gst::Object;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    let rank = gst::Rank::PRIMARY;
    gst::DeviceProvider::register(
        Some(plugin),
        "meetingdeviceprovider",
        rank,
        MeetingDeviceProvider::static_type(),
    )
}

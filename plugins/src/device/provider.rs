//! The shell GStreamer sees: a list from start to stop, or one look.

use std::sync::{LazyLock, Mutex, MutexGuard};

use gst::{glib, prelude::*, subclass::prelude::*};

use super::list::List;
use crate::{lock::lock, report};

/// See [`super::MeetingDeviceProvider`].
#[derive(Default)]
pub struct MeetingDeviceProvider {
    agent: Mutex<String>,
    list: Mutex<Option<List>>,
}

impl MeetingDeviceProvider {
    fn agent(&self) -> MutexGuard<'_, String> {
        lock(&self.agent)
    }

    fn set(&self, list: Option<List>) {
        let old = std::mem::replace(&mut *lock(&self.list), list);
        drop(old);
    }
}

#[glib::object_subclass]
impl ObjectSubclass for MeetingDeviceProvider {
    const NAME: &'static str = "GstE2eeMeetingDeviceProvider";
    type Type = super::MeetingDeviceProvider;
    type ParentType = gst::DeviceProvider;
}

impl ObjectImpl for MeetingDeviceProvider {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| vec![report::agent_property()]);
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, _pspec: &glib::ParamSpec) {
        *self.agent() = value.get::<Option<String>>().ok().flatten().unwrap_or_default();
    }

    fn property(&self, _id: usize, _pspec: &glib::ParamSpec) -> glib::Value {
        report::shown_agent(&self.agent()).to_value()
    }
}

impl GstObjectImpl for MeetingDeviceProvider {}

impl DeviceProviderImpl for MeetingDeviceProvider {
    fn metadata() -> Option<&'static gst::subclass::DeviceProviderMetadata> {
        static METADATA: LazyLock<gst::subclass::DeviceProviderMetadata> = LazyLock::new(|| {
            gst::subclass::DeviceProviderMetadata::new(
                "Meeting device provider",
                "Source/Video/Audio/Network",
                "Lists the sealed tracks of the others in an end-to-end-encrypted meeting, from the agent",
                "The gst-e2ee authors",
            )
        });
        Some(&METADATA)
    }

    fn probe(&self) -> Vec<gst::Device> {
        List::follow(&self.agent(), None).map(|list| list.devices()).unwrap_or_default()
    }

    // Never an error: whoever lists cameras need not have a meeting.
    fn start(&self) -> Result<(), gst::LoggableError> {
        let agent = self.agent().clone();
        self.set(List::follow(&agent, Some(&self.obj())));
        Ok(())
    }

    fn stop(&self) {
        self.set(None);
    }
}

//! `meeting://MEETING-ID/NAME/TRACK`, as players give it.

use gst::{glib, subclass::prelude::*};

use super::{MeetingSrc, Settings};
use crate::{
    address::{self, Address},
    lock::lock,
};

impl URIHandlerImpl for MeetingSrc {
    const URI_TYPE: gst::URIType = gst::URIType::Src;

    fn protocols() -> &'static [&'static str] {
        &["meeting"]
    }

    fn uri(&self) -> Option<String> {
        let Settings { meeting, participant, track, .. } = lock(&self.settings).clone();
        address::meeting(&meeting).ok()??;
        Some(Address { meeting, participant, track }.to_string())
    }

    fn set_uri(&self, uri: &str) -> Result<(), glib::Error> {
        let address = Address::parse(uri)
            .map_err(|error| glib::Error::new(gst::URIError::BadUri, &error.to_string()))?;
        let mut settings = lock(&self.settings);
        settings.meeting = address.meeting;
        settings.participant = address.participant;
        settings.track = address.track;
        settings.by_uri = true;
        Ok(())
    }
}

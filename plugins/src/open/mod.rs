//! `e2eeopen`: RFC 9605 SFrame in, encoded frames out.

mod failures;
mod gate;
mod imp;

use gst::{glib, prelude::*};

glib::wrapper! {
    /// Opens each buffer with the key it names and passes on what authenticates, nothing else. `decodebin` plugs it
    /// in by itself.
    ///
    /// ```text
    /// gst-launch-1.0 meetingkey meetingsrc ! e2eeopen ! decodebin ! autovideosink
    /// ```
    pub struct E2eeOpen(ObjectSubclass<imp::E2eeOpen>) @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "e2eeopen", gst::Rank::PRIMARY, E2eeOpen::static_type())
}

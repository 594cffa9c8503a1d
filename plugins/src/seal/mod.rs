//! `e2eeseal`: whole encoded frames in, RFC 9605 SFrame out.

mod imp;
mod lane;

use gst::{glib, prelude::*};

glib::wrapper! {
    /// Seals each buffer with the key of its own stream. Without a key it drops and says so; it never passes a
    /// frame that is not sealed.
    ///
    /// ```text
    /// gst-launch-1.0 meetingkey videotestsrc ! x264enc tune=zerolatency ! e2eeseal ! meetingsink
    /// ```
    pub struct E2eeSeal(ObjectSubclass<imp::E2eeSeal>) @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

/// The form of what leaves `e2eeseal`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstE2eeFormat")]
#[repr(i32)]
pub enum Format {
    /// One RFC 9605 ciphertext per frame, caps `application/x-sframe`.
    #[default]
    #[enum_value(name = "One RFC 9605 ciphertext per frame", nick = "sframe")]
    Sframe,
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    Format::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(Some(plugin), "e2eeseal", gst::Rank::NONE, E2eeSeal::static_type())
}

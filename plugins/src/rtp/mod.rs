//! Sealed frames over RTP: draft-ietf-avtcore-rtp-sframe, per-frame SFrame.
//!
//! ```text
//! e2eeseal -> rtpsframepay -> RTP: a webrtcbin, an SFU, a socket -> rtpsframedepay -> e2eeopen
//!   frame       S . . E                                               frame
//! ```
//!
//! - [`descriptor`] is the byte in front of each fragment, [`assembler`] makes frames of fragments: bytes alone.
//! - [`codec`] knows the formats by their names in RTP.
//! - `pay.rs` and `depay.rs` are the shells GStreamer sees.

pub mod assembler;
pub mod codec;
pub mod descriptor;

mod depay;
mod pay;

use gst::{glib, prelude::*};

glib::wrapper! {
    /// Splits sealed frames into RTP packets of at most `mtu` bytes.
    ///
    /// ```text
    /// gst-launch-1.0 meetingkey videotestsrc ! vp8enc deadline=1 ! e2eeseal ! rtpsframepay ! udpsink host=127.0.0.1 port=5004
    /// ```
    pub struct RtpSFramePay(ObjectSubclass<pay::RtpSFramePay>)
        @extends gst_rtp::RTPBasePayload, gst::Element, gst::Object;
}

glib::wrapper! {
    /// Puts sealed frames together again and passes on those that are complete.
    ///
    /// ```text
    /// gst-launch-1.0 meetingkey udpsrc port=5004 caps=application/x-rtp,media=video,clock-rate=90000,encoding-name=VP8 !
    ///     rtpjitterbuffer ! rtpsframedepay ! e2eeopen ! decodebin ! autovideosink
    /// ```
    pub struct RtpSFrameDepay(ObjectSubclass<depay::RtpSFrameDepay>)
        @extends gst_rtp::RTPBaseDepayload, gst::Element, gst::Object;
}

/// Neither has a rank: that an m-line is sealed stands in its `a=sframe`, which autopluggers do not see.
pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "rtpsframepay", gst::Rank::NONE, RtpSFramePay::static_type())?;
    gst::Element::register(Some(plugin), "rtpsframedepay", gst::Rank::NONE, RtpSFrameDepay::static_type())
}

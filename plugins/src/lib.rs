//! End-to-end-encrypted meetings in any pipeline: `libgste2ee.so`.
//!
//! ```text
//!                    meetingkey  (keys from the agent)
//!                    /        \
//!  encoder -> e2eeseal        e2eeopen -> decoder
//!               |                ^
//!               v                |
//!          meetingsink -> .. -> meetingsrc
//!     or rtpsframepay -> .. -> rtpsframedepay
//! ```
//!
//! - [`seal`] and [`open`] mirror each other: `imp.rs` is the shell GStreamer sees, the other file the logic.
//! - [`rtp`] is the road through any RTP transport in place of the meeting's relay.
//! - [`store`] holds the keys, [`context`] brings them to the elements, [`Rules`](meeting_protocol::frame::Rules) say until when they are good.
//! - [`recording`] writes sealed frames into a file and reads them, also without keys.
//! - [`bounds`] keeps pictures and sounds from decoders that are larger than makes sense.
//! - [`device`] lists the tracks of the others for applications that list cameras.
//! - [`link`] talks to the agent; [`loopback`] stands in for it where `meetingkey loopback=true`.
//!
//! Nothing secret is a property, a caps field, a message or a log line; the plugin logs through GStreamer alone.

pub mod address;
pub mod bounds;
pub mod caps;
pub mod clock;
pub mod context;
pub mod device;
pub mod envelope;
pub mod link;
pub mod loopback;
pub mod meetingkey;
pub mod open;
pub mod outbox;
pub mod random;
pub mod recording;
pub mod report;
pub mod rtp;
pub mod seal;
pub mod sink;
pub mod source;
pub mod store;
pub mod throttle;
pub mod wish;

mod lock;
mod plugin;

use std::sync::LazyLock;

pub use plugin::plugin_register_static;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("e2ee", gst::DebugColorFlags::empty(), Some("end-to-end-encrypted meetings"))
});

//! What the loader calls: registers the elements and does nothing else, since it runs in the scanner too.

#![allow(missing_docs)]

use gst::glib;

use crate::{device, meetingkey, open, recording, rtp, seal, sink, source};

fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    seal::register(plugin)?;
    open::register(plugin)?;
    meetingkey::register(plugin)?;
    sink::register(plugin)?;
    source::register(plugin)?;
    rtp::register(plugin)?;
    recording::register(plugin)?;
    device::register(plugin)?;
    Ok(())
}

gst::plugin_define!(
    e2ee,
    env!("CARGO_PKG_DESCRIPTION"),
    plugin_init,
    concat!(env!("CARGO_PKG_VERSION"), "-", env!("COMMIT_ID")),
    "Apache 2.0",
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_REPOSITORY"),
    env!("BUILD_REL_DATE")
);

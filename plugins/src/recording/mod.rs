//! Sealed recordings: frames as the relay saw them, kept anywhere, opened later with a key file.
//!
//! ```text
//!  meetingsrc -> e2eemux -> filesink                     records: no key in this process
//!  filesrc -> e2eedemux -> e2eeopen -> decoder           plays: `decodebin` finds both
//!                 ^------------^-- meetingkey key-file=..
//! ```
//!
//! - [`format`], [`walk`] and [`index`] are bytes in, bytes out, without GStreamer.
//! - `mux.rs` and `demux.rs` are the shells GStreamer sees; `film.rs` is a file that can be read anywhere, `player.rs` a track of
//!   it, `feed.rs` what is pushed, `line.rs` one pad's way out.

mod demux;
mod feed;
mod film;
pub mod format;
pub mod index;
mod line;
mod mux;
mod player;
pub mod walk;

use gst::{glib, prelude::*};

glib::wrapper! {
    /// Writes sealed frames into one stream of bytes, without ever opening them.
    ///
    /// ```text
    /// gst-launch-1.0 -e meetingsrc ! e2eemux ! filesink location=meeting.sealed
    /// ```
    pub struct E2eeMux(ObjectSubclass<mux::E2eeMux>) @extends gst::Element, gst::Object;
}

glib::wrapper! {
    /// Gives the tracks of a sealed recording, one pad for each.
    ///
    /// ```text
    /// gst-launch-1.0 meetingkey key-file=meeting.keys passphrase-file=words filesrc location=meeting.sealed ! decodebin ! autovideosink
    /// ```
    pub struct E2eeDemux(ObjectSubclass<demux::E2eeDemux>) @extends gst::Element, gst::Object;
}

/// The media type of sealed recordings.
pub const RECORDING: &str = "application/x-sealed-recording";

fn caps() -> gst::Caps {
    gst::Caps::new_empty_simple(RECORDING)
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "e2eemux", gst::Rank::NONE, E2eeMux::static_type())?;
    gst::Element::register(Some(plugin), "e2eedemux", gst::Rank::PRIMARY, E2eeDemux::static_type())?;
    gst::TypeFind::register(
        Some(plugin),
        RECORDING,
        gst::Rank::PRIMARY,
        Some("sealed"),
        Some(&caps()),
        |find| {
            if find.peek(0, format::MAGIC.len() as u32) == Some(&format::MAGIC) {
                find.suggest(gst::TypeFindProbability::Maximum, &caps());
            }
        },
    )
}

/// Tells an opener that frames from this epoch on follow, which it may have opened before: playing goes back.
fn begin_event(epoch: u64) -> gst::Event {
    gst::event::CustomDownstream::new(gst::Structure::builder(BEGIN).field("epoch", epoch).build())
}

/// What [`begin_event`] says.
pub fn begins_at(event: &gst::EventRef) -> Option<u64> {
    event.structure().filter(|structure| structure.name() == BEGIN)?.get("epoch").ok()
}

const BEGIN: &str = "e2ee-recording-begins";

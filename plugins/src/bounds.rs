//! How large a picture or a sound may be that a member declares: a decoder makes room for what its caps say, and they are the
//! word of whoever sends.
//!
//! What the bytes themselves say is for the decoder to find out: our elements parse no codec.

use std::sync::atomic::{AtomicU64, Ordering};

use gst::{glib, prelude::*};

/// The property `max-pixels`, the same wherever it is.
pub fn property() -> glib::ParamSpec {
    glib::ParamSpecUInt64::builder("max-pixels")
        .nick("Most pixels")
        .blurb(
            "Pictures whose caps say more pixels (width times height) are refused, with a warning; 8K by default. \
             Counts for caps that come from then on",
        )
        .minimum(1)
        .default_value(PIXELS_OF_8K)
        .mutable_playing()
        .build()
}

/// Its value.
#[derive(Debug)]
pub struct MaxPixels(AtomicU64);

impl Default for MaxPixels {
    fn default() -> Self {
        Self(PIXELS_OF_8K.into())
    }
}

impl MaxPixels {
    /// Sets it.
    pub fn set(&self, value: &glib::Value) {
        self.0.store(value.get().unwrap_or(PIXELS_OF_8K), Ordering::Relaxed);
    }

    /// What it is.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// What of caps is beyond it, or beyond all sense; for a person. None if nothing is: what caps do not say is not
    /// looked at.
    pub fn beyond(&self, plain: &gst::CapsRef) -> Option<String> {
        plain.iter().find_map(|structure| beyond(structure, self.get()))
    }
}

fn beyond(structure: &gst::StructureRef, max_pixels: u64) -> Option<String> {
    // A field of another type is no number that anybody could check.
    let number = |field| {
        let stated = structure.has_field(field).then(|| structure.get::<i32>(field).ok());
        stated.map(|number| number.and_then(|number| u64::try_from(number).ok()).unwrap_or(u64::MAX))
    };
    let (width, height) = (number("width"), number("height"));
    let pixels = width.unwrap_or(1).saturating_mul(height.unwrap_or(1));
    if pixels > max_pixels {
        let side = |side: Option<u64>| side.map_or("?".into(), |side| side.to_string());
        return Some(format!(
            "a picture of {}x{}, more than max-pixels allows ({max_pixels})",
            side(width),
            side(height)
        ));
    }
    if structure.has_field("framerate") {
        let rate = structure.get::<gst::Fraction>("framerate").ok();
        if rate.is_none_or(|rate| i64::from(rate.numer()) > MAX_FRAMERATE * i64::from(rate.denom())) {
            return Some(format!("more than {MAX_FRAMERATE} pictures a second"));
        }
    }
    for (field, most, what) in
        [("channels", MAX_CHANNELS, "channels"), ("rate", MAX_RATE, "samples a second")]
    {
        if number(field).is_some_and(|number| number > most) {
            return Some(format!("a sound of more than {most} {what}"));
        }
    }
    None
}

const PIXELS_OF_8K: u64 = 7680 * 4320;
/// Slow motion, and more.
const MAX_FRAMERATE: i64 = 1_000;
/// More than any loudspeaker setup has.
const MAX_CHANNELS: u64 = 64;
/// The highest rate that is sold.
const MAX_RATE: u64 = 768_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_sense_is_told_and_the_rest_is_not() {
        gst::init().expect("GStreamer");
        let beyond = |caps: &str| MaxPixels::default().beyond(&caps.parse::<gst::Caps>().expect("caps"));
        for caps in [
            "video/x-vp8",
            "video/x-vp8, width=7680, height=4320, framerate=0/1",
            "video/x-vp8, width=4320, height=7680, framerate=240/1",
            "audio/x-opus, rate=48000, channels=64",
        ] {
            assert_eq!(beyond(caps), None, "{caps}");
        }
        for (caps, said) in [
            ("video/x-vp8, width=16384, height=16384", "16384x16384"),
            ("video/x-vp8, width=7680, height=4321", "max-pixels"),
            ("image/jpeg, width=2147483647", "x?"),
            ("image/jpeg, width=-1, height=1", "picture"),
            ("image/jpeg, width=(gint64)4294967297, height=1", "picture"),
            ("image/jpeg, framerate=2000/1", "pictures a second"),
            ("image/jpeg, framerate=(double)1e300", "pictures a second"),
            ("audio/x-raw, channels=65", "64 channels"),
            ("audio/x-opus, rate=2147483647", "samples a second"),
        ] {
            assert!(beyond(caps).is_some_and(|text| text.contains(said)), "{caps}: {:?}", beyond(caps));
        }
    }
}

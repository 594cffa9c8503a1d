//! What passes a pad, written down: each frame's bytes as a hash, its times, flags and caps.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use gst::prelude::*;
use sha2::{Digest, Sha256};

/// One frame as it passed.
#[derive(Clone, Debug)]
pub struct Frame {
    /// SHA-256 of its bytes.
    pub hash: [u8; 32],
    /// How many bytes.
    pub len: usize,
    /// Presentation time in ns.
    pub pts: Option<i64>,
    /// Decode time in ns.
    pub dts: Option<i64>,
    /// Duration in ns.
    pub duration: Option<i64>,
    /// Its flags.
    pub flags: gst::BufferFlags,
    /// The pad's caps at that moment.
    pub caps: Option<gst::Caps>,
}

/// Writes down what passes one pad.
#[derive(Clone)]
pub struct Tap(Arc<Mutex<Vec<Frame>>>);

impl Tap {
    /// Begins at the pad `pad` of the element `element`.
    pub fn on(pipeline: &gst::Pipeline, element: &str, pad: &str) -> Result<Self> {
        let element = pipeline.by_name(element).with_context(|| format!("no {element}"))?;
        let pad = element.static_pad(pad).with_context(|| format!("no pad {pad}"))?;
        let tap = Self(Arc::default());
        let frames = tap.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            if let Some(frame) = info.buffer().and_then(|buffer| Frame::read(pad, buffer)) {
                frames.lock().push(frame);
            }
            gst::PadProbeReturn::Ok
        });
        Ok(tap)
    }

    /// All frames so far.
    pub fn frames(&self) -> Vec<Frame> {
        self.lock().clone()
    }

    /// How many frames so far.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Frame>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Frame {
    fn read(pad: &gst::Pad, buffer: &gst::BufferRef) -> Option<Self> {
        let bytes = buffer.map_readable().ok()?;
        let time = |time: Option<gst::ClockTime>| time.map(|time| time.nseconds() as i64);
        Some(Self {
            hash: Sha256::digest(&bytes).into(),
            len: bytes.len(),
            pts: time(buffer.pts()),
            dts: time(buffer.dts()),
            duration: time(buffer.duration()),
            flags: buffer.flags(),
            caps: pad.current_caps(),
        })
    }
}

//! Looking at media with ordinary GStreamer: what a file shows and sounds like.

use std::path::Path;

use anyhow::{Context, Result, bail};
use gst::prelude::*;

/// One decoded picture.
pub struct Picture {
    /// Presentation time in ns.
    pub pts: u64,
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// Packed RGB.
    pub rgb: Vec<u8>,
}

/// All pictures of a file, scaled to `width` x `height`, at most `most` of them.
pub fn pictures(path: &Path, width: usize, height: usize, most: usize) -> Result<Vec<Picture>> {
    let tail = format!(
        "videoconvert ! videoscale method=lanczos ! video/x-raw,format=RGB,width={width},height={height},pixel-aspect-ratio=1/1"
    );
    let mut pictures = Vec::new();
    samples(path, "video", &tail, |sample| {
        let buffer = sample.buffer().context("a sample without a buffer")?;
        let map = buffer.map_readable()?;
        let stride = (width * 3).next_multiple_of(4);
        let rgb = map.chunks(stride).take(height).flat_map(|row| &row[..width * 3]).copied().collect();
        pictures.push(Picture { pts: buffer.pts().map_or(0, |t| t.nseconds()), width, height, rgb });
        Ok(pictures.len() < most)
    })?;
    Ok(pictures)
}

/// All sound of a file as one channel at 48 kHz.
pub fn sound(path: &Path) -> Result<Vec<i16>> {
    let tail = "audioconvert ! audioresample ! audio/x-raw,format=S16LE,rate=48000,channels=1";
    let mut sound = Vec::new();
    samples(path, "audio", tail, |sample| {
        let map = sample.buffer().context("a sample without a buffer")?.map_readable()?;
        sound.extend(map.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])));
        Ok(true)
    })?;
    Ok(sound)
}

/// Caps of one kind of stream of a file, decoded.
pub fn caps(path: &Path, kind: &str) -> Result<gst::Caps> {
    let mut caps = None;
    samples(path, kind, "identity", |sample| {
        caps = sample.caps_owned();
        Ok(false)
    })?;
    caps.context("no caps")
}

/// Peak signal-to-noise ratio in dB between two pictures of one size.
pub fn psnr(a: &Picture, b: &Picture) -> f64 {
    let squares: f64 = a.rgb.iter().zip(&b.rgb).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    let mean = squares / a.rgb.len().min(b.rgb.len()).max(1) as f64;
    if mean == 0.0 { 99.0 } else { 10.0 * (255.0_f64.powi(2) / mean).log10() }
}

/// The strongest frequency in Hz of `sound` at 48 kHz between 50 Hz and 2 kHz.
pub fn pitch(sound: &[i16]) -> f64 {
    let strongest = (50..2_000).max_by(|a, b| power(sound, *a).total_cmp(&power(sound, *b)));
    f64::from(strongest.unwrap_or(0))
}

/// How strong a frequency is in the first second of `sound` at 48 kHz, by a Goertzel filter.
pub fn power(sound: &[i16], hz: u32) -> f64 {
    let factor = 2.0 * (std::f64::consts::TAU * f64::from(hz) / 48_000.0).cos();
    let (mut last, mut before) = (0.0, 0.0);
    for sample in sound.iter().take(48_000) {
        let next = f64::from(*sample) + factor * last - before;
        (before, last) = (last, next);
    }
    last * last + before * before - factor * last * before
}

/// How loud `sound` is in dB below full scale.
pub fn loudness(sound: &[i16]) -> f64 {
    let mean = sound.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / sound.len().max(1) as f64;
    10.0 * (mean.max(1e-9) / f64::from(i16::MAX).powi(2)).log10()
}

/// Writes packed RGB as a PNG file.
pub fn write_png(path: &Path, width: usize, height: usize, rgb: &[u8]) -> Result<()> {
    gst::init()?;
    let pipeline =
        launch("appsrc name=in format=time ! videoconvert ! pngenc snapshot=true ! filesink name=out")?;
    let source = pipeline.by_name("in").and_downcast::<gst_app::AppSrc>().context("no appsrc")?;
    pipeline.by_name("out").context("no filesink")?.set_property("location", path.to_str());
    source.set_caps(Some(
        &gst::Caps::builder("video/x-raw")
            .field("format", "RGB")
            .field("width", width as i32)
            .field("height", height as i32)
            .field("framerate", gst::Fraction::new(1, 1))
            .build(),
    ));
    let stride = (width * 3).next_multiple_of(4);
    let mut rows = Vec::with_capacity(stride * height);
    for row in rgb.chunks(width * 3) {
        rows.extend_from_slice(row);
        rows.resize(rows.len().next_multiple_of(4), 0);
    }
    pipeline.set_state(gst::State::Playing)?;
    source.push_buffer(gst::Buffer::from_mut_slice(rows))?;
    source.end_of_stream()?;
    finish(&pipeline)
}

/// Pictures side by side, `across` in a row, as one picture.
pub fn contact_sheet(pictures: &[&Picture], across: usize) -> Option<Picture> {
    let first = pictures.first()?;
    let (width, height) = (first.width * across, first.height * pictures.len().div_ceil(across));
    let mut rgb = vec![0; width * height * 3];
    for (i, picture) in pictures.iter().enumerate() {
        let (left, top) = (i % across * first.width, i / across * first.height);
        for (y, row) in picture.rgb.chunks(picture.width * 3).enumerate() {
            let start = ((top + y) * width + left) * 3;
            rgb[start..start + row.len()].copy_from_slice(row);
        }
    }
    Some(Picture { pts: 0, width, height, rgb })
}

/// Decodes one kind of stream of a file through `tail`; `each` says whether to go on.
fn samples(
    path: &Path,
    kind: &str,
    tail: &str,
    mut each: impl FnMut(&gst::Sample) -> Result<bool>,
) -> Result<()> {
    gst::init()?;
    let pipeline = launch(&format!(
        "filesrc name=in ! decodebin name=d d. ! {kind}/x-raw ! queue ! {tail} ! appsink name=out sync=false"
    ))?;
    pipeline.by_name("in").context("no filesrc")?.set_property("location", path.to_str());
    let sink = pipeline.by_name("out").and_downcast::<gst_app::AppSink>().context("no appsink")?;
    pipeline.set_state(gst::State::Playing)?;
    let outcome = loop {
        match sink.try_pull_sample(gst::ClockTime::from_seconds(10)) {
            Some(sample) => match each(&sample) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            },
            None if sink.is_eos() => break Ok(()),
            None => break finish(&pipeline).and_then(|()| bail!("nothing came out of {}", path.display())),
        }
    };
    pipeline.set_state(gst::State::Null)?;
    outcome
}

fn launch(description: &str) -> Result<gst::Pipeline> {
    gst::parse::launch(description)?.downcast().map_err(|_| anyhow::anyhow!("not a pipeline: {description}"))
}

/// Waits for the end of the stream and stops.
fn finish(pipeline: &gst::Pipeline) -> Result<()> {
    let bus = pipeline.bus().context("a pipeline without a bus")?;
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(10), &kinds);
    pipeline.set_state(gst::State::Null)?;
    match message.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Eos(_)) => Ok(()),
        Some(gst::MessageView::Error(error)) => bail!("{}", error.error()),
        _ => bail!("no end of stream within 10 s"),
    }
}

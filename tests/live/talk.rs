//! Somebody who sends numbered frames instead of pictures and sound, and somebody who notes what comes of them.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use gst::prelude::*;
use rig::{Agent, until};

/// Between two frames of sound; pictures come half as often.
pub const EVERY: Duration = Duration::from_millis(20);
/// Pictures from one keyframe to the next.
const GROUP: u64 = 50;

/// Sends until it is dropped.
pub struct Talk {
    pipeline: gst::Pipeline,
    stop: Arc<AtomicBool>,
    wishes: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl Talk {
    /// Through `agent`, with time stamps of a clock that is so many parts in a million too fast.
    pub fn start(agent: &Agent, ppm: i32) -> Result<Self> {
        let pipeline = launch(
            agent,
            "meetingkey name=key meetingsink name=net \
             appsrc name=picture is-live=true format=time caps=\"video/x-vp8,width=(int)320,height=(int)240\" \
               ! e2eeseal track=camera ! net. \
             appsrc name=sound is-live=true format=time caps=\"audio/x-opus,rate=(int)48000,channels=(int)2\" \
               ! e2eeseal track=microphone ! net.",
        )?;
        let source = |name| pipeline.by_name(name).and_downcast::<gst_app::AppSrc>().context("no appsrc");
        let (picture, sound) = (source("picture")?, source("sound")?);
        let wishes = Arc::new(AtomicU32::new(0));
        let (pad, count) = (picture.static_pad("src").context("no pad")?, wishes.clone());
        pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
            let is_wish = |event: &gst::Event| gst_video::UpstreamForceKeyUnitEvent::parse(event).is_ok();
            count.fetch_add(info.event().is_some_and(is_wish).into(), Ordering::Relaxed);
            gst::PadProbeReturn::Ok
        });
        pipeline.set_state(gst::State::Playing)?;
        let running = until("a clock", Duration::from_secs(10), || Ok(pipeline.current_running_time()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let start = Instant::now();
            for n in 0.. {
                let captured = EVERY * n;
                thread::sleep(captured.saturating_sub(start.elapsed()));
                let shown = captured.mul_f64(1.0 + f64::from(ppm) * 1e-6);
                let pts = running + gst::ClockTime::from_nseconds(shown.as_nanos() as u64);
                let frame = |len, flags| frame(captured, pts, len, flags);
                let mut pushed = sound.push_buffer(frame(100, gst::BufferFlags::empty())).is_ok();
                if n % 2 == 0 {
                    let key = u64::from(n / 2) % GROUP == 0;
                    let (len, flags) = if key {
                        (12_000, gst::BufferFlags::empty())
                    } else {
                        (3_000, gst::BufferFlags::DELTA_UNIT)
                    };
                    pushed &= picture.push_buffer(frame(len, flags)).is_ok();
                }
                if !pushed || stopped.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        Ok(Self { pipeline, stop, wishes, thread: Some(thread) })
    }

    /// How often the encoder was asked for a keyframe.
    pub fn wishes(&self) -> u32 {
        self.wishes.load(Ordering::Relaxed)
    }

    /// How many frames went nowhere because there was no key for them, or none that counts any more.
    pub fn keyless(&self) -> u64 {
        counted(&self.pipeline, ["dropped-no-key", "dropped-stale"])
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// A frame that says when it was captured, counted from the first one.
fn frame(captured: Duration, pts: gst::ClockTime, len: usize, flags: gst::BufferFlags) -> gst::Buffer {
    let mut bytes = (captured.as_nanos() as u64).to_be_bytes().to_vec();
    bytes.resize(len, 0x55);
    let mut buffer = gst::Buffer::from_slice(bytes);
    let target = buffer.make_mut();
    target.set_pts(pts);
    target.set_flags(flags);
    buffer
}

/// A frame that came.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Whose.
    pub who: String,
    pub video: bool,
    /// By the sender's word, in ns from the first frame on.
    pub captured: i64,
    /// When it is to be shown, and when it came.
    pub pts: i64,
    pub came: i64,
    /// Frames before it are lost.
    pub discont: bool,
}

/// Notes everything that others send, until it is dropped.
pub struct Watch {
    pipeline: gst::Pipeline,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Watch {
    /// What `agent` receives.
    pub fn start(agent: &Agent) -> Result<Self> {
        let pipeline = launch(agent, "meetingkey name=key meetingsrc name=net")?;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let notes = heard.clone();
        let source = pipeline.by_name("net").context("no source")?;
        let whole = pipeline.downgrade();
        source.connect_pad_added(move |_, pad| {
            if let Some(pipeline) = whole.upgrade()
                && let Err(error) = branch(&pipeline, pad, &notes)
            {
                gst::error!(gst::CAT_DEFAULT, "{error:#}");
            }
        });
        pipeline.set_state(gst::State::Playing)?;
        Ok(Self { pipeline, heard })
    }

    /// All that came so far.
    pub fn heard(&self) -> MutexGuard<'_, Vec<Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something was heard.
    pub fn until(&self, what: &str, wanted: impl Fn(&[Heard]) -> bool) -> Result<()> {
        until(what, Duration::from_secs(30), || Ok(wanted(&self.heard()).then_some(())))
    }

    /// The pads of the source, whose they are and of what.
    pub fn pads(&self) -> Vec<(String, bool)> {
        let source = self.pipeline.by_name("net");
        let pads = source.map(|source| source.src_pads()).unwrap_or_default();
        pads.iter().filter_map(owner).collect()
    }

    /// Asks for a keyframe of every picture, as decoders do.
    pub fn want_keyframes(&self) {
        let sinks = self.pipeline.iterate_sinks().into_iter().flatten();
        for pad in sinks.filter_map(|sink| sink.static_pad("sink")) {
            pad.push_event(gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
        }
    }

    /// How many frames were refused because there was no key for them, or none that counts any more.
    pub fn keyless(&self) -> u64 {
        counted(&self.pipeline, ["no-key", "stale"])
    }

    /// An error if any element has posted one.
    pub fn check(&self) -> Result<()> {
        let bus = self.pipeline.bus().context("no bus")?;
        let error = bus.pop_filtered(&[gst::MessageType::Error]);
        ensure!(error.is_none(), "{error:?}");
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// The sum of two counters over all elements that have them.
fn counted(pipeline: &gst::Pipeline, counters: [&str; 2]) -> u64 {
    let elements = pipeline.iterate_recurse().into_iter().flatten();
    let all = elements.filter(|element| element.has_property("stats"));
    let stats = all.map(|element| element.property::<gst::Structure>("stats"));
    stats.map(|stats| counters.iter().filter_map(|name| stats.get::<u64>(*name).ok()).sum::<u64>()).sum()
}

fn owner(pad: &gst::Pad) -> Option<(String, bool)> {
    let caps = pad.current_caps()?;
    let who = caps.structure(0)?.get::<String>("participant-name").ok()?;
    Some((who, pad.name().starts_with("video")))
}

/// Behind a pad: opens what comes and notes it.
fn branch(pipeline: &gst::Pipeline, pad: &gst::Pad, notes: &Arc<Mutex<Vec<Heard>>>) -> Result<()> {
    let (who, video) = owner(pad).context("a pad that says not whose it is")?;
    let notes = notes.clone();
    let open = gst::ElementFactory::make("e2eeopen").build()?;
    let sink = gst_app::AppSink::builder().sync(false).async_(false).build();
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let buffer = sample.buffer().ok_or(gst::FlowError::Error)?;
                let map = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
                let captured = map.first_chunk().copied().map(i64::from_be_bytes).unwrap_or_default();
                notes.lock().unwrap_or_else(PoisonError::into_inner).push(Heard {
                    who: who.clone(),
                    video,
                    captured,
                    pts: buffer.pts().map_or(0, |pts| pts.nseconds() as i64),
                    came: sink.current_running_time().map_or(0, |now| now.nseconds() as i64),
                    discont: buffer.flags().contains(gst::BufferFlags::DISCONT),
                });
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );
    pipeline.add_many([&open, sink.upcast_ref()])?;
    open.link(&sink)?;
    sink.sync_state_with_parent()?;
    open.sync_state_with_parent()?;
    pad.link(&open.static_pad("sink").context("no pad")?)?;
    Ok(())
}

/// A pipeline whose elements talk to `agent`.
fn launch(agent: &Agent, description: &str) -> Result<gst::Pipeline> {
    let pipeline = gst::parse::launch(description)?
        .downcast::<gst::Pipeline>()
        .map_err(|_| anyhow::anyhow!("not a pipeline"))?;
    for name in ["key", "net"] {
        pipeline.by_name(name).context(name)?.set_property("agent", agent.socket().to_str());
    }
    Ok(pipeline)
}

//! A meeting endpoint in one file: publishes a picture and a tone, receives everybody else's, and says where the meeting
//! stands. Ctrl-C ends it.
//!
//! It needs plain GStreamer, the plugin, and a `meeting-agent` that is in a meeting: nothing here links to either.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use gst::prelude::*;
use signal_hook::consts::SIGINT;

const PIPELINE: &str = "meetingkey meetingsink name=out meetingsrc name=in \
    videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=180,framerate=15/1 \
      ! vp8enc deadline=1 keyframe-max-dist=30 ! e2eeseal ! out. \
    audiotestsrc is-live=true ! opusenc ! e2eeseal ! out.";

fn main() -> Result<(), Box<dyn Error>> {
    gst::init()?;
    let pipeline = gst::parse::launch(PIPELINE)?.downcast::<gst::Pipeline>().map_err(|_| "not a pipeline")?;
    let source = pipeline.by_name("in").ok_or("no meetingsrc")?;
    let weak = pipeline.downgrade();
    source.connect_pad_added(move |_, pad| {
        if let Some(pipeline) = weak.upgrade()
            && let Err(error) = receive(&pipeline, pad)
        {
            eprintln!("{}: {error}", pad.name());
        }
    });
    let weak = pipeline.downgrade();
    source.connect_pad_removed(move |_, pad| {
        let name = pad.name();
        // Not from here: a streaming thread cannot stop what it runs in.
        if let Some(pipeline) = weak.upgrade() {
            pipeline.call_async(move |pipeline| end(pipeline, &name));
        }
    });

    let interrupted = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGINT, interrupted.clone())?;
    pipeline.set_state(gst::State::Playing)?;
    let outcome = listen(&pipeline, &interrupted);
    pipeline.set_state(gst::State::Null)?;
    outcome
}

/// Without a main loop: looks up four times a second, for Ctrl-C.
fn listen(pipeline: &gst::Pipeline, interrupted: &AtomicBool) -> Result<(), Box<dyn Error>> {
    let bus = pipeline.bus().ok_or("no bus")?;
    loop {
        if interrupted.swap(false, Ordering::Relaxed) {
            pipeline.send_event(gst::event::Eos::new());
        }
        let Some(message) = bus.timed_pop(gst::ClockTime::from_mseconds(250)) else { continue };
        match message.view() {
            gst::MessageView::Eos(_) => return Ok(()),
            gst::MessageView::Error(error) => return Err(error.error().into()),
            gst::MessageView::Element(element) => {
                if let Some(words) = element.structure().and_then(words) {
                    println!("{words}");
                }
            }
            _ => {}
        }
    }
}

/// Opens and decodes one track: a window or a file would go in place of the fakesink.
fn receive(pipeline: &gst::Pipeline, pad: &gst::Pad) -> Result<(), Box<dyn Error>> {
    let branch =
        gst::parse::bin_from_description("queue name=first ! e2eeopen ! decodebin ! fakesink", false)?;
    branch.set_property("name", pad.name());
    let first = branch.by_name("first").and_then(|queue| queue.static_pad("sink")).ok_or("no queue")?;
    let entry = gst::GhostPad::with_target(&first)?;
    branch.add_pad(&entry)?;
    pipeline.add(&branch)?;
    branch.sync_state_with_parent()?;
    pad.link(&entry)?;
    let caps = pad.current_caps().ok_or("no caps")?;
    let whose = caps.structure(0).ok_or("no caps")?;
    println!("receiving {} of {}", whose.get::<&str>("track")?, whose.get::<&str>("participant-name")?);
    Ok(())
}

fn end(pipeline: &gst::Pipeline, name: &str) {
    if let Some(branch) = pipeline.by_name(name) {
        let _ = pipeline.remove(&branch);
        let _ = branch.set_state(gst::State::Null);
    }
}

/// What a person is told about a message of ours.
fn words(said: &gst::StructureRef) -> Option<String> {
    match said.name().as_str() {
        // Other elements tell their state too; the meeting's has its code.
        "e2ee-state" if said.has_field("security-code") => {
            let state = said.get::<&str>("state").ok()?;
            if state != "live" {
                return Some(format!("{state}: {}", said.get::<&str>("detail").ok()?));
            }
            let compared = if said.get("verified").ok()? { "compared" } else { "not compared yet" };
            let (people, key) = (said.get::<u32>("participants").ok()?, said.get::<u64>("epoch").ok()?);
            let code = said.get::<&str>("security-code").ok()?;
            Some(format!("live: {people} people, key {key}, code {code} ({compared})"))
        }
        "e2ee-stream" => said.get("detail").ok(),
        "e2ee-open-failure" => {
            let (name, track) = (said.get::<&str>("name").ok()?, said.get::<&str>("track").ok()?);
            Some(format!("a frame of {name}'s {track} is refused: {}", said.get::<&str>("reason").ok()?))
        }
        _ => None,
    }
}

//! Nothing of ours outlives its pipeline: GStreamer's own leak tracer looks on while pipelines go up and down.

#![allow(clippy::unwrap_used)]

#[path = "support/agent.rs"]
mod fake;
mod support;

use std::process::Command;

use fake::FakeAgent;
use gst::prelude::*;
use support::{Pipeline, buffer, stat, until};

const OPUS: &str = "audio/x-opus, rate=(int)48000, channels=(int)2";
const ROUNDS: usize = 5;

/// Does nothing unless the test below started it, with the tracer on: it prints what is left in the end.
#[test]
fn traced_process() {
    if std::env::var_os("GST_TRACERS").is_none() {
        return;
    }
    support::init();
    let agent = FakeAgent::start();
    let socket = agent.socket();
    let mut elements = Vec::new();
    let source = format!("appsrc name=in format=time is-live=true caps=\"{OPUS}\" ! e2eeseal");
    for line in [
        format!("meetingkey loopback=true {source} ! e2eeopen name=open ! fakesink async=false"),
        format!(
            "meetingkey agent={socket} {source} ! meetingsink agent={socket} \
             meetingsrc name=src agent={socket} e2eeopen name=open ! fakesink async=false"
        ),
    ] {
        for _ in 0..ROUNDS {
            let pipeline = Pipeline::parse(&line);
            elements.extend(all(&pipeline));
            if line.contains("meetingsrc") {
                pipeline.link_new_pads("src", "open");
            }
            pipeline.play();
            let input: gst_app::AppSrc = pipeline.element("in").downcast().unwrap();
            let open = pipeline.element("open");
            until("a frame is opened", || {
                input.push_buffer(buffer(b"sound")).unwrap();
                stat(&open, "opened") > 0
            });
            for down in [gst::State::Paused, gst::State::Ready, gst::State::Null] {
                pipeline.0.set_state(down).unwrap();
                pipeline.play();
            }
        }
    }
    // What does not come up must not stay either.
    for line in [
        format!("{source} ! fakesink"),
        "fakesrc ! application/x-sframe ! e2eeopen ! fakesink".to_owned(),
        "meetingkey agent=/nowhere/agent.sock".to_owned() + " fakesrc ! fakesink",
        format!("meetingkey agent={socket} meetingkey agent={socket} fakesrc ! fakesink"),
        "meetingsrc agent=/nowhere/agent.sock ! fakesink".to_owned(),
        format!("{source} ! meetingsink agent=/nowhere/agent.sock"),
    ] {
        let pipeline = Pipeline::parse(&line);
        elements.extend(all(&pipeline));
        let _ = pipeline.0.set_state(gst::State::Playing);
        pipeline.until_error();
    }
    drop(agent);
    // Threads of GStreamer let go of what they worked on a moment later.
    until("all elements are gone", || elements.iter().all(|element| element.upgrade().is_none()));
    let tracers = gst::active_tracers();
    let leaks = tracers.iter().find(|tracer| tracer.type_().name() == "GstLeaksTracer").expect("the tracer");
    eprintln!("{HERE}");
    leaks.emit_by_name::<()>("log-live-objects", &[]);
}

/// Every element of a pipeline, without holding it.
fn all(pipeline: &Pipeline) -> Vec<gst::glib::WeakRef<gst::Element>> {
    pipeline.0.iterate_recurse().into_iter().flatten().map(|element| element.downgrade()).collect()
}

const HERE: &str = "what is left:";

#[test]
fn nothing_is_left_of_pipelines_that_are_gone() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "traced_process", "--nocapture"])
        .env("GST_TRACERS", "leaks")
        .env("GST_DEBUG", "GST_TRACER:7")
        .env("GST_DEBUG_NO_COLOR", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let left = said.split_once(HERE).expect("what is left").1;
    let alive = left.lines().filter_map(|line| line.split_once("object-alive, type-name=(string)"));
    let types: Vec<_> = alive.map(|(_, rest)| rest.split(',').next().unwrap_or_default()).collect();
    assert!(types.contains(&"GstElementFactory"), "the tracer saw nothing: {said}");
    // The registry keeps what it knows.
    let lasting = ["GstElementFactory", "GstDeviceProviderFactory", "GstTypeFindFactory", "GstPlugin"];
    let leaked: Vec<_> = types.into_iter().filter(|name| !lasting.contains(name)).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
}

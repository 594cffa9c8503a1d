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

#[test]
fn pipelines_go_up_and_down() {
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
}

/// Every element of a pipeline, without holding it.
fn all(pipeline: &Pipeline) -> Vec<gst::glib::WeakRef<gst::Element>> {
    pipeline.0.iterate_recurse().into_iter().flatten().map(|element| element.downgrade()).collect()
}

#[test]
fn nothing_is_left_of_pipelines_that_are_gone() {
    let me = std::env::current_exe().unwrap();
    let (ends_well, said) = quiet(&[me.to_str().unwrap(), "--exact", "pipelines_go_up_and_down"]);
    assert!(ends_well, "{said}");
}

#[test]
fn what_is_left_or_warned_of_is_noticed() {
    for (line, told) in [
        ("pass", None),
        ("gst.gst_element_factory_make(b'identity', b'left')", Some("GstIdentity <left>")),
        ("gst.gst_buffer_new()", Some("GstBuffer ")),
        ("gst.gst_object_unref(None)", Some("CRITICAL")),
    ] {
        let program = format!(
            "import ctypes; gst = ctypes.CDLL('libgstreamer-1.0.so.0'); gst.gst_init(None, None); {line}"
        );
        // Under another name: what a Python script names is not looked at.
        let (ends_well, said) = quiet(&["bash", "-c", "exec -a leaky /usr/bin/python3 -c \"$0\"", &program]);
        assert_eq!(ends_well, told.is_none(), "{line}: {said}");
        assert!(told.is_none_or(|told| said.contains(told)), "{line}: {said}");
    }
}

/// Runs a command under `tests/quiet`: whether it and the tracer are content, and what was said.
fn quiet(command: &[&str]) -> (bool, String) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/quiet");
    let output = Command::new(script).args(command).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

//! The tracks of the others as devices: they come and go, each gives its source, and without an agent there is silence.

#![allow(clippy::unwrap_used)]

#[path = "support/agent.rs"]
mod fake;
mod support;

use std::time::{Duration, Instant};

use fake::{ALICE, FakeAgent, MEETING};
use gst::prelude::*;
use meeting_protocol::local::ToAgent;
use support::{PATIENCE, Pipeline, init, takes_less, until};

/// GStreamer has one object of each provider in a process, so what it does is told in one test.
#[test]
fn devices_come_and_go_with_the_tracks() {
    init();
    let factory = gst::DeviceProviderFactory::find("meetingdeviceprovider").unwrap();
    assert!(factory.has_classes(Some("Video/Source")) && factory.has_classes(Some("Audio/Source/Network")));
    let provider = factory.get().unwrap();

    // Nobody answers: nothing is listed, soon, and that is no error.
    provider.set_property("agent", "/nowhere/agent.sock");
    takes_less(QUICK, || {
        let started = Instant::now();
        assert!(provider.devices().is_empty());
        provider.start().unwrap();
        assert!(provider.devices().is_empty());
        provider.stop();
        started.elapsed()
    });

    // Somebody takes the call and says nothing, as a stopped agent does.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let _silent = std::os::unix::net::UnixListener::bind(&path).unwrap();
    provider.set_property("agent", path.to_str());
    takes_less(QUICK, || {
        let started = Instant::now();
        assert!(provider.devices().is_empty());
        started.elapsed()
    });

    let agent = FakeAgent::start();
    provider.set_property("agent", agent.socket());
    let monitor = gst::DeviceMonitor::new();
    monitor.add_filter(Some("Video/Source/Network"), None).unwrap();
    monitor.start().unwrap();
    assert!(monitor.devices().is_empty());

    let socket = agent.socket();
    let publishes = Pipeline::parse(&format!(
        "meetingkey agent={socket} videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=20/1 \
         ! vp8enc deadline=1 ! e2eeseal track=screen ! meetingsink agent={socket}"
    ));
    publishes.play();
    let device = said(&monitor, gst::MessageType::DeviceAdded);
    assert_eq!(
        (device.display_name().as_str(), &*device.device_class()),
        ("Alice (screen)", "Video/Source/Network")
    );
    let caps = device.caps().unwrap();
    let sealed = caps.structure(0).unwrap();
    assert_eq!(sealed.name(), "application/x-sframe");
    assert_eq!(sealed.get::<&str>("original-media-type"), Ok("video/x-vp8"));
    let told = device.properties().unwrap();
    for (name, value) in [
        ("meeting", MEETING.to_string()),
        ("participant", ALICE.to_string()),
        ("participant-name", "Alice".into()),
        ("track", "screen".into()),
    ] {
        assert_eq!(told.get::<String>(name), Ok(value), "{name}");
    }
    // A monitor costs nobody a frame.
    assert!(!agent.has_heard(|said| matches!(said, ToAgent::KeyframeRequest { .. })));

    // One look sees the same while nothing follows; it waits for 100 ms at most, in which a slow agent says nothing.
    monitor.stop();
    until("the device shows", || provider.devices().len() == 1);
    monitor.start().unwrap();
    until("the device shows again", || monitor.devices().len() == 1);

    // The device's element gives the track.
    let source = device.create_element(Some("from-device")).unwrap();
    for (property, value) in [("participant", ALICE.to_string()), ("track", "screen".into())] {
        assert_eq!(source.property::<String>(property), value);
    }
    let plays = Pipeline::parse("e2eeopen name=open ! appsink name=out sync=false async=false");
    plays.0.add(&source).unwrap();
    let open = plays.element("open").static_pad("sink").unwrap();
    source.connect_pad_added(move |_, pad| {
        let _ = pad.link(&open);
    });
    plays.play();
    let out: gst_app::AppSink = plays.element("out").downcast().unwrap();
    assert!(out.try_pull_sample(gst::ClockTime::from_seconds(PATIENCE.as_secs())).is_some());
    drop(plays);

    // In READY the connection is still there: what is said last has all the time it takes.
    publishes.0.set_state(gst::State::Ready).unwrap();
    assert_eq!(said(&monitor, gst::MessageType::DeviceRemoved).display_name(), "Alice (screen)");
    assert!(monitor.devices().is_empty());
    monitor.stop();
}

fn said(monitor: &gst::DeviceMonitor, wanted: gst::MessageType) -> gst::Device {
    let patience = gst::ClockTime::from_seconds(PATIENCE.as_secs());
    let message = monitor.bus().timed_pop_filtered(patience, &[wanted]).expect("a device");
    match message.view() {
        gst::MessageView::DeviceAdded(added) => added.device(),
        gst::MessageView::DeviceRemoved(removed) => removed.device(),
        _ => unreachable!(),
    }
}

/// Three looks at nothing, each over within 200 ms, on a machine that has other things to do.
const QUICK: Duration = Duration::from_millis(1500);

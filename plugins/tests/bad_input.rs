//! What should not come, or not in this order: each has a defined end, a message for a person, and no frame in clear.

#![allow(clippy::unwrap_used)]

#[path = "support/agent.rs"]
mod fake;
mod support;

use std::{
    ops::ControlFlow,
    sync::mpsc,
    time::{Duration, Instant},
};

use fake::FakeAgent;
use gst::prelude::*;
use gst_check::Harness;
use meeting_protocol::local::ToAgent;
use meeting_wire::MAX_FRAME;
use support::{PATIENCE, Pipeline, buffer, bytes, init, push_sealed, stat, takes_less, until};

const OPUS: &str = "audio/x-opus, rate=(int)48000, channels=(int)2";
const VP8: &str = "video/x-vp8, width=(int)320, height=(int)240";

fn feed(pipeline: &Pipeline) -> gst_app::AppSrc {
    pipeline.element("in").downcast().unwrap()
}

fn drain(pipeline: &Pipeline) -> gst_app::AppSink {
    pipeline.element("out").downcast().unwrap()
}

fn pull(sink: &gst_app::AppSink) -> gst::Buffer {
    let sample = sink.try_pull_sample(gst::ClockTime::from_seconds(PATIENCE.as_secs())).expect("a sample");
    sample.buffer().unwrap().to_owned()
}

/// Through agent and back, times as the test sets them.
fn round_trip(agent: &FakeAgent) -> Pipeline {
    let socket = agent.socket();
    Pipeline::parse(&format!(
        "meetingkey name=key agent={socket} \
         appsrc name=in format=time is-live=true caps=\"{VP8}\" ! e2eeseal name=seal ! meetingsink name=sink agent={socket} \
         meetingsrc name=src agent={socket} ! e2eeopen name=open ! appsink name=out sync=false async=false"
    ))
}

fn loopback() -> Harness {
    init();
    let mut harness = Harness::new_parse("meetingkey loopback=true e2eeseal name=seal ! e2eeopen name=open");
    harness.set_src_caps_str(OPUS);
    harness.play();
    harness
}

#[test]
fn caps_that_are_not_taken_are_told_with_what_to_do() {
    for (caps, told) in [
        ("video/x-h264, stream-format=byte-stream, alignment=nal", "h264parse"),
        ("video/x-h265, stream-format=hvc1, alignment=nal", "h265parse"),
        ("video/x-av1, stream-format=annexb, alignment=tu", "av1parse"),
        ("video/x-raw, format=I420, width=16, height=16, framerate=1/1", "encoder"),
        ("application/x-sframe, original-media-type=video/x-vp8", "sealed already"),
        ("video/x-prores", "none of the formats"),
    ] {
        let pipeline = Pipeline::parse(&format!(
            "meetingkey loopback=true appsrc name=in format=time caps=\"{caps}\" ! e2eeseal ! \
             appsink name=out sync=false async=false"
        ));
        pipeline.play();
        feed(&pipeline).push_buffer(buffer(b"in clear")).unwrap();
        let text = pipeline.until_warning();
        assert!(text.contains(told), "{caps}: {text}");
        pipeline.until_error();
        assert!(drain(&pipeline).try_pull_sample(gst::ClockTime::ZERO).is_none(), "{caps}");
    }
}

#[test]
fn a_source_that_asks_nobody_is_told_once() {
    let pipeline = Pipeline::parse("meetingkey loopback=true e2eeseal name=seal ! fakesink");
    pipeline.play();
    let encoder = gst::Pad::new(gst::PadDirection::Src);
    encoder.link(&pipeline.element("seal").static_pad("sink").unwrap()).unwrap();
    encoder.set_active(true).unwrap();
    encoder.push_event(gst::event::StreamStart::new("encoder"));
    let caps = "video/x-h264, stream-format=byte-stream, alignment=nal".parse::<gst::Caps>().unwrap();
    encoder.push_event(gst::event::Caps::new(&caps));
    encoder.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
    for _ in 0..2 {
        assert_eq!(encoder.push(buffer(b"in clear")), Err(gst::FlowError::NotNegotiated));
    }
    let text = pipeline.until_warning();
    assert!(text.contains("h264parse"), "{text}");
    let bus = pipeline.0.bus().unwrap();
    assert!(bus.pop_filtered(&[gst::MessageType::Warning]).is_none(), "it is told once");
    encoder.set_active(false).unwrap();
}

#[test]
fn caps_that_say_no_alignment_are_taken_at_their_word() {
    init();
    let caps = "video/x-h264, stream-format=(string)byte-stream";
    let mut harness = Harness::new_parse("meetingkey loopback=true e2eeseal ! e2eeopen");
    harness.set_src_caps_str(caps);
    harness.play();
    harness.push(buffer(b"whole or not")).unwrap();
    assert_eq!(bytes(&harness.pull().unwrap()), b"whole or not");
    assert_eq!(harness.sinkpad().unwrap().current_caps().unwrap(), caps.parse::<gst::Caps>().unwrap());
}

#[test]
fn frames_in_clear_are_neither_opened_nor_published() {
    let agent = FakeAgent::start();
    for (element, told) in [
        ("e2eeopen ! fakesink".to_owned(), "nothing to open"),
        (format!("meetingsink name=sink agent={}", agent.socket()), "put e2eeseal before"),
    ] {
        let pipeline = Pipeline::parse(&format!(
            "meetingkey loopback=true appsrc name=in format=time is-live=true caps=\"{VP8}\" ! {element}"
        ));
        pipeline.play();
        feed(&pipeline).push_buffer(buffer(b"in clear")).unwrap();
        let text = pipeline.until_warning();
        assert!(text.contains(told), "{element}: {text}");
        pipeline.until_error();
    }
    assert!(!agent.has_heard(|message| matches!(message, ToAgent::Frame { .. })));
}

#[test]
fn caps_longer_than_a_statement_are_refused() {
    let headers = "00".repeat(20 * 1024);
    let pipeline = Pipeline::parse(&format!(
        "meetingkey loopback=true appsrc name=in format=time \
         caps=\"audio/mpeg, mpegversion=(int)4, codec_data=(buffer){headers}\" ! e2eeseal ! fakesink"
    ));
    pipeline.play();
    feed(&pipeline).push_buffer(buffer(b"in clear")).unwrap();
    assert!(pipeline.until_error().contains("longer than the 16384 bytes"));
}

#[test]
fn a_frame_longer_than_the_meeting_carries_is_dropped_and_told() {
    let agent = FakeAgent::start();
    let pipeline = round_trip(&agent);
    pipeline.play();
    let input = feed(&pipeline);
    push_sealed(&input, &pipeline.element("seal"), &vec![7; MAX_FRAME + 1]);
    let text = pipeline.until_warning();
    assert!(text.contains("lower bitrate or resolution"), "{text}");
    // What leans on it goes too, and what does not comes through.
    let mut delta = buffer(b"delta");
    delta.get_mut().unwrap().set_flags(gst::BufferFlags::DELTA_UNIT);
    input.push_buffer(delta).unwrap();
    input.push_buffer(buffer(b"key")).unwrap();
    assert_eq!(bytes(&pull(&drain(&pipeline))), b"key");
    assert_eq!(stat(&pipeline.element("sink"), "dropped"), 2);
}

#[test]
fn empty_frames_and_frames_without_times_cross() {
    let agent = FakeAgent::start();
    let pipeline = round_trip(&agent);
    pipeline.play();
    let mut last = gst::ClockTime::ZERO;
    for frame in [&b""[..], b"x", b"", b"yy"] {
        push_sealed(&feed(&pipeline), &pipeline.element("seal"), frame);
        let got = pull(&drain(&pipeline));
        assert_eq!(bytes(&got), frame);
        // The time of arrival stands in.
        assert!(got.pts().unwrap() >= last, "{:?} after {last}", got.pts());
        last = got.pts().unwrap();
    }
}

#[test]
fn a_buffer_list_is_sealed_frame_by_frame() {
    let harness = &mut loopback();
    let mut list = gst::BufferList::new();
    (0..5u8).for_each(|n| list.get_mut().unwrap().add(buffer(&[n])));
    harness.srcpad().unwrap().push_list(list).unwrap();
    for n in 0..5u8 {
        assert_eq!(bytes(&harness.pull().unwrap()), [n]);
    }
    assert_eq!(stat(&harness.find_element("e2eeseal").unwrap(), "sealed"), 5);
}

#[test]
fn after_a_flush_frames_go_on_and_no_counter_comes_twice() {
    let harness = &mut loopback();
    for round in 0..5u8 {
        harness.push(buffer(&[round])).unwrap();
        assert_eq!(bytes(&harness.pull().unwrap()), [round]);
        assert!(harness.push_event(gst::event::FlushStart::new()));
        assert_eq!(harness.push(buffer(b"flushed")), Err(gst::FlowError::Flushing));
        assert!(harness.push_event(gst::event::FlushStop::new(true)));
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        assert!(harness.push_event(gst::event::Segment::new(&segment)));
    }
    let seal = harness.find_element("e2eeseal").unwrap();
    assert_eq!((stat(&seal, "sealed"), stat(&seal, "ctr")), (5, 5));
    assert_eq!(stat(&harness.find_element("e2eeopen").unwrap(), "replayed"), 0);
}

#[test]
fn a_flush_ends_a_wait_for_a_key() {
    takes_less(Duration::from_millis(450), || {
        let pipeline = Pipeline::parse(
            "meetingkey loopback=true appsrc name=in format=time \
             caps=\"application/x-sframe, original-media-type=audio/x-opus\" ! e2eeopen name=open ! fakesink async=false",
        );
        pipeline.play();
        let input = feed(&pipeline);
        // From before the wait on, which takes half a second if nobody ends it.
        let started = Instant::now();
        input.push_buffer(buffer(&[0x77; 40])).unwrap();
        until("the frame is taken", || input.current_level_buffers() == 0);
        let pad = input.static_pad("src").unwrap();
        pad.push_event(gst::event::FlushStart::new());
        until("the frame is given up", || stat(&pipeline.element("open"), "no-key") == 1);
        let took = started.elapsed();
        pad.push_event(gst::event::FlushStop::new(true));
        took
    });
}

#[test]
fn pictures_after_sound_are_another_stream() {
    let harness = &mut loopback();
    let seal = harness.find_element("e2eeseal").unwrap();
    let track = || seal.property::<gst::Structure>("stats").get::<String>("track").unwrap();
    for (caps, label) in [(OPUS, "audio"), (VP8, "video"), (OPUS, "audio")] {
        harness.set_src_caps_str(caps);
        harness.push(buffer(b"frame")).unwrap();
        assert_eq!(bytes(&harness.pull().unwrap()), b"frame");
        assert_eq!(track(), label);
    }
}

#[test]
fn a_second_meetingkey_for_the_same_meeting_is_refused() {
    let agent = FakeAgent::start();
    let by_agent = format!("agent={}", agent.socket());
    let by_name = format!("loopback=true meeting={}", "0a".repeat(16));
    for key in [by_agent, by_name] {
        let pipeline = Pipeline::parse(&format!("meetingkey {key} meetingkey {key} fakesrc ! fakesink"));
        let text = pipeline.try_state(gst::State::Playing).unwrap_err();
        assert!(text.contains("another `meetingkey`") && text.contains("take one"), "{text}");
        drop(pipeline);

        // In a bin of its own it is in nobody's way.
        let apart = format!("( meetingkey {key} fakesrc ! fakesink )");
        Pipeline::parse(&format!("{apart} {apart}")).play();
    }
}

#[test]
fn a_track_that_nobody_has_is_waited_for_and_told() {
    let agent = FakeAgent::start();
    let pipeline = Pipeline::parse(&format!(
        "meetingsrc name=src agent={} participant=Alice track=screne ! fakesink",
        agent.socket()
    ));
    pipeline.play();
    let said = pipeline.until_says("e2ee-state", |s| s.get::<&str>("state") == Ok("waiting"));
    let detail = said.get::<String>("detail").unwrap();
    assert!(detail.contains("`screne`") && detail.contains("meeting-agent status"), "{detail}");
    assert_eq!(stat_u32(&pipeline.element("src"), "tracks"), 0);
}

fn stat_u32(element: &gst::Element, name: &str) -> u32 {
    element.property::<gst::Structure>("stats").get(name).unwrap()
}

#[test]
fn a_seek_is_refused_and_harms_nothing() {
    let agent = FakeAgent::start();
    let pipeline = round_trip(&agent);
    pipeline.play();
    let (input, output) = (feed(&pipeline), drain(&pipeline));
    push_sealed(&input, &pipeline.element("seal"), b"before");
    assert_eq!(bytes(&pull(&output)), b"before");
    let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT;
    assert!(output.seek_simple(flags, gst::ClockTime::ZERO).is_err());
    let src = pipeline.element("src");
    assert!(src.seek_simple(flags, gst::ClockTime::SECOND).is_err());
    let mut query = gst::query::Seeking::new(gst::Format::Time);
    assert!(!output.query(&mut query) || !query.result().0);
    input.push_buffer(buffer(b"after")).unwrap();
    assert_eq!(bytes(&pull(&output)), b"after");
}

/// Numbers from a seed, for walks that can be walked again (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// One element goes its own way and comes back, if frames flow into it: they are held at its door and what
/// sticks to its pads is said again. GStreamer asks for that: a thread on its way in would bring a frame before its segment.
fn alone(element: &gst::Element) -> Result<(), gst::glib::BoolError> {
    let inputs = element.sink_pads().into_iter().filter_map(|pad| Some((pad.peer()?, pad)));
    for (peer, pad) in inputs.collect::<Vec<_>>() {
        let (stands, held) = mpsc::channel();
        let mask = gst::PadProbeType::BLOCK | gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        let probe = peer.add_probe(mask, move |_, _| {
            let _ = stands.send(());
            gst::PadProbeReturn::Ok
        });
        if held.recv_timeout(Duration::from_millis(200)).is_ok() {
            element.set_state(gst::State::Null).map_err(|error| gst::glib::bool_error!("{error}"))?;
            element.sync_state_with_parent()?;
            peer.sticky_events_foreach(|event| {
                pad.send_event(event.clone());
                ControlFlow::Continue(gst::EventForeachAction::Keep)
            });
        }
        probe.into_iter().for_each(|probe| peer.remove_probe(probe));
    }
    Ok(())
}

/// Goes from state to state, to all of them in any order, and then it has to play.
fn walk(pipeline: &Pipeline, elements: &[&str], seed: u64, steps: usize) {
    let states = [gst::State::Null, gst::State::Ready, gst::State::Paused, gst::State::Playing];
    let mut dice = Dice(seed);
    for step in 0..steps {
        let state = states[dice.below(4) as usize];
        // In PAUSED a thread may stand in a sink and hold the pads before it, whosever they are.
        let single = pipeline.0.current_state() == gst::State::Playing
            && pipeline.0.pending_state() == gst::State::VoidPending
            && dice.below(2) == 0;
        let at = format!("seed {seed}, step {step}");
        if single {
            let element = pipeline.element(elements[dice.below(elements.len() as u64) as usize]);
            alone(&element).expect(&at);
        } else {
            pipeline.try_state(state).expect(&at);
            if dice.below(2) == 0 {
                let (change, ..) = pipeline.0.state(gst::ClockTime::from_mseconds(dice.below(30)));
                change.expect(&at);
            }
        }
    }
    pipeline.0.set_state(gst::State::Null).unwrap();
    pipeline.play();
}

#[test]
fn states_in_any_order_end_in_a_pipeline_that_plays() {
    for seed in 1..=4 {
        let pipeline = Pipeline::parse(
            "meetingkey loopback=true audiotestsrc is-live=true samplesperbuffer=480 ! opusenc ! e2eeseal name=seal ! \
             e2eeopen name=open ! fakesink async=false",
        );
        walk(&pipeline, &["seal", "open"], seed, 40);
        until("a frame is opened", || stat(&pipeline.element("open"), "opened") > 0);
    }
}

#[test]
fn states_in_any_order_leave_the_way_through_the_agent_whole() {
    for seed in 1..=3 {
        let agent = FakeAgent::start();
        let socket = agent.socket();
        let pipeline = Pipeline::parse(&format!(
            "meetingkey name=key agent={socket} \
             videotestsrc is-live=true ! video/x-raw,width=32,height=32,framerate=100/1 ! vp8enc deadline=1 ! \
             e2eeseal name=seal ! meetingsink name=sink agent={socket} \
             meetingsrc name=src agent={socket} e2eeopen name=open ! fakesink async=false"
        ));
        pipeline.link_new_pads("src", "open");
        walk(&pipeline, &["seal", "sink", "open"], seed, 25);
        until("a frame is opened", || stat(&pipeline.element("open"), "opened") > 0);
    }
}

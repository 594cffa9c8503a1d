//! The elements and an agent: keys, frames out, frames in, refusals, and an agent that dies and comes back.

#![allow(clippy::unwrap_used)]

#[path = "support/agent.rs"]
mod fake;
mod support;

use std::{
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};

use fake::{ALICE, FakeAgent, MEETING};
use gst::prelude::*;
use meeting_protocol::{
    BootTime,
    local::{FromAgent, MeetingState, ToAgent},
};
use meeting_wire::{Flags, Kind, StreamId};
use support::{PATIENCE, Pipeline, TRIES, buffer, bytes, init, push_sealed, stat, takes_less, until};

const VP8: &str = "video/x-vp8, width=(int)320, height=(int)240";

fn feed(pipeline: &Pipeline, name: &str) -> gst_app::AppSrc {
    pipeline.element(name).downcast().unwrap()
}

fn drain(pipeline: &Pipeline, name: &str) -> gst_app::AppSink {
    pipeline.element(name).downcast().unwrap()
}

fn pull(sink: &gst_app::AppSink) -> gst::Buffer {
    let sample = sink.try_pull_sample(gst::ClockTime::from_seconds(30)).expect("a sample");
    sample.buffer().unwrap().to_owned()
}

/// A clear frame in, a sealed one out, keys from the agent.
fn sealing(agent: &FakeAgent) -> Pipeline {
    Pipeline::parse(&format!(
        "meetingkey name=key agent={} appsrc name=in format=time is-live=true caps=\"{VP8}\" ! e2eeseal name=seal ! \
         e2eeopen name=open ! appsink name=out sync=false async=false",
        agent.socket()
    ))
}

#[test]
fn keys_come_from_the_agent_and_the_first_frame_waits_for_them() {
    let agent = FakeAgent::start();
    let pipeline = sealing(&agent);
    pipeline.play();
    push_sealed(&feed(&pipeline, "in"), &pipeline.element("seal"), b"first");
    assert_eq!(bytes(&pull(&drain(&pipeline, "out"))), b"first");
    let said = pipeline.until_says("e2ee-state", |s| s.get::<&str>("state") == Ok("live"));
    assert_eq!(said.get::<&str>("meeting").unwrap(), MEETING.to_string());
    assert_eq!((said.get("leader-verified"), said.get("verified")), (Ok(true), Ok(false)));
    let key = pipeline.element("key");
    assert_eq!(key.property::<String>("security-code"), "12345 67890");
    assert_eq!((key.property::<u64>("epoch"), key.property::<u32>("participants")), (1, 2));
    let opened = agent.hears("OpenStream", |m| matches!(m, ToAgent::OpenStream { .. }));
    let ToAgent::OpenStream { kind, caps, .. } = opened else { unreachable!() };
    assert_eq!((kind, caps.parse::<gst::Caps>().unwrap()), (Kind::Video, VP8.parse::<gst::Caps>().unwrap()));
    // In READY the connection is still there: what is said last has all the time it takes.
    pipeline.0.set_state(gst::State::Ready).unwrap();
    agent.hears("CloseStream", |m| matches!(m, ToAgent::CloseStream { .. }));
}

#[test]
fn a_new_lease_is_a_new_stream() {
    let agent = FakeAgent::start();
    let pipeline = sealing(&agent);
    let mut randoms = Vec::new();
    for _ in 0..3 {
        pipeline.play();
        push_sealed(&feed(&pipeline, "in"), &pipeline.element("seal"), b"x");
        pull(&drain(&pipeline, "out"));
        match agent.hears("OpenStream", |m| matches!(m, ToAgent::OpenStream { .. })) {
            ToAgent::OpenStream { random, .. } => randoms.push(random),
            _ => unreachable!(),
        }
        pipeline.0.set_state(gst::State::Ready).unwrap();
    }
    randoms.sort();
    randoms.dedup();
    assert_eq!(randoms.len(), 3);
}

#[test]
fn nothing_is_sealed_after_the_lease_or_under_a_retired_epoch() {
    let agent = FakeAgent::start();
    let pipeline = sealing(&agent);
    pipeline.play();
    let (input, output, seal) = (feed(&pipeline, "in"), drain(&pipeline, "out"), pipeline.element("seal"));
    push_sealed(&input, &seal, b"1");
    pull(&output);

    agent.tell_keys(FromAgent::Lease { until: BootTime(0) });
    let key = pipeline.element("key");
    let mark = |agent: &FakeAgent, participants| {
        // What was said before the mark has arrived when the mark shows.
        agent.tell_keys(FromAgent::State(MeetingState {
            phase: "x".into(),
            participants,
            ..MeetingState::default()
        }));
        until("the mark", || key.property::<u32>("participants") == participants);
    };
    mark(&agent, 100);
    input.push_buffer(buffer(b"2")).unwrap();
    until("the frame is dropped", || stat(&seal, "dropped-stale") == 1);

    agent.tell_keys(FromAgent::Lease { until: BootTime(u64::MAX) });
    agent.tell_keys(FromAgent::Retire { before: 2, at: BootTime(0) });
    mark(&agent, 101);
    input.push_buffer(buffer(b"3")).unwrap();
    until("the frame is dropped", || stat(&seal, "dropped-stale") == 2);

    agent.rotate();
    mark(&agent, 102);
    input.push_buffer(buffer(b"4")).unwrap();
    let frame = pull(&output);
    assert_eq!(bytes(&frame), b"4");
    assert!(frame.flags().contains(gst::BufferFlags::DISCONT));
    assert_eq!((stat(&seal, "epoch"), stat(&seal, "sealed"), stat(&seal, "ctr")), (2, 2, 2));
}

#[test]
fn what_is_wrong_is_said_within_two_seconds() {
    init();
    for line in ["meetingkey", "fakesrc ! application/x-sframe ! meetingsink", "meetingsrc ! fakesink"] {
        let line = line
            .replace("meetingkey", "meetingkey agent=/nowhere/agent.sock")
            .replace("meetingsink", "meetingsink agent=/nowhere/agent.sock");
        let line = line.replace("meetingsrc", "meetingsrc agent=/nowhere/agent.sock");
        takes_less(fake::SOON, || {
            let pipeline = Pipeline::parse(&format!("{line} fakesrc ! fakesink"));
            let started = Instant::now();
            assert!(pipeline.0.set_state(gst::State::Playing).is_err());
            assert!(pipeline.until_error().contains("`meeting-agent run`"), "{line}");
            started.elapsed()
        });
    }

    let agent = FakeAgent::start();
    let text = "no meeting is joined: type `meeting-agent join`";
    agent.refuse(text);
    assert_eq!(sealing(&agent).try_state(gst::State::Playing), Err(text.to_owned()));
}

#[test]
fn a_directory_that_others_can_write_to_is_not_trusted() {
    use std::os::unix::fs::PermissionsExt;
    let agent = FakeAgent::start();
    let folder = agent.path.parent().unwrap();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    let pipeline = sealing(&agent);
    assert!(pipeline.0.set_state(gst::State::Playing).is_err());
    assert!(pipeline.until_error().contains("chmod 700"));
}

#[test]
fn an_agent_that_dies_and_comes_back_is_found_again() {
    let agent = FakeAgent::start();
    let pipeline = sealing(&agent);
    pipeline.play();
    let (input, output) = (feed(&pipeline, "in"), drain(&pipeline, "out"));
    push_sealed(&input, &pipeline.element("seal"), b"before");
    pull(&output);
    agent.die();
    pipeline.until_says("e2ee-state", |s| s.get::<&str>("state") == Ok("agent-lost"));
    // The lease has not ended: what has its key goes on.
    input.push_buffer(buffer(b"meanwhile")).unwrap();
    assert_eq!(bytes(&pull(&output)), b"meanwhile");
    agent.listen();
    agent.hears("OpenStream", |m| matches!(m, ToAgent::OpenStream { .. }));
    pipeline.until_says("e2ee-state", |s| s.get::<&str>("state") == Ok("live"));
    let seal = pipeline.element("seal");
    // The new stream counts from the start.
    until("the new stream is sealed", || {
        input.push_buffer(buffer(b"after")).unwrap();
        let stats = seal.property::<gst::Structure>("stats");
        let (ctr, sealed) = (stats.get::<u64>("ctr").unwrap(), stats.get::<u64>("sealed").unwrap());
        sealed > 2 && ctr < sealed
    });
    assert_eq!(bytes(&pull(&output)), b"after");
}

#[test]
fn preroll_waits_for_the_first_key() {
    let agent = FakeAgent::start();
    agent.withhold_keys();
    let pipeline = Pipeline::parse(&format!(
        "meetingkey agent={} fakesrc num-buffers=3 sizetype=fixed sizemax=10 format=time ! {VP8} ! e2eeseal name=seal ! fakesink sync=false",
        agent.socket()
    ));
    pipeline.play();
    agent.hears("OpenStream", |m| matches!(m, ToAgent::OpenStream { .. }));
    let (change, now, _) = pipeline.0.state(gst::ClockTime::from_mseconds(50));
    assert_eq!((change, now), (Ok(gst::StateChangeSuccess::Async), gst::State::Ready));
    agent.grant_keys();
    pipeline.until_eos();
}

/// As `gst-launch-1.0` does, which plays as soon as it hears of PAUSED: here before whoever says so has said it to all.
#[test]
fn whoever_plays_at_once_after_the_wait_for_a_key_sees_the_end() {
    let agent = FakeAgent::start();
    let pipeline = Pipeline::parse(&format!(
        "meetingkey agent={} fakesrc num-buffers=3 sizetype=fixed sizemax=10 format=time ! {VP8} ! e2eeseal ! \
         fakesink async=false",
        agent.socket()
    ));
    let ((paused, hears), (played, waits)) = (mpsc::channel(), mpsc::channel());
    let waits = Mutex::new(waits);
    pipeline.0.bus().unwrap().set_sync_handler(move |_, message| {
        if let gst::MessageView::StateChanged(change) = message.view()
            && change.src().is_some_and(|src| src.is::<gst::Pipeline>())
            && change.current() == gst::State::Paused
        {
            let _ = paused.send(());
            let _ = waits.lock().unwrap().recv_timeout(Duration::from_millis(200));
        }
        gst::BusSyncReply::Pass
    });
    pipeline.try_state(gst::State::Paused).unwrap();
    hears.recv_timeout(PATIENCE).expect("PAUSED");
    pipeline.play();
    let _ = played.send(());
    pipeline.until_eos();
}

#[test]
fn nothing_is_opened_after_the_lease() {
    let agent = FakeAgent::start();
    let pipeline = Pipeline::parse(&format!(
        "meetingkey name=key agent={} appsrc name=in format=time is-live=true caps=\"{VP8}\" ! e2eeseal name=seal ! \
         queue name=wire ! e2eeopen name=open ! appsink name=out sync=false async=false",
        agent.socket()
    ));
    pipeline.play();
    let (input, output) = (feed(&pipeline, "in"), drain(&pipeline, "out"));
    let (key, seal, open) = (pipeline.element("key"), pipeline.element("seal"), pipeline.element("open"));
    push_sealed(&input, &seal, b"in time");
    assert_eq!(bytes(&pull(&output)), b"in time");

    // The next one is sealed in time and on its way when the lease ends.
    let wire = pipeline.element("wire").static_pad("src").unwrap();
    let held =
        wire.add_probe(gst::PadProbeType::BLOCK | gst::PadProbeType::BUFFER, |_, _| gst::PadProbeReturn::Ok);
    input.push_buffer(buffer(b"late")).unwrap();
    until("the frame is sealed", || stat(&seal, "sealed") == 2);
    agent.tell_keys(FromAgent::Lease { until: BootTime(0) });
    agent.tell_keys(FromAgent::State(MeetingState { participants: 100, ..MeetingState::default() }));
    until("the word arrives", || key.property::<u32>("participants") == 100);
    wire.remove_probe(held.unwrap());
    until("the frame is refused", || stat(&open, "stale") == 1);
    assert_eq!(stat(&open, "opened"), 1);
}

#[test]
fn nothing_leaves_the_sealer_before_the_first_key() {
    let agent = FakeAgent::start();
    agent.withhold_keys();
    let pipeline = Pipeline::parse(&format!(
        "meetingkey agent={} wait=false appsrc name=in format=time is-live=true caps=\"{VP8}\" ! e2eeseal name=seal ! \
         appsink name=out sync=false async=false",
        agent.socket()
    ));
    pipeline.play();
    let (input, output, seal) = (feed(&pipeline, "in"), drain(&pipeline, "out"), pipeline.element("seal"));
    for n in 1..=3 {
        input.push_buffer(buffer(b"plain")).unwrap();
        until("the frame is dropped", || stat(&seal, "dropped-no-key") + stat(&seal, "dropped-stale") == n);
    }
    assert_eq!(stat(&seal, "sealed"), 0);
    assert!(output.try_pull_sample(gst::ClockTime::ZERO).is_none(), "something came out");
    agent.grant_keys();
    until("the first frame comes out", || {
        input.push_buffer(buffer(b"plain")).unwrap();
        stat(&seal, "sealed") > 0
    });
    assert_ne!(bytes(&pull(&output)), b"plain");
}

/// Through agent and back.
fn round_trip(agent: &FakeAgent) -> Pipeline {
    let socket = agent.socket();
    Pipeline::parse(&format!(
        "meetingkey name=key agent={socket} \
         appsrc name=in format=time is-live=true do-timestamp=true caps=\"{VP8}\" ! e2eeseal track=screen name=seal ! meetingsink name=sink agent={socket} \
         meetingsrc name=src agent={socket} ! e2eeopen name=open ! appsink name=out sync=false async=false"
    ))
}

#[test]
fn frames_go_out_and_come_in() {
    let agent = FakeAgent::start();
    let pipeline = round_trip(&agent);
    pipeline.play();
    let (input, output) = (feed(&pipeline, "in"), drain(&pipeline, "out"));
    let mut delta = buffer(b"delta");
    delta.get_mut().unwrap().set_flags(gst::BufferFlags::DELTA_UNIT | gst::BufferFlags::DROPPABLE);
    push_sealed(&input, &pipeline.element("seal"), b"key");
    let first = pull(&output);
    input.push_buffer(delta).unwrap();
    let second = pull(&output);
    assert_eq!((bytes(&first), bytes(&second)), (b"key".to_vec(), b"delta".to_vec()));
    assert!(second.flags().contains(gst::BufferFlags::DELTA_UNIT | gst::BufferFlags::DROPPABLE));
    assert!(first.pts().unwrap() <= second.pts().unwrap());
    let caps = output.sink_pads()[0].current_caps().unwrap();
    assert_eq!(caps.to_string(), VP8.parse::<gst::Caps>().unwrap().to_string());
    let sealed = pipeline.element("src").src_pads()[0].current_caps().unwrap();
    let sealed = sealed.structure(0).unwrap().to_owned();
    assert_eq!(sealed.get::<&str>("participant").unwrap(), ALICE.to_string());
    assert_eq!(sealed.get::<&str>("participant-name").unwrap(), "Alice");
    assert_eq!(sealed.get::<&str>("track").unwrap(), "screen");

    // An envelope has the capture time on the shared clock.
    let now = gste2ee::clock::capture_now();
    let ToAgent::Frame { envelope, .. } = agent.hears("a frame", |m| matches!(m, ToAgent::Frame { .. }))
    else {
        unreachable!()
    };
    assert!(envelope.flags.has(Flags::KEYFRAME));
    let age = now - envelope.pts.unwrap();
    assert!(age < 30_000_000_000, "{age}");
}

#[test]
fn wishes_for_keyframes_reach_the_encoder_and_the_sender() {
    let agent = FakeAgent::start();
    let pipeline = round_trip(&agent);
    let (tell, told) = std::sync::mpsc::channel();
    let pad = feed(&pipeline, "in").static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
        if let Some(event) = info.event()
            && gst_video::UpstreamForceKeyUnitEvent::parse(event).is_ok()
        {
            let _ = tell.send(());
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.play();
    push_sealed(&feed(&pipeline, "in"), &pipeline.element("seal"), b"key");
    pull(&drain(&pipeline, "out"));
    // If the sealer dropped something it has asked already.
    told.try_iter().for_each(drop);
    agent.tell_publishers(FromAgent::KeyframeWanted { stream: StreamId(1) });
    told.recv_timeout(support::PATIENCE).expect("the encoder is asked");

    agent.hears("the wish of a new watcher", |m| matches!(m, ToAgent::KeyframeRequest { .. }));
    let decoder = drain(&pipeline, "out").static_pad("sink").unwrap();
    // More than two wishes a second are not passed on, so the decoder goes on asking.
    until("a decoder's wish", || {
        decoder.push_event(gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
        agent.has_heard(|m| matches!(m, ToAgent::KeyframeRequest { .. }))
    });
    let wish = agent.hears("a decoder's wish", |m| matches!(m, ToAgent::KeyframeRequest { .. }));
    assert_eq!(wish, ToAgent::KeyframeRequest { from: ALICE, stream: StreamId(1) });
}

#[test]
fn a_track_that_ends_takes_its_pad_along() {
    let agent = FakeAgent::start();
    let pipeline = round_trip(&agent);
    pipeline.play();
    push_sealed(&feed(&pipeline, "in"), &pipeline.element("seal"), b"key");
    pull(&drain(&pipeline, "out"));
    let src = pipeline.element("src");
    assert_eq!(src.src_pads().len(), 1);
    agent.tell_watchers(FromAgent::TrackGone { from: ALICE, stream: StreamId(1) });
    until("the stream ends", || drain(&pipeline, "out").is_eos());
    until("the pad goes", || src.src_pads().is_empty());
}

#[test]
fn a_sink_and_a_source_survive_the_agent() {
    let agent = FakeAgent::start();
    let pipeline = round_trip(&agent);
    pipeline.play();
    let (input, output) = (feed(&pipeline, "in"), drain(&pipeline, "out"));
    push_sealed(&input, &pipeline.element("seal"), b"key");
    pull(&output);
    agent.die();
    pipeline.until_says("e2ee-state", |s| s.get::<&str>("state") == Ok("agent-lost"));
    // Each of the three has a connection of its own, and the sink's may be the last to notice.
    until("a frame is dropped", || {
        input.push_buffer(buffer(b"nobody hears this")).unwrap();
        stat(&pipeline.element("sink"), "dropped") >= 1
    });
    agent.listen();
    until("all three are back", || agent.connections() == 3);
    until("the agent hears a frame", || {
        input.push_buffer(buffer(b"key")).unwrap();
        agent.has_heard(|m| matches!(m, ToAgent::Frame { .. }))
    });
}

#[test]
fn sound_does_not_wait_for_the_first_caption() {
    let agent = FakeAgent::start();
    let socket = agent.socket();
    let pipeline = Pipeline::parse(&format!(
        "meetingkey agent={socket} \
         audiotestsrc is-live=true ! opusenc ! e2eeseal ! meetingsink name=sink agent={socket} \
         appsrc name=in is-live=true format=time do-timestamp=true caps=\"text/x-raw, format=utf8\" \
           ! e2eeseal track=captions name=seal ! sink."
    ));
    pipeline.play();
    until("sound is sent", || stat(&pipeline.element("sink"), "sent") > 5);
    push_sealed(&feed(&pipeline, "in"), &pipeline.element("seal"), b"hello");
}

#[test]
fn a_file_plays_into_a_meeting_and_ends() {
    let agent = FakeAgent::start();
    let socket = agent.socket();
    let is_sent_whole = || {
        let pipeline = Pipeline::parse(&format!(
            "meetingkey agent={socket} \
             videotestsrc num-buffers=10 ! video/x-raw,width=64,height=48,framerate=50/1 ! vp8enc deadline=1 ! e2eeseal ! meetingsink name=sink agent={socket} \
             audiotestsrc num-buffers=10 ! opusenc ! e2eeseal ! sink."
        ));
        pipeline.play();
        pipeline.until_eos();
        assert_eq!(stat(&pipeline.element("sink"), "dropped"), 0);
        stat(&pipeline.element("sink"), "sent") >= 20
    };
    // Where the machine stands still while the first frame waits for its key, some are dropped.
    assert!((0..TRIES).any(|_| is_sent_whole()), "frames are missing each time");
}

#[test]
fn the_end_comes_behind_the_last_frames() {
    const FRAMES: usize = 20;
    let agent = FakeAgent::start();
    let socket = agent.socket();
    let pipeline = Pipeline::parse(&format!(
        "meetingkey agent={socket} \
         appsrc name=in format=time is-live=true do-timestamp=true caps=\"{VP8}\" ! e2eeseal name=seal ! meetingsink name=sink agent={socket}"
    ));
    pipeline.play();
    let input = feed(&pipeline, "in");
    push_sealed(&input, &pipeline.element("seal"), b"key");
    until("the first frame to be read", || agent.frames() == 1);
    // More than the socket holds by itself.
    agent.stand_still(true);
    for _ in 0..FRAMES {
        input.push_buffer(buffer(&[7; 100_000])).unwrap();
    }
    input.end_of_stream().unwrap();
    until("all frames to wait", || stat(&pipeline.element("sink"), "sent") == 1 + FRAMES as u64);
    agent.stand_still(false);
    pipeline.until_eos();
    let read = agent.frames();
    assert!(read > FRAMES / 2, "{read} frames were read before the end");
}

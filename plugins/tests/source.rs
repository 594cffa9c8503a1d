//! `meetingsrc` in a pipeline that plays: latency, seeks, collections, pauses, pads that nobody wants any more, and keys
//! where there is no `meetingkey`.

#![allow(clippy::unwrap_used)]

#[path = "support/agent.rs"]
mod fake;
mod support;

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use fake::{ALICE, FakeAgent};
use gst::prelude::*;
use meeting_protocol::local::{FromAgent, ToAgent};
use meeting_wire::{Envelope, Flags, Kind, StreamId};
use support::{PATIENCE, Pipeline, TRIES, stat, takes_less, until};

/// Tracks of Alice and what came of them at `meetingsrc name=src`.
struct Alice<'a>(&'a FakeAgent);

impl Alice<'_> {
    fn shows(&self, stream: u32, kind: Kind) {
        self.shows_as(stream, kind, if kind == Kind::Video { "video/x-vp8" } else { "audio/x-opus" });
    }

    fn shows_as(&self, stream: u32, kind: Kind, caps: &str) {
        self.0.tell_watchers(FromAgent::Track {
            from: ALICE,
            name: "Alice".into(),
            stream: StreamId(stream),
            track: format!("track-{stream}"),
            kind,
            caps: caps.into(),
        });
    }

    fn ends(&self, stream: u32) {
        self.0.tell_watchers(FromAgent::TrackGone { from: ALICE, stream: StreamId(stream) });
    }

    /// Sends a frame with this number as its only byte.
    fn sends(&self, stream: u32, number: u8, keyframe: bool) {
        let flags = Flags(if keyframe { Flags::KEYFRAME } else { 0 });
        let pts = Some(gste2ee::clock::capture_now());
        let sealed = vec![number].into();
        let envelope = Envelope { pts, dts: None, duration: None, flags, layer: 0, sealed };
        self.0.tell_watchers(FromAgent::Frame { from: ALICE, stream: StreamId(stream), envelope });
    }

    fn hears_wish(&self, stream: u32) {
        self.0.hears("a wish for a keyframe", |said| wish(said, stream));
    }

    /// Sends a frame with this number, which leans on others, until a keyframe is wanted.
    fn until_wish(&self, stream: u32, number: u8) {
        until("a wish for a keyframe", || {
            self.sends(stream, number, false);
            self.has_heard_wish(stream)
        });
        self.hears_wish(stream);
    }

    fn has_heard_wish(&self, stream: u32) -> bool {
        self.0.has_heard(|said| wish(said, stream))
    }

    fn forgets_wishes(&self, stream: u32) {
        while self.has_heard_wish(stream) {
            self.hears_wish(stream);
        }
    }
}

fn wish(said: &ToAgent, stream: u32) -> bool {
    *said == ToAgent::KeyframeRequest { from: ALICE, stream: StreamId(stream) }
}

/// A pipeline that watches, with this behind the source.
fn watching(agent: &FakeAgent, rest: &str) -> Pipeline {
    let pipeline = Pipeline::parse(&format!("meetingsrc name=src agent={} {rest}", agent.socket()));
    pipeline.play();
    pipeline
}

fn sink(pipeline: &Pipeline, name: &str) -> gst_app::AppSink {
    pipeline.element(name).downcast().unwrap()
}

fn pull(sink: &gst_app::AppSink) -> gst::Buffer {
    let sample = sink.try_pull_sample(gst::ClockTime::from_seconds(PATIENCE.as_secs())).expect("a frame");
    sample.buffer().unwrap().to_owned()
}

fn number(buffer: &gst::Buffer) -> u8 {
    support::bytes(buffer)[0]
}

const OUT: &str = "appsink name=out sync=false async=false";

#[test]
fn it_is_live_with_the_latency_of_its_property_and_tells_of_a_change() {
    let agent = FakeAgent::start();
    let pipeline = watching(&agent, "! appsink name=out async=false");
    Alice(&agent).shows(1, Kind::Video);
    let src = pipeline.element("src");
    until("the pad", || src.static_pad("video_0").is_some_and(|pad| pad.is_linked()));
    let asked = || {
        let mut query = gst::query::Latency::new();
        assert!(src.static_pad("video_0").unwrap().query(&mut query));
        query.result()
    };
    assert_eq!(asked(), (true, gst::ClockTime::from_mseconds(200), gst::ClockTime::NONE));
    while pipeline.0.bus().unwrap().pop().is_some() {}
    src.set_property("latency", 350_u32);
    let told = pipeline.wait(&[gst::MessageType::Latency], |said| said.src() == Some(src.upcast_ref()));
    assert!(told.is_some(), "nobody heard of the change");
    assert_eq!(asked(), (true, gst::ClockTime::from_mseconds(350), gst::ClockTime::NONE));
    let mut whole = gst::query::Latency::new();
    assert!(pipeline.0.query(&mut whole) && whole.result().1 >= gst::ClockTime::from_mseconds(350));
}

#[test]
fn what_is_live_is_not_wound_back() {
    let agent = FakeAgent::start();
    let pipeline = watching(&agent, &format!("! {OUT}"));
    let (alice, out) = (Alice(&agent), sink(&pipeline, "out"));
    alice.shows(1, Kind::Audio);
    alice.sends(1, 1, true);
    pull(&out);
    let mut seeking = gst::query::Seeking::new(gst::Format::Time);
    assert!(pipeline.element("src").static_pad("audio_0").unwrap().query(&mut seeking));
    assert!(!seeking.result().0);
    takes_less(fake::SOON, || {
        let started = Instant::now();
        for flags in [gst::SeekFlags::FLUSH, gst::SeekFlags::empty()] {
            assert!(pipeline.0.seek_simple(flags, gst::ClockTime::ZERO).is_err());
        }
        started.elapsed()
    });
    until("the sound goes on", || {
        alice.sends(1, 2, true);
        out.try_pull_sample(gst::ClockTime::from_mseconds(20))
            .is_some_and(|s| number(&s.buffer_owned().unwrap()) == 2)
    });
}

#[test]
fn a_track_beyond_max_pixels_gets_no_pad_and_its_sender_is_named() {
    let agent = FakeAgent::start();
    let pipeline = watching(&agent, &format!("src.audio_0 ! {OUT}"));
    let alice = Alice(&agent);
    alice.shows_as(1, Kind::Video, "video/x-vp8, width=16384, height=16384");
    assert_eq!(
        pipeline.until_warning(),
        "Alice sends a picture of 16384x16384, more than max-pixels allows (33177600): it is left out"
    );
    alice.shows(2, Kind::Audio);
    alice.sends(1, 1, true);
    alice.sends(2, 2, true);
    assert_eq!(number(&pull(&sink(&pipeline, "out"))), 2);
    assert_eq!(pipeline.element("src").num_src_pads(), 1);
    // Whoever wants to see it says so.
    pipeline.element("src").set_property("max-pixels", 16_384_u64 * 16_384);
    alice.shows_as(1, Kind::Video, "video/x-vp8, width=16384, height=16384");
    until("the pad", || pipeline.element("src").static_pad("video_0").is_some());
}

#[test]
fn the_collection_follows_the_tracks() {
    let agent = FakeAgent::start();
    let pipeline = watching(&agent, &format!("src.video_0 ! {OUT}"));
    let alice = Alice(&agent);
    let posted = |tracks: usize| {
        let message = pipeline.wait(&[gst::MessageType::StreamCollection], |said| match said.view() {
            gst::MessageView::StreamCollection(said) => said.stream_collection().len() == tracks,
            _ => false,
        });
        assert!(message.is_some(), "no collection of {tracks}");
    };
    let (tell, told) = mpsc::channel();
    sink(&pipeline, "out").static_pad("sink").unwrap().add_probe(
        gst::PadProbeType::EVENT_DOWNSTREAM,
        move |_, info| {
            if let Some(gst::EventView::StreamCollection(said)) = info.event().map(|event| event.view()) {
                let _ = tell.send(said.stream_collection().len());
            }
            gst::PadProbeReturn::Ok
        },
    );
    let passed = |tracks: usize| assert_eq!(told.recv_timeout(PATIENCE), Ok(tracks));
    alice.shows(1, Kind::Video);
    posted(1);
    // Sticky events go with the first frame.
    alice.sends(1, 1, true);
    pull(&sink(&pipeline, "out"));
    passed(1);
    alice.shows(2, Kind::Audio);
    posted(2);
    passed(2);
    alice.ends(2);
    posted(1);
    passed(1);
    alice.ends(1);
    posted(0);
    assert!(pipeline.element("src").src_pads().is_empty());
}

#[test]
fn a_blocked_pipeline_keeps_few_pads_of_tracks_that_have_ended() {
    let agent = FakeAgent::start();
    let pipeline =
        Pipeline::parse(&format!("meetingsrc name=src agent={} fakesink async=false", agent.socket()));
    let src = pipeline.element("src");
    src.connect_pad_added(|_, pad| {
        pad.add_probe(gst::PadProbeType::BLOCK_DOWNSTREAM, |_, _| gst::PadProbeReturn::Ok);
    });
    pipeline.play();
    for stream in 1..=200 {
        Alice(&agent).shows(stream, Kind::Video);
        Alice(&agent).ends(stream);
    }
    Alice(&agent).shows(201, Kind::Video);
    until("the pad of the last", || src.static_pad("video_200").is_some());
    until("the others to go", || src.num_src_pads() <= 64);
    assert!(src.static_pad("video_200").is_some() && src.static_pad("video_199").is_some());
}

#[test]
fn after_each_pause_pictures_begin_with_a_keyframe_and_times_go_on() {
    let agent = FakeAgent::start();
    let pipeline = watching(&agent, &format!("! {OUT}"));
    let (alice, src, out) = (Alice(&agent), pipeline.element("src"), sink(&pipeline, "out"));
    alice.shows(1, Kind::Video);
    alice.sends(1, 0, true);
    let mut last = pull(&out).pts().unwrap();
    for round in 1..=3 {
        pipeline.0.set_state(gst::State::Paused).unwrap();
        (0..5).for_each(|_| alice.sends(1, 100, false));
        // When this pad is there, the frames before it have been taken.
        alice.shows(10 + u32::from(round), Kind::Audio);
        until("the pad", || src.src_pads().len() == 1 + usize::from(round));
        pipeline.play();
        alice.until_wish(1, 101);
        let before = src.current_running_time().unwrap();
        alice.sends(1, round, true);
        let frame = pull(&out);
        assert_eq!(number(&frame), round, "something that leans on what was dropped came out");
        assert!(frame.flags().contains(gst::BufferFlags::DISCONT));
        let pts = frame.pts().unwrap();
        let now = src.current_running_time().unwrap();
        // However long it was on its way: it was captured after that.
        assert!(pts >= last.max(before) && pts <= now, "{last} {before} {pts} {now}");
        last = pts;
    }
}

#[test]
fn a_pad_whose_sink_has_had_enough_ends_and_the_others_go_on() {
    let agent = FakeAgent::start();
    let pipeline = watching(
        &agent,
        &format!(
            "src.video_0 ! identity eos-after=3 ! appsink name=enough sync=false async=false src.audio_0 ! {OUT}"
        ),
    );
    let (alice, src, out) = (Alice(&agent), pipeline.element("src"), sink(&pipeline, "out"));
    alice.shows(1, Kind::Video);
    alice.shows(2, Kind::Audio);
    alice.hears_wish(1);
    let (enough, mut n) = (sink(&pipeline, "enough"), 0);
    until("the end of the picture", || {
        alice.sends(1, n, n == 0);
        n = n.wrapping_add(1);
        enough.try_pull_sample(gst::ClockTime::ZERO);
        enough.is_eos()
    });

    let is_wanted = |another: u32| {
        alice.forgets_wishes(1);
        // What was lost before it nobody wants any more.
        alice.sends(1, 0, true);
        // More than a queue holds, and for longer than a wish for a keyframe is held back.
        let started = Instant::now();
        for n in 0..=200 {
            while started.elapsed() < HELD_BACK * n / 200 {
                std::thread::sleep(Duration::from_millis(1));
            }
            alice.sends(1, 0, false);
        }
        // What comes after a wish that shows, had it been there, would have shown too.
        alice.shows(another, Kind::Video);
        until("the wish of another track", || alice.has_heard_wish(another));
        alice.has_heard_wish(1)
    };
    // Where the machine stands still the queue is full for a moment.
    let wanted = (3..).take(TRIES).all(is_wanted);
    assert!(!wanted, "a keyframe is wanted for a picture that nobody looks at");
    alice.sends(2, 7, true);
    assert_eq!(number(&pull(&out)), 7);

    alice.ends(1);
    until("the pad goes with its track", || src.static_pad("video_0").is_none());
    alice.sends(2, 8, true);
    assert_eq!(number(&pull(&out)), 8);
}

#[test]
fn a_pad_that_nobody_wants_does_not_stop_the_others() {
    let agent = FakeAgent::start();
    let pipeline = watching(&agent, &format!("src.audio_0 ! {OUT}"));
    let (alice, out) = (Alice(&agent), sink(&pipeline, "out"));
    alice.shows(1, Kind::Video);
    alice.shows(2, Kind::Audio);
    for n in 0..20 {
        alice.sends(1, n, true);
        alice.sends(2, n, true);
        assert_eq!(number(&pull(&out)), n);
    }
    assert!(pipeline.element("src").static_pad("video_0").is_some_and(|pad| !pad.is_linked()));
}

#[test]
fn what_is_linked_in_the_place_of_something_taken_down_plays() {
    let agent = FakeAgent::start();
    let pipeline = watching(&agent, &format!("! {OUT}"));
    let (alice, src, out) = (Alice(&agent), pipeline.element("src"), sink(&pipeline, "out"));
    alice.shows(1, Kind::Video);
    alice.hears_wish(1);
    alice.sends(1, 1, true);
    assert_eq!(number(&pull(&out)), 1);

    // Down first and unlinked afterwards, as applications do.
    out.set_locked_state(true);
    out.set_state(gst::State::Null).unwrap();
    let pad = src.static_pad("video_0").unwrap();
    let (tell, told) = mpsc::channel();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let _ = tell.send(());
        gst::PadProbeReturn::Ok
    });
    for n in 0..10 {
        alice.sends(1, n, false);
        told.recv_timeout(PATIENCE).unwrap();
    }
    pad.unlink(&out.static_pad("sink").unwrap()).unwrap();
    pipeline.0.remove(&out).unwrap();
    let other = gst_app::AppSink::builder().sync(false).async_(false).build();
    pipeline.0.add(&other).unwrap();
    other.sync_state_with_parent().unwrap();
    pad.link(&other.static_pad("sink").unwrap()).unwrap();
    let mut first = None;
    until("a frame", || {
        alice.sends(1, 2, false);
        first = first.take().or_else(|| other.try_pull_sample(gst::ClockTime::from_mseconds(20)));
        first.is_some()
    });
    let first = first.unwrap().buffer_owned().unwrap();
    assert!(first.flags().contains(gst::BufferFlags::DISCONT), "frames before it are lost");
    // What is new there cannot begin with it.
    alice.until_wish(1, 3);
}

#[test]
fn what_is_linked_before_it_is_up_plays_once_it_is() {
    let agent = FakeAgent::start();
    let pipeline = watching(&agent, "src.video_0 ! fakesink async=false");
    let (alice, src) = (Alice(&agent), pipeline.element("src"));
    alice.shows(1, Kind::Audio);
    until("the pad", || src.static_pad("audio_0").is_some());
    let out = gst_app::AppSink::builder().sync(false).async_(false).build();
    pipeline.0.add(&out).unwrap();
    let pad = src.static_pad("audio_0").unwrap();
    pad.link(&out.static_pad("sink").unwrap()).unwrap();
    let (tell, told) = mpsc::channel();
    // Before a frame go the sticky events, which nobody takes either.
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, _| {
        let _ = tell.send(());
        gst::PadProbeReturn::Ok
    });
    for n in 0..3 {
        alice.sends(1, n, true);
        told.recv_timeout(PATIENCE).unwrap();
    }
    out.sync_state_with_parent().unwrap();
    let mut first = None;
    until("a frame", || {
        alice.sends(1, 9, true);
        first = first.take().or_else(|| out.try_pull_sample(gst::ClockTime::from_mseconds(20)));
        first.is_some()
    });
}

#[test]
fn a_player_hears_when_it_may_start_and_has_its_pads_until_the_end_has_passed() {
    let agent = FakeAgent::start();
    let line = format!("meetingsrc name=src agent={} ! fakesink name=out async=false", agent.socket());
    let pipeline = Pipeline::parse(&line);
    let (alice, src, out) = (Alice(&agent), pipeline.element("src"), pipeline.element("out"));
    let handler = src.dynamic_cast_ref::<gst::URIHandler>().unwrap();
    handler.set_uri(&format!("meeting:///{}", fake::MEETING)).unwrap();
    let (tell, told) = mpsc::channel();
    let (starts, ends, goes) = (tell.clone(), tell.clone(), tell);
    src.connect_no_more_pads(move |_| {
        let _ = starts.send(("starts", Instant::now()));
    });
    src.connect_pad_removed(move |_, _| {
        let _ = goes.send(("goes", Instant::now()));
    });
    out.static_pad("sink").unwrap().add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if info.event().is_some_and(|event| event.type_() == gst::EventType::Eos) {
            let _ = ends.send(("ends", Instant::now()));
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.play();
    alice.shows(1, Kind::Audio);
    let mut heard = Vec::new();
    until("the word that all pads are here", || {
        alice.sends(1, 1, true);
        heard.extend(told.try_recv());
        !heard.is_empty()
    });
    alice.ends(1);
    heard.extend((0..2).map(|_| told.recv_timeout(PATIENCE).unwrap()));
    assert_eq!(heard.iter().map(|(what, _)| *what).collect::<Vec<_>>(), ["starts", "ends", "goes"]);
    assert!(
        heard[2].1 - heard[1].1 >= Duration::from_secs(1),
        "the pad goes before what is queued has passed"
    );
}

#[test]
fn a_wish_too_soon_after_another_is_kept_and_not_forgotten() {
    let agent = FakeAgent::start();
    let pipeline = watching(&agent, &format!("! {OUT}"));
    let (alice, out) = (Alice(&agent), sink(&pipeline, "out"));
    let wants = || {
        let event = gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build();
        assert!(out.static_pad("sink").unwrap().push_event(event));
    };
    alice.shows(1, Kind::Video);
    alice.hears_wish(1);
    alice.sends(1, 1, true);
    pull(&out);
    let is_wanted_again = || {
        // A decoder that lost something says so once.
        wants();
        let asked = Instant::now();
        alice.until_wish(1, 2);
        println!("asked {:?} after the wish", asked.elapsed());
        wants();
        alice.sends(1, 3, true);
        until("the keyframe", || number(&pull(&out)) == 3);
        let quiet = Instant::now();
        while quiet.elapsed() < HELD_BACK {
            alice.sends(1, 4, false);
            pull(&out);
        }
        let again = alice.has_heard_wish(1);
        alice.forgets_wishes(1);
        again
    };
    // Where the machine stands still the second wish is not too soon, and is told at once.
    let wanted = (0..TRIES).all(|_| is_wanted_again());
    assert!(!wanted, "a keyframe is wanted again after it has come");
}

#[test]
fn where_there_is_no_meetingkey_the_source_brings_the_keys() {
    let agent = FakeAgent::start();
    let socket = agent.socket();
    let publishes = Pipeline::parse(&format!(
        "meetingkey agent={socket} videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=20/1 \
         ! vp8enc deadline=1 ! e2eeseal ! meetingsink agent={socket}"
    ));
    publishes.play();
    until("keys and frames out", || agent.connections() == 2);

    // Nobody opens: nobody asks for keys.
    let looks = watching(&agent, &format!("! {OUT}"));
    pull(&sink(&looks, "out"));
    assert_eq!(agent.connections(), 3);
    drop(looks);
    until("it has hung up", || agent.connections() == 2);

    let opens = watching(&agent, &format!("! e2eeopen name=open ! {OUT}"));
    pull(&sink(&opens, "out"));
    assert_eq!((agent.connections(), stat(&opens.element("open"), "forged")), (4, 0));
    let said = opens.until_says("e2ee-state", |said| said.get::<&str>("state") == Ok("live"));
    assert_eq!(said.get::<&str>("security-code"), Ok("12345 67890"));
    // In READY the keys stay, as those of a `meetingkey` do.
    opens.0.set_state(gst::State::Ready).unwrap();
    until("the frames have hung up", || agent.connections() == 3);
    drop(opens);
    until("both have hung up", || agent.connections() == 2);

    // Where there is a `meetingkey`, its keys are taken.
    let both = watching(&agent, &format!("! e2eeopen ! {OUT} meetingkey agent={socket}"));
    pull(&sink(&both, "out"));
    assert_eq!(agent.connections(), 4);
    drop(both);

    // A sealer is never given keys that nobody asked for.
    let line = format!("meetingsrc agent={socket} ! fakesink fakesrc ! audio/x-opus ! e2eeseal ! fakesink");
    let seals = Pipeline::parse(&line);
    let _ = seals.0.set_state(gst::State::Playing);
    assert!(seals.until_error().contains("add `meetingkey`"));
}

/// A wish follows another no sooner than after half a second.
const HELD_BACK: Duration = Duration::from_millis(700);

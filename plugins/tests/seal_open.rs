//! What goes into `e2eeseal` comes out of `e2eeopen`, and nothing else comes out of either.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Instant;

use gst::prelude::*;
use gst_check::Harness;
use support::{CODECS, Pipeline, buffer, bytes, init, stat, until};

const OPUS: &str = "audio/x-opus, rate=(int)48000, channels=(int)2";
const H264: &str = "video/x-h264, stream-format=(string)byte-stream, alignment=(string)au";

fn harness(line: &str, caps: &str) -> Harness {
    init();
    let mut harness = Harness::new_parse(&format!("meetingkey loopback=true {line}"));
    harness.set_src_caps_str(caps);
    harness.play();
    harness
}

/// A sealer and an opener of the same meeting, so that a test can meddle with what lies between.
fn sealer_and_opener(
    caps: &str,
) -> (Pipeline, gst_app::AppSrc, gst_app::AppSink, gst_app::AppSrc, gst_app::AppSink) {
    let pipeline = Pipeline::parse(&format!(
        "meetingkey loopback=true name=key \
         appsrc name=clear format=time caps=\"{caps}\" ! e2eeseal name=seal ! appsink name=sealed sync=false async=false \
         appsrc name=meddled format=time ! e2eeopen name=open ! appsink name=opened sync=false async=false"
    ));
    let (clear, sealed) =
        (pipeline.element("clear").downcast().unwrap(), pipeline.element("sealed").downcast().unwrap());
    let (meddled, opened) =
        (pipeline.element("meddled").downcast().unwrap(), pipeline.element("opened").downcast().unwrap());
    pipeline.play();
    (pipeline, clear, sealed, meddled, opened)
}

#[test]
fn frames_come_back_whole_with_their_flags_and_times() {
    for caps in CODECS {
        let mut harness = harness("e2eeseal ! e2eeopen", caps);
        for (n, len) in [0usize, 1, 2, 80, 1200, 70_000].into_iter().enumerate() {
            let frame: Vec<u8> = (0..len).map(|i| (i * 7 + n) as u8).collect();
            let mut sent = buffer(&frame);
            {
                let sent = sent.get_mut().unwrap();
                sent.set_pts(gst::ClockTime::from_mseconds(20 * n as u64 + 5));
                sent.set_dts(gst::ClockTime::from_mseconds(20 * n as u64));
                sent.set_duration(gst::ClockTime::from_mseconds(20));
                sent.set_flags(gst::BufferFlags::MARKER | gst::BufferFlags::DROPPABLE);
                if n % 2 == 1 {
                    sent.set_flags(gst::BufferFlags::DELTA_UNIT);
                }
            }
            let (pts, dts, flags) = (sent.pts(), sent.dts(), sent.flags());
            assert_eq!(harness.push(sent), Ok(gst::FlowSuccess::Ok));
            let got = harness.pull().unwrap();
            assert_eq!(bytes(&got), frame, "{caps}");
            assert_eq!((got.pts(), got.dts(), got.duration().map(|d| d.mseconds())), (pts, dts, Some(20)));
            let told = gst::BufferFlags::MARKER | gst::BufferFlags::DROPPABLE | gst::BufferFlags::DELTA_UNIT;
            assert_eq!(got.flags() & told, flags & told);
        }
        let out = harness.sinkpad().unwrap().current_caps().unwrap();
        assert_eq!(out.to_string(), caps.parse::<gst::Caps>().unwrap().to_string());
    }
}

#[test]
fn sealed_caps_say_so_and_leave_codec_headers_out() {
    for caps in CODECS {
        let mut harness = harness("e2eeseal", caps);
        harness.push(buffer(b"frame")).unwrap();
        harness.pull().unwrap();
        let sealed = harness.sinkpad().unwrap().current_caps().unwrap();
        let structure = sealed.structure(0).unwrap();
        assert_eq!(structure.name(), "application/x-sframe");
        assert!(caps.starts_with(structure.get::<&str>("original-media-type").unwrap()));
        assert!(!structure.has_field("codec_data"));
    }
}

#[test]
fn what_leaves_the_sealer_holds_no_run_of_the_frame() {
    let mut harness = harness("e2eeseal", H264);
    // Every byte eight times over: eight equal bytes in a row would be the frame showing through.
    for fill in 0..=255u8 {
        harness.push(buffer(&[fill; 64])).unwrap();
        let sealed = bytes(&harness.pull().unwrap());
        assert!(sealed.len() > 80);
        assert!(!sealed.windows(8).any(|run| run == [fill; 8]));
    }
}

#[test]
fn a_picture_beyond_max_pixels_is_told_and_no_decoder_hears_of_it() {
    let (pipeline, clear, sealed, meddled, opened) = sealer_and_opener(H264);
    pipeline.element("open").set_property("max-pixels", 1_000_000u64);
    let seal = |byte: u8| {
        clear.push_buffer(buffer(&[byte; 100])).unwrap();
        sealed.pull_sample().unwrap()
    };
    let of_size = |sample: &gst::Sample, width: i32| {
        let mut caps = sample.caps_owned().unwrap();
        caps.make_mut().set("width", width);
        caps.make_mut().set("height", 1000);
        caps
    };
    let send = |sample: &gst::Sample, width| {
        meddled.set_caps(Some(&of_size(sample, width)));
        meddled.push_buffer(sample.buffer_owned().unwrap()).unwrap();
    };
    send(&seal(1), 1001);
    assert!(pipeline.until_warning().contains("a picture of 1001x1000, more than max-pixels allows"));
    // What is within it goes on, and what grows beyond it stops again.
    send(&seal(2), 1000);
    let first = opened.pull_sample().unwrap();
    assert_eq!(bytes(&first.buffer_owned().unwrap()), [2; 100]);
    assert_eq!(first.caps().unwrap().structure(0).unwrap().get::<i32>("width"), Ok(1000));
    send(&seal(3), 16_384);
    assert!(pipeline.until_warning().contains("16384x1000"));
    send(&seal(4), 640);
    let next = opened.pull_sample().unwrap();
    assert_eq!(bytes(&next.buffer_owned().unwrap()), [4; 100]);
    assert_eq!(next.caps().unwrap().structure(0).unwrap().get::<i32>("width"), Ok(640));
    // Whoever goes to and fro with every frame is not told of with every frame.
    for _ in 0..20 {
        send(&seal(5), 16_384);
        send(&seal(6), 640);
        opened.pull_sample().unwrap();
    }
    assert_eq!(stat(&pipeline.element("open"), "opened"), 22);
    let bus = pipeline.0.bus().unwrap();
    let told = std::iter::from_fn(|| bus.pop_filtered(&[gst::MessageType::Warning])).count();
    assert!(told < 10, "{told} warnings");
}

#[test]
fn metas_cross() {
    let mut harness = harness("e2eeseal ! e2eeopen", H264);
    let mut sent = buffer(b"frame");
    let reference = gst::Caps::new_empty_simple("timestamp/x-unix");
    gst::ReferenceTimestampMeta::add(
        sent.get_mut().unwrap(),
        &reference,
        gst::ClockTime::from_seconds(9),
        gst::ClockTime::NONE,
    );
    // This one speaks of the picture's size, which sealing does not change as far as the decoder is concerned.
    gst_video::VideoRegionOfInterestMeta::add(sent.get_mut().unwrap(), "face", (1, 2, 3, 4));
    harness.push(sent).unwrap();
    let got = harness.pull().unwrap();
    assert_eq!(
        got.meta::<gst::ReferenceTimestampMeta>().unwrap().timestamp(),
        gst::ClockTime::from_seconds(9)
    );
    assert_eq!(got.meta::<gst_video::VideoRegionOfInterestMeta>().unwrap().rect(), (1, 2, 3, 4));
}

#[test]
fn a_gap_event_crosses() {
    let mut harness = harness("e2eeseal ! e2eeopen", OPUS);
    harness.push(buffer(b"sound")).unwrap();
    harness.pull().unwrap();
    let pts = gst::ClockTime::from_mseconds(20);
    harness.push_event(gst::event::Gap::builder(pts).duration(pts).build());
    let gap =
        std::iter::from_fn(|| harness.try_pull_event()).find(|event| event.type_() == gst::EventType::Gap);
    let gst::EventView::Gap(gap) = gap.as_ref().unwrap().view() else { unreachable!() };
    assert_eq!(gap.get(), (pts, Some(pts)));
}

#[test]
fn new_codec_headers_reach_the_decoder_before_the_first_frame_that_needs_them() {
    let avc = |headers: u32| {
        format!(
            "video/x-h264, stream-format=(string)avc, alignment=(string)au, codec_data=(buffer)014d40{headers:02x}"
        )
    };
    let mut harness = harness("e2eeseal ! e2eeopen", &avc(0));
    // More changes than are told apart at a time, and headers that were there before.
    for headers in (0..20).chain([3, 3, 4]) {
        harness.set_src_caps_str(&avc(headers));
        for _ in 0..2 {
            harness.push(buffer(&[headers as u8])).unwrap();
            assert_eq!(bytes(&harness.pull().unwrap()), [headers as u8]);
            let out = harness.sinkpad().unwrap().current_caps().unwrap();
            assert_eq!(out, avc(headers).parse::<gst::Caps>().unwrap());
        }
    }
}

#[test]
fn tampered_replayed_and_unsealed_frames_are_counted_and_go_nowhere() {
    let (pipeline, clear, sealed, meddled, opened) = sealer_and_opener(H264);
    let open = pipeline.element("open");
    let mut frames = Vec::new();
    for n in 0..3u8 {
        clear.push_buffer(buffer(&[n; 100])).unwrap();
        let sample = sealed.pull_sample().unwrap();
        meddled.set_caps(Some(&sample.caps().unwrap().to_owned()));
        frames.push(bytes(&sample.buffer().unwrap().to_owned()));
    }

    meddled.push_buffer(buffer(&frames[0])).unwrap();
    assert_eq!(bytes(&opened.pull_sample().unwrap().buffer().unwrap().to_owned()), [0; 100]);

    for place in 0..frames[1].len() {
        let mut tampered = frames[1].clone();
        tampered[place] ^= 1;
        meddled.push_buffer(buffer(&tampered)).unwrap();
    }
    let mut short = frames[1].clone();
    short.pop();
    meddled.push_buffer(buffer(&short)).unwrap();
    meddled.push_buffer(buffer(&frames[0])).unwrap();
    meddled.push_buffer(buffer(b"\x00\x00\x00\x01\x65 a frame in clear")).unwrap();
    meddled.push_buffer(buffer(b"")).unwrap();
    let sent = frames[1].len() as u64 + 4;
    let refused = |open: &gst::Element| {
        ["no-key", "forged", "replayed", "malformed", "mismatch", "stale"]
            .iter()
            .map(|name| stat(open, name))
            .sum::<u64>()
    };
    until("every bad frame is counted", || refused(&open) == sent);
    assert!(stat(&open, "forged") > 100 && stat(&open, "replayed") >= 1 && stat(&open, "malformed") >= 1);
    assert!(stat(&open, "no-key") >= 1);
    assert_eq!(stat(&open, "opened"), 1);

    let said = pipeline.until_says("e2ee-open-failure", |s| s.get::<&str>("reason") == Ok("forged"));
    assert_eq!(said.get::<&str>("name").unwrap(), "myself");
    assert_eq!(said.get::<&str>("track").unwrap(), "video");
    assert!(said.get::<u64>("count").unwrap() >= 1);

    // None of that moved a window: the frame that was tampered with still opens, and is marked.
    meddled.push_buffer(buffer(&frames[1])).unwrap();
    let sample = opened.pull_sample().unwrap();
    assert_eq!(bytes(&sample.buffer().unwrap().to_owned()), [1; 100]);
    assert!(sample.buffer().unwrap().flags().contains(gst::BufferFlags::DISCONT));
    assert!(opened.try_pull_sample(gst::ClockTime::ZERO).is_none());
}

#[test]
fn every_frame_twice_at_any_lag_comes_out_once() {
    const FRAMES: u64 = 2_000;
    let (pipeline, clear, sealed, meddled, opened) = sealer_and_opener(OPUS);
    let mut deliveries = Vec::new();
    for n in 0..FRAMES {
        clear.push_buffer(buffer(&n.to_be_bytes())).unwrap();
        let sample = sealed.pull_sample().unwrap();
        meddled.set_caps(Some(&sample.caps().unwrap().to_owned()));
        let frame = bytes(&sample.buffer().unwrap().to_owned());
        // At once, or up to 2,047 frames later: twice the window.
        let lag = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53;
        deliveries.extend([(2 * n, frame.clone()), (2 * (n + lag) + 1, frame)]);
    }
    deliveries.sort();
    for (_, frame) in deliveries {
        meddled.push_buffer(buffer(&frame)).unwrap();
    }
    for n in 0..FRAMES {
        let sample = opened.pull_sample().unwrap();
        assert_eq!(bytes(&sample.buffer().unwrap().to_owned()), n.to_be_bytes());
    }
    let open = pipeline.element("open");
    until("each frame is refused once", || stat(&open, "replayed") == FRAMES);
    assert_eq!(stat(&open, "opened"), FRAMES);
    assert!(opened.try_pull_sample(gst::ClockTime::ZERO).is_none());
}

#[test]
fn a_frame_of_another_stream_than_the_caps_say_is_refused() {
    let (pipeline, clear, sealed, meddled, opened) = sealer_and_opener(OPUS);
    clear.push_buffer(buffer(b"sound")).unwrap();
    let sample = sealed.pull_sample().unwrap();
    let mut caps = sample.caps().unwrap().to_owned();
    let participant = "00".repeat(16);
    caps.make_mut().set("participant", participant);
    caps.make_mut().set("stream", 1u32);
    meddled.set_caps(Some(&caps));
    meddled.push_buffer(sample.buffer().unwrap().to_owned()).unwrap();
    let open = pipeline.element("open");
    until("the frame is refused", || stat(&open, "mismatch") == 1);
    assert!(opened.try_pull_sample(gst::ClockTime::ZERO).is_none());
}

#[test]
fn an_opener_asks_for_a_keyframe_once_a_second_at_most() {
    init();
    let mut harness = Harness::new_parse("meetingkey loopback=true e2eeopen");
    harness.set_src_caps_str("application/x-sframe, original-media-type=video/x-vp8");
    harness.play();
    while harness.try_pull_upstream_event().is_some() {}
    let started = Instant::now();
    for _ in 0..20 {
        harness.push(buffer(&[0x88; 4])).unwrap();
    }
    // The clock of wishes shows whole milliseconds.
    let seconds = started.elapsed().as_millis() / 999;
    let wishes = std::iter::from_fn(|| harness.try_pull_upstream_event())
        .filter(|event| gst_video::UpstreamForceKeyUnitEvent::parse(event).is_ok())
        .count();
    assert!((1..=1 + seconds).contains(&(wishes as u128)), "{wishes} wishes in {seconds} s");
    assert_eq!(harness.buffers_in_queue(), 0);
}

#[test]
fn pictures_and_sound_decode() {
    for line in [
        "videotestsrc num-buffers=30 ! video/x-raw,width=160,height=120 ! x264enc tune=zerolatency ! e2eeseal ! e2eeopen name=open ! avdec_h264 ! fakesink name=end",
        "videotestsrc num-buffers=30 ! video/x-raw,width=160,height=120 ! x264enc tune=zerolatency ! video/x-h264,stream-format=avc ! e2eeseal ! e2eeopen name=open ! avdec_h264 ! fakesink name=end",
        "videotestsrc num-buffers=30 ! video/x-raw,width=160,height=120 ! vp8enc deadline=1 ! e2eeseal ! e2eeopen name=open ! vp8dec ! fakesink name=end",
        "audiotestsrc num-buffers=30 ! opusenc ! e2eeseal ! e2eeopen name=open ! opusdec ! fakesink name=end",
        "videotestsrc num-buffers=30 ! video/x-raw,width=160,height=120 ! x264enc tune=zerolatency ! e2eeseal ! decodebin ! fakesink name=end",
        "videotestsrc num-buffers=30 ! video/x-raw,width=160,height=120 ! vp8enc deadline=1 ! e2eeseal ! decodebin3 ! fakesink name=end",
    ] {
        let pipeline = Pipeline::parse(&format!("meetingkey loopback=true {line}"));
        let end = pipeline.element("end");
        end.set_property("signal-handoffs", true);
        let frames = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let seen = frames.clone();
        end.connect("handoff", false, move |_| {
            seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            None
        });
        pipeline.play();
        pipeline.until_eos();
        assert!(frames.load(std::sync::atomic::Ordering::Relaxed) >= 29, "{line}");
    }
}

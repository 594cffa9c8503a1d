//! Up and down many times, no source of keys, several meetings, flush.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use gst::prelude::*;
use support::{Pipeline, buffer, bytes, stat, takes_less, until};

const OPUS: &str = "audio/x-opus, rate=(int)48000, channels=(int)2";
const A: &str = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";
const B: &str = "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b";

/// Down to NULL, down to READY, flushed, with other caps: after each, what goes in comes out.
#[test]
fn ten_thousand_changes_of_state_flushes_and_caps_seal_no_counter_twice() {
    // The nonce ledger is on in tests: a key and counter used twice aborts.
    let pipeline = Pipeline::parse(&format!(
        "meetingkey loopback=true appsrc name=in format=time stream-type=seekable caps=\"{OPUS}\" ! e2eeseal ! \
         e2eeopen ! appsink name=out sync=false"
    ));
    let input: gst_app::AppSrc = pipeline.element("in").downcast().unwrap();
    let output: gst_app::AppSink = pipeline.element("out").downcast().unwrap();
    input.set_callbacks(gst_app::AppSrcCallbacks::builder().seek_data(|_, _| true).build());
    let down = |state| {
        pipeline.0.set_state(state).unwrap();
    };
    for round in 0..10_000u32 {
        pipeline.play();
        for n in 0..3 {
            let frame = [&round.to_be_bytes()[..], &[n]].concat();
            input.push_buffer(buffer(&frame)).unwrap();
            let sample = output.pull_sample().unwrap();
            assert_eq!(bytes(&sample.buffer().unwrap().to_owned()), frame);
        }
        match round % 4 {
            0 => down(gst::State::Null),
            1 => down(gst::State::Ready),
            2 => input.seek_simple(gst::SeekFlags::FLUSH, gst::ClockTime::ZERO).unwrap(),
            _ => {
                let other = if round % 8 == 3 { "video/x-vp8, width=(int)320" } else { OPUS };
                input.set_caps(Some(&other.parse().unwrap()));
            }
        }
    }
}

#[test]
fn without_a_source_of_keys_the_error_says_what_to_add_in_time() {
    for element in ["e2eeseal", "e2eeopen"] {
        let caps = if element == "e2eeseal" { OPUS } else { "application/x-sframe" };
        takes_less(Duration::from_secs(2), || {
            let pipeline = Pipeline::parse(&format!("fakesrc ! {caps} ! {element} ! fakesink"));
            let started = Instant::now();
            let _ = pipeline.0.set_state(gst::State::Playing);
            let text = pipeline.until_error();
            assert!(text.contains("add `meetingkey`") && text.contains("`meeting-agent join`"), "{text}");
            started.elapsed()
        });
    }
}

#[test]
fn a_property_that_is_an_invitation_is_neither_taken_nor_shown() {
    let invitation = format!("meeting://relay.example/{A}#topsecret");
    for (element, property) in [
        ("meetingkey", "meeting"),
        ("meetingkey", "agent"),
        ("meetingsink", "meeting"),
        ("meetingsink", "agent"),
        ("meetingsrc", "meeting"),
        ("meetingsrc", "agent"),
        ("e2eeseal", "meeting"),
        ("e2eeopen", "meeting"),
    ] {
        let line = match element {
            "meetingkey" | "meetingsink" => format!("{element} name=it fakesrc ! fakesink"),
            "meetingsrc" => "meetingsrc name=it ! fakesink".to_owned(),
            "e2eeseal" => format!("fakesrc ! {OPUS} ! e2eeseal name=it ! fakesink"),
            _ => "fakesrc ! application/x-sframe ! e2eeopen name=it ! fakesink".to_owned(),
        };
        let pipeline = Pipeline::parse(&line);
        let it = pipeline.element("it");
        it.set_property(property, &invitation);
        assert_eq!(it.property::<String>(property), "", "{element} {property}");
        let _ = pipeline.0.set_state(gst::State::Playing);
        let text = pipeline.until_error();
        assert!(!text.contains("topsecret") && text.contains("invitation"), "{element} {property}: {text}");
    }
}

/// What `meeting` seals in one bin, opened where `opener` says.
fn line(sealer: &str, opener: &str) -> String {
    format!(
        "appsrc name=in format=time caps=\"{OPUS}\" ! e2eeseal name=seal {sealer} ! e2eeopen name=open {opener} ! \
         appsink name=out sync=false async=false"
    )
}

#[test]
fn two_meetings_in_one_pipeline_are_told_apart_or_asked_about() {
    let keys = format!("meetingkey loopback=true meeting={A} meetingkey loopback=true meeting={B}");

    let pipeline = Pipeline::parse(&format!("{keys} {}", line("", "")));
    let _ = pipeline.0.set_state(gst::State::Playing);
    let text = pipeline.until_error();
    assert!(text.contains(A) && text.contains(B) && text.contains("meeting"), "{text}");

    for (opener, opens) in [(A, true), (B, false)] {
        let pipeline = Pipeline::parse(&format!(
            "{keys} {}",
            line(&format!("meeting={A}"), &format!("meeting={opener}"))
        ));
        pipeline.play();
        let input: gst_app::AppSrc = pipeline.element("in").downcast().unwrap();
        input.push_buffer(buffer(b"sound")).unwrap();
        let open = pipeline.element("open");
        // Each meeting of the loopback numbers its streams from 1: the other has no stream open, hence no key.
        until("the frame is opened or refused", || stat(&open, "opened") + stat(&open, "no-key") == 1);
        assert_eq!(stat(&open, "opened") == 1, opens);
    }

    let pipeline = Pipeline::parse(&format!("{keys} {}", line(&format!("meeting={}", "0c".repeat(16)), "")));
    let _ = pipeline.0.set_state(gst::State::Playing);
    assert!(pipeline.until_error().contains(A));
}

#[test]
fn each_bin_has_its_own_meeting_and_so_has_each_pipeline() {
    let one = |name: &str, meeting: &str| {
        format!(
            "( name={name} meetingkey loopback=true meeting={meeting} audiotestsrc num-buffers=5 ! opusenc ! \
             e2eeseal ! e2eeopen name=open-{name} ! fakesink )"
        )
    };
    let both = Pipeline::parse(&format!("{} {}", one("a", A), one("b", B)));
    let other = Pipeline::parse(
        &line("", "").replace("appsrc", &format!("meetingkey loopback=true meeting={A} appsrc")),
    );
    other.play();
    both.play();
    both.until_eos();
    let input: gst_app::AppSrc = other.element("in").downcast().unwrap();
    input.push_buffer(buffer(b"sound")).unwrap();
    until("the other pipeline opens", || stat(&other.element("open"), "opened") == 1);
}

#[test]
fn keys_do_not_outlive_meetingkey() {
    let pipeline = Pipeline::parse(&format!("meetingkey loopback=true name=key {}", line("", "")));
    pipeline.play();
    let input: gst_app::AppSrc = pipeline.element("in").downcast().unwrap();
    input.push_buffer(buffer(b"sound")).unwrap();
    let (seal, open) = (pipeline.element("seal"), pipeline.element("open"));
    until("the frame is opened", || stat(&open, "opened") == 1);
    let key = pipeline.element("key");
    key.set_locked_state(true);
    key.set_state(gst::State::Null).unwrap();
    input.push_buffer(buffer(b"sound")).unwrap();
    until("the frame is dropped", || stat(&seal, "dropped-stale") == 1);
    assert_eq!(stat(&open, "opened"), 1);
}

#[test]
fn a_wait_for_a_key_ends_with_the_pipeline() {
    takes_less(Duration::from_millis(450), || {
        let pipeline = Pipeline::parse(
            "meetingkey loopback=true appsrc name=in format=time caps=\"application/x-sframe, original-media-type=audio/x-opus\" ! \
             e2eeopen name=open ! fakesink async=false",
        );
        pipeline.play();
        let input: gst_app::AppSrc = pipeline.element("in").downcast().unwrap();
        // From before the wait on, which takes half a second if nobody ends it.
        let started = Instant::now();
        input.push_buffer(buffer(&[0x77; 40])).unwrap();
        until("the frame is taken", || input.current_level_buffers() == 0);
        pipeline.0.set_state(gst::State::Null).unwrap();
        started.elapsed()
    });
}

//! Keys change while frames flow.

#![allow(clippy::unwrap_used)]

mod support;

use gst::prelude::*;
use support::{Pipeline, buffer, bytes, stat, until};

const OPUS: &str = "audio/x-opus, rate=(int)48000, channels=(int)2";

fn sealer_and_opener() -> (Pipeline, gst_app::AppSrc, gst_app::AppSink, gst_app::AppSrc, gst_app::AppSink) {
    let pipeline = Pipeline::parse(&format!(
        "meetingkey loopback=true name=key \
         appsrc name=clear format=time caps=\"{OPUS}\" ! e2eeseal name=seal ! appsink name=sealed sync=false async=false \
         appsrc name=late format=time caps=\"application/x-sframe, original-media-type=audio/x-opus\" ! \
         e2eeopen name=open ! appsink name=opened sync=false async=false"
    ));
    let source = |name| pipeline.element(name).downcast::<gst_app::AppSrc>().unwrap();
    let sink = |name| pipeline.element(name).downcast::<gst_app::AppSink>().unwrap();
    let all = (source("clear"), sink("sealed"), source("late"), sink("opened"));
    pipeline.play();
    (pipeline, all.0, all.1, all.2, all.3)
}

fn pull(sink: &gst_app::AppSink) -> gst::Buffer {
    sink.try_pull_sample(gst::ClockTime::from_seconds(30)).expect("a sample").buffer().unwrap().to_owned()
}

#[test]
fn every_frame_opens_across_many_rotations() {
    let (pipeline, clear, sealed, late, opened) = sealer_and_opener();
    let key = pipeline.element("key");
    for n in 0..300u32 {
        if n % 3 == 1 {
            key.emit_by_name::<u64>("rotate", &[]);
        }
        clear.push_buffer(buffer(&n.to_be_bytes())).unwrap();
        late.push_buffer(pull(&sealed)).unwrap();
        assert_eq!(bytes(&pull(&opened)), n.to_be_bytes());
    }
    let seal = pipeline.element("seal");
    assert_eq!((stat(&seal, "epoch"), stat(&seal, "sealed"), stat(&seal, "ctr")), (101, 300, 300));
    assert_eq!(key.property::<u64>("epoch"), 101);
}

#[test]
fn a_late_frame_of_the_last_epoch_opens_and_one_from_before_does_not() {
    let (pipeline, clear, sealed, late, opened) = sealer_and_opener();
    let key = pipeline.element("key");
    let mut frames = Vec::new();
    for n in 1..=3u8 {
        clear.push_buffer(buffer(&[n])).unwrap();
        frames.push(pull(&sealed));
        if n < 3 {
            key.emit_by_name::<u64>("rotate", &[]);
        }
    }
    for n in [2, 1] {
        late.push_buffer(frames[n].copy()).unwrap();
        assert_eq!(bytes(&pull(&opened)), [n as u8 + 1]);
    }
    late.push_buffer(frames[0].copy()).unwrap();
    let open = pipeline.element("open");
    until("the frame is refused", || stat(&open, "no-key") == 1);
}

#[test]
fn a_key_dropped_and_learned_anew_lets_nothing_in_twice() {
    let (pipeline, clear, sealed, late, opened) = sealer_and_opener();
    clear.push_buffer(buffer(b"once")).unwrap();
    let frame = pull(&sealed);
    late.push_buffer(frame.copy()).unwrap();
    pull(&opened);
    // The opener is gone and comes back: what it accepted stays accepted.
    let open = pipeline.element("open");
    for element in [&open, late.upcast_ref(), opened.upcast_ref()] {
        element.set_locked_state(true);
        element.set_state(gst::State::Null).unwrap();
    }
    for element in [opened.upcast_ref(), &open, late.upcast_ref()] {
        element.set_locked_state(false);
        element.sync_state_with_parent().unwrap();
    }
    late.push_buffer(frame).unwrap();
    until("the frame is refused", || stat(&open, "replayed") == 1);
}

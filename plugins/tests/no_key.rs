//! Frames whose key nobody has, or has yet: they cost neither memory nor time.

#![allow(clippy::unwrap_used)]

#[path = "support/agent.rs"]
mod fake;
mod support;

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use fake::{ALICE, FakeAgent};
use gst::prelude::*;
use gst_check::Harness;
use meeting_protocol::{
    frame::{Header, KeyId},
    local::FromAgent,
};
use meeting_wire::{Envelope, Flags, Kind, StreamId};
use support::{Pipeline, TRIES, buffer, init, stat, until};

/// One at a time: memory and time are those of the whole process.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_million_made_up_keys_cost_an_opener_no_memory() {
    const FRAMES: u64 = 1_000_000;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    init();
    let mut harness = Harness::new_parse("meetingkey loopback=true e2eeopen");
    harness.set_src_caps_str("application/x-sframe, original-media-type=audio/x-opus");
    harness.play();
    let mut before = 0;
    for n in 0..FRAMES {
        if n == FRAMES / 10 {
            before = resident();
        }
        harness.push(buffer(&sealed(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))).unwrap();
    }
    let after = resident();
    println!("from {before} to {after} KiB");
    assert_eq!(stat(&harness.find_element("e2eeopen").unwrap(), "no-key"), FRAMES);
    assert_eq!(harness.buffers_in_queue(), 0);
    // Sixteen bytes for each would be 14 MiB.
    assert!(after < before + 2 * 1024, "from {before} to {after} KiB");
}

#[test]
fn of_frames_without_a_key_sixty_five_wait_for_half_a_second() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Where the machine stands still, some come when nobody waits any more.
    assert!((0..TRIES).any(|_| few_wait()), "too many wait, or for too long");
}

/// Sends more than can wait, all at once: whether 65 at most waited, and none for a second.
fn few_wait() -> bool {
    const FRAMES: u64 = 300;
    let agent = FakeAgent::start();
    let socket = agent.socket();
    let pipeline = Pipeline::parse(&format!(
        "meetingkey agent={socket} meetingsrc name=src agent={socket} ! e2eeopen name=open ! fakesink async=false"
    ));
    pipeline.play();
    let (src, open) = (pipeline.element("src"), pipeline.element("open"));
    let stream = StreamId(1);
    agent.tell_watchers(FromAgent::Track {
        from: ALICE,
        name: "Alice".into(),
        stream,
        track: "microphone".into(),
        kind: Kind::Audio,
        caps: "audio/x-opus".into(),
    });
    until("the pad", || src.static_pad("audio_0").is_some_and(|pad| pad.is_linked()));
    for n in 0..FRAMES {
        let envelope = Envelope {
            pts: Some(gste2ee::clock::capture_now() + n),
            dts: None,
            duration: None,
            flags: Flags(Flags::KEYFRAME),
            layer: 0,
            sealed: sealed(KeyId::new(stream, 1, 1).into()).into(),
        };
        agent.tell_watchers(FromAgent::Frame { from: ALICE, stream, envelope });
    }
    let sent = Instant::now();
    let counts = || (stat(&src, "dropped"), stat(&open, "no-key"));
    // One waits in the opener and 64 before it; older ones give way.
    until("those that are too many are dropped", || counts().0 + counts().1 >= FRAMES - 65);
    until("nobody waits any more", || counts().0 + counts().1 == FRAMES);
    let took = sent.elapsed();
    println!("dropped and given up: {:?}, after {took:?}", counts());
    assert_eq!(stat(&open, "opened"), 0);
    counts().1 <= 65 && took < Duration::from_secs(1)
}

/// What might be a sealed frame, under any key.
fn sealed(kid: u64) -> Vec<u8> {
    let mut sealed = vec![0; Header::MAX_LEN];
    let len = Header { kid, ctr: 0 }.emit(sealed.first_chunk_mut().unwrap());
    sealed.truncate(len);
    sealed.extend_from_slice(&[7; 40]);
    sealed
}

/// KiB of this process that are in memory, but for what files hold as well.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

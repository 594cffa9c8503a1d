//! A machine that gives no more: what is there goes on, what is new is told whose limit it is.

use std::{os::unix::net::UnixStream, sync::mpsc::channel, time::Duration};

use anyhow::{Context, Result, ensure};
use gst::prelude::*;
use rig::{EvilRelay, Fate, address_space, descriptors, resident, until};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::{TALKS, hearing, opened, three};

#[test]
fn an_agent_without_file_descriptors_keeps_its_meeting_and_says_whose_limit_it_is() -> Result<()> {
    let (stage, [alice, bob, _carol], _) = three(0)?;
    let _talks = stage.pipeline(&bob, TALKS)?;
    let mut hears = stage.pipeline(&alice, &hearing("Bob"))?;
    hears.until("Bob's voice", |stats| opened(stats) > 50)?;
    let before = (alice.code()?, super::ids(&alice)?);

    let open = descriptors(bob.pid())? as u64;
    let pid = Pid::from_raw(bob.pid() as i32);
    let limit = |most| Ok::<_, anyhow::Error>(prlimit(pid, Resource::Nofile, most)?);
    let most = getrlimit(Resource::Nofile).maximum;
    let usual = limit(Rlimit { current: Some(open + 4), maximum: most })?;
    let crowd: Vec<UnixStream> =
        (0..16).map(|_| UnixStream::connect(bob.socket())).collect::<Result<_, _>>()?;
    until("the warning", Duration::from_secs(10), || Ok(bob.log().contains("LimitNOFILE").then_some(())))?;
    let so_far = opened(&hears.stats());
    hears.until("Bob's voice all the same", |stats| opened(stats) > so_far + 200)?;
    ensure!(bob.log().matches("LimitNOFILE").count() <= 2, "it is said seldom: {}", bob.log());
    ensure!(bob.log().contains("meetings go on"), "{}", bob.log());

    // The silent are closed after five seconds: then there is room for who has something to say.
    let status = bob.status()?;
    ensure!(status["phase"] == "live" && status["connected"] == true, "{status}");
    drop(crowd);
    limit(usual)?;
    ensure!((bob.code()?, super::ids(&bob)?) == before, "the same meeting");
    stage.check_books().map(drop)
}

#[test]
fn an_agent_under_a_memory_limit_stays_in_its_meeting_whatever_a_relay_floods_it_with() -> Result<()> {
    let (stage, [alice, bob, carol], link) = three(0)?;
    let evil = EvilRelay::start(stage.relay.address)?;
    bob.run(&["leave"], "")?;
    bob.join(&evil.bend(&link)?)?;
    super::one_meeting(&[&alice, &bob, &carol], 3)?;
    let _talks = stage.pipeline(&alice, TALKS)?;
    let (keeps, kept) = channel();
    evil.decide(move |stream, envelope| {
        let _ = if stream.0 > 0 { keeps.send((stream, envelope.clone())) } else { Ok(()) };
        Fate::Pass
    });
    let mut hears = stage.pipeline(&bob, &hearing("Alice"))?;
    hears.until("Alice's voice", |stats| opened(stats) > 50)?;
    let before = bob.code()?;
    let limit = address_space(bob.pid())? * 1024 + ROOM;
    let pid = Pid::from_raw(bob.pid() as i32);
    prlimit(pid, Resource::As, Rlimit { current: Some(limit), maximum: Some(limit) })?;

    // Of a stream that it watches, so that it does not throw them away at once.
    let (stream, like) = kept.try_iter().last().context("a frame of Alice's")?;
    let mut sent = 0;
    until("a flood of more than it may keep", Duration::from_secs(120), || {
        sent += evil.flood(stream, &like, Duration::from_secs(3))?;
        bob.status()?;
        Ok((sent > 2 * ROOM).then_some(()))
    })?;
    println!("{} MiB came, {} MiB are resident", sent >> 20, resident(bob.pid())? >> 10);

    let so_far = opened(&hears.stats());
    hears.until("Alice's voice all the same", |stats| opened(stats) > so_far + 100)?;
    super::one_meeting(&[&alice, &bob, &carol], 3)?;
    ensure!(bob.code()? == before, "the same meeting");
    ensure!(!bob.log().contains("memory allocation"), "{}", bob.log());
    stage.check_books().map(drop)
}

/// Pixels on each side of a picture that takes 400 MB once it is decoded, and 5 MB before.
const VAST: i32 = 16_384;
/// So much more than it has may an agent take that is flooded, and a pipeline whose member is sent that picture.
const ROOM: u64 = 256 * 1024 * 1024;

#[test]
fn a_vast_picture_under_small_caps_ends_the_pipeline_that_decodes_it_and_nothing_else() -> Result<()> {
    let (stage, [alice, bob, carol], _) = three(0)?;
    let _talks = stage.pipeline(&alice, TALKS)?;
    let mut hears = stage.pipeline(&bob, &hearing("Alice"))?;
    // Carol's pipeline hears Alice too, and looks at whatever Bob shows.
    let look =
        |n| format!(" bob.video_{n} ! queue ! e2eeopen name=look-{n} ! jpegdec ! fakesink async=false");
    let looks = format!("{} meetingsrc participant=Bob name=bob{}{}", hearing("Alice"), look(0), look(1));
    let mut looks = stage.pipeline(&carol, &looks)?;
    looks.until("Alice's voice", |stats| opened(stats) > 50)?;

    let vast = stage.folder().join("vast.jpg");
    let honest = stage.folder().join("honest.jpg");
    picture(&honest, 320)?;
    picture(&vast, VAST)?;
    let shows = |file: &std::path::Path, rate: &str| {
        let caps = format!("image/jpeg,width=320,height=320,framerate=(fraction){rate}");
        let file = file.display();
        format!(
            "meetingkey multifilesrc location={file} loop=true caps=\"{caps}\" ! identity sync=true \
             ! e2eeseal name=seal track=camera ! meetingsink"
        )
    };
    let honestly = stage.pipeline(&bob, &shows(&honest, "2/1"))?;
    looks.until("an honest picture", |stats| stats.get("look-0", "opened") > 2)?;
    let pid = Pid::from_raw(looks.pid() as i32);
    let has = address_space(looks.pid())? * 1024;
    prlimit(pid, Resource::As, Rlimit { current: Some(has + ROOM), maximum: None })?;
    let before = looks.stats().get("look-0", "opened");
    looks.until("more honest pictures", |stats| stats.get("look-0", "opened") > before + 2)?;

    drop(honestly);
    // Seldom, for a slow machine: the next one makes a picture worthless that is still on its way.
    let _bomb = stage.pipeline(&bob, &shows(&vast, "1/3"))?;
    let said = looks.wait_for_failure(Duration::from_secs(60))?;
    println!("it said: {said}");

    // Everybody is there still, Carol's agent too, and a new pipeline of hers plays what is honest.
    let so_far = opened(&hears.stats());
    hears.until("Alice's voice all the same", |stats| opened(stats) > so_far + 100)?;
    let mut again = stage.pipeline(&carol, &hearing("Alice"))?;
    again.until("Alice's voice", |stats| opened(stats) > 50)?;
    super::one_meeting(&[&alice, &bob, &carol], 3)?;
    stage.check_books().map(drop)
}

/// A black picture as a JPEG file.
fn picture(file: &std::path::Path, side: i32) -> Result<()> {
    gst::init()?;
    let line = format!(
        "videotestsrc num-buffers=1 pattern=black ! video/x-raw,format=I420,width={side},height={side} ! jpegenc \
         ! filesink location={}",
        file.display()
    );
    let pipeline = gst::parse::launch(&line)?;
    pipeline.set_state(gst::State::Playing)?;
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let bus = pipeline.bus();
    let end = bus.and_then(|bus| bus.timed_pop_filtered(gst::ClockTime::from_seconds(120), &ends));
    pipeline.set_state(gst::State::Null)?;
    ensure!(end.is_some_and(|end| end.type_() == gst::MessageType::Eos), "no picture in {}", file.display());
    Ok(())
}

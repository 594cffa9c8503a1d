//! From the wish to join to the first decoded picture, with the real programs.
//!
//! Alice shows a picture that only asks for a keyframe bring. Bob, a new agent each time, runs `meeting-agent join` and
//! then starts a pipeline; the clock runs from the command to the decoder's first picture. All go through a
//! [`Way`] to the relay, in turns one of no length and one of 50 ms each way: what the second takes longer, in units
//! of 100 ms, are the round trips that a join needs, whatever machine it runs on. (Alice's way to the relay stays short.)

#![allow(missing_docs)]

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use gst::prelude::*;
use rig::{Agent, Stage, Way, Weather, bench};

const JOINS: usize = 12;
const ONE_WAY: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(30);
/// Those who join within a second share a rotation, and wait for it.
const APART: Duration = Duration::from_millis(1_100);
const PHASES: [&str; 4] = ["in, with keys", "first sealed frame", "first opened frame", "first picture"];

fn main() -> Result<()> {
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    bench::load_plugin()?;
    let stage = Stage::open()?;
    let alice = stage.agent("Alice")?;
    let link = alice.create(&stage)?;
    let shows = launch(
        &alice,
        "meetingkey name=key videotestsrc is-live=true pattern=ball ! video/x-raw,width=640,height=360,framerate=30/1 \
         ! x264enc tune=zerolatency speed-preset=ultrafast bitrate=2000 key-int-max=100000 ! e2eeseal ! meetingsink name=net",
    )?;
    shows.set_state(gst::State::Playing)?;

    let mut way = [Vec::new(), Vec::new()];
    for n in 0..2 * JOINS {
        let slow = n % 2;
        way[slow].push(join(&stage, &alice, &link, if slow == 1 { ONE_WAY } else { Duration::ZERO })?);
        bench::progress(&format!("join {} of {}", n + 1, 2 * JOINS));
    }
    shows.set_state(gst::State::Null)?;

    bench::progress("");
    println!(
        "ms from the command to                 p50     p90     p50, {ONE_WAY:?} each way     round trips"
    );
    let mut last = [0.0; 3];
    for (phase, name) in PHASES.iter().enumerate() {
        let times = |slow: usize| way[slow].iter().map(|join: &[f64; 4]| join[phase]).collect::<Vec<_>>();
        let (p50, p90) = (bench::median(times(0)), bench::percentile(times(0), 0.9));
        let far = bench::median(times(1));
        let trips = (far - p50) / (2.0 * ONE_WAY.as_secs_f64() * 1e3);
        println!("{name:>22} {p50:>19.0} {p90:>7.0} {far:>10.0} {trips:>25.1}");
        last = [p50, p90, trips];
    }
    let [p50, p90, trips] = last;
    let how =
        format!("p50 of {JOINS} joins, the delay's share; on loopback p50 {p50:.0} ms, p90 {p90:.0} ms");
    bench::figure(
        "join to first picture",
        &format!("{trips:.1} round trips"),
        "one round trip",
        "1",
        trips,
        "under 4, and a keyframe",
        &how,
    );
    Ok(())
}

/// Ms from the command to each of the phases.
fn join(stage: &Stage, alice: &Agent, link: &str, one_way: Duration) -> Result<[f64; 4]> {
    std::thread::sleep(APART);
    let relay = stage.relay.address;
    let way = Way::start(relay, Weather::far(one_way), 0)?;
    let link = way.bend(link)?;
    let bob = stage.agent("Bob")?;
    let start = Instant::now();
    bob.join(&link)?;
    let keys = start.elapsed();
    let watches = launch(
        &bob,
        "meetingkey name=key meetingsrc name=net ! e2eeopen name=open ! avdec_h264 ! fakesink name=end sync=false async=false",
    )?;
    let passed =
        [first(&watches, "open", "sink")?, first(&watches, "open", "src")?, first(&watches, "end", "sink")?];
    watches.set_state(gst::State::Playing)?;
    let mut times = [keys.as_secs_f64() * 1e3; 4];
    for (time, passed) in times[1..].iter_mut().zip(passed) {
        let at: Instant = passed.recv_timeout(PATIENCE).context("waiting for Alice's picture")?;
        *time = (at - start).as_secs_f64() * 1e3;
    }
    watches.set_state(gst::State::Null)?;
    bob.run(&["leave"], "")?;
    alice.until("Bob's leaving", |status| {
        status["people"].as_array().is_some_and(|people| people.len() == 1)
    })?;
    Ok(times)
}

/// A pipeline whose elements talk to `agent`.
fn launch(agent: &Agent, description: &str) -> Result<gst::Pipeline> {
    let pipeline = gst::parse::launch(description)?
        .downcast::<gst::Pipeline>()
        .map_err(|_| anyhow::anyhow!("not a pipeline"))?;
    for name in ["key", "net"] {
        pipeline.by_name(name).context(name)?.set_property("agent", agent.socket().to_str());
    }
    Ok(pipeline)
}

/// Says when the first buffer passes a pad.
fn first(pipeline: &gst::Pipeline, element: &str, pad: &str) -> Result<mpsc::Receiver<Instant>> {
    let (said, heard) = mpsc::channel();
    let pad = pipeline.by_name(element).and_then(|element| element.static_pad(pad)).context("a pad")?;
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let _ = said.send(Instant::now());
        gst::PadProbeReturn::Remove
    });
    Ok(heard)
}

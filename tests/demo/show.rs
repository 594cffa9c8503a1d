//! What happens in the demo, in its order.

use std::{
    ops::Range,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use rig::{Agent, Hoarder, Proxy, Stage, Stats, until};

use crate::{Arguments, Clock};

/// What is left after the show: the stage and everything counted on it.
pub struct Show {
    pub stage: Stage,
    pub alice: Agent,
    pub link: String,
    /// Everybody's code, with their name.
    pub codes: Vec<(String, String)>,
    /// How many keys the meeting had.
    pub epochs: u64,
    /// Video frames Alice sealed before Bob was in, and in all.
    pub sealed: (u64, u64),
    pub alice_stats: Stats,
    pub bob_stats: Stats,
    pub bob_file: PathBuf,
    /// Video frames Alice sealed from Carol's joining to her leaving.
    pub carol_stay: u64,
    pub carol_stats: Stats,
    /// Every key Carol was ever given, and from when to when (ms since 1970) she was in.
    pub carol_keys: Hoarder,
    pub carol_in: Range<u64>,
    /// Bytes between the relay and Bob as anybody on the way sees them.
    pub wire: Vec<u8>,
}

pub fn run(arguments: &Arguments, clock: &Clock) -> Result<Show> {
    let stage = Stage::open()?;
    clock.say(&format!("a relay listens on {}", stage.relay.address));
    let proxy = Proxy::start(stage.relay.address)?;
    let (alice, bob, carol) = (stage.agent("Alice")?, stage.agent("Bob")?, stage.agent("Carol")?);
    let link = alice.create(&stage)?;
    clock.say("Alice opens a meeting and starts the film");
    let film = arguments.film.canonicalize()?;
    let mut publish = stage.pipeline(&alice, &publishing(&film.to_string_lossy()))?;
    publish.until("the first sealed frame", |stats| stats.get("seal-video", "sealed") > 0)?;

    let tapped = link.replace(&stage.relay.address.to_string(), &proxy.address.to_string());
    bob.join(&tapped)?;
    let before_bob = publish.stats().get("seal-video", "sealed");
    clock.say("Bob joins, watches and records");
    let bob_file = arguments.out.join("bob.mkv");
    let mut watch = stage.pipeline(&bob, &recording(&bob_file.to_string_lossy()))?;
    watch.until("Bob's first picture", |stats| stats.get("open-video", "opened") > 0)?;
    clock.say("Bob sees the film");

    alice.run(&["rotate"], "")?;
    clock.say("Alice changes the key by hand");
    publish.until("a third of the film", |stats| stats.get("seal-video", "sealed") > 220)?;
    let carol_from = publish.stats().get("seal-video", "sealed");
    let carol_came = now();
    carol.join(&link)?;
    let carol_keys = Hoarder::start(&carol.socket())?;
    let mut peek = stage.pipeline(&carol, watching())?;
    peek.until("Carol's first picture", |stats| stats.get("open-video", "opened") > 0)?;
    clock.say("Carol joins late: the key changes");
    let codes = [&alice, &bob, &carol]
        .map(|agent| Ok((agent.name().to_owned(), agent.code()?)))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    publish.until("two thirds of the film", |stats| stats.get("seal-video", "sealed") > 400)?;
    carol.run(&["leave"], "")?;
    let carol_in = carol_came..now();
    // Counters are written twice a second, so the next ones are from after the leave.
    std::thread::sleep(Duration::from_millis(600));
    let carol_stay = publish.stats().get("seal-video", "sealed") - carol_from;
    let carol_stats = peek.kill()?;
    clock.say("Carol leaves: the key changes again");

    let epochs = alice.status()?["epoch"].as_u64().context("no epoch in Alice's status")?;
    let alice_stats = publish.wait(Duration::from_secs(40))?;
    clock.say("the film is over");
    until("Bob to open the last frame", Duration::from_secs(5), || {
        let missing = alice_stats.get("seal-video", "sealed").saturating_sub(before_bob);
        Ok((watch.stats().get("open-video", "opened") * 100 >= missing * 99).then_some(()))
    })
    .unwrap_or_default();
    let bob_stats = watch.finish()?;
    let sealed = (before_bob, alice_stats.get("seal-video", "sealed"));
    let wire = proxy.seen();
    Ok(Show {
        stage,
        alice,
        link,
        codes,
        epochs,
        sealed,
        alice_stats,
        bob_stats,
        bob_file,
        carol_stay,
        carol_stats,
        carol_keys,
        carol_in,
        wire,
    })
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Film in, sealed streams out.
pub fn publishing(film: &str) -> String {
    format!(
        "filesrc location={film} ! matroskademux name=film meetingsink name=out \
         film.video_0 ! queue ! avdec_h264 ! videoconvert ! timeoverlay \
           ! x264enc tune=zerolatency speed-preset=ultrafast bitrate=3000 key-int-max=50 \
           ! video/x-h264,profile=constrained-baseline ! e2eeseal name=seal-video track=camera ! out. \
         film.audio_0 ! queue ! avdec_aac ! audioconvert ! audioresample ! audio/x-raw,rate=48000,channels=2 \
           ! opusenc bitrate=96000 ! e2eeseal name=seal-audio track=microphone ! out. meetingkey"
    )
}

/// Sealed streams in, a Matroska file out.
fn recording(file: &str) -> String {
    format!(
        "meetingsrc name=in matroskamux name=mux ! filesink location={file} \
         in.video_0 ! queue ! e2eeopen name=open-video ! h264parse ! queue ! mux. \
         in.audio_0 ! queue ! e2eeopen name=open-audio ! opusparse ! queue ! mux. \
         meetingkey"
    )
}

/// Sealed streams in, opened and decoded, shown to nobody.
fn watching() -> &'static str {
    "meetingsrc name=in meetingkey \
     in.video_0 ! queue ! e2eeopen name=open-video ! avdec_h264 ! fakesink sync=false async=false \
     in.audio_0 ! queue ! e2eeopen name=open-audio ! opusdec ! fakesink sync=false async=false"
}

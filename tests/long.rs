//! Half an hour of one meeting with real processes: what they hold stays what it was.
//!
//! `MEETING_MINUTES` sets another length; the first sixth of it is warm-up. Figures are printed with `--nocapture`.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rig::{Pipeline, Stage, descriptors, resident};

#[test]
#[ignore = "takes half an hour: `cargo test -p meeting-tests --features ledger --test long -- --ignored`"]
fn half_an_hour_of_coming_and_going_leaves_nothing_behind() -> Result<()> {
    let minutes = std::env::var("MEETING_MINUTES").map_or(Ok(30.0), |minutes| minutes.parse::<f64>())?;
    let span = Duration::from_secs_f64(60.0 * minutes);
    let stage = Stage::with_books()?;
    let agents = [stage.agent("Alice")?, stage.agent("Bob")?, stage.agent("Carol")?];
    let [alice, bob, carol] = &agents;
    let guest = stage.agent("Dave")?;
    let link = alice.create(&stage)?;
    bob.join(&link)?;
    carol.join(&link)?;
    let sending = [stage.pipeline(alice, SENDS)?, stage.pipeline(bob, SENDS)?];
    let mut watching = stage.pipeline(carol, &watches())?;
    until_more(&mut watching)?;

    let held = |name: &str, pid, most| Watched { name: name.to_owned(), pid, most, samples: Vec::new() };
    let mut watched = vec![held("relay", stage.relay.pid(), GROWTH)];
    watched.extend(agents.iter().map(|agent| held(agent.name(), agent.pid(), GROWTH)));
    watched.push(held("guest", guest.pid(), ARENAS));
    watched.extend(sending.iter().map(|pipeline| held("sends", pipeline.pid(), PIPELINES)));
    watched.push(held("watches", watching.pid(), PIPELINES));
    let (started, mut turns) = (Instant::now(), 0);
    while started.elapsed() < span {
        // Samples are taken while the guest is out, so that they are alike.
        let turn = Instant::now();
        guest.join(&link)?;
        carol.until("the guest", |status| people(status) == 4)?;
        guest.run(&["leave"], "")?;
        carol.until("the guest's end", |status| people(status) == 3)?;
        until_more(&mut watching)?;
        for n in 1..=SAMPLES {
            thread::sleep((turn + n * EVERY).saturating_duration_since(Instant::now()));
            if started.elapsed() > span / 6 {
                watched.iter_mut().try_for_each(Watched::sample)?;
            }
        }
        turns += 1;
    }

    let faults: Vec<String> =
        watched.iter().filter_map(|one| one.growth().err()).map(|e| e.to_string()).collect();
    println!("{turns} guests came and went in {:?}", started.elapsed());
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    let codes = [alice.code()?, bob.code()?, carol.code()?];
    ensure!(codes.iter().all(|code| *code == codes[0]), "one meeting");
    for opener in OPENERS {
        for reason in ["forged", "replayed", "malformed", "mismatch", "stale"] {
            ensure!(watching.stats().get(opener, reason) == 0, "{opener}: {}", watching.stats().0);
        }
    }
    stage.check_books().map(drop)
}

/// One process and what it held.
struct Watched {
    name: String,
    pid: u32,
    /// KiB that it may grow by.
    most: u64,
    samples: Vec<[u64; 3]>,
}

impl Watched {
    fn sample(&mut self) -> Result<()> {
        let held = [resident(self.pid)?, descriptors(self.pid)? as u64, threads(self.pid)?];
        self.samples.push(held);
        Ok(())
    }

    /// The medians of the first third and of the last are alike.
    fn growth(&self) -> Result<()> {
        let third = self.samples.len() / 3;
        ensure!(third > 0, "{}: only {} samples", self.name, self.samples.len());
        let median = |samples: &[[u64; 3]], n: usize| {
            let mut values: Vec<u64> = samples.iter().map(|sample| sample[n]).collect();
            values.sort();
            values[values.len() / 2]
        };
        let of = |samples: &[[u64; 3]]| [0, 1, 2].map(|n| median(samples, n));
        let (first, last) = (of(&self.samples[..third]), of(&self.samples[self.samples.len() - third..]));
        println!("{:>8}: KiB, open files, threads from {first:?} to {last:?}", self.name);
        ensure!(last[0] <= first[0] + self.most, "{} grew from {} to {} KiB", self.name, first[0], last[0]);
        ensure!(last[1] <= first[1] + 1, "{}: from {} to {} open files", self.name, first[1], last[1]);
        ensure!(last[2] <= first[2] + 1, "{}: from {} to {} threads", self.name, first[2], last[2]);
        Ok(())
    }
}

fn threads(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("Threads:")).context("no Threads")?;
    Ok(line.trim().parse()?)
}

fn people(status: &serde_json::Value) -> usize {
    status["people"].as_array().map_or(0, Vec::len)
}

/// Waits until everything that is watched has gone on.
fn until_more(watching: &mut Pipeline) -> Result<()> {
    let before = watching.stats();
    let more =
        |opener: &str, stats: &rig::Stats| stats.get(opener, "opened") > before.get(opener, "opened") + 5;
    watching.until("more of all", |stats| OPENERS.iter().all(|opener| more(opener, stats))).map(drop)
}

fn watches() -> String {
    // The fake source keeps the pipeline from ending with its last stream.
    let mut description =
        "meetingkey audiotestsrc is-live=true samplesperbuffer=4410 ! fakesink async=false".to_owned();
    for sender in ["Alice", "Bob"] {
        description += &format!(
            " meetingsrc name=from-{sender} participant={sender} \
             from-{sender}.video_0 ! queue ! e2eeopen name={sender}-picture ! h264parse ! avdec_h264 \
               ! fakesink async=false sync=false \
             from-{sender}.audio_0 ! queue ! e2eeopen name={sender}-voice ! opusdec ! fakesink async=false sync=false"
        );
    }
    description
}

const OPENERS: [&str; 4] = ["Alice-picture", "Alice-voice", "Bob-picture", "Bob-voice"];
const SENDS: &str = "meetingkey meetingsink name=out \
    videotestsrc is-live=true pattern=ball ! video/x-raw,width=160,height=90,framerate=15/1 \
      ! x264enc tune=zerolatency speed-preset=ultrafast bitrate=100 key-int-max=30 ! e2eeseal track=camera ! out. \
    audiotestsrc is-live=true samplesperbuffer=960 ! audio/x-raw,rate=48000,channels=1 ! opusenc bitrate=24000 \
      ! e2eeseal track=microphone ! out.";
const EVERY: Duration = Duration::from_secs(10);
/// Between two guests.
const SAMPLES: u32 = 2;
/// KiB from the first third to the last. The board keeps an hour of joins, and an agent's nonce ledger, which nothing that is
/// shipped has, each post that it seals; what leaked with each frame or guest would be several times that.
const GROWTH: u64 = 4 * 1024;
/// The same for who joins again and again: the C library keeps an arena of 3 MiB for some threads, and takes a while to have
/// all it wants.
const ARENAS: u64 = 16 * 1024;
/// The same for pipelines: the ledger has each frame that they seal, and GStreamer has pools.
const PIPELINES: u64 = 16 * 1024;

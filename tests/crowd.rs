//! Twenty people for a minute, each with an agent and a pipeline of their own, one of them coming or going every second.
//!
//! Five stay: three of them send picture and voice, two decode what they get. Figures are printed with `--nocapture`.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rig::{Agent, Hoarder, Pipeline, Seen, Stage, Stalls, Stats, Witness, descriptors, now, resident, until};

#[test]
fn twenty_people_come_and_go_and_every_frame_is_accounted_for() -> Result<()> {
    let stage = Stage::with_books()?;
    let agents: Vec<Agent> = STAY.iter().map(|name| stage.agent(name)).collect::<Result<_>>()?;
    let link = agents[0].create(&stage)?;
    agents[1..].iter().try_for_each(|agent| agent.join(&link))?;
    let mut watching: Vec<Pipeline> =
        STAY.iter().zip(&agents).map(|(name, agent)| watch(&stage, agent, name)).collect::<Result<_>>()?;
    // A live source drops what comes before its pipeline plays, and decoders take a while to load.
    for pipeline in &mut watching {
        pipeline.until("a pipeline that plays", |stats| !stats.0.is_null())?;
    }
    let witnesses: Vec<Witness> =
        agents.iter().map(|agent| Witness::start(&agent.socket())).collect::<Result<_>>()?;
    let stalls = Stalls::watch();
    let sending: Vec<Pipeline> =
        agents[..SENDERS].iter().map(|agent| stage.pipeline(agent, SENDS)).collect::<Result<_>>()?;
    for (pipeline, name) in watching.iter_mut().zip(STAY) {
        let sources = sources(name);
        pipeline.until("everybody's first frames", |stats| {
            sources.iter().all(|source| stats.get(&opener(source), "opened") > 0)
        })?;
    }

    let guests: Vec<Agent> =
        (STAY.len()..EVERYBODY).map(|n| stage.agent(&format!("Guest {n}"))).collect::<Result<_>>()?;
    let plans = plans();
    let before = agents[0].status()?["epochs"].as_u64().unwrap_or(0);
    let started = Instant::now();
    let (mut stays, mut rest, mut open) = (Vec::new(), Vec::new(), Vec::new());
    let (stage, link) = (&stage, &link);
    thread::scope(|scope| {
        let threads: Vec<_> = guests
            .iter()
            .zip(&plans)
            .map(|(guest, plan)| scope.spawn(move || follow(stage, guest, link, started, plan)))
            .collect();
        // Everybody is in by then, and the first one goes.
        thread::sleep(SETTLING);
        open.push(all(&agents, |agent| Ok((descriptors(agent.pid())?, resident(agent.pid())?))));
        for thread in threads {
            let (over, present) = thread.join().expect("no panic in a guest's thread")?;
            stays.extend(over);
            rest.extend(present);
        }
        open.push(all(&agents, |agent| Ok((descriptors(agent.pid())?, resident(agent.pid())?))));
        Ok::<_, anyhow::Error>(())
    })?;
    let took = started.elapsed();
    // Who came last has just begun to watch.
    rest.iter_mut().try_for_each(Present::opens_something)?;

    let sent: Vec<Stats> = sending.into_iter().map(Pipeline::finish).collect::<Result<_>>()?;
    let (longest, lossless) = (stalls.longest(), !stalls.may_cost_frames());
    // What is older than 150 ms is dropped, as it should be: a machine that stood still for that long makes everything old.
    let may_lose = |sealed: u64| if lossless { 0 } else { sealed / 20 };
    let mut wrong = Vec::new();
    for (n, name) in STAY.iter().enumerate() {
        for (sender, track) in sources(name) {
            let of = STAY.iter().position(|other| *other == sender).context("no such sender")?;
            let sealed = sent[of].get(track, "sealed");
            let outcome =
                account(&witnesses[n], &mut watching[n], (sender, track), (sealed, may_lose(sealed)));
            wrong.extend(outcome.err().map(|error| format!("{name}: {error:#}")));
        }
    }
    for present in rest {
        stays.push(present.end()?);
    }
    let seen = stage.relay.seen()?;
    // Keys change within a second, or later where everything stands still.
    let late = 1_000 + longest.as_millis() as u64;
    let frames = stays.iter().map(|stay| stay.check(&seen, late)).sum::<Result<usize>>()?;
    let mut joins: Vec<Duration> = stays.iter().map(|stay| stay.took).collect();
    joins.sort();
    let epochs = agents[0].status()?["epochs"].as_u64().unwrap_or(0) - before;
    println!(
        "{} stays of {} guests in {took:?}, {epochs} epochs, a join took {:?} (median) to {:?}; {} frames recorded, \
         {frames} tried in vain",
        stays.len(),
        guests.len(),
        joins[joins.len() / 2],
        joins[joins.len() - 1],
        seen.len(),
    );
    println!("the machine stood still for {longest:?} at most");
    println!("descriptors and KiB of those who stayed: {open:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let codes: BTreeSet<String> = agents.iter().map(Agent::code).collect::<Result<_>>()?;
    assert_eq!(codes.len(), 1, "one meeting");
    for (before, after) in
        open[0].as_ref().zip(open[1].as_ref()).into_iter().flat_map(|(a, b)| a.iter().zip(b))
    {
        assert!(after.0 <= before.0 + 1, "from {} to {} open files", before.0, after.0);
        assert!(after.1 < before.1 + 4 * 1024, "from {} to {} KiB", before.1, after.1);
    }
    stage.check_books().map(drop)
}

/// What a guest does, and when.
type Plan = Vec<(Duration, Step)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Come,
    Go,
}

/// A guest who is in.
struct Present {
    asked: u64,
    took: Duration,
    keys: Hoarder,
    pipeline: Pipeline,
}

impl Present {
    fn opens_something(&mut self) -> Result<()> {
        self.pipeline.until("something to open", |stats| Self::opened(stats) > 0).map(drop)
    }

    fn end(self) -> Result<Stay> {
        let left = now();
        let opened = Self::opened(&self.pipeline.kill()?);
        Ok(Stay { asked: self.asked, left, took: self.took, keys: self.keys, opened })
    }

    fn opened(stats: &Stats) -> u64 {
        sources("").iter().map(|source| stats.get(&opener(source), "opened")).sum()
    }
}

/// One guest's time in the meeting.
struct Stay {
    asked: u64,
    left: u64,
    took: Duration,
    keys: Hoarder,
    opened: u64,
}

impl Stay {
    /// This guest opened what came while it was in, and its keys open nothing from before or from so many ms after. Gives
    /// how many frames were tried in vain.
    fn check(&self, seen: &[Seen], late: u64) -> Result<usize> {
        ensure!(self.opened > 0, "a guest who was in for {} ms opened nothing", self.left - self.asked);
        let frames = seen.iter().filter_map(|seen| Some((seen.at, &seen.frame.as_ref()?.sealed)));
        let (mut outside, mut inside) = (0, 0);
        for (at, sealed) in frames {
            if at < self.asked || at > self.left + late {
                ensure!(!self.keys.opens(sealed), "a guest opens a frame from outside of its stay");
                outside += 1;
            } else if inside == 0 && self.keys.opens(sealed) {
                inside += 1;
            }
        }
        ensure!(inside > 0 && self.keys.has_one_key_each(), "a guest's keys open nothing of its stay");
        Ok(outside)
    }
}

/// All come; then, one step a second, whoever is out and has rested comes back, or else somebody goes.
fn plans() -> Vec<Plan> {
    let mut plans = vec![vec![(Duration::ZERO, Step::Come)]; EVERYBODY - STAY.len()];
    let mut chance = Chance(SEED);
    for second in 0..SECONDS {
        let at = SETTLING + Duration::from_secs(second);
        let ready = |step: Step| -> Vec<usize> {
            let rested =
                |plan: &Plan| plan.last().is_some_and(|(then, last)| *last != step && at >= *then + REST);
            (0..plans.len()).filter(|guest| rested(&plans[*guest])).collect()
        };
        let (step, ready) = match ready(Step::Come) {
            out if !out.is_empty() => (Step::Come, out),
            _ => (Step::Go, ready(Step::Go)),
        };
        plans[ready[chance.below(ready.len())]].push((at, step));
    }
    plans
}

/// Gives the stays that are over, and the one that is not.
fn follow(
    stage: &Stage,
    guest: &Agent,
    link: &str,
    started: Instant,
    plan: &Plan,
) -> Result<(Vec<Stay>, Option<Present>)> {
    let (mut stays, mut present) = (Vec::new(), None::<Present>);
    for (at, step) in plan {
        thread::sleep((started + *at).saturating_duration_since(Instant::now()));
        match (step, present.take()) {
            (Step::Come, _) => {
                let (asked, began) = (now(), Instant::now());
                guest.join(link)?;
                let took = began.elapsed();
                let keys = Hoarder::start(&guest.socket())?;
                present = Some(Present { asked, took, keys, pipeline: watch(stage, guest, "")? });
            }
            (Step::Go, Some(mut present)) => {
                present.opens_something()?;
                guest.run(&["leave"], "")?;
                stays.push(present.end()?);
            }
            (Step::Go, None) => {}
        }
    }
    Ok((stays, present))
}

/// Accounts for every frame of one sender's stream at one who stayed.
fn account(
    witness: &Witness,
    pipeline: &mut Pipeline,
    (sender, track): (&str, &str),
    (sealed, may_lose): (u64, u64),
) -> Result<()> {
    let name = opener(&(sender, track));
    // The last frames are still on their way.
    let _ = until("the last frame", Duration::from_secs(5), || {
        let last = witness.counters(sender, track).last().copied();
        Ok((last.is_some_and(|last| last + 1 == sealed)).then_some(()))
    });
    let came = witness.counters(sender, track);
    let first = came.first().copied().context("no frame at all")?;
    let lost: Vec<u64> = (first..sealed).filter(|counter| !came.contains(counter)).collect();
    let count = |stats: &Stats, reason: &str| stats.get(&name, reason);
    let refused = |stats: &Stats| REFUSALS.iter().map(|reason| count(stats, reason)).sum::<u64>();
    let arrived = came.len() as u64;
    let settled = |stats: &Stats| count(stats, "opened") + refused(stats).max(may_lose) >= arrived;
    let stats = pipeline.until("all that came to be opened or refused", settled)?;
    let (opened, late) = (count(&stats, "opened"), count(&stats, "no-key"));
    println!(
        "{sender}'s {track}: {sealed} sealed, {first} before it was watched, {} lost, {opened} opened, {late} under a \
         key that was gone",
        lost.len()
    );
    ensure!(first < 100, "{first} frames of {sender}'s {track} were sealed before anybody got one");
    ensure!(
        lost.len() as u64 <= may_lose,
        "{} of {sealed} frames of {sender}'s {track} did not come: {lost:?}",
        lost.len()
    );
    ensure!(opened.abs_diff(arrived) <= may_lose, "{opened} of {arrived} frames opened: {}", stats.0);
    ensure!(refused(&stats) == late, "nothing is wrong with any: {}", stats.0);
    Ok(())
}

/// A pipeline that opens all that the three send, but not what `name` itself sends; Dave's and Erin's decode it.
fn watch(stage: &Stage, agent: &Agent, name: &str) -> Result<Pipeline> {
    let decodes = STAY[SENDERS..].contains(&name);
    // The fake source keeps the pipeline from ending with its last stream.
    let mut description =
        "meetingkey audiotestsrc is-live=true samplesperbuffer=4410 ! fakesink async=false".to_owned();
    for sender in STAY[..SENDERS].iter().filter(|sender| **sender != name) {
        description += &format!(" meetingsrc name=from-{sender} participant={sender}");
        for (track, pad, decoder) in
            [("camera", "video_0", "! h264parse ! avdec_h264"), ("microphone", "audio_0", "! opusdec")]
        {
            let (opener, decoder) = (opener(&(sender, track)), if decodes { decoder } else { "" });
            description += &format!(
                " from-{sender}.{pad} ! queue ! e2eeopen name={opener} {decoder} ! fakesink async=false sync=false"
            );
        }
    }
    stage.pipeline(agent, &description)
}

/// All that somebody can watch.
fn sources(name: &str) -> Vec<(&'static str, &'static str)> {
    let senders = STAY[..SENDERS].iter().copied().filter(|sender| *sender != name);
    senders.flat_map(|sender| ["camera", "microphone"].map(|track| (sender, track))).collect()
}

fn opener((sender, track): &(&str, &str)) -> String {
    format!("{sender}-{track}")
}

fn all<T>(agents: &[Agent], f: impl Fn(&Agent) -> Result<T>) -> Option<Vec<T>> {
    agents.iter().map(|agent| f(agent).ok()).collect()
}

/// The same chances each time (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

const REFUSALS: [&str; 6] = ["no-key", "forged", "replayed", "malformed", "mismatch", "stale"];
const SENDS: &str = "meetingkey meetingsink name=out \
    videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=180,framerate=15/1 \
      ! x264enc tune=zerolatency speed-preset=ultrafast bitrate=200 key-int-max=60 \
      ! e2eeseal name=camera track=camera ! out. \
    audiotestsrc is-live=true samplesperbuffer=960 ! audio/x-raw,rate=48000 ! opusenc \
      ! e2eeseal name=microphone track=microphone ! out.";
/// The first leads, and so many of the first send.
const STAY: [&str; 5] = ["Alice", "Bob", "Carol", "Dave", "Erin"];
const SENDERS: usize = 3;
const EVERYBODY: usize = 20;
const SECONDS: u64 = 60;
/// Until all guests are in for the first time.
const SETTLING: Duration = Duration::from_secs(15);
/// Between two steps of one guest.
const REST: Duration = Duration::from_secs(6);
const SEED: u64 = 0x2545_f491_4f6c_dd1d;

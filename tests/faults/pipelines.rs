//! Pipelines that outlive their agent, and agents that outlive their pipelines.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rig::{Agent, Hoarder, Pipeline, Stage, Stalls, descriptors, resident, until};

use super::{BRANCHES, TALKS, hearing, ids_of, opened, three};

#[test]
fn pipelines_outlive_their_agent() -> Result<()> {
    let (stage, [alice, mut bob, carol], link) = three(0)?;
    let carols = Hoarder::start(&carol.socket())?;
    let mut talks = stage.pipeline(&bob, TALKS)?;
    let _alice_talks = stage.pipeline(&alice, TALKS)?;
    let mut alice_hears = stage.pipeline(&alice, &hearing("Bob"))?;
    let mut bob_hears = stage.pipeline(&bob, &hearing("Alice"))?;
    for hears in [&mut alice_hears, &mut bob_hears] {
        hears.until("a voice", |stats| opened(stats) > 50)?;
    }
    let before = super::ids(&alice)?;

    bob.kill()?;
    bob.restart()?;
    bob.join(&link)?;
    let back = Instant::now();
    alice.until("Bob's new stay in place of the old", |status| {
        let now = ids_of(status);
        now.len() == 3 && now != before
    })?;
    let so_far = (opened(&alice_hears.stats()), opened(&bob_hears.stats()));
    alice_hears.until("Bob's voice again", |stats| opened(stats) > so_far.0 + 100)?;
    bob_hears.until("Alice's voice again", |stats| opened(stats) > so_far.1 + 100)?;
    println!("both heard each other {:?} after Bob's new stay", back.elapsed());
    let so_far = talks.stats().get("seal", "sealed");
    talks.until("Bob seals on", |stats| stats.get("seal", "sealed") > so_far + 50)?;
    all_sealed(&stage, &carols)?;
    stage.check_books().map(drop)
}

#[test]
fn agents_that_are_killed_are_back_within_three_seconds_of_their_start() -> Result<()> {
    crashes(4)
}

#[test]
#[ignore = "takes longer"]
fn agents_that_are_killed_a_hundred_times_are_back_within_three_seconds_of_each_start() -> Result<()> {
    crashes(100)
}

/// Bob's agent and Carol's are killed and started again in turn, under pipelines that stay.
fn crashes(times: usize) -> Result<()> {
    let (stage, [alice, bob, carol], link) = three(0)?;
    let _talks = stage.pipeline(&alice, TALKS)?;
    let mut victims = [Victim::new(&stage, &alice, bob)?, Victim::new(&stage, &alice, carol)?];
    let mut longest = Duration::ZERO;
    for crash in 0..times {
        let took = victims[crash % 2].crash(&stage, &alice, &link)?;
        ensure!(took < BACK, "crash {crash}: it took {took:?}");
        longest = longest.max(took);
    }
    let seals = stage.check_books()?;
    println!("after each of {times} crashes both ends were heard within {longest:?}, {seals} seals");
    Ok(())
}

/// Whose agent is killed: Alice hears them, and they hear Alice.
struct Victim {
    agent: Agent,
    hears: Pipeline,
    heard: Pipeline,
    crashes: usize,
    joined: Instant,
    _talks: Pipeline,
}

impl Victim {
    fn new(stage: &Stage, alice: &Agent, agent: Agent) -> Result<Self> {
        let _talks = stage.pipeline(&agent, TALKS)?;
        let hears = stage.pipeline(&agent, &hearing(alice.name()))?;
        let heard = stage.pipeline(alice, &hearing(agent.name()))?;
        Ok(Self { agent, hears, heard, crashes: 0, joined: Instant::now(), _talks })
    }

    /// Gives how long it took from the new start until both ends were heard, less what the machine stood still meanwhile.
    fn crash(&mut self, stage: &Stage, alice: &Agent, link: &str) -> Result<Duration> {
        // Each stay has a stream of its own, and whoever hears has a branch for so many.
        if self.crashes > 0 && self.crashes.is_multiple_of(BRANCHES - 1) {
            self.hears = stage.pipeline(&self.agent, &hearing(alice.name()))?;
            self.heard = stage.pipeline(alice, &hearing(self.agent.name()))?;
        }
        for hears in [&mut self.hears, &mut self.heard] {
            let so_far = opened(&hears.stats());
            hears.until("a voice", |stats| opened(stats) > so_far)?;
        }
        // Who has come three times in a row waits for its turn.
        if self.crashes >= 2 {
            thread::sleep(TURN.saturating_sub(self.joined.elapsed()));
        }
        self.agent.kill()?;
        let stalls = Stalls::watch();
        let before = [opened(&self.hears.stats()), opened(&self.heard.stats())];
        self.joined = Instant::now();
        self.agent.restart()?;
        self.agent.join(link)?;
        for (hears, before) in [&mut self.hears, &mut self.heard].into_iter().zip(before) {
            // Half a second of it: something may have been on its way when the agent was killed.
            hears.until("a voice again", |stats| opened(stats) > before + 25)?;
        }
        self.crashes += 1;
        let took = self.joined.elapsed();
        Ok(took.saturating_sub(stalls.total()))
    }
}

#[test]
fn a_hundred_pipelines_one_after_another_leave_nothing_behind() -> Result<()> {
    let stage = Stage::with_books()?;
    let (alice, bob) = (stage.agent("Alice")?, stage.agent("Bob")?);
    let link = alice.create(&stage)?;
    bob.join(&link)?;
    let mut hears = stage.pipeline(&bob, &hearing("Alice"))?;
    let pids = [alice.pid(), bob.pid(), stage.relay.pid(), hears.pid()];
    let (mut memory, mut open) = (Vec::new(), [0; 4]);
    for n in 0..PIPELINES {
        let mut talks = stage.pipeline(&alice, TALKS)?;
        talks.until("a sealed frame", |stats| stats.get("seal", "sealed") > 0)?;
        if n < BRANCHES {
            // `hears` has a branch for each of the first streams, which it would need for all.
            let so_far = opened(&hears.stats());
            hears.until("Alice's voice", |stats| opened(stats) > so_far)?;
        }
        // Every other one ends as a crash would end it.
        if n % 2 == 0 {
            talks.finish()?
        } else {
            talks.kill()?
        };
        for agent in [&alice, &bob] {
            agent.until("no streams", |status| status["streams"].as_array().is_some_and(Vec::is_empty))?;
        }
        memory.push(pids.map(|pid| resident(pid).unwrap_or(0)));
        if n == PIPELINES / 5 {
            open = settled(pids)?;
        }
    }
    // A thread of the allocator's may come late, or give back late.
    let (early, late) = (&memory[PIPELINES / 5..][..PIPELINES / 10], &memory[PIPELINES * 9 / 10..]);
    let of = |part: &[[u64; 4]], pick: fn(u64, u64) -> u64| {
        part.iter().copied().reduce(|one, other| std::array::from_fn(|n| pick(one[n], other[n])))
    };
    let (early, late) = (of(early, u64::max), of(late, u64::min));
    let (early, late) = early.zip(late).context("no samples")?;
    println!("Alice, Bob, relay, Bob's pipeline: from {early:?} to {late:?} KiB");
    until("no more open files of Alice, Bob, relay and Bob's pipeline", Duration::from_secs(20), || {
        let now = settled(pids)?;
        println!("open files from {open:?} to {now:?}");
        Ok(now.iter().zip(open).all(|(now, before)| *now <= before).then_some(()))
    })?;
    // The nonce ledger grows with each frame that an agent seals for the board; what is shipped has none.
    for (early, late) in early.iter().zip(late) {
        assert!(late < early + 1_536, "from {early} to {late} KiB within {} pipelines", PIPELINES * 3 / 5);
    }
    drop(hears);
    stage.check_books().map(drop)
}

/// How many files these processes have open, once connections that end have ended: the fewest of a second.
fn settled<const N: usize>(pids: [u32; N]) -> Result<[usize; N]> {
    let (mut fewest, until) = ([usize::MAX; N], Instant::now() + Duration::from_secs(1));
    while Instant::now() < until {
        for (fewest, pid) in fewest.iter_mut().zip(pids) {
            *fewest = descriptors(pid)?.min(*fewest);
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(fewest)
}

/// Every frame that the relay saw opens with a key of this member, who was there all along, or is a beacon.
fn all_sealed(stage: &Stage, member: &Hoarder) -> Result<()> {
    let frames: Vec<_> = stage.relay.seen()?.into_iter().filter_map(|seen| seen.frame).collect();
    let (sealed, beacons): (Vec<_>, Vec<_>) =
        frames.into_iter().map(|frame| frame.sealed).partition(|sealed| member.opens(sealed));
    // A beacon is a post, which begins with the meeting's instance (PROTOCOL.md 3.1).
    let instance = beacons.first().and_then(|beacon| beacon.get(..16));
    assert!(sealed.len() > 300, "only {} frames were recorded", sealed.len());
    assert!(
        beacons.iter().all(|beacon| beacon.get(..16) == instance),
        "something is neither sealed nor a beacon"
    );
    Ok(())
}

const PIPELINES: usize = 100;
/// From an agent's new start to frames that open at both ends.
const BACK: Duration = Duration::from_secs(3);
/// What a stay takes of the turns of its device (PROTOCOL.md 3.2), and a second.
const TURN: Duration = Duration::from_secs(11);

//! What breaks while a meeting runs, and how it heals: programs killed, stopped and started again.
//!
//! Times asserted are the protocol's own (PROTOCOL.md 3.6 and 3.8); times measured are printed with `--nocapture`.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rig::{Agent, Stage, Stats, until};
use rustix::process::Signal;
use serde_json::Value;

#[path = "faults/leaders.rs"]
mod leaders;
#[path = "faults/messages.rs"]
mod messages;

#[test]
fn a_successor_leads_after_the_leaders_agent_was_killed() -> Result<()> {
    let stage = Stage::with_books()?;
    let (mut alice, bob, carol) = (stage.agent("Alice")?, stage.agent("Bob")?, stage.agent("Carol")?);
    let (relay, certificate) = (stage.relay.address.to_string(), &stage.relay.certificate);
    let link = alice.create_at(&relay, certificate, &["--successors", "2"])?;
    bob.join(&link)?;
    carol.join(&link)?;
    for agent in [&bob, &carol] {
        agent.until("two successors", |status| {
            people(status).iter().filter(|person| person["successor"].is_u64()).count() == 2
        })?;
    }
    let mut talks = stage.pipeline(&bob, TALKS)?;
    let mut hears = stage.pipeline(&carol, &hearing("Bob"))?;
    hears.until("Bob's voice", |stats| opened(stats) > 50)?;
    let code = bob.code()?;
    assert_eq!(code, carol.code()?);

    let killed = Instant::now();
    alice.kill()?;
    let leads = |agent: &Agent| Ok::<_, anyhow::Error>(agent.status()?["leading"] == true);
    until("a new leader", Duration::from_secs(30), || Ok((leads(&bob)? || leads(&carol)?).then_some(())))?;
    let took = killed.elapsed();
    let new_code = until("one new code", Duration::from_secs(10), || {
        let (b, c) = (bob.code()?, carol.code()?);
        Ok((b == c && b != code).then_some(b))
    })?;
    let so_far = opened(&hears.stats());
    hears.until("Bob's voice under the new leader", |stats| opened(stats) > so_far + 100)?;
    println!("a successor led {took:?} after the kill, heard again by {:?}", killed.elapsed());
    assert!(took < Duration::from_secs(10), "a successor led only after {took:?}");
    assert!(leads(&bob)? != leads(&carol)?, "one of them leads");
    assert_eq!((bob.code()?, carol.code()?), (new_code.clone(), new_code));
    let so_far = talks.stats().get("seal", "sealed");
    talks.until("Bob seals on", |stats| stats.get("seal", "sealed") > so_far + 50)?;

    // The creator comes back by its own link, and follows.
    alice.restart()?;
    alice.join(&link)?;
    assert_eq!(alice.status()?["leading"], false, "there is a leader already");
    assert_eq!(alice.code()?, bob.code()?);
    stage.check_books().map(drop)
}

#[test]
fn a_relay_that_comes_back_finds_the_same_meeting() -> Result<()> {
    let (mut stage, [alice, bob, carol], _) = three()?;
    let _talks = stage.pipeline(&bob, TALKS)?;
    let mut hears = stage.pipeline(&carol, &hearing("Bob"))?;
    hears.until("Bob's voice", |stats| opened(stats) > 50)?;
    let before = (alice.code()?, ids(&alice)?);
    assert_eq!(before.1.len(), 3);

    stage.relay.kill()?;
    thread::sleep(Duration::from_secs(3));
    let so_far = opened(&hears.stats());
    stage.relay.restart()?;
    let back = Instant::now();
    hears.until("Bob's voice by the new relay", |stats| opened(stats) > so_far + 25)?;
    let took = back.elapsed();
    println!("media was back {took:?} after the relay");
    for agent in [&alice, &bob, &carol] {
        agent.until("the connection", |status| status["connected"] == true && status["phase"] == "live")?;
        assert_eq!((agent.code()?, ids(agent)?), before, "{}", agent.name());
    }
    assert!(took < Duration::from_secs(5), "media was back only after {took:?}");
    stage.check_books().map(drop)
}

#[test]
fn without_a_relay_sealing_stops_and_resumes_by_itself() -> Result<()> {
    let (mut stage, [alice, bob, carol], _) = three()?;
    let mut talks = stage.pipeline(&bob, TALKS)?;
    let mut hears = stage.pipeline(&carol, &hearing("Bob"))?;
    hears.until("Bob's voice", |stats| opened(stats) > 50)?;

    stage.relay.kill()?;
    let killed = Instant::now();
    let stale = talks.until("the end of the lease", |stats| stats.get("seal", "dropped-stale") > 0)?;
    let took = killed.elapsed();
    println!("sealing stopped {took:?} after the relay");
    // The leader's last word may be one heartbeat old, and is good for 8 s.
    assert!((3.0..11.0).contains(&took.as_secs_f64()), "sealing stopped after {took:?}");
    let dropped = stale.get("seal", "dropped-stale") + 50;
    let later = talks.until("a second of silence", |stats| stats.get("seal", "dropped-stale") >= dropped)?;
    assert_eq!(later.get("seal", "sealed"), stale.get("seal", "sealed"), "nothing is sealed without a lease");
    thread::sleep(Duration::from_secs(12).saturating_sub(killed.elapsed()));

    let so_far = opened(&hears.stats());
    stage.relay.restart()?;
    let back = Instant::now();
    hears.until("Bob's voice by the new relay", |stats| opened(stats) > so_far + 25)?;
    println!("media was back {:?} after the relay", back.elapsed());
    assert!(back.elapsed() < Duration::from_secs(15), "media was back only after {:?}", back.elapsed());
    let code = alice.code()?;
    for agent in [&alice, &bob, &carol] {
        agent.until("everybody", |status| people(status).len() == 3 && status["phase"] == "live")?;
        assert_eq!(agent.code()?, code, "{}", agent.name());
    }
    stage.check_books().map(drop)
}

#[test]
fn pipelines_outlive_their_agent() -> Result<()> {
    let stage = Stage::with_books()?;
    let (alice, mut bob) = (stage.agent("Alice")?, stage.agent("Bob")?);
    let link = alice.create(&stage)?;
    bob.join(&link)?;
    let mut talks = stage.pipeline(&bob, TALKS)?;
    let _alice_talks = stage.pipeline(&alice, TALKS)?;
    let mut alice_hears = stage.pipeline(&alice, &hearing("Bob"))?;
    let mut bob_hears = stage.pipeline(&bob, &hearing("Alice"))?;
    for hears in [&mut alice_hears, &mut bob_hears] {
        hears.until("a voice", |stats| opened(stats) > 50)?;
    }
    let before = ids(&alice)?;

    bob.kill()?;
    bob.restart()?;
    bob.join(&link)?;
    let back = Instant::now();
    alice.until("Bob's new stay in place of the old", |status| {
        let now = ids_of(status);
        now.len() == 2 && now != before
    })?;
    let so_far = (opened(&alice_hears.stats()), opened(&bob_hears.stats()));
    alice_hears.until("Bob's voice again", |stats| opened(stats) > so_far.0 + 100)?;
    bob_hears.until("Alice's voice again", |stats| opened(stats) > so_far.1 + 100)?;
    println!("both heard each other {:?} after Bob's new stay", back.elapsed());
    let so_far = talks.stats().get("seal", "sealed");
    talks.until("Bob seals on", |stats| stats.get("seal", "sealed") > so_far + 50)?;
    stage.check_books().map(drop)
}

#[test]
fn an_agent_that_sleeps_stops_its_elements() -> Result<()> {
    let stage = Stage::with_books()?;
    let (alice, bob) = (stage.agent("Alice")?, stage.agent("Bob")?);
    let link = alice.create(&stage)?;
    bob.join(&link)?;
    let mut talks = stage.pipeline(&bob, TALKS)?;
    let mut hears = stage.pipeline(&alice, &hearing("Bob"))?;
    hears.until("Bob's voice", |stats| opened(stats) > 50)?;

    bob.signal(Signal::STOP)?;
    let stopped = Instant::now();
    talks.until("the end of the lease", |stats| stats.get("seal", "dropped-stale") > 50)?;
    println!("sealing stopped {:?} after the agent", stopped.elapsed());
    assert!(stopped.elapsed() < Duration::from_secs(11), "sealing stopped after {:?}", stopped.elapsed());
    thread::sleep(Duration::from_secs(12).saturating_sub(stopped.elapsed()));
    let so_far = opened(&hears.stats());
    bob.signal(Signal::CONT)?;
    let awake = Instant::now();
    hears.until("Bob's voice again", |stats| opened(stats) > so_far + 50)?;
    println!("Bob was heard again {:?} after waking up", awake.elapsed());
    stage.check_books().map(drop)
}

#[test]
fn twenty_pipelines_one_after_another_leave_nothing_behind() -> Result<()> {
    let stage = Stage::with_books()?;
    let (alice, bob) = (stage.agent("Alice")?, stage.agent("Bob")?);
    let link = alice.create(&stage)?;
    bob.join(&link)?;
    let mut hears = stage.pipeline(&bob, &hearing("Alice"))?;
    let mut memory = Vec::new();
    for n in 0..20 {
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
        memory.push(resident(alice.pid())?);
    }
    println!("resident KiB after each pipeline: {memory:?}");
    let (early, late) = (memory[4], memory[19]);
    assert!(late < early + 8 * 1024, "from {early} to {late} KiB within 15 pipelines");
    drop(hears);
    stage.check_books().map(drop)
}

const TALKS: &str = "meetingkey audiotestsrc is-live=true samplesperbuffer=960 ! audio/x-raw,rate=48000 ! opusenc \
    ! e2eeseal name=seal track=microphone ! meetingsink";

/// Streams of one person that are heard, one after another: a stream that begins anew has a pad of its own.
const BRANCHES: usize = 6;

fn hearing(whom: &str) -> String {
    let branch = |n| format!(" in.audio_{n} ! e2eeopen name=open-{n} ! fakesink async=false sync=false");
    let branches: String = (0..BRANCHES).map(branch).collect();
    // The fake source keeps the pipeline from ending when all streams that there were have ended.
    format!(
        "meetingkey meetingsrc name=in participant={whom} audiotestsrc is-live=true ! fakesink async=false{branches}"
    )
}

/// Frames opened in all branches.
fn opened(stats: &Stats) -> u64 {
    (0..BRANCHES).map(|n| stats.get(&format!("open-{n}"), "opened")).sum()
}

/// Alice, who leads, Bob and Carol.
fn three() -> Result<(Stage, [Agent; 3], String)> {
    let stage = Stage::with_books()?;
    let (alice, bob, carol) = (stage.agent("Alice")?, stage.agent("Bob")?, stage.agent("Carol")?);
    let link = alice.create(&stage)?;
    bob.join(&link)?;
    carol.join(&link)?;
    bob.until("Carol", |status| people(status).len() == 3)?;
    Ok((stage, [alice, bob, carol], link))
}

fn people(status: &Value) -> Vec<Value> {
    status["people"].as_array().cloned().unwrap_or_default()
}

fn ids_of(status: &Value) -> Vec<String> {
    let mut ids: Vec<String> = people(status).iter().map(|person| person["id"].to_string()).collect();
    ids.sort();
    ids
}

fn ids(agent: &Agent) -> Result<Vec<String>> {
    Ok(ids_of(&agent.status()?))
}

/// Resident memory of a process in KiB.
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

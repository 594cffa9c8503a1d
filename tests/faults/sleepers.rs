//! Programs that are stopped (SIGSTOP) for a while and go on, as in a suspended machine or a debugger.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use meeting_protocol::frame::Header;
use rig::{Stage, Stalls, Stats, now, resident};
use rustix::{
    process::Signal,
    time::{ClockId, clock_gettime},
};

use super::{TALKS, epoch, hearing, ids, one_meeting, opened, three};

#[test]
fn an_agent_that_sleeps_stops_its_elements() -> Result<()> {
    let stage = Stage::with_books()?;
    let (alice, bob) = (stage.agent("Alice")?, stage.agent("Bob")?);
    let link = alice.create(&stage)?;
    bob.join(&link)?;
    let mut talks = stage.pipeline(&bob, TALKS)?;
    let mut hears = stage.pipeline(&alice, &hearing("Bob"))?;
    hears.until("Bob's voice", |stats| opened(stats) > 50)?;

    let dropped = |stats: &Stats| stats.get("seal", "dropped-stale");
    let stalls = Stalls::watch();
    bob.signal(Signal::STOP)?;
    let (stopped, so_far) = (Instant::now(), dropped(&talks.stats()));
    talks.until("the end of the lease", |stats| dropped(stats) > so_far)?;
    let took = stopped.elapsed();
    println!("sealing stopped {took:?} after the agent");
    // Eight seconds, and one for the pipeline to write down what it counts.
    assert!(took < Duration::from_secs(9) + stalls.total(), "sealing stopped after {took:?}");
    talks.until("a second without sealing", |stats| dropped(stats) > so_far + 50)?;
    thread::sleep(Duration::from_secs(12).saturating_sub(stopped.elapsed()));
    let so_far = opened(&hears.stats());
    bob.signal(Signal::CONT)?;
    let awake = Instant::now();
    hears.until("Bob's voice again", |stats| opened(stats) > so_far + 50)?;
    println!("Bob was heard again {:?} after waking up", awake.elapsed());
    stage.check_books().map(drop)
}

#[test]
fn a_leader_that_sleeps_without_successors_wakes_up_leading() -> Result<()> {
    let (stage, [alice, bob, carol], _) = three(0)?;
    let mut talks = stage.pipeline(&bob, TALKS)?;
    let mut hears = stage.pipeline(&carol, &hearing("Bob"))?;
    hears.until("Bob's voice", |stats| opened(stats) > 50)?;
    let before = (bob.code()?, ids(&bob)?);

    alice.signal(Signal::STOP)?;
    let stale = talks.until("the end of the lease", |stats| stats.get("seal", "dropped-stale") > 50)?;
    assert_eq!(
        talks.stats().get("seal", "sealed"),
        stale.get("seal", "sealed"),
        "nothing is sealed without a lease"
    );
    let so_far = opened(&hears.stats());
    alice.signal(Signal::CONT)?;
    let awake = Instant::now();
    hears.until("Bob's voice again", |stats| opened(stats) > so_far + 50)?;
    println!("Bob was heard again {:?} after the leader woke up", awake.elapsed());
    one_meeting(&[&alice, &bob, &carol], 3)?;
    assert_eq!(alice.status()?["leading"], true);
    assert_eq!((bob.code()?, ids(&bob)?), before);
    stage.check_books().map(drop)
}

#[test]
fn a_publisher_that_sleeps_goes_on_under_the_newest_key() -> Result<()> {
    let (stage, [alice, bob, carol], _) = three(0)?;
    let mut talks = stage.pipeline(&bob, TALKS)?;
    let _others = stage.pipeline(&alice, TALKS)?;
    let mut hears = stage.pipeline(&carol, &hearing("Bob"))?;
    let mut hears_alice = stage.pipeline(&carol, &hearing("Alice"))?;
    hears.until("Bob's voice", |stats| opened(stats) > 50)?;
    hears_alice.until("Alice's voice", |stats| opened(stats) > 50)?;

    talks.signal(Signal::STOP)?;
    // As envelopes have it: what was captured before may have been on its way from the element to the agent.
    let captured = clock_gettime(ClockId::Monotonic);
    let captured = captured.tv_sec as u64 * 1_000_000_000 + captured.tv_nsec as u64;
    let stopped = Instant::now();
    let so_far = opened(&hears_alice.stats());
    for _ in 0..2 {
        let last = epoch(&alice)?;
        alice.run(&["rotate"], "")?;
        carol.until("the next epoch", |status| status["epoch"] == last + 1)?;
    }
    // Longer than any lease: the elements know nothing of the new keys when they wake up.
    thread::sleep(Duration::from_secs(9).saturating_sub(stopped.elapsed()));
    hears_alice.until("Alice's voice meanwhile", |stats| opened(stats) > so_far + 300)?;
    let (so_far, newest) = (opened(&hears.stats()), epoch(&alice)?);
    let woken = now();
    talks.signal(Signal::CONT)?;
    let awake = Instant::now();
    hears.until("Bob's voice again", |stats| opened(stats) > so_far + 50)?;
    println!("Bob was heard again {:?} after waking up", awake.elapsed());
    talks.until("the newest key", |stats| stats.get("seal", "epoch") == newest)?;
    let mut under_old_keys = 0;
    for frame in stage.relay.seen()?.into_iter().filter(|seen| seen.at >= woken).filter_map(|seen| seen.frame)
    {
        // A frame names its epoch in its key id. Beacons are no sealed frames, and have no time.
        if let Some((header, _)) = Header::parse(&frame.sealed).filter(|(header, _)| header.kid >> 24 == 1) {
            let since = frame.pts.is_some_and(|pts| pts > captured);
            under_old_keys += usize::from(since && header.kid & 0xff != newest & 0xff);
        }
    }
    // One for the clocks.
    assert!(under_old_keys <= 1, "{under_old_keys} frames under old keys");
    stage.check_books().map(drop)
}

#[test]
fn a_watcher_that_sleeps_costs_nobody_else() -> Result<()> {
    let (stage, [alice, bob, carol], _) = three(0)?;
    let _talks = stage.pipeline(&alice, TALKS)?;
    let mut sleeps = stage.pipeline(&bob, &hearing("Alice"))?;
    let mut beside = stage.pipeline(&bob, &hearing("Alice"))?;
    let mut hears = stage.pipeline(&carol, &hearing("Alice"))?;
    for pipeline in [&mut sleeps, &mut beside, &mut hears] {
        pipeline.until("Alice's voice", |stats| opened(stats) > 50)?;
    }
    let memory = resident(bob.pid())?;

    sleeps.signal(Signal::STOP)?;
    let stopped = Instant::now();
    let so_far = [opened(&sleeps.stats()), opened(&beside.stats()), opened(&hears.stats())];
    let last = epoch(&alice)?;
    alice.run(&["rotate"], "")?;
    bob.until("the next epoch", |status| status["epoch"] == last + 1)?;
    // More than fits into its queue and socket.
    thread::sleep(Duration::from_secs(15).saturating_sub(stopped.elapsed()));
    beside.until("Alice's voice beside the sleeper", |stats| opened(stats) > so_far[1] + 600)?;
    hears.until("Alice's voice at Carol's", |stats| opened(stats) > so_far[2] + 600)?;
    let grown = resident(bob.pid())?.saturating_sub(memory);
    assert!(grown < 4 * 1024, "Bob's agent grew by {grown} KiB");
    sleeps.signal(Signal::CONT)?;
    let awake = Instant::now();
    let caught_up = opened(&sleeps.stats());
    sleeps.until("Alice's voice again", |stats| opened(stats) > caught_up + 100)?;
    println!("Alice was heard again {:?} after waking up", awake.elapsed());
    one_meeting(&[&alice, &bob, &carol], 3)?;
    stage.check_books().map(drop)
}

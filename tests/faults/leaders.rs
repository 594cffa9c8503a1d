//! Leaders that come back: after a sleep, after a crash.

use std::time::{Duration, Instant};

use anyhow::Result;
use rig::{Stage, until};
use rustix::process::Signal;

use super::{TALKS, hearing, opened, people};

#[test]
fn a_leader_that_was_asleep_comes_back_as_a_member() -> Result<()> {
    let stage = Stage::with_books()?;
    let (alice, bob, carol) = (stage.agent("Alice")?, stage.agent("Bob")?, stage.agent("Carol")?);
    let (relay, certificate) = (stage.relay.address.to_string(), &stage.relay.certificate);
    let link = alice.create_at(&relay, certificate, &["--successors", "2"])?;
    bob.join(&link)?;
    carol.join(&link)?;
    let mut talks = stage.pipeline(&alice, TALKS)?;
    let mut hears = stage.pipeline(&bob, &hearing("Alice"))?;
    hears.until("Alice's voice", |stats| opened(stats) > 50)?;

    alice.signal(Signal::STOP)?;
    until("a new leader", Duration::from_secs(30), || {
        let leads = |agent: &rig::Agent| Ok::<_, anyhow::Error>(agent.status()?["leading"] == true);
        Ok((leads(&bob)? || leads(&carol)?).then_some(()))
    })?;
    talks.until("the end of the lease", |stats| stats.get("seal", "dropped-stale") > 0)?;
    let so_far = opened(&hears.stats());
    alice.signal(Signal::CONT)?;
    let awake = Instant::now();
    hears.until("Alice's voice again", |stats| opened(stats) > so_far + 50)?;
    println!("the former leader was heard again {:?} after waking up", awake.elapsed());
    for agent in [&alice, &bob, &carol] {
        agent.until("everybody and one leader", |status| {
            let leaders = people(status).iter().filter(|person| person["leader"] == true).count();
            people(status).len() == 3 && leaders == 1 && status["phase"] == "live"
        })?;
    }
    assert_eq!(alice.status()?["leading"], false, "leaders do not come back as leaders");
    let code = bob.code()?;
    assert_eq!((alice.code()?, carol.code()?), (code.clone(), code));
    stage.check_books().map(drop)
}

#[test]
fn a_creator_whose_agent_crashed_leads_again_if_nobody_does() -> Result<()> {
    let mut stage = Stage::with_books()?;
    let (mut alice, bob) = (stage.agent("Alice")?, stage.agent("Bob")?);
    let link = alice.create(&stage)?;
    let mut talks = stage.pipeline(&alice, TALKS)?;
    talks.until("a sealed frame", |stats| stats.get("seal", "sealed") > 0)?;
    let code = alice.code()?;
    alice.kill()?;
    stage.relay.kill()?;
    alice.restart()?;
    // Without a relay nobody can be heard, so that nobody is heard says nothing.
    let alone = alice.run(&["join", "-", "--wait", "7"], &link).map_err(|error| error.to_string());
    assert!(alone.as_ref().is_err_and(|said| said.contains("does not answer")), "{alone:?}");
    assert_eq!(alice.status()?["leading"], false);
    stage.relay.restart()?;
    let back = Instant::now();
    alice.until("the creator to lead again", |status| status["leading"] == true)?;
    println!("the creator led again {:?} after the relay was back", back.elapsed());
    assert_ne!(alice.code()?, code, "another run of the meeting");
    bob.join(&link)?;
    assert_eq!(alice.code()?, bob.code()?);
    let mut hears = stage.pipeline(&bob, &hearing("Alice"))?;
    hears.until("Alice's voice from the pipeline of before", |stats| opened(stats) > 50)?;
    stage.check_books().map(drop)
}

#[test]
#[ignore = "takes over two minutes: `cargo test -p meeting-tests --features ledger --test faults -- --ignored`"]
fn who_hears_no_leader_for_two_minutes_asks_for_a_place_again() -> Result<()> {
    let stage = Stage::with_books()?;
    let (mut alice, bob) = (stage.agent("Alice")?, stage.agent("Bob")?);
    let link = alice.create(&stage)?;
    bob.join(&link)?;
    let _talks = stage.pipeline(&bob, TALKS)?;
    alice.kill()?;
    alice.restart()?;
    alice.join(&link)?;
    let leads = Instant::now();
    let mut hears = stage.pipeline(&alice, &hearing("Bob"))?;
    until("Bob in the new run of the meeting", Duration::from_secs(150), || {
        // In between there is no code.
        Ok((bob.code().ok() == alice.code().ok()).then_some(()))
    })?;
    println!("Bob followed {:?} after the creator led again", leads.elapsed());
    hears.until("Bob's voice from the pipeline of before", |stats| opened(stats) > 50)?;
    stage.check_books().map(drop)
}

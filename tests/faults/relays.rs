//! A relay that goes and comes back.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use rig::{Hoarder, Pipeline, Stage, Stalls, Stats};
use rustix::process::Signal;

use super::{TALKS, epoch, hearing, ids, leads, one_meeting, opened, three};

#[test]
fn a_relay_that_was_gone_for_five_seconds_finds_the_same_meeting() -> Result<()> {
    for round in 0..ROUNDS {
        let (mut stage, agents, _) = three(0)?;
        let mut media = Media::start(&stage, &agents)?;
        let before = (agents[0].code()?, ids(&agents[0])?);
        stage.relay.kill()?;
        thread::sleep(Duration::from_secs(5));
        stage.relay.restart()?;
        media.back(&format!("the relay, round {round}"))?;
        for agent in &agents {
            agent
                .until("the connection", |status| status["connected"] == true && status["phase"] == "live")?;
            assert_eq!((agent.code()?, ids(agent)?), before, "{}", agent.name());
        }
        stage.check_books()?;
    }
    Ok(())
}

#[test]
fn a_relay_that_was_asleep_is_given_up_and_called_anew() -> Result<()> {
    let (stage, agents, _) = three(0)?;
    let mut media = Media::start(&stage, &agents)?;
    let before = (agents[0].code()?, ids(&agents[0])?);
    stage.relay.signal(Signal::STOP)?;
    let stopped = Instant::now();
    for agent in &agents {
        agent.until("the end of the connection", |status| status["connected"] == false)?;
    }
    println!("the relay's silence was noticed after {:?}", stopped.elapsed());
    assert!(stopped.elapsed() < Duration::from_secs(6), "noticed only after {:?}", stopped.elapsed());
    thread::sleep(Duration::from_secs(7).saturating_sub(stopped.elapsed()));
    stage.relay.signal(Signal::CONT)?;
    media.back("the relay woke up")?;
    for agent in &agents {
        agent.until("the connection", |status| status["connected"] == true && status["phase"] == "live")?;
        assert_eq!((agent.code()?, ids(agent)?), before, "{}", agent.name());
    }
    stage.check_books().map(drop)
}

#[test]
fn a_minute_without_a_relay_stops_all_sealing_and_ends_in_one_meeting() -> Result<()> {
    let (mut stage, agents, _) = three(2)?;
    let [alice, bob, carol] = &agents;
    let mut talks = stage.pipeline(bob, TALKS)?;
    let mut hears = stage.pipeline(carol, &hearing("Bob"))?;
    hears.until("Bob's voice", |stats| opened(stats) > 50)?;
    let carols = Hoarder::start(&carol.socket())?;
    let before = epoch(alice)?;

    stage.relay.kill()?;
    let (killed, at_kill) = (Instant::now(), talks.stats());
    let dropped = |stats: &Stats| stats.get("seal", "dropped-stale");
    let stale = talks.until("the end of the lease", |stats| dropped(stats) > dropped(&at_kill))?;
    println!("sealing stopped {:?} after the relay", killed.elapsed());
    // Statistics are a moment old, 50 frames a second are sealed, and a late one may be caught up.
    let sealed = stale.get("seal", "sealed") - at_kill.get("seal", "sealed");
    assert!(sealed <= 8 * 50 + 30, "{sealed} frames were sealed after the relay had gone");
    thread::sleep(Duration::from_secs(60).saturating_sub(killed.elapsed()));
    let later = talks.stats();
    assert_eq!(later.get("seal", "sealed"), stale.get("seal", "sealed"), "nothing is sealed without a lease");
    assert!(later.get("seal", "dropped-stale") > 40 * 50, "{}", later.0);
    assert!(!leads(bob)? && !leads(carol)?, "who is cut off takes nothing over");

    let so_far = opened(&hears.stats());
    stage.relay.restart()?;
    let back = Instant::now();
    hears.until("Bob's voice by the new relay", |stats| opened(stats) > so_far + 25)?;
    println!("media was back {:?} after the relay", back.elapsed());
    let everybody = [alice, bob, carol];
    one_meeting(&everybody, 3)?;
    let leading: Vec<_> =
        everybody.into_iter().filter(|agent| leads(agent).is_ok_and(|leads| leads)).collect();
    assert_eq!(leading.len(), 1, "one of them leads");
    let after = epoch(leading[0])?;
    assert!(after >= before, "from epoch {before} to {after}");
    leading[0].run(&["rotate"], "")?;
    for agent in everybody {
        agent.until("the next epoch", |status| status["epoch"] == after + 1)?;
    }
    let so_far = opened(&hears.stats());
    hears.until("Bob's voice under the next key", |stats| opened(stats) > so_far + 25)?;
    assert!(
        carols.epochs().len() >= 2 && carols.has_one_key_each(),
        "an epoch came twice: {:?}",
        carols.epochs()
    );
    stage.check_books().map(drop)
}

/// Bob's voice and picture at Carol's. His encoder makes a keyframe every 20 s, or when it is asked to.
struct Media {
    hears: Pipeline,
    sees: Pipeline,
    _out: Pipeline,
}

impl Media {
    fn start(stage: &Stage, [_, bob, carol]: &[rig::Agent; 3]) -> Result<Self> {
        let out = stage.pipeline(
            bob,
            "meetingkey meetingsink name=out \
             videotestsrc is-live=true ! video/x-raw,width=160,height=90,framerate=15/1 \
               ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=300 ! e2eeseal track=camera ! out. \
             audiotestsrc is-live=true samplesperbuffer=960 ! audio/x-raw,rate=48000 ! opusenc \
               ! e2eeseal track=microphone ! out.",
        )?;
        let mut media = Self {
            hears: stage.pipeline(carol, &hearing("Bob"))?,
            sees: stage.pipeline(
                carol,
                "meetingkey meetingsrc name=in participant=Bob track=camera in.video_0 ! queue \
                 ! e2eeopen name=open-0 ! h264parse ! avdec_h264 ! fakesink async=false sync=false",
            )?,
            _out: out,
        };
        media.hears.until("Bob's voice", |stats| opened(stats) > 50)?;
        media.sees.until("Bob's picture", |stats| opened(stats) > 15)?;
        Ok(media)
    }

    /// Both are there again within 3 s from now.
    fn back(&mut self, since: &str) -> Result<()> {
        let (back, stalls) = (Instant::now(), Stalls::watch());
        let so_far = (opened(&self.hears.stats()), opened(&self.sees.stats()));
        self.hears.until("Bob's voice again", |stats| opened(stats) > so_far.0)?;
        let voice = back.elapsed();
        self.sees.until("Bob's picture again", |stats| opened(stats) > so_far.1)?;
        println!("voice was back {voice:?}, picture {:?} after {since}", back.elapsed());
        // Statistics are a moment old.
        let (took, bound) = (back.elapsed(), Duration::from_millis(3_500) + stalls.total());
        assert!(took < bound, "media was back only {took:?} after {since}");
        Ok(())
    }
}

/// When a relay comes back is chance within the pauses of those who call it.
const ROUNDS: usize = 2;

//! Who was not yet, or is no longer, in a meeting opens nothing of it.

use std::time::Duration;

use anyhow::Result;
use rig::{Agent, Hoarder, Pipeline, Seen, Stage, Stalls, now, until};

#[test]
fn a_newcomer_cannot_open_what_was_recorded_before_the_join() -> Result<()> {
    let Meeting { stage, alice, link, mut talks } = Meeting::open()?;
    talks.until("some frames before", |stats| stats.get("seal", "sealed") > 50)?;
    let bob = stage.agent("Bob")?;
    let asked = now();
    bob.join(&link)?;
    let bobs = Hoarder::start(&bob.socket())?;
    bobs.until_it_has_keys()?;
    let seen = until("frames that Bob opens", Duration::from_secs(20), || {
        let seen = stage.relay.seen()?;
        Ok((opened(&bobs, &seen, asked, u64::MAX).opened > 20).then_some(seen))
    })?;
    let before = opened(&bobs, &seen, 0, asked);
    assert!(before.frames > 20, "only {} frames were recorded before the join", before.frames);
    assert_eq!(before.opened, 0, "of {} frames from before", before.frames);
    drop((alice, talks));
    Ok(())
}

#[test]
fn a_leaver_cannot_open_what_is_sealed_one_second_later() -> Result<()> {
    gone_means_gone(|_, bob| bob.run(&["leave"], "").map(drop))
}

#[test]
fn a_removed_member_cannot_open_what_is_sealed_one_second_later() -> Result<()> {
    gone_means_gone(|alice, _| alice.run(&["remove", "Bob"], "").map(drop))
}

fn gone_means_gone(go: impl Fn(&Agent, &Agent) -> Result<()>) -> Result<()> {
    let Meeting { stage, alice, link, talks: _talks } = Meeting::open()?;
    let bob = stage.agent("Bob")?;
    bob.join(&link)?;
    let bobs = Hoarder::start(&bob.socket())?;
    bobs.until_it_has_keys()?;
    until("frames that Bob opens", Duration::from_secs(20), || {
        let stay = opened(&bobs, &stage.relay.seen()?, 0, u64::MAX);
        Ok((stay.opened > 20).then_some(()))
    })?;
    let stalls = Stalls::watch();
    go(&alice, &bob)?;
    let gone = now();
    // A machine that stands still shuts nobody out meanwhile.
    let after = until("frames after Bob", Duration::from_secs(20), || {
        let late = gone + 1_000 + stalls.total().as_millis() as u64;
        let after = opened(&bobs, &stage.relay.seen()?, late, u64::MAX);
        Ok((after.frames > 100).then_some(after))
    })?;
    assert_eq!(after.opened, 0, "of {} frames from 1 s after", after.frames);
    assert!(!bobs.finds_a_key_in(&stage.relay.view()?), "a key stands in what the relay saw");
    Ok(())
}

/// Alice alone in a meeting, talking: 50 frames a second.
struct Meeting {
    stage: Stage,
    alice: Agent,
    link: String,
    talks: Pipeline,
}

impl Meeting {
    fn open() -> Result<Self> {
        let stage = Stage::open()?;
        let alice = stage.agent("Alice")?;
        let link = alice.create(&stage)?;
        let talks = stage.pipeline(
            &alice,
            "meetingkey audiotestsrc is-live=true samplesperbuffer=960 ! audio/x-raw,rate=48000 ! opusenc \
             ! e2eeseal name=seal track=microphone ! meetingsink",
        )?;
        Ok(Self { stage, alice, link, talks })
    }
}

struct Count {
    frames: usize,
    opened: usize,
}

/// How many of the frames that the relay saw in a span of time the hoarder opens.
fn opened(hoarder: &Hoarder, seen: &[Seen], from: u64, to: u64) -> Count {
    let frames =
        || seen.iter().filter(|seen| from <= seen.at && seen.at < to).filter_map(|seen| seen.frame.as_ref());
    Count { frames: frames().count(), opened: frames().filter(|frame| hoarder.opens(&frame.sealed)).count() }
}

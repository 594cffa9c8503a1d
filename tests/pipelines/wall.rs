//! `pipelines/watch-wall` and `listen`: everybody in one window and one voice.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rig::{EvilRelay, Fate, Stage, media, screen::Place, until};

use super::{Script, WHOLE, coloured, two};

const LEFT: Place = Place { left: 0, top: 24, width: 80, height: 42 };
const RIGHT: Place = Place { left: 80, ..LEFT };
const RED: [u8; 3] = [255, 0, 0];
const BLUE: [u8; 3] = [0, 0, 255];
const AMBER: [u8; 3] = [0xd9, 0x8a, 0x00];
const FORGED: [u8; 3] = [0xd2, 0x3b, 0x2e];
/// Where the shield is; its padlock and its edge have the rest.
const SHIELD: Place = Place { left: 6, top: 5, width: 6, height: 8 };

#[test]
fn all_pictures_stand_side_by_side_and_all_voices_sound_together() -> Result<()> {
    let stage = Stage::open()?;
    let [alice, bob, carol] = [stage.agent("Alice")?, stage.agent("Bob")?, stage.agent("Carol")?];
    let link = alice.create(&stage)?;
    bob.join(&link)?;
    carol.join(&link)?;
    let mut wall = Script::start(&stage, Some(&carol), &["watch-wall", "--shield"], 440)?;
    let publish = |agent, colour, pitch| {
        let camera = coloured(colour);
        Script::start_with(&stage, Some(agent), &["publish-camera"], pitch, &[("CAMERA", &camera)])
    };
    let alices = publish(&alice, "red", 440)?;
    wall.shows_colours(&[(WHOLE, RED, 0.9), (SHIELD, AMBER, 0.2)])?;
    let _bobs = publish(&bob, "blue", 660)?;
    wall.shows_colours(&[(LEFT, RED, 0.9), (RIGHT, BLUE, 0.9)])?;
    plays_both(&wall)?;
    drop(alices);
    wall.shows_colours(&[(WHOLE, BLUE, 0.9)])
}

#[test]
fn all_voices_sound_together_without_pictures() -> Result<()> {
    let stage = Stage::open()?;
    let [alice, bob, carol] = [stage.agent("Alice")?, stage.agent("Bob")?, stage.agent("Carol")?];
    let link = alice.create(&stage)?;
    bob.join(&link)?;
    carol.join(&link)?;
    let listen = Script::start(&stage, Some(&carol), &["listen"], 440)?;
    let _alices = Script::start(&stage, Some(&alice), &["publish-camera"], 440)?;
    let _bobs = Script::start(&stage, Some(&bob), &["publish-camera"], 660)?;
    plays_both(&listen)?;
    ensure!(!listen.folder.join("screen").exists(), "no picture is shown");
    Ok(())
}

#[test]
fn the_shield_stays_red_when_a_forged_stream_ends() -> Result<()> {
    let stage = Stage::open()?;
    let [alice, bob, carol] = [stage.agent("Alice")?, stage.agent("Bob")?, stage.agent("Carol")?];
    let link = alice.create(&stage)?;
    let evil = EvilRelay::start(stage.relay.address)?;
    bob.join(&link)?;
    carol.join(&evil.bend(&link)?)?;
    let mut wall = Script::start(&stage, Some(&carol), &["watch-wall", "--shield"], 440)?;
    let camera = coloured("blue");
    let bobs = Script::start_with(&stage, Some(&bob), &["publish-camera"], 440, &[("CAMERA", &camera)])?;
    wall.shows_colours(&[(WHOLE, BLUE, 0.9), (SHIELD, AMBER, 0.2)])?;
    evil.decide(|stream, envelope| {
        if stream.0 != 0 {
            let mut sealed = envelope.sealed.to_vec();
            sealed.iter_mut().last().into_iter().for_each(|last| *last ^= 1);
            envelope.sealed = sealed.into();
        }
        Fate::Pass
    });
    wall.shows_colours(&[(SHIELD, FORGED, 0.2)])?;
    drop(bobs);
    wall.says("- video_0")?;
    let black = [0, 0, 0];
    wall.shows_colours(&[(WHOLE, black, 0.8), (SHIELD, FORGED, 0.2)])
}

/// Each of them says what failed, and that it did.
#[test]
fn what_cannot_go_on_ends_badly_and_says_why() -> Result<()> {
    let stage = Stage::open()?;
    let (alice, bob) = two(&stage)?;
    let _publish = Script::start(&stage, Some(&alice), &["publish-camera"], 440)?;
    let broken = [("SCREEN", BROKEN), ("SPEAKER", BROKEN)];
    for words in [&["watch", "Alice"][..], &["watch-all"], &["watch-wall"], &["listen"]] {
        let mut script = Script::start_with(&stage, Some(&bob), words, 440, &broken)?;
        let status = until("its end", Duration::from_secs(40), || Ok(script.child.try_wait()?))
            .with_context(|| script.said())?;
        let told = format!("{}: Failed after iterations", words[0]);
        ensure!(!status.success() && script.said().contains(&told), "{words:?}: {}", script.said());
    }
    Ok(())
}

/// A screen or loudspeaker that breaks.
const BROKEN: &str = "identity error-after=20 ! fakesink";

/// Waits until 440 Hz and 660 Hz sound at once.
fn plays_both(script: &Script) -> Result<()> {
    until("both voices at once", Duration::from_secs(40), || {
        let played = script.played().unwrap_or_default();
        let Some(second) = played.last_chunk::<48_000>() else { return Ok(None) };
        let silent = media::power(second, 550).max(1.0);
        let sounds = |hz| media::power(second, hz) > 1_000.0 * silent;
        Ok((sounds(440) && sounds(660)).then_some(()))
    })
    .with_context(|| script.said())
}

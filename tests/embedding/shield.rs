//! `pipelines/watch --shield`: how a meeting stands, over its picture.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use meeting_protocol::{identity::Fingerprint, link::MeetingLink};
use rig::{
    EvilRelay, Fate, Program, Stage,
    media::Picture,
    screen::{self, Place},
};

use super::{AMBER, GREEN, GREY, RED, SHIELD, alters_frames, keep, publishes};

const WIDTH: usize = 320;
const HEIGHT: usize = 180;
/// Where the badge of `pipelines/shield.svg` has its shield and its code in a picture of that size.
const BADGE: Place = Place { left: 18, top: 12, width: 31, height: 38 };
const CODE: Place = Place { left: 57, top: 27, width: 156, height: 22 };
const BELOW: Place = Place { left: 0, top: 60, width: WIDTH, height: HEIGHT - 60 };
const COLOURS: [(&str, [u8; 3]); 4] = [("amber", AMBER), ("green", GREEN), ("red", RED), ("grey", GREY)];

#[test]
fn the_shield_tells_unverified_verified_changed_and_stale_apart() -> Result<()> {
    let mut stage = Stage::open()?;
    let [alice, bob, carol] = [stage.agent("Alice")?, stage.agent("Bob")?, stage.agent("Carol")?];
    let relay = stage.relay.address.to_string();
    let link = alice.create_at(&relay, &stage.relay.certificate, &["--successors", "1"])?;
    bob.join(&link)?;
    carol.join(&link)?;
    let film = stage.folder().join("film");
    let _talks = publishes(&stage, &bob, "blue")?;
    let mut watch = Program::start(&stage, &carol, &mut shielded(&film))?;

    let unverified = shows(&mut watch, &film, "amber")?;
    carol.run(&["verify", &alice.code()?], "")?;
    let verified = shows(&mut watch, &film, "green")?;
    alice.run(&["leave"], "")?;
    let changed = shows(&mut watch, &film, "red")?;
    stage.relay.kill()?;
    let stale = shows(&mut watch, &film, "grey")?;

    // The film shines through behind the digits, and no two of its pictures are the same.
    let code = |picture| screen::pixels(picture, CODE).map(|[red, ..]| red > 128).collect::<Vec<_>>();
    ensure!(code(&unverified) == code(&verified), "comparing does not change the code");
    ensure!(code(&verified) != code(&changed), "another leader has another code");
    ensure!(code(&changed) == code(&stale), "nobody else leads");
    Ok(())
}

#[test]
fn the_shield_is_red_while_somebody_speaks_as_another() -> Result<()> {
    let stage = Stage::open()?;
    let [alice, bob, carol] = [stage.agent("Alice")?, stage.agent("Bob")?, stage.agent("Carol")?];
    let link = alice.create(&stage)?;
    let evil = EvilRelay::start(stage.relay.address)?;
    bob.join(&link)?;
    carol.join(&evil.bend(&link)?)?;
    let film = stage.folder().join("film");
    let _talks = publishes(&stage, &bob, "blue")?;
    let mut watch = Program::start(&stage, &carol, &mut shielded(&film))?;
    carol.run(&["verify", &alice.code()?], "")?;
    shows(&mut watch, &film, "green")?;
    alters_frames(&evil);
    shows(&mut watch, &film, "red")?;
    evil.decide(|_, _| Fate::Pass);
    shows(&mut watch, &film, "green").map(drop)
}

#[test]
fn the_shield_is_red_where_nobody_vouches_for_the_leader() -> Result<()> {
    let stage = Stage::open()?;
    let [alice, bob, carol] = [stage.agent("Alice")?, stage.agent("Bob")?, stage.agent("Carol")?];
    let link = alice.create(&stage)?;
    bob.join(&link)?;
    // Of the same meeting, and of somebody else's making.
    let mut other = MeetingLink::parse(link.trim())?;
    other.creator = Fingerprint([7; 32]);
    carol.join(&other.reveal())?;
    let film = stage.folder().join("film");
    let _talks = publishes(&stage, &bob, "blue")?;
    let mut watch = Program::start(&stage, &carol, &mut shielded(&film))?;
    shows(&mut watch, &film, "red")?;
    carol.run(&["verify", &alice.code()?], "")?;
    shows(&mut watch, &film, "green").map(drop)
}

/// Waits for the shield of one colour and no other, over Bob's picture: the last one, where no more come.
fn shows(watch: &mut Program, film: &Path, colour: &str) -> Result<Picture> {
    let picture = watch.until(&format!("the {colour} shield"), |_| {
        let picture = screen::last(film, WIDTH, HEIGHT)?;
        let shown = |rgb| picture.as_ref().is_some_and(|it| screen::share(it, BADGE, rgb) > SHIELD);
        let right = COLOURS.iter().all(|(name, rgb)| shown(*rgb) == (*name == colour));
        Ok(picture.filter(|it| right && screen::share(it, BELOW, [0, 0, 255]) > 0.9))
    })?;
    keep(&format!("shield-{colour}"), &picture)?;
    ensure!(screen::is_written_on(&picture, CODE), "{colour}: the code is not there");
    Ok(picture)
}

fn shielded(film: &Path) -> std::process::Command {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../pipelines/watch");
    let mut command = std::process::Command::new(script);
    command.args(["--shield", "Bob"]).env(
        "SCREEN",
        format!(
            "videoconvert ! videorate ! video/x-raw,format=RGB,width={WIDTH},height={HEIGHT},framerate=5/1 \
             ! filesink async=false location={}",
            film.display()
        ),
    );
    command
}

//! `pipelines/watch --shield`: the four states of a meeting over its picture.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use rig::{
    Stage,
    media::Picture,
    screen::{self, Place},
};

use super::{AMBER, GREEN, GREY, Program, RED, SHIELD, keep, publishes};

const WIDTH: usize = 320;
const HEIGHT: usize = 180;
/// Where the badge of `pipelines/shield.svg` has its shield and its code in a picture of that size.
const BADGE: Place = Place { left: 18, top: 12, width: 31, height: 38 };
const CODE: Place = Place { left: 57, top: 27, width: 156, height: 22 };
const BELOW: Place = Place { left: 0, top: 60, width: WIDTH, height: HEIGHT - 60 };
const STATES: [(&str, [u8; 3]); 4] =
    [("unverified", AMBER), ("verified", GREEN), ("changed", RED), ("stale", GREY)];

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
    let mut watch = Program::start(&stage, &carol, &mut shielded(&stage, &film))?;

    let unverified = shows(&mut watch, &film, "unverified")?;
    carol.run(&["verify", &alice.code()?], "")?;
    let verified = shows(&mut watch, &film, "verified")?;
    alice.run(&["leave"], "")?;
    let changed = shows(&mut watch, &film, "changed")?;
    stage.relay.kill()?;
    let stale = shows(&mut watch, &film, "stale")?;

    // The film shines through behind the digits, and no two of its pictures are the same.
    let code = |picture| screen::pixels(picture, CODE).map(|[red, ..]| red > 128).collect::<Vec<_>>();
    ensure!(code(&unverified) == code(&verified), "comparing does not change the code");
    ensure!(code(&verified) != code(&changed), "another leader has another code");
    ensure!(code(&changed) == code(&stale), "nobody else leads");
    Ok(())
}

/// Waits for one state's shield and no other's, over Bob's picture: the last one, where no more come.
fn shows(watch: &mut Program, film: &Path, state: &str) -> Result<Picture> {
    let picture = watch.until(&format!("the shield of {state}"), |_| {
        let picture = screen::last(film, WIDTH, HEIGHT)?;
        let shown = |colour| picture.as_ref().is_some_and(|it| screen::share(it, BADGE, colour) > SHIELD);
        let right = STATES.iter().all(|(name, colour)| shown(*colour) == (*name == state));
        Ok(picture.filter(|it| right && screen::share(it, BELOW, [0, 0, 255]) > 0.9))
    })?;
    keep(&format!("shield-{state}"), &picture)?;
    ensure!(screen::is_written_on(&picture, CODE), "{state}: the code is not there");
    Ok(picture)
}

fn shielded(stage: &Stage, film: &Path) -> std::process::Command {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../pipelines/watch");
    let mut command = std::process::Command::new(script);
    command.args(["--shield", "Bob"]).env("E2EE_BUILD", stage.programs().folder()).env(
        "SCREEN",
        format!(
            "videoconvert ! videorate ! video/x-raw,format=RGB,width={WIDTH},height={HEIGHT},framerate=5/1 \
             ! filesink async=false location={}",
            film.display()
        ),
    );
    command
}

//! `examples/gtk`: a window on a screen without a monitor.

use anyhow::{Result, ensure};
use rig::{
    Display, Program, Stage,
    screen::{self, Place},
};

use super::{AMBER, GREEN, SHIELD, keep, publishes, python};

const LEFT: Place = Place { left: 16, top: 16, width: 384, height: 216 };
const RIGHT: Place = Place { left: 416, ..LEFT };
const BADGE: Place = Place { left: 16, top: 268, width: 51, height: 60 };
const CODE: Place = Place { left: 82, top: 300, width: 400, height: 24 };

#[test]
fn the_window_shows_two_people_the_shield_and_the_code() -> Result<()> {
    let stage = Stage::open()?;
    let [alice, bob, carol] = [stage.agent("Alice")?, stage.agent("Bob")?, stage.agent("Carol")?];
    let link = alice.create(&stage)?;
    bob.join(&link)?;
    carol.join(&link)?;
    let display = Display::open(832, 360)?;
    let mut window = Program::start(&stage, &carol, python("gtk/window.py").env("DISPLAY", display.name()))?;
    let mut shows = |what: &str, wanted: &[(Place, [u8; 3], f64)]| {
        let picture = window.until(what, |_| {
            let picture = display.picture()?;
            let right =
                wanted.iter().all(|(place, colour, most)| screen::share(&picture, *place, *colour) > *most);
            Ok(right.then_some(picture))
        })?;
        keep("window", &picture)?;
        ensure!(screen::is_written_on(&picture, CODE), "{what}: the code is not there");
        anyhow::Ok(())
    };

    let (red, blue, nobody) = ([255, 0, 0], [0, 0, 255], [0x0c, 0x0f, 0x12]);
    shows("a window", &[(LEFT, nobody, 0.9), (RIGHT, nobody, 0.9), (BADGE, AMBER, SHIELD)])?;
    let _alice = publishes(&stage, &alice, "red")?;
    shows("Alice", &[(LEFT, red, 0.9), (RIGHT, nobody, 0.9)])?;
    let bobs = publishes(&stage, &bob, "blue")?;
    shows("both", &[(LEFT, red, 0.9), (RIGHT, blue, 0.9), (BADGE, AMBER, SHIELD)])?;
    carol.run(&["verify", &alice.code()?], "")?;
    shows("the shield of a compared code", &[(LEFT, red, 0.9), (RIGHT, blue, 0.9), (BADGE, GREEN, SHIELD)])?;
    drop(bobs);
    shows("Bob's place empty again", &[(LEFT, red, 0.9), (RIGHT, nobody, 0.9)])?;
    let (status, said) = window.interrupt()?;
    ensure!(status.success() && said.contains("code compared"), "{status}: {said}");
    Ok(())
}

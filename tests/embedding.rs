//! Meetings inside other programs: the examples, built and run as they stand there, and the shield over a picture.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};
use rig::{
    Agent, EvilRelay, Fate, Pipeline, Program, Stage,
    media::{self, Picture},
};

#[path = "embedding/shield.rs"]
mod shield;
#[path = "embedding/window.rs"]
mod window;

#[test]
fn each_example_publishes_receives_says_what_happens_and_ends() -> Result<()> {
    let stage = Stage::open()?;
    let (alice, bob) = (stage.agent("Alice")?, stage.agent("Bob")?);
    let link = alice.create(&stage)?;
    let evil = EvilRelay::start(stage.relay.address)?;
    bob.join(&evil.bend(&link)?)?;
    let mut examples = [
        Program::start(&stage, &bob, &mut stage.programs().command("embed"))?,
        Program::start(&stage, &bob, &mut python("python/embed.py"))?,
        Program::start(&stage, &bob, &mut Command::new(made(&stage)?))?,
    ];
    let _talks = publishes(&stage, &alice, "smpte")?;
    let mut sees = stage.pipeline(&alice, &watching(examples.len()))?;
    for example in &mut examples {
        example.says("receiving camera of Alice")?;
        example.says("live: 2 people, key ")?;
        example.says("(not compared yet)")?;
    }
    sees.until("a picture of each example", |stats| {
        (0..3).all(|n| stats.get(&format!("open-{n}"), "opened") > 10)
    })?;

    bob.run(&["verify", &alice.code()?], "")?;
    alters_frames(&evil);
    for example in &mut examples {
        example.says("(compared)")?;
        example.says("a frame of Alice's camera is refused: forged")?;
        example.says("a frame of \"camera\" of Alice was forged")?;
    }
    for example in examples {
        let (status, said) = example.interrupt()?;
        ensure!(status.success(), "{status}: {said}");
    }
    Ok(())
}

/// The C example, by its own Makefile, with all warnings taken for errors.
fn made(stage: &Stage) -> Result<PathBuf> {
    let folder = tempfile::tempdir_in(stage.folder())?.keep();
    for file in ["embed.c", "Makefile"] {
        std::fs::copy(examples().join("c").join(file), folder.join(file))?;
    }
    let output = Command::new("make").arg("CFLAGS=-Wall -Wextra -Werror").current_dir(&folder).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(folder.join("embed"))
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// Debian's own Python has PyGObject, whichever comes first in PATH.
fn python(example: &str) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.arg(examples().join(example));
    command
}

fn publishes(stage: &Stage, agent: &Agent, pattern: &str) -> Result<Pipeline> {
    stage.pipeline(
        agent,
        &format!(
            "meetingkey videotestsrc is-live=true pattern={pattern} ! video/x-raw,width=320,height=180,framerate=15/1 \
             ! vp8enc deadline=1 keyframe-max-dist=15 ! e2eeseal track=camera ! meetingsink"
        ),
    )
}

/// Every fifth frame on its way through the relay.
fn alters_frames(evil: &EvilRelay) {
    let mut count = 0;
    evil.decide(move |stream, envelope| {
        count += 1;
        if stream.0 != 0 && count % 5 == 0 {
            let mut sealed = envelope.sealed.to_vec();
            if let Some(last) = sealed.last_mut() {
                *last ^= 1;
            }
            envelope.sealed = sealed.into();
        }
        Fate::Pass
    });
}

fn watching(pictures: usize) -> String {
    let branch =
        |n| format!(" in.video_{n} ! queue ! e2eeopen name=open-{n} ! fakesink async=false sync=false");
    "meetingkey meetingsrc name=in".to_owned() + &(0..pictures).map(branch).collect::<String>()
}

/// Keeps a picture where a person may look at it.
fn keep(name: &str, picture: &Picture) -> Result<()> {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png"));
    media::write_png(&file, picture.width, picture.height, &picture.rgb)
}

/// Colours of the shield.
const GREEN: [u8; 3] = [0x2e, 0x9e, 0x5b];
const AMBER: [u8; 3] = [0xd9, 0x8a, 0x00];
const RED: [u8; 3] = [0xd2, 0x3b, 0x2e];
const GREY: [u8; 3] = [0x78, 0x82, 0x8c];
/// The share of a shield's place that its colour fills; the padlock and the corners have the rest.
const SHIELD: f64 = 0.35;

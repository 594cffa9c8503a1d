//! `pipelines/caption` and `watch --captions`: what is said can be read, and by members alone.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use rig::{
    Stage,
    screen::{self, Place},
    until,
};

use super::{Script, coloured, two};

const SENTENCE: &str = "hello alice how are you";
const RED: [u8; 3] = [255, 0, 0];
const ABOVE: Place = Place { left: 0, top: 0, width: 160, height: 60 };
const WORDS: Place = Place { left: 40, top: 78, width: 80, height: 6 };

#[test]
fn what_is_said_is_read_by_the_others_and_by_nobody_on_the_way() -> Result<()> {
    let stage = Stage::open()?;
    let (alice, bob) = two(&stage)?;
    let speech = stage.folder().join("speech.wav");
    let flite = Command::new("flite").args(["-voice", "slt", "-t", SENTENCE, "-o"]).arg(&speech).status()?;
    ensure!(flite.success(), "no speech");
    // Somebody who says one sentence, and listens from then on.
    let microphone = format!(
        "filesrc location={} ! wavparse ! audioconvert ! audioresample ! audio/x-raw,rate=16000,channels=1 \
         ! clocksync ! concat name=said audiotestsrc is-live=true wave=silence \
         ! audio/x-raw,rate=16000,channels=1 ! said. said.",
        speech.display()
    );
    let camera = coloured("red").replace("width=160,height=90", "width=640,height=360");
    let environment = [("MICROPHONE", &*microphone), ("CAMERA", &*camera)];
    let mut watch = Script::start(&stage, Some(&alice), &["watch", "--captions", "Bob"], 440)?;
    let _publish = Script::start_with(&stage, Some(&bob), &["publish-camera"], 440, &environment[1..])?;
    watch.shows_colours(&[(ABOVE, RED, 0.9), (WORDS, RED, 0.9)])?;
    let _caption = Script::start_with(&stage, Some(&bob), &["caption"], 440, &environment)?;
    watch.says(&format!("Bob: {SENTENCE}"))?;
    until("words over the picture", Duration::from_secs(10), || {
        let Some(picture) = screen::last(&watch.folder.join("screen"), 160, 90)? else { return Ok(None) };
        let is_red = |place| screen::share(&picture, place, RED) > 0.9;
        Ok((is_red(ABOVE) && !is_red(WORDS)).then_some(()))
    })
    .with_context(|| watch.said())?;
    let view = stage.relay.view()?;
    for word in SENTENCE.split(' ').filter(|word| word.len() > 4) {
        let found = view.windows(word.len()).any(|window| window == word.as_bytes());
        ensure!(!found, "{word:?} stands in what the relay saw");
    }
    Ok(())
}

#[test]
fn what_somebody_writes_cannot_reach_the_terminal() -> Result<()> {
    let stage = Stage::open()?;
    let (alice, bob) = two(&stage)?;
    let titles = stage.folder().join("titles.srt");
    // Again and again: who begins to watch late hears the next one.
    let title = |n: u32| {
        let text = "red \u{1b}[31m alarm \u{7}\u{202e} & <b> end";
        format!("{n}\n00:00:{:02},000 --> 00:00:{:02},000\n{text}\n\n", 3 * n, 3 * n + 2)
    };
    fs::write(&titles, (1..19).map(title).collect::<String>())?;
    let mut watch = Script::start(&stage, Some(&alice), &["watch", "--captions", "Bob"], 440)?;
    let text = format!(
        "meetingkey filesrc location={} ! subparse ! text/x-raw ! e2eeseal track=captions ! meetingsink",
        titles.display()
    );
    let _writes = stage.pipeline(&bob, &text)?;
    watch.says("end")?;
    let hostile = |letter: char| letter.is_control() && letter != '\n' || letter == '\u{202e}';
    ensure!(!watch.said().contains(hostile), "{:?}", watch.said());
    Ok(())
}

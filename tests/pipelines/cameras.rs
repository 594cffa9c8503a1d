//! What stands for a camera: the screen, and a camera on the network.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use rig::{Display, Stage};

use super::{Helper, Script, WHOLE, two};

const GREEN: [u8; 3] = [0, 255, 0];

#[test]
fn a_screen_is_published_as_it_is_seen() -> Result<()> {
    let stage = Stage::open()?;
    let (alice, bob) = two(&stage)?;
    let display = Display::open(160, 90)?;
    let _window = Helper(
        Command::new("gst-launch-1.0")
            .args(["-q", "videotestsrc", "pattern=green", "!", "video/x-raw,width=160,height=90"])
            .args(["!", "videoconvert", "!", "ximagesink"])
            .arg(format!("display={}", display.name()))
            .stdout(Stdio::null())
            .spawn()?,
    );
    let mut watch = Script::start(&stage, Some(&bob), &["watch", "Alice"], 440)?;
    let environment = [("DISPLAY", display.name())];
    let _publish = Script::start_with(&stage, Some(&alice), &["publish-screen"], 440, &environment)?;
    watch.shows_colours(&[(WHOLE, GREEN, 0.9)])
}

#[test]
fn a_network_camera_is_seen_and_heard() -> Result<()> {
    let stage = Stage::open()?;
    let (alice, bob) = two(&stage)?;
    let mut server = Helper(
        Command::new("/usr/bin/python3")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/rtsp-camera.py"))
            .stdout(Stdio::piped())
            .spawn()?,
    );
    let mut url = String::new();
    BufReader::new(server.0.stdout.take().context("no stdout")?).read_line(&mut url)?;
    ensure!(url.starts_with("rtsp://"), "the server says {url:?}");
    for (words, heard) in
        [(&["publish-rtsp", url.trim()][..], false), (&["publish-rtsp", "--sound", url.trim()], true)]
    {
        let mut watch = Script::start(&stage, Some(&bob), &["watch", "Alice"], 440)?;
        let _publish = Script::start(&stage, Some(&alice), words, 440)?;
        watch.shows_colours(&[(WHOLE, GREEN, 0.9)])?;
        if heard {
            ensure!((watch.plays()? - 523.0).abs() < 3.0);
        }
    }
    Ok(())
}

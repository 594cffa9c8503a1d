//! The scripts in `pipelines/`, run as they stand there, with stand-ins for camera, screen and the rest.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rig::{
    Agent, Stage, end_group, media,
    screen::{self, Place},
    until,
};

#[path = "pipelines/broadcast.rs"]
mod broadcast;
#[path = "pipelines/cameras.rs"]
mod cameras;
#[path = "pipelines/captions.rs"]
mod captions;
#[path = "pipelines/wall.rs"]
mod wall;

const CAMERA: &str =
    "videotestsrc is-live=true pattern=ball ! video/x-raw,width=160,height=90,framerate=15/1";

const WHOLE: Place = Place { left: 0, top: 0, width: 160, height: 90 };

/// A camera that sees one colour.
fn coloured(colour: &str) -> String {
    CAMERA.replace("ball", colour)
}

/// A script that runs, with what it shows and plays in files.
struct Script {
    name: String,
    child: Child,
    folder: PathBuf,
}

impl Script {
    fn start(stage: &Stage, agent: Option<&Agent>, words: &[&str], pitch: u32) -> Result<Self> {
        Self::start_with(stage, agent, words, pitch, &[])
    }

    /// The same with more variables in its environment.
    fn start_with(
        stage: &Stage,
        agent: Option<&Agent>,
        words: &[&str],
        pitch: u32,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let name = words.join(" ");
        let folder = tempfile::tempdir_in(stage.folder())?.keep();
        let file = |name: &str| folder.join(name).display().to_string();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut command = Command::new(root.join("pipelines").join(words[0]));
        command
            .args(&words[1..])
            .env("E2EE_BUILD", stage.programs().folder())
            .env("CAMERA", CAMERA)
            .env("MICROPHONE", format!("audiotestsrc is-live=true freq={pitch} volume=0.3"))
            .env(
                "SCREEN",
                format!(
                    "videoconvert ! videoscale ! video/x-raw,format=RGB,width=160,height=90 \
                     ! filesink async=false location={}",
                    file("screen")
                ),
            )
            .env(
                "SPEAKER",
                format!(
                    "audioconvert ! audioresample ! audio/x-raw,format=S16LE,rate=48000,channels=1 \
                     ! filesink async=false location={}",
                    file("speaker")
                ),
            )
            .env("BITRATE", "300")
            .envs(environment.iter().copied())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(fs::File::create(folder.join("out"))?)
            .stderr(fs::File::create(folder.join("err"))?);
        if let Some(agent) = agent {
            command.env("MEETING_AGENT_SOCKET", agent.socket());
        }
        let child = command.spawn().with_context(|| format!("pipelines/{name}"))?;
        Ok(Self { name, child, folder })
    }

    fn said(&self) -> String {
        let read = |name| fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        read("out") + &read("err")
    }

    /// Waits until it has said some words.
    fn says(&mut self, words: &str) -> Result<()> {
        until(&format!("{words:?} of {}", self.name), Duration::from_secs(40), || {
            let said = self.said().contains(words);
            ensure!(said || self.child.try_wait()?.is_none(), "pipelines/{} has ended", self.name);
            Ok(said.then_some(()))
        })
        .with_context(|| self.said())
    }

    /// Waits for so many decoded pictures.
    fn shows(&mut self, pictures: u64) -> Result<()> {
        self.fills("screen", pictures * 160 * 90 * 3)
    }

    /// Waits until the last picture shown has this much of some colours in some places.
    fn shows_colours(&mut self, wanted: &[(Place, [u8; 3], f64)]) -> Result<()> {
        let file = self.folder.join("screen");
        until(&format!("the colours of {}", self.name), Duration::from_secs(40), || {
            ensure!(self.child.try_wait()?.is_none(), "pipelines/{} has ended", self.name);
            let Some(picture) = screen::last(&file, 160, 90)? else { return Ok(None) };
            let right = |(place, colour, most): &(Place, [u8; 3], f64)| {
                screen::share(&picture, *place, *colour) > *most
            };
            Ok(wanted.iter().all(right).then_some(()))
        })
        .with_context(|| self.said())
    }

    /// Waits for two seconds of sound and gives its pitch.
    fn plays(&mut self) -> Result<f64> {
        self.fills("speaker", 2 * 96_000)?;
        let sound = self.played()?;
        Ok(media::pitch(&sound[sound.len() / 2..]))
    }

    /// All sound so far.
    fn played(&self) -> Result<Vec<i16>> {
        samples(&self.folder.join("speaker"))
    }

    fn fills(&mut self, name: &str, bytes: u64) -> Result<()> {
        let file = self.folder.join(name);
        until(&format!("{bytes} bytes for the {name} of {}", self.name), Duration::from_secs(40), || {
            ensure!(self.child.try_wait()?.is_none(), "pipelines/{} has ended", self.name);
            Ok(fs::metadata(&file).ok().filter(|meta| meta.len() >= bytes).map(drop))
        })
        .with_context(|| self.said())
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        end_group(&mut self.child);
    }
}

/// A program that ends when it is dropped.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The sound in a file of raw samples.
fn samples(file: &Path) -> Result<Vec<i16>> {
    let bytes = fs::read(file)?;
    Ok(bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect())
}

fn two(stage: &Stage) -> Result<(Agent, Agent)> {
    let (alice, bob) = (stage.agent("Alice")?, stage.agent("Bob")?);
    bob.join(&alice.create(stage)?)?;
    Ok((alice, bob))
}

#[test]
fn loopback_needs_nobody() -> Result<()> {
    let stage = Stage::open()?;
    let mut loopback = Script::start(&stage, None, &["loopback", "3"], 440)?;
    let status = until("its end", Duration::from_secs(40), || Ok(loopback.child.try_wait()?))?;
    ensure!(status.success(), "{}", loopback.said());
    let shown = fs::metadata(loopback.folder.join("screen"))?.len() / (160 * 90 * 3);
    ensure!((85..=90).contains(&shown), "{shown} pictures of 90");
    Ok(())
}

#[test]
fn a_camera_is_watched_alone_and_among_all() -> Result<()> {
    let stage = Stage::open()?;
    let (alice, bob) = two(&stage)?;
    let mut watch = Script::start(&stage, Some(&bob), &["watch", "Alice"], 440)?;
    let _publish = Script::start(&stage, Some(&alice), &["publish-camera"], 523)?;
    watch.shows(30)?;
    ensure!((watch.plays()? - 523.0).abs() < 3.0);
    let mut all = Script::start(&stage, Some(&bob), &["watch-all", "--shield"], 440)?;
    all.shows(30)?;
    ensure!((all.plays()? - 523.0).abs() < 3.0);
    ensure!(
        all.said().contains("+ Alice camera") && all.said().contains("+ Alice microphone"),
        "{}",
        all.said()
    );
    Ok(())
}

#[test]
fn a_file_is_published_and_a_film_stands_in_for_the_camera() -> Result<()> {
    let stage = Stage::open()?;
    let (alice, bob) = two(&stage)?;
    let film = Path::new(env!("CARGO_MANIFEST_DIR")).join("../out/film.mkv").display().to_string();
    let mut watch = Script::start(&stage, Some(&bob), &["watch", "Alice"], 440)?;
    let publish = Script::start(&stage, Some(&alice), &["publish-file", &film], 440)?;
    watch.shows(25)?;
    watch.plays()?;
    drop(publish);
    drop(watch);
    let mut watch = Script::start(&stage, Some(&bob), &["watch", "Alice"], 440)?;
    let _film = Script::start(&stage, Some(&alice), &["publish-camera", "--film", &film], 440)?;
    watch.shows(25)
}

#[test]
fn a_call_without_pictures_is_heard_on_both_sides() -> Result<()> {
    let stage = Stage::open()?;
    let (alice, bob) = two(&stage)?;
    let mut alice = Script::start(&stage, Some(&alice), &["audio-only", "Bob"], 440)?;
    let mut bob = Script::start(&stage, Some(&bob), &["audio-only", "Alice"], 660)?;
    ensure!((alice.plays()? - 660.0).abs() < 3.0 && (bob.plays()? - 440.0).abs() < 3.0);
    Ok(())
}

#[test]
fn who_is_in_no_meeting_or_names_nobody_is_told_what_to_type() -> Result<()> {
    let stage = Stage::open()?;
    let alice = stage.agent("Alice")?;
    for (words, told) in [
        (&["publish-camera"][..], "meeting-agent join"),
        (&["watch-all"], "meeting-agent join"),
        (&["watch"], "pipelines/watch NAME"),
        (&["audio-only"], "pipelines/audio-only NAME"),
        (&["publish-file", "/nowhere"], "cannot be read"),
        (&["publish-rtsp", "http://camera"], "rtsp://"),
        (&["publish-screen"], "meeting-agent join"),
        (&["watch-wall"], "meeting-agent join"),
        (&["loopback", "x"], "pipelines/loopback [SECONDS]"),
        (&["watch", "--captions"], "pipelines/watch NAME"),
        (&["watch-all", "--all"], "--captions"),
        (&["listen"], "meeting-agent join"),
        (&["listen", "Alice"], "pipelines/audio-only NAME"),
        (&["caption"], "meeting-agent join"),
        (&["caption", "speech.wav"], "MICROPHONE"),
        (&["broadcast", "Alice"], "pipelines/broadcast NAME FOLDER"),
        (&["broadcast", "Alice", "elsewhere"], "meeting-agent join"),
    ] {
        let mut script = Script::start(&stage, Some(&alice), words, 440)?;
        let status = until("its end", Duration::from_secs(20), || Ok(script.child.try_wait()?))?;
        ensure!(!status.success() && script.said().contains(told), "{words:?}: {}", script.said());
    }
    Ok(())
}

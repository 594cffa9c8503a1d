//! `pipelines/record`, as people use it: files that play, whatever ends them, and nobody recorded unseen.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use rig::{Agent, Pipeline, Program, Stage, media};
use rustix::process::Signal;

/// The recorder, running.
struct Record {
    program: Program,
    into: PathBuf,
}

impl Record {
    fn start(stage: &Stage, agent: &Agent, into: &Path, more: &[&str]) -> Result<Self> {
        let mut command = Command::new(script());
        command.arg("--into").arg(into).args(more);
        Self::spawn(stage, agent, into, command)
    }

    fn spawn(stage: &Stage, agent: &Agent, into: &Path, mut command: Command) -> Result<Self> {
        Ok(Self { program: Program::start(stage, agent, &mut command)?, into: into.to_owned() })
    }

    /// Files of one person, by name.
    fn files(&self, name: &str) -> Vec<PathBuf> {
        files_of(&self.into, name)
    }

    fn until_bytes(&mut self, name: &str, files: usize, bytes: u64) -> Result<()> {
        let Self { program, into } = self;
        program.until(&format!("{bytes} bytes of {name} in file {files}"), |_| {
            let here = files_of(into, name);
            let len =
                here.get(files - 1).and_then(|path| fs::metadata(path).ok()).map_or(0, |meta| meta.len());
            Ok((len >= bytes).then_some(()))
        })
    }
}

fn files_of(folder: &Path, name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries
        .filter(|path| path.file_name().is_some_and(|file| file.to_string_lossy().contains(name)))
        .collect();
    files.sort();
    files
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/record")
}

fn publish(stage: &Stage, agent: &Agent, pitch: u32) -> Result<Pipeline> {
    stage.pipeline(
        agent,
        &format!(
            "meetingkey meetingsink name=out videotestsrc is-live=true pattern=ball \
             ! video/x-raw,width=160,height=90,framerate=15/1 ! x264enc tune=zerolatency speed-preset=ultrafast \
               key-int-max=15 bitrate=300 ! e2eeseal name=seal track=camera ! out. \
             audiotestsrc is-live=true freq={pitch} volume=0.3 ! audio/x-raw,rate=48000,channels=1 ! opusenc \
               ! e2eeseal track=microphone ! out."
        ),
    )
}

/// The file plays: pictures and the tone, so many seconds at least.
fn plays(file: &Path, pitch: f64, seconds: usize) -> Result<()> {
    let pictures = media::pictures(file, 160, 90, usize::MAX)?;
    ensure!(pictures.len() >= seconds * 12, "{} holds {} pictures", file.display(), pictures.len());
    let sound = media::sound(file)?;
    ensure!(sound.len() >= seconds * 40_000, "{} holds {} samples", file.display(), sound.len());
    let heard = media::pitch(&sound[sound.len() / 2..]);
    ensure!((heard - pitch).abs() < 3.0, "{}: {heard} Hz", file.display());
    Ok(())
}

#[test]
fn people_come_and_go_keys_change_and_every_stay_is_a_file_that_plays() -> Result<()> {
    let stage = Stage::open()?;
    let (alice, bob, carol) =
        (stage.agent("Alice")?, stage.agent("../Bob\u{202e} /etc")?, stage.agent("Carol")?);
    let link = alice.create(&stage)?;
    bob.join(&link)?;
    let link_file = stage.folder().join("link");
    fs::write(&link_file, &link)?;
    fs::set_permissions(&link_file, fs::Permissions::from_mode(0o600))?;
    let into = stage.folder().join("films");
    let mut record =
        Record::start(&stage, &carol, &into, &["--link-file", link_file.to_str().context("a path")?])?;
    record.program.says("recorder")?;
    let role = |status: &serde_json::Value| {
        let people = status["people"].as_array()?;
        people.iter().find(|person| person["name"] == "Carol")?["role"].as_str().map(str::to_owned)
    };
    for person in [&alice, &bob] {
        person.until("a recorder", |status| role(status).as_deref() == Some("recorder"))?;
    }
    ensure!(record.files("").is_empty(), "everybody sees the recorder before the first frame is written");

    let shows = publish(&stage, &alice, 440)?;
    let talks = publish(&stage, &bob, 660)?;
    record.until_bytes("Alice", 1, 60_000)?;
    alice.run(&["rotate"], "")?;
    record.until_bytes("Bob", 1, 60_000)?;
    talks.finish()?;
    record.program.until("Bob's file", |said| {
        Ok(said.lines().any(|line| line.contains("finished") && line.contains("Bob")).then_some(()))
    })?;
    let talks = publish(&stage, &bob, 880)?;
    record.until_bytes("Bob", 2, 60_000)?;
    alice.run(&["rotate"], "")?;
    record.until_bytes("Bob", 2, 120_000)?;
    record.until_bytes("Alice", 1, 200_000)?;
    ensure!(record.program.end(Signal::INT)?.success(), "{}", record.program.said());

    let (alices, bobs) = (record.files("Alice"), record.files("Bob"));
    ensure!((alices.len(), bobs.len()) == (1, 2), "{:?}", record.files(""));
    ensure!(bobs.iter().all(|file| file.parent() == Some(&into)), "names are made safe: {bobs:?}");
    plays(&alices[0], 440.0, 4)?;
    plays(&bobs[0], 660.0, 1)?;
    plays(&bobs[1], 880.0, 2)?;
    for file in alices.iter().chain(&bobs) {
        ensure!(fs::metadata(file)?.permissions().mode() & 0o777 == 0o600, "{}", file.display());
    }
    drop((shows, talks));
    Ok(())
}

#[test]
fn a_picture_that_changes_its_size_goes_on_in_a_new_file() -> Result<()> {
    let stage = Stage::open()?;
    let (alice, carol) = (stage.agent("Alice")?, stage.agent("Carol")?);
    let link = alice.create(&stage)?;
    carol.run(&["join", "--role", "recorder", "-"], &link)?;
    // A camera that is turned after ten seconds, as a telephone would be.
    let film = stage.folder().join("film.h264");
    let mut turned = Vec::new();
    for (width, height) in [(160, 90), (90, 160)] {
        let clip = format!(
            "videotestsrc num-buffers=150 ! video/x-raw,width={width},height={height},framerate=15/1 \
             ! x264enc key-int-max=15 bitrate=300 ! video/x-h264,stream-format=byte-stream ! filesink async=false location={}",
            film.display()
        );
        let status = Command::new("gst-launch-1.0").arg("-q").args(clip.split_whitespace()).status()?;
        ensure!(status.success(), "no clip");
        turned.extend(fs::read(&film)?);
    }
    fs::write(&film, turned)?;
    let into = stage.folder().join("films");
    let mut record = Record::start(&stage, &carol, &into, &[])?;
    record.program.says("waiting for people")?;
    let _shows = stage.pipeline(
        &alice,
        &format!(
            "meetingkey meetingsink name=out filesrc location={} ! h264parse \
               ! video/x-h264,stream-format=byte-stream,alignment=au ! clocksync ! e2eeseal track=camera ! out. \
             audiotestsrc is-live=true freq=440 volume=0.3 ! audio/x-raw,rate=48000,channels=1 ! opusenc \
               ! e2eeseal track=microphone ! out.",
            film.display()
        ),
    )?;
    record.until_bytes("Alice", 2, 30_000)?;
    ensure!(record.program.end(Signal::INT)?.success(), "{}", record.program.said());
    let files = record.files("Alice");
    ensure!(files.len() == 2, "{}", record.program.said());
    for (file, width) in files.iter().zip([160, 90]) {
        plays(file, 440.0, 1)?;
        ensure!(
            media::caps(file, "video")?.structure(0).is_some_and(|video| video.get("width") == Ok(width))
        );
    }
    Ok(())
}

#[test]
fn what_was_written_before_a_kill_plays_and_is_not_overwritten() -> Result<()> {
    let stage = Stage::open()?;
    let (alice, carol) = (stage.agent("Alice")?, stage.agent("Carol")?);
    let link = alice.create(&stage)?;
    carol.run(&["join", "--role", "recorder", "-"], &link)?;
    let _shows = publish(&stage, &alice, 440)?;
    let into = stage.folder().join("films");
    let mut record = Record::start(&stage, &carol, &into, &["--participant", "Alice"])?;
    record.until_bytes("Alice", 1, 150_000)?;
    record.program.end(Signal::KILL)?;
    let first = record.files("Alice");
    plays(&first[0], 440.0, 2)?;
    let before = fs::read(&first[0])?;
    let mut again = Record::start(&stage, &carol, &into, &["--participant", "Alice"])?;
    again.program.until("a second file", |_| Ok((files_of(&into, "Alice").len() == 2).then_some(())))?;
    ensure!(again.program.end(Signal::INT)?.success());
    ensure!(fs::read(&first[0])? == before, "the first file is as it was");
    Ok(())
}

#[test]
fn nobody_records_unseen_and_a_full_disk_is_said() -> Result<()> {
    let stage = Stage::open()?;
    let (alice, carol) = (stage.agent("Alice")?, stage.agent("Carol")?);
    let link = alice.create(&stage)?;
    let into = stage.folder().join("films");
    let refused = |more: &[&str], words: &str| -> Result<()> {
        let mut record = Record::start(&stage, &carol, &into, more)?;
        let status = record.program.ends()?;
        ensure!(!status.success() && record.program.said().contains(words), "{}", record.program.said());
        Ok(())
    };
    refused(&[], "meeting-agent join")?;
    carol.join(&link)?;
    refused(&[], "--role recorder")?;
    carol.run(&["leave"], "")?;
    carol.run(&["join", "--role", "recorder", "-"], &link)?;
    refused(&["--reserve", "999999999"], "make room")?;
    ensure!(!into.exists() || fs::read_dir(&into)?.next().is_none(), "nothing was written");
    // In the middle of a recording too: with another role nothing is written any more.
    let mut record = Record::start(&stage, &carol, &into, &[])?;
    record.program.says("waiting for people")?;
    carol.run(&["leave"], "")?;
    carol.join(&link)?;
    let _shows = publish(&stage, &alice, 440)?;
    record.program.says("Alice is not recorded: record: the others do not see a recorder in you")?;
    ensure!(record.files("").is_empty(), "{:?}", record.files(""));
    Ok(())
}

#[test]
fn a_disk_that_fills_up_is_told_early_and_the_file_plays() -> Result<()> {
    let stage = Stage::open()?;
    let (alice, carol) = (stage.agent("Alice")?, stage.agent("Carol")?);
    let link = alice.create(&stage)?;
    carol.run(&["join", "--role", "recorder", "-"], &link)?;
    let _shows = publish(&stage, &alice, 440)?;
    let (into, kept) = (stage.folder().join("films"), stage.folder().join("kept"));
    for folder in [&into, &kept] {
        fs::create_dir(folder)?;
    }
    // A small disk that only the recorder sees, and what is on it in the end.
    let small = r#"mount -t tmpfs -o size=2560k films "$1" && "$0" --into "$1" --reserve 2
        status=$?; cp "$1"/* "$2"; exit $status"#;
    let mut unshare = Command::new("unshare");
    unshare.args(["--map-root-user", "--mount", "sh", "-c", small]).arg(script()).arg(&into).arg(&kept);
    let mut record = Record::spawn(&stage, &carol, &kept, unshare)?;
    let status = record.program.ends()?;
    let said = record.program.said();
    let (early, full) =
        (said.find("at this rate the disk is full in"), said.find("the disk is full but for 2 MiB"));
    ensure!(!status.success() && early.is_some() && early < full, "{said}");
    plays(&record.files("Alice")[0], 440.0, 2)
}

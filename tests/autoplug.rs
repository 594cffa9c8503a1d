//! A meeting by its URI alone, and as devices: players and monitors that know nothing of us find all they need.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rig::{Agent, Pipeline, Stage, media, until};
use rustix::process::{Pid, Signal, kill_process};

const PITCH: u32 = 523;
const PICTURE: u64 = 160 * 90 * 3;
const SOUND: u64 = 96_000;
const PATIENCE: Duration = Duration::from_secs(40);

/// Alice, who talks, and Bob, who knows the meeting's id.
struct Two {
    stage: Stage,
    alice: Agent,
    bob: Agent,
    id: String,
}

impl Two {
    fn meet() -> Result<Self> {
        let stage = Stage::open()?;
        let (alice, bob) = (stage.agent("Alice")?, stage.agent("Bob")?);
        bob.join(&alice.create(&stage)?)?;
        let id = bob.status()?["meeting"].as_str().context("no id")?.to_owned();
        Ok(Self { stage, alice, bob, id })
    }

    fn alice_talks(&self) -> Result<Pipeline> {
        let mut talks = self.stage.pipeline(
            &self.alice,
            &format!(
                "meetingkey meetingsink name=out videotestsrc is-live=true pattern=ball \
                 ! video/x-raw,width=160,height=90,framerate=15/1 ! x264enc tune=zerolatency speed-preset=ultrafast \
                   key-int-max=15 bitrate=300 ! e2eeseal name=picture track=camera ! out. \
                 audiotestsrc is-live=true freq={PITCH} volume=0.3 ! audio/x-raw,rate=48000,channels=1 ! opusenc \
                   ! e2eeseal name=sound track=microphone ! out."
            ),
        )?;
        let both =
            |stats: &rig::Stats| stats.get("picture", "sealed") > 0 && stats.get("sound", "sealed") > 0;
        talks.until("Alice's picture and sound", both)?;
        Ok(talks)
    }

    fn seen(&self) -> Result<Seen> {
        let folder = tempfile::tempdir_in(self.stage.folder())?.keep();
        Ok(Seen { screen: folder.join("screen"), speaker: folder.join("speaker") })
    }
}

/// What a player shows and plays, in files.
struct Seen {
    screen: PathBuf,
    speaker: PathBuf,
}

impl Seen {
    fn screen(&self) -> String {
        format!(
            "videoconvert ! videoscale ! video/x-raw,format=RGB,width=160,height=90 ! filesink async=false location={}",
            self.screen.display()
        )
    }

    fn speaker(&self) -> String {
        format!(
            "audioconvert ! audioresample ! audio/x-raw,format=S16LE,rate=48000,channels=1 \
             ! filesink async=false location={}",
            self.speaker.display()
        )
    }

    /// Waits for two seconds of Alice.
    fn is_alice(&self) -> Result<()> {
        fills(&self.screen, 30 * PICTURE)?;
        self.sounds_like_alice()
    }

    fn sounds_like_alice(&self) -> Result<()> {
        fills(&self.speaker, 2 * SOUND)?;
        let bytes = fs::read(&self.speaker)?;
        let sound: Vec<i16> =
            bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
        let pitch = media::pitch(&sound[sound.len() / 2..]);
        ensure!((pitch - f64::from(PITCH)).abs() < 3.0, "{pitch} Hz");
        Ok(())
    }
}

fn fills(file: &Path, bytes: u64) -> Result<()> {
    until(&format!("{bytes} bytes in {}", file.display()), PATIENCE, || {
        Ok(fs::metadata(file).ok().filter(|meta| meta.len() >= bytes).map(drop))
    })
}

/// A program of GStreamer's own, with what it says in a file.
struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    fn start(two: &Two, words: &[&str]) -> Result<Self> {
        let log = tempfile::NamedTempFile::new_in(two.stage.folder())?.into_temp_path().keep()?;
        let mut command = Command::new(words[0]);
        Pipeline::environment(&mut command, two.stage.programs(), &two.bob.socket())?;
        command.args(&words[1..]).stdin(Stdio::piped()).stdout(fs::File::create(&log)?);
        let child = command.stderr(fs::File::create(log.with_extension("err"))?).spawn();
        Ok(Self { child: child.with_context(|| words[0].to_owned())?, log })
    }

    fn said(&self) -> String {
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        read(&self.log) + &read(&self.log.with_extension("err"))
    }

    fn says(&self, text: &str) -> Result<()> {
        until(text, PATIENCE, || Ok(self.said().contains(text).then_some(()))).with_context(|| self.said())
    }

    fn ends(&mut self) -> Result<std::process::ExitStatus> {
        until("its end", PATIENCE, || Ok(self.child.try_wait()?)).with_context(|| self.said())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn decode_bins_take_the_uri_of_a_meeting() -> Result<()> {
    let two = Two::meet()?;
    let _talks = two.alice_talks()?;
    for (bin, picture, sound, uri) in [
        ("uridecodebin3", "in.video_0", "in.audio_0", format!("meeting:///{}", two.id)),
        ("uridecodebin", "in. ! video/x-raw", "in. ! audio/x-raw", format!("meeting://{}/Alice", two.id)),
    ] {
        let seen = two.seen()?;
        let plays = two.stage.pipeline(
            &two.bob,
            &format!(
                "{bin} name=in uri={uri} {picture} ! queue ! {} {sound} ! queue ! {}",
                seen.screen(),
                seen.speaker()
            ),
        )?;
        seen.is_alice().with_context(|| format!("{bin}: {}", plays.log()))?;
        plays.finish()?;
    }
    Ok(())
}

#[test]
fn players_take_the_uri_of_a_meeting_and_end_with_it() -> Result<()> {
    let two = Two::meet()?;
    for bin in ["playbin3", "playbin"] {
        let talks = two.alice_talks()?;
        let seen = two.seen()?;
        let plays = two.stage.pipeline(
            &two.bob,
            &format!(
                "{bin} uri=meeting:///{} video-sink=\"{}\" audio-sink=\"{}\"",
                two.id,
                seen.screen(),
                seen.speaker()
            ),
        )?;
        seen.is_alice().with_context(|| format!("{bin}: {}", plays.log()))?;
        talks.finish()?;
        plays.wait(PATIENCE).with_context(|| format!("{bin} does not end when nobody is left"))?;
    }
    Ok(())
}

#[test]
fn gst_play_plays_a_meeting_until_it_is_over_or_until_it_is_told() -> Result<()> {
    let two = Two::meet()?;
    let seen = two.seen()?;
    let talks = two.alice_talks()?;
    let (screen, speaker) =
        (format!("--videosink={}", seen.screen()), format!("--audiosink={}", seen.speaker()));
    let uri = format!("meeting:///{}", two.id);
    let mut play = Program::start(&two, &["gst-play-1.0", "--no-interactive", &screen, &speaker, &uri])?;
    seen.is_alice().with_context(|| play.said())?;
    talks.finish()?;
    ensure!(play.ends()?.success(), "{}", play.said());

    // One track alone, and Ctrl-C.
    let talks = two.alice_talks()?;
    let (seen, uri) = (two.seen()?, format!("{uri}/Alice/microphone"));
    let speaker = format!("--audiosink={}", seen.speaker());
    // Whoever started the tests in the background had them ignore it.
    let heeds = ["env", "--default-signal=INT"];
    let plays = ["gst-play-1.0", "--no-interactive", &speaker, &uri];
    let mut play = Program::start(&two, &[&heeds[..], &plays[..]].concat())?;
    seen.sounds_like_alice().with_context(|| play.said())?;
    kill_process(Pid::from_raw(play.child.id() as i32).context("no process")?, Signal::INT)?;
    play.ends()?;

    // `q` at a terminal.
    let seen = two.seen()?;
    let line = format!("gst-play-1.0 '--audiosink={}' {uri}", seen.speaker());
    let mut play = Program::start(&two, &["script", "-qec", &line, "/dev/null"])?;
    seen.sounds_like_alice().with_context(|| play.said())?;
    play.child.stdin.as_mut().context("no terminal")?.write_all(b"q")?;
    ensure!(play.ends()?.success(), "{}", play.said());
    drop(talks);
    Ok(())
}

#[test]
fn the_device_monitor_shows_the_tracks_as_they_come_and_go() -> Result<()> {
    let two = Two::meet()?;
    let follows = Program::start(&two, &["gst-device-monitor-1.0", "-f", "Video/Source/Network"])?;
    follows.says("Monitoring devices")?;
    let talks = two.alice_talks()?;
    follows.says("Alice (camera)")?;
    ensure!(!follows.said().contains("microphone"), "{}", follows.said());

    // One look at everything: who lists devices is not kept waiting, so a busy machine may show them the next time.
    let said = until("both tracks in one list", PATIENCE, || {
        let mut list = Program::start(&two, &["gst-device-monitor-1.0", "Source/Network"])?;
        ensure!(list.ends()?.success(), "{}", list.said());
        let said = list.said();
        Ok((said.contains("Alice (camera)") && said.contains("Alice (microphone)")).then_some(said))
    })?;
    for text in
        ["Video/Source/Network", "Audio/Source/Network", "application/x-sframe", "gst-launch-1.0 meetingsrc"]
    {
        ensure!(said.contains(text), "{text}: {said}");
    }
    talks.finish()?;
    follows.says("Device removed")
}

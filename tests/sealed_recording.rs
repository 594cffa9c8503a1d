//! A meeting recorded sealed, by a machine that cannot watch it, and opened later from a key file: without relay, agent
//! or meeting, and no further than the key file reaches.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use meeting_protocol::{
    frame::{Header, KeyId, OpenKey, Opener},
    keyfile::{Ending, KeyFile, RecordedKey},
};
use meeting_wire::{Decode, Envelope, ParticipantId, Reader};
use rig::{Agent, Hoarder, Pipeline, Program, Stage, Stalls, Stats, until};
use rustix::process::Signal;

const WORDS: &str = "correct horse battery staple";

/// `pipelines/record-sealed`.
fn record(stage: &Stage, agent: &Agent, file: &Path, more: &[&str]) -> Result<Program> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/record-sealed");
    Program::start(stage, agent, Command::new(script).arg(file).args(more))
}

/// `meeting-agent record-keys`.
fn record_keys(stage: &Stage, agent: &Agent, file: &Path, more: &[&str]) -> Result<Program> {
    let mut command = agent.command(&["record-keys"]);
    command.arg(file).arg("--passphrase-file").arg(words(stage)?).args(more);
    Program::start(stage, agent, &mut command)
}

/// A file with the passphrase.
fn words(stage: &Stage) -> Result<PathBuf> {
    let path = stage.folder().join("words");
    fs::write(&path, WORDS)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(path)
}

/// Alice leads, Robert and Carol are in, Carol as a recorder.
fn three(stage: &Stage) -> Result<(Agent, Agent, Agent, String)> {
    let (alice, robert, carol) = (stage.agent("Alice")?, stage.agent("Robert")?, stage.agent("Carol")?);
    let link = alice.create(stage)?;
    robert.join(&link)?;
    carol.run(&["join", "--role", "recorder", "-"], &link)?;
    Ok((alice, robert, carol, link))
}

/// Picture and noise, and what was sealed of each in a file of its own: frames, one after another. Of a tone many frames are the
/// same, and nobody could say where in the file they stand.
fn publish(stage: &Stage, agent: &Agent) -> Result<Pipeline> {
    stage.pipeline(
        agent,
        &format!(
            "meetingkey meetingsink name=out videotestsrc is-live=true pattern=ball \
             ! video/x-raw,width=160,height=90,framerate=15/1 ! x264enc tune=zerolatency speed-preset=ultrafast \
               key-int-max=5 bitrate=300 ! tee name=v ! queue ! e2eeseal track=camera ! out. \
             v. ! queue ! filesink location={} buffer-mode=unbuffered async=false \
             audiotestsrc is-live=true wave=white-noise volume=0.3 ! audio/x-raw,rate=48000,channels=1 ! opusenc \
               ! tee name=a ! queue ! e2eeseal track=microphone ! out. \
             a. ! queue ! filesink location={} buffer-mode=unbuffered async=false",
            sent(stage, agent, "camera").display(),
            sent(stage, agent, "microphone").display(),
        ),
    )
}

fn sent(stage: &Stage, agent: &Agent, track: &str) -> PathBuf {
    stage.folder().join(format!("{}.{track}", agent.name()))
}

/// A frame as the file has it: its track's number, who seals that, and the frame.
struct Recorded {
    track: usize,
    from: ParticipantId,
    envelope: Envelope,
}

/// The frames of a recording, by the bytes that PROTOCOL.md gives.
fn frames(file: &Path) -> Result<Vec<Recorded>> {
    let bytes = fs::read(file)?;
    if bytes.is_empty() {
        // Nobody was there yet.
        return Ok(Vec::new());
    }
    let mut reader = Reader::new(bytes.strip_prefix(b"e2er\x01").context("no recording")?);
    let (mut tracks, mut frames) = (Vec::new(), Vec::new());
    while let Ok(body) = reader.bytes(64 << 20, "a record") {
        let (kind, body) = body.split_first().context("an empty record")?;
        let mut body = Reader::new(body);
        match kind {
            0 => tracks.push(ParticipantId::decode(&mut body)?),
            1 => {
                let track = body.u32()? as usize;
                let from = *tracks.get(track).context("a frame of no track")?;
                frames.push(Recorded { track, from, envelope: Envelope::decode(&mut body)? });
            }
            _ => {}
        }
    }
    Ok(frames)
}

/// The keys of a file.
fn keys(file: &Path) -> Result<KeyFile> {
    Ok(KeyFile::open(&fs::read(file)?, WORDS.as_bytes())?)
}

/// Whether a key opens a frame, whatever the frame names.
fn opens(key: &RecordedKey, sealed: &[u8]) -> bool {
    let mut opener = Opener::new();
    opener.insert(OpenKey { kid: key.kid, suite: key.suite, base_key: key.base_key.duplicate(), floor: 0 });
    opener.open(sealed).is_ok()
}

fn epoch_byte(sealed: &[u8]) -> Result<u8> {
    let (header, _) = Header::parse(sealed).context("no frame")?;
    Ok(KeyId::from(header.kid).epoch_byte())
}

/// Plays a recording without an agent, every track of it into a file.
fn play(stage: &Stage, film: &Path, key_file: &Path, pads: &[&str]) -> Result<Vec<Vec<u8>>> {
    let file = |pad: &str| stage.folder().join(format!("played-{pad}"));
    let branches = pads.iter().map(|pad| {
        format!(
            "demux.{pad} ! queue max-size-buffers=0 max-size-bytes=0 max-size-time=0 ! e2eeopen name={pad} \
             ! filesink async=false location={}",
            file(pad).display()
        )
    });
    let description = format!(
        "meetingkey key-file={} passphrase-file={} filesrc location={} ! e2eedemux name=demux {}",
        key_file.display(),
        words(stage)?.display(),
        film.display(),
        branches.collect::<Vec<_>>().join(" ")
    );
    let stats = alone(stage, &description)?;
    let opened: u64 = pads.iter().map(|pad| stats.get(pad, "opened")).sum();
    ensure!(opened == stats.get("demux", "frames") && opened > 0, "{}", stats.0);
    pads.iter().map(|pad| Ok(fs::read(file(pad))?)).collect()
}

/// Runs a pipeline to its end where no agent is.
fn alone(stage: &Stage, description: &str) -> Result<Stats> {
    let nobody = stage.folder().join("nobody/agent.sock");
    Pipeline::start(stage.programs(), &stage.folder().join("players"), nobody, description)?
        .wait(Duration::from_secs(60))
}

fn contains(whole: &[u8], part: &[u8]) -> bool {
    find(whole, part).is_some()
}

fn find(whole: &[u8], part: &[u8]) -> Option<usize> {
    let head = &part[..part.len().min(16)];
    let mut at = 0;
    while let Some(next) = whole[at..].windows(head.len()).position(|run| run == head) {
        if whole[at + next..].starts_with(part) {
            return Some(at + next);
        }
        at += next + 1;
    }
    None
}

/// The lengths that the frames of each track have when they are opened.
fn lengths(frames: &[Recorded]) -> Result<BTreeMap<usize, Vec<usize>>> {
    let mut lengths: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for Recorded { track, envelope, .. } in frames {
        let (_, header) = Header::parse(&envelope.sealed).context("no frame")?;
        lengths.entry(*track).or_default().push(envelope.sealed.len() - header - 16);
    }
    Ok(lengths)
}

/// Whether this is one of these tracks, and frames of what was sealed, each whole and in its place, and so many tenths of it.
fn was_sealed(sealed: &[u8], played: &[u8], tracks: &BTreeMap<usize, Vec<usize>>, tenths: usize) -> bool {
    tracks.values().any(|lengths| are_frames_of(sealed, played, lengths, tenths))
}

/// Almost all: when somebody leaves, what would be sealed before the next key is there is dropped. Less where the machine stood
/// still: a picture that comes too late takes the rest of its group along.
fn tenths(stalls: &Stalls) -> usize {
    if stalls.may_cost_frames() { 8 } else { 9 }
}

fn are_frames_of(sealed: &[u8], played: &[u8], lengths: &[usize], tenths: usize) -> bool {
    let (mut first, mut end, mut rest) = (None, 0, played);
    for len in lengths {
        let Some((frame, behind)) = rest.split_at_checked(*len) else { return false };
        let Some(at) = find(&sealed[end..], frame).map(|at| end + at) else { return false };
        first.get_or_insert(at);
        (end, rest) = (at + len, behind);
    }
    rest.is_empty() && first.is_some_and(|first| played.len() * 10 >= (end - first) * tenths)
}

fn rotate(alice: &Agent) -> Result<u64> {
    let before = alice.status()?["epoch"].as_u64().context("no epoch")?;
    alice.run(&["rotate"], "")?;
    let now = alice.until("a new epoch", |status| status["epoch"].as_u64() > Some(before))?;
    now["epoch"].as_u64().context("no epoch")
}

/// Waits until so many frames more are in the file.
fn record_on(film: &Path, more: usize) -> Result<()> {
    let wanted = frames(film)?.len() + more;
    until("frames in the recording", Duration::from_secs(40), || {
        Ok((frames(film)?.len() >= wanted).then_some(()))
    })
}

#[test]
fn a_meeting_recorded_sealed_opens_later_to_exactly_what_was_sealed() -> Result<()> {
    let stage = Stage::open()?;
    let (alice, robert, carol, link) = three(&stage)?;
    let stalls = Stalls::watch();
    let (shows, talks) = (publish(&stage, &alice)?, publish(&stage, &robert)?);
    let film = stage.folder().join("meeting.sealed");
    let key_file = stage.folder().join("meeting.sealed.keys");
    let path = words(&stage)?;
    let mut recorder =
        record(&stage, &carol, &film, &["--passphrase-file", path.to_str().context("a path")?])?;
    for track in ["Alice (camera)", "Alice (microphone)", "Robert (camera)", "Robert (microphone)"] {
        recorder.says(&format!("recording {track}"))?;
        recorder.says(&format!("keys of {track}"))?;
    }
    record_on(&film, 150)?;
    rotate(&alice)?;
    record_on(&film, 150)?;
    // Somebody comes and goes: two epochs more.
    let dave = stage.agent("Dave")?;
    dave.join(&link)?;
    record_on(&film, 150)?;
    let with_dave = carol.status()?["epoch"].as_u64();
    dave.run(&["leave"], "")?;
    carol.until("the next epoch", |status| status["epoch"].as_u64() > with_dave)?;
    record_on(&film, 200)?;
    ensure!(recorder.end(Signal::INT)?.success(), "{}", recorder.said());
    let tenths = tenths(&stalls);
    for file in [&film, &key_file] {
        ensure!(fs::metadata(file)?.permissions().mode() & 0o777 == 0o600, "{}", file.display());
    }
    let sent_by = |agent: &Agent, track: &str| fs::read(sent(&stage, agent, track));
    drop((shows, talks));

    let held = keys(&key_file)?;
    let epochs: BTreeSet<u64> = held.keys.iter().map(|key| key.epoch).collect();
    ensure!(held.ending == Ending::Whole && epochs.len() >= 4, "{:?} {epochs:?}", held.ending);

    // What the file shows is no run of what was sealed, nor anybody's name. (Three letters stand in so many bytes by chance.)
    let bytes = fs::read(&film)?;
    for word in ["Alice", "Robert", "Carol", "camera", "microphone", "video/x-h264", "audio/x-opus", WORDS] {
        ensure!(!contains(&bytes, word.as_bytes()), "{word} stands in the recording");
    }
    let alices = sent_by(&alice, "camera")?;
    for at in (64..alices.len() - 24).step_by(997) {
        ensure!(!contains(&bytes, &alices[at..at + 24]), "a clear run of the camera at {at}");
    }

    // The relay and everybody's agents could be gone by now; nobody asks them.
    let pads = ["video_0", "video_1", "audio_0", "audio_1"];
    let played = play(&stage, &film, &key_file, &pads)?;
    let mut sealed = vec![
        alices,
        sent_by(&robert, "camera")?,
        sent_by(&alice, "microphone")?,
        sent_by(&robert, "microphone")?,
    ];
    let all = frames(&film)?;
    let tracks = lengths(&all)?;
    for (pad, played) in pads.iter().zip(&played) {
        ensure!(played.len() > 4_000, "{pad} gave {} bytes", played.len());
        let place = sealed.iter().position(|sent| was_sealed(sent, played, &tracks, tenths));
        sealed.remove(place.with_context(|| format!("{pad} gave what nobody sealed, or not all of it"))?);
    }

    // Every frame of the file was opened, byte by byte.
    let (opened, tags): (usize, usize) = (played.iter().map(Vec::len).sum(), all.len() * 16);
    let headers: usize =
        all.iter().filter_map(|frame| Header::parse(&frame.envelope.sealed)).map(|(_, len)| len).sum();
    let in_file: usize = all.iter().map(|frame| frame.envelope.sealed.len()).sum();
    ensure!(opened + tags + headers == in_file, "{opened} bytes of {in_file}");

    // And an ordinary player shows pictures.
    let pictures = decode(&stage, &film, &key_file)?;
    ensure!(pictures >= 60, "{pictures} pictures");
    Ok(())
}

/// Plays by `decodebin`, in the words that a person would type, and counts pictures.
fn decode(stage: &Stage, film: &Path, key_file: &Path) -> Result<usize> {
    let screen = stage.folder().join("screen");
    let line = format!(
        "meetingkey key-file={} passphrase-file={} filesrc location={} ! decodebin ! videoconvert \
         ! video/x-raw,format=RGB,width=160,height=90 ! filesink location={}",
        key_file.display(),
        words(stage)?.display(),
        film.display(),
        screen.display()
    );
    alone(stage, &line)?;
    Ok(fs::metadata(&screen)?.len() as usize / (160 * 90 * 3))
}

#[test]
fn a_key_file_opens_its_tracks_in_its_epochs_and_nothing_else() -> Result<()> {
    let stage = Stage::open()?;
    let (alice, robert, carol, link) = three(&stage)?;
    let _talking = (publish(&stage, &alice)?, publish(&stage, &robert)?);
    let film = stage.folder().join("meeting.sealed");
    let mut recorder = record(&stage, &carol, &film, &["--without-keys"])?;
    for track in ["Alice (camera)", "Alice (microphone)", "Robert (camera)", "Robert (microphone)"] {
        recorder.says(&format!("recording {track}"))?;
    }
    record_on(&film, 150)?;

    // Only Alice's microphone, from an epoch on whose forerunner nobody hands out any more.
    let first = rotate(&alice)?;
    until("the end of the epoch before", Duration::from_secs(20), || {
        let hoarder = Hoarder::start(&carol.socket())?;
        hoarder.until_it_has_keys()?;
        std::thread::sleep(Duration::from_millis(500));
        Ok(hoarder.epochs().first().is_some_and(|epoch| *epoch >= first).then_some(()))
    })?;
    let key_file = stage.folder().join("microphone.keys");
    let wanted = ["--participant", "Alice", "--track", "microphone"];
    let mut keeper = record_keys(&stage, &carol, &key_file, &wanted)?;
    keeper.says("keys of Alice (microphone)")?;
    let dave = stage.agent("Dave")?;
    dave.join(&link)?;
    let last = alice.status()?["epoch"].as_u64().context("no epoch")?;
    until("the newest key in the file", Duration::from_secs(20), || {
        Ok(keys(&key_file)?.keys.iter().any(|key| key.epoch >= last).then_some(()))
    })?;
    record_on(&film, 150)?;
    ensure!(keeper.end(Signal::INT)?.success(), "{}", keeper.said());

    let after = rotate(&alice)?;
    record_on(&film, 300)?;
    ensure!(recorder.end(Signal::INT)?.success(), "{}", recorder.said());

    let held = keys(&key_file)?;
    let id = |name: &str| -> Result<ParticipantId> {
        let status = carol.status()?;
        let people = status["people"].as_array().context("no people")?;
        let person = people.iter().find(|person| person["name"] == name).context("nobody of that name")?;
        Ok(person["id"].as_str().context("no id")?.parse()?)
    };
    let (alices, roberts) = (id("Alice")?, id("Robert")?);
    for key in &held.keys {
        ensure!((key.from, key.track.as_str()) == (alices, "microphone"), "a key of {} too", key.track);
        ensure!((first..after).contains(&key.epoch), "a key of epoch {}", key.epoch);
    }
    let stream = held.keys.first().context("no key")?.stream;
    let (mut opened, mut others, mut before, mut later) = (0, 0, 0, 0);
    for frame in frames(&film)? {
        let sealed = &frame.envelope.sealed;
        let (header, _) = Header::parse(sealed).context("no frame")?;
        let ours = (frame.from, KeyId::from(header.kid).stream()) == (alices, stream);
        let byte = epoch_byte(sealed)?;
        let inside = (first..after).any(|epoch| epoch as u8 == byte);
        let opens = held.keys.iter().any(|key| opens(key, sealed));
        ensure!(opens == (ours && inside), "stream {} of epoch byte {byte}", KeyId::from(header.kid));
        opened += usize::from(opens);
        others += usize::from(!ours && (frame.from == alices || frame.from == roberts));
        before += usize::from(ours && byte < first as u8);
        later += usize::from(ours && byte >= after as u8);
    }
    ensure!(opened > 20 && others > 100 && before > 5 && later > 5, "{opened} {others} {before} {later}");
    Ok(())
}

#[test]
fn what_a_crash_leaves_opens() -> Result<()> {
    let stage = Stage::open()?;
    let (alice, _robert, carol, _) = three(&stage)?;
    let stalls = Stalls::watch();
    let _shows = publish(&stage, &alice)?;
    let film = stage.folder().join("meeting.sealed");
    let key_file = stage.folder().join("meeting.sealed.keys");
    let path = words(&stage)?;
    let mut recorder =
        record(&stage, &carol, &film, &["--passphrase-file", path.to_str().context("a path")?])?;
    for track in ["Alice (camera)", "Alice (microphone)"] {
        recorder.says(&format!("recording {track}"))?;
        recorder.says(&format!("keys of {track}"))?;
    }
    record_on(&film, 100)?;
    rotate(&alice)?;
    record_on(&film, 100)?;
    // Both programs are of one group.
    recorder.end(Signal::KILL)?;
    let tenths = tenths(&stalls);
    ensure!(keys(&key_file)?.ending == Ending::Cut);
    let played = play(&stage, &film, &key_file, &["video_0", "audio_0"])?;
    let tracks = lengths(&frames(&film)?)?;
    for (track, played) in ["camera", "microphone"].iter().zip(&played) {
        let sent = fs::read(sent(&stage, &alice, track))?;
        let whole = was_sealed(&sent, played, &tracks, tenths);
        ensure!(played.len() > 4_000 && whole, "{track}: {}", played.len());
    }
    ensure!(decode(&stage, &film, &key_file)? >= 20);
    Ok(())
}

#[test]
fn nobody_keeps_keys_unseen_and_no_file_is_overwritten() -> Result<()> {
    let stage = Stage::open()?;
    let (alice, carol) = (stage.agent("Alice")?, stage.agent("Carol")?);
    let key_file = stage.folder().join("keys");
    let refused = |more: &[&str], said: &str| -> Result<()> {
        let mut keeper = record_keys(&stage, &carol, &key_file, more)?;
        let status = keeper.ends()?;
        ensure!(!status.success() && keeper.said().contains(said), "{}", keeper.said());
        Ok(())
    };
    refused(&[], "meeting-agent join")?;
    let link = alice.create(&stage)?;
    carol.join(&link)?;
    refused(&[], "--role recorder")?;
    ensure!(!key_file.exists(), "nothing was written");
    carol.run(&["leave"], "")?;
    carol.run(&["join", "--role", "recorder", "-"], &link)?;
    fs::write(&key_file, "mine")?;
    refused(&[], "cannot make the key file")?;
    ensure!(fs::read(&key_file)? == b"mine");
    fs::remove_file(&key_file)?;
    let mut keeper = record_keys(&stage, &carol, &key_file, &[])?;
    keeper.says("keeping keys")?;
    // The meeting's end is the file's.
    alice.run(&["leave"], "")?;
    let status = keeper.ends()?;
    ensure!(status.success() && keys(&key_file)?.ending == Ending::Whole, "{}", keeper.said());
    Ok(())
}

#[test]
fn the_commands_of_the_plugins_page_work_as_written() -> Result<()> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/README.md"))?;
    let block =
        page.split("```sh\n").nth(1).and_then(|rest| rest.split("\n```").next()).context("no commands")?;
    let [keep, record, watch] = block.lines().collect::<Vec<_>>()[..] else {
        anyhow::bail!("three commands, not {block}");
    };
    let stage = Stage::open()?;
    let (alice, _robert, carol, _) = three(&stage)?;
    let _shows = stage.pipeline(
        &alice,
        "meetingkey videotestsrc is-live=true ! video/x-raw,width=160,height=90,framerate=15/1 \
         ! x264enc tune=zerolatency key-int-max=15 ! e2eeseal ! meetingsink",
    )?;
    words(&stage)?;
    let shell = |line: &str| -> Result<Program> {
        let programs = stage.programs().folder().display().to_string();
        // Nobody sits before a screen here.
        let line = line.trim_end_matches(" &").replace("autovideosink", "filesink location=screen");
        let mut command = Command::new("bash");
        command.args(["-c", &format!("exec {line}")]).current_dir(stage.folder());
        command.env("PATH", format!("{programs}:{}", std::env::var("PATH")?));
        Program::start(&stage, &carol, &mut command)
    };
    let mut keeper = shell(keep)?;
    keeper.says("keys of Alice (video)")?;
    let film = stage.folder().join("meeting.sealed");
    let mut recorder = shell(record)?;
    recorder.until("pictures in the recording", |_| {
        Ok(fs::metadata(&film).ok().filter(|meta| meta.len() > 100_000).map(drop))
    })?;
    ensure!(
        recorder.end(Signal::INT)?.success() && keeper.end(Signal::INT)?.success(),
        "{}{}",
        recorder.said(),
        keeper.said()
    );
    // Not until it ends: `gst-launch-1.0` may miss that (tests/rig/pipeline.rs).
    let screen = stage.folder().join("screen");
    let mut watcher = shell(watch)?;
    watcher.until("20 pictures", |_| {
        Ok(fs::metadata(&screen).ok().filter(|meta| meta.len() > 20 * 160 * 90 * 3 / 2).map(drop))
    })?;
    ensure!(!watcher.said().contains("ERROR"), "{}", watcher.said());
    Ok(())
}

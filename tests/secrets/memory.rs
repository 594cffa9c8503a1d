//! What is found of keys in the memory of running programs, by whoever may look into it, and in the cores that they leave.
//!
//! Root looks into everything. Anybody else cannot look into an agent, and that is what is asserted then.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::ErrorKind,
    os::unix::{fs::FileExt, process::ExitStatusExt},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use meeting_protocol::{
    crypto::aead::{Aead, NONCE_LEN, Refused, TAG_LEN},
    frame::FrameKey,
};
use rig::did_not_run;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, getuid, prlimit};

use super::{
    WATCHES,
    stage::{Killed, Stage, StreamKey, open_keys},
};

const TALKS: &str = "meetingkey audiotestsrc is-live=true samplesperbuffer=960 ! audio/x-raw,rate=48000 ! opusenc \
    ! e2eeseal ! meetingsink";
const HEARS: &str =
    "meetingkey meetingsrc name=in in.audio_0 ! queue ! e2eeopen name=open ! fakesink async=false";

#[test]
fn a_look_into_memory_finds_a_pipelines_aead_keys_and_nothing_of_an_agent() -> Result<()> {
    let meeting = Meeting::start()?;
    let maps = fs::read_to_string(format!("/proc/{}/maps", meeting.talks.id()));
    let Ok(maps) = maps else {
        did_not_run("nobody may look into another process here");
        return Ok(());
    };
    if !maps.contains("secretmem") {
        did_not_run("this kernel has no memfd_secret");
        return Ok(());
    }
    // The keys that are found show that the search finds what is there.
    for pipeline in [&meeting.talks, &meeting.watches] {
        let found = look(pipeline.id(), &meeting.keys)?.context("a pipeline can be looked into")?;
        ensure!(found == meeting.all("AEAD key"), "a pipeline: {found:?}");
    }
    for (who, agent) in meeting.agents().into_iter().enumerate() {
        match look(agent, &meeting.keys)? {
            Some(found) => {
                ensure!(getuid().is_root(), "an agent can be looked into");
                ensure!(found.is_empty(), "agent {who}: {found:?}");
            }
            None => eprintln!("agent {who} is closed"),
        }
    }
    Ok(())
}

#[test]
fn a_core_of_a_pipeline_holds_its_aead_keys_and_no_other_and_an_agent_leaves_none() -> Result<()> {
    let mut meeting = Meeting::start()?;
    let mut cores = Vec::new();
    for pipeline in [&meeting.talks, &meeting.watches] {
        cores.extend(gcore(pipeline.id(), meeting.stage.folder.path())?);
    }
    let agents = meeting.stage.take_agents();
    let keys = meeting.keys;
    // The listener ends by itself once nobody talks.
    for (who, pipeline) in [(1, meeting.watches), (0, meeting.talks)] {
        let folder = meeting.stage.folder.path().join(format!("said/{who}"));
        cores.extend(dump(pipeline, &folder)?);
    }
    for agent in agents {
        let status = agent.end_by(Signal::ABORT)?;
        ensure!(status.signal() == Some(Signal::ABORT.as_raw()) && !status.core_dumped(), "{status}");
    }
    if cores.is_empty() {
        did_not_run("the kernel keeps no cores here, and there is no gcore");
    }
    let aead_keys: Found = all(&keys, "AEAD key");
    for core in cores {
        let found: Found = count(&core, &keys);
        ensure!(found == aead_keys, "a core of {} bytes: {found:?}", core.len());
    }
    Ok(())
}

#[test]
fn a_pipeline_that_has_ended_holds_no_key() -> Result<()> {
    let stage = Stage::open()?;
    let link = stage.create()?;
    stage.agent(1, &["join", "-"], &link)?;
    let talks = stage.lingering(0, TALKS)?;
    let mut hears = stage.lingering(1, HEARS)?;
    hears.until("sound that opens", |stats| stats.get("open", "opened") >= 60)?;
    let keys = all_keys(&stage, &link)?;
    for (name, mut pipeline) in [("the listener", hears), ("the speaker", talks)] {
        let Some(running) = look(pipeline.pid(), &keys)? else {
            did_not_run("nobody may look into another process here");
            return Ok(());
        };
        // Keys of an epoch that closes meanwhile go.
        let newest = all(&keys, "AEAD key").pop_last().context("no key")?;
        ensure!(running.contains(&newest), "{name}, while it runs: {running:?}");
        pipeline.rest()?;
        let core = gcore(pipeline.pid(), stage.folder.path())?.map(|core| count(&core, &keys));
        let seen = [look(pipeline.pid(), &keys)?, core];
        ensure!(seen.iter().flatten().all(Found::is_empty), "{name}, when it has ended: {seen:?}");
    }
    Ok(())
}

/// A meeting in which Alice talks and Bob hears her.
struct Meeting {
    stage: Stage,
    talks: Killed,
    watches: Killed,
    keys: Keys,
}

/// What is looked for, by name.
type Keys = Vec<(String, Vec<u8>)>;
/// Names of what was found.
type Found = BTreeSet<String>;

impl Meeting {
    fn start() -> Result<Self> {
        let stage = Stage::open()?;
        let link = stage.create()?;
        stage.agent(1, &["join", "-"], &link)?;
        let talks = stage.launch(0, TALKS)?;
        let watches = stage.launch(1, WATCHES)?;
        stage.until_it_opens(60)?;
        let keys = all_keys(&stage, &link)?;
        Ok(Self { stage, talks, watches, keys })
    }

    fn agents(&self) -> Vec<u32> {
        self.stage.pids().split_off(1)
    }

    fn all(&self, kind: &str) -> Found {
        all(&self.keys, kind)
    }
}

/// The secrets of a meeting, and what Bob opens Alice's sound with.
fn all_keys(stage: &Stage, link: &str) -> Result<Keys> {
    let mut keys = stage.canaries(link)?;
    for key in open_keys(&stage.socket(1))? {
        keys.push((format!("AEAD key {:?}", key.kid), aead_key(&key)));
        keys.push((format!("base key {:?}", key.kid), key.base_key.expose().to_vec()));
    }
    Ok(keys)
}

fn all(keys: &Keys, kind: &str) -> Found {
    keys.iter().filter(|(name, _)| name.starts_with(kind)).map(|(name, _)| name.clone()).collect()
}

/// What of it stands in these bytes.
fn count(bytes: &[u8], keys: &Keys) -> Found {
    let mut starts = [const { Vec::new() }; 256];
    for key in keys {
        starts[usize::from(key.1[0])].push(key);
    }
    let found = bytes.iter().enumerate().flat_map(|(at, byte)| {
        let candidates = starts[usize::from(*byte)].iter();
        candidates.filter(move |(_, key)| bytes[at..].starts_with(key)).map(|(name, _)| name.clone())
    });
    found.collect()
}

/// What of it is found in all that can be read of a process's memory; nothing is known of one that is closed.
fn look(pid: u32, keys: &Keys) -> Result<Option<Found>> {
    let open = || -> std::io::Result<_> {
        Ok((fs::read_to_string(format!("/proc/{pid}/maps"))?, File::open(format!("/proc/{pid}/mem"))?))
    };
    let (maps, memory) = match open() {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(None),
        other => other?,
    };
    let mut found = Found::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, mode) = words.next().zip(words.next()).context("a line of maps")?;
        let (start, end) = range.split_once('-').context("a range")?;
        let (start, end) = (u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?);
        if mode.starts_with('r') {
            let mut bytes = vec![0; usize::try_from(end - start)?];
            // A page that cannot be read stays zeros.
            for (n, page) in bytes.chunks_mut(PAGE).enumerate() {
                let _ = memory.read_exact_at(page, start + (n * PAGE) as u64);
            }
            found.extend(count(&bytes, keys));
        }
    }
    Ok(Some(found))
}

/// The core that the kernel writes of a program that aborts; none where cores go elsewhere than into its folder.
fn dump(process: Killed, folder: &Path) -> Result<Option<Vec<u8>>> {
    let pid = Pid::from_raw(process.id() as i32);
    let most = getrlimit(Resource::Core).maximum;
    prlimit(pid, Resource::Core, Rlimit { current: most, maximum: most })?;
    let status = process.end_by(Signal::ABORT)?;
    ensure!(status.signal() == Some(Signal::ABORT.as_raw()), "{status}");
    let file = fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core")));
    Ok(file.map(fs::read).transpose()?)
}

/// The core that a debugger writes, where there is one.
fn gcore(pid: u32, folder: &Path) -> Result<Option<Vec<u8>>> {
    let file = folder.join("gcore");
    let written = Command::new("gcore")
        .arg("-o")
        .arg(&file)
        .arg(pid.to_string())
        .env_remove("LD_PRELOAD")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !written.is_ok_and(|status| status.success()) {
        return Ok(None);
    }
    Ok(Some(fs::read(folder.join(format!("gcore.{pid}")))?))
}

const PAGE: usize = 4096;

/// What RFC 9605 derives for the AEAD from a base key.
fn aead_key(key: &StreamKey) -> Vec<u8> {
    FrameKey::<Shown>::derive(key.suite, key.kid, key.base_key.expose()).aead().0.clone()
}

/// An AEAD that shows its key and does nothing else.
struct Shown(Vec<u8>);

impl Aead for Shown {
    fn aes_128_gcm(key: &[u8; 16]) -> Self {
        Self(key.to_vec())
    }

    fn aes_256_gcm(key: &[u8; 32]) -> Self {
        Self(key.to_vec())
    }

    fn seal(
        &self,
        _: &[u8; NONCE_LEN],
        _: &[u8],
        _: &[u8],
        _: &mut [u8],
        _: &mut [u8; TAG_LEN],
    ) -> Result<(), Refused> {
        Err(Refused)
    }

    fn open(
        &self,
        _: &[u8; NONCE_LEN],
        _: &[u8],
        _: &[u8],
        _: &[u8; TAG_LEN],
        _: &mut [u8],
    ) -> Result<(), Refused> {
        Err(Refused)
    }

    fn seal_in_place_detached(
        &self,
        _: &[u8; NONCE_LEN],
        _: &[u8],
        _: &mut [u8],
    ) -> Result<[u8; TAG_LEN], Refused> {
        Err(Refused)
    }

    fn open_in_place(
        &self,
        _: &[u8; NONCE_LEN],
        _: &[u8],
        _: &mut [u8],
        _: &[u8; TAG_LEN],
    ) -> Result<(), Refused> {
        Err(Refused)
    }
}

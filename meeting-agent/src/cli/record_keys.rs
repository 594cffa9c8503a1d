//! `meeting-agent record-keys`: the stream keys of what is recorded, into a file under a passphrase.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    io::{self, IsTerminal, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use meeting_protocol::{
    frame::{CipherSuite, KeyId},
    keyfile::{Cost, KeyFileWriter, MAX_PASSPHRASE, RecordedKey, passphrase},
    local::{FromAgent, Purpose, ToAgent},
};
use meeting_wire::{MeetingId, ParticipantId, StreamId};
use tokio::{
    net::UnixStream,
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep},
};
use zeroize::Zeroizing;

use super::{Client, Common, client::hear, hidden};
use crate::{
    clock,
    control::{Request, Status},
    hygiene, people, private,
    show::{harmless, sentence},
};

#[derive(Debug, Args)]
#[command(long_about = LONG)]
pub struct RecordKeys {
    /// The key file to write (mode 0600), which must not be there yet
    file: PathBuf,
    /// Only tracks with this label, such as camera; may be given more than once
    #[arg(long, value_name = "LABEL")]
    track: Vec<String>,
    /// Only this person's: a name, or an id as `status --json` shows it; may be given more than once
    #[arg(long, value_name = "NAME")]
    participant: Vec<String>,
    /// The passphrase is the first line of this file (mode 0600), or of stdin for -
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl RecordKeys {
    pub fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        hygiene::protect()?;
        // Before anything is asked: who may not record need not think of a passphrase.
        let meeting = recorder(common)?;
        let words = self.passphrase()?;
        let wants = Wants { tracks: self.track, people: self.participant };
        let mut file = KeyFile::create(&self.file, meeting, &words)?;
        drop(words);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ended = runtime.block_on(record(common, meeting, &wants, &mut file));
        // Whatever ended it: what is there stays, and is whole.
        let keys = file.keys;
        file.finish()?;
        eprintln!("finished {} ({keys} keys)", self.file.display());
        ended.map(|()| ExitCode::SUCCESS)
    }

    fn passphrase(&self) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        let words = match &self.passphrase_file {
            Some(path) if path.as_os_str() != "-" => private::read(path, MAX_PASSPHRASE as u64)?,
            None if io::stdin().is_terminal() => {
                let first = hidden::ask("Passphrase of the key file", MAX_PASSPHRASE)?;
                let again = hidden::ask("The same again", MAX_PASSPHRASE)?;
                ensure!(*first == *again, "the two passphrases differ: try again");
                Zeroizing::new(first.as_bytes().to_vec())
            }
            _ => {
                let mut words = Zeroizing::new(Vec::with_capacity(MAX_PASSPHRASE + 1));
                io::stdin()
                    .lock()
                    .take(MAX_PASSPHRASE as u64 + 1)
                    .read_to_end(&mut words)
                    .context("cannot read the passphrase from stdin")?;
                ensure!(
                    words.len() <= MAX_PASSPHRASE,
                    "the passphrase is longer than {MAX_PASSPHRASE} bytes"
                );
                words
            }
        };
        let words = Zeroizing::new(passphrase(&words).to_vec());
        ensure!(
            words.len() >= SHORTEST,
            "a passphrase of less than {SHORTEST} characters protects nothing: take a longer one"
        );
        Ok(words)
    }
}

/// The meeting in which this agent is a recorder for everybody to see; an error that says what to type if it is none.
fn recorder(common: &Common) -> anyhow::Result<MeetingId> {
    let status: Status = common.client()?.status(&Request::Status { meeting: common.meeting.clone() })?;
    let me = status.people.iter().find(|person| person.me).filter(|_| status.phase == "live");
    let Some(me) = me else {
        bail!(
            "not in a meeting yet: {}",
            if status.detail.is_empty() { &status.phase } else { &status.detail }
        );
    };
    ensure!(
        me.role == "recorder",
        "the others do not see a recorder in you: `meeting-agent leave`, then `meeting-agent join --role recorder`"
    );
    status.meeting.parse().context("the agent is of another version: restart `meeting-agent run`")
}

/// Takes keys until Ctrl-C, the end of the meeting, or the end of the agent.
async fn record(
    common: &Common,
    meeting: MeetingId,
    wants: &Wants,
    file: &mut KeyFile,
) -> anyhow::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => Ok(()),
        _ = int.recv() => Ok(()),
        ended = follow(common, meeting, wants, file) => ended,
    }
}

/// A connection ends with each stay of the agent, which may come back by itself.
async fn follow(
    common: &Common,
    meeting: MeetingId,
    wants: &Wants,
    file: &mut KeyFile,
) -> anyhow::Result<()> {
    let mut stream = connect(common, meeting)?;
    loop {
        if listen(&mut stream, wants, file).await? {
            return Ok(());
        }
        let deadline = Instant::now() + PATIENCE;
        stream = loop {
            let again = recorder(common).and_then(|_| connect(common, meeting));
            match again {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => sleep(EVERY).await,
            }
        };
    }
}

fn connect(common: &Common, meeting: MeetingId) -> anyhow::Result<UnixStream> {
    let mut client = Client::connect_for(&common.socket(), Purpose::Keys { meeting: Some(meeting) })?;
    client.say(&ToAgent::WantOpenKeys)?;
    client.into_async()
}

/// Writes down what comes; true if the meeting is over, false if the connection is.
async fn listen(stream: &mut UnixStream, wants: &Wants, file: &mut KeyFile) -> anyhow::Result<bool> {
    while let Some(message) = hear(stream).await? {
        match message {
            FromAgent::State(state) if state.phase == "ended" => {
                eprintln!("{}", sentence(&state.detail));
                return Ok(true);
            }
            FromAgent::OpenKey { from, name, stream, track, caps, epoch, kid, suite, base_key, .. } => {
                // A suite that no release opens is nothing to keep.
                let Ok(suite) = CipherSuite::try_from(suite) else { continue };
                let key = RecordedKey { from, name, stream, track, caps, epoch, kid, suite, base_key };
                if wants.key(&key) {
                    file.keep(key)?;
                }
            }
            _ => {}
        }
    }
    Ok(false)
}

struct Wants {
    tracks: Vec<String>,
    people: Vec<String>,
}

impl Wants {
    fn key(&self, key: &RecordedKey) -> bool {
        let person = |who: &String| people::is_meant(who, key.from, &key.name);
        (self.tracks.is_empty() || self.tracks.contains(&key.track))
            && (self.people.is_empty() || self.people.iter().any(person))
    }
}

/// The file, in which every key that was told to the user is on the disk.
struct KeyFile {
    file: File,
    writer: KeyFileWriter,
    /// What is in it: the agent says some things again.
    kept: HashSet<(ParticipantId, KeyId, u64, String)>,
    shown: HashSet<(ParticipantId, StreamId)>,
    keys: usize,
}

impl KeyFile {
    fn create(path: &Path, meeting: MeetingId, words: &[u8]) -> anyhow::Result<Self> {
        let (writer, first) = KeyFileWriter::new(meeting, words, Cost::default(), &mut clock::rng()?)?;
        let mut options = OpenOptions::new();
        let file = options.append(true).create_new(true).mode(0o600).open(path);
        let file = file.with_context(|| format!("cannot make the key file {}", path.display()))?;
        let mut new = Self { file, writer, kept: HashSet::new(), shown: HashSet::new(), keys: 0 };
        new.append(&first)?;
        // Or the name would be gone after a crash, and the keys with it.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = File::open(folder.unwrap_or(Path::new(".")));
        folder.and_then(|folder| folder.sync_all()).context(CANNOT_WRITE)?;
        eprintln!("keeping keys in {} (Ctrl-C finishes)", path.display());
        Ok(new)
    }

    fn keep(&mut self, key: RecordedKey) -> anyhow::Result<()> {
        if !self.kept.insert((key.from, key.kid, key.epoch, key.caps.clone())) {
            return Ok(());
        }
        let news = self.shown.insert((key.from, key.stream)).then(|| (key.name.clone(), key.track.clone()));
        let bytes = self.writer.key(key);
        self.append(&bytes)?;
        self.keys += 1;
        if let Some((name, track)) = news {
            eprintln!("keys of {} ({})", harmless(&name), harmless(&track));
        }
        Ok(())
    }

    fn finish(self) -> anyhow::Result<()> {
        let Self { mut file, writer, .. } = self;
        file.write_all(&writer.end()).and_then(|()| file.sync_all()).context(CANNOT_WRITE)
    }

    fn append(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.file.write_all(bytes).and_then(|()| self.file.sync_data()).context(CANNOT_WRITE)
    }
}

const CANNOT_WRITE: &str = "cannot write the key file: what is in it stays";
/// Shorter ones are guessed, whatever a guess costs.
const SHORTEST: usize = 8;
/// How long an agent that is gone may take to come back.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked for.
const EVERY: Duration = Duration::from_millis(500);
const LONG: &str = "\
Keep the stream keys of what is recorded, in a file under a passphrase, until Ctrl-C or the end of the meeting.

A sealed recording (`pipelines/record-sealed`) is opened with it later, and nothing else: it holds the keys of the tracks that
are named, in the epochs that pass while this runs, and no key from which others follow. Start it before the recording, so
that it has every key. An epoch is kept whole: it may have begun a little before.

This agent has to be in the meeting with the role recorder, which everybody sees. Each key is on the disk before its track is
told; what a crash leaves opens. The file is as good as its passphrase: take five random words or more.";

//! `meeting-agent evidence`: proofs that a leader broke the protocol, shown, handed out and checked.

use std::{
    fs::File,
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Subcommand;
use meeting_protocol::evidence::{Evidence, MAX_FILE, Proof};
use serde_json::json;

use super::Common;
use crate::{
    control::{Answer, Request},
    private,
    show::harmless,
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// What this agent has kept
    List,
    /// Hand out a file that anybody can check, without the meeting's link
    #[command(long_about = EXPORT)]
    Export {
        /// The start of an id as `list` shows it; needed only when there are several
        id: Option<String>,
        /// Write to this file (mode 0600), which must not be there yet, instead of stdout
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Check such a file: needs no agent, no link and no secret
    #[command(long_about = VERIFY)]
    Verify {
        /// The file, or - for stdin
        file: PathBuf,
    },
}

impl Command {
    pub fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        match self {
            Command::List => list(common),
            Command::Export { id, file } => export(common, id, file),
            Command::Verify { file } => verify(common, &file),
        }
    }
}

fn list(common: &Common) -> anyhow::Result<ExitCode> {
    let Answer::Evidence { proofs } = common.client()?.ask(&Request::Evidence)? else { bail!(OTHER_VERSION) };
    let mut out = io::stdout().lock();
    if common.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&proofs)?)?;
    } else if proofs.is_empty() {
        eprintln!("no leader was caught breaking the protocol");
    }
    for kept in proofs.iter().filter(|_| !common.json) {
        let leader = harmless(&kept.leader);
        writeln!(
            out,
            "{}  meeting {}  {leader} (device {}) {}",
            kept.id, kept.meeting, kept.device, kept.fault
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn export(common: &Common, id: Option<String>, file: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    if file.is_none() && io::stdout().is_terminal() {
        bail!("evidence is not for a terminal: name a file with `--file`");
    }
    let Answer::Exported { hex } = common.client()?.ask(&Request::ExportEvidence { id })? else {
        bail!(OTHER_VERSION);
    };
    let bytes = hex::decode(hex).context(OTHER_VERSION)?;
    let evidence = Evidence::from_file(&bytes)?;
    let names: Vec<String> = evidence.names().iter().map(|name| harmless(name)).collect();
    eprintln!(
        "this file holds the names {}, and public keys and times of this meeting. {NO_SECRET}",
        names.join(", ")
    );
    match file {
        Some(path) => private::write(&path, &bytes, false)?,
        None => io::stdout().lock().write_all(&bytes)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(common: &Common, file: &Path) -> anyhow::Result<ExitCode> {
    let source: Box<dyn Read> = match file.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(file).with_context(|| format!("cannot read {}", file.display()))?),
    };
    let mut bytes = Vec::new();
    // One more than there may be, so that what is too long is told.
    source.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes).context("cannot read the file")?;
    let proof = Evidence::from_file(&bytes)?.verify()?;
    let mut out = io::stdout().lock();
    if common.json {
        writeln!(out, "{}", shown(&proof))?;
    } else {
        write!(out, "{}", words(&proof))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(proof: &Proof) -> serde_json::Value {
    let device = proof.device.as_ref();
    json!({
        "meeting": proof.meeting.to_string(),
        "run": hex::encode(proof.instance.0),
        "fault": proof.fault.to_string(),
        "leader": device.map(|(_, name)| harmless(name)),
        "device": device.map(|(device, _)| hex::encode(device.0)),
        "stay": proof.leader.to_string(),
        "stay_key": hex::encode(proof.signer.0),
        "creator": hex::encode(proof.creator.0),
        "changes_of_leader": proof.changes,
        "signed": proof.words,
    })
}

fn words(proof: &Proof) -> String {
    let leader = match &proof.device {
        Some((device, name)) => {
            format!(
                "{:?}, device {device}\n          (whole fingerprint {})",
                harmless(name),
                hex::encode(device.0)
            )
        }
        None => "a successor; which device it was this file does not say".into(),
    };
    let chain = match proof.changes {
        0 => "who opened the meeting".to_owned(),
        1 => "after one change of leader".to_owned(),
        n => format!("after {n} changes of leader"),
    };
    format!(
        "Proved: a leader of meeting {} {}.\n\
         leader    {leader}\n\
         chain     {chain}; opened by the device with fingerprint\n          {}\n\
         stay      {}, key {}\n\
         signed    1. {}\n          2. {}\n{LIMITS}",
        proof.meeting,
        proof.fault,
        hex::encode(proof.creator.0),
        proof.leader,
        hex::encode(proof.signer.0),
        proof.words[0],
        proof.words[1],
    )
}

const OTHER_VERSION: &str = "the agent is of another version: restart `meeting-agent run`";
const NO_SECRET: &str = "It holds no secret: no key that opens anything, no link";
const LIMITS: &str = "\
What that means: an honest device signs one chain. The key of this stay signed both, and the device signed for that key.
Not proved: who the person is (names are chosen by their owners: compare the device's fingerprint with one you know), when
it was, which of the two is what others saw, or intent. A stolen device signs like its owner, and a virtual machine that
is run twice from one snapshot signs twice.
";
const EXPORT: &str = "\
Hand out a file that anybody can check with `meeting-agent evidence verify`, without the meeting's link.

It holds two statements that the leader signed, the announce of the meeting's creator (and of the leader, if another), and a
link for each change of leader. In these stand names as people chose them, device and stay keys (public halves), ids,
times by the leader's clock since it began to lead, and who came or went with those links. It holds no media, no key that
opens anything, no link and no address. The names are shown before the file is written.";
const VERIFY: &str = "\
Check a file of evidence: needs no agent, no link and no secret.

Says in words what it proves and what not. Exit code 0: it proves that the leader broke the protocol. 1: it proves nothing.";

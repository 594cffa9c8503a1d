//! Somebody's agent as a process, and its command line.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    Stage,
    programs::{Process, Programs},
    until,
};

/// A running agent.
pub struct Agent {
    name: String,
    folder: PathBuf,
    programs: Programs,
    process: Process,
}

impl Agent {
    /// Starts one that keeps everything in `folder`.
    pub fn start(programs: &Programs, folder: PathBuf, name: &str) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        let process = spawn(programs, &folder, name)?;
        let mut agent = Self { name: name.to_owned(), folder, programs: programs.clone(), process };
        agent.until_it_listens()?;
        Ok(agent)
    }

    /// Ends it on the spot, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again after its end, with the same device key; it is in no meeting then.
    pub fn restart(&mut self) -> Result<()> {
        self.process = spawn(&self.programs, &self.folder, &self.name)?;
        self.until_it_listens()
    }

    fn until_it_listens(&mut self) -> Result<()> {
        let socket = self.socket();
        until("the agent's socket", Duration::from_secs(20), || {
            self.process
                .check()
                .with_context(|| fs::read_to_string(self.folder.join("log")).unwrap_or_default())?;
            Ok(std::os::unix::net::UnixStream::connect(&socket).ok())
        })
        .map(drop)
    }

    /// Who this is.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its socket for elements and the command line.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("run/agent.sock")
    }

    /// The process, for signals.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// A command line for this agent.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.programs.command("meeting-agent");
        command.args(arguments).env("MEETING_AGENT_SOCKET", self.socket());
        command
    }

    /// Runs a command with `input` typed in, and gives what it shows.
    pub fn run(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("no stdin")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "`meeting-agent {}` of {}: {}",
                arguments.join(" "),
                self.name,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Opens a meeting on the stage's relay and gives its link.
    pub fn create(&self, stage: &Stage) -> Result<String> {
        self.create_at(&stage.relay.address.to_string(), &stage.relay.certificate, &[])
    }

    /// Opens a meeting on any relay.
    pub fn create_at(&self, relay: &str, certificate: &str, more: &[&str]) -> Result<String> {
        let mut arguments = vec!["create", "--relay", relay, "--relay-certificate", certificate];
        arguments.extend(more);
        Ok(self.run(&arguments, "")?.trim().to_owned())
    }

    /// Joins and waits until keys are there.
    pub fn join(&self, link: &str) -> Result<()> {
        self.run(&["join", "-"], link).map(drop)
    }

    /// `status --json`.
    pub fn status(&self) -> Result<Value> {
        let status: Value = serde_json::from_str(&self.run(&["status", "--json"], "")?)?;
        // With one meeting its fields are at the top or first in the list.
        Ok(status.get("meetings").and_then(|meetings| meetings.get(0)).cloned().unwrap_or(status))
    }

    /// The security code without its groups.
    pub fn code(&self) -> Result<String> {
        let answer: Value = serde_json::from_str(&self.run(&["code", "--json"], "")?)?;
        let code = answer["code"].as_str().context("no code in the answer")?;
        Ok(code.chars().filter(char::is_ascii_digit).collect())
    }

    /// Waits until its status is as `wanted`.
    pub fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        until(&format!("{what} at {}", self.name), Duration::from_secs(20), || {
            Ok(Some(self.status()?).filter(&wanted))
        })
        .with_context(|| format!("status: {}", self.status().unwrap_or_default()))
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(&mut self) -> Result<()> {
        self.process.signal(rustix::process::Signal::TERM)?;
        self.process.wait(Duration::from_secs(5)).map(drop)
    }

    /// Where it keeps its things.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn spawn(programs: &Programs, folder: &Path, name: &str) -> Result<Process> {
    let mut command = programs.command("meeting-agent");
    command
        .arg("run")
        .arg("--socket")
        .arg(folder.join("run/agent.sock"))
        .arg("--state")
        .arg(folder.join("state"))
        .args(["--name", name])
        .env("RUST_LOG", "info")
        .stderr(fs::OpenOptions::new().create(true).append(true).open(folder.join("log"))?);
    if programs.keep_books() {
        // An agent writes nowhere but into its own directories.
        command.env("E2EE_NONCE_LEDGER", folder.join("state/books"));
    }
    Process::spawn(&format!("the agent of {name}"), &mut command)
}

//! A program or a script of ours as people run it: with what it says in a file, until Ctrl-C.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::{Agent, Pipeline, Stage, until};

/// A running one; it ends when it is dropped.
pub struct Program {
    child: Child,
    out: PathBuf,
}

impl Program {
    /// Starts one that reaches `agent` without being told how.
    pub fn start(stage: &Stage, agent: &Agent, command: &mut Command) -> Result<Self> {
        let out = tempfile::tempdir_in(stage.folder())?.keep().join("out");
        Pipeline::environment(command, stage.programs(), &agent.socket())?;
        let file = fs::File::create(&out)?;
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{command:?}"))?;
        Ok(Self { child, out })
    }

    /// All that it has said.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// Waits until it has said something.
    pub fn says(&mut self, text: &str) -> Result<()> {
        self.until(&format!("{text:?}"), |said| Ok(said.contains(text).then_some(())))
    }

    /// Waits while it runs.
    pub fn until<T>(&mut self, what: &str, mut look: impl FnMut(&str) -> Result<Option<T>>) -> Result<T> {
        until(what, PATIENCE, || {
            // What it says last is there when it has ended.
            let ended = self.child.try_wait()?;
            let found = look(&self.said())?;
            match ended {
                Some(status) if found.is_none() => bail!("it has ended: {status}"),
                _ => Ok(found),
            }
        })
        .with_context(|| self.said())
    }

    /// Waits for it to end by itself.
    pub fn ends(&mut self) -> Result<ExitStatus> {
        until("its end", PATIENCE, || Ok(self.child.try_wait()?)).with_context(|| self.said())
    }

    /// Sends a signal to it and to all that it has started, and waits for its end.
    pub fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        let group = Pid::from_raw(self.child.id() as i32).context("no process")?;
        kill_process_group(group, signal)?;
        self.ends()
    }

    /// Ctrl-C: how it ends, and all it has said.
    pub fn interrupt(mut self) -> Result<(ExitStatus, String)> {
        Ok((self.end(Signal::INT)?, self.said()))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        end_group(&mut self.child);
    }
}

/// Ctrl-C for a script and all that it has started, so that it takes down what it has built; whatever stays is killed.
pub fn end_group(child: &mut Child) {
    if let (Ok(None), Some(group)) = (child.try_wait(), Pid::from_raw(child.id() as i32)) {
        let _ = kill_process_group(group, Signal::INT);
        let _ = until("its end", GRACE, || Ok(child.try_wait()?));
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
}

/// Far more than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a script may take to finish its files.
const GRACE: Duration = Duration::from_secs(10);

//! An application as a process, with what it says in a file.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rig::{Agent, Pipeline, Stage, until};
use rustix::process::{Pid, Signal, kill_process_group};

use super::PATIENCE;

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

    fn said(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// Waits until it has said something.
    pub fn says(&mut self, text: &str) -> Result<()> {
        self.until(&format!("{text:?}"), |said| Ok(said.contains(text).then_some(())))
    }

    /// Waits while it runs.
    pub fn until<T>(&mut self, what: &str, mut look: impl FnMut(&str) -> Result<Option<T>>) -> Result<T> {
        until(what, PATIENCE, || {
            if let Some(status) = self.child.try_wait()? {
                bail!("it has ended: {status}");
            }
            look(&self.said())
        })
        .with_context(|| self.said())
    }

    /// Ctrl-C: how it ends, and all it has said.
    pub fn interrupt(mut self) -> Result<(ExitStatus, String)> {
        self.signal(Signal::INT)?;
        let status = until("its end", Duration::from_secs(10), || Ok(self.child.try_wait()?))
            .with_context(|| self.said())?;
        Ok((status, self.said()))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let group = Pid::from_raw(self.child.id() as i32).context("no process")?;
        Ok(kill_process_group(group, signal)?)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A script may have started more than one program: its group ends.
        let _ = self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

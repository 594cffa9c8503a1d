//! One relay and a folder for everybody's state.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Result;
use tempfile::TempDir;

use crate::{Agent, Pipeline, Programs, Relay};

/// Where a meeting happens.
pub struct Stage {
    /// The relay, stopped when dropped.
    pub relay: Relay,
    programs: Programs,
    folder: TempDir,
    agents: AtomicU32,
}

impl Stage {
    /// Starts a relay in a fresh folder.
    pub fn open() -> Result<Self> {
        Self::with(false)
    }

    /// The same, with everybody's nonces on the books, for [`check_books`](Self::check_books).
    #[cfg(feature = "ledger")]
    pub fn with_books() -> Result<Self> {
        Self::with(true)
    }

    fn with(books: bool) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("meeting").tempdir()?;
        let mut programs = Programs::find()?;
        if books {
            programs = programs.with_books();
        }
        let relay = Relay::start(&programs, folder.path().join("relay"), "127.0.0.1:0")?;
        Ok(Self { relay, programs, folder, agents: AtomicU32::new(0) })
    }

    /// Starts somebody's agent.
    pub fn agent(&self, name: &str) -> Result<Agent> {
        // Not named after anybody: a path may stand in a log, a name may not.
        let number = self.agents.fetch_add(1, Ordering::Relaxed);
        Agent::start(&self.programs, self.folder.path().join(format!("agent-{number}")), name)
    }

    /// Starts a pipeline that reaches `agent` without being told how.
    pub fn pipeline(&self, agent: &Agent, description: &str) -> Result<Pipeline> {
        Pipeline::start(&self.programs, &self.pipelines(), agent.socket(), description)
    }

    fn pipelines(&self) -> PathBuf {
        self.folder.path().join("pipelines")
    }

    /// Gives how many seals are on the books; an error if a nonce was used twice under one key, or if any program
    /// has panicked, as it does when it is about to.
    #[cfg(feature = "ledger")]
    pub fn check_books(&self) -> Result<u64> {
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)? {
                let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type()))?;
                let is_log = path.file_name().is_some_and(|name| name == "log")
                    || path.extension().is_some_and(|extension| extension == "err");
                if kind?.is_dir() {
                    folders.push(path);
                } else if is_log {
                    let log = std::fs::read_to_string(&path)?;
                    anyhow::ensure!(!log.contains("panicked"), "{}: {log}", path.display());
                }
            }
        }
        meeting_protocol::ledger::check_dir(self.folder.path()).map_err(anyhow::Error::msg)
    }

    /// Where everybody's files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves the folder behind for a person to look into.
    pub fn keep(&mut self) {
        self.folder.disable_cleanup(true);
    }

    /// The programs of this build.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }
}

#[cfg(feature = "ledger")]
impl Drop for Stage {
    /// No (key, nonce) pair may have sealed two frames, in whichever processes.
    fn drop(&mut self) {
        let ledger = self.pipelines().join(crate::pipeline::LEDGER);
        if ledger.is_dir() && !std::thread::panicking() {
            let count = meeting_protocol::ledger::check_dir(&ledger);
            assert!(count.is_ok(), "{count:?}");
        }
    }
}

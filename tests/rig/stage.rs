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
        let programs = Programs::find()?;
        let folder = tempfile::Builder::new().prefix("meeting").tempdir()?;
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

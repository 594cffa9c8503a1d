//! A pipeline as a process of its own, by the program `run-pipeline`.
//!
//! Not by `gst-launch-1.0` where the pipeline is to end by itself: that of 1.22 sets PLAYING when it hears of PAUSED, and where
//! the thread that said so gets no core meanwhile, the bin takes itself for paused and never posts the end (any file, any
//! elements; one run in ten with eight at a time on two cores). With `async=false` at the sinks it does not happen.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::programs::{Process, Programs, until};

/// What `run-pipeline` last wrote about its elements: `{"element": {"field": number}}`.
pub struct Stats(pub Value);

impl Stats {
    /// One number, 0 if it is not there.
    pub fn get(&self, element: &str, field: &str) -> u64 {
        self.0[element][field].as_u64().unwrap_or(0)
    }
}

/// The folder of the nonce ledger beside the pipelines' logs.
pub(crate) const LEDGER: &str = "ledger";

/// A running pipeline.
pub struct Pipeline {
    process: Process,
    stats: PathBuf,
    log: PathBuf,
}

impl Pipeline {
    /// Starts `description` (gst-launch syntax) for the agent at `socket`.
    pub fn start(programs: &Programs, folder: &Path, socket: PathBuf, description: &str) -> Result<Self> {
        Self::run(programs, folder, socket, &[description])
    }

    /// Starts one whose process stays when the pipeline has ended ([`rest`](Self::rest)).
    pub fn lingering(programs: &Programs, folder: &Path, socket: PathBuf, description: &str) -> Result<Self> {
        Self::run(programs, folder, socket, &["--linger", description])
    }

    fn run(programs: &Programs, folder: &Path, socket: PathBuf, arguments: &[&str]) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        fs::create_dir_all(folder)?;
        let stats = folder.join(format!("{number}.json"));
        let log = folder.join(format!("{number}.log"));
        let mut command = programs.command("run-pipeline");
        command.arg("--stats").arg(&stats).args(arguments);
        Self::environment(&mut command, programs, &socket)?;
        // In builds with the nonce ledger every sealing process writes down its (key, nonce) pairs here.
        let ledger = folder.join(LEDGER);
        fs::create_dir_all(&ledger)?;
        command.env("E2EE_NONCE_LEDGER", ledger);
        command.stdout(fs::File::create(&log)?).stderr(fs::File::create(log.with_extension("err"))?);
        let process = Process::spawn("a pipeline", &mut command)?;
        Ok(Self { process, stats, log })
    }

    /// What any GStreamer program of ours needs in its environment.
    pub fn environment(command: &mut Command, programs: &Programs, socket: &Path) -> Result<()> {
        command.env("GST_PLUGIN_PATH", programs.plugin_path()?).env("MEETING_AGENT_SOCKET", socket);
        // For the scripts in `pipelines/`.
        command.env("E2EE_BUILD", programs.folder());
        Ok(())
    }

    /// Counters as of a moment ago; none before the pipeline plays.
    pub fn stats(&self) -> Stats {
        let read = || serde_json::from_slice(&fs::read(&self.stats).ok()?).ok();
        Stats(read().unwrap_or(Value::Null))
    }

    /// Element messages and errors so far, a line each.
    pub fn log(&self) -> String {
        let err = fs::read_to_string(self.log.with_extension("err")).unwrap_or_default();
        fs::read_to_string(&self.log).unwrap_or_default() + &err
    }

    /// Waits until the counters are as `wanted`.
    pub fn until(&mut self, what: &str, wanted: impl Fn(&Stats) -> bool) -> Result<Stats> {
        until(what, Duration::from_secs(30), || {
            // The last counters are there when the process has ended.
            let runs = self.process.check();
            let stats = Some(self.stats()).filter(&wanted);
            if stats.is_none() {
                runs?;
            }
            Ok(stats)
        })
        .with_context(|| format!("pipeline: {}\n{}", self.stats().0, self.log()))
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Sends end-of-stream and waits until the pipeline is at rest; its process is still there.
    pub fn rest(&mut self) -> Result<()> {
        self.process.signal(rustix::process::Signal::INT)?;
        until("a pipeline at rest", Duration::from_secs(15), || {
            self.process.check()?;
            Ok(self.log().lines().any(|line| line == "at rest").then_some(()))
        })
    }

    /// Sends end-of-stream, waits for files to be finished, and gives the last counters.
    pub fn finish(mut self) -> Result<Stats> {
        self.process.signal(rustix::process::Signal::INT)?;
        let status = self.process.wait(Duration::from_secs(15))?;
        ensure!(status.success(), "a pipeline ended badly: {status}\n{}", self.log());
        Ok(self.stats())
    }

    /// Waits for the pipeline to end by itself.
    pub fn wait(mut self, patience: Duration) -> Result<Stats> {
        let status = self.process.wait(patience)?;
        ensure!(status.success(), "a pipeline ended badly: {status}\n{}", self.log());
        Ok(self.stats())
    }

    /// Waits for it to fail, and gives what it said.
    pub fn wait_for_failure(mut self, patience: Duration) -> Result<String> {
        let status = self.process.wait(patience)?;
        ensure!(!status.success(), "the pipeline did not fail:\n{}", self.log());
        Ok(self.log())
    }

    /// Ends it on the spot, as a crash would.
    pub fn kill(mut self) -> Result<Stats> {
        let stats = self.stats();
        self.process.kill()?;
        Ok(stats)
    }
}

//! Where the built programs are, and how to wait for what they do.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

/// The programs of one build, found beside the running one.
#[derive(Clone)]
pub struct Programs {
    folder: PathBuf,
    environment: Vec<(String, PathBuf)>,
    books: bool,
}

impl Programs {
    /// Finds them: tests run from `target/PROFILE/deps`, programs from `target/PROFILE`.
    pub fn find() -> Result<Self> {
        let me = std::env::current_exe()?;
        let folder = me
            .ancestors()
            .skip(1)
            .find(|folder| folder.join("meeting-relay").is_file() && folder.join("libgste2ee.so").is_file())
            .context("the programs are not built: run `cargo build --workspace` first")?
            .to_owned();
        Ok(Self { folder, environment: Vec::new(), books: false })
    }

    /// The same programs; each agent keeps a ledger of its nonces.
    pub fn with_books(self) -> Self {
        Self { books: true, ..self }
    }

    /// Whether they do.
    pub fn keep_books(&self) -> bool {
        self.books
    }

    /// The same programs, with something more in their environment.
    pub fn with(mut self, name: &str, value: PathBuf) -> Self {
        self.environment.push((name.to_owned(), value));
        self
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A command for one of the programs.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.folder.join(name));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Brings our elements into this very process, for tests that look at single pads.
    pub fn load_plugin(&self) -> Result<()> {
        gst::init()?;
        gst::Plugin::load_file(self.folder.join("libgste2ee.so"))?;
        Ok(())
    }

    /// A folder that holds the plugin and nothing else, since GStreamer searches a plugin path to its depth.
    pub fn plugin_path(&self) -> Result<PathBuf> {
        let folder = self.folder.join("gstreamer-1.0");
        fs::create_dir_all(&folder)?;
        let linked = std::os::unix::fs::symlink("../libgste2ee.so", folder.join("libgste2ee.so"));
        // Another test may have been first; the link is the same for all.
        linked.or_else(|error| if error.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })?;
        Ok(folder)
    }
}

/// Waits until `look` finds something, looking every 20 ms; `what` names it when `patience` runs out.
pub fn until<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "waited {patience:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Resident memory of a process in KiB.
pub fn resident(pid: u32) -> Result<u64> {
    memory(pid, "VmRSS:")
}

/// Address space of a process in KiB.
pub fn address_space(pid: u32) -> Result<u64> {
    memory(pid, "VmSize:")
}

fn memory(pid: u32, what: &'static str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)).context(what)?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// How many files, sockets and the like a process has open.
pub fn descriptors(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// A child that is asked to stop, and made to, when dropped.
pub(crate) struct Process {
    child: Child,
    name: String,
}

impl Process {
    pub(crate) fn spawn(name: &str, command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, name: name.to_owned() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error if the process has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} has ended: {status}", self.name),
            None => Ok(()),
        }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).context("no such process")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Ends it on the spot, as a crash would.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.signal(rustix::process::Signal::KILL)?;
        self.wait(Duration::from_secs(5)).map(drop)
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self, patience: Duration) -> Result<std::process::ExitStatus> {
        let name = self.name.clone();
        until(&format!("the end of {name}"), patience, || Ok(self.child.try_wait()?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.signal(rustix::process::Signal::TERM);
            // one that a test has stopped hears nothing else
            let _ = self.signal(rustix::process::Signal::CONT);
            if self.wait(Duration::from_secs(3)).is_err() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}

/// A file's text once it is there and not empty.
pub(crate) fn read_when_there(path: &Path, process: &mut Process) -> Result<String> {
    until(&path.display().to_string(), Duration::from_secs(20), || {
        process.check()?;
        Ok(fs::read_to_string(path).ok().filter(|text| !text.trim().is_empty()))
    })
}

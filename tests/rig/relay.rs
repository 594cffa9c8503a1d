//! The real relay as a process.

use std::{
    collections::HashMap,
    fs,
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use meeting_wire::{Decode, Envelope, Reader};

use crate::programs::{Process, Programs, read_when_there};

/// One thing the relay saw.
pub struct Seen {
    /// When, in ms since 1970.
    pub at: u64,
    /// The sealed frame and its envelope; none for a post.
    pub frame: Option<Envelope>,
}

/// The time as the relay notes it.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

/// A running relay on a port of its own.
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    /// SHA-256 of its certificate, in hex.
    pub certificate: String,
    programs: Programs,
    folder: PathBuf,
    more: Vec<String>,
    process: Process,
    /// Its port, while it is dead: nobody else is given it.
    held: Option<UdpSocket>,
}

impl Relay {
    /// Starts one that keeps its state in `folder`, on `address` (port 0 for any).
    pub fn start(programs: &Programs, folder: PathBuf, address: &str) -> Result<Self> {
        Self::start_with(programs, folder, address, &[])
    }

    /// The same, with more arguments.
    pub fn start_with(programs: &Programs, folder: PathBuf, address: &str, more: &[String]) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        let ready = folder.join("ready");
        let _ = fs::remove_file(&ready);
        let mut process = Process::spawn(
            "the relay",
            programs
                .command("meeting-relay")
                .args(["--listen", address, "--state"])
                .arg(&folder)
                .arg("--ready-file")
                .arg(&ready)
                .arg("--stats")
                .arg(folder.join("stats"))
                .arg("--record")
                .arg(folder.join("view"))
                .args(more)
                .stderr(fs::OpenOptions::new().create(true).append(true).open(folder.join("log"))?),
        )?;
        let text = read_when_there(&ready, &mut process)
            .with_context(|| fs::read_to_string(folder.join("log")).unwrap_or_default())?;
        let (address, certificate) =
            text.trim().split_once(' ').context("the ready file has another form")?;
        Ok(Self {
            address: address.parse()?,
            certificate: certificate.to_owned(),
            programs: programs.clone(),
            folder,
            more: more.to_vec(),
            process,
            held: None,
        })
    }

    /// The file with its address and certificate hash.
    pub fn ready_file(&self) -> PathBuf {
        self.folder.join("ready")
    }

    /// Ends it on the spot, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.held = Some(UdpSocket::bind(self.address)?);
        Ok(())
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Starts it again after its end: same address, same state.
    pub fn restart(&mut self) -> Result<()> {
        let address = self.address.to_string();
        self.held = None;
        *self = Self::start_with(&self.programs, self.folder.clone(), &address, &self.more)?;
        Ok(())
    }

    /// Everything the relay saw inside its connections, as it recorded it: posts and sealed frames.
    pub fn view(&self) -> Result<Vec<u8>> {
        Ok(fs::read(self.folder.join("view"))?)
    }

    /// The same, a piece at a time. A record is kind(1) | ms since 1970 (8) | length(4) | bytes.
    pub fn seen(&self) -> Result<Vec<Seen>> {
        let view = self.view()?;
        let mut reader = Reader::new(&view);
        let mut seen = Vec::new();
        // The last record may be half written.
        while let (Ok(kind), Ok(at), Ok(bytes)) =
            (reader.u8(), reader.u64(), reader.bytes(view.len(), "a record"))
        {
            match kind {
                0 => seen.push(Seen { at, frame: None }),
                _ => seen.push(Seen { at, frame: Some(Envelope::from_bytes(bytes)?) }),
            }
        }
        Ok(seen)
    }

    /// Its counters by name.
    pub fn counters(&self) -> Result<HashMap<String, u64>> {
        let text = fs::read_to_string(self.folder.join("stats"))?;
        let pair = |line: &str| line.split_once(' ').and_then(|(k, v)| Some((k.to_owned(), v.parse().ok()?)));
        Ok(text.lines().filter_map(pair).collect())
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// An error if it has ended.
    pub fn check(&mut self) -> Result<()> {
        self.process.check()
    }
}

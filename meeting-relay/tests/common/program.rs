//! The relay as people run it: a process with arguments, files and signals.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use quinn::{Connection, TransportConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::{Agent, ParticipantId, hello, soon};
use meeting_wire::{Admission, FromRelay};

/// A relay in a folder of its own; it is killed on drop.
pub struct Program {
    pub child: Child,
    pub folder: PathBuf,
    pub certificate: PathBuf,
}

impl Program {
    /// Starts it with these arguments, in `folder`, and waits until it listens.
    pub async fn start(folder: &Path, args: &[&str]) -> Self {
        Self::start_as(command(&[]), folder, args).await
    }

    /// The same, below another program, such as one that takes rights away.
    pub async fn start_as(mut command: Command, folder: &Path, args: &[&str]) -> Self {
        let ready = folder.join("ready");
        let _ = fs::remove_file(&ready);
        let log = fs::File::create(folder.join("log")).expect("a log");
        command.args(["--state", "state", "--ready-file", "ready"]).args(args);
        if !args.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let child = command.current_dir(folder).stderr(log).spawn().expect("started");
        let (folder, certificate) = (folder.to_owned(), folder.join("state/certificate.pem"));
        let mut program = Self { child, folder, certificate };
        soon(async {
            while !ready.exists() {
                assert_eq!(program.child.try_wait().expect("a child"), None, "{}", program.log());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        program
    }

    /// The two words of the ready file.
    pub fn ready(&self) -> (String, String) {
        let line = fs::read_to_string(self.folder.join("ready")).expect("it listens");
        let (address, hash) = line.trim_end().split_once(' ').expect("two words");
        (address.to_owned(), hash.to_owned())
    }

    pub fn address(&self) -> SocketAddr {
        self.ready().0.parse().expect("an address")
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).expect("a log")
    }

    /// Waits until it has logged this.
    pub async fn logs(&self, text: &str) {
        let logged = async {
            while !self.log().contains(text) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let patience = Duration::from_secs(60);
        assert!(tokio::time::timeout(patience, logged).await.is_ok(), "not logged: {text}\n{}", self.log());
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it runs");
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        soon(async {
            loop {
                match self.child.try_wait().expect("a child") {
                    Some(status) => break status,
                    None => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        })
        .await
    }

    /// A connection that takes this certificate and no other.
    pub async fn connect(&self, certificate: &Path) -> Connection {
        let certificate = CertificateDer::from_pem_file(certificate).expect("a certificate");
        super::connect(self.address(), certificate, TransportConfig::default()).await
    }

    /// An agent in the meeting.
    pub async fn agent(&self, participant: ParticipantId) -> Agent {
        let create = Admission::Create { token: String::new() };
        let connection = self.connect(&self.certificate).await;
        let (agent, answer) = Agent::greet(connection, hello(participant, create)).await;
        assert!(matches!(answer, FromRelay::Welcome { .. }), "{answer:?}");
        agent
    }

    /// What it has counted by this name, of those started with `--stats stats`.
    pub fn counter(&self, name: &str) -> u64 {
        let text = fs::read_to_string(self.folder.join("stats")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().expect("a number"))
    }

    /// Resident KiB.
    pub fn memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The relay, below another program if one is named.
pub fn command(below: &[&str]) -> Command {
    let relay = env!("CARGO_BIN_EXE_meeting-relay");
    let mut command = match below.split_first() {
        Some((program, args)) => {
            let mut command = Command::new(program);
            command.args(args).arg(relay);
            command
        }
        None => Command::new(relay),
    };
    command.stdout(Stdio::null()).env_remove("RUST_LOG").env_remove("STATE_DIRECTORY");
    command
}

/// A copy of the relay in `folder`. Another program makes it: what other tests start meanwhile would for a moment have
/// it open for writing too, and what is open for writing cannot be executed.
pub fn copy_of_relay(folder: &Path) -> PathBuf {
    let copy = folder.join("relay");
    let cp = Command::new("cp").arg("-p").arg(env!("CARGO_BIN_EXE_meeting-relay")).arg(&copy).status();
    assert!(cp.expect("started").success(), "copied");
    copy
}

/// Runs it to its end, which has to come by itself: whether it ended well, and what it said.
pub fn says(mut command: Command, args: &[&str]) -> (bool, String) {
    let output = command.args(args).output().expect("started");
    (output.status.success(), String::from_utf8(output.stderr).expect("UTF-8"))
}

/// A self-signed certificate and its key in `folder`, valid for so many days from so many days ago.
pub fn certificate(folder: &Path, name: &str, days: (i64, i64)) -> [PathBuf; 2] {
    let mut params = rcgen::CertificateParams::new(vec!["localhost".into()]).expect("a name");
    let now = std::time::SystemTime::now();
    let day = |days: i64| {
        let span = Duration::from_secs(24 * 60 * 60 * days.unsigned_abs());
        if days < 0 { now - span } else { now + span }
    };
    (params.not_before, params.not_after) = (day(days.0).into(), day(days.1).into());
    let key = rcgen::KeyPair::generate().expect("a key");
    let made = params.self_signed(&key).expect("a certificate");
    let files = ["pem", "key"].map(|ending| folder.join(format!("{name}.{ending}")));
    fs::write(&files[0], made.pem()).expect("written");
    fs::write(&files[1], key.serialize_pem()).expect("written");
    files
}

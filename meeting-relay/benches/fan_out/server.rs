//! A contestant as a process, and what it used.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Who forwards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Contestant {
    /// The program that people run, on one thread like the others.
    Relay,
    /// The simplest fan-out on quinn.
    Quinn,
    /// One `sendto` per packet and receiver, nothing sealed, nothing acknowledged.
    Udp,
    /// The same, with a frame's packets in one system call (UDP_SEGMENT).
    UdpSegments,
}

/// One that runs.
pub struct Server {
    pub contestant: Contestant,
    pub address: SocketAddr,
    pub certificate: CertificateDer<'static>,
    child: Child,
    _state: tempfile::TempDir,
}

impl Contestant {
    /// As the table calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Quinn => "bare quinn",
            Self::Udp => "bare UDP",
            Self::UdpSegments => "UDP with GSO",
        }
    }
}

impl Server {
    pub fn start(contestant: Contestant) -> Self {
        let state = tempfile::tempdir().expect("a directory");
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
        fs::write(state.path().join("certificate.pem"), made.cert.pem()).expect("written");
        fs::write(state.path().join("key.pem"), made.signing_key.serialize_pem()).expect("written");
        let (child, address) = match contestant {
            Contestant::Relay => relay(state.path()),
            Contestant::Quinn => peer(&format!("quinn={}", state.path().display())),
            Contestant::Udp => peer("udp"),
            Contestant::UdpSegments => peer("udp-segments"),
        };
        let certificate = CertificateDer::from_pem(
            rustls_pki_types::pem::SectionKind::Certificate,
            made.cert.der().to_vec(),
        )
        .expect("a certificate");
        Self { contestant, address, certificate, child, _state: state }
    }

    /// CPU seconds so far, of all its threads, in user and kernel.
    pub fn cpu(&self) -> f64 {
        let clock = clock_getcpuclockid(Pid::from_raw(self.child.id() as i32)).expect("it runs");
        Duration::from(clock.now().expect("a clock")).as_secs_f64()
    }

    /// Resident bytes.
    pub fn memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn relay(state: &std::path::Path) -> (Child, SocketAddr) {
    let (config, ready) = (state.join("relay.toml"), state.join("ready"));
    fs::write(&config, "[meetings]\nmax_participants = 1000\n").expect("written");
    let mut child = Command::new(env!("CARGO_BIN_EXE_meeting-relay"))
        .args(["--threads", "1", "--listen", "127.0.0.1:0", "--config"])
        .arg(config)
        .arg("--state")
        .arg(state)
        .arg("--ready-file")
        .arg(&ready)
        .stderr(Stdio::null())
        .spawn()
        .expect("the relay starts");
    for _ in 0..1_000 {
        if let Ok(line) = fs::read_to_string(&ready) {
            return (
                child,
                line.split(' ').next().and_then(|address| address.parse().ok()).expect("an address"),
            );
        }
        thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    panic!("the relay is not ready: {:?}", child.wait());
}

fn peer(name: &str) -> (Child, SocketAddr) {
    let me = std::env::current_exe().expect("a program");
    let mut child = Command::new(me).arg(name).stdout(Stdio::piped()).spawn().expect("started");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    (child, line.trim().parse().expect("an address"))
}

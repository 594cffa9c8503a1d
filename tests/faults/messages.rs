//! Bad input from outside, and what a person reads when something is wrong: whose fault, and what to do.

use std::{
    fs::{self, Permissions},
    io::Write,
    net::UdpSocket,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rig::{Programs, Relay, Stage};

use super::{TALKS, hearing, opened};

#[test]
fn garbage_from_outside_disturbs_nobody() -> Result<()> {
    let (mut stage, [alice, bob, _carol], _) = super::three(0)?;
    let _talks = stage.pipeline(&alice, TALKS)?;
    let mut hears = stage.pipeline(&bob, &hearing("Alice"))?;
    hears.until("Alice's voice", |stats| opened(stats) > 50)?;
    let so_far = opened(&hears.stats());

    let mut noise = Noise(0x2545_f491_4f6c_dd1d);
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    for n in 0..3_000 {
        let mut packet = noise.bytes(1 + n % 1_400);
        // All kinds of QUIC headers, known and unknown versions.
        packet[0] = n as u8;
        if n % 3 == 0 && packet.len() > 5 {
            packet[1..5].copy_from_slice(&1u32.to_be_bytes());
        }
        udp.send_to(&packet, stage.relay.address)?;
    }
    for n in 0..200 {
        let mut stream = UnixStream::connect(bob.socket())?;
        let body = noise.bytes(n * 7);
        let len = match n % 4 {
            0 => u32::MAX,
            1 => body.len() as u32,
            2 => body.len() as u32 * 2,
            _ => 0,
        };
        // It may hang up before everything is written.
        let _ = stream.write_all(&len.to_be_bytes()).and_then(|()| stream.write_all(&body));
    }
    hears.until("Alice's voice all along", |stats| opened(stats) > so_far + 200)?;
    stage.relay.check()?;
    for agent in [&alice, &bob] {
        let status = agent.status()?;
        assert!(status["phase"] == "live" && status["connected"] == true, "{status}");
    }
    stage.check_books().map(drop)
}

#[test]
fn a_relay_that_is_not_there_is_named() -> Result<()> {
    let stage = Stage::open()?;
    let alice = stage.agent("Alice")?;
    let create_within = |seconds: &str, relay: &str, certificate: &str| {
        let outcome = alice.create_at(relay, certificate, &["--wait", seconds]);
        outcome.err().map(|error| format!("{error:#}")).context("a meeting was opened")
    };
    let create = |relay: &str, certificate: &str| create_within("4", relay, certificate);
    let certificate = &stage.relay.certificate;
    // Nobody else gets this port as long as the socket lives, and it says nothing.
    let silent = UdpSocket::bind("127.0.0.1:0")?;
    mentions(
        &create_within("6", &silent.local_addr()?.to_string(), certificate)?,
        &["relay", "does not answer", "UDP"],
    )?;
    // A label of more than 63 bytes is refused before anybody is asked for it.
    let nobody = format!("{}.invalid", "x".repeat(70));
    mentions(&create(&nobody, certificate)?, &["relay", "name", "cannot be found"])?;
    mentions(&create("127.0.0.1:99999", certificate)?, &["address", "HOST:PORT"])?;
    let here = stage.relay.address.to_string();
    mentions(&create(&here, &"0".repeat(64))?, &["certificate", "link"])?;
    mentions(&create(&here, "abc")?, &["64 hex digits", "ready file"])?;
    alice.create(&stage).map(drop)
}

#[test]
fn a_port_or_socket_that_is_taken_is_named() -> Result<()> {
    let stage = Stage::open()?;
    let alice = stage.agent("Alice")?;
    let programs = stage.programs();
    let folder = stage.folder().join("second");
    let address = stage.relay.address.to_string();
    let second = Relay::start(programs, folder.clone(), &address).err().context("two relays on one port")?;
    mentions(&format!("{second:#}"), &[&address, "--listen", "another"])?;
    let said = fails(run(programs, &alice.socket(), &folder.join("state")))?;
    mentions(&said, &["another agent is running", "--socket"])?;
    // The one that was there goes on.
    alice.create(&stage).map(drop)
}

#[test]
fn a_state_directory_that_cannot_be_used_is_named() -> Result<()> {
    let stage = Stage::open()?;
    let programs = stage.programs();
    let socket = stage.folder().join("run/agent.sock");
    let file = stage.folder().join("file");
    fs::write(&file, "")?;
    // Below a plain file nobody can write, root included.
    let below = file.join("state");
    mentions(&fails(run(programs, &socket, &below))?, &["file/state", "--state"])?;
    let mut relay = programs.command("meeting-relay");
    relay.args(["--listen", "127.0.0.1:0", "--state"]).arg(&below);
    mentions(&fails(relay)?, &["file/state", "--state"])?;
    let open = stage.folder().join("open");
    fs::create_dir(&open)?;
    fs::set_permissions(&open, Permissions::from_mode(0o755))?;
    mentions(&fails(run(programs, &socket, &open))?, &["open to other users", "chmod 700"])
}

#[test]
fn a_device_key_that_cannot_be_used_is_named_and_kept() -> Result<()> {
    let stage = Stage::open()?;
    let mut alice = stage.agent("Alice")?;
    alice.stop()?;
    let key = alice.folder().join("state/device.key");
    let good = fs::read(&key)?;
    let start = || fails(run(stage.programs(), &alice.socket(), &alice.folder().join("state")));

    let mut newer = good.clone();
    newer[4] += 1;
    fs::write(&key, &newer)?;
    mentions(&start()?, &["device.key", "version", "move it away"])?;
    assert_eq!(fs::read(&key)?, newer, "a key that cannot be read is never replaced");
    fs::write(&key, &good[..20])?;
    mentions(&start()?, &["device.key", "restore it"])?;
    fs::write(&key, [&good[..], b"more"].concat())?;
    mentions(&start()?, &["device.key", "restore it"])?;
    fs::write(&key, &good)?;
    fs::set_permissions(&key, Permissions::from_mode(0o644))?;
    mentions(&start()?, &["device.key", "open to other users", "chmod 600"])?;
    fs::set_permissions(&key, Permissions::from_mode(0o600))?;
    alice.restart()
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing_half_done() -> Result<()> {
    let stage = Stage::open()?;
    let agent = stage.programs().command("meeting-agent").get_program().to_owned();
    let disk = stage.folder().join("disk");
    fs::create_dir(&disk)?;
    // A disk of one page, which another file has.
    let full = |command: &str| {
        let mut unshare = Command::new("unshare");
        unshare
            .args(["--map-root-user", "--mount", "sh", "-c"])
            .arg(format!(
                r#"mount -t tmpfs -o size=4k,mode=700 disk "$1" && echo > "$1/other" && {{ {command}; status=$?; ls -A "$1" >&2; exit $status; }}"#
            ))
            .args([agent.as_os_str(), disk.as_os_str()]);
        unshare
    };
    let said = fails(full(r#""$0" run --name Alice --socket "$1/../run/agent.sock" --state "$1""#))?;
    mentions(&said, &["cannot keep the device key", "No space left", "make room"])?;
    ensure!(said.ends_with("\nother\n"), "half a key is left: {said}");

    let alice = stage.agent("Alice")?;
    let (ready, socket) = (stage.relay.ready_file(), alice.socket());
    let create = format!(
        r#""$0" create --socket {} --relay-ready-file {} --link-file "$1/link""#,
        socket.display(),
        ready.display()
    );
    let said = fails(full(&create))?;
    mentions(&said, &["no meeting was opened", "link", "No space left"])?;
    ensure!(alice.status().is_err(), "a meeting without a link is left");
    Ok(())
}

fn run(programs: &Programs, socket: &Path, state: &Path) -> Command {
    let mut command = programs.command("meeting-agent");
    command.args(["run", "--name", "Alice", "--socket"]).arg(socket).arg("--state").arg(state);
    command
}

/// Runs a command that must not succeed, and gives what it says.
fn fails(mut command: Command) -> Result<String> {
    use std::process::Stdio;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let ended = rig::until("the end of a program that cannot start", Duration::from_secs(10), || {
        Ok(child.try_wait()?)
    });
    if ended.is_err() {
        child.kill()?;
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!ended?.success(), "it did not fail: {said}");
    ensure!(!said.contains("panicked"), "{said}");
    Ok(said)
}

fn mentions(text: &str, words: &[&str]) -> Result<()> {
    println!("{}", text.trim_end());
    for word in words {
        ensure!(text.contains(word), "{word:?} is missing in: {text}");
    }
    Ok(())
}

/// The same noise each time (xorshift).
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut byte = || {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 as u8
        };
        (0..len).map(|_| byte()).collect()
    }
}

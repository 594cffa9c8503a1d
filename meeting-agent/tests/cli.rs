//! The real program, as a person or script runs it.

#![allow(clippy::unwrap_used)]

#[path = "common/relay.rs"]
mod relay;

use std::{
    fs,
    io::Write,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::{UnixDatagram, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use relay::Relay;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon of its own process; dropped, it is killed.
struct Daemon {
    folder: PathBuf,
    child: Child,
}

impl Daemon {
    fn start(folder: &Path, name: &str) -> Self {
        Self::with(program(), folder, name)
    }

    /// One whose system knows a single authority.
    fn trusting(folder: &Path, name: &str, root: &Path) -> Self {
        let mut program = program();
        program.env("SSL_CERT_FILE", root);
        Self::with(program, folder, name)
    }

    fn with(mut program: Command, folder: &Path, name: &str) -> Self {
        // the log has paths, and must not have names
        let folder = tempfile::tempdir_in(folder).unwrap().keep();
        let child = program
            .args(["run", "--name", name, "--socket"])
            .arg(folder.join("run/agent.sock"))
            .arg("--state")
            .arg(folder.join("state"))
            .env("RUST_LOG", "meeting_agent=trace,info")
            .stderr(fs::File::create(folder.join("log")).unwrap())
            .spawn()
            .unwrap();
        let daemon = Self { folder, child };
        until("the daemon's socket", || UnixStream::connect(daemon.socket()).is_ok());
        daemon
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("run/agent.sock")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.args(arguments).env("MEETING_AGENT_SOCKET", self.socket()).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_meeting-agent"))
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn shown(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    String::from_utf8(output.stdout.clone()).unwrap().trim().to_owned()
}

/// A link to a relay that nobody runs.
const LINK: &str = "meeting://127.0.0.1:1/00112233445566778899aabbccddeeff#\
                    AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE.AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI\
                    .AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM";
const SECRET: &str = "AQEBAQEB";

#[test]
fn without_a_daemon_the_command_to_type_is_named() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("none.sock");
    let output = program().arg("status").arg("--socket").arg(&socket).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("meeting-agent run"), "{}", said(&output));
    assert_eq!(program().arg("dance").output().unwrap().status.code(), Some(2));
}

#[test]
fn a_daemon_leaves_no_core_and_a_second_one_is_refused() {
    let folder = TempDir::new().unwrap();
    let alice = Daemon::start(folder.path(), "Alice");
    let limits = fs::read_to_string(format!("/proc/{}/limits", alice.child.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let numbers: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(numbers, ["0", "0"], "{core}");
    let second = program()
        .args(["run", "--socket"])
        .arg(alice.socket())
        .arg("--state")
        .arg(folder.path().join("other"))
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(said(&second).contains("another agent is running"), "{}", said(&second));
}

#[test]
fn a_link_on_the_command_line_is_warned_about_and_taken_off_it() {
    let folder = TempDir::new().unwrap();
    let bob = Daemon::start(folder.path(), "Bob");
    let mut child = bob
        .command(&["join", LINK, "--wait", "3"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let arguments = format!("/proc/{}/cmdline", child.id());
    until("arguments without the link", || {
        let arguments = fs::read(&arguments).unwrap_or_default();
        String::from_utf8_lossy(&arguments).ends_with(&["join", "-", "--wait", "3", ""].join("\0"))
    });
    let environment = fs::read(format!("/proc/{}/environ", child.id())).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains(SECRET));
    let output = child.wait().map(|_| child.wait_with_output().unwrap()).unwrap();
    assert_eq!(output.status.code(), Some(1), "nobody runs that relay");
    let said = said(&output);
    assert!(said.contains("warning") && said.contains("not in the meeting after 3 s"), "{said}");
    assert!(!said.contains(SECRET) && !bob.log().contains(SECRET));
}

#[test]
fn a_link_in_the_wrong_place_is_not_repeated() {
    let folder = TempDir::new().unwrap();
    let bob = Daemon::start(folder.path(), "Bob");
    let long = format!("{LINK}x");
    let spoilt = LINK.replace("meeting://", "meting:/");
    for arguments in [
        &[LINK][..],
        &["status", LINK],
        &["leave", LINK],
        &["remove", LINK],
        &["status", "--meeting", LINK],
        &["status", "--socket", LINK],
        &["join", LINK, LINK],
        &["join", &long],
        &["join", &spoilt],
        &["join", "--role", LINK],
        &["join", "--wait", LINK],
        &["join", "--link-file", LINK],
        &["create", "--relay", LINK],
        &["create", "--relay-ready-file", LINK],
        &["create", "--relay", "127.0.0.1:1", "--relay-certificate", LINK],
        &["create", "--relay", "127.0.0.1:1", "--token-file", LINK],
        &["run", "--socket", LINK],
    ] {
        let output = bob.command(arguments).current_dir(folder.path()).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        let all = said(&output) + &String::from_utf8_lossy(&output.stdout);
        // the first letters of each part behind the '#'
        for part in ["AQEBAQ", "AgICAg", "AwMDAw"] {
            assert!(!all.is_empty() && !all.contains(part), "{all}");
        }
    }
    assert!(!bob.log().contains(SECRET), "{}", bob.log());
}

#[test]
fn a_link_file_has_to_be_private() {
    let folder = TempDir::new().unwrap();
    let bob = Daemon::start(folder.path(), "Bob");
    let file = folder.path().join("link");
    fs::write(&file, LINK).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let output = bob.run(&["join", "--link-file", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("chmod 600"), "{}", said(&output));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let output = bob.run(&["join", "--wait", "0", "--link-file", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn without_a_relay_no_meeting_is_opened_and_no_link_shown() {
    let folder = TempDir::new().unwrap();
    let alice = Daemon::start(folder.path(), "Alice");
    let output = alice.run(&[
        "create",
        "--relay",
        "127.0.0.1:1",
        "--relay-certificate",
        &"00".repeat(32),
        "--wait",
        "1",
    ]);
    assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]));
    assert!(said(&output).contains("no meeting was opened"), "{}", said(&output));
    let status = alice.run(&["status"]);
    assert!(said(&status).contains("this agent is in no meeting"), "{}", said(&status));
    let output = alice.run(&["create", "--relay", "127.0.0.1:1", "--relay-certificate", "00"]);
    assert!(said(&output).contains("64 hex digits"), "{}", said(&output));
}

#[test]
fn no_link_at_all_is_an_error_in_words() {
    let folder = TempDir::new().unwrap();
    let bob = Daemon::start(folder.path(), "Bob");
    let output = bob.run(&["join"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("no link was given"), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meeting_from_create_to_leave() {
    let folder = TempDir::new().unwrap();
    let relay = Relay::start(folder.path());
    let run = tokio::task::spawn_blocking(move || {
        let (alice, bob) =
            (Daemon::start(folder.path(), "Alice"), Daemon::start(folder.path(), "Bob\u{202e}"));
        let at = ["create", "--relay", &relay.address, "--relay-certificate", &relay.certificate];
        let link = shown(&alice.run(&at));
        assert!(link.starts_with("meeting://") && link.lines().count() == 1, "the link and only the link");

        let mut child =
            bob.command(&["join", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(link.as_bytes()).unwrap();
        let joined = child.wait_with_output().unwrap();
        assert!(joined.status.success(), "{}", said(&joined));

        let code = |daemon: &Daemon| -> serde_json::Value {
            serde_json::from_str(&shown(&daemon.run(&["code", "--json"]))).unwrap()
        };
        assert_eq!(code(&alice)["code"], code(&bob)["code"]);
        assert!(shown(&alice.run(&["code"])).contains("read these 40 digits"));
        until("Bob in Alice's roster", || shown(&alice.run(&["roster"])).lines().count() == 2);
        let roster = shown(&alice.run(&["roster"]));
        assert!(roster.contains("Alice") && !roster.contains('\u{202e}'), "{roster}");
        let status: serde_json::Value =
            serde_json::from_str(&shown(&alice.run(&["status", "--json"]))).unwrap();
        assert_eq!((&status["phase"], &status["people"][0]["name"]), (&"live".into(), &"Alice".into()));
        let glance = shown(&alice.run(&["status"]));
        assert!(glance.contains("encrypted, code not compared") && !glance.contains('\x1b'), "{glance}");
        let digits = code(&alice)["code"].as_str().unwrap().to_owned();
        let unasked = bob.run(&["verify"]);
        assert!(
            said(&unasked).contains("--differs"),
            "without a terminal nobody is asked: {}",
            said(&unasked)
        );
        assert!(bob.run(&["verify", &digits]).status.success());
        assert!(shown(&bob.run(&["status"])).contains("code compared"));
        let differs = bob.run(&["verify", "--differs"]);
        assert_eq!(differs.status.code(), Some(1));
        assert!(said(&differs).contains("meeting-agent leave"), "{}", said(&differs));
        assert!(shown(&bob.run(&["status"])).contains("code not compared"));

        let refused = bob.run(&["lock"]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(said(&refused).contains("leader"), "{}", said(&refused));
        assert!(alice.run(&["rotate"]).status.success());
        assert!(bob.run(&["leave"]).status.success());

        let secret = link.split('#').nth(1).unwrap();
        for daemon in [&alice, &bob] {
            let log = daemon.log();
            assert!(
                log.contains("connected to the relay") && !log.contains("Alice") && !log.contains("Bob"),
                "{log}"
            );
            assert!(!log.contains(secret) && !log.contains(&secret[..20]), "{log}");
        }
        let file = folder.path().join("link");
        let mut again = at.to_vec();
        again.extend(["--link-file", file.to_str().unwrap(), "--json"]);
        assert!(shown(&bob.run(&again)).is_empty());
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert!(fs::read_to_string(&file).unwrap().starts_with("meeting://"));
    });
    run.await.unwrap();
}

/// A relay whose certificate a made-up authority has signed for these years, and an agent that trusts it.
fn refused_for_its_years(from: i32, to: i32) -> String {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (authority_key, key) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = authority.self_signed(&authority_key).unwrap();
    let mut leaf = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    (leaf.not_before, leaf.not_after) = (rcgen::date_time_ymd(from, 1, 1), rcgen::date_time_ymd(to, 1, 1));
    let leaf = leaf.signed_by(&key, &rcgen::Issuer::new(authority, authority_key)).unwrap();
    fs::write(path("root.pem"), root.pem()).unwrap();
    fs::write(path("leaf.pem"), leaf.pem()).unwrap();
    fs::write(path("key.pem"), key.serialize_pem()).unwrap();
    fs::set_permissions(path("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();

    let relay = Relay::with_certificate(folder.path(), (path("leaf.pem"), path("key.pem")));
    let alice = Daemon::trusting(folder.path(), "Alice", &path("root.pem"));
    let output = alice.run(&["create", "--relay", &relay.address, "--wait", "5"]);
    drop((alice, relay));
    if output.status.success() { String::new() } else { said(&output) }
}

#[test]
fn a_certificate_out_of_its_time_points_at_operator_and_clock() {
    assert_eq!(refused_for_its_years(2020, 4000), "", "the made-up authority is trusted");
    let expired = refused_for_its_years(2019, 2020);
    assert!(expired.contains("has run out") && expired.contains("clock"), "{expired}");
    let early = refused_for_its_years(3000, 4000);
    assert!(early.contains("not valid yet") && early.contains("clock"), "{early}");
}

#[test]
fn the_service_manager_hears_of_start_and_end() {
    let folder = TempDir::new().unwrap();
    let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut agent = program()
        .args(["run", "--name", "Alice", "--socket"])
        .arg(folder.path().join("run/agent.sock"))
        .arg("--state")
        .arg(folder.path().join("state"))
        .env("NOTIFY_SOCKET", folder.path().join("notify"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let heard = || {
        let mut message = [0; 256];
        let len = manager.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..len]).into_owned()
    };
    assert!(heard().contains("READY=1"));
    assert!(UnixStream::connect(folder.path().join("run/agent.sock")).is_ok(), "ready means listening");
    Command::new("kill").args(["-HUP", &agent.id().to_string()]).status().unwrap();
    // a log-out is outlived: the end that is heard of is that of SIGTERM
    Command::new("kill").arg(agent.id().to_string()).status().unwrap();
    assert!(heard().contains("STOPPING=1"));
    assert!(agent.wait().unwrap().success());
}

#[test]
fn completions_and_the_manual_name_every_command() {
    for arguments in
        [&["completions", "bash"][..], &["completions", "zsh"], &["completions", "fish"], &["man"]]
    {
        let output = Command::new(env!("CARGO_BIN_EXE_meeting-agent")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        for command in ["join", "verify", "status", "remove"] {
            assert!(text.contains(command), "{command} is missing in {arguments:?}");
        }
    }
}

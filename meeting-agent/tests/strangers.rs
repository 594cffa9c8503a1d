//! Other programs on the machine: of another user, and of the same one.
//!
//! Whoever runs these as root has them done with a second user for real; for anybody else what needs one does not
//! run, and says so.

#![allow(clippy::unwrap_used)]

#[path = "../../tests/did_not_run.rs"]
mod did_not_run;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{
        fs::{PermissionsExt, chown},
        net::UnixStream,
        process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use did_not_run::did_not_run;
use meeting_protocol::local::{self, FromAgent, Purpose, ToAgent};
use meeting_wire::Decode;
use tempfile::TempDir;

/// Nobody, by convention.
const SOMEBODY_ELSE: u32 = 65_534;
/// `nogroup`, on Debian.
const GROUP: u32 = 65_534;
/// `daemon`, on Debian.
const SERVICE: u32 = 1;
/// A group that nothing belongs to.
const STRANGERS: u32 = 64_000;

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn am_root() -> bool {
    let root = rustix::process::getuid().is_root();
    if !root {
        did_not_run("a second user takes root");
    }
    root
}

/// An agent of `user`, once its socket is there.
fn agent(folder: &Path, user: Option<u32>) -> Killed {
    start(folder, user, &[])
}

fn start(folder: &Path, user: Option<u32>, more: &[&str]) -> Killed {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meeting-agent"));
    command
        .args(["run", "--name", "Alice", "--socket"])
        .arg(folder.join("run/agent.sock"))
        .arg("--state")
        .arg(folder.join("state"))
        .args(more)
        .env_clear()
        .current_dir("/")
        .stderr(Stdio::null());
    if let Some(user) = user {
        chown(folder, Some(user), Some(GROUP)).unwrap();
        command.uid(user).gid(GROUP);
    }
    let agent = Killed(command.spawn().unwrap());
    until_it_answers(&folder.join("run/agent.sock"));
    agent
}

/// The socket takes connections a moment before it has its mode; an agent that answers has done all of that.
fn until_it_answers(socket: &Path) {
    let hello = ToAgent::Hello { version: local::VERSION, purpose: Purpose::Control };
    let answer = || -> std::io::Result<()> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(&local::packed(&hello))?;
        stream.read_exact(&mut [0])
    };
    let end = Instant::now() + Duration::from_secs(20);
    while answer().is_err() {
        assert!(Instant::now() < end, "no answer");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// This very test, run by `user`: says what became of a hello on the socket.
fn knock(socket: &Path, user: u32) -> String {
    knock_for(socket, user, user, "commands")
}

fn knock_for(socket: &Path, user: u32, group: u32, purpose: &str) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "knocking_process", "--nocapture"])
        .env("KNOCK_ON", socket)
        .env("KNOCK_FOR", purpose)
        .uid(user)
        .gid(group)
        .current_dir("/")
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Does nothing unless [`knock`] started it.
#[test]
fn knocking_process() {
    let Some(socket) = std::env::var_os("KNOCK_ON") else { return };
    if std::env::var("KNOCK_FOR").as_deref() == Ok("all places") {
        let places: Vec<_> = (0..400).map_while(|_| UnixStream::connect(&socket).ok()).collect();
        println!("KNOCKED: {} times", places.len());
        let _ = std::io::stdin().read(&mut [0]);
        return;
    }
    let Ok(mut stream) = UnixStream::connect(socket) else {
        println!("KNOCKED: no way in");
        return;
    };
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let purpose = match std::env::var("KNOCK_FOR").as_deref() {
        Ok("keys") => Purpose::Keys { meeting: None },
        _ => Purpose::Control,
    };
    let hello = ToAgent::Hello { version: local::VERSION, purpose };
    let _ = stream.write_all(&local::packed(&hello));
    let mut len = [0; 4];
    let answer = stream.read_exact(&mut len).is_ok().then(|| {
        let mut message = vec![0; local::message_len(len).unwrap()];
        stream.read_exact(&mut message).unwrap();
        FromAgent::from_bytes(&message).unwrap()
    });
    match answer {
        Some(FromAgent::Welcome { .. }) => println!("KNOCKED: welcome"),
        Some(FromAgent::Refused { text }) => println!("KNOCKED: refused, {text}"),
        _ => println!("KNOCKED: hung up"),
    }
}

#[test]
fn another_users_programs_get_nothing_from_the_socket() {
    if !am_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let _alice = agent(folder.path(), None);
    let socket = folder.path().join("run/agent.sock");
    assert!(knock(&socket, 0).contains("KNOCKED: welcome"), "the knocking works");
    assert!(knock(&socket, SOMEBODY_ELSE).contains("KNOCKED: no way in"), "the directory is closed");
    // Somebody opens it with a careless chmod -R: the peer's user still counts.
    fs::set_permissions(socket.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(knock(&socket, SOMEBODY_ELSE).contains("KNOCKED: no way in"), "the socket is closed");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(knock(&socket, SOMEBODY_ELSE).contains("KNOCKED: hung up"), "the peer's user is checked");
}

#[test]
fn pipelines_of_a_named_group_are_served_and_give_no_commands() {
    if !am_root() {
        return;
    }
    // Below /tmp nobody would trust a service user's socket.
    let folder = tempfile::tempdir_in("/run").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let _service = start(folder.path(), Some(SERVICE), &["--group", "nogroup"]);
    let run = folder.path().join("run");
    let socket = run.join("agent.sock");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&run), mode(&socket)), (0o750, 0o660));

    let member = |purpose| knock_for(&socket, SOMEBODY_ELSE, GROUP, purpose);
    assert!(member("keys").contains("refused, this agent is in no meeting"), "{}", member("keys"));
    assert!(member("commands").contains("refused, this agent takes commands"), "{}", member("commands"));
    assert!(knock_for(&socket, SERVICE, GROUP, "commands").contains("welcome"), "its own user");
    assert!(knock_for(&socket, 0, 0, "commands").contains("welcome"), "root");
    assert!(knock_for(&socket, SOMEBODY_ELSE, STRANGERS, "keys").contains("no way in"), "another group");

    let by_name = Command::new(env!("CARGO_BIN_EXE_meeting-agent"))
        .args(["run", "--group", "no-such-group", "--socket"])
        .arg(folder.path().join("two/agent.sock"))
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&by_name.stderr).contains("there is no group"), "{by_name:?}");
}

#[test]
fn whoever_may_use_an_agent_cannot_keep_its_user_from_it() {
    if !am_root() {
        return;
    }
    let folder = tempfile::tempdir_in("/run").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let _service = start(folder.path(), Some(SERVICE), &["--group", "nogroup"]);
    let socket = folder.path().join("run/agent.sock");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "knocking_process", "--nocapture"])
        .env("KNOCK_ON", &socket)
        .env("KNOCK_FOR", "all places")
        .uid(SOMEBODY_ELSE)
        .gid(GROUP)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut taking = Killed(command.spawn().unwrap());
    let said = BufReader::new(taking.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let said: Vec<String> = said.take_while(|line| !line.starts_with("KNOCKED")).collect();
    assert!(!said.is_empty(), "the test runner's own words");
    assert!(knock_for(&socket, SERVICE, GROUP, "commands").contains("welcome"), "its own user");
    assert!(
        knock_for(&socket, SOMEBODY_ELSE, GROUP, "keys").contains("hung up"),
        "no place is left for others"
    );
}

#[test]
fn a_program_of_the_same_user_cannot_read_the_agents_memory() {
    let folder = tempfile::tempdir().unwrap();
    // Root may read everything, so for root it is another user's agent and another user's spy.
    let user = rustix::process::getuid().is_root().then_some(SOMEBODY_ELSE);
    let alice = agent(folder.path(), user);
    let mut sleep = Command::new("sleep");
    sleep.arg("60");
    user.map(|user| sleep.uid(user).gid(user));
    let other = Killed(sleep.spawn().unwrap());

    let spy = |pid: u32, file: &str| {
        let mut cat = Command::new("head");
        cat.arg("-c1").arg(format!("/proc/{pid}/{file}")).stderr(Stdio::null()).stdout(Stdio::null());
        user.map(|user| cat.uid(user).gid(user));
        cat.status().unwrap().success()
    };
    // `maps` and `environ` take the same right as `mem`, ptrace and process_vm_readv.
    for file in ["maps", "environ", "auxv"] {
        assert!(spy(other.0.id(), file), "the spy reads {file} of an ordinary program");
        assert!(!spy(alice.0.id(), file), "the spy read {file} of the agent");
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", alice.0.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert!(core.split_whitespace().skip(4).take(2).eq(["0", "0"]), "{core}");
}

#[test]
fn a_careless_umask_opens_nothing() {
    let folder: TempDir = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "umask 0; exec \"$0\" run --socket \"$1/run/agent.sock\" --state \"$1/state\""])
        .arg(env!("CARGO_BIN_EXE_meeting-agent"))
        .arg(folder.path())
        .stderr(Stdio::null());
    let _agent = Killed(shell.spawn().unwrap());
    until_it_answers(&folder.path().join("run/agent.sock"));
    for (path, mode) in
        [("run", 0o700), ("run/agent.sock", 0o600), ("state", 0o700), ("state/device.key", 0o600)]
    {
        let found = fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{path} has mode {found:o}");
    }
}

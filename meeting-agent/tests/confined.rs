//! What a running agent can still do to its machine: little.

#![allow(clippy::unwrap_used)]

#[path = "../../tests/did_not_run.rs"]
mod did_not_run;

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use did_not_run::did_not_run;
use meeting_agent::{Config, fence};

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meeting-agent"));
    command.env("SSL_CERT_FILE", folder.join("authorities.pem")).env_remove("SSL_CERT_DIR");
    command
}

/// An agent, once its socket is there.
fn start(folder: &Path) -> Running {
    let socket = folder.join("run/agent.sock");
    let mut command = program(folder);
    command
        .args(["run", "--name", "Alice", "--socket"])
        .arg(&socket)
        .arg("--state")
        .arg(folder.join("state"));
    let agent = Running(command.stderr(Stdio::null()).spawn().unwrap());
    let end = Instant::now() + Duration::from_secs(20);
    while UnixStream::connect(&socket).is_err() {
        assert!(Instant::now() < end, "no socket");
        thread::sleep(Duration::from_millis(5));
    }
    agent
}

/// What it says to somebody who wants a meeting on a relay that a public authority vouches for; there is none.
fn asked_for_a_meeting(folder: &Path) -> String {
    let mut command = program(folder);
    command.args(["create", "--relay", "127.0.0.1:9", "--wait", "6", "--socket"]);
    let output = command.arg(folder.join("run/agent.sock")).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

fn authorities(folder: &Path) {
    let made = rcgen::generate_simple_self_signed(["authority.example".to_owned()]).unwrap();
    fs::write(folder.join("new.pem"), made.cert.pem()).unwrap();
    fs::rename(folder.join("new.pem"), folder.join("authorities.pem")).unwrap();
}

/// Whether the kernel can do this, tried in a thread that ends.
fn has_fences() -> bool {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::new(folder.path().join("agent.sock"), folder.path().into(), "Alice".into());
    let has = thread::spawn(move || fence::raise(&config).unwrap()).join().unwrap();
    if !has {
        did_not_run("this kernel has no Landlock");
    }
    has
}

#[test]
fn no_thread_of_it_has_a_capability_or_gets_one() {
    let folder = tempfile::tempdir().unwrap();
    authorities(folder.path());
    let agent = start(folder.path());
    let root = rustix::process::geteuid().is_root();
    let mut threads = 0;
    // The socket is there a moment before the threads are.
    let end = Instant::now() + Duration::from_secs(20);
    while threads < 3 {
        assert!(Instant::now() < end, "{threads} threads");
        threads = 0;
        for task in fs::read_dir(format!("/proc/{}/task", agent.0.id())).unwrap() {
            let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
            if threads == 0 && value("NoNewPrivs:") == "0" {
                break;
            }
            for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
                assert_eq!(value(set), "0000000000000000", "{set}");
            }
            assert!(!root || value("CapBnd:") == "0000000000000000", "{}", value("CapBnd:"));
            assert_eq!(value("NoNewPrivs:"), "1");
            threads += 1;
        }
    }
}

#[test]
fn a_running_agent_opens_no_file_that_was_not_its_own_when_it_started() {
    if !has_fences() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    authorities(folder.path());
    let _agent = start(folder.path());
    let said = asked_for_a_meeting(folder.path());
    assert!(said.contains("does not answer"), "the file can be read: {said}");
    // Another file of that name, with the same rights for everybody, is one that it never knew of.
    authorities(folder.path());
    let said = asked_for_a_meeting(folder.path());
    assert!(said.contains("no certificate authorities"), "{said}");
}

#[test]
fn behind_the_fence_are_its_two_directories_and_what_everybody_reads() {
    if !has_fences() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["state", "run", "elsewhere"] {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("file"), name).unwrap();
    }
    let path = folder.path().to_owned();
    // The fence is around this one thread.
    thread::spawn(move || {
        let config = Config::new(path.join("run/agent.sock"), path.join("state"), "Alice".into());
        assert!(fence::raise(&config).unwrap());
        let refused = |what: Result<File, std::io::Error>| {
            assert_eq!(what.err().map(|error| error.kind()), Some(ErrorKind::PermissionDenied));
        };
        for own in ["state", "run"] {
            let own = path.join(own);
            assert_eq!(fs::read_to_string(own.join("file")).unwrap().as_str(), own.file_name().unwrap());
            fs::write(own.join("new"), "new").unwrap();
            fs::rename(own.join("new"), own.join("newer")).unwrap();
            fs::remove_file(own.join("newer")).unwrap();
        }
        fs::read_to_string("/etc/hosts").unwrap();
        refused(File::open(path.join("elsewhere/file")));
        refused(File::create(path.join("elsewhere/new")));
        refused(File::create("/etc/e2ee-never-made"));
        refused(File::open(format!("/proc/{}/status", std::process::id())));
        let executed = Command::new("/bin/true").spawn();
        assert!(
            executed.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied),
            "it executes nothing"
        );
    })
    .join()
    .unwrap();
    File::open(folder.path().join("elsewhere/file")).unwrap();
}

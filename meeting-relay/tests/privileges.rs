//! What the relay may still do once it listens: nothing but its work. Most of it takes root to show.

#[allow(dead_code)]
mod common;
#[path = "../../tests/did_not_run.rs"]
mod did_not_run;

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use common::program::{Program, certificate, command, copy_of_relay, says};
use common::*;
use did_not_run::did_not_run;
use meeting_relay::{Config, fence};
use meeting_wire::Slot;
use nix::sys::signal::Signal;

/// `nobody` and its group, on Debian.
const NOBODY: u32 = 65_534;

fn am_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        did_not_run("it takes root");
    }
    root
}

/// A folder that belongs to `nobody`.
fn nobodys_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a directory");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("we are root");
    folder
}

/// An address below 1024 that nobody has, another one for each test.
fn low() -> String {
    static TAKEN: Mutex<u16> = Mutex::new(1024);
    let mut taken = TAKEN.lock().expect("no panic");
    let free = |port: &u16| UdpSocket::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    *taken = (512..*taken).rev().find(free).expect("a free port");
    format!("127.0.0.1:{taken}")
}

/// The same line of each thread's status.
fn all_say(relay: &Program, name: &str, value: &str) {
    let tasks = format!("/proc/{}/task", relay.child.id());
    let mut threads = 0;
    for task in fs::read_dir(tasks).expect("it runs") {
        let status = fs::read_to_string(task.expect("a thread").path().join("status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux has it");
        assert_eq!(line.split_whitespace().collect::<Vec<_>>().join(" "), value, "{name}");
        threads += 1;
    }
    assert!(threads > 0);
}

fn has_no_privileges(relay: &Program) {
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        all_say(relay, set, "0000000000000000");
    }
    all_say(relay, "NoNewPrivs:", "1");
}

async fn serves(relay: &Program) {
    let mut alice = relay.agent(ALICE).await;
    let mut bob = relay.agent(BOB).await;
    alice.post(Slot::Direct(BOB), b"one").await;
    assert_eq!(&bob.hear_post().await.body[..], b"one");
}

#[tokio::test]
async fn started_as_root_on_a_low_port_it_keeps_no_capability_in_any_thread_and_warns() {
    if !am_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a directory");
    let relay = Program::start(folder.path(), &["--listen", &low(), "--threads", "3"]).await;
    serves(&relay).await;
    has_no_privileges(&relay);
    all_say(&relay, "CapBnd:", "0000000000000000");
    assert!(relay.log().contains("runs as root") && relay.log().contains("--user"), "{}", relay.log());
}

#[tokio::test]
async fn it_becomes_the_user_that_is_named_and_takes_new_certificates_that_this_user_may_read() {
    if !am_root() {
        return;
    }
    let folder = nobodys_folder();
    let path = folder.path();
    let first = certificate(path, "first", (-1, 365));
    let second = certificate(path, "second", (-1, 365));
    let used = [path.join("used.pem"), path.join("used.key")];
    let take = |from: &[std::path::PathBuf; 2], owner: u32| {
        for (from, to) in from.iter().zip(&used) {
            fs::copy(from, to).expect("copied");
            fs::set_permissions(to, fs::Permissions::from_mode(0o600)).expect("ours");
            chown(to, Some(owner), Some(owner)).expect("we are root");
        }
    };
    take(&first, NOBODY);
    fs::write(path.join("relay.toml"), "user = 'nobody'\n").expect("written");
    let args =
        ["--certificate", "used.pem", "--key", "used.key", "--config", "relay.toml", "--listen", &low()];
    let mut relay = Program::start(path, &args).await;
    relay.certificate = first[0].clone();
    serves(&relay).await;
    has_no_privileges(&relay);
    all_say(&relay, "CapBnd:", "0000000000000000");
    all_say(&relay, "Uid:", "65534 65534 65534 65534");
    all_say(&relay, "Gid:", "65534 65534 65534 65534");
    // Root is in groups of its own; what is left are the user's.
    all_say(&relay, "Groups:", "65534");
    assert!(!relay.log().contains("runs as root"), "{}", relay.log());

    take(&second, 0);
    relay.signal(Signal::SIGHUP);
    relay.logs("make it readable for the user that runs the relay").await;
    relay.connect(&first[0]).await;
    take(&second, NOBODY);
    relay.signal(Signal::SIGHUP);
    relay.logs("a new certificate is in use").await;
    relay.connect(&second[0]).await;
}

#[tokio::test]
async fn one_capability_opens_a_low_port_and_is_given_up() {
    if !am_root() {
        return;
    }
    let folder = nobodys_folder();
    let below = as_nobody(folder.path(), "--inh-caps=+net_bind_service --ambient-caps=+net_bind_service");
    let below: Vec<&str> = below.iter().map(String::as_str).collect();
    let relay = Program::start_as(command(&below), folder.path(), &["--listen", &low()]).await;
    serves(&relay).await;
    has_no_privileges(&relay);
}

/// Whether the kernel can do this, tried in a thread that ends.
fn has_fences() -> bool {
    let folder = tempfile::tempdir().expect("a directory");
    let config = Config::development(folder.path());
    let has = thread::spawn(move || fence::raise(&config).expect("raised")).join().expect("no panic");
    if !has {
        did_not_run("this kernel has no Landlock");
    }
    has
}

#[test]
fn behind_the_fence_are_its_certificate_and_the_files_it_writes() {
    if !has_fences() {
        return;
    }
    let folder = tempfile::tempdir().expect("a directory");
    for name in ["live", "archive", "stats", "elsewhere"] {
        fs::create_dir(folder.path().join(name)).expect("made");
        fs::write(folder.path().join(name).join("file"), name).expect("written");
    }
    symlink("../archive/file", folder.path().join("live/link")).expect("linked");
    let path = folder.path().to_owned();
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = server.local_addr().expect("it listens");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux");
    // The fence is around this one thread.
    thread::spawn(move || {
        let mut config = Config::development("/nowhere");
        config.certificate = Some((path.join("live/link"), path.join("live/file")));
        config.stats = Some(path.join("stats/now"));
        assert!(fence::raise(&config).expect("raised"));
        fn refused<T>(what: io::Result<T>) {
            assert_eq!(what.err().map(|error| error.kind()), Some(ErrorKind::PermissionDenied));
        }
        for read in ["live/link", "live/file", "archive/file"] {
            fs::read_to_string(path.join(read)).expect("its certificate");
            refused(fs::write(path.join(read), "another"));
        }
        fs::write(path.join("stats/new"), "1").expect("its counters");
        fs::rename(path.join("stats/new"), path.join("stats/now")).expect("put in place");
        refused(File::open(path.join("stats/file")));
        refused(File::open(path.join("elsewhere/file")));
        refused(File::create(path.join("elsewhere/new")));
        refused(File::open("/etc/hosts"));
        refused(Command::new("/bin/true").spawn());
        if rules_tcp(&release) {
            refused(TcpStream::connect(address));
        }
        UdpSocket::bind("127.0.0.1:0").expect("what media takes");
    })
    .join()
    .expect("all that holds");
    TcpStream::connect(address).expect("it is this thread's affair alone");
}

/// Landlock rules TCP since Linux 6.7.
fn rules_tcp(release: &str) -> bool {
    let mut numbers =
        release.split(|other: char| !other.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 7)
}

#[tokio::test]
async fn a_renewed_certificate_is_read_beside_the_old_one_and_nowhere_else() {
    if !has_fences() {
        return;
    }
    let [folder, certificates, elsewhere] = [(); 3].map(|()| tempfile::tempdir().expect("a directory"));
    let path = certificates.path();
    for name in ["live", "archive"] {
        fs::create_dir(path.join(name)).expect("made");
    }
    let lead_to = |[chain, key]: &[std::path::PathBuf; 2]| {
        for (to, name) in [(chain, "chain"), (key, "key")] {
            symlink(to, path.join("live/new")).expect("linked");
            fs::rename(path.join("live/new"), path.join("live").join(name)).expect("put in place");
        }
    };
    let first = certificate(&path.join("archive"), "first", (-1, 365));
    lead_to(&first);
    let [chain, key] = ["chain", "key"].map(|name| path.join("live").join(name).display().to_string());
    let relay = Program::start(folder.path(), &["--certificate", &chain, "--key", &key]).await;
    relay.connect(&first[0]).await;

    lead_to(&certificate(elsewhere.path(), "elsewhere", (-1, 365)));
    relay.signal(Signal::SIGHUP);
    relay.logs("the new certificate is not used, the old one stays").await;
    relay.connect(&first[0]).await;

    let second = certificate(&path.join("archive"), "second", (-1, 365));
    lead_to(&second);
    relay.signal(Signal::SIGHUP);
    relay.logs("a new certificate is in use").await;
    relay.connect(&second[0]).await;
}

#[test]
fn a_user_that_it_cannot_become_is_named_with_the_way_out() {
    if !am_root() {
        return;
    }
    let folder = nobodys_folder();
    let refused = |below: &[&str], user: &str, part: &str| {
        let listen = ["--listen", "127.0.0.1:0", "--state", "/nowhere", "--user", user];
        let (well, said) = says(command(below), &listen);
        assert!(!well && said.contains(user) && said.contains(part), "{said}");
    };
    refused(&[], "nobody-of-that-name", "there is no such user");
    let below = as_nobody(folder.path(), "");
    let below: Vec<&str> = below.iter().map(String::as_str).collect();
    refused(&below, "daemon", "start the relay as root");
}

/// A program below which the relay is `nobody`'s; a copy of it is where everybody finds it.
fn as_nobody(folder: &Path, more: &str) -> Vec<String> {
    let relay = copy_of_relay(folder);
    // The last argument of `sh -c` is where it would have been found; the copy runs instead.
    let script = format!(
        "shift; exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups {more} {} \"$@\"",
        relay.display()
    );
    ["sh", "-c", &script, "sh"].map(String::from).into()
}

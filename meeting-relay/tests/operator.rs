//! What goes wrong around the relay: whose fault it is and what to do next is said, and everything else goes on.

#[allow(dead_code)]
mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use common::program::{Program, certificate, command, copy_of_relay, says};
use common::*;
use meeting_relay::check_health;
use meeting_wire::Slot;
use tokio::net::TcpStream;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

/// Whether it ended with an error that says all of this.
fn refuses(below: &[&str], args: &[&str], parts: &[&str]) {
    let (well, said) = says(command(below), args);
    assert!(!well, "{said}");
    assert!(said.starts_with("meeting-relay: ") && !said.contains("panicked"), "{said}");
    for part in parts {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn a_taken_port_is_named_with_the_way_out() {
    let folder = folder();
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let state = path(folder.path());
    refuses(&[], &["--listen", &address, "--state", state], &[&address, "--listen", "stop the program"]);
    let file = folder.path().join("relay.toml");
    fs::write(&file, "[meetings]\ncreate_tokens = ['0123456789abcdef']\n").expect("written");
    let args = ["--listen", "192.0.2.1:4433", "--state", state, "--config", path(&file)];
    refuses(&[], &args, &["192.0.2.1:4433", "name an address of this machine by --listen"]);
}

#[test]
fn a_config_that_makes_no_sense_is_named_with_its_line() {
    let folder = folder();
    let file = folder.path().join("relay.toml");
    let state = ["--state", path(folder.path()), "--config", path(&file)];
    refuses(&[], &state, &["relay.toml", "No such file"]);
    for (text, said) in [
        ("[meetings]\nmax_particpants = 3\n", "line 2: unknown field `max_particpants`"),
        ("[meetings]\nmax_participants = 0\n", "line 2: meetings.max_participants"),
    ] {
        fs::write(&file, text).expect("written");
        refuses(&[], &state, &[path(&file), said]);
    }
}

#[test]
fn files_without_permission_are_named_with_the_way_out() {
    let folder = folder();
    let all = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder.path(), all).expect("ours");
    let [chain, key] = certificate(folder.path(), "used", (-1, 90));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o000)).expect("ours");
    fs::create_dir(folder.path().join("closed")).expect("made");
    fs::set_permissions(folder.path().join("closed"), fs::Permissions::from_mode(0o000)).expect("ours");
    let closed = folder.path().join("closed");
    let below = nobody(folder.path());
    let below: Vec<&str> = below.iter().map(String::as_str).collect();

    let listen = ["--listen", "127.0.0.1:0"];
    let with = |args: &[&'static str], more: &[&str]| -> Vec<String> {
        listen.iter().chain(args).chain(more).map(ToString::to_string).collect()
    };
    for (args, parts) in [
        (with(&["--certificate"], &[path(&chain), "--key", path(&key)]), ["used.key", "make it readable"]),
        (with(&["--state"], &[path(&closed)]), ["closed", "--state"]),
        (with(&["--config"], &[path(&closed.join("relay.toml"))]), ["relay.toml", "Permission denied"]),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        refuses(&below, &args, &parts);
    }
}

/// A program below which there are no rights but those of everybody; a copy of the relay is where everybody finds it.
fn nobody(folder: &Path) -> Vec<String> {
    if !nix::unistd::geteuid().is_root() {
        return Vec::new();
    }
    let relay = copy_of_relay(folder);
    // The last argument of `sh -c` is where it would have been found; the copy runs instead.
    let script =
        format!("shift; exec setpriv --reuid=65534 --regid=65534 --clear-groups {} \"$@\"", relay.display());
    ["sh", "-c", &script, "sh"].map(String::from).into()
}

#[tokio::test]
async fn a_full_disk_costs_the_counters_and_the_recording_and_no_meeting() {
    let folder = folder();
    // A file system of 64 KiB that is full; only this relay sees it.
    let script = "mkdir -p small && mount -t tmpfs -o size=64k none small && \
                  dd if=/dev/zero of=small/filler bs=4k 2>/dev/null; exec \"$0\" \"$@\"";
    let command = command(&["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]);
    let args = ["--stats", "small/stats", "--record", "/dev/full"];
    let relay = Program::start_as(command, folder.path(), &args).await;
    let mut alice = relay.agent(ALICE).await;
    let mut bob = relay.agent(BOB).await;
    alice.post(Slot::Direct(BOB), b"one").await;
    assert_eq!(&bob.hear_post().await.body[..], b"one");
    relay.logs("cannot write the counters to small/stats: No space left on device").await;
    relay.logs("cannot write the recording: No space left on device").await;
    alice.post(Slot::Direct(BOB), b"two").await;
    assert_eq!(&bob.hear_post().await.body[..], b"two");
    assert_eq!(relay.log().matches("cannot write").count(), 2, "each is said once: {}", relay.log());
}

#[test]
fn a_full_disk_for_the_state_is_named_with_the_way_out() {
    let folder = folder();
    let script = "mount -t tmpfs -o size=8k none \"$1\" && dd if=/dev/zero of=\"$1/filler\" bs=4k 2>/dev/null; \
                  relay=$0; state=$1; shift; exec \"$relay\" --state \"$state\" \"$@\"";
    let below = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script];
    let parts = ["No space left on device", "--state"];
    refuses(&below, &[path(folder.path()), "--listen", "127.0.0.1:0"], &parts);
}

#[tokio::test]
async fn few_file_descriptors_cost_the_monitors_clients_and_no_meeting() {
    let folder = folder();
    let monitor = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = monitor.local_addr().expect("an address");
    drop(monitor);
    let command = command(&["prlimit", "--nofile=20"]);
    let relay = Program::start_as(command, folder.path(), &["--monitor", &address.to_string()]).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(address).await.expect("listens"));
    }
    let mut alice = relay.agent(ALICE).await;
    let mut bob = relay.agent(BOB).await;
    alice.post(Slot::Direct(BOB), b"one").await;
    assert_eq!(&bob.hear_post().await.body[..], b"one");
    drop(silent);
    soon(async {
        while check_health(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

//! An agent that is somebody else's is given nothing, not even a frame.

#![allow(clippy::unwrap_used)]

#[path = "../../tests/did_not_run.rs"]
mod did_not_run;
mod support;

use std::{
    io::Read,
    os::unix::{
        fs::{PermissionsExt, chown},
        net::{UnixListener, UnixStream},
        process::CommandExt,
    },
    process::{Child, Command, Stdio},
};

use did_not_run::did_not_run;
use gst::prelude::*;
use support::{Pipeline, until};

/// Nobody, by convention.
const SOMEBODY_ELSE: u32 = 65_534;

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Does nothing unless the test below started it: an agent of Eve's, who says how much she hears.
#[test]
fn listening_process() {
    let Some(socket) = std::env::var_os("LISTEN_ON") else { return };
    let listener = UnixListener::bind(&socket).unwrap();
    for connection in listener.incoming() {
        let mut heard = Vec::new();
        let _ = connection.unwrap().take(1024).read_to_end(&mut heard);
        println!("HEARD {} bytes", heard.len());
    }
}

#[test]
fn an_agent_of_another_user_is_told_nothing() {
    if !rustix::process::getuid().is_root() {
        did_not_run("a second user takes root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let run = folder.path().join("run");
    std::fs::create_dir(&run).unwrap();
    chown(&run, Some(SOMEBODY_ELSE), Some(SOMEBODY_ELSE)).unwrap();
    let socket = run.join("agent.sock");
    let said = folder.path().join("said");
    let _eve = Killed(
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "listening_process", "--nocapture"])
            .env("LISTEN_ON", &socket)
            .uid(SOMEBODY_ELSE)
            .gid(SOMEBODY_ELSE)
            .current_dir("/")
            .stdout(std::fs::File::create(&said).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    // That it stands there does not say that she listens.
    until("Eve listens", || UnixStream::connect(&socket).is_ok());
    for (owner, reason) in [(SOMEBODY_ELSE, "can be written by others"), (0, "belongs to another user")] {
        // With the directory ours again only the socket's peer tells.
        chown(&run, Some(owner), Some(owner)).unwrap();
        for element in ["meetingkey", "meetingsrc", "meetingsink"] {
            let pipeline =
                Pipeline::parse(&format!("{element} agent={} fakesrc ! fakesink", socket.display()));
            assert!(pipeline.0.set_state(gst::State::Playing).is_err(), "{element}");
            let text = pipeline.until_error();
            assert!(text.contains(reason), "{element}: {text}");
        }
    }
    let heard = || std::fs::read_to_string(&said).unwrap();
    until("we and all three, twice, came and went", || heard().matches("HEARD").count() == 7);
    assert_eq!(heard().matches("HEARD 0 bytes").count(), 7, "{}", heard());
}

//! What people and programs write: meeting links, the relay's settings, the device key's file, requests of the command
//! line. The first byte says which.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use meeting_agent::{IDENTITY_FILE, control, load_or_create_identity};
use meeting_protocol::{link::MeetingLink, local};
use meeting_relay::{Args, Config};
use tempfile::{Builder, TempDir};

pub fn run(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind {
        0 => link(bytes),
        1 => settings(bytes),
        2 => identity(bytes),
        3 => request(bytes),
        _ => paths(bytes),
    }
}

fn link(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match MeetingLink::parse(text) {
        Ok(link) => {
            let shown = link.reveal();
            let parts =
                |text: &str| text.split_once('#').map(|(head, tail)| (head.to_lowercase(), tail.to_owned()));
            assert_eq!(parts(&shown), parts(text.trim()), "one form, but for capital digits");
            let again = MeetingLink::parse(&shown).map(|link| link.reveal());
            assert_eq!(again.as_deref(), Ok(&*shown));
        }
        // The text may hold a secret: the reason never repeats it.
        Err(why) => assert!(text.len() < 60 || !why.to_string().contains(text)),
    }
}

fn settings(bytes: &[u8]) {
    let (folder, path) = folder("relay.toml");
    fs::write(&path, bytes).expect("a file of our own");
    let args = Args { config: Some(path), state: Some(folder), ..Args::default() };
    if let Ok(config) = Config::load(args) {
        assert!(config.check().is_ok());
        assert!(config.listen.ip().is_loopback() || !config.is_development(), "open to the world");
    }
}

fn identity(bytes: &[u8]) {
    let (folder, path) = folder(IDENTITY_FILE);
    fs::write(&path, bytes).expect("a file of our own");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a file of our own");
    let whole = bytes.len() == 37 && bytes.starts_with(b"e2dk\x01");
    assert_eq!(load_or_create_identity(&folder).is_ok(), whole);
    assert_eq!(fs::read(&path).expect("it stays"), bytes, "a damaged key is not replaced");
}

fn request(bytes: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<control::Request>(bytes) {
        let text = serde_json::to_string(&request).expect("what was read can be written");
        serde_json::from_str::<control::Request>(&text).expect("and read again");
    }
    let _ = serde_json::from_slice::<control::Answer>(bytes);
}

/// Where the socket is, whatever the environment says.
fn paths(bytes: &[u8]) {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let mut values = bytes.split(|byte| *byte == 0).map(|value| OsStr::from_bytes(value).to_owned());
    let (socket, runtime) = (values.next(), values.next());
    let env = |name: &str| if name == "MEETING_AGENT_SOCKET" { socket.clone() } else { runtime.clone() };
    let path = local::socket_path(env, 1000, |_| bytes.len().is_multiple_of(2));
    assert!(!path.as_os_str().is_empty());
}

/// A folder for the life of the process, with a file of this name.
fn folder(file: &str) -> (PathBuf, PathBuf) {
    thread_local! {
        static FOLDER: TempDir = Builder::new()
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .expect("a folder for files");
    }
    FOLDER.with(|folder| (folder.path().to_owned(), folder.path().join(file)))
}

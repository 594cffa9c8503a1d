//! The device key on disk: made once, kept, and refused when it may have leaked or is damaged.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::PathBuf,
};

use meeting_agent::{AgentError, IDENTITY_FILE, load_or_create_identity};
use tempfile::TempDir;

fn state() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("state");
    (folder, state)
}

#[test]
fn the_first_start_makes_a_private_key_and_the_second_finds_it() {
    let (_folder, state) = state();
    let first = load_or_create_identity(&state).unwrap().public();
    assert_eq!(load_or_create_identity(&state).unwrap().public(), first);
    let file = fs::metadata(state.join(IDENTITY_FILE)).unwrap();
    assert_eq!((file.mode() & 0o7777, file.len()), (0o600, 37));
    assert_eq!(fs::metadata(&state).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "no draft is left behind");
}

#[test]
fn two_devices_have_two_keys() {
    let ((_a, alice), (_b, bob)) = (state(), state());
    let keys = [alice, bob].map(|state| load_or_create_identity(&state).unwrap().public());
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn a_key_open_to_others_is_refused_with_what_to_type() {
    let (_folder, state) = state();
    load_or_create_identity(&state).unwrap();
    let file = state.join(IDENTITY_FILE);
    for mode in [0o640, 0o604, 0o660] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let said = load_or_create_identity(&state).unwrap_err().to_string();
        assert!(said.contains("chmod 600") && said.contains(IDENTITY_FILE), "{said}");
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    let said = load_or_create_identity(&state).unwrap_err().to_string();
    assert!(said.contains("chmod 700"), "{said}");
}

#[test]
fn a_damaged_key_is_refused_and_never_replaced() {
    let (_folder, state) = state();
    load_or_create_identity(&state).unwrap();
    let file = state.join(IDENTITY_FILE);
    let good = fs::read(&file).unwrap();
    let mut newer = good.clone();
    newer[4] += 1;
    let cases: [&[u8]; 4] = [b"", &good[..36], &newer, &[b"junk!", &good[5..]].concat()];
    for bytes in cases {
        fs::write(&file, bytes).unwrap();
        assert!(matches!(load_or_create_identity(&state), Err(AgentError::DamagedKey(_))), "{bytes:?}");
        assert_eq!(fs::read(&file).unwrap(), bytes, "left as it was");
    }
    fs::write(&file, [&good[..], b"x"].concat()).unwrap();
    assert!(load_or_create_identity(&state).is_err());
}

#[test]
fn links_to_elsewhere_are_not_followed() {
    let (_folder, state) = state();
    load_or_create_identity(&state).unwrap();
    let elsewhere = state.with_file_name("elsewhere");
    fs::rename(&state, &elsewhere).unwrap();
    symlink(&elsewhere, &state).unwrap();
    assert!(load_or_create_identity(&state).unwrap_err().to_string().contains("symbolic"));
    fs::remove_file(&state).unwrap();
    fs::rename(&elsewhere, &state).unwrap();
    let file = state.join(IDENTITY_FILE);
    fs::rename(&file, state.join("other")).unwrap();
    symlink("other", &file).unwrap();
    assert!(load_or_create_identity(&state).is_err());
}

//! The nonce ledger across processes: this program runs itself as several sealers.

use std::{env, path::Path, process::Command};

use getrandom::SysRng;
use meeting_protocol::{
    frame::{CipherSuite, KeyId, SealKey, Sealer},
    ledger,
    secret::Secret,
};
use rand_core::UnwrapErr;

#[test]
fn a_repeat_in_another_process_is_found() {
    let dir = tempfile::tempdir().expect("a directory");
    let (one, two) = (random(), random());
    seal_in_a_process(dir.path(), &one);
    seal_in_a_process(dir.path(), &two);
    assert_eq!(ledger::check_dir(dir.path()), Ok(6));
    seal_in_a_process(dir.path(), &one);
    ledger::check_dir(dir.path()).expect_err("the key sealed three frames twice");
}

#[test]
fn a_missing_directory_is_no_good_ledger() {
    let dir = tempfile::tempdir().expect("a directory");
    ledger::check_dir(dir.path().join("missing")).expect_err("nothing to read");
}

/// Not a test of its own: what the other processes do.
#[test]
#[ignore = "run by a_repeat_in_another_process_is_found"]
fn sealer_process() {
    let Ok(key) = env::var(KEY) else { return };
    let key = hex::decode(key).expect("hex");
    let base_key = Secret::init_with(|bytes| bytes.copy_from_slice(&key));
    let mut sealer = Sealer::new(SealKey::new(KeyId::from(1), CipherSuite::default(), base_key));
    for _ in 0..3 {
        sealer.seal(b"frame").expect("sealed");
    }
}

fn seal_in_a_process(dir: &Path, key: &Secret<32>) {
    let status = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "sealer_process", "--ignored", "--quiet"])
        .env("E2EE_NONCE_LEDGER", dir)
        .env(KEY, hex::encode(key.expose()))
        .status()
        .expect("a process");
    assert!(status.success());
}

fn random() -> Secret<32> {
    Secret::random(&mut UnwrapErr(SysRng))
}

const KEY: &str = "LEDGER_TEST_KEY";

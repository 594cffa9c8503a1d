//! Canaries: the secrets of a running program, told to tests that search for them where no secret may be.
//!
//! It is on in every test (feature `nonce-ledger`) and never in what is shipped. With the environment variable
//! `E2EE_CANARIES` naming a file, each secret is written there when it is born: its name and a newline, one byte for
//! its length, its bytes. They go to the file from where they live, so that telling leaves no copy to be found.

use std::{
    env, fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    sync::{LazyLock, Mutex, PoisonError},
};

/// Tells one secret.
pub(crate) fn tell(name: &str, secret: &[u8]) {
    if let Some(file) = &*FILE {
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let length = u8::try_from(secret.len()).expect("a short secret");
        let head = [name.as_bytes(), b"\n", &[length]].concat();
        file.write_all(&head).and_then(|()| file.write_all(secret)).expect("write the canaries");
    }
}

/// What stands in such a file: names and secrets. A last one that was cut short by the end of its process is none.
pub fn read(mut bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let name = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let Some((length, rest)) = bytes[end + 1..].split_first() else { break };
        let Some((secret, rest)) = rest.split_at_checked(usize::from(*length)) else { break };
        all.push((name, secret.to_vec()));
        bytes = rest;
    }
    all
}

static FILE: LazyLock<Option<Mutex<fs::File>>> = LazyLock::new(|| {
    let path = env::var_os("E2EE_CANARIES")?;
    let file = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    Some(Mutex::new(file.expect("open the file of canaries")))
});

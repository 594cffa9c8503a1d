//! The nonce ledger: remembers every nonce that was ever sealed under every key, and panics on a repeat.
//!
//! It is on in every test (feature `nonce-ledger`) and never in what is shipped: it grows with every frame. It
//! knows all seals of this process; with the environment variable `E2EE_NONCE_LEDGER` naming a directory, each
//! process also writes a file there, and [`check_dir`] looks for repeats across them.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    env, fs,
    io::{Read, Write},
    path::Path,
    process,
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use sha2::{Digest, Sha256};

/// Names a key without telling it: its SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash of an AEAD key.
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }
}

/// A ledger of this thread alone, from now until it is dropped: for runs that repeat an earlier one on purpose.
pub struct Scope(());

impl Scope {
    /// Begins with empty books.
    pub fn new() -> Self {
        SCOPE.set(Some(HashMap::new()));
        Self(())
    }

    /// Lets `f` seal off the books: what an attacker seals with keys it was given is not ours to answer for.
    pub fn off<T>(f: impl FnOnce() -> T) -> T {
        let kept = SCOPE.replace(None);
        let off = OFF.replace(true);
        let result = f();
        OFF.set(off);
        SCOPE.set(kept);
        result
    }
}

impl Default for Scope {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        SCOPE.set(None);
    }
}

/// Notes that a seal under this key takes this nonce.
///
/// # Panics
///
/// If this process has sealed under the key with the nonce before, or if the ledger file cannot be written.
pub fn record(key: &KeyHash, nonce: &[u8; 12]) {
    if CLOSED.load(Ordering::Relaxed) || OFF.get() {
        return;
    }
    let scoped =
        SCOPE.with_borrow_mut(|seen| seen.as_mut().map(|seen| seen.entry(*key).or_default().insert(*nonce)));
    if let Some(new) = scoped {
        assert!(new, "nonce ledger: a second seal under one key with one nonce");
        return;
    }
    // A thread that panicked here left the ledger whole: it inserts, then panics.
    let ledger = &mut *LEDGER.lock().unwrap_or_else(PoisonError::into_inner);
    let new = ledger.seen.entry(*key).or_default().insert(*nonce);
    assert!(new, "nonce ledger: a second seal under one key with one nonce");
    if let Some(file) = &mut ledger.file {
        let mut record = [0; RECORD_LEN];
        record[..32].copy_from_slice(&key.0);
        record[32..].copy_from_slice(nonce);
        // Unbuffered: what a killed process has sealed must be on the books.
        file.write_all(&record).expect("write the nonce ledger");
    }
}

/// Ends all book-keeping in this process, for a benchmark that must not measure it.
pub fn close() {
    CLOSED.store(true, Ordering::Relaxed);
}

/// Reads the ledgers of all processes in and below a directory and gives the number of seals on record.
///
/// # Errors
///
/// A sentence if a key and nonce are there twice or a file cannot be read. A last record cut short by the end of
/// its process counts as none.
pub fn check_dir(dir: impl AsRef<Path>) -> Result<u64, String> {
    let mut seen = HashSet::new();
    check_into(&mut seen, dir.as_ref())?;
    Ok(seen.len() as u64)
}

fn check_into(seen: &mut HashSet<[u8; RECORD_LEN]>, dir: &Path) -> Result<(), String> {
    for entry in fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))? {
        let entry = entry.map_err(|error| format!("{}: {error}", dir.display()))?;
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            check_into(seen, &path)?;
        }
        if path.extension().is_none_or(|extension| extension != EXTENSION) {
            continue;
        }
        let mut bytes = Vec::new();
        fs::File::open(&path)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        for record in bytes.as_chunks::<RECORD_LEN>().0 {
            if !seen.insert(*record) {
                return Err(format!("{}: a nonce was used twice under one key", path.display()));
            }
        }
    }
    Ok(())
}

struct Ledger {
    seen: Seen,
    file: Option<fs::File>,
}

impl Ledger {
    fn open() -> Self {
        let file = env::var_os("E2EE_NONCE_LEDGER").map(|dir| {
            fs::create_dir_all(&dir).expect("make the directory of the nonce ledger");
            // Process ids come back, file names must not: the first free number is ours.
            (0..)
                .map(|n| Path::new(&dir).join(format!("{}-{n}.{EXTENSION}", process::id())))
                .find_map(|path| match fs::File::create_new(path) {
                    Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => None,
                    created => Some(created.expect("make a file of the nonce ledger")),
                })
                .expect("a free file name")
        });
        Self { seen: HashMap::new(), file }
    }
}

static LEDGER: LazyLock<Mutex<Ledger>> = LazyLock::new(|| Mutex::new(Ledger::open()));
type Seen = HashMap<KeyHash, HashSet<[u8; 12]>>;

thread_local! {
    static SCOPE: RefCell<Option<Seen>> = const { RefCell::new(None) };
    static OFF: Cell<bool> = const { Cell::new(false) };
}
static CLOSED: AtomicBool = AtomicBool::new(false);

/// SHA-256 of the key, then the nonce.
const RECORD_LEN: usize = 32 + 12;
const EXTENSION: &str = "nonces";

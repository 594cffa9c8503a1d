//! Proofs of a leader's fault on disk: a file of mode 0600 each, below the state directory, so that a crash loses none.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use meeting_protocol::evidence::{Evidence, MAX_FILE, Proof};
use sha2::{Digest, Sha256};

use crate::{error::AgentError, private};

/// Keeps a proof; the oldest goes where there are too many. Gives its id.
pub fn keep(state: &Path, file: &[u8]) -> Result<String, AgentError> {
    let folder = state.join(FOLDER);
    private::directory(&folder)?;
    let id = hex::encode(&Sha256::digest(file)[..ID]);
    private::write(&path(&folder, &id), file, true)?;
    let mut kept = ids(&folder);
    let age = |id: &String| {
        let modified = fs::metadata(path(&folder, id)).and_then(|meta| meta.modified());
        modified.unwrap_or(SystemTime::UNIX_EPOCH)
    };
    kept.sort_by_cached_key(|id| (age(id), id.clone()));
    for old in kept.iter().take(kept.len().saturating_sub(MAX_FILES)) {
        let _ = fs::remove_file(path(&folder, old));
    }
    Ok(id)
}

/// All that is kept and still holds, by id.
pub fn list(state: &Path) -> Vec<(String, Proof)> {
    let folder = state.join(FOLDER);
    let proof = |id: &String| Evidence::from_file(&read(&folder, id).ok()?).ok()?.verify().ok();
    ids(&folder).into_iter().filter_map(|id| proof(&id).map(|proof| (id, proof))).collect()
}

/// The one that a person means: by the start of its id, or the only one.
pub fn find(state: &Path, wanted: Option<&str>) -> Result<(String, Vec<u8>), String> {
    let folder = state.join(FOLDER);
    let mut found = ids(&folder);
    found.retain(|id| wanted.is_none_or(|start| id.starts_with(start)));
    match &found[..] {
        [id] => Ok((id.clone(), read(&folder, id).map_err(|error| error.to_string())?)),
        [] => Err("there is no such evidence: `meeting-agent evidence list` shows what there is".into()),
        _ => {
            Err("there is more than one: say which by the start of its id (`meeting-agent evidence list`)"
                .into())
        }
    }
}

fn read(folder: &Path, id: &str) -> Result<Vec<u8>, AgentError> {
    private::read(&path(folder, id), MAX_FILE as u64).map(|bytes| bytes.to_vec())
}

fn ids(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let id = |name: &str| -> Option<String> {
        let id = name.strip_suffix(EXTENSION)?;
        (id.len() == 2 * ID && id.bytes().all(|c| c.is_ascii_hexdigit())).then(|| id.to_owned())
    };
    let mut ids: Vec<String> = entries.filter_map(|entry| id(entry.ok()?.file_name().to_str()?)).collect();
    ids.sort();
    ids
}

fn path(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!("{id}{EXTENSION}"))
}

/// Below the state directory.
const FOLDER: &str = "evidence";
const EXTENSION: &str = ".evidence";
/// Bytes of the file's SHA-256 that name it.
const ID: usize = 8;
/// At up to 2 MiB each; one meeting gives one.
const MAX_FILES: usize = 32;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn proofs_are_kept_to_a_number_for_nobody_else_and_are_found_again() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join(FOLDER);
        let ids: Vec<String> = (0..MAX_FILES as u32 + 3)
            .map(|number| {
                let id = keep(state.path(), &number.to_be_bytes()).unwrap();
                // The file system's clock may not have moved on: the order is told.
                let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(number.into());
                fs::File::open(path(&folder, &id)).unwrap().set_modified(time).unwrap();
                id
            })
            .collect();
        let again = keep(state.path(), &5_u32.to_be_bytes()).unwrap();
        assert_eq!(again, ids[5], "one proof has one file");
        let left = fs::read_dir(&folder).unwrap().count();
        assert_eq!(left, MAX_FILES);
        for entry in fs::read_dir(&folder).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        let newest = &ids[MAX_FILES + 2];
        assert_eq!(find(state.path(), Some(&newest[..10])).unwrap().1, (MAX_FILES as u32 + 2).to_be_bytes());
        assert!(find(state.path(), None).unwrap_err().contains("more than one"));
        assert!(find(state.path(), Some(&ids[0])).unwrap_err().contains("no such"), "the oldest went");
        assert!(find(state.path(), Some("../device")).is_err());
        assert!(list(state.path()).is_empty(), "what proves nothing is not shown");
    }
}

//! Directories and files that are nobody else's: made so, checked to be so, and refused otherwise.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::error::AgentError;

/// Makes `path` a directory of ours with mode 0700, or checks that it is one.
pub fn directory(path: &Path) -> Result<(), AgentError> {
    match fs::symlink_metadata(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(AgentError::io(format!("cannot make {}", path.display())))?;
        }
        Err(error) => return Err(AgentError::io(format!("cannot look at {}", path.display()))(error)),
    }
    let meta =
        fs::symlink_metadata(path).map_err(AgentError::io(format!("cannot look at {}", path.display())))?;
    if !meta.is_dir() {
        return Err(wrong(path, "is not a directory (symbolic links are not followed)", "name another path"));
    }
    check(path, &meta, "chmod 700")
}

/// Reads a small file that only we may read; `limit` bounds its size.
pub fn read(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, AgentError> {
    let failed = || format!("cannot read {}", path.display());
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
        .open(path)
        .map_err(AgentError::io(failed()))?;
    let meta = file.metadata().map_err(AgentError::io(failed()))?;
    if !meta.is_file() {
        return Err(wrong(path, "is not a plain file", "name another path"));
    }
    check(path, &meta, "chmod 600")?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit as usize + 1));
    file.take(limit + 1).read_to_end(&mut bytes).map_err(AgentError::io(failed()))?;
    if bytes.len() as u64 > limit {
        return Err(wrong(path, TOO_LONG, "name another path"));
    }
    Ok(bytes)
}

/// Writes a file with mode 0600 that is there whole or not at all.
pub fn write(path: &Path, bytes: &[u8], replace: bool) -> Result<(), AgentError> {
    let failed = || format!("cannot write {}", path.display());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // a hard link, unlike a rename, fails where somebody else was first
        if replace { fs::rename(&draft, path) } else { fs::hard_link(&draft, path) }
    })();
    let _ = fs::remove_file(&draft);
    written.map_err(AgentError::io(failed()))
}

fn check(path: &Path, meta: &fs::Metadata, chmod: &str) -> Result<(), AgentError> {
    let uid = rustix::process::getuid().as_raw();
    if meta.uid() != uid {
        return Err(wrong(path, "belongs to another user", "name a path of your own"));
    }
    if meta.mode() & 0o077 != 0 {
        let remedy = format!("if its contents are still yours alone, `{chmod} {}`", path.display());
        return Err(AgentError::Path { path: path.into(), problem: "is open to other users", remedy });
    }
    Ok(())
}

fn wrong(path: &Path, problem: &'static str, remedy: &str) -> AgentError {
    AgentError::Path { path: path.into(), problem, remedy: remedy.into() }
}

/// The problem of a file above the limit.
pub const TOO_LONG: &str = "is longer than what belongs there";

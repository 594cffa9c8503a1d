//! What is nobody else's: directories and files, made so, checked to be so and refused otherwise, and commands.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{self as unix_fs, DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::error::AgentError;

/// Makes `path` a directory of ours with mode 0700, or checks that it is one.
pub fn directory(path: &Path) -> Result<(), AgentError> {
    shared_directory(path, None)
}

/// As [`directory`]; the members of `group` may go in (0750).
pub fn shared_directory(path: &Path, group: Option<u32>) -> Result<(), AgentError> {
    match fs::symlink_metadata(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(AgentError::io(format!("cannot make {}", path.display())))?;
            if let Some(group) = group {
                share(path, group, 0o750)?;
            }
        }
        Err(error) => return Err(AgentError::io(format!("cannot look at {}", path.display()))(error)),
    }
    let meta =
        fs::symlink_metadata(path).map_err(AgentError::io(format!("cannot look at {}", path.display())))?;
    if !meta.is_dir() {
        return Err(wrong(path, "is not a directory (symbolic links are not followed)", "name another path"));
    }
    match group {
        None => check(path, &meta, 0o077, "chmod 700"),
        Some(group) if meta.gid() != group => {
            let remedy =
                format!("`chgrp` {} to the group that `--group` names, or name another path", path.display());
            Err(AgentError::Path { path: path.into(), problem: "belongs to another group", remedy })
        }
        Some(_) => check(path, &meta, 0o027, "chmod 750"),
    }
}

/// Gives a path of ours to the members of `group` with `mode`.
pub fn share(path: &Path, group: u32, mode: u32) -> Result<(), AgentError> {
    unix_fs::lchown(path, None, Some(group)).map_err(|error| {
        let remedy = "run the agent as a member of the group that `--group` names".to_owned();
        match error.kind() {
            io::ErrorKind::PermissionDenied => {
                AgentError::Path { path: path.into(), problem: "cannot be given to that group", remedy }
            }
            _ => AgentError::io(format!("cannot share {}", path.display()))(error),
        }
    })?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(AgentError::io(format!("cannot share {}", path.display())))
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
    check(path, &meta, 0o077, "chmod 600")?;
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

/// Whether this user may command the agent: its own, and root.
pub fn may_command(user: u32) -> bool {
    user == rustix::process::getuid().as_raw() || user == 0
}

fn check(path: &Path, meta: &fs::Metadata, closed: u32, chmod: &str) -> Result<(), AgentError> {
    let uid = rustix::process::getuid().as_raw();
    if meta.uid() != uid {
        return Err(wrong(path, "belongs to another user", "name a path of your own"));
    }
    if meta.mode() & closed != 0 {
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

//! A fence (Landlock) around what a running relay can reach: it reads the folders of its certificate, writes those of the files
//! that its settings name, opens no TCP connection, and executes nothing.
//!
//! A program that was made to obey somebody else reads no other file of its user's.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, path_beneath_rules,
};

use crate::certificate::{self, Certificate};
use crate::config::Config;
use crate::error::Error;

/// Raises it around this thread and those it starts, for ever; makes the state directory, where one is needed, first. Gives
/// whether the kernel has such fences: each takes the kinds of access that it knows.
pub fn raise(config: &Config) -> Result<bool, Error> {
    if config.certificate.is_none() {
        certificate::make_state(&config.state)?;
    }
    let raised = || -> Result<_, RulesetError> {
        Ruleset::default()
            .handle_access(AccessFs::from_all(KNOWN))?
            .handle_access(AccessNet::from_all(KNOWN))?
            .create()?
            .add_rules(path_beneath_rules(written(config), put()))?
            .add_rules(path_beneath_rules(read(config), look()))?
            .restrict_self()
    };
    let status = raised().map_err(|error| Error::Fence(error.to_string()))?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

fn look() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir
}

/// Files are put in place of others, and of older ones cut off.
fn put() -> BitFlags<AccessFs> {
    AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::RemoveFile
}

/// The folders of what is written, the certificate of the relay's own making among it.
fn written(config: &Config) -> Vec<PathBuf> {
    let files = [&config.ready_file, &config.stats, &config.record].into_iter().flatten();
    let state = config.certificate.is_none().then(|| config.state.clone());
    files.flat_map(|file| folders(file)).chain(state).collect()
}

/// The folders of the certificate: renewal services put the next one beside it.
fn read(config: &Config) -> Vec<PathBuf> {
    let own = || Certificate::state_files(&config.state);
    let files = config.certificate.clone().map_or_else(own, |(chain, key)| [chain, key]);
    files.iter().flat_map(|file| folders(file)).collect()
}

/// Where a file stands, and where it leads if it is a link.
fn folders(file: &Path) -> Vec<PathBuf> {
    let target = file.canonicalize().ok();
    [Some(folder(file)), target.map(|target| folder(&target))].into_iter().flatten().collect()
}

fn folder(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if folder.as_os_str().is_empty() => PathBuf::from("."),
        Some(folder) => folder.to_owned(),
        None => file.to_owned(),
    }
}

/// Ioctls on devices (Linux 6.10) are the newest kind of access that it rules.
const KNOWN: ABI = ABI::V5;

//! A fence (Landlock) around what a running relay can reach: it reads its certificate, writes the files that its settings name,
//! opens no TCP connection, and executes nothing.
//!
//! A program that was made to obey somebody else finds no other file of its user's behind it.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, path_beneath_rules,
};

use crate::certificate;
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
            .add_rules(path_beneath_rules(written(config), AccessFs::from_all(KNOWN) & !AccessFs::Execute))?
            .add_rules(path_beneath_rules(read(config), look()))?
            .restrict_self()
    };
    let status = raised().map_err(|error| Error::Fence(error.to_string()))?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

fn look() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir
}

/// The folders of what is written: files are replaced in one step, so each needs its folder.
fn written(config: &Config) -> Vec<PathBuf> {
    let files = [&config.ready_file, &config.stats, &config.record].into_iter().flatten();
    let state = config.certificate.is_none().then(|| config.state.clone());
    files.map(|file| folder(file)).chain(state).collect()
}

/// The folders of a certificate that the settings name: where a link to it stands, and where it leads, since renewal services put the
/// next one beside it.
fn read(config: &Config) -> Vec<PathBuf> {
    let files = config.certificate.iter().flat_map(|(chain, key)| [chain, key]);
    files
        .flat_map(|file| [Some(folder(file)), file.canonicalize().ok().map(|file| folder(&file))])
        .flatten()
        .collect()
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

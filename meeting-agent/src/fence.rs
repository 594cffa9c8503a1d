//! A fence (Landlock) around what a running agent can reach in the file system: its own two directories, and what names
//! and certificates are looked up in. It executes nothing.
//!
//! A program that was made to obey somebody else finds no files of the user's behind it.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, BitFlags, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
    path_beneath_rules,
};

use crate::{config::Config, error::AgentError};

/// Raises it around this thread and those it starts, for ever; both directories have to be there. Gives whether the kernel
/// has such fences: each takes the kinds of access that it knows.
pub fn raise(config: &Config) -> Result<bool, AgentError> {
    let own = [Some(config.state.as_path()), config.socket.parent()].into_iter().flatten();
    let raised = || -> Result<_, RulesetError> {
        Ruleset::default()
            .handle_access(AccessFs::from_all(KNOWN))?
            .create()?
            .add_rules(path_beneath_rules(own, AccessFs::from_all(KNOWN) & !AccessFs::Execute))?
            .add_rules(path_beneath_rules(shared(), look()))?
            .restrict_self()
    };
    let status = raised().map_err(|error| AgentError::Fence(error.to_string()))?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

fn look() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir
}

/// What everybody may read: the C library's ways from names to addresses, and the certificate authorities.
fn shared() -> Vec<PathBuf> {
    let named = ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().filter_map(env::var_os).map(PathBuf::from);
    // Who runs the resolver decides where its file really is.
    let resolver = fs::canonicalize("/etc/resolv.conf").ok();
    let resolver = resolver.as_deref().and_then(Path::parent).filter(|folder| folder.parent().is_some());
    let resolver = resolver.map(Path::to_owned);
    SHARED.iter().map(PathBuf::from).chain(named).chain(resolver).collect()
}

/// Ioctls on devices (Linux 6.10) are the newest kind of access that it rules.
const KNOWN: ABI = ABI::V5;

/// Those that are not there are passed over.
const SHARED: [&str; 10] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/nix/store",
    "/gnu/store",
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/var/lib/ca-certificates",
];

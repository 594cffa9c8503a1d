//! What the relay gives up once its sockets are open: every right that another program of its user does not have.

use std::ffi::CString;
use std::io;

use nix::unistd::{User, geteuid, initgroups, setgid, setuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};
use tracing::warn;

use crate::error::Error;

/// Becomes `user`, if one is named, and drops every capability for good.
///
/// Linux keeps them for each thread, so this comes before there is a second one.
pub fn give_up(user: Option<&str>) -> Result<(), Error> {
    let refused = |error: rustix::io::Errno| Error::io("giving up privileges")(error.into());
    empty_bounding_set().map_err(refused)?;
    if let Some(name) = user {
        become_user(name)?;
    }
    let nothing = CapabilitySet::empty();
    let none = CapabilitySets { effective: nothing, permitted: nothing, inheritable: nothing };
    set_capabilities(None, none).map_err(refused)?;
    set_no_new_privs(true).map_err(refused)
}

/// Says so where it still is root, who owns half of the machine's files.
pub fn warn_of_root() {
    if geteuid().is_root() {
        warn!("it runs as root, though without capabilities: name a user of its own by --user");
    }
}

/// Nothing that is executed later gets a capability back. Who may not do that has none that would matter, and
/// `no_new_privs` says the same.
fn empty_bounding_set() -> rustix::io::Result<()> {
    if !capabilities(None)?.effective.contains(CapabilitySet::SETPCAP) {
        return Ok(());
    }
    // The kernel knows the first so many, and says so of the next.
    let all = (0..u64::BITS).map(|bit| CapabilitySet::from_bits_retain(1 << bit));
    for capability in all.take_while(|capability| capability_is_in_bounding_set(*capability).is_ok()) {
        remove_capability_from_bounding_set(capability)?;
    }
    Ok(())
}

fn become_user(name: &str) -> Result<(), Error> {
    let fault = |message: String| Error::User { name: name.to_owned(), message };
    let refused = |error: nix::Error| {
        fault(format!("{}: start the relay as root, or leave --user out", io::Error::from(error)))
    };
    let unknown = || fault("there is no such user: `getent passwd` lists them".into());
    let user = User::from_name(name).map_err(refused)?.ok_or_else(unknown)?;
    if geteuid() == user.uid {
        return Ok(());
    }
    let name = CString::new(name).map_err(|_| unknown())?;
    initgroups(&name, user.gid).map_err(refused)?;
    setgid(user.gid).map_err(refused)?;
    setuid(user.uid).map_err(refused)
}

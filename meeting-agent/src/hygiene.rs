//! What a process with keys in memory does: at first, no core file and no reading of its memory by others; once its socket
//! is open, no right that another program of its user does not have (SECURITY.md).

use rustix::{
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit},
    thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
        remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
    },
};

use crate::error::AgentError;

/// Forbids core files and tracing by the same user's other programs.
pub fn protect() -> Result<(), AgentError> {
    let refused = |what: &str| AgentError::io(format!("cannot {what}"));
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(|error| refused("forbid core files")(error.into()))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| refused("close this process's memory to others")(error.into()))
}

/// Drops every capability for good. Linux keeps them for each thread, so this comes before there is a second one.
pub fn give_up_privileges() -> Result<(), AgentError> {
    let nothing = CapabilitySet::empty();
    let none = CapabilitySets { effective: nothing, permitted: nothing, inheritable: nothing };
    empty_bounding_set()
        .and_then(|()| set_capabilities(None, none))
        .and_then(|()| set_no_new_privs(true))
        .map_err(|error| AgentError::io("cannot give up privileges")(error.into()))
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

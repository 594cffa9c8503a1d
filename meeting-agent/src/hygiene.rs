//! What a process with keys in memory does first: no core file, no reading of its memory by others (SECURITY.md).

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use crate::error::AgentError;

/// Forbids core files and tracing by the same user's other programs.
pub fn protect() -> Result<(), AgentError> {
    let refused = |what: &str| AgentError::io(format!("cannot {what}"));
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(|error| refused("forbid core files")(error.into()))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| refused("close this process's memory to others")(error.into()))
}

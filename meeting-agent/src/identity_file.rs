//! The device key on disk: 4 bytes of magic, 1 of version, 32 of seed, mode 0600 in a directory of mode 0700.

use std::{io, path::Path, sync::Arc};

use meeting_protocol::{identity::DeviceKey, secret::Secret};
use zeroize::Zeroizing;

use crate::{clock, error::AgentError, private};

/// Reads the device key in `state`, or makes one at first start.
pub fn load_or_create(state: &Path) -> Result<Arc<DeviceKey>, AgentError> {
    let of_state = |error| match error {
        AgentError::Io { error, .. } => AgentError::State { path: state.into(), error },
        other => other,
    };
    private::directory(state).map_err(of_state)?;
    let path = state.join(FILE);
    match load(&path) {
        Err(AgentError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
        loaded => return loaded.map(Arc::new),
    }
    let seed = Secret::<32>::random(&mut clock::rng()?);
    let mut file = Zeroizing::new(Vec::with_capacity(LEN));
    file.extend_from_slice(MAGIC);
    file.push(VERSION);
    file.extend_from_slice(seed.expose());
    match private::write(&path, &file, false) {
        // another agent made one in the same moment: its key is the device's
        Err(AgentError::Io { error, .. }) if error.kind() == io::ErrorKind::AlreadyExists => {}
        written => written.map_err(of_state)?,
    }
    load(&path).map(Arc::new)
}

/// A key for one meeting, for guests.
pub fn guest() -> Result<Arc<DeviceKey>, AgentError> {
    Ok(Arc::new(DeviceKey::from_seed(&Secret::random(&mut clock::rng()?))))
}

fn load(path: &Path) -> Result<DeviceKey, AgentError> {
    let damaged = || AgentError::DamagedKey(path.into());
    let bytes = match private::read(path, LEN as u64) {
        Err(AgentError::Path { problem: private::TOO_LONG, .. }) => return Err(damaged()),
        read => read?,
    };
    let seed =
        bytes.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(&[VERSION])).ok_or_else(damaged)?;
    if seed.len() != 32 {
        return Err(damaged());
    }
    Ok(DeviceKey::from_seed(&Secret::init_with(|out| out.copy_from_slice(seed))))
}

/// The file's name in the state directory.
pub const FILE: &str = "device.key";
const MAGIC: &[u8] = b"e2dk";
const VERSION: u8 = 1;
const LEN: usize = MAGIC.len() + 1 + 32;

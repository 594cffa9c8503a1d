//! Where an agent keeps its things: from the command line and the environment, to paths that stand.

use std::{ffi::OsString, path::PathBuf, time::Duration};

/// What an agent needs to know to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The local socket.
    pub socket: PathBuf,
    /// The directory of the device key.
    pub state: PathBuf,
    /// The group whose members' pipelines may use the socket; none for this user alone.
    pub group: Option<u32>,
    /// The display name where a command gives none.
    pub name: String,
    /// How long a local client may take to introduce itself.
    pub handshake: Duration,
    /// How many local clients at once.
    pub max_clients: usize,
}

impl Config {
    /// A config with these paths and the usual limits.
    pub fn new(socket: PathBuf, state: PathBuf, name: String) -> Self {
        Self { socket, state, group: None, name, handshake: Duration::from_secs(5), max_clients: 256 }
    }
}

/// `--state`, else `$XDG_STATE_HOME/meeting-agent`, else `~/.local/state/meeting-agent`.
pub fn state_path(given: Option<PathBuf>, env: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    given.or_else(|| {
        let home = set("XDG_STATE_HOME")
            .filter(|path| path.is_absolute())
            .or_else(|| set("HOME").map(|home| home.join(".local/state")));
        home.map(|home| home.join("meeting-agent"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &'static [(&str, &str)]) -> Option<PathBuf> {
        state_path(None, |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn state_follows_the_xdg_rule() {
        let given = state_path(Some("/s".into()), |_| None);
        assert_eq!(given, Some("/s".into()));
        assert_eq!(of(&[("XDG_STATE_HOME", "/x"), ("HOME", "/h")]), Some("/x/meeting-agent".into()));
        assert_eq!(
            of(&[("XDG_STATE_HOME", "rel"), ("HOME", "/h")]),
            Some("/h/.local/state/meeting-agent".into())
        );
        assert_eq!(
            of(&[("XDG_STATE_HOME", ""), ("HOME", "/h")]),
            Some("/h/.local/state/meeting-agent".into())
        );
        assert_eq!(of(&[]), None);
    }
}

//! The config file: its keys, and the line that a fault is on.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use super::Log;
use crate::error::Error;

/// What may stand in the file; all of it may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub listen: Option<SocketAddr>,
    pub public_address: Option<String>,
    pub state: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    #[serde(default)]
    pub names: Vec<String>,
    pub ready_file: Option<PathBuf>,
    pub stats: Option<PathBuf>,
    pub monitor: Option<SocketAddr>,
    pub log: Option<Log>,
    pub threads: Option<usize>,
    pub user: Option<String>,
    #[serde(default)]
    pub meetings: MeetingsTable,
}

/// Its table `[meetings]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeetingsTable {
    #[serde(default)]
    pub create_tokens: Vec<String>,
    pub max_participants: Option<usize>,
    pub max_meetings: Option<usize>,
    pub max_connections: Option<usize>,
    pub max_memory_mb: Option<usize>,
    pub max_publish_mbit: Option<u32>,
    pub keep_empty_seconds: Option<u64>,
}

/// Reads the file.
pub fn text(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(Error::io(format!("reading the config file {}", path.display())))
}

/// Makes sense of it.
pub fn parse(path: &Path, text: &str) -> Result<File, Error> {
    toml::from_str(text).map_err(|error| {
        // Not the parser's own text: it quotes the line, and the line may hold a token.
        let line = error.span().map_or(1, |span| line_at(text, span.start));
        Error::ConfigFile { path: path.to_owned(), message: format!("line {line}: {}", error.message()) }
    })
}

/// An error about a key whose value makes sense by itself, with its line if it stands in the file.
pub fn fault(path: &Path, text: &str, key: &'static str, message: &'static str) -> Error {
    match line_of(text, key) {
        Some(line) => {
            Error::ConfigFile { path: path.to_owned(), message: format!("line {line}: {key}: {message}") }
        }
        None => Error::Config { key, message },
    }
}

fn line_of(text: &str, key: &str) -> Option<usize> {
    let root = DeTable::parse(text).ok()?;
    let (table, name) = match key.split_once('.') {
        None => (root.get_ref(), key),
        Some((table, name)) => match root.get_ref().get(table)?.get_ref() {
            DeValue::Table(table) => (table, name),
            _ => return None,
        },
    };
    let (name, _) = table.get_key_value(name)?;
    Some(line_at(text, name.span().start))
}

fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

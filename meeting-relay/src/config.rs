//! Settings: command line over config file over defaults, checked before anything starts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use clap::Parser;
use serde::Deserialize;

use crate::error::Error;

/// Settings that are complete and do not contradict each other.
#[derive(Clone, Debug)]
pub struct Config {
    /// The UDP address; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Where the self-signed certificate is kept.
    pub state: PathBuf,
    /// Chain and key of a certificate that is used instead.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Host names for the self-signed certificate.
    pub names: Vec<String>,
    /// Gets one line "ADDRESS HASH" once the relay listens.
    pub ready_file: Option<PathBuf>,
    /// Gets the counters every second and at the end.
    pub stats: Option<PathBuf>,
    /// The local TCP address where `/metrics` and `/healthz` are served, if anywhere.
    pub monitor: Option<SocketAddr>,
    /// Gets all that the relay sees.
    pub record: Option<PathBuf>,
    /// What holds for meetings.
    pub meetings: Meetings,
}

/// What holds for meetings.
#[derive(Clone, Debug)]
pub struct Meetings {
    /// Who has one of these may open a meeting; without any, everybody may (development mode).
    pub create_tokens: Vec<String>,
    /// The most participants of one meeting.
    pub max_participants: usize,
    /// The most meetings at one time.
    pub max_meetings: usize,
    /// The most connections at one time.
    pub max_connections: usize,
    /// How long an empty meeting is kept for those who lost the network.
    pub keep_empty: Duration,
}

/// Forwards end-to-end-encrypted meetings without being able to read them.
#[derive(Debug, Default, Parser)]
#[command(name = "meeting-relay", version, after_help = EXAMPLE)]
pub struct Args {
    /// UDP address to listen on [default: 127.0.0.1:4433]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Settings in TOML; flags go before them
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory for the self-signed certificate, made at the first start
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Certificate chain (PEM) to use instead of a self-signed one
    #[arg(long, value_name = "FILE", requires = "key")]
    pub certificate: Option<PathBuf>,
    /// Private key (PEM) of --certificate
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub key: Option<PathBuf>,
    /// File that gets one line "ADDRESS CERTIFICATE-HASH" once the relay listens
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// File that gets the counters, every second and at the end
    #[arg(long, value_name = "FILE")]
    pub stats: Option<PathBuf>,
    /// Local address that serves the counters (/metrics, for Prometheus) and the health (/healthz) over HTTP
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub monitor: Option<SocketAddr>,
    /// Asks the relay whose --monitor is at this address how it is, and ends: 0 if it is well
    #[arg(long, value_name = "ADDRESS:PORT", exclusive = true)]
    pub check: Option<SocketAddr>,
    /// File that gets all that the relay sees, to show that it is noise (at most 1 GiB)
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

impl Config {
    /// A relay for trying things out: loopback, a port of the system's choice, everybody may open meetings.
    pub fn development(state: impl Into<PathBuf>) -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            state: state.into(),
            certificate: None,
            names: Vec::new(),
            ready_file: None,
            stats: None,
            monitor: None,
            record: None,
            meetings: Meetings::default(),
        }
    }

    /// Merges flags and file, and checks the result.
    pub fn load(args: Args) -> Result<Self, Error> {
        let file = match &args.config {
            Some(path) => read(path)?,
            None => File::default(),
        };
        let certificate = match (args.certificate.or(file.certificate), args.key.or(file.key)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                return Err(Error::Config("certificate and key go together: give both, or none"));
            }
        };
        let defaults = Meetings::default();
        let meetings = Meetings {
            create_tokens: file.meetings.create_tokens,
            max_participants: file.meetings.max_participants.unwrap_or(defaults.max_participants),
            max_meetings: file.meetings.max_meetings.unwrap_or(defaults.max_meetings),
            max_connections: file.meetings.max_connections.unwrap_or(defaults.max_connections),
            keep_empty: file.meetings.keep_empty_seconds.map_or(defaults.keep_empty, Duration::from_secs),
        };
        let config = Self {
            listen: args.listen.or(file.listen).unwrap_or(DEFAULT_LISTEN),
            state: args.state.or(file.state).or_else(default_state).ok_or(Error::Config(
                "no place for the certificate: give --state, or set HOME or XDG_STATE_HOME",
            ))?,
            certificate,
            names: file.names,
            ready_file: args.ready_file.or(file.ready_file),
            stats: args.stats.or(file.stats),
            monitor: args.monitor.or(file.monitor),
            record: args.record,
            meetings,
        };
        config.check()?;
        Ok(config)
    }

    /// Whether everybody may open meetings.
    pub fn is_development(&self) -> bool {
        self.meetings.create_tokens.is_empty()
    }

    /// Refuses settings that contradict each other or would do harm.
    pub fn check(&self) -> Result<(), Error> {
        let Meetings { create_tokens, max_participants, max_meetings, max_connections, .. } = &self.meetings;
        if self.is_development() && !self.listen.ip().is_loopback() {
            return Err(Error::Config(
                "without create_tokens anybody could open meetings, so the relay only listens on loopback \
                 addresses: list tokens under [meetings] in a --config file, or listen on 127.0.0.1",
            ));
        }
        if self.monitor.is_some_and(|address| !address.ip().is_loopback()) {
            return Err(Error::Config(
                "the monitor has no password, so it only listens on loopback addresses: give 127.0.0.1 and a port, \
                 and let a program on this machine pass it on",
            ));
        }
        if create_tokens.iter().any(|token| token.len() < 16 || token.len() > 256) {
            return Err(Error::Config(
                "a create token has 16 to 256 characters: longer ones cannot be guessed",
            ));
        }
        if [max_participants, max_meetings, max_connections].into_iter().any(|max| *max == 0) {
            return Err(Error::Config("a maximum of 0 lets nobody in: use at least 1"));
        }
        if *max_participants > crate::limits::CELLS {
            return Err(Error::Config("max_participants is at most 1024: the board has no more cells"));
        }
        Ok(())
    }
}

impl Meetings {
    /// Whether this token opens meetings; takes the same time for a nearly right one as for any other.
    pub fn accepts(&self, token: &str) -> bool {
        let same = |known: &str| {
            known.len() == token.len()
                && known.bytes().zip(token.bytes()).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
        };
        self.create_tokens.is_empty()
            || self.create_tokens.iter().fold(false, |found, known| found | same(known))
    }
}

impl Default for Meetings {
    fn default() -> Self {
        Self {
            create_tokens: Vec::new(),
            max_participants: 200,
            max_meetings: 1_000,
            max_connections: 4_000,
            keep_empty: Duration::from_secs(60),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<SocketAddr>,
    state: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    #[serde(default)]
    names: Vec<String>,
    ready_file: Option<PathBuf>,
    stats: Option<PathBuf>,
    monitor: Option<SocketAddr>,
    #[serde(default)]
    meetings: MeetingsTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MeetingsTable {
    #[serde(default)]
    create_tokens: Vec<String>,
    max_participants: Option<usize>,
    max_meetings: Option<usize>,
    max_connections: Option<usize>,
    keep_empty_seconds: Option<u64>,
}

fn read(path: &Path) -> Result<File, Error> {
    let text = fs::read_to_string(path).map_err(Error::io(format!("reading {}", path.display())))?;
    toml::from_str(&text).map_err(|error| {
        // Not the parser's own text: it quotes the line, and the line may hold a token.
        let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        Error::ConfigFile { path: path.to_owned(), message: format!("line {line}: {}", error.message()) }
    })
}

fn default_state() -> Option<PathBuf> {
    let dir = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    dir("STATE_DIRECTORY")
        .or_else(|| dir("XDG_STATE_HOME").map(|state| state.join("meeting-relay")))
        .or_else(|| dir("HOME").map(|home| home.join(".local/state/meeting-relay")))
}

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4433);

const EXAMPLE: &str = "\
Example, to try things out on this machine:
  meeting-relay --listen 127.0.0.1:4433

Example, for others:
  meeting-relay --listen 0.0.0.0:443 --config relay.toml
with relay.toml:
  names = [\"relay.example\"]
  [meetings]
  create_tokens = [\"a long random text\"]
  max_participants = 200

RUST_LOG=debug says more, addresses included.";

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, args: &[&str]) -> Result<Config, Error> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("relay.toml");
        fs::write(&path, text).expect("written");
        let path = path.to_str().expect("UTF-8");
        let common = ["meeting-relay", "--state", "/nowhere", "--config", path];
        Config::load(Args::parse_from(common.iter().chain(args)))
    }

    #[test]
    fn flags_go_before_the_file() {
        let text =
            "listen = '127.0.0.1:1'\n[meetings]\ncreate_tokens = ['0123456789abcdef']\nmax_meetings = 5\n";
        let config = load(text, &["--listen", "127.0.0.1:2"]).expect("valid");
        assert_eq!(config.listen.port(), 2);
        assert_eq!((config.meetings.max_meetings, config.meetings.max_participants), (5, 200));
        assert!(!config.is_development());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_no_secret() {
        let text = "[meetings]\ncreate_tokens = ['0123456789abcdef']\nmax_particpants = 3\n";
        let error = load(text, &[]).expect_err("a typing error").to_string();
        assert!(error.contains("line 3") && error.contains("max_particpants"), "{error}");
        let text = "[meetings]\ncreate_tokens = '0123456789abcdef'\n";
        let error = load(text, &[]).expect_err("not a list").to_string();
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn everybodys_relay_stays_on_loopback() {
        let error = load("", &["--listen", "0.0.0.0:4433"]).expect_err("open to the world").to_string();
        assert!(error.contains("create_tokens"), "{error}");
        load("", &["--listen", "[::1]:4433"]).expect("loopback");
        let text = "[meetings]\ncreate_tokens = ['0123456789abcdef']\n";
        load(text, &["--listen", "0.0.0.0:4433"]).expect("tokens");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "[meetings]\nmax_participants = 0\n",
            "[meetings]\nmax_participants = 1025\n",
            "[meetings]\ncreate_tokens = ['short']\n",
            "certificate = 'only.pem'\n",
        ] {
            assert!(matches!(load(text, &[]), Err(Error::Config(_))), "{text}");
        }
    }

    #[test]
    fn tokens_are_compared_whole() {
        let meetings =
            Meetings { create_tokens: vec!["one token".into(), "two".into()], ..Meetings::default() };
        assert!(meetings.accepts("one token") && meetings.accepts("two"));
        assert!(!meetings.accepts("") && !meetings.accepts("one toke") && !meetings.accepts("one tokem"));
        assert!(Meetings::default().accepts("anything"));
    }
}

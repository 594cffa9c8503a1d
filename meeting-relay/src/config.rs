//! Settings: command line over config file over defaults, checked before anything starts.

mod file;

use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde::Deserialize;

use crate::error::Error;
use file::File;

/// Settings that are complete and do not contradict each other.
#[derive(Clone, Debug)]
pub struct Config {
    /// The UDP address; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// HOST:PORT that agents connect to, where it is not the address listened on (behind NAT, or a name).
    pub public_address: Option<String>,
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
    /// How the log looks.
    pub log: Log,
    /// How many threads carry media.
    pub threads: usize,
    /// Whom the relay becomes once its sockets are open.
    pub user: Option<String>,
    /// What holds for meetings.
    pub meetings: Meetings,
}

/// How the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Log {
    /// Lines for people.
    #[default]
    Text,
    /// A JSON object per line.
    Json,
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
    /// MiB that are kept for others: their connections, and what they send.
    pub max_memory_mb: usize,
    /// Mbit/s of media that one connection may send, sustained.
    pub max_publish_mbit: u32,
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
    /// HOST:PORT that agents reach it at, if that is another (behind NAT): for the ready file and the certificate
    #[arg(long, value_name = "HOST:PORT")]
    pub public_address: Option<String>,
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
    /// How the log looks [default: text]
    #[arg(long, value_name = "FORM")]
    pub log: Option<Log>,
    /// How many threads carry media; one costs least, and fills a gigabit link [default: 1]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Started as root, becomes this user once its sockets are open; certificate, key and state have to be readable for it
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
}

impl Config {
    /// A relay for trying things out: loopback, a port of the system's choice, everybody may open meetings.
    pub fn development(state: impl Into<PathBuf>) -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            public_address: None,
            state: state.into(),
            certificate: None,
            names: Vec::new(),
            ready_file: None,
            stats: None,
            monitor: None,
            record: None,
            log: Log::Text,
            threads: 1,
            user: None,
            meetings: Meetings::default(),
        }
    }

    /// Merges flags and file, and checks the result.
    pub fn load(args: Args) -> Result<Self, Error> {
        let Some(path) = args.config.clone() else {
            return Self::merge(args, File::default());
        };
        let text = file::text(&path)?;
        // What a flag says is not the file's fault.
        let flags = args.given();
        Self::merge(args, file::parse(&path, &text)?).map_err(|error| match error {
            Error::Config { key, message } if !flags.contains(&key) => {
                file::fault(&path, &text, key, message)
            }
            other => other,
        })
    }

    fn merge(args: Args, file: File) -> Result<Self, Error> {
        let together = "certificate and key go together: give both, or none";
        let certificate = match (args.certificate.or(file.certificate), args.key.or(file.key)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(Error::Config { key: "certificate", message: together }),
            (None, Some(_)) => return Err(Error::Config { key: "key", message: together }),
        };
        let defaults = Meetings::default();
        let meetings = Meetings {
            create_tokens: file.meetings.create_tokens,
            max_participants: file.meetings.max_participants.unwrap_or(defaults.max_participants),
            max_meetings: file.meetings.max_meetings.unwrap_or(defaults.max_meetings),
            max_connections: file.meetings.max_connections.unwrap_or(defaults.max_connections),
            max_memory_mb: file.meetings.max_memory_mb.unwrap_or(defaults.max_memory_mb),
            max_publish_mbit: file.meetings.max_publish_mbit.unwrap_or(defaults.max_publish_mbit),
            keep_empty: file.meetings.keep_empty_seconds.map_or(defaults.keep_empty, Duration::from_secs),
        };
        let config = Self {
            listen: args.listen.or(file.listen).unwrap_or(DEFAULT_LISTEN),
            public_address: args.public_address.or(file.public_address),
            state: args.state.or(file.state).or_else(default_state).ok_or(Error::Config {
                key: "state",
                message: "no place for the certificate: give --state, or set HOME or XDG_STATE_HOME",
            })?,
            certificate,
            names: file.names,
            ready_file: args.ready_file.or(file.ready_file),
            stats: args.stats.or(file.stats),
            monitor: args.monitor.or(file.monitor),
            record: args.record,
            log: args.log.or(file.log).unwrap_or_default(),
            threads: args.threads.or(file.threads).unwrap_or(1),
            user: args.user.or(file.user),
            meetings,
        };
        config.check()?;
        Ok(config)
    }

    /// Whether everybody may open meetings.
    pub fn is_development(&self) -> bool {
        self.meetings.create_tokens.is_empty()
    }

    /// The host and port of [`Config::public_address`].
    pub fn public_host(&self) -> Option<(&str, u16)> {
        let (host, port) = self.public_address.as_deref()?.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Some((host, port.parse().ok()?))
    }

    /// Refuses settings that contradict each other or would do harm, each with the key that is to blame.
    pub fn check(&self) -> Result<(), Error> {
        let Meetings { create_tokens, max_participants, max_meetings, max_connections, .. } = &self.meetings;
        let names_nobody = |host: &str| {
            let address: Option<std::net::IpAddr> = host.parse().ok();
            host.is_empty()
                || address.is_some_and(|address| address.is_unspecified())
                || (address.is_none() && host.contains([':', '/', ' ', '[']))
        };
        let public = self.public_address.is_some();
        let faults = [
            (
                self.is_development() && !self.listen.ip().is_loopback(),
                "listen",
                "without create_tokens anybody could open meetings, so the relay only listens on loopback addresses: \
                 list tokens under [meetings] in a --config file, or listen on 127.0.0.1",
            ),
            (
                self.monitor.is_some_and(|address| !address.ip().is_loopback()),
                "monitor",
                "the monitor has no password, so it only listens on loopback addresses: give 127.0.0.1 and a port, and \
                 let a program on this machine pass it on",
            ),
            (
                public && self.public_host().is_none_or(|(host, port)| port == 0 || names_nobody(host)),
                "public_address",
                "agents connect to it, so it is a host name or an address and a port, such as relay.example:443",
            ),
            (
                create_tokens.iter().any(|token| token.len() < 16 || token.len() > 256),
                "meetings.create_tokens",
                "a create token has 16 to 256 characters: `openssl rand -hex 16` makes one",
            ),
            (*max_participants == 0, "meetings.max_participants", NOBODY),
            (*max_meetings == 0, "meetings.max_meetings", NOBODY),
            (*max_connections == 0, "meetings.max_connections", NOBODY),
            (
                !(LEAST_MEMORY..=MOST_MEMORY).contains(&self.meetings.max_memory_mb),
                "meetings.max_memory_mb",
                "128 at least, or the largest keyframe has no room; at most 1048576",
            ),
            (self.meetings.max_publish_mbit == 0, "meetings.max_publish_mbit", NOBODY),
            (
                !(1..=MOST_THREADS).contains(&self.threads),
                "threads",
                "1 to 1024; more than one per core help nobody",
            ),
            (
                *max_participants > crate::limits::CELLS,
                "meetings.max_participants",
                "at most 1024: the board has no more cells",
            ),
            (
                *max_connections > tokio::sync::Semaphore::MAX_PERMITS,
                "meetings.max_connections",
                "more than any machine has",
            ),
            (
                self.meetings.keep_empty > LONGEST_EMPTY,
                "meetings.keep_empty_seconds",
                "at most 86400, a day: empty meetings take memory",
            ),
        ];
        match faults.into_iter().find(|(wrong, ..)| *wrong) {
            Some((_, key, message)) => Err(Error::Config { key, message }),
            None => Ok(()),
        }
    }
}

impl Args {
    /// The keys that were given as flags.
    fn given(&self) -> Vec<&'static str> {
        let flags = [
            ("listen", self.listen.is_some()),
            ("public_address", self.public_address.is_some()),
            ("monitor", self.monitor.is_some()),
            ("certificate", self.certificate.is_some()),
            ("key", self.key.is_some()),
            ("threads", self.threads.is_some()),
        ];
        flags.into_iter().filter(|(_, given)| *given).map(|(key, _)| key).collect()
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
            max_memory_mb: 2_048,
            max_publish_mbit: 100,
            keep_empty: Duration::from_secs(60),
        }
    }
}

fn default_state() -> Option<PathBuf> {
    let dir = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    dir("STATE_DIRECTORY")
        .or_else(|| dir("XDG_STATE_HOME").map(|state| state.join("meeting-relay")))
        .or_else(|| dir("HOME").map(|home| home.join(".local/state/meeting-relay")))
}

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4433);

const MOST_THREADS: usize = 1024;
const LEAST_MEMORY: usize = 128;
const MOST_MEMORY: usize = 1024 * 1024;
const NOBODY: &str = "a maximum of 0 lets nobody in: use at least 1";
const LONGEST_EMPTY: Duration = Duration::from_secs(24 * 60 * 60);

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
  max_memory_mb = 2048

max_memory_mb is what it keeps for others: connections and what they send. The process takes
that, a half more at worst, and 128 MiB of its own: 1.5 times max_memory_mb, and 128 MiB, is
what a MemoryMax or a ulimit -v has to leave it. Short of memory it refuses newcomers and
drops media, and meetings go on.

RUST_LOG=debug says more, addresses included.";

#[cfg(test)]
mod tests {
    use std::fs;

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
    fn nonsense_in_the_file_is_named_with_its_key_and_line() {
        for (text, line, key) in [
            ("[meetings]\nmax_participants = 0\n", 2, "meetings.max_participants"),
            ("\n[meetings]\n\nmax_participants = 1025\n", 4, "meetings.max_participants"),
            ("meetings = { max_meetings = 0 }\n", 1, "meetings.max_meetings"),
            ("[meetings]\nmax_connections = 0\n", 2, "meetings.max_connections"),
            ("[meetings]\nmax_publish_mbit = 0\n", 2, "meetings.max_publish_mbit"),
            ("[meetings]\nmax_memory_mb = 127\n", 2, "meetings.max_memory_mb"),
            ("[meetings]\nkeep_empty_seconds = 100000\n", 2, "meetings.keep_empty_seconds"),
            ("[meetings]\nmax_meetings = 1\ncreate_tokens = [\n'short']\n", 3, "meetings.create_tokens"),
            ("threads = 0\n", 1, "threads"),
            ("certificate = 'only.pem'\n", 1, "certificate"),
            ("names = []\nkey = 'only.pem'\n", 2, "key"),
            ("# for all\nlisten = '0.0.0.0:443'\n", 2, "listen"),
            ("monitor = '0.0.0.0:9464'\n", 1, "monitor"),
            ("public_address = 'relay.example'\n", 1, "public_address"),
            ("public_address = '0.0.0.0:443'\n", 1, "public_address"),
            ("public_address = 'https://relay.example:443'\n", 1, "public_address"),
        ] {
            let error = load(text, &[]).expect_err(text).to_string();
            let place = format!("relay.toml: line {line}: {key}: ");
            assert!(error.contains(&place) && !error.contains("short'"), "{text}: {error}");
        }
        for (text, line) in [
            ("listen = 'nowhere'\n", 1),
            ("\n[meetings]\nmax_meetings = -1\n", 3),
            ("[meetings]\nmax_meetings = 1\n= 2\n", 3),
            ("log = 'xml'\n", 1),
        ] {
            let error = load(text, &[]).expect_err(text).to_string();
            assert!(error.contains(&format!("line {line}: ")), "{text}: {error}");
        }
    }

    #[test]
    fn what_a_flag_says_is_not_blamed_on_the_file() {
        let error = load("listen = '127.0.0.1:1'\n", &["--listen", "0.0.0.0:1"]).expect_err("no tokens");
        assert!(matches!(error, Error::Config { key: "listen", .. }), "{error}");
    }

    #[test]
    fn a_public_address_is_a_host_and_a_port() {
        for (address, host) in [
            ("relay.example:443", "relay.example"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("192.0.2.1:443", "192.0.2.1"),
        ] {
            let config = load("", &["--public-address", address]).expect(address);
            assert_eq!(config.public_host(), Some((host, 443)));
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

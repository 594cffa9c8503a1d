//! What the fuzzers do with their bytes. Each target takes any bytes and panics only if a promise is broken.
//!
//! ```text
//!  libfuzzer/any.rs --.
//!                      +--> target(name).run(bytes)
//!  tests/seeds.rs ----'
//! ```
//!
//! `README.md` says what each target means; `fuzz/run` runs them.

mod beacon;
mod board;
mod cursor;
mod elements;
mod frame;
mod fresh;
mod insider;
mod invariants;
mod local;
mod recording;
mod relay;
mod rtp;
mod text;
mod wire;
mod wrap;

/// One way to treat bytes.
#[derive(Clone, Copy)]
pub struct Target {
    /// The name of its seeds' folder.
    pub name: &'static str,
    /// Does it.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 14] = [
    Target { name: "wire", run: wire::run },
    Target { name: "local", run: local::run },
    Target { name: "text", run: text::run },
    Target { name: "message", run: meeting_protocol::session::fuzzing::message },
    Target { name: "roster", run: meeting_protocol::session::fuzzing::roster },
    Target { name: "board", run: board::run },
    Target { name: "wrap", run: wrap::run },
    Target { name: "frame", run: frame::run },
    Target { name: "beacon", run: beacon::run },
    Target { name: "insider", run: insider::run },
    Target { name: "relay", run: relay::run },
    Target { name: "elements", run: elements::run },
    Target { name: "rtp", run: rtp::run },
    Target { name: "recording", run: recording::run },
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

/// All names in one line.
pub fn names() -> String {
    TARGETS.map(|target| target.name).join(" ")
}

/// Whether signatures and tags mean anything in this build.
const CRYPTO: bool = !cfg!(feature = "null-crypto");

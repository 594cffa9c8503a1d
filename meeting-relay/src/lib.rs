//! The relay of end-to-end-encrypted meetings.
//!
//! **Rule 1: the relay cannot name a key.** Of our crates it imports `meeting-wire` alone, which has no key type:
//! what an agent seals, the relay carries, counts and forgets. What secrecy rests on is never enforced here.
//!
//! ```text
//!  relay      sockets, TLS, accept loop, shutdown       config, certificate, renewal, reset_key, files, error, privileges, fence
//!    |  \
//!    |   monitor            counters and health over HTTP, for this machine alone
//!    |
//!  session    one connection from hello to goodbye      lobby, limits, counters
//!    |  \
//!    |   media -> forward    frames: publisher -> audience -> one lane per subscriber     age, data, newest
//!    |         \-> sound     datagrams, as far as a path takes them
//!  control               both read what has a length by `whole`
//!    |
//!  meeting    a lock around each room, deliveries       outlet (the way out to one agent), budget, shares, window
//!    |
//!  room       pure: who is in, who offers what, who gets what
//!    |
//!  board, claims, keyframe    pure: posts with bounds; who was here; keyframe requests merged
//! ```
//!
//! [`Relay::bind`] and [`Relay::run`] are all that a test needs. A program opens its [`Sockets`] first, and gives up its
//! [`privileges`] and raises its [`fence`] before there is a second thread.

pub mod config;
pub mod counters;
pub mod error;
pub mod fence;
pub mod limits;
pub mod privileges;

mod age;
mod board;
mod budget;
mod certificate;
mod claims;
mod control;
mod data;
mod files;
mod forward;
mod keyframe;
mod lobby;
mod media;
mod meeting;
mod monitor;
mod newest;
mod outlet;
mod record;
mod relay;
mod renewal;
mod reset_key;
mod room;
mod session;
mod shares;
mod sockets;
mod sound;
mod whole;
mod window;

pub use config::{Args, Config, Log};
pub use error::Error;
pub use forward::reset;
pub use monitor::check as check_health;
pub use relay::Relay;
pub use session::{SHUTDOWN, close_code};
pub use sockets::Sockets;

//! End-to-end-encrypted meetings as a library: no sockets, no clock, no threads, no GStreamer.
//!
//! ```text
//!  a key's way:    session (lead) --> board post --> session (follow) --> local --> frame
//!  a frame's way:  frame::Sealer --> [ media crosses the relay ] --> frame::Opener
//! ```
//!
//! `frame` and `session` do not know each other: media never waits for membership. `beacon` ties a sender's frames to its
//! signature, past both.
//! PROTOCOL.md has every byte, label and timer.

#![forbid(unsafe_code)]

pub mod announce;
pub mod beacon;
mod board;
#[cfg(feature = "nonce-ledger")]
pub mod canary;
pub mod crypto;
pub mod evidence;
pub mod frame;
pub mod identity;
pub mod keyfile;
#[cfg(feature = "nonce-ledger")]
pub mod ledger;
pub mod link;
pub mod local;
pub mod roster;
pub mod secret;
pub mod security_code;
pub mod session;
#[cfg(feature = "testing")]
pub mod testing;
mod time;
#[cfg(feature = "simulator")]
pub mod weakness;
#[cfg(not(feature = "simulator"))]
mod weakness;

pub use time::BootTime;

/// The longest caps string in bytes, codec headers included: in a stream's statement (PROTOCOL.md 3.7), between agent and
/// elements (6) and in a key file (8).
pub const MAX_CAPS: usize = 16 * 1024;

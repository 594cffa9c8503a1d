//! The daemon that negotiates a meeting's keys for the pipelines of one device, and its command line.
//!
//! ```text
//!  elements, command line                                                     relay
//!     | Unix socket                                                             | QUIC
//!   local ---ToMeeting---> meeting::driver --feeds, drains--> Session           |
//!     |                        |      |                                         |
//!     |<---- keyholders -------+      +---------- posts ---------> relay_link --+
//!     |                                                                |        |
//!     +-- frames --> publish --------------------------------------------- out -+
//!     |<- frames --- watch   <------------------------------------------- in ---+
//! ```
//!
//! * [`Agent`]: everything wired once; `main` only gives it a config and the end of its life.
//! * `meeting`: one joined meeting; `meeting::driver` is the only place that feeds a session.
//! * `relay_link`: the connection to the relay; `publish` and `watch` carry sealed frames past the driver.
//! * `local`: the socket; `keyholders` remembers which connection may hear of which key.
//! * `cli`: the commands; they speak to the daemon in the JSON of [`control`].

mod agent;
pub mod cli;
mod clock;
mod config;
pub mod control;
mod counters;
mod error;
mod evidence;
pub mod fence;
mod glance;
mod hygiene;
mod identity_file;
mod keyholders;
mod local;
mod meeting;
mod people;
mod private;
mod publish;
mod rates;
mod relay_link;
pub mod show;
mod task;
mod tls;
mod verify;
mod watch;

pub use agent::Agent;
pub use config::Config;
pub use error::AgentError;
pub use identity_file::{FILE as IDENTITY_FILE, load_or_create as load_or_create_identity};

//! A stage for whole meetings: the real relay, the real agents, real pipelines, each a process of its own.
//!
//! ```no_run
//! let stage = rig::Stage::open()?;
//! let (alice, bob) = (stage.agent("Alice")?, stage.agent("Bob")?);
//! let link = alice.create(&stage)?;
//! bob.join(&link)?;
//! # anyhow::Ok(())
//! ```
//!
//! Everything stops when it is dropped, and every wait is for an event with a deadline.

mod agent;
pub mod bench;
#[path = "../did_not_run.rs"]
mod did_not_run;
mod display;
mod evil;
mod hoarder;
pub mod media;
mod pipeline;
mod program;
mod programs;
mod proxy;
mod relay;
pub mod screen;
mod stage;
mod stalls;
mod tap;
mod two_faced;
mod weather;
mod witness;

pub use agent::Agent;
pub use did_not_run::did_not_run;
pub use display::Display;
pub use evil::{EvilRelay, Fate, Will};
pub use hoarder::Hoarder;
pub use pipeline::{Pipeline, Stats};
pub use program::{Program, end_group};
pub use programs::{Programs, address_space, descriptors, resident, until};
pub use proxy::Proxy;
pub use relay::{Relay, Seen, now};
pub use stage::Stage;
pub use stalls::Stalls;
pub use tap::{Frame, Tap};
pub use two_faced::TwoFaced;
pub use weather::{Way, Weather};
pub use witness::Witness;

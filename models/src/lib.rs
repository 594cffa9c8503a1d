//! The rules of a session (PROTOCOL.md 3.3 to 3.8) as a state space that [Stateright](https://www.stateright.rs) searches whole.
//!
//! ```text
//!   state: people, links, heartbeats, votes      actions: everything anybody may do next
//!                      |                                         |
//!                      '------------> checker <------------------'
//!                                        |
//!            properties hold in every state, or here is a way to break one
//! ```
//!
//! The relay is the attacker: it keeps all that was ever sent and hands over any of it, to anybody, in any order, again or never.
//! Nobody has to act: a crash, a sleep or a cut is somebody who does nothing for a while. Signatures hold and keys are
//! perfect; the models in `verifpal/` look at those. How old the leader's word may be is not modelled but called: it is the code of
//! the session, and the limits are the session's.

mod age;
mod model;
mod properties;
mod rules;
mod state;
mod steps;

pub use model::{Action, Outcome, check};
pub use rules::{AS_WRITTEN, Age, Config, Rules, SMALL, TWO_BRANCHES};

//! One participant's view of one meeting, without sockets, clock or threads.
//!
//! ```text
//! +--------------------------------------------------------------------------------------+
//! | Feed one input with `handle`, then drain `poll_output` until it gives `Timeout`.      |
//! | Then wait for whichever comes first: the next input, or that time (feed `Timeout`).   |
//! +--------------------------------------------------------------------------------------+
//! ```
//!
//! Time and randomness are arguments, so a two-minute rotation tests in a microsecond and a failing run replays.

mod api;

pub use api::{
    Approval, Command, Creating, EndReason, Event, Input, Joining, KeyChange, LeaveReason, OpenStream, Output,
    Person, Phase, Role, State, StreamInfo, Successors, WaitReason,
};

use meeting_wire::{MeetingId, ParticipantId};
use rand_core::CryptoRng;

use crate::BootTime;

mod error;

pub use error::{CommandError, Counters, CreateError};

/// One stay in one meeting.
pub struct Session {}

#[allow(unused_variables, clippy::todo)]
impl Session {
    /// Opens a new instance of the meeting and leads it.
    pub fn create(creating: Creating, now: BootTime, rng: &mut dyn CryptoRng) -> Result<Self, CreateError> {
        todo!()
    }
    /// Asks for a place.
    pub fn join(joining: Joining, now: BootTime, rng: &mut dyn CryptoRng) -> Self {
        todo!()
    }
    /// Takes one input in.
    pub fn handle(&mut self, input: Input, now: BootTime, rng: &mut dyn CryptoRng) -> Result<(), CommandError> {
        todo!()
    }
    /// The next thing the session wants; [`Output::Timeout`] when there is nothing more.
    pub fn poll_output(&mut self) -> Output {
        todo!()
    }
    /// A glance.
    pub fn state(&self) -> State {
        todo!()
    }
    /// Own address.
    pub fn me(&self) -> ParticipantId {
        todo!()
    }
    /// Which meeting.
    pub fn meeting(&self) -> MeetingId {
        todo!()
    }
    /// What was refused.
    pub fn counters(&self) -> Counters {
        todo!()
    }
}

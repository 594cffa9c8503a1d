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

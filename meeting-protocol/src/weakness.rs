//! Defences that can be switched off one at a time, to see that the simulator notices.
//!
//! Without the feature `simulator`, which nothing but this crate's own tests turns on, none can.

/// A defence that is off.
#[cfg_attr(
    not(feature = "simulator"),
    allow(dead_code, reason = "some are consulted by the simulator alone")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakness {
    /// The leader wraps a new key for everybody it has ever paired with, not for those in the signed roster.
    RecipientsUnchecked,
    /// Each heartbeat gives 8 s from its coming, whenever it was sent.
    FreshByCounter,
    /// A newcomer counts its first 8 s from the welcome's coming, whenever its announce was answered.
    FreshFromWelcome,
    /// A key that the epoch link did not commit to is taken.
    CommitmentUnchecked,
    /// Links may open an epoch with a key of long ago.
    CommitmentRepeated,
    /// A leader need not change the key.
    RotationUnchecked,
    /// Announces are good for ever, whatever they answer.
    ChallengeUnchecked,
    /// Anybody's signature under an announce does.
    AnnounceUnsigned,
    /// A stay that was let in once is let in again.
    StayRepeated,
    /// Anybody's signature under a statement does.
    StatementUnsigned,
    /// Anybody's signature under a link does.
    LinkUnsigned,
    /// Anybody's signature under a heartbeat does.
    HeartbeatUnsigned,
    /// Anybody's signature under a *leave* does.
    LeaveUnsigned,
    /// Anybody's signature under the word that a meeting is over does.
    OverUnsigned,
    /// A pulse needs neither its sender's signature nor its proof.
    PulseUnproved,
    /// A takeover needs no majority.
    TakeoverUncounted,
    /// Anybody's signature under the vote that a leader is silent does.
    VoteUnsigned,
    /// Anybody's signature under a leader's resignation does.
    ResignationUnsigned,
    /// Anybody's signature under a leader's answer to an announce does.
    AnswerUnsigned,
    /// Elements: the old key is used until the new one is there.
    OldKeyKept,
    /// Openers: nobody remembers which counters were opened.
    ReplayWindowOff,
    /// Elements: sealing goes on when the lease is over.
    LeaseIgnored,
    /// Sealers: the counter starts anew, under the same key, after fifty frames.
    CounterRestarts,
    /// Agents: anybody's signature under a beacon does.
    BeaconUnsigned,
    /// Agents: beacons are not compared with the frames.
    BeaconsUnchecked,
    /// Agents: what elements that crashed had opened is forgotten with them.
    CrashForgets,
}

#[cfg(feature = "simulator")]
mod switch {
    use std::cell::Cell;

    use super::Weakness;

    thread_local! {
        static WEAK: Cell<Option<Weakness>> = const { Cell::new(None) };
    }

    /// Switches a defence off in this thread, or all on.
    pub fn set(weakness: Option<Weakness>) {
        WEAK.set(weakness);
    }

    /// Whether this one is off.
    pub(crate) fn is(weakness: Weakness) -> bool {
        WEAK.get() == Some(weakness)
    }
}

#[cfg(feature = "simulator")]
pub(crate) use switch::is;
#[cfg(feature = "simulator")]
pub use switch::set;

/// Whether this defence is off: never.
#[cfg(not(feature = "simulator"))]
pub(crate) const fn is(_: Weakness) -> bool {
    false
}

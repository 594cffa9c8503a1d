//! What comes out of a session.

use bytes::Bytes;
use meeting_wire::{Kind, ParticipantId, Slot, StreamId};

use super::Role;
use crate::{
    BootTime,
    beacon::Vouch,
    evidence::Evidence,
    frame::{CipherSuite, KeyId},
    identity::Fingerprint,
    secret::Secret,
    security_code::SecurityCode,
};

/// What a session wants from the world.
#[derive(Debug)]
pub enum Output {
    /// Put this on the board.
    Post {
        /// Where it goes.
        slot: Slot,
        /// Sealed bytes.
        body: Bytes,
    },
    /// Keys changed: tell the elements.
    Keys(KeyChange),
    /// Something a person should hear of.
    Event(Event),
    /// Our own beacon, for everybody who gets our frames.
    Beacon(Bytes),
    /// Somebody has signed for frames of theirs.
    Vouched {
        /// Who.
        from: ParticipantId,
        /// For which.
        vouch: Vouch,
    },
    /// Nothing more until then.
    Timeout(BootTime),
}

/// A change of what elements may seal and open.
#[derive(Debug)]
pub enum KeyChange {
    /// Seal this stream of ours with this key from now on.
    Seal {
        /// Which stream.
        stream: StreamId,
        /// The epoch of the key, counting from 1.
        epoch: u64,
        /// The KID of every frame under the key.
        kid: KeyId,
        /// The cipher suite.
        suite: CipherSuite,
        /// RFC 9605's `base_key`.
        base_key: Secret<32>,
        /// Somebody joined with this epoch, who cannot decode before a keyframe.
        keyframe: bool,
    },
    /// Nothing is sealed under epochs below `before` from `at` on, key or no key.
    Retire {
        /// The first epoch that is not retired.
        before: u64,
        /// At once, or up to 500 ms from now.
        at: BootTime,
    },
    /// Open this stream of somebody else with this key.
    Open {
        /// Whose stream.
        from: ParticipantId,
        /// The sender's number for it.
        stream: StreamId,
        /// The label the sender signed.
        track: String,
        /// What it carries.
        kind: Kind,
        /// The caps the sender signed.
        caps: String,
        /// The epoch of the key.
        epoch: u64,
        /// The KID of every frame under the key.
        kid: KeyId,
        /// The cipher suite.
        suite: CipherSuite,
        /// RFC 9605's `base_key`.
        base_key: Secret<32>,
        /// Counters below were opened before on this device: refuse them.
        floor: u64,
    },
    /// This stream has ended or its sender is gone.
    Close {
        /// Whose stream.
        from: ParticipantId,
        /// The sender's number for it.
        stream: StreamId,
    },
    /// Openers drop keys of epochs below this.
    Expire {
        /// The first epoch that stays.
        before: u64,
    },
    /// Elements seal and open until then and no longer, unless told anew.
    Lease {
        /// CLOCK_BOOTTIME; in the past when the session is stale.
        until: BootTime,
    },
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nobody has let us in yet.
    Joining(WaitReason),
    /// In, fresh, with a key.
    Live,
    /// In, but the leader's pulse is too old: nothing is sealed or opened.
    Stale,
    /// Out; a new session is needed.
    Ended(EndReason),
}

/// What a joining session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// No heartbeat has been seen.
    Leader,
    /// Announced; the leader has not answered.
    Answer,
    /// The leader's user has to approve this device.
    Approval,
    /// In the roster, but no echo has proved the leader fresh, or the key is missing.
    Key,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndReason {
    /// The user left.
    Left,
    /// The leader removed this device.
    Removed,
    /// The leader left without a successor.
    LeaderLeft,
    /// No fresh word from the leader for 2 minutes.
    Stale,
    /// The meeting is locked.
    Locked,
    /// Another stay of this device took this one's place.
    Replaced,
    /// A different leader won; this branch of the meeting does not go on. Join again.
    Branch,
    /// The leader broke the protocol, for instance two links with one number.
    LeaderMisbehaved,
    /// Never let in: the leader refused, or nobody answered.
    Refused,
}

/// Why somebody is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveReason {
    /// Said so.
    Left,
    /// Removed by the leader.
    Removed,
    /// No pulse for too long.
    Missing,
    /// Came back in a new stay.
    Replaced,
}

/// Somebody who waits for the leader's user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// The address to approve.
    pub participant: ParticipantId,
    /// As announced, control characters replaced.
    pub name: String,
    /// Of the device key.
    pub device: Fingerprint,
    /// As announced.
    pub role: Role,
}

/// Something a person should hear of, once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The phase changed.
    Phase(Phase),
    /// These people, by name, are in with one link and can hear from now on. Who proves to be present arrives.
    LetIn(Vec<String>),
    /// Somebody proved to be present.
    Arrived {
        /// Their address.
        participant: ParticipantId,
        /// Their name.
        name: String,
        /// What for.
        role: Role,
    },
    /// Somebody is gone.
    Departed {
        /// Their address.
        participant: ParticipantId,
        /// Their name.
        name: String,
        /// Why.
        reason: LeaveReason,
    },
    /// A new meeting key is in use.
    Epoch(u64),
    /// Somebody else leads: compare the security code again.
    LeaderChanged {
        /// The new leader.
        participant: ParticipantId,
        /// Their name.
        name: String,
    },
    /// The security code is new or changed.
    Code(SecurityCode),
    /// The meeting is locked or open again.
    Locked(bool),
    /// Leader: somebody unknown waits for approval.
    WantsIn(Approval),
    /// A peer broke the protocol; the text names who and what, never a key.
    Misbehaviour(String),
    /// Proof that the leader did, for anybody to check.
    Evidence(Box<Evidence>),
}

/// Somebody in the roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Their address in this stay.
    pub participant: ParticipantId,
    /// Their sender index, never reused in an instance.
    pub index: u16,
    /// As signed, control characters replaced.
    pub name: String,
    /// As signed.
    pub role: Role,
    /// Of their device key.
    pub device: Fingerprint,
    /// Proved to hold the announced keys. Whoever has not can hear all the same.
    pub present: bool,
    /// Makes the keys.
    pub leader: bool,
    /// Place in the order of succession, from 1.
    pub successor: Option<u8>,
    /// This session's own entry.
    pub me: bool,
    /// Has signed for another chain than ours: the meeting is forked, or that device lies.
    pub forked: bool,
}

/// A stream of somebody else, as its sender stated it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamInfo {
    /// Whose.
    pub from: ParticipantId,
    /// The sender's number for it.
    pub stream: StreamId,
    /// The label.
    pub track: String,
    /// What it carries.
    pub kind: Kind,
    /// Its caps.
    pub caps: String,
}

/// A glance at a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Where it stands.
    pub phase: Phase,
    /// Own address.
    pub me: ParticipantId,
    /// Whether this session leads.
    pub leading: bool,
    /// Whether the leader is the creator named in the link or follows from it by signed links.
    pub leader_verified: bool,
    /// The newest epoch with a key.
    pub epoch: Option<u64>,
    /// To read aloud.
    pub code: Option<SecurityCode>,
    /// Whether the meeting is locked.
    pub locked: bool,
    /// Everybody, by index.
    pub roster: Vec<Person>,
    /// Leader: who waits.
    pub waiting: Vec<Approval>,
    /// Streams of others.
    pub streams: Vec<StreamInfo>,
    /// Until when elements may seal and open.
    pub lease: BootTime,
}

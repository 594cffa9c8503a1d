//! What goes into a session and what comes out of it.

use std::sync::Arc;

use bytes::Bytes;
use meeting_wire::{Kind, ParticipantId, Post, Slot, StreamId};

use crate::{
    BootTime,
    frame::{CipherSuite, KeyId},
    identity::{DeviceKey, Fingerprint},
    link::MeetingLink,
    secret::Secret,
    security_code::SecurityCode,
};

/// What somebody is in a meeting for; signed in the announce and shown to everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// A person or device that takes part.
    #[default]
    Participant,
    /// Writes what it opens to a file.
    Recorder,
    /// Carries the meeting to or from something that is not end-to-end encrypted.
    Gateway,
    /// A program that listens or speaks on its own.
    Bot,
}

/// Who may take over when the leader falls silent (PROTOCOL.md 3.8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Successors {
    /// Nobody: the meeting ends with its leader.
    #[default]
    Nobody,
    /// The first of those present, in order of arrival, at most this many (never over 3); never recorders or bots.
    FirstPresent(u8),
}

/// All it takes to open a new instance of a meeting and lead it.
pub struct Creating {
    /// The link others will join by; its fingerprint must be this device's.
    pub link: MeetingLink,
    /// Signs the announce.
    pub device: Arc<DeviceKey>,
    /// At most 64 bytes of UTF-8; control characters are replaced.
    pub name: String,
    /// See [`Role`].
    pub role: Role,
    /// The leader's choice of successors.
    pub successors: Successors,
}

/// All it takes to ask for a place in a meeting.
pub struct Joining {
    /// The link, with the invite secret.
    pub link: MeetingLink,
    /// Signs the announce.
    pub device: Arc<DeviceKey>,
    /// At most 64 bytes of UTF-8; control characters are replaced.
    pub name: String,
    /// See [`Role`].
    pub role: Role,
}

/// What the world does to a session.
pub enum Input {
    /// Something appeared on the board.
    Post(Post),
    /// The user or an element of this device wants something.
    Command(Command),
    /// The relay connection is up, for the first time or again.
    Connected,
    /// The relay connection is lost; the session stays and its budget runs.
    Disconnected,
    /// The promised time has come.
    Timeout,
}

/// What a user or an element can want.
pub enum Command {
    /// Leave; a leader hands over to its first successor if there is one, else the meeting ends for all.
    Leave,
    /// Leader: remove somebody and refuse the device from then on.
    Remove(ParticipantId),
    /// Leader: a new key now.
    Rotate,
    /// Leader: let nobody new in, or do.
    Lock(bool),
    /// Leader: let somebody in who waits for approval.
    Approve(ParticipantId),
    /// Leader: choose successors anew.
    Successors(Successors),
    /// A sealing element wants a stream.
    OpenStream(OpenStream),
    /// The caps of a stream changed: state it anew.
    StreamCaps {
        /// Which stream.
        stream: StreamId,
        /// A caps string, `codec_data` included.
        caps: String,
    },
    /// The sealing element is gone; the stream's keys are never used again.
    CloseStream(StreamId),
    /// An opening element accepted counters of this stream below `floor`: never open them again after a restart.
    Floor {
        /// Whose stream.
        from: ParticipantId,
        /// The key's id.
        kid: KeyId,
        /// One above the newest accepted counter.
        floor: u64,
    },
}

/// A sealing element's wish for a stream. `stream` is drawn by the agent: the next unused number of this stay.
pub struct OpenStream {
    /// The context number; a number used before in this stay is refused.
    pub stream: StreamId,
    /// How the relay forwards it.
    pub kind: Kind,
    /// The label in every key derivation of the stream, at most 64 bytes.
    pub track: String,
    /// A caps string, `codec_data` included, at most 16 KiB.
    pub caps: String,
    /// The element's half of the stream instance id (PROTOCOL.md 3.7).
    pub random: [u8; 16],
}

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
    /// Proved to hold the announced keys; else invited at most.
    pub present: bool,
    /// Makes the keys.
    pub leader: bool,
    /// Place in the order of succession, from 1.
    pub successor: Option<u8>,
    /// This session's own entry.
    pub me: bool,
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

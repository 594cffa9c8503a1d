//! What people sign with the key of their stay, besides links: short statements of fact.

mod codec;

use meeting_wire::{Encode, InstanceId, MeetingId, ParticipantId};

use crate::crypto::{
    labels,
    sign::{Hash, SignedBody, hash},
};

/// A number drawn for one pulse; its return proves the leader alive after it was sent.
pub type Nonce = [u8; 16];

/// The most nonces one heartbeat returns.
pub const MAX_ECHOES: usize = 1024;

/// The leader is alive, and this is where the meeting stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Which meeting.
    pub meeting: MeetingId,
    /// Which run of it.
    pub instance: InstanceId,
    /// Who signs.
    pub leader: ParticipantId,
    /// Counts up by one for each leader.
    pub counter: u64,
    /// The number of the newest link.
    pub head_number: u64,
    /// Its hash.
    pub head: Hash,
    /// The newest epoch.
    pub epoch: u64,
    /// The hash of the link that opened it.
    pub epoch_link: Hash,
    /// For announces; valid 30 s from now.
    pub challenge: Hash,
    /// The leader's clock in ms.
    pub time: u64,
    /// Hash of the heartbeat before; zeros in the first.
    pub previous: Hash,
    /// Nonces of the pulses that came since the heartbeat before.
    pub echoes: Vec<Nonce>,
}

/// A participant is alive, and this is what it sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// Which meeting.
    pub meeting: MeetingId,
    /// Which run of it.
    pub instance: InstanceId,
    /// Who signs.
    pub participant: ParticipantId,
    /// Fresh.
    pub nonce: Nonce,
    /// The newest link it has.
    pub head: Hash,
    /// The newest epoch link it has.
    pub epoch_link: Hash,
    /// Leader time of the newest heartbeat it heard, 0 before the first: a pulse that is delivered late or again
    /// shows no later life than that.
    pub heard: u64,
}

/// What becomes of an announce that is not let in at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The leader's user has to decide.
    Waiting,
    /// Announce anew, with a fresh challenge.
    Renew,
    /// The meeting is locked.
    Locked,
    /// This device stays out.
    Refused,
}

/// The leader's word on an announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Which meeting.
    pub meeting: MeetingId,
    /// Which run of it.
    pub instance: InstanceId,
    /// Who signs.
    pub leader: ParticipantId,
    /// Who announced.
    pub to: ParticipantId,
    /// Of the announce, whose challenge makes the answer new.
    pub announce: Hash,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// A participant misses something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Which meeting.
    pub meeting: MeetingId,
    /// Which run of it.
    pub instance: InstanceId,
    /// Who signs.
    pub participant: ParticipantId,
    /// The newest link it has.
    pub head: Hash,
    /// The newest epoch it has the key of.
    pub epoch: u64,
}

/// Where a participant stands in the chain, for everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Which meeting.
    pub meeting: MeetingId,
    /// Which run of it.
    pub instance: InstanceId,
    /// Who signs.
    pub participant: ParticipantId,
    /// The number of the newest link it has.
    pub number: u64,
    /// Its hash.
    pub head: Hash,
    /// The newest epoch it knows of.
    pub epoch: u64,
    /// The hash of the link that opened it.
    pub epoch_link: Hash,
}

/// A participant wants to see what somebody else's leader has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Show {
    /// Which meeting.
    pub meeting: MeetingId,
    /// Which run of it.
    pub instance: InstanceId,
    /// Who signs.
    pub participant: ParticipantId,
    /// The link of this number.
    pub number: u64,
    /// And the one that opened this epoch.
    pub epoch: u64,
}

/// Who leads has heard the heartbeat of somebody else who does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leads {
    /// Which meeting.
    pub meeting: MeetingId,
    /// Which run of it.
    pub instance: InstanceId,
    /// Who signs.
    pub leader: ParticipantId,
    /// Of that heartbeat, so that this is said now.
    pub challenge: Hash,
}

/// The leader has been silent for 6 s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SilenceVote {
    /// Which meeting.
    pub meeting: MeetingId,
    /// Which run of it.
    pub instance: InstanceId,
    /// Who signs.
    pub participant: ParticipantId,
    /// Who is silent.
    pub leader: ParticipantId,
    /// The newest link of the voter.
    pub head_number: u64,
    /// Its hash.
    pub head: Hash,
    /// Counter of the last heartbeat heard, so that a vote is of no use for a later silence.
    pub heartbeat: u64,
}

/// The leader hands over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resignation {
    /// Which meeting.
    pub meeting: MeetingId,
    /// Which run of it.
    pub instance: InstanceId,
    /// Who signs.
    pub leader: ParticipantId,
    /// The newest link; the successor's extends it.
    pub head: Hash,
    /// To whom.
    pub successor: ParticipantId,
}

/// A participant leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leave {
    /// Which meeting.
    pub meeting: MeetingId,
    /// Which run of it.
    pub instance: InstanceId,
    /// Who signs.
    pub participant: ParticipantId,
}

/// The leader ends the meeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Over {
    /// Which meeting.
    pub meeting: MeetingId,
    /// Which run of it.
    pub instance: InstanceId,
    /// Who signs.
    pub leader: ParticipantId,
}

impl Ask {
    /// Whether it is about this instance of this meeting.
    pub fn is_here(&self, meeting: MeetingId, instance: InstanceId) -> bool {
        (self.meeting, self.instance) == (meeting, instance)
    }
}

impl Heartbeat {
    /// What the next heartbeat names this one by.
    pub fn hash(&self) -> Hash {
        hash(labels::HEARTBEAT_HASH, &self.to_bytes())
    }
}

impl SignedBody for Heartbeat {
    const LABEL: &'static [u8] = labels::HEARTBEAT;
}
impl SignedBody for Pulse {
    const LABEL: &'static [u8] = labels::PULSE;
}
impl SignedBody for Answer {
    const LABEL: &'static [u8] = labels::ANSWER;
}
impl SignedBody for Ask {
    const LABEL: &'static [u8] = labels::ASK;
}
impl SignedBody for Head {
    const LABEL: &'static [u8] = labels::HEAD;
}
impl SignedBody for Show {
    const LABEL: &'static [u8] = labels::SHOW;
}
impl SignedBody for Leads {
    const LABEL: &'static [u8] = labels::LEADS;
}
impl SignedBody for SilenceVote {
    const LABEL: &'static [u8] = labels::VOTE;
}
impl SignedBody for Resignation {
    const LABEL: &'static [u8] = labels::RESIGN;
}
impl SignedBody for Leave {
    const LABEL: &'static [u8] = labels::LEAVE;
}
impl SignedBody for Over {
    const LABEL: &'static [u8] = labels::OVER;
}

//! What the command line asks of the daemon, and what it hears: JSON inside [`meeting_protocol::local`]'s
//! control messages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One request; `meeting` is the start of a meeting id, needed only when there are several.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Opens a new meeting and leads it. Answer: [`Answer::Created`].
    Create {
        /// `HOST[:PORT]`.
        relay: String,
        /// SHA-256 of a self-signed relay's certificate, in hex.
        certificate: Option<String>,
        /// The right to create, where the relay asks for one.
        token: String,
        /// The display name, else the daemon's.
        name: Option<String>,
        /// How many of those present may take over.
        successors: u8,
        /// A fresh device key for this meeting.
        guest: bool,
    },
    /// Asks for a place. Answer: [`Answer::Joined`].
    Join {
        /// The whole link.
        link: String,
        /// As in `Create`.
        name: Option<String>,
        /// `participant`, `recorder`, `gateway` or `bot`.
        role: String,
        /// As in `Create`.
        guest: bool,
    },
    /// Leaves. Answer: [`Answer::Done`], as for all that follow but the last two.
    Leave {
        /// Which.
        meeting: Option<String>,
    },
    /// Removes somebody.
    Remove {
        /// Which.
        meeting: Option<String>,
        /// A name or the start of an id.
        who: String,
    },
    /// Makes a new key.
    Rotate {
        /// Which.
        meeting: Option<String>,
    },
    /// Lets nobody new in, or does.
    Lock {
        /// Which.
        meeting: Option<String>,
        /// Whether to lock.
        locked: bool,
    },
    /// Lets somebody in who waits.
    Approve {
        /// Which.
        meeting: Option<String>,
        /// A name or the start of an id.
        who: String,
    },
    /// The code over the roster as it is now (PROTOCOL.md 3.9), the text of the answer.
    RosterCode {
        /// Which.
        meeting: Option<String>,
    },
    /// What comparing the security code with the leader's has shown. Answer: [`Answer::Done`], or why not.
    Verify {
        /// Which.
        meeting: Option<String>,
        /// The digits that the leader read, in any grouping; none if they were not the same.
        code: Option<String>,
    },
    /// A glance. Answer: [`Answer::Status`].
    Status {
        /// Which.
        meeting: Option<String>,
    },
    /// A glance once phase or detail differ from what was seen, or the time is up. Answer: [`Answer::Status`].
    Wait {
        /// Which.
        meeting: Option<String>,
        /// The phase seen last.
        phase: String,
        /// The detail seen last.
        detail: String,
        /// At most this long, in ms.
        millis: u64,
    },
    /// Proofs that leaders broke the protocol. Answer: [`Answer::Evidence`].
    Evidence,
    /// One of them. Answer: [`Answer::Exported`].
    ExportEvidence {
        /// The start of its id; needed only when there are several.
        id: Option<String>,
    },
}

/// One answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// A meeting was opened.
    Created {
        /// For those who are invited, and nobody's log.
        link: String,
        /// Its id.
        meeting: String,
    },
    /// A place was asked for.
    Joined {
        /// The meeting's id.
        meeting: String,
    },
    /// It was done.
    Done {
        /// What, for a person.
        text: String,
    },
    /// A glance at a meeting.
    Status(Box<Status>),
    /// What is kept.
    Evidence {
        /// By id.
        proofs: Vec<Kept>,
    },
    /// A file.
    Exported {
        /// Its bytes, in hex.
        hex: String,
    },
    /// It was not done.
    Refused {
        /// Why, and what to type.
        text: String,
    },
}

/// One meeting at a glance. Texts of others are harmless to show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its id.
    pub meeting: String,
    /// `joining`, `live`, `stale` or `ended`.
    pub phase: String,
    /// What it waits for, why it ended.
    pub detail: String,
    /// Whether the relay connection is up.
    pub connected: bool,
    /// Whether this device leads.
    pub leading: bool,
    /// Whether the leader's chain reaches back to the creator named in the link.
    pub leader_verified: bool,
    /// Whether this user has compared the code that holds now with the leader's.
    #[serde(default)]
    pub verified: bool,
    /// `green`: encrypted and compared; `amber`: encrypted, not compared; `red`: nobody vouches for the leader, or somebody's
    /// frames are forged; `grey`: stale, or not in it, so nothing is sealed or opened.
    #[serde(default)]
    pub shield: String,
    /// Whether nobody new is let in.
    pub locked: bool,
    /// The newest epoch, 0 before the first.
    pub epoch: u64,
    /// How many epochs this device has seen begin in this meeting.
    pub epochs: u64,
    /// 40 digits in groups of five; empty before there is one.
    pub code: String,
    /// The same as eight words that can be spoken.
    pub words: String,
    /// Everybody, by index.
    pub people: Vec<Person>,
    /// Who waits for approval.
    pub waiting: Vec<Waiting>,
    /// Streams, of others and of this device.
    pub streams: Vec<Stream>,
    /// Frames handed to the relay.
    pub frames_out: u64,
    /// Frames that came from the relay.
    pub frames_in: u64,
    /// Frames that went nowhere, all together.
    pub dropped: u64,
    /// The same by reason.
    pub dropped_by: BTreeMap<String, u64>,
    /// What happened lately, oldest first.
    pub events: Vec<String>,
}

/// Somebody in the roster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// Their address in this stay.
    pub id: String,
    /// As signed, made harmless.
    pub name: String,
    /// `participant`, `recorder`, `gateway` or `bot`.
    pub role: String,
    /// For recognising a device.
    pub device: String,
    /// Proved to be there. Whoever has not can hear all the same.
    pub present: bool,
    /// Makes the keys.
    pub leader: bool,
    /// Place in the order of succession.
    pub successor: Option<u8>,
    /// This device.
    pub me: bool,
    /// Has signed for another chain than ours: the meeting is forked, or that device lies.
    #[serde(default)]
    pub forked: bool,
}

/// A proof that a leader broke the protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// For `export`.
    pub id: String,
    /// In which meeting.
    pub meeting: String,
    /// The leader's name, made harmless; empty if the proof does not say.
    pub leader: String,
    /// The leader's device; empty if the proof does not say.
    pub device: String,
    /// What cannot be.
    pub fault: String,
}

/// Somebody who waits for approval.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// For `approve`.
    pub id: String,
    /// As announced, made harmless.
    pub name: String,
    /// As announced.
    pub role: String,
    /// For comparing with what the person reads out.
    pub device: String,
}

/// A stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Whose: an id.
    pub from: String,
    /// Their name, made harmless.
    pub name: String,
    /// The label, made harmless.
    pub track: String,
    /// `video`, `audio` or `data`.
    pub kind: String,
    /// Its number.
    pub stream: u32,
    /// Whether this device sends it.
    pub me: bool,
    /// Frames of others that came since the stream was last offered; none are asked for while nobody watches.
    #[serde(default)]
    pub received: u64,
    /// Frames of others that are missing in between.
    #[serde(default)]
    pub lost: u64,
    /// Whether the sender of somebody else's stream signs for its frames: `waiting`, `vouched`, `unverified` or `forged`.
    #[serde(default)]
    pub trust: String,
    /// Frames that came in the sender's name and were not the sender's.
    #[serde(default)]
    pub forged: u64,
}

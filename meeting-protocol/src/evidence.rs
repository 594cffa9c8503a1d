//! Evidence: two words of one leader that cannot both be honest, and the chain from the meeting's creator to the key that
//! signed them. Whoever has the file can check it, without the link and without a secret (PROTOCOL.md 7).
//!
//! ```text
//!  creator's device --announce--> stay key --genesis--> [takeovers] --> leader's stay key --> two words that differ
//! ```

mod word;

use std::collections::BTreeSet;

use meeting_wire::{Decode, DecodeError, Encode, InstanceId, MeetingId, ParticipantId, Reader, Writer};
use thiserror::Error;

pub use self::word::Fault;
pub(crate) use self::word::{Fact, Word, contradiction_of};
use crate::{
    announce::SignedAnnounce,
    crypto::sign::StayPublic,
    identity::Fingerprint,
    roster::{Change, Link},
    session::lineage::Lineage,
};

/// The longest file: two posts of the longest kind, the chain of leaders, and room.
pub const MAX_FILE: usize = 2 << 20;
/// The first bytes of a file, and its version.
const MAGIC: &[u8; 5] = b"e2ev\x01";

/// Two words of one leader that contradict each other, and why the leader is the one who signed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    pub(crate) lineage: Lineage,
    /// The leader's own announce, where the creator no longer leads and we have it: names its device.
    pub(crate) announce: Option<SignedAnnounce>,
    pub(crate) words: [Word; 2],
}

/// Why a file proves nothing.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum EvidenceError {
    /// Not such a file, or of a later version.
    #[error("this is not a file of evidence that this version can read")]
    Form,
    /// Longer than [`MAX_FILE`].
    #[error("the file is longer than evidence can be")]
    TooLong,
    /// Cut, lengthened or altered.
    #[error("the file is damaged: {0}")]
    Damaged(#[from] DecodeError),
    /// The chain from the creator does not hold.
    #[error("the chain from the meeting's creator to the leader does not hold: nothing is proved")]
    Leader,
    /// Somebody else signed, or in another meeting.
    #[error("the two statements are not both signed by this leader in this meeting: nothing is proved")]
    Signature,
    /// Both can be honest.
    #[error("the two statements do not contradict each other: nothing is proved")]
    Agree,
}

/// What a file proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// In which meeting.
    pub meeting: MeetingId,
    /// In which run of it.
    pub instance: InstanceId,
    /// Of the device that opened the meeting, as its link names it.
    pub creator: Fingerprint,
    /// How often the lead had changed by then.
    pub changes: usize,
    /// Whose words: the address of a stay.
    pub leader: ParticipantId,
    /// The key of that stay.
    pub signer: StayPublic,
    /// Of the leader's device, and the name it announced; none where the file does not say.
    pub device: Option<(Fingerprint, String)>,
    /// What cannot be.
    pub fault: Fault,
    /// What the two words are.
    pub words: [&'static str; 2],
}

impl Evidence {
    /// What these words prove, if they prove anything.
    pub(crate) fn new(
        lineage: Lineage,
        announce: Option<SignedAnnounce>,
        words: [Word; 2],
    ) -> Result<Self, EvidenceError> {
        let evidence = Self { lineage, announce, words };
        evidence.verify()?;
        if evidence.to_file().len() > MAX_FILE { Err(EvidenceError::TooLong) } else { Ok(evidence) }
    }

    /// Checks everything, from the creator's device to the contradiction.
    ///
    /// # Errors
    ///
    /// Why it proves nothing.
    pub fn verify(&self) -> Result<Proof, EvidenceError> {
        let genesis = &self.lineage.genesis.body;
        let of = (genesis.meeting, genesis.instance);
        let (leader, signer) = self.lineage.leader(of).ok_or(EvidenceError::Leader)?;
        let creator = self.lineage.creator.unverified();
        let own = match &self.announce {
            None => (creator.participant == leader).then_some(creator),
            Some(announce) => {
                let announce = announce.verified().ok_or(EvidenceError::Leader)?;
                let fits = (announce.meeting, announce.instance) == of
                    && (announce.participant, announce.signer) == (leader, signer);
                if !fits {
                    return Err(EvidenceError::Leader);
                }
                Some(announce)
            }
        };
        let [first, second] = &self.words;
        if !self.words.iter().all(|word| word.is_by((leader, &signer), of)) {
            return Err(EvidenceError::Signature);
        }
        Ok(Proof {
            meeting: of.0,
            instance: of.1,
            creator: creator.device.fingerprint(),
            changes: self.lineage.steps.len(),
            leader,
            signer,
            device: own.map(|announce| (announce.device.fingerprint(), announce.name.clone())),
            fault: contradiction_of(first, second).ok_or(EvidenceError::Agree)?,
            words: [first.kind(), second.kind()],
        })
    }

    /// The bytes of a file.
    pub fn to_file(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.raw(MAGIC);
        self.lineage.encode(&mut out);
        out.option(self.announce.as_ref());
        self.words.iter().for_each(|word| word.encode(&mut out));
        out.into_bytes()
    }

    /// Reads a file; whether it proves anything [`verify`](Self::verify) says.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn from_file(bytes: &[u8]) -> Result<Self, EvidenceError> {
        if bytes.len() > MAX_FILE {
            return Err(EvidenceError::TooLong);
        }
        let body = bytes.strip_prefix(MAGIC).ok_or(EvidenceError::Form)?;
        let mut reader = Reader::new(body);
        let evidence = Self {
            lineage: Lineage::decode(&mut reader)?,
            announce: reader.option()?,
            words: [Word::decode(&mut reader)?, Word::decode(&mut reader)?],
        };
        reader.finish()?;
        Ok(evidence)
    }

    /// The names that stand in it, for whoever is about to hand it on.
    pub fn names(&self) -> BTreeSet<String> {
        let steps = self.lineage.steps.iter().flat_map(|step| [&step.last.body, &step.takeover.body]);
        let links = [&self.lineage.genesis.body].into_iter().chain(steps);
        let rosters = self.lineage.steps.iter().flat_map(|step| step.roster.entries());
        let rosters = rosters.map(|entry| entry.name.clone());
        let entries = links.chain(self.words.iter().filter_map(Word::link)).flat_map(entries).chain(rosters);
        let announces = [Some(&self.lineage.creator), self.announce.as_ref()].into_iter().flatten();
        entries.chain(announces.map(|announce| announce.unverified().name.clone())).collect()
    }
}

fn entries(link: &Link) -> impl Iterator<Item = String> {
    link.changes.iter().filter_map(|change| match change {
        Change::Add(entry) => Some(entry.name.clone()),
        _ => None,
    })
}

//! Stream statements: what a sender says of its streams, sealed so that the relay learns none of it.

use meeting_wire::{
    Decode, DecodeError, Encode, InstanceId, Kind, MeetingId, ParticipantId, Reader, StreamId, Writer,
};
use zeroize::Zeroizing;

use super::epoch_key::EpochKey;
use crate::{
    MAX_CAPS,
    crypto::{
        kdf::info,
        labels, once,
        sign::{Hash, Signed, SignedBody, StayKey, hash},
    },
    frame::{CipherSuite, KeyId},
    roster::counter,
};

/// The longest track label in bytes.
pub(crate) const MAX_TRACK: usize = 64;

/// What a sender says, before it is sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// The stream is open in this epoch.
    Open(StreamFacts),
    /// The stream has ended.
    Close(StreamId),
}

/// All it takes to derive a stream's key and to show the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamFacts {
    pub stream: StreamId,
    pub kind: Kind,
    pub track: String,
    pub caps: String,
    /// The stream instance id.
    pub instance: [u8; 16],
    pub kid: KeyId,
    pub suite: CipherSuite,
}

/// A sealed statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Which meeting.
    pub meeting: MeetingId,
    /// Which run of it.
    pub instance: InstanceId,
    /// Who signs.
    pub participant: ParticipantId,
    /// The epoch of the key.
    pub epoch: u64,
    /// The link that opened it: a fork shows here.
    pub link: Hash,
    /// The nonce; counts up from 0 in each epoch.
    pub counter: u64,
    /// AES-256-GCM under the sender's control key.
    pub sealed: Vec<u8>,
}

impl Statement {
    /// Seals and signs. The caller never repeats a counter in an epoch.
    pub(crate) fn seal(
        mut head: Statement,
        said: &Said,
        key: &EpochKey,
        sender: (u16, &Hash),
        signer: &StayKey,
    ) -> Signed<Self> {
        let plaintext = Zeroizing::new(said.to_bytes());
        let sealed =
            once::seal_counted(&key.control(sender.0, sender.1), head.counter, &head.aad(), &plaintext);
        head.sealed = sealed.expect("a statement is far below what AES-GCM can seal");
        Signed::new(head, signer)
    }

    /// Opens; the signature has to be checked besides.
    pub(crate) fn open(&self, key: &EpochKey, index: u16, announce: &Hash) -> Option<Said> {
        let control = key.control(index, announce);
        let plaintext = once::open_counted(&control, self.counter, &self.aad(), &self.sealed).ok()?;
        Said::from_bytes(&plaintext).ok()
    }

    fn aad(&self) -> Vec<u8> {
        let mut out = Writer::default();
        self.head(&mut out);
        out.into_bytes()
    }

    fn head(&self, out: &mut Writer) {
        self.meeting.encode(out);
        self.instance.encode(out);
        self.participant.encode(out);
        out.u64(self.epoch);
        out.raw(&self.link);
        out.u64(self.counter);
    }
}

/// The stream instance id of the halves that element and agent drew: either may have been a bad or cloned draw.
pub(crate) fn stream_instance(element: &[u8; 16], agent: &[u8; 16]) -> [u8; 16] {
    let both = hash(labels::STREAM_INSTANCE, &info("", &[element, agent]));
    let mut id = [0; 16];
    id.copy_from_slice(&both[..16]);
    id
}

impl SignedBody for Statement {
    const LABEL: &'static [u8] = labels::STATEMENT;
}

impl Encode for Statement {
    fn encode(&self, out: &mut Writer) {
        self.head(out);
        out.bytes(&self.sealed);
    }
}

impl Decode for Statement {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            meeting: MeetingId::decode(reader)?,
            instance: InstanceId::decode(reader)?,
            participant: ParticipantId::decode(reader)?,
            epoch: counter(reader)?,
            link: reader.array()?,
            counter: counter(reader)?,
            sealed: reader.bytes(MAX_CAPS + 1024, "a statement")?.to_vec(),
        })
    }
}

impl Encode for Said {
    fn encode(&self, out: &mut Writer) {
        match self {
            Said::Open(facts) => {
                out.u8(0);
                facts.stream.encode(out);
                facts.kind.encode(out);
                out.str(&facts.track);
                out.str(&facts.caps);
                out.raw(&facts.instance);
                out.u64(facts.kid.into());
                out.u16(facts.suite.into());
            }
            Said::Close(stream) => {
                out.u8(1);
                stream.encode(out);
            }
        }
    }
}

impl Decode for Said {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            0 => Said::Open(StreamFacts {
                stream: StreamId::decode(reader)?,
                kind: Kind::decode(reader)?,
                track: reader.str(MAX_TRACK, "a track label")?.to_owned(),
                caps: reader.str(MAX_CAPS, "caps")?.to_owned(),
                instance: reader.array()?,
                kid: KeyId::from(reader.u64()?),
                suite: CipherSuite::try_from(reader.u16()?)
                    .map_err(|_| DecodeError::Invalid("a cipher suite"))?,
            }),
            1 => Said::Close(StreamId::decode(reader)?),
            _ => return Err(DecodeError::Invalid("the kind of a statement")),
        })
    }
}

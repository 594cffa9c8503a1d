//! What a post holds once its seal is open.

use meeting_wire::{Decode, DecodeError, Encode, ParticipantId, Reader, Writer};

use super::{
    claims::{Answer, Ask, Head, Heartbeat, Leads, Leave, Over, Pulse, Resignation, Show, SilenceVote},
    lineage::Lineage,
    statement::Statement,
    welcome::Welcome,
};
use crate::{
    announce::SignedAnnounce,
    beacon::SignedBeacon,
    crypto::{
        sign::{Hash, Signed},
        wrap::{ENC_LEN, SEALED_LEN},
    },
    roster::{MAX_ENTRIES, SignedLink, counter},
};

/// Links one message carries at most, and links everybody keeps to answer with.
pub(crate) const MAX_LINKS: usize = 64;

/// Everything that is said over the board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// To all: the roster changed.
    Link(SignedLink),
    /// To all: somebody wants in.
    Announce(SignedAnnounce),
    /// To one who announced: why there is no welcome yet.
    Answer(Box<Reply>),
    /// To one who is let in.
    Welcome(Box<Welcome>),
    /// To one: the key of an epoch.
    Wrap(Wrap),
    /// To all.
    Heartbeat(Signed<Heartbeat>),
    /// To the leader.
    Pulse(ProvenPulse),
    /// To the leader, or a voter who has seen more.
    Ask(Signed<Ask>),
    /// To one who asked.
    Links(Vec<SignedLink>),
    /// To all: a stream of ours.
    Statement(Signed<Statement>),
    /// To all.
    Leave(Signed<Leave>),
    /// To all.
    Over(Signed<Over>),
    /// To all.
    Resign(Signed<Resignation>),
    /// To the successors.
    Vote(Signed<SilenceVote>),
    /// To a successor: what it needs to take over.
    Announces(Vec<SignedAnnounce>),
    /// To all, beside the media and not on the board: for frames of ours.
    Beacon(SignedBeacon),
    /// To all: where we stand in the chain.
    Head(Signed<Head>),
    /// To one who stands elsewhere: what did your leader sign?
    Show(Signed<Show>),
    /// To another leader in this instance: who leads here. Whom that ends passes it on to all.
    Branch(Box<Branch>),
}

/// Why there is no welcome yet, and why the leader may say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub answer: Signed<Answer>,
    pub lineage: Lineage,
}

/// Who leads now, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Branch {
    pub word: Signed<Leads>,
    pub lineage: Lineage,
}

/// The key of an epoch for one participant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrap {
    pub to: ParticipantId,
    pub epoch: u64,
    /// The link that opened it.
    pub link: Hash,
    /// How to make the pairing, until the participant has proved it did.
    pub offer: Option<Offer>,
    pub sealed: [u8; SEALED_LEN],
}

/// The leader's half of a pairing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The epoch of the first chain key.
    pub start: u64,
    pub enc: Vec<u8>,
    /// By the leader, over `enc` and both announces.
    pub signature: [u8; 64],
}

/// A pulse, signed and proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProvenPulse {
    pub pulse: Signed<Pulse>,
    /// Over the pulse, under the proof key.
    pub mac: [u8; 32],
}

impl Encode for Message {
    fn encode(&self, out: &mut Writer) {
        match self {
            Message::Link(link) => {
                out.u8(0);
                link.encode(out);
            }
            Message::Announce(announce) => {
                out.u8(1);
                announce.encode(out);
            }
            Message::Answer(reply) => {
                out.u8(2);
                reply.answer.encode(out);
                reply.lineage.encode(out);
            }
            Message::Welcome(welcome) => {
                out.u8(3);
                welcome.encode(out);
            }
            Message::Wrap(wrap) => {
                out.u8(4);
                wrap.to.encode(out);
                out.u64(wrap.epoch);
                out.raw(&wrap.link);
                out.option(wrap.offer.as_ref());
                out.raw(&wrap.sealed);
            }
            Message::Heartbeat(heartbeat) => {
                out.u8(5);
                heartbeat.encode(out);
            }
            Message::Pulse(ProvenPulse { pulse, mac }) => {
                out.u8(6);
                pulse.encode(out);
                out.raw(mac);
            }
            Message::Ask(ask) => {
                out.u8(7);
                ask.encode(out);
            }
            Message::Links(links) => {
                out.u8(8);
                out.list(links);
            }
            Message::Statement(statement) => {
                out.u8(9);
                statement.encode(out);
            }
            Message::Leave(leave) => {
                out.u8(10);
                leave.encode(out);
            }
            Message::Over(over) => {
                out.u8(11);
                over.encode(out);
            }
            Message::Resign(resign) => {
                out.u8(12);
                resign.encode(out);
            }
            Message::Vote(vote) => {
                out.u8(13);
                vote.encode(out);
            }
            Message::Announces(announces) => {
                out.u8(14);
                out.list(announces);
            }
            Message::Beacon(beacon) => {
                out.u8(15);
                beacon.encode(out);
            }
            Message::Head(head) => {
                out.u8(16);
                head.encode(out);
            }
            Message::Show(show) => {
                out.u8(17);
                show.encode(out);
            }
            Message::Branch(branch) => {
                out.u8(18);
                branch.word.encode(out);
                branch.lineage.encode(out);
            }
        }
    }
}

impl Decode for Message {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            0 => Message::Link(SignedLink::decode(reader)?),
            1 => Message::Announce(SignedAnnounce::decode(reader)?),
            2 => Message::Answer(Box::new(Reply {
                answer: Signed::decode(reader)?,
                lineage: Lineage::decode(reader)?,
            })),
            3 => Message::Welcome(Box::new(Welcome::decode(reader)?)),
            4 => Message::Wrap(Wrap {
                to: ParticipantId::decode(reader)?,
                epoch: counter(reader)?,
                link: reader.array()?,
                offer: reader.option()?,
                sealed: reader.array()?,
            }),
            5 => Message::Heartbeat(Signed::decode(reader)?),
            6 => Message::Pulse(ProvenPulse { pulse: Signed::decode(reader)?, mac: reader.array()? }),
            7 => Message::Ask(Signed::decode(reader)?),
            8 => Message::Links(reader.list(MAX_LINKS, "the links of an answer")?),
            9 => Message::Statement(Signed::decode(reader)?),
            10 => Message::Leave(Signed::decode(reader)?),
            11 => Message::Over(Signed::decode(reader)?),
            12 => Message::Resign(Signed::decode(reader)?),
            13 => Message::Vote(Signed::decode(reader)?),
            14 => Message::Announces(reader.list(MAX_ENTRIES, "the announces for a successor")?),
            15 => Message::Beacon(SignedBeacon::decode(reader)?),
            16 => Message::Head(Signed::decode(reader)?),
            17 => Message::Show(Signed::decode(reader)?),
            18 => Message::Branch(Box::new(Branch {
                word: Signed::decode(reader)?,
                lineage: Lineage::decode(reader)?,
            })),
            _ => return Err(DecodeError::Invalid("the kind of a post")),
        })
    }
}

impl Encode for Offer {
    fn encode(&self, out: &mut Writer) {
        out.u64(self.start);
        out.raw(&self.enc);
        out.raw(&self.signature);
    }
}

impl Decode for Offer {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { start: counter(reader)?, enc: reader.raw(ENC_LEN)?.to_vec(), signature: reader.array()? })
    }
}

//! An announce: somebody's signed wish for a place in a meeting.

use meeting_wire::{Decode, DecodeError, Encode, InstanceId, MeetingId, ParticipantId, Reader, Writer};

use crate::{
    crypto::{
        labels,
        sign::{Hash, StayPublic, hash},
        wrap::{KEM_ID, KEM_PUBLIC_LEN, is_sound},
    },
    frame::CipherSuite,
    identity::{DeviceKey, DevicePublic},
    session::Role,
    weakness::{self, Weakness},
};

/// The version of the protocol between participants.
pub(crate) const VERSION: u16 = 1;
/// The longest display name in bytes.
pub(crate) const MAX_NAME: usize = 64;

/// Everything others will be shown of a participant, and the keys of this stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// The protocol version spoken.
    pub version: u16,
    /// Where to.
    pub meeting: MeetingId,
    /// Which run of it.
    pub instance: InstanceId,
    /// From one of the leader's heartbeats of the last 30 s; none in genesis.
    pub challenge: Option<Hash>,
    /// Address of this stay.
    pub participant: ParticipantId,
    /// Signs this.
    pub device: DevicePublic,
    /// X-Wing public key of this stay.
    pub kem: Vec<u8>,
    /// Ed25519 public key of this stay; signs everything else.
    pub signer: StayPublic,
    /// Display name without control characters.
    pub name: String,
    /// What for.
    pub role: Role,
    /// Bits for what later versions can do; unknown ones mean nothing.
    pub capabilities: u32,
    /// RFC 9605 cipher suites it opens, best first.
    pub suites: Vec<u16>,
    /// The KEM in the HPKE registry.
    pub kem_id: u16,
}

/// An announce and its device's signature, which has been verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedAnnounce {
    announce: Announce,
    signature: [u8; 64],
}

impl SignedAnnounce {
    /// Signs an announce with the device key it names.
    pub(crate) fn new(announce: Announce, device: &DeviceKey) -> Self {
        let signature = device.sign(&[labels::ANNOUNCE, &announce.to_bytes()].concat());
        Self { announce, signature }
    }

    /// The announce, if its device signed it, we speak what it asks for, and its KEM key is one with which only its holder
    /// agrees on anything.
    pub fn verified(&self) -> Option<&Announce> {
        let announce = &self.announce;
        let spoken = announce.version == VERSION
            && announce.kem_id == KEM_ID
            && announce.suites.contains(&CipherSuite::default().into());
        let signed = || {
            announce.device.verifies(&[labels::ANNOUNCE, &announce.to_bytes()].concat(), &self.signature)
                || weakness::is(Weakness::AnnounceUnsigned)
        };
        (spoken && signed() && is_sound(&announce.kem)).then_some(announce)
    }

    /// The announce, whoever may have made it.
    pub(crate) fn unverified(&self) -> &Announce {
        &self.announce
    }

    /// What rosters, pairings and codes know it by. The signature is left out: a second signature over the same
    /// announce is no second announce.
    pub fn hash(&self) -> Hash {
        hash(labels::ANNOUNCE_HASH, &self.announce.to_bytes())
    }
}

/// A name as it may be announced: no control or text direction characters, at most 64 bytes.
pub(crate) fn clean_name(name: &str) -> String {
    let mut clean = String::new();
    for c in name.trim().chars() {
        let c = if presentable(c) { c } else { char::REPLACEMENT_CHARACTER };
        if clean.len() + c.len_utf8() > MAX_NAME {
            break;
        }
        clean.push(c);
    }
    clean
}

fn presentable(c: char) -> bool {
    // Marks that turn the direction of text could make one name look like another.
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

pub(crate) fn decode_name(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    let name = reader.str(MAX_NAME, "a name")?;
    if name.chars().all(presentable) { Ok(name.to_owned()) } else { Err(DecodeError::Invalid("a name")) }
}

impl Encode for Announce {
    fn encode(&self, out: &mut Writer) {
        out.u16(self.version);
        self.meeting.encode(out);
        self.instance.encode(out);
        out.option(self.challenge.as_ref());
        self.participant.encode(out);
        out.raw(&self.device.0);
        out.raw(&self.kem);
        self.signer.encode(out);
        out.str(&self.name);
        self.role.encode(out);
        out.u32(self.capabilities);
        out.list(&self.suites);
        out.u16(self.kem_id);
    }
}

impl Decode for Announce {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            version: reader.u16()?,
            meeting: MeetingId::decode(reader)?,
            instance: InstanceId::decode(reader)?,
            challenge: reader.option()?,
            participant: ParticipantId::decode(reader)?,
            device: DevicePublic(reader.array()?),
            kem: reader.raw(KEM_PUBLIC_LEN)?.to_vec(),
            signer: StayPublic::decode(reader)?,
            name: decode_name(reader)?,
            role: Role::decode(reader)?,
            capabilities: reader.u32()?,
            suites: reader.list(16, "the suites of an announce")?,
            kem_id: reader.u16()?,
        })
    }
}

impl Encode for SignedAnnounce {
    fn encode(&self, out: &mut Writer) {
        self.announce.encode(out);
        out.raw(&self.signature);
    }
}

impl Decode for SignedAnnounce {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { announce: Announce::decode(reader)?, signature: reader.array()? })
    }
}

impl Encode for Role {
    fn encode(&self, out: &mut Writer) {
        out.u8(match self {
            Role::Participant => 0,
            Role::Recorder => 1,
            Role::Gateway => 2,
            Role::Bot => 3,
        });
    }
}

impl Decode for Role {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            0 => Role::Participant,
            1 => Role::Recorder,
            2 => Role::Gateway,
            3 => Role::Bot,
            _ => return Err(DecodeError::Invalid("a role")),
        })
    }
}

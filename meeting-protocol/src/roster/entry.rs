//! One participant's line in the roster.

use std::collections::BTreeSet;

use meeting_wire::{Decode, DecodeError, Encode, ParticipantId, Reader, Writer};

use super::{Header, MAX_ENTRIES, MAX_REMOVED, MAX_SUCCESSORS, Roster};
use crate::{
    announce::{Announce, decode_name},
    crypto::sign::{Hash, StayPublic},
    identity::DevicePublic,
    session::Role,
};

/// What everybody knows of a participant; the announce behind it is named by its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Assigned by the leader, never reused.
    pub index: u16,
    /// Address of the stay.
    pub participant: ParticipantId,
    /// The device.
    pub device: DevicePublic,
    /// The key of the stay.
    pub signer: StayPublic,
    /// Hash of the announce.
    pub announce: Hash,
    /// As announced.
    pub name: String,
    /// As announced.
    pub role: Role,
    /// As announced.
    pub capabilities: u32,
    /// As announced.
    pub suites: Vec<u16>,
    /// Proved to hold the announced keys.
    pub present: bool,
}

impl Entry {
    /// The entry of an announce.
    pub(crate) fn new(index: u16, announce: &Announce, hash: Hash, present: bool) -> Self {
        Self {
            index,
            participant: announce.participant,
            device: announce.device,
            signer: announce.signer,
            announce: hash,
            name: announce.name.clone(),
            role: announce.role,
            capabilities: announce.capabilities,
            suites: announce.suites.clone(),
            present,
        }
    }
}

impl Encode for Entry {
    fn encode(&self, out: &mut Writer) {
        out.u16(self.index);
        self.participant.encode(out);
        out.raw(&self.device.0);
        self.signer.encode(out);
        out.raw(&self.announce);
        out.str(&self.name);
        self.role.encode(out);
        out.u32(self.capabilities);
        out.list(&self.suites);
        out.u8(self.present.into());
    }
}

impl Decode for Entry {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            index: reader.u16()?,
            participant: ParticipantId::decode(reader)?,
            device: DevicePublic(reader.array()?),
            signer: StayPublic::decode(reader)?,
            announce: reader.array()?,
            name: decode_name(reader)?,
            role: Role::decode(reader)?,
            capabilities: reader.u32()?,
            suites: reader.list(16, "the suites of an entry")?,
            present: decode_bool(reader)?,
        })
    }
}

impl Encode for Header {
    fn encode(&self, out: &mut Writer) {
        self.leader.encode(out);
        out.u8(self.locked.into());
        out.u8(self.spent.into());
        out.u32(self.psk_generation);
        out.u8(self.successor_limit);
        out.list(&self.successors);
        let removed: Vec<[u8; 32]> = self.removed.iter().map(|device| device.0).collect();
        out.list(&removed);
        out.u16(self.next_index);
    }
}

impl Decode for Header {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            leader: ParticipantId::decode(reader)?,
            locked: decode_bool(reader)?,
            spent: decode_bool(reader)?,
            psk_generation: reader.u32()?,
            successor_limit: reader.u8()?,
            successors: reader.list(MAX_SUCCESSORS, "the successors")?,
            removed: {
                let list: Vec<[u8; 32]> = reader.list(MAX_REMOVED, "the removed devices")?;
                // One set has one encoding: strictly ascending.
                if !list.is_sorted_by(|a, b| a < b) {
                    return Err(DecodeError::Invalid("the removed devices"));
                }
                list.into_iter().map(DevicePublic).collect::<BTreeSet<_>>()
            },
            next_index: reader.u16()?,
        })
    }
}

impl Encode for Roster {
    fn encode(&self, out: &mut Writer) {
        self.header.encode(out);
        out.u32(self.entries.len() as u32);
        self.entries.values().for_each(|entry| entry.encode(out));
    }
}

impl Decode for Roster {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Header::decode(reader)?;
        let entries: Vec<Entry> = reader.list(MAX_ENTRIES, "the entries of a roster")?;
        let ascending = entries.is_sorted_by(|one, other| one.index < other.index);
        let roster = ascending.then(|| Self::from_parts(header, entries)).flatten();
        roster.ok_or(DecodeError::Invalid("the entries of a roster"))
    }
}

pub(crate) fn decode_bool(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Invalid("a yes or no")),
    }
}

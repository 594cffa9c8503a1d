//! What comes of a meeting key: the commitment that everybody holds it to, and the keys of one sender and one stream
//! (PROTOCOL.md 3.5, 3.7).

use meeting_wire::{Encode, InstanceId, MeetingId};

use super::statement::StreamFacts;
use crate::{
    crypto::{
        kdf::{HkdfSha256, HkdfSha512},
        labels,
        sign::Hash,
    },
    identity::DevicePublic,
    secret::Secret,
};

/// The meeting key of one epoch and the link that opened it.
pub(crate) struct EpochKey {
    pub epoch: u64,
    /// Hash of the epoch link.
    pub link: Hash,
    pub key: Secret<32>,
}

impl EpochKey {
    /// What the epoch link says of the key, so that no two people hold different ones.
    pub fn commitment(key: &Secret<32>, meeting: MeetingId, instance: InstanceId, epoch: u64) -> Hash {
        *HkdfSha256::extract(&[], key.expose())
            .expand::<32>(labels::COMMIT, &[&meeting.0, &instance.0, &epoch.to_be_bytes()])
            .expose()
    }

    /// The key one sender seals statements with in this epoch, and nobody else ever.
    pub(super) fn control(&self, index: u16, announce: &Hash) -> Secret<32> {
        HkdfSha256::extract(&self.link, self.key.expose())
            .expand(labels::CONTROL, &[&index.to_be_bytes(), announce])
            .called("control key")
    }

    /// RFC 9605's `base_key` of a stream in this epoch.
    pub fn stream(&self, device: DevicePublic, facts: &StreamFacts) -> Secret<32> {
        let parts: [&[u8]; 5] = [
            &device.0,
            &facts.kind.to_bytes(),
            facts.track.as_bytes(),
            &facts.instance,
            &u64::from(facts.kid).to_be_bytes(),
        ];
        HkdfSha512::extract(&self.link, self.key.expose()).expand(labels::STREAM, &parts).called("base key")
    }
}

//! What the simulator sees of a session. Never part of what is shipped.

use meeting_wire::ParticipantId;
use sha2::{Digest, Sha256};

use super::{Place, Session, member::Duty};
use crate::{BootTime, crypto::sign::Hash};

/// A container's name, its length, and the limit it declares.
pub(crate) type Size = (&'static str, usize, usize);

/// A meeting key: its epoch, the link that opened it, and the key's SHA-256.
pub(crate) type HeldKey = (u64, Hash, Hash);

impl Session {
    /// The newest link.
    pub(crate) fn head(&self) -> Option<Hash> {
        let Place::Member(member) = &self.place else { return None };
        Some(member.group.head_hash())
    }

    /// Who leads.
    pub(crate) fn leader(&self) -> Option<ParticipantId> {
        let Place::Member(member) = &self.place else { return None };
        Some(member.group.roster.header.leader)
    }

    /// What it was let in by.
    #[cfg(test)]
    pub(crate) fn announced(&self) -> Option<crate::announce::SignedAnnounce> {
        let Place::Member(member) = &self.place else { return None };
        match &member.duty {
            Duty::Lead(lead) => Some(lead.own.clone()),
            Duty::Follow(follow) => follow.own.clone(),
        }
    }

    /// Of the roster.
    pub(crate) fn digest(&self) -> Option<Hash> {
        let Place::Member(member) = &self.place else { return None };
        Some(member.group.roster.digest())
    }

    /// The meeting keys it holds.
    pub(crate) fn held_keys(&self) -> Vec<HeldKey> {
        let Place::Member(member) = &self.place else { return Vec::new() };
        let keys = member.group.epochs.keys();
        keys.map(|key| (key.epoch, key.link, Sha256::digest(key.key.expose()).into())).collect()
    }

    /// Whether it is a membership that lacks the key of this epoch.
    pub(crate) fn is_without(&self, epoch: u64) -> bool {
        match &self.place {
            Place::Member(member) => member.group.epochs.key(epoch).is_none(),
            _ => false,
        }
    }

    /// The newest epoch that anybody entitled spoke of.
    pub(crate) fn newest_epoch(&self) -> u64 {
        match &self.place {
            Place::Member(member) => member.group.epochs.newest_spoken(),
            _ => 0,
        }
    }

    /// Hash of the newest heartbeat it follows, none while it goes by the link that let it in; and when the clock of
    /// its leader was anchored.
    pub(crate) fn heard(&self) -> Option<(Option<Hash>, BootTime)> {
        let Place::Member(member) = &self.place else { return None };
        let Duty::Follow(follow) = &member.duty else { return None };
        Some((follow.last.map(|(_, hash, _)| hash), follow.fresh.anchored_at()?))
    }

    /// Every container that somebody outside can fill.
    pub(crate) fn sizes(&self) -> Vec<Size> {
        match &self.place {
            Place::Joining(join) => join.sizes(),
            Place::Member(member) => {
                let mut sizes = member.group.sizes();
                match &member.duty {
                    Duty::Lead(lead) => sizes.extend(lead.sizes()),
                    Duty::Follow(follow) => sizes.extend(follow.sizes()),
                }
                sizes
            }
            Place::Ended => Vec::new(),
        }
    }
}

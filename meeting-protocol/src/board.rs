//! Posts as the relay sees them: an instance id and bytes it cannot read, forge or tell apart.
//!
//! ```text
//! instance(16) | salt(32) | AES-256-GCM(one key per post, from the invite secret, salt and instance)
//! ```
//!
//! Whoever does not hold the meeting link cannot make a post that opens, so strangers cost one AEAD each.

use bytes::Bytes;
use meeting_wire::{InstanceId, MAX_POST, MeetingId};
use rand_core::CryptoRng;

use crate::{
    crypto::{kdf::HkdfSha256, labels, once},
    secret::Secret,
};

/// Seals and opens the posts of one meeting.
pub(crate) struct Board {
    secret: Secret<32>,
    meeting: MeetingId,
}

const HEAD: usize = 16 + 32;

impl Board {
    /// The board that holders of this invite secret share.
    pub fn new(secret: Secret<32>, meeting: MeetingId) -> Self {
        Self { secret, meeting }
    }

    /// Seals one message.
    pub fn seal(&self, instance: InstanceId, message: &[u8], rng: &mut dyn CryptoRng) -> Bytes {
        let mut body = Vec::with_capacity(HEAD + message.len() + 16);
        body.extend_from_slice(&instance.0);
        let mut salt = [0; 32];
        rng.fill_bytes(&mut salt);
        body.extend_from_slice(&salt);
        let sealed = once::seal(&self.key(&salt, instance), &[], message);
        body.extend_from_slice(&sealed.expect("a post is far below what AES-GCM can seal"));
        body.into()
    }

    /// Opens one post; none if it is not one of this meeting's.
    pub fn open(&self, body: &[u8]) -> Option<(InstanceId, Vec<u8>)> {
        if body.len() > MAX_POST {
            return None;
        }
        let (instance, rest) = body.split_first_chunk::<16>()?;
        let (salt, sealed) = rest.split_first_chunk::<32>()?;
        let instance = InstanceId(*instance);
        Some((instance, once::open(&self.key(salt, instance), &[], sealed).ok()?))
    }

    /// The invite secret, for the wraps.
    pub fn invite(&self) -> &Secret<32> {
        &self.secret
    }

    fn key(&self, salt: &[u8; 32], instance: InstanceId) -> Secret<32> {
        HkdfSha256::extract(salt, self.secret.expose()).expand(labels::BOARD, &[&self.meeting.0, &instance.0])
    }
}

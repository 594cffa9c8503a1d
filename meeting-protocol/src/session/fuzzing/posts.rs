//! The board as a holder of the link has it.

use bytes::Bytes;
use meeting_wire::{Decode, InstanceId};
use rand_core::CryptoRng;

use super::super::message::Message;
use crate::{board::Board, link::MeetingLink};

/// Seals and opens the posts of one meeting.
pub struct Posts(Board);

impl Posts {
    /// Those of this link's meeting.
    pub fn of(link: &MeetingLink) -> Self {
        Self(Board::new(link.secret.duplicate(), link.meeting))
    }

    /// A post that holds these bytes, whether they are a message or not.
    pub fn seal(&self, instance: InstanceId, bytes: &[u8], rng: &mut dyn CryptoRng) -> Bytes {
        self.0.seal(instance, bytes, rng)
    }

    /// What a post holds.
    pub fn open(&self, post: &[u8]) -> Option<(InstanceId, Vec<u8>)> {
        self.0.open(post)
    }

    /// The epoch and the link of the wrap that a post holds.
    pub fn wrap(&self, post: &[u8]) -> Option<(u64, [u8; 32])> {
        let (_, message) = self.open(post)?;
        match Message::from_bytes(&message) {
            Ok(Message::Wrap(wrap)) => Some((wrap.epoch, wrap.link)),
            _ => None,
        }
    }
}

//! Which key a frame names.

use std::fmt;

use meeting_wire::StreamId;

/// The key identifier of a sealed frame (RFC 9605 4.3), in our layout (RFC 9605 5.2 has its like):
///
/// ```text
///  stream (32 bits) | sender index (16 bits) | epoch mod 256 (8 bits)
/// ```
///
/// The stream is never reused in a stay and the index never in an instance, so that a KID names one key within
/// any 256 epochs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(u64);

impl KeyId {
    /// The KID of a participant's stream in an epoch.
    pub const fn new(stream: StreamId, index: u16, epoch: u64) -> Self {
        Self((stream.0 as u64) << 24 | (index as u64) << 8 | epoch & 0xff)
    }

    /// The stream of the sender.
    pub const fn stream(self) -> StreamId {
        StreamId((self.0 >> 24) as u32)
    }

    /// The sender's index in the roster.
    pub const fn index(self) -> u16 {
        (self.0 >> 8) as u16
    }

    /// The epoch, modulo 256.
    pub const fn epoch_byte(self) -> u8 {
        self.0 as u8
    }
}

impl From<u64> for KeyId {
    fn from(kid: u64) -> Self {
        Self(kid)
    }
}

impl From<KeyId> for u64 {
    fn from(kid: KeyId) -> u64 {
        kid.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back() {
        let kid = KeyId::new(StreamId(u32::MAX - 1), 0xabcd, 0x1_23);
        assert_eq!(u64::from(kid), 0x00ff_ffff_feab_cd23);
        assert_eq!((kid.stream(), kid.index(), kid.epoch_byte()), (StreamId(u32::MAX - 1), 0xabcd, 0x23));
        assert_eq!(KeyId::from(u64::from(kid)), kid);
    }
}

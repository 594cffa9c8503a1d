//! Sealing: one stream's key and its counter.

use std::{collections::VecDeque, fmt};

use secret_memory::Mark;

use crate::{
    crypto::aead::{Aead, AeadKey, TAG_LEN},
    frame::{CipherSuite, FrameKey, Header, KeyId},
    secret::Secret,
    weakness::{self, Weakness},
};

/// What a [`Sealer`] needs to seal one stream in one epoch. It is there once: not `Clone`, and the sealer consumes it.
#[derive(Debug)]
pub struct SealKey {
    kid: KeyId,
    suite: CipherSuite,
    base_key: Secret<32>,
}

impl SealKey {
    /// Made of a base key that no other was ever made of.
    pub fn new(kid: KeyId, suite: CipherSuite, base_key: Secret<32>) -> Self {
        Self { kid, suite, base_key }
    }

    /// The KID its frames will carry.
    pub fn kid(&self) -> KeyId {
        self.kid
    }
}

/// Why a frame was not sealed. None is the fault of the frame: stop, and see to the key or the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The counter or the key has reached its limit for good: open the stream anew, with a new stream id.
    #[error("the stream has sealed all it may: open it anew")]
    Exhausted,
    /// This sealer has used a key of that KID already.
    #[error("a key of this id was used before")]
    KeyUsed,
    /// This process is a fork of the one that opened the stream, which goes on counting: open a stream of its own.
    #[error("this process is a fork: open the stream anew in it")]
    Forked,
    /// The output is shorter than the frame and [`Sealer::OVERHEAD`].
    #[error("the output buffer is too small")]
    OutputTooSmall,
}

/// Seals the frames of one stream, each under the next counter.
///
/// The counter starts at 0, goes on over every [`switch`](Self::switch), is never stored and never reset; a counter
/// is spent before its frame is sealed, so that not even a failure can bring it back.
///
/// Whoever seals has it alone, so no two threads can count alike:
///
/// ```
/// # use meeting_protocol::frame::{SealError, Sealer};
/// fn seal(sealer: &mut Sealer) -> Result<Vec<u8>, SealError> { sealer.seal(b"frame") }
/// ```
///
/// A shared one does not seal, and there is no second one of it:
///
/// ```compile_fail,E0596
/// # use meeting_protocol::frame::{SealError, Sealer};
/// fn seal(sealer: &Sealer) -> Result<Vec<u8>, SealError> { sealer.seal(b"frame") }
/// ```
/// ```compile_fail,E0599
/// # use meeting_protocol::frame::Sealer;
/// fn again(sealer: Sealer) -> (Sealer, Sealer) { (sealer.clone(), sealer) }
/// ```
pub struct Sealer<A = AeadKey> {
    key: FrameKey<A>,
    kid: KeyId,
    /// The next counter.
    ctr: u64,
    /// AES blocks that the current key may still seal.
    blocks_left: u64,
    used: VecDeque<KeyId>,
    /// Where it counts: two processes would count alike.
    process: Mark,
}

impl Sealer {
    /// The most that a sealed frame is longer than the frame.
    pub const OVERHEAD: usize = Header::MAX_LEN + TAG_LEN;

    /// Starts a stream with its first key.
    pub fn new(key: SealKey) -> Self {
        Self::with_backend(key)
    }

    /// Starts at another counter, to see what happens near the end.
    #[cfg(any(test, feature = "testing"))]
    pub fn starting_at(key: SealKey, ctr: u64) -> Self {
        Self { ctr, ..Self::new(key) }
    }
}

impl<A: Aead> Sealer<A> {
    /// As [`Sealer::new`], over a back end of choice.
    pub fn with_backend(key: SealKey) -> Self {
        let SealKey { kid, suite, base_key } = key;
        Self {
            key: FrameKey::new(suite, kid, base_key.expose()),
            kid,
            ctr: 0,
            blocks_left: MAX_BLOCKS,
            used: VecDeque::from([kid]),
            process: Mark::here(),
        }
    }

    /// Goes over to the key of the next epoch; the counter goes on.
    ///
    /// # Errors
    ///
    /// [`SealError::KeyUsed`] if one of the last 128 keys had this KID; the sealer stays as it is. (An older
    /// one's KID may come back with a key of its own, since it has the epoch modulo 256.)
    pub fn switch(&mut self, key: SealKey) -> Result<(), SealError> {
        let SealKey { kid, suite, base_key } = key;
        if self.used.contains(&kid) {
            return Err(SealError::KeyUsed);
        }
        if self.used.len() == REMEMBERED {
            self.used.pop_front();
        }
        self.used.push_back(kid);
        self.key = FrameKey::new(suite, kid, base_key.expose());
        self.kid = kid;
        self.blocks_left = MAX_BLOCKS;
        Ok(())
    }

    /// Seals `frame` into the start of `out` and gives the sealed length. `out` must hold the frame and
    /// [`Sealer::OVERHEAD`]; what it holds behind the sealed frame is unspecified.
    ///
    /// # Errors
    ///
    /// [`SealError::Exhausted`], for good, after 2^32 frames or what one AES-GCM key may seal, see [`MAX_CTR`];
    /// [`SealError::Forked`] in a fork; [`SealError::OutputTooSmall`] where `out` is too short, which spends no counter.
    #[inline]
    pub fn seal_into(&mut self, frame: &[u8], out: &mut [u8]) -> Result<usize, SealError> {
        if out.len() < Sealer::OVERHEAD || out.len() - Sealer::OVERHEAD < frame.len() {
            return Err(SealError::OutputTooSmall);
        }
        let header = Header { kid: self.kid.into(), ctr: self.spend(frame.len())? };

        let header_len = header.emit(out.first_chunk_mut().ok_or(SealError::OutputTooSmall)?);
        let (aad, rest) = out.split_at_mut(header_len);
        let (ciphertext, rest) = rest.split_at_mut(frame.len());
        let tag = rest.first_chunk_mut().ok_or(SealError::OutputTooSmall)?;

        let nonce = self.key.nonce(header.ctr);
        #[cfg(feature = "nonce-ledger")]
        crate::ledger::record(&self.key.ledger, &nonce);
        self.key.aead.seal(&nonce, aad, frame, ciphertext, tag).map_err(|_| SealError::Exhausted)?;
        Ok(header_len + frame.len() + TAG_LEN)
    }

    /// As [`seal_into`](Self::seal_into), into a new buffer.
    ///
    /// # Errors
    ///
    /// As for [`seal_into`](Self::seal_into), but for [`SealError::OutputTooSmall`].
    pub fn seal(&mut self, frame: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut sealed = vec![0; frame.len() + Sealer::OVERHEAD];
        let len = self.seal_into(frame, &mut sealed)?;
        sealed.truncate(len);
        Ok(sealed)
    }

    /// The KID that the next frame will carry.
    pub fn kid(&self) -> KeyId {
        self.kid
    }

    /// The counter that the next frame will carry.
    pub fn ctr(&self) -> u64 {
        self.ctr
    }

    /// Takes the next counter for a frame of this length.
    #[inline]
    fn spend(&mut self, frame_len: usize) -> Result<u64, SealError> {
        // One block more for the tag's mask.
        let blocks = frame_len as u64 / 16 + 2;
        if !self.process.holds() {
            return Err(SealError::Forked);
        }
        if self.ctr >= MAX_CTR || blocks > self.blocks_left {
            return Err(SealError::Exhausted);
        }
        let ctr = self.ctr;
        self.ctr += 1;
        if weakness::is(Weakness::CounterRestarts) {
            self.ctr %= 50;
        }
        self.blocks_left -= blocks;
        Ok(ctr)
    }
}

impl<A> fmt::Debug for Sealer<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("kid", &self.kid).field("ctr", &self.ctr).finish_non_exhaustive()
    }
}

/// The first counter that is never sealed. At 1,000 frames a second it is 49 days away.
pub const MAX_CTR: u64 = 1 << 32;
/// AES blocks under one key, about 256 GiB: an adversary's advantage then stays near 2^-60.
const MAX_BLOCKS: u64 = 1 << 34;
/// Keys whose KID is refused a second time: half the epochs that KIDs tell apart.
const REMEMBERED: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn seal_key(kid: u64) -> SealKey {
        SealKey::new(
            KeyId::from(kid),
            CipherSuite::default(),
            Secret::init_with(|key| key[..8].copy_from_slice(&kid.to_be_bytes())),
        )
    }

    #[test]
    fn a_key_stops_at_its_data_limit_and_the_next_goes_on() {
        let mut sealer = Sealer::new(seal_key(0x5ea1_0001));
        sealer.blocks_left = 7;
        assert!(sealer.seal(&[0; 80]).is_ok());
        assert_eq!(sealer.seal(&[]), Err(SealError::Exhausted));
        assert_eq!(sealer.ctr(), 1);
        sealer.switch(seal_key(0x5ea1_0002)).expect("another key");
        assert!(sealer.seal(&[]).is_ok());
        assert_eq!(sealer.ctr(), 2);
    }

    #[test]
    fn the_memory_of_used_keys_is_bounded() {
        let mut sealer = Sealer::new(seal_key(0x5ea1_1000));
        for kid in 1..1000 {
            sealer.switch(seal_key(0x5ea1_1000 + kid)).expect("a new kid");
        }
        assert_eq!(sealer.used.len(), REMEMBERED);
        assert_eq!(sealer.switch(seal_key(0x5ea1_1000 + 999 - 127)), Err(SealError::KeyUsed));
        assert_eq!(sealer.kid(), KeyId::from(0x5ea1_1000 + 999));
    }
}

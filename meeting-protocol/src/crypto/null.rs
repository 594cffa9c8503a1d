//! No cryptography, so that a fuzzer gets past tags and signatures: every tag is right, and everybody signed everything.
//!
//! The feature `null-crypto` asks for it, and only a compiler that was told `--cfg fuzzing` gives it.

#[cfg(not(fuzzing))]
compile_error!("the feature `null-crypto` takes all protection away: it is for `cargo fuzz` alone");

use super::aead::{Aead, NONCE_LEN, Refused, TAG_LEN};

/// A key that hides nothing.
pub struct AeadKey;

impl Aead for AeadKey {
    fn aes_128_gcm(_: &[u8; 16]) -> Self {
        Self
    }

    fn aes_256_gcm(_: &[u8; 32]) -> Self {
        Self
    }

    fn seal(
        &self,
        _: &[u8; NONCE_LEN],
        _: &[u8],
        plaintext: &[u8],
        ciphertext: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), Refused> {
        ciphertext.copy_from_slice(plaintext);
        tag.fill(0);
        Ok(())
    }

    fn open(
        &self,
        _: &[u8; NONCE_LEN],
        _: &[u8],
        ciphertext: &[u8],
        _: &[u8; TAG_LEN],
        plaintext: &mut [u8],
    ) -> Result<(), Refused> {
        plaintext.copy_from_slice(ciphertext);
        Ok(())
    }

    fn seal_in_place_detached(
        &self,
        _: &[u8; NONCE_LEN],
        _: &[u8],
        _: &mut [u8],
    ) -> Result<[u8; TAG_LEN], Refused> {
        Ok([0; TAG_LEN])
    }

    fn open_in_place(
        &self,
        _: &[u8; NONCE_LEN],
        _: &[u8],
        _: &mut [u8],
        _: &[u8; TAG_LEN],
    ) -> Result<(), Refused> {
        Ok(())
    }
}

/// Whether the key made this signature: yes.
pub(crate) fn verifies(_: &[u8; 32], _: &[u8], _: &[u8; 64]) -> bool {
    true
}

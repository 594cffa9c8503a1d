//! AES-GCM with 128-bit tags, behind one trait and two back ends.
//!
//! A key object lives as long as the key: the AES key schedule and the GHASH tables are computed once, not per
//! frame. Both back ends wipe them on drop.
//!
//! | module | cargo feature | library |
//! |---|---|---|
//! | [`aws_lc`] | `aws-lc` (default) | AWS-LC through `aws-lc-rs` |
//! | [`pure_rust`] | `pure-rust` | `aes-gcm` with its `zeroize` feature |
//!
//! [`AeadKey`] is the one in use, `aws_lc` where both are built; `tests/vectors.rs` runs both.
//!
//! Whoever seals is responsible for the nonce: never twice under one key. Frames get theirs from
//! [`Sealer`](crate::frame::Sealer), which takes none from outside.

#[cfg(not(any(feature = "aws-lc", feature = "pure-rust")))]
compile_error!("an AEAD back end is needed: enable the feature `aws-lc` or `pure-rust`");

/// Length of a nonce in bytes (SP 800-38D 5.2.1.1 recommends 96 bits, RFC 9605 4.5 fixes it).
pub const NONCE_LEN: usize = 12;
/// Length of a tag in bytes (RFC 9605 table 1, suites 4 and 5).
pub const TAG_LEN: usize = 16;

/// The AEAD refused: when opening, a byte is not the sealer's; when sealing, the input is over 64 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the AEAD refused the input")]
pub struct Refused;

/// An AES-GCM key that is ready to use.
pub trait Aead: Sized + Send + Sync {
    /// AES-128-GCM.
    fn aes_128_gcm(key: &[u8; 16]) -> Self;

    /// AES-256-GCM.
    fn aes_256_gcm(key: &[u8; 32]) -> Self;

    /// Seals `plaintext` into `ciphertext`, which has the same length, and `tag`.
    fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        plaintext: &[u8],
        ciphertext: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), Refused>;

    /// Opens `ciphertext` into `plaintext`, which has the same length. Where it fails, `plaintext` holds zeros.
    fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_LEN],
        plaintext: &mut [u8],
    ) -> Result<(), Refused>;

    /// Seals `buffer` where it is and returns the tag.
    fn seal_in_place_detached(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        buffer: &mut [u8],
    ) -> Result<[u8; TAG_LEN], Refused>;

    /// Opens `buffer` where it is. Where it fails, `buffer` holds zeros.
    fn open_in_place(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Refused>;
}

/// The AEAD key of the back end in use.
#[cfg(all(feature = "aws-lc", not(feature = "null-crypto")))]
pub type AeadKey = aws_lc::AeadKey;
/// The AEAD key of the back end in use.
#[cfg(not(any(feature = "aws-lc", feature = "null-crypto")))]
pub type AeadKey = pure_rust::AeadKey;
#[cfg(feature = "null-crypto")]
pub use super::null::AeadKey;

/// AES-GCM by AWS-LC.
#[cfg(feature = "aws-lc")]
pub mod aws_lc {
    use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};

    use super::{Aead, NONCE_LEN, Refused, TAG_LEN};

    /// A key with its schedule, wiped on drop by AWS-LC.
    pub struct AeadKey(LessSafeKey);

    fn key(algorithm: &'static Algorithm, bytes: &[u8]) -> AeadKey {
        AeadKey(LessSafeKey::new(UnboundKey::new(algorithm, bytes).expect("a key of the right length")))
    }

    impl Aead for AeadKey {
        fn aes_128_gcm(bytes: &[u8; 16]) -> Self {
            key(&AES_128_GCM, bytes)
        }

        fn aes_256_gcm(bytes: &[u8; 32]) -> Self {
            key(&AES_256_GCM, bytes)
        }

        #[inline]
        fn seal(
            &self,
            nonce: &[u8; NONCE_LEN],
            aad: &[u8],
            plaintext: &[u8],
            ciphertext: &mut [u8],
            tag: &mut [u8; TAG_LEN],
        ) -> Result<(), Refused> {
            let nonce = Nonce::assume_unique_for_key(*nonce);
            self.0
                .seal_out_of_place_scatter(nonce, Aad::from(aad), plaintext, ciphertext, &[], tag)
                .map_err(|_| Refused)
        }

        #[inline]
        fn open(
            &self,
            nonce: &[u8; NONCE_LEN],
            aad: &[u8],
            ciphertext: &[u8],
            tag: &[u8; TAG_LEN],
            plaintext: &mut [u8],
        ) -> Result<(), Refused> {
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let opened = self.0.open_separate_gather(nonce, Aad::from(aad), ciphertext, tag, plaintext);
            // AWS-LC decrypts while it authenticates, so what it wrote goes before anyone can look.
            opened.map_err(|_| {
                plaintext.fill(0);
                Refused
            })
        }

        fn seal_in_place_detached(
            &self,
            nonce: &[u8; NONCE_LEN],
            aad: &[u8],
            buffer: &mut [u8],
        ) -> Result<[u8; TAG_LEN], Refused> {
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let mut out = [0; TAG_LEN];
            let tag =
                self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), buffer).map_err(|_| Refused)?;
            out.copy_from_slice(tag.as_ref());
            Ok(out)
        }

        fn open_in_place(
            &self,
            nonce: &[u8; NONCE_LEN],
            aad: &[u8],
            buffer: &mut [u8],
            tag: &[u8; TAG_LEN],
        ) -> Result<(), Refused> {
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let opened = self.0.open_in_place_separate_tag(nonce, Aad::from(aad), tag, buffer).map(|_| ());
            opened.map_err(|_| {
                buffer.fill(0);
                Refused
            })
        }
    }
}

/// AES-GCM in Rust alone.
#[cfg(feature = "pure-rust")]
pub mod pure_rust {
    use aes_gcm::{
        Aes128Gcm, Aes256Gcm, KeyInit,
        aead::{AeadInOut, inout::InOutBuf},
    };

    use super::{Aead, NONCE_LEN, Refused, TAG_LEN};

    /// A key with its schedule, wiped on drop by `aes-gcm`.
    pub struct AeadKey(Box<Key>);

    enum Key {
        Aes128(Aes128Gcm),
        Aes256(Aes256Gcm),
    }

    impl AeadKey {
        fn seal_buffer(
            &self,
            nonce: &[u8; NONCE_LEN],
            aad: &[u8],
            buffer: InOutBuf<'_, '_, u8>,
        ) -> Result<[u8; TAG_LEN], Refused> {
            match &*self.0 {
                Key::Aes128(key) => key.encrypt_inout_detached(nonce.into(), aad, buffer),
                Key::Aes256(key) => key.encrypt_inout_detached(nonce.into(), aad, buffer),
            }
            .map(Into::into)
            .map_err(|_| Refused)
        }

        fn open_buffer(
            &self,
            nonce: &[u8; NONCE_LEN],
            aad: &[u8],
            buffer: InOutBuf<'_, '_, u8>,
            tag: &[u8; TAG_LEN],
        ) -> Result<(), Refused> {
            match &*self.0 {
                Key::Aes128(key) => key.decrypt_inout_detached(nonce.into(), aad, buffer, tag.into()),
                Key::Aes256(key) => key.decrypt_inout_detached(nonce.into(), aad, buffer, tag.into()),
            }
            .map_err(|_| Refused)
        }
    }

    impl Aead for AeadKey {
        fn aes_128_gcm(key: &[u8; 16]) -> Self {
            Self(Box::new(Key::Aes128(Aes128Gcm::new(key.into()))))
        }

        fn aes_256_gcm(key: &[u8; 32]) -> Self {
            Self(Box::new(Key::Aes256(Aes256Gcm::new(key.into()))))
        }

        fn seal(
            &self,
            nonce: &[u8; NONCE_LEN],
            aad: &[u8],
            plaintext: &[u8],
            ciphertext: &mut [u8],
            tag: &mut [u8; TAG_LEN],
        ) -> Result<(), Refused> {
            let buffer = InOutBuf::new(plaintext, ciphertext).map_err(|_| Refused)?;
            *tag = self.seal_buffer(nonce, aad, buffer)?;
            Ok(())
        }

        fn open(
            &self,
            nonce: &[u8; NONCE_LEN],
            aad: &[u8],
            ciphertext: &[u8],
            tag: &[u8; TAG_LEN],
            plaintext: &mut [u8],
        ) -> Result<(), Refused> {
            let opened = InOutBuf::new(ciphertext, plaintext)
                .map_err(|_| Refused)
                .and_then(|buffer| self.open_buffer(nonce, aad, buffer, tag));
            opened.inspect_err(|_| plaintext.fill(0))
        }

        fn seal_in_place_detached(
            &self,
            nonce: &[u8; NONCE_LEN],
            aad: &[u8],
            buffer: &mut [u8],
        ) -> Result<[u8; TAG_LEN], Refused> {
            self.seal_buffer(nonce, aad, buffer.into())
        }

        fn open_in_place(
            &self,
            nonce: &[u8; NONCE_LEN],
            aad: &[u8],
            buffer: &mut [u8],
            tag: &[u8; TAG_LEN],
        ) -> Result<(), Refused> {
            self.open_buffer(nonce, aad, buffer.into(), tag).inspect_err(|_| buffer.fill(0))
        }
    }
}

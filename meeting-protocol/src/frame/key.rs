//! From a base key to the AEAD key and salt of one KID (RFC 9605 4.4.2).

use crate::{
    crypto::{
        aead::{Aead, AeadKey, NONCE_LEN},
        kdf::{HkdfSha256, HkdfSha512},
        wiped::on_a_wiped_stack,
    },
    frame::KeyId,
    secret::Secret,
};

/// The RFC 9605 cipher suites on offer: those with a full-length tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CipherSuite {
    /// `AES_128_GCM_SHA256_128`.
    Aes128GcmSha256_128 = 4,
    /// `AES_256_GCM_SHA512_128`.
    #[default]
    Aes256GcmSha512_128 = 5,
}

/// A cipher suite that is not on offer here, by its RFC 9605 number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cipher suite {0} is not supported")]
pub struct UnknownSuite(pub u16);

impl From<CipherSuite> for u16 {
    fn from(suite: CipherSuite) -> u16 {
        suite as u16
    }
}

impl TryFrom<u16> for CipherSuite {
    type Error = UnknownSuite;

    fn try_from(number: u16) -> Result<Self, UnknownSuite> {
        match number {
            4 => Ok(Self::Aes128GcmSha256_128),
            5 => Ok(Self::Aes256GcmSha512_128),
            other => Err(UnknownSuite(other)),
        }
    }
}

/// What one KID seals and opens with. It hands out nonces to [`Sealer`](super::Sealer) and
/// [`Opener`](super::Opener) alone, except in tests.
pub struct FrameKey<A = AeadKey> {
    pub(super) aead: A,
    salt: Secret<NONCE_LEN>,
    #[cfg(feature = "nonce-ledger")]
    pub(super) ledger: crate::ledger::KeyHash,
}

impl<A: Aead> FrameKey<A> {
    pub(super) fn new(suite: CipherSuite, kid: KeyId, base_key: &[u8]) -> Self {
        let key_label = label(b"SFrame 1.0 Secret key ", kid, suite);
        let salt_label = label(b"SFrame 1.0 Secret salt ", kid, suite);
        on_a_wiped_stack(|| match suite {
            CipherSuite::Aes128GcmSha256_128 => {
                let secret = HkdfSha256::extract(&[], base_key);
                let key = secret.expand_raw(&key_label);
                Self::with(A::aes_128_gcm(key.expose()), key.expose(), secret.expand_raw(&salt_label))
            }
            CipherSuite::Aes256GcmSha512_128 => {
                let secret = HkdfSha512::extract(&[], base_key);
                let key = secret.expand_raw(&key_label);
                Self::with(A::aes_256_gcm(key.expose()), key.expose(), secret.expand_raw(&salt_label))
            }
        })
    }

    fn with(aead: A, _key: &[u8], salt: Secret<NONCE_LEN>) -> Self {
        Self {
            aead,
            salt,
            #[cfg(feature = "nonce-ledger")]
            ledger: crate::ledger::KeyHash::of(_key),
        }
    }

    /// The nonce of a frame: the salt with the counter over its last 8 bytes (RFC 9605 4.4.3).
    #[inline]
    pub(super) fn nonce(&self, ctr: u64) -> [u8; NONCE_LEN] {
        let mut nonce = *self.salt.expose();
        for (byte, counter) in nonce[4..].iter_mut().zip(ctr.to_be_bytes()) {
            *byte ^= counter;
        }
        nonce
    }
}

/// For known answers: what is derived from a base key of any length.
#[cfg(any(test, feature = "testing"))]
impl<A: Aead> FrameKey<A> {
    /// Derives as RFC 9605 4.4.2 says.
    pub fn derive(suite: CipherSuite, kid: KeyId, base_key: &[u8]) -> Self {
        Self::new(suite, kid, base_key)
    }

    /// The AEAD key.
    pub fn aead(&self) -> &A {
        &self.aead
    }

    /// The nonce of a counter.
    pub fn nonce_of(&self, ctr: u64) -> [u8; NONCE_LEN] {
        self.nonce(ctr)
    }
}

/// The RFC's labels end in KID and suite; without them, two KIDs of one base key would share their AEAD key.
fn label(text: &[u8], kid: KeyId, suite: CipherSuite) -> Vec<u8> {
    [text, &u64::from(kid).to_be_bytes(), &u16::from(suite).to_be_bytes()].concat()
}

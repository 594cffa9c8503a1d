//! Ed25519 (RFC 8032) signatures by the key of one stay, each over a label and the encoding of one structure.

#[cfg(not(feature = "null-crypto"))]
use ed25519_dalek::{Signature, VerifyingKey};
use ed25519_dalek::{Signer, SigningKey};
use meeting_wire::{Decode, DecodeError, Encode, Reader, Writer};
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};

use crate::{crypto::wiped::on_a_wiped_stack, secret::Secret};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// A key pair. The private half is made of its seed for each signature anew, so that it lies in ordinary memory no longer
/// than that takes.
pub(crate) struct KeyPair {
    seed: Secret<32>,
    public: [u8; 32],
}

impl KeyPair {
    /// The key pair of a seed.
    pub fn new(seed: Secret<32>) -> Self {
        let public = on_a_wiped_stack(|| SigningKey::from_bytes(seed.expose()).verifying_key().to_bytes());
        Self { seed, public }
    }

    /// The public half.
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// Signs.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        on_a_wiped_stack(|| SigningKey::from_bytes(self.seed.expose()).sign(message).to_bytes())
    }
}

/// The signing key of one stay, announced under the device key.
pub(crate) struct StayKey(KeyPair);

/// Its public half, as announces and rosters carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StayPublic(pub [u8; 32]);

impl StayKey {
    /// Draws a key.
    pub fn random(rng: &mut dyn CryptoRng) -> Self {
        Self(KeyPair::new(Secret::random(rng).called("stay key")))
    }

    /// The public half.
    pub fn public(&self) -> StayPublic {
        StayPublic(self.0.public())
    }

    /// Signs `label || bytes`.
    pub fn sign(&self, label: &[u8], bytes: &[u8]) -> [u8; 64] {
        self.0.sign(&[label, bytes].concat())
    }
}

impl StayPublic {
    /// Whether this key signed `label || bytes`; weak keys and malleable signatures never did.
    pub fn verifies(&self, label: &[u8], bytes: &[u8], signature: &[u8; 64]) -> bool {
        verifies(&self.0, &[label, bytes].concat(), signature)
    }
}

/// Whether this key signed `message`; weak keys and malleable signatures never did.
#[cfg(not(feature = "null-crypto"))]
pub(crate) fn verifies(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    let holds = || {
        VerifyingKey::from_bytes(key)
            .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
    };
    #[cfg(feature = "simulator")]
    let holds = || super::memo::checked_once((key, message, signature), holds);
    holds()
}
#[cfg(feature = "null-crypto")]
pub(crate) use super::null::verifies;

/// SHA-256 over `label || bytes`.
pub(crate) fn hash(label: &[u8], bytes: &[u8]) -> Hash {
    Sha256::new().chain_update(label).chain_update(bytes).finalize().into()
}

/// A structure that is signed under a label of its own.
pub trait SignedBody: Encode + Decode {
    /// From [`labels`](super::labels).
    const LABEL: &'static [u8];
}

/// A structure and its signature. Whose it is has to be asked with [`Signed::is_by`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed<T> {
    /// What is signed.
    pub body: T,
    signature: [u8; 64],
}

impl<T: SignedBody> Signed<T> {
    /// Signs.
    pub(crate) fn new(body: T, key: &StayKey) -> Self {
        let signature = key.sign(T::LABEL, &body.to_bytes());
        Self { body, signature }
    }

    /// Whether this key signed it.
    pub fn is_by(&self, key: &StayPublic) -> bool {
        key.verifies(T::LABEL, &self.body.to_bytes(), &self.signature)
    }
}

impl<T: Encode> Encode for Signed<T> {
    fn encode(&self, out: &mut Writer) {
        self.body.encode(out);
        out.raw(&self.signature);
    }
}

impl<T: Decode> Decode for Signed<T> {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { body: T::decode(reader)?, signature: reader.array()? })
    }
}

impl Encode for StayPublic {
    fn encode(&self, out: &mut Writer) {
        out.raw(&self.0);
    }
}

impl Decode for StayPublic {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;
    use crate::crypto::labels;

    #[test]
    fn a_signature_under_one_label_is_none_under_another() {
        let key = StayKey::random(&mut ChaCha20Rng::from_seed([1; 32]));
        for signed in labels::ALL {
            let signature = key.sign(signed, b"bytes");
            for read in labels::ALL {
                assert_eq!(key.public().verifies(read, b"bytes", &signature), signed == read);
            }
        }
    }
}

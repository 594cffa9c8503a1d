//! How the meeting key reaches one participant: HPKE (RFC 9180) once per leader and participant, then a hash chain.
//!
//! ```text
//!  HPKE export --> proof key
//!       `--------> k_s --HKDF--> k_(s+1) --HKDF--> ...        one step per epoch, s the epoch of the pairing
//!                   |              |
//!              wrap key_s     wrap key_(s+1)                  HKDF(k_e; epoch link): seals one message
//! ```
//!
//! The suite is X-Wing (X25519 and ML-KEM-768), HKDF-SHA256, AES-256-GCM in PSK mode; HPKE seals nothing itself.

use curve25519_dalek::{montgomery::MontgomeryPoint, traits::IsIdentity};
use hmac::{Hmac, KeyInit, Mac};
use hpke::{
    Deserializable, Kem, OpModeR, OpModeS, PskBundle, Serializable, aead::AesGcm256,
    kdf::HkdfSha256 as HpkeHkdf, kem::XWing, setup_receiver, setup_sender_with_rng,
};
use meeting_wire::{InstanceId, MeetingId};
use rand_core::CryptoRng;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroize;

use crate::{
    crypto::{
        kdf::{HkdfSha256, info},
        labels, once,
        sign::Hash,
        wiped::on_a_wiped_stack,
    },
    secret::Secret,
};

/// Bytes of a KEM public key.
pub(crate) const KEM_PUBLIC_LEN: usize = 1216;
/// Bytes of an encapsulated key.
pub(crate) const ENC_LEN: usize = 1120;
/// Bytes of a sealed meeting key.
pub(crate) const SEALED_LEN: usize = 32 + 16;
/// The X-Wing identifier in the HPKE registry, announced so that its post-quantum half cannot be stripped.
pub(crate) const KEM_ID: u16 = XWing::KEM_ID;
/// How far one wrap may be ahead of the last one opened.
const MAX_STEPS: u64 = 4096;

/// Why no key came out of a wrap.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum WrapError {
    /// Not for us, or not by who it claims.
    #[error("the wrap does not open")]
    Forged,
    /// For an epoch before the last one opened.
    #[error("the wrap is of an epoch that is past")]
    Past,
    /// Too far ahead.
    #[error("the wrap is too many epochs ahead")]
    TooFar,
}

/// The private half of an announced KEM key pair, as the seed it is derived from.
pub(crate) struct KemSecret(Secret<32>);

impl KemSecret {
    /// Draws a key pair; the public half is [`KEM_PUBLIC_LEN`] bytes.
    pub fn random(rng: &mut dyn CryptoRng) -> (Self, Vec<u8>) {
        let seed = Secret::random(rng).called("KEM key");
        let (_, public) = XWing::derive_keypair(seed.expose());
        (Self(seed), public.to_bytes().to_vec())
    }
}

/// Whether X25519 with the point that ends this X-Wing public key or encapsulated key depends on a secret. X-Wing takes
/// any point, also those of low order, which leave ML-KEM alone with the work of both.
pub(crate) fn contributes(x_wing: &[u8]) -> bool {
    // Such an order divides the cofactor: eight times the point is the neutral element, on the twist too.
    let eight = [true, false, false, false];
    x_wing
        .last_chunk()
        .is_some_and(|point| !MontgomeryPoint(*point).mul_bits_be(eight.into_iter()).is_identity())
}

/// Whether this is a public key, and a pairing with it depends on its holder's secret.
pub(crate) fn is_sound(kem_public: &[u8]) -> bool {
    <XWing as Kem>::PublicKey::from_bytes(kem_public).is_ok() && contributes(kem_public)
}

/// What both ends of a pairing agree on.
pub(crate) struct PairingContext {
    pub meeting: MeetingId,
    pub instance: InstanceId,
    pub leader_announce: Hash,
    pub announce: Hash,
    /// The epoch of the first wrap.
    pub start: u64,
    /// Which invite secret: 0 for that of the first link.
    pub psk_generation: u32,
}

impl PairingContext {
    fn info(&self) -> Vec<u8> {
        info(
            labels::HPKE_INFO,
            &[
                &self.meeting.0,
                &self.instance.0,
                &self.leader_announce,
                &self.announce,
                &self.start.to_be_bytes(),
            ],
        )
    }

    fn psk_id(&self) -> Vec<u8> {
        info(labels::HPKE_PSK, &[&self.meeting.0, &self.psk_generation.to_be_bytes()])
    }

    /// What the leader signs together with the label of a pairing.
    pub fn signed_bytes(&self, enc: &[u8]) -> Vec<u8> {
        let mut bytes = self.info();
        bytes.extend(info("", &[enc]));
        bytes
    }
}

/// The shared secrets of a leader and one participant.
pub(crate) struct Pairing {
    chain: Secret<32>,
    /// The epoch `chain` belongs to.
    epoch: u64,
    proof: Secret<32>,
}

impl Pairing {
    /// The leader's side: a pairing and what the participant needs to make the same.
    pub fn offer(
        kem_public: &[u8],
        psk: &Secret<32>,
        context: &PairingContext,
        mut rng: &mut dyn CryptoRng,
    ) -> Result<(Vec<u8>, Self), WrapError> {
        if !contributes(kem_public) {
            return Err(WrapError::Forged);
        }
        let public = <XWing as Kem>::PublicKey::from_bytes(kem_public).map_err(|_| WrapError::Forged)?;
        let psk_id = context.psk_id();
        let bundle = PskBundle::new(psk.expose(), &psk_id).map_err(|_| WrapError::Forged)?;
        let (enc, hpke) = setup_sender_with_rng::<AesGcm256, HpkeHkdf, XWing>(
            &OpModeS::Psk(bundle),
            &public,
            &context.info(),
            &mut rng,
        )
        .map_err(|_| WrapError::Forged)?;
        let pairing = Self::export(context.start, |label, out| hpke.export(label, out))?;
        Ok((enc.to_bytes().to_vec(), pairing))
    }

    /// The participant's side.
    pub fn accept(
        secret: &KemSecret,
        enc: &[u8],
        psk: &Secret<32>,
        context: &PairingContext,
    ) -> Result<Self, WrapError> {
        if !contributes(enc) {
            return Err(WrapError::Forged);
        }
        let (private, _) = XWing::derive_keypair(secret.0.expose());
        let enc = <XWing as Kem>::EncappedKey::from_bytes(enc).map_err(|_| WrapError::Forged)?;
        let psk_id = context.psk_id();
        let bundle = PskBundle::new(psk.expose(), &psk_id).map_err(|_| WrapError::Forged)?;
        let hpke = setup_receiver::<AesGcm256, HpkeHkdf, XWing>(
            &OpModeR::Psk(bundle),
            &private,
            &enc,
            &context.info(),
        )
        .map_err(|_| WrapError::Forged)?;
        Self::export(context.start, |label, out| hpke.export(label, out))
    }

    fn export(
        epoch: u64,
        export: impl Fn(&[u8], &mut [u8]) -> Result<(), hpke::HpkeError>,
    ) -> Result<Self, WrapError> {
        let secret = |label: &str| {
            let mut result = Ok(());
            let secret = Secret::init_with(|out: &mut [u8; 32]| result = export(label.as_bytes(), out));
            result.map(|()| secret).map_err(|_| WrapError::Forged)
        };
        let chain = secret(labels::CHAIN)?.called("chain key");
        let proof = secret(labels::PROOF)?.called("proof key");
        Ok(Self { chain, epoch, proof })
    }

    /// The leader's side: seals the meeting key of an epoch and forgets the chain key it used.
    pub fn wrap(&mut self, epoch: u64, link: &Hash, key: &Secret<32>) -> Result<[u8; SEALED_LEN], WrapError> {
        let chain = self.chain_at(epoch)?;
        let sealed = once::seal(&wrap_key(&chain, link), &[], key.expose()).map_err(|_| WrapError::Forged)?;
        self.advance(chain, epoch);
        sealed.try_into().map_err(|_| WrapError::Forged)
    }

    /// The participant's side: opens the meeting key of an epoch; on success earlier ones no longer open.
    pub fn unwrap(
        &mut self,
        epoch: u64,
        link: &Hash,
        sealed: &[u8; SEALED_LEN],
    ) -> Result<Secret<32>, WrapError> {
        let chain = self.chain_at(epoch)?;
        let mut opened = once::open(&wrap_key(&chain, link), &[], sealed).map_err(|_| WrapError::Forged)?;
        let key = Secret::init_with(|key: &mut [u8; 32]| key.copy_from_slice(&opened[..32]));
        opened.zeroize();
        self.advance(chain, epoch);
        Ok(key)
    }

    /// A MAC under the proof key: whoever made it opened the pairing.
    pub fn prove(&self, bytes: &[u8]) -> [u8; 32] {
        on_a_wiped_stack(|| {
            let mut mac =
                Hmac::<Sha256>::new_from_slice(self.proof.expose()).expect("HMAC takes keys of any length");
            mac.update(labels::PULSE);
            mac.update(bytes);
            mac.finalize().into_bytes().into()
        })
    }

    /// Whether the other end made this MAC.
    pub fn proves(&self, bytes: &[u8], mac: &[u8; 32]) -> bool {
        self.prove(bytes).ct_eq(mac).into()
    }

    /// An end of a pairing whose chain key is known.
    #[cfg(feature = "testing")]
    pub fn known(chain: Secret<32>, epoch: u64) -> Self {
        Self { proof: next(&chain), chain, epoch }
    }

    /// A second key for an epoch, as only a leader with a modified program has one.
    #[cfg(feature = "testing")]
    pub fn again(&self, epoch: u64, link: &Hash, key: &Secret<32>) -> Result<[u8; SEALED_LEN], WrapError> {
        let sealed = once::seal(&wrap_key(&self.chain_at(epoch)?, link), &[], key.expose());
        sealed.map_err(|_| WrapError::Forged)?.try_into().map_err(|_| WrapError::Forged)
    }

    fn chain_at(&self, epoch: u64) -> Result<Secret<32>, WrapError> {
        let steps = epoch.checked_sub(self.epoch).ok_or(WrapError::Past)?;
        if steps > MAX_STEPS {
            return Err(WrapError::TooFar);
        }
        Ok((0..steps).fold(self.chain.duplicate(), |chain, _| next(&chain)))
    }

    fn advance(&mut self, chain: Secret<32>, epoch: u64) {
        self.chain = next(&chain);
        self.epoch = epoch + 1;
    }
}

fn next(chain: &Secret<32>) -> Secret<32> {
    HkdfSha256::from_prk(chain.duplicate()).expand(labels::CHAIN_NEXT, &[]).called("chain key")
}

fn wrap_key(chain: &Secret<32>, link: &Hash) -> Secret<32> {
    HkdfSha256::from_prk(chain.duplicate()).expand(labels::WRAP, &[link]).called("wrap key")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;

    fn context() -> PairingContext {
        PairingContext {
            meeting: MeetingId([1; 16]),
            instance: InstanceId([2; 16]),
            leader_announce: [3; 32],
            announce: [4; 32],
            start: 7,
            psk_generation: 0,
        }
    }

    fn key(byte: u8) -> Secret<32> {
        Secret::init_with(|key| *key = [byte; 32])
    }

    #[test]
    fn both_ends_agree_only_on_equal_contexts() {
        let rng = &mut ChaCha20Rng::from_seed([9; 32]);
        let (secret, public) = KemSecret::random(rng);
        assert_eq!(public.len(), KEM_PUBLIC_LEN);
        let (enc, mut leader) = Pairing::offer(&public, &key(5), &context(), rng).unwrap();
        assert_eq!(enc.len(), ENC_LEN);
        let sealed = leader.wrap(7, &[8; 32], &key(6)).unwrap();

        let mut same = Pairing::accept(&secret, &enc, &key(5), &context()).unwrap();
        assert!(same.unwrap(7, &[8; 32], &sealed).unwrap().ct_eq(&[6; 32]));
        assert!(leader.proves(b"pulse", &same.prove(b"pulse")));
        assert!(!leader.proves(b"pulsf", &same.prove(b"pulse")));

        type Alter = fn(&mut PairingContext);
        let alterations: [Alter; 6] = [
            |context| context.meeting.0[0] ^= 1,
            |context| context.instance.0[0] ^= 1,
            |context| context.leader_announce[0] ^= 1,
            |context| context.announce[0] ^= 1,
            |context| context.start -= 1,
            |context| context.psk_generation += 1,
        ];
        for alter in alterations {
            let mut other = context();
            alter(&mut other);
            let mut pairing = Pairing::accept(&secret, &enc, &key(5), &other).unwrap();
            assert_eq!(pairing.unwrap(7, &[8; 32], &sealed).unwrap_err(), WrapError::Forged);
        }
        let mut wrong_invite = Pairing::accept(&secret, &enc, &key(4), &context()).unwrap();
        assert_eq!(wrong_invite.unwrap(7, &[8; 32], &sealed).unwrap_err(), WrapError::Forged);
    }

    #[test]
    fn a_wrap_binds_its_link_and_skipped_epochs_desynchronise_nothing() {
        let rng = &mut ChaCha20Rng::from_seed([9; 32]);
        let (secret, public) = KemSecret::random(rng);
        let (enc, mut leader) = Pairing::offer(&public, &key(5), &context(), rng).unwrap();
        let mut follower = Pairing::accept(&secret, &enc, &key(5), &context()).unwrap();
        for epoch in 7..20 {
            let _lost = leader.wrap(epoch, &[1; 32], &key(1)).unwrap();
        }
        let sealed = leader.wrap(20, &[8; 32], &key(6)).unwrap();
        assert_eq!(follower.unwrap(20, &[9; 32], &sealed).unwrap_err(), WrapError::Forged);
        assert!(follower.unwrap(20, &[8; 32], &sealed).is_ok());
        assert_eq!(follower.unwrap(20, &[8; 32], &sealed).unwrap_err(), WrapError::Past);
        assert_eq!(follower.unwrap(21 + 4097, &[8; 32], &sealed).unwrap_err(), WrapError::TooFar);
    }
}

//! What a relay needs to end connections of its former life: after a restart it knows none of them, and a
//! stateless reset (RFC 9000, 10.3) tells their agents at once instead of after [`limits::IDLE`](crate::limits::IDLE).
//!
//! The key is derived from the certificate's private key, so it lasts as long and needs no file of its own. A
//! reset is all it can cause.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};
use rustls::crypto::aws_lc_rs::{self, cipher_suite::TLS13_AES_128_GCM_SHA256};
use rustls::crypto::tls13::{Hkdf, OkmBlock};

/// Endpoint settings that make the same resets after a restart; `private_key` is the certificate's (DER).
pub fn endpoint(private_key: &[u8]) -> EndpointConfig {
    let Some(key) = ResetKey::of(private_key) else { return EndpointConfig::default() };
    let mut config = EndpointConfig::new(Arc::new(key));
    // quinn's own ids are marked with a key of the process, and those of a former one are not answered.
    config.cid_generator(|| Box::new(RandomIds));
    config
}

/// HMAC-SHA-256 as quinn wants it.
struct ResetKey {
    hkdf: &'static dyn Hkdf,
    key: OkmBlock,
}

/// Connection ids that tell nothing.
struct RandomIds;

impl ResetKey {
    fn of(private_key: &[u8]) -> Option<Self> {
        let hkdf = TLS13_AES_128_GCM_SHA256.tls13()?.hkdf_provider;
        let key = hkdf.extract_from_secret(Some(SALT), private_key).expand_block(&[b"reset"]);
        Some(Self { hkdf, key })
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(self.hkdf.hmac_sign(&self.key, data).as_ref());
    }

    fn signature_len(&self) -> usize {
        SHA256_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let right = self.hkdf.hmac_sign(&self.key, data);
        let right = right.as_ref();
        let differences = right.iter().zip(signature).fold(0, |differences, (a, b)| differences | (a ^ b));
        if right.len() == signature.len() && differences == 0 { Ok(()) } else { Err(CryptoError) }
    }
}

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_LEN];
        // Without randomness there is no TLS either; an id that is taken, quinn replaces.
        let _ = aws_lc_rs::default_provider().secure_random.fill(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

const SALT: &[u8] = b"e2ee-meeting relay";
const SHA256_LEN: usize = 32;
/// Of a connection id, in bytes; it is in every packet.
const ID_LEN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(secret: &[u8]) -> ResetKey {
        ResetKey::of(secret).expect("a TLS 1.3 suite")
    }

    #[test]
    fn signatures_are_the_same_after_a_restart_and_no_others_hold() {
        let (mut one, mut two, mut other) = ([0; SHA256_LEN], [0; SHA256_LEN], [0; SHA256_LEN]);
        key(b"private key").sign(b"connection", &mut one);
        key(b"private key").sign(b"connection", &mut two);
        key(b"another key").sign(b"connection", &mut other);
        assert!(one == two && one != other);
        assert!(key(b"private key").verify(b"connection", &one).is_ok());
        assert!(key(b"private key").verify(b"connection", &other).is_err());
        assert!(key(b"private key").verify(b"connection", &one[..31]).is_err());
    }

    #[test]
    fn connection_ids_do_not_repeat() {
        assert_ne!(RandomIds.generate_cid(), RandomIds.generate_cid());
    }
}

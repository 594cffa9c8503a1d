//! Published vectors for what keys travel by: Ed25519 as strictly as we verify it, and X-Wing as HPKE has it.
//! (`tests/vectors.rs` has HKDF.)

#![allow(clippy::unwrap_used)]

use hpke::{Deserializable, Kem, Serializable, kem::XWing};
use meeting_protocol::crypto::sign::StayPublic;
use rand_core::{TryCryptoRng, TryRng};
use serde::Deserialize;

#[derive(Deserialize)]
struct File {
    #[serde(rename = "testGroups")]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(rename = "publicKey")]
    key: Key,
    tests: Vec<Test>,
}

#[derive(Deserialize)]
struct Key {
    #[serde(with = "hex::serde")]
    pk: Vec<u8>,
}

#[derive(Deserialize)]
struct Test {
    #[serde(rename = "tcId")]
    id: u32,
    #[serde(with = "hex::serde")]
    msg: Vec<u8>,
    #[serde(with = "hex::serde")]
    sig: Vec<u8>,
    result: String,
}

#[test]
fn ed25519() {
    let file: File = serde_json::from_str(include_str!("vectors/ed25519_test.json")).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for group in file.groups {
        let key = StayPublic(group.key.pk.try_into().unwrap());
        for test in group.tests {
            // A signature of another length does not even decode.
            let verified = <[u8; 64]>::try_from(test.sig).is_ok_and(|sig| key.verifies(b"", &test.msg, &sig));
            assert_eq!(verified, test.result == "valid", "test {}", test.id);
            *if verified { &mut valid } else { &mut invalid } += 1;
        }
    }
    assert_eq!((valid, invalid), (88, 63));
}

#[test]
fn weak_keys_sign_nothing() {
    // The neutral element and a point of order 2: with S = 0 and R = A they verify everything where it is allowed.
    let neutral = {
        let mut point = [0; 32];
        point[0] = 1;
        point
    };
    let order_2 = {
        let mut point = [0xff; 32];
        point[0] = 0xec;
        point[31] = 0x7f;
        point
    };
    for point in [neutral, order_2, [0; 32]] {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&neutral);
        for message in [b"a", b"b", b"c", b"d"] {
            assert!(!StayPublic(point).verifies(b"", message, &signature));
        }
    }
}

#[derive(Deserialize)]
struct XWingVector {
    #[serde(with = "hex::serde")]
    eseed: Vec<u8>,
    #[serde(with = "hex::serde")]
    ss: Vec<u8>,
    #[serde(with = "hex::serde")]
    sk: Vec<u8>,
    #[serde(with = "hex::serde")]
    pk: Vec<u8>,
    #[serde(with = "hex::serde")]
    ct: Vec<u8>,
}

/// Gives the bytes of a vector.
struct Given(Vec<u8>);

impl TryRng for Given {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        unimplemented!("the KEM asks for bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        unimplemented!("the KEM asks for bytes")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        out.copy_from_slice(&self.0.drain(..out.len()).collect::<Vec<_>>());
        Ok(())
    }
}

impl TryCryptoRng for Given {}

#[test]
fn x_wing() {
    let vectors: Vec<XWingVector> =
        serde_json::from_str(include_str!("vectors/xwing-draft-connolly.json")).unwrap();
    assert_eq!(vectors.len(), 3);
    for vector in vectors {
        let private = <XWing as Kem>::PrivateKey::from_bytes(&vector.sk).unwrap();
        let public = XWing::sk_to_pk(&private);
        assert_eq!(public.to_bytes().to_vec(), vector.pk);
        let (shared, encapsulated) = XWing::encap_with_rng(&public, None, &mut Given(vector.eseed)).unwrap();
        assert_eq!(
            (encapsulated.to_bytes().to_vec(), shared.0.to_vec()),
            (vector.ct.clone(), vector.ss.clone())
        );
        let given = <XWing as Kem>::EncappedKey::from_bytes(&vector.ct).unwrap();
        assert_eq!(XWing::decap(&private, None, &given).unwrap().0.to_vec(), vector.ss);
    }
}

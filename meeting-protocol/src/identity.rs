//! A device's long-term identity: one Ed25519 key pair (RFC 8032), made at first start. It signs announces
//! and nothing else (PROTOCOL.md 3.2).

use std::fmt;

use meeting_wire::Hex;
use sha2::{Digest, Sha256};

use crate::{
    crypto::{
        labels,
        sign::{self, KeyPair},
    },
    secret::Secret,
};

/// The private half, kept by the agent.
pub struct DeviceKey(KeyPair);

/// The public half, as it stands in announces and rosters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DevicePublic(pub [u8; 32]);

/// SHA-256 over label and public key: what a meeting link names its creator by, and what people compare.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

impl DeviceKey {
    /// The key pair of a stored or freshly drawn seed.
    pub fn from_seed(seed: &Secret<32>) -> Self {
        Self(KeyPair::new(seed.duplicate()))
    }

    /// The public half.
    pub fn public(&self) -> DevicePublic {
        DevicePublic(self.0.public())
    }

    /// Signs an announce's bytes, which carry their own label.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message)
    }
}

impl DevicePublic {
    /// What people and links call this key.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(Sha256::new().chain_update(labels::FINGERPRINT).chain_update(self.0).finalize().into())
    }

    /// Whether this key signed `message`; weak keys and malleable signatures never did.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        sign::verifies(&self.0, message, signature)
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceKey({})", self.public().fingerprint())
    }
}

impl fmt::Display for Fingerprint {
    /// The first 16 hex digits, in groups of four: for recognising, not for comparing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups: Vec<String> = self.0[..8].chunks(2).map(|pair| Hex(pair).to_string()).collect();
        f.write_str(&groups.join(" "))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({})", Hex(&self.0))
    }
}

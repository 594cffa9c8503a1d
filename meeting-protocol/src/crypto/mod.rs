//! The primitives, each a standard; `tests/vectors.rs` has the published vectors of the symmetric ones.
//!
//! - [`aead`]: AES-GCM (NIST SP 800-38D), the media cipher, over two back ends; `once` seals single messages with it
//! - [`kdf`]: HKDF (RFC 5869) with SHA-512 and SHA-256
//! - [`sign`]: Ed25519 (RFC 8032) over a label and one structure
//! - `wrap`: the meeting key to one participant, by HPKE (RFC 9180) with X-Wing and a hash chain
//! - `labels`: what keeps bytes that were made for one purpose from serving another

pub mod aead;
pub mod kdf;
pub(crate) mod labels;
#[cfg(feature = "simulator")]
pub(crate) mod memo;
#[cfg(feature = "null-crypto")]
mod null;
pub(crate) mod once;
pub mod sign;
pub(crate) mod wiped;
pub(crate) mod wrap;

//! The symmetric primitives, each a standard with its published vectors in `tests/vectors.rs`.
//!
//! - [`aead`]: AES-GCM (NIST SP 800-38D), the media cipher, over two back ends
//! - [`kdf`]: HKDF (RFC 5869) with SHA-512 and SHA-256

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

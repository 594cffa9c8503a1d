//! Every label of the protocol. A label opens each signed or hashed byte string and names each derived key, so
//! that bytes made for one purpose never serve another.
//!
//! Signature and hash labels end in a zero byte and contain none before it: no label followed by data can be read as another
//! label followed by other data.

/// SHA-256 over a device public key.
pub const FINGERPRINT: &[u8] = b"e2ee-meeting v1 fingerprint\0";

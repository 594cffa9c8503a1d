//! AES-256-GCM with keys that seal one message each, or count their messages.

use crate::{
    crypto::{
        aead::{Aead, AeadKey, Refused, TAG_LEN},
        wiped::on_a_wiped_stack,
    },
    secret::Secret,
};

/// Seals the only message this key will ever seal, so the nonce may be zero.
pub(crate) fn seal(key: &Secret<32>, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, Refused> {
    seal_counted(key, 0, aad, plaintext)
}

/// Opens what [`seal`] sealed.
pub(crate) fn open(key: &Secret<32>, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Refused> {
    open_counted(key, 0, aad, sealed)
}

/// Seals message number `counter` of a key; the caller never repeats a number.
pub(crate) fn seal_counted(
    key: &Secret<32>,
    counter: u64,
    aad: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>, Refused> {
    let nonce = nonce(counter);
    #[cfg(feature = "nonce-ledger")]
    crate::ledger::record(&on_a_wiped_stack(|| crate::ledger::KeyHash::of(key.expose())), &nonce);
    let mut sealed = Vec::with_capacity(plaintext.len() + TAG_LEN);
    sealed.extend_from_slice(plaintext);
    let tag = ready(key).seal_in_place_detached(&nonce, aad, &mut sealed)?;
    sealed.extend_from_slice(&tag);
    Ok(sealed)
}

/// Opens what [`seal_counted`] sealed under this number.
pub(crate) fn open_counted(
    key: &Secret<32>,
    counter: u64,
    aad: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, Refused> {
    let (ciphertext, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(Refused)?;
    let mut plaintext = ciphertext.to_vec();
    ready(key).open_in_place(&nonce(counter), aad, &mut plaintext, tag)?;
    Ok(plaintext)
}

fn ready(key: &Secret<32>) -> AeadKey {
    on_a_wiped_stack(|| AeadKey::aes_256_gcm(key.expose()))
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

//! SFrame: headers, made-up frames, and sealed ones that are changed, repeated and reordered on their way.

use std::collections::BTreeSet;

use meeting_protocol::{
    frame::{CipherSuite, Header, KeyId, OpenKey, Opener, SealKey, Sealer},
    secret::Secret,
};
use meeting_wire::StreamId;

use crate::{CRYPTO, cursor::Cursor, fresh};

pub fn run(bytes: &[u8]) {
    header(bytes);
    let whole = bytes;
    let mut bytes = Cursor(bytes);
    let mut opener = Opener::new();
    let mut sealers = [(1, 5), (2, 4)].map(|(stream, suite)| {
        let (seal, open) = key(stream, suite, bytes.u8(), whole);
        opener.insert(open);
        (Sealer::new(seal), BTreeSet::new())
    });
    let mut sealed: Vec<(usize, u64, Vec<u8>, Vec<u8>)> = Vec::new();
    for _ in 0..64 {
        if bytes.is_empty() {
            return;
        }
        match bytes.u8() % 4 {
            0 => {
                let who = bytes.below(sealers.len());
                let (ctr, frame) = (sealers[who].0.ctr(), bytes.short().to_vec());
                let bytes = sealers[who].0.seal(&frame).expect("a short frame");
                sealed.push((who, ctr, frame, bytes));
            }
            1 if !sealed.is_empty() => {
                let (who, ctr, frame, bytes) = &sealed[bytes.below(sealed.len())];
                if let Ok(opened) = opener.open(bytes) {
                    assert_eq!(opened, *frame);
                    assert!(sealers[*who].1.insert(*ctr) || !CRYPTO, "a frame opens once");
                }
            }
            2 if !sealed.is_empty() => {
                let (.., original) = &sealed[bytes.below(sealed.len())];
                let mut changed = original.clone();
                bytes.mutate(&mut changed);
                if sealed.iter().all(|(.., known)| *known != changed) {
                    assert!(opener.open(&changed).is_err() || !CRYPTO, "a changed frame opens");
                }
            }
            _ => {
                let made_up = bytes.short();
                if sealed.iter().all(|(.., known)| known != made_up) {
                    assert!(opener.open(made_up).is_err() || !CRYPTO, "a made-up frame opens");
                }
            }
        }
    }
}

fn header(bytes: &[u8]) {
    let Some((header, len)) = Header::parse(bytes) else { return };
    let mut out = [0; Header::MAX_LEN];
    assert_eq!(header.emit(&mut out), len);
    assert_eq!(out[..len], bytes[..len], "one form for each header");
}

fn key(stream: u32, suite: u16, byte: u8, whole: &[u8]) -> (SealKey, OpenKey) {
    let kid = KeyId::new(StreamId(stream), 1, byte.into());
    let suite = CipherSuite::try_from(suite).expect("4 and 5 are there");
    let base_key = fresh::key_of(whole);
    let open = OpenKey { kid, suite, base_key: Secret::init_with(|key| *key = base_key), floor: 0 };
    (SealKey::new(kid, suite, Secret::init_with(|key| *key = base_key)), open)
}

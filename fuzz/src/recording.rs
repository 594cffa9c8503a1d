//! Sealed recordings and key files, as they lie on a disk that is somebody else's.

use gste2ee::recording::{
    format::MAGIC,
    index::Index,
    walk::{Step, Walk},
};
use meeting_protocol::keyfile::{Ending, KeyFile};

pub fn run(bytes: &[u8]) {
    recording(bytes);
    // A header may ask for a gigabyte, within its limits: only those that ask for little are opened.
    if bytes.get(5..17) == Some(&CHEAP) {
        key_file(bytes);
    }
}

fn recording(bytes: &[u8]) {
    let Ok(indexed) = Index::of(bytes, bytes.len() as u64) else { return };
    assert!(indexed.index.duration() < 1 << 63);
    let mut walk = Walk::new(bytes, MAGIC.len() as u64);
    let mut last = 0;
    while let Ok(Some((offset, step))) = walk.step() {
        assert!(offset > last && walk.offset() > offset, "it goes on");
        assert!(walk.offset() <= bytes.len() as u64, "what was stepped over is there");
        last = offset;
        if let Step::Frame(head) = step
            && let Ok(frame) = walk.envelope()
        {
            assert_eq!(head.time, frame.pts.or(frame.dts), "the head says what the frame says");
        }
    }
}

fn key_file(bytes: &[u8]) {
    let Ok(KeyFile { ending: Ending::Whole, .. }) = KeyFile::open(bytes, b"correct horse") else { return };
    let shorter = KeyFile::open(&bytes[..bytes.len() - 1], b"correct horse");
    assert!(shorter.is_ok_and(|shorter| shorter.ending != Ending::Whole), "a cut key file is whole");
}

/// 8 KiB, one pass, one lane.
const CHEAP: [u8; 12] = [0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 1];

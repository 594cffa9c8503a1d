//! Sealed frames in RTP packets: lost, repeated, out of order, and others made up between them.

use std::collections::BTreeSet;

use gste2ee::rtp::{
    assembler::{Assembler, Of, Packet},
    descriptor::Descriptor,
};

use crate::cursor::Cursor;

pub fn run(bytes: &[u8]) {
    let mut bytes = Cursor(bytes);
    let mut assembler = Assembler::default();
    let mut frames = BTreeSet::new();
    let mut packets: Vec<(u16, Of, Vec<u8>)> = Vec::new();
    let (mut seq, mut arrived) = (65_530u16, 0);
    for _ in 0..256 {
        if bytes.is_empty() {
            return;
        }
        let (seq, of, payload) = match bytes.u8() % 4 {
            0 => {
                let (frame, room) = (bytes.short().to_vec(), usize::from(bytes.u8() % 32) + 1);
                let of = Of { ssrc: HONEST, timestamp: u32::from(seq), payload_type: 96 };
                for (n, fragment) in frame.chunks(room).enumerate() {
                    let end = (n + 1) * room >= frame.len();
                    let descriptor = Descriptor { start: n == 0, end, packetized: false };
                    packets.push((seq, of, [&[descriptor.byte()], fragment].concat()));
                    seq = seq.wrapping_add(1);
                }
                frames.insert(frame);
                continue;
            }
            1 if arrived < packets.len() => {
                arrived += 1;
                packets[arrived - 1].clone()
            }
            2 if !packets.is_empty() => packets[bytes.below(packets.len())].clone(),
            _ => {
                let of = Of { ssrc: HONEST + 1, timestamp: bytes.u8().into(), payload_type: 96 };
                (bytes.u16(), of, bytes.short().to_vec())
            }
        };
        let taken = assembler.take(Packet { seq, of, payload: &payload });
        if let Some(frame) = taken.frame.filter(|_| of.ssrc == HONEST) {
            assert!(frames.contains(&*frame), "a frame comes out that was not sent");
        }
    }
}

const HONEST: u32 = 1;

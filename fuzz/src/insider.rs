//! An evil member, or leader, with a key of its own and the relay's help: says again what was said with other fields, or
//! something made up, signs it anew and has it handed to whom it likes.

use meeting_protocol::session::{Command, Successors};
use meeting_wire::{Post, Slot};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use crate::{CRYPTO, cursor::Cursor, fresh, invariants::Trio};

pub fn run(bytes: &[u8]) {
    let mut bytes = Cursor(bytes);
    let mut trio = Trio::new(Successors::Nobody);
    let mut rng = ChaCha20Rng::from_seed(fresh::key());
    let evil = bytes.below(3);
    let honest: Vec<usize> = (0..3).filter(|node| *node != evil).collect();
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        match bytes.u8() % 8 {
            0 => trio.run(bytes.scaled(16)),
            1 => trio.run(u64::from(bytes.u8()) * 100),
            2 => {
                let _ = trio.meeting.command(0, Command::Rotate);
            }
            kind => {
                let Some(message) = message(&trio, evil, kind, &mut bytes) else { continue };
                let Some(body) = trio.meeting.nodes[evil].session.forge(&message, &mut rng) else { continue };
                say(&mut trio, evil, body, &mut bytes);
            }
        }
        if CRYPTO {
            trio.committed(&honest);
        }
        if CRYPTO && evil != 0 {
            trio.check(&honest);
            trio.nobody_accused(&honest);
        } else {
            honest.iter().for_each(|node| trio.bounded(*node));
        }
    }
}

/// Something overheard with changes, or made up.
fn message(trio: &Trio, evil: usize, kind: u8, bytes: &mut Cursor<'_>) -> Option<Vec<u8>> {
    if kind == 3 {
        let len = bytes.u16().into();
        return Some(bytes.take(len).to_vec());
    }
    let end = trio.meeting.recorded.len();
    let post = &trio.meeting.recorded[end.checked_sub(1 + bytes.below(128))?];
    let mut message = trio.meeting.nodes[evil].session.overhear(&post.body)?;
    bytes.mutate(&mut message);
    Some(message)
}

/// To one or both, over the board or beside the media.
fn say(trio: &mut Trio, evil: usize, body: bytes::Bytes, bytes: &mut Cursor<'_>) {
    let from = trio.meeting.nodes[bytes.below(trio.meeting.nodes.len())].session.me();
    let how = bytes.u8();
    for to in (0..3).filter(|node| *node != evil && how & 1 << node == 0) {
        if how & 8 != 0 {
            trio.meeting.hand_beacon(to, from, body.clone());
        } else {
            trio.hand(to, Post { seq: 0, from, slot: Slot::Log, body: body.clone() });
        }
    }
}

const STEPS: usize = 32;

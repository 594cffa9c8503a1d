//! Wraps: arbitrary ones, altered ones, and such as a leader that keeps no rules seals truly, with other contents.

mod follower;

use meeting_protocol::session::fuzzing::Ends;

use crate::{CRYPTO, cursor::Cursor, fresh};

pub fn run(bytes: &[u8]) {
    match bytes.split_first() {
        Some((0, rest)) => chains(rest),
        Some((_, rest)) => follower::run(rest),
        None => {}
    }
}

/// A wrap that was sealed truly.
#[derive(Clone, Copy)]
struct Made {
    to: usize,
    epoch: u64,
    link: [u8; 32],
    sealed: [u8; 48],
    key: [u8; 32],
}

/// The chains of two participants: a wrap opens for its receiver, epoch and link alone, and chains only go forward.
fn chains(bytes: &[u8]) {
    let whole = fresh::key_of(bytes);
    let mut bytes = Cursor(bytes);
    let starts = [bytes.scaled(16), bytes.scaled(16)];
    let mut ends = [0, 1].map(|to| {
        let mut chain = whole;
        chain[31] = to;
        Ends::new(chain, starts[usize::from(to)])
    });
    // The next epoch that a leader's end seals, and that a participant's opens.
    let (mut seals, mut opens) = (starts, starts);
    let mut made: Vec<Made> = Vec::new();
    for _ in 0..STEPS {
        if bytes.is_empty() {
            return;
        }
        let to = bytes.below(2);
        let wrap = match bytes.u8() % 4 {
            0 => {
                let epoch = (seals[to] + bytes.scaled(13)).saturating_sub(bytes.scaled(2));
                let (link, key) = ([bytes.u8(); 32], [bytes.u8(); 32]);
                let sealed = ends[to].wrap(epoch, &link, &key);
                assert_eq!(sealed.is_some(), reaches(seals[to], epoch), "epoch {epoch} from {}", seals[to]);
                if let Some(sealed) = sealed {
                    seals[to] = epoch + 1;
                    made.push(Made { to, epoch, link, sealed, key });
                }
                continue;
            }
            1 if !made.is_empty() => made[bytes.below(made.len())],
            2 if !made.is_empty() => altered(made[bytes.below(made.len())], &mut bytes),
            _ => {
                let (epoch, link) = (opens[to] + bytes.scaled(13), [bytes.u8(); 32]);
                let mut sealed = [bytes.u8(); 48];
                let some = bytes.take(48);
                sealed[..some.len()].copy_from_slice(some);
                Made { to, epoch, link, sealed, key: [0; 32] }
            }
        };
        let Made { to, epoch, link, sealed, .. } = wrap;
        let opened = ends[to].unwrap(epoch, &link, &sealed);
        let of =
            |known: &&Made| (known.to, known.epoch, known.link, known.sealed) == (to, epoch, link, sealed);
        let reached = reaches(opens[to], epoch);
        let known = made.iter().find(of).filter(|_| reached);
        if CRYPTO {
            assert_eq!(opened, known.map(|known| known.key), "what opens is what was sealed for it");
        } else {
            assert_eq!(opened.is_some(), reached);
        }
        if opened.is_some() {
            opens[to] = epoch + 1;
        }
    }
}

/// For somebody else, of another epoch or link, or with another byte in it.
fn altered(mut wrap: Made, bytes: &mut Cursor<'_>) -> Made {
    let how = bytes.u8();
    if how & 1 != 0 {
        wrap.to = 1 - wrap.to;
    }
    if how & 2 != 0 {
        wrap.epoch = (wrap.epoch + bytes.scaled(3)).saturating_sub(bytes.scaled(3));
    }
    if how & 4 != 0 {
        wrap.link[bytes.below(32)] ^= bytes.u8();
    }
    if how & 8 != 0 {
        wrap.sealed[bytes.below(48)] ^= bytes.u8();
    }
    wrap
}

/// Whether a chain that is at `next` goes to this epoch.
fn reaches(next: u64, epoch: u64) -> bool {
    epoch.checked_sub(next).is_some_and(|steps| steps <= 4_096)
}

const STEPS: usize = 48;

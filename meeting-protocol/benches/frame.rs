//! Seal and open one frame: ours, header, counter and replay check included, beside the bare AEADs and another
//! RFC 9605 implementation.
//!
//! `cargo bench -p meeting-protocol` prints one table. The figures are nanoseconds of CPU time per frame: the
//! median over rounds in which all contestants take turns, so that a slow moment of the machine hits them alike.
//! What counts is the ratio to bare `aws-lc-rs` in the same run.

#![allow(missing_docs)]

use std::hint::black_box;

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{AeadInOut, inout::InOutBuf},
};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use meeting_protocol::{
    frame::{CipherSuite, KeyId, OpenKey, Opener, SealKey, Sealer},
    secret::Secret,
};
use meeting_wire::StreamId;
use rustix::time::{ClockId, clock_gettime};

const SIZES: [usize; 4] = [80, 1_200, 8 * 1024, 64 * 1024];
const ROUNDS: usize = 61;
/// CPU time of one contestant in one round, in nanoseconds.
const SLICE: f64 = 1_500_000.0;
/// Sealed frames to open in one turn: an opener takes each but once.
const RING: usize = 64;

fn main() {
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    // This build of the library keeps books of nonces; they are not what is measured here.
    meeting_protocol::ledger::close();

    println!(
        "AES-256-GCM, ns of CPU time per frame (times bare aws-lc-rs), medians of {ROUNDS} interleaved rounds"
    );
    println!(
        "{:>5} {:>7}  {:>16} {:>16} {:>16} {:>16}",
        "", "bytes", "ours", "aws-lc-rs", "aes-gcm", "sframe/ring"
    );
    for size in SIZES {
        row("seal", size, seal_contestants(size));
        row("open", size, open_contestants(size));
    }
}

/// Prepares for so many frames, puts its output so far into a page, then gives the CPU time that they took.
type Contestant = Box<dyn FnMut(usize, usize) -> f64>;

fn row(what: &str, size: usize, mut contestants: [Contestant; 4]) {
    // About how many frames make a slice, after some to warm up.
    let turns = contestants.each_mut().map(|run| {
        run(RING, 0);
        let once = run(RING, 0) / RING as f64;
        ((SLICE / once / RING as f64) as usize).max(1) * RING
    });
    let mut times = [const { Vec::new() }; 4];
    for round in 0..ROUNDS {
        for n in 0..contestants.len() {
            // Each follows each other, none is timed while it warms up after the last, and where a buffer lies
            // against key and stack (loads and stores 4 KiB apart collide) is nobody's luck.
            let n = (n * (1 + round % 2 * 2) + round) % contestants.len();
            let shift = round * 7 % 64 * 64;
            contestants[n](turns[n] / 8 / RING * RING, shift);
            times[n].push(contestants[n](turns[n], shift) / turns[n] as f64);
        }
    }
    let median = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    });
    let cells = median.map(|ns| format!("{ns:.0} ({:.2})", ns / median[1]));
    println!("{what:>5} {size:>7}  {:>16} {:>16} {:>16} {:>16}", cells[0], cells[1], cells[2], cells[3]);
    let figure = |peer: usize, name: &str, aim: f64| {
        println!(
            "figure: {what} a frame of {size} B | {:.0} ns | {name} | {:.0} ns | {:.2} | at most {aim} | CPU time per frame",
            median[0],
            median[peer],
            median[0] / median[peer]
        );
    };
    figure(1, "bare aws-lc-rs", if size < 1_200 { 1.15 } else { 1.05 });
    if size == SIZES[0] {
        figure(3, "sframe over ring", 0.5);
    }
}

fn seal_contestants(size: usize) -> [Contestant; 4] {
    let frame = vec![0x5a; size];
    let ours: Contestant = {
        let (frame, mut out) = (frame.clone(), vec![0; size + Sealer::OVERHEAD + PAGE]);
        let mut sealer = Sealer::new(seal_key());
        Box::new(move |frames, shift| {
            cpu(|| {
                for _ in 0..frames {
                    black_box(sealer.seal_into(black_box(&frame), &mut out[shift..]).expect("sealed"));
                }
            })
        })
    };
    let aws: Contestant = {
        let (key, mut out, mut ctr) = (aws_key(), vec![0; size + PAGE], 0u64);
        Box::new(move |frames, shift| {
            cpu(|| {
                for _ in 0..frames {
                    ctr += 1;
                    let nonce = Nonce::assume_unique_for_key(nonce(ctr));
                    let tag = key.seal_in_place_separate_tag(
                        nonce,
                        Aad::from(&HEADER),
                        black_box(&mut out[shift..][..size]),
                    );
                    let _ = black_box(tag.expect("sealed"));
                }
            })
        })
    };
    let rust: Contestant = {
        let (key, mut out, mut ctr) = (Aes256Gcm::new(&KEY.into()), vec![0; size + PAGE], 0u64);
        Box::new(move |frames, shift| {
            cpu(|| {
                for _ in 0..frames {
                    ctr += 1;
                    let buffer = InOutBuf::from(&mut out[shift..][..size]);
                    let tag = key.encrypt_inout_detached(&nonce(ctr).into(), &HEADER, black_box(buffer));
                    let _ = black_box(tag.expect("sealed"));
                }
            })
        })
    };
    let theirs: Contestant = {
        use sframe::frame::{MediaFrameView, MonotonicCounter};
        let key = sframe::key::EncryptionKey::derive_from(
            sframe::CipherSuite::AesGcm256Sha512,
            u64::from(KID),
            KEY,
        )
        .expect("a key");
        let (mut counter, mut out) = (MonotonicCounter::new(u64::MAX), Vec::with_capacity(size + 128));
        Box::new(move |frames, _| {
            cpu(|| {
                for _ in 0..frames {
                    let view = MediaFrameView::try_new(&mut counter, black_box(&frame)).expect("a counter");
                    black_box(view.encrypt_into(&key, &mut out).expect("sealed"));
                }
            })
        })
    };
    [ours, aws, rust, theirs]
}

fn open_contestants(size: usize) -> [Contestant; 4] {
    let frame = vec![0x5a; size];
    let ours: Contestant = {
        let mut sealer = Sealer::new(seal_key());
        let mut opener = Opener::new();
        opener.insert(OpenKey { kid: KID, suite: CipherSuite::default(), base_key: base_key(), floor: 0 });
        let mut sealed = vec![vec![0; size + Sealer::OVERHEAD]; RING];
        let (frame, mut out) = (frame.clone(), vec![0; size + PAGE]);
        Box::new(move |frames, shift| {
            let mut time = 0.0;
            for _ in 0..frames / RING {
                let lens: [usize; RING] =
                    std::array::from_fn(|n| sealer.seal_into(&frame, &mut sealed[n]).expect("sealed"));
                time += cpu(|| {
                    for (sealed, len) in sealed.iter().zip(lens) {
                        black_box(
                            opener.open_into(black_box(&sealed[..len]), &mut out[shift..]).expect("opened"),
                        );
                    }
                });
            }
            time
        })
    };
    let aws: Contestant = {
        let (key, mut out, mut ctr) = (aws_key(), vec![0; size + PAGE], 0u64);
        let mut sealed: Vec<_> = (0..RING).map(|_| (frame.clone(), [0; 16], 0)).collect();
        Box::new(move |frames, shift| {
            let mut time = 0.0;
            for _ in 0..frames / RING {
                for (body, tag, at) in &mut sealed {
                    ctr += 1;
                    *at = ctr;
                    let nonce = Nonce::assume_unique_for_key(nonce(ctr));
                    let sealed =
                        key.seal_in_place_separate_tag(nonce, Aad::from(&HEADER), body).expect("sealed");
                    tag.copy_from_slice(sealed.as_ref());
                }
                time += cpu(|| {
                    for (body, tag, at) in &sealed {
                        let nonce = Nonce::assume_unique_for_key(nonce(*at));
                        key.open_separate_gather(
                            nonce,
                            Aad::from(&HEADER),
                            black_box(body),
                            tag,
                            &mut out[shift..][..size],
                        )
                        .expect("opened");
                        black_box(&mut out);
                    }
                });
            }
            time
        })
    };
    let rust: Contestant = {
        let (key, mut out, mut ctr) = (Aes256Gcm::new(&KEY.into()), vec![0; size + PAGE], 0u64);
        let mut sealed: Vec<_> = (0..RING).map(|_| (frame.clone(), [0; 16], 0)).collect();
        Box::new(move |frames, shift| {
            let mut time = 0.0;
            for _ in 0..frames / RING {
                for (body, tag, at) in &mut sealed {
                    ctr += 1;
                    *at = ctr;
                    let sealed =
                        key.encrypt_inout_detached(&nonce(ctr).into(), &HEADER, body[..].as_mut().into());
                    *tag = sealed.expect("sealed").into();
                }
                time += cpu(|| {
                    for (body, tag, at) in &sealed {
                        let buffer =
                            InOutBuf::new(black_box(&body[..]), &mut out[shift..][..size]).expect("lengths");
                        let tag = tag.into();
                        key.decrypt_inout_detached(&nonce(*at).into(), &HEADER, buffer, tag).expect("opened");
                        black_box(&mut out);
                    }
                });
            }
            time
        })
    };
    let theirs: Contestant = {
        use sframe::{
            frame::{
                EncryptedFrameView, MediaFrameView, MonotonicCounter,
                validation::{ReplayAttackProtection, Tolerance},
            },
            key::{DecryptionKey, EncryptionKey},
        };
        let suite = sframe::CipherSuite::AesGcm256Sha512;
        let sealing = EncryptionKey::derive_from(suite, u64::from(KID), KEY).expect("a key");
        let opening = DecryptionKey::derive_from(suite, u64::from(KID), KEY).expect("a key");
        let (mut counter, mut out) = (MonotonicCounter::new(u64::MAX), Vec::with_capacity(size + 128));
        let mut replay = ReplayAttackProtection::new(u64::from(KID), Tolerance::new(1024));
        Box::new(move |frames, _| {
            let mut time = 0.0;
            for _ in 0..frames / RING {
                let sealed: [_; RING] = std::array::from_fn(|_| {
                    let view = MediaFrameView::try_new(&mut counter, &frame).expect("a counter");
                    view.encrypt(&sealing).expect("sealed")
                });
                time += cpu(|| {
                    for sealed in &sealed {
                        let view = EncryptedFrameView::try_new(black_box(sealed.as_ref())).expect("a header");
                        black_box(
                            view.validated_decrypt_into(&opening, &mut out, &mut replay).expect("opened"),
                        );
                    }
                });
            }
            time
        })
    };
    [ours, aws, rust, theirs]
}

/// CPU time of this thread that `work` took, in nanoseconds.
fn cpu(work: impl FnOnce()) -> f64 {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
    };
    let start = now();
    work();
    now() - start
}

const PAGE: usize = 4096;
const KID: KeyId = KeyId::new(StreamId(3), 2, 5);
const KEY: [u8; 32] = [7; 32];
/// As long as a header of that KID and a counter of two bytes.
const HEADER: [u8; 7] = [0xb9; 7];

fn nonce(ctr: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&ctr.to_be_bytes());
    nonce
}

fn aws_key() -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &KEY).expect("32 bytes"))
}

fn base_key() -> Secret<32> {
    Secret::init_with(|key| *key = KEY)
}

fn seal_key() -> SealKey {
    SealKey::new(KID, CipherSuite::default(), base_key())
}

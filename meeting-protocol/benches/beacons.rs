//! What a sender's signed word costs (PROTOCOL.md 5), beside an Ed25519 signature over each frame's hash.
//!
//! A stream is its frames and a beacon each 450 ms. The sender hashes each frame and signs each beacon; the
//! receiver hashes each frame, checks each signature and compares. Both are the real thing: two sessions in a
//! meeting, [`Sent`] and [`Checker`]. The figures are CPU time as a share of one core; the share of hashing alone, which
//! both need, is in what the bench says.

#![allow(missing_docs)]

use std::{hint::black_box, time::Duration};

use ed25519_dalek::{Signature, Signer, SigningKey};
use meeting_protocol::{
    BootTime,
    beacon::{Checker, EVERY, FrameDigest, Sent},
    frame::{CipherSuite, SealKey, Sealer},
    secret::Secret,
    session::{Command, Input, Output, Session, Successors},
    testing::Meeting,
};
use meeting_wire::{Envelope, Flags};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: usize = 31;
/// Of media, in each round.
const SECONDS: usize = 18;
/// Between two beacons of an agent, in ms.
const TICK: usize = EVERY.as_millis() as usize;
/// Kind and length of a record, and the head of an envelope without times.
const RECORD: usize = 5 + 3;
/// IPv4, UDP, and QUIC with the frame of its stream: a beacon is a packet of its own.
const HEADERS: usize = 20 + 8 + 34;

const ALICE: usize = 0;
const BOB: usize = 1;

struct Medium {
    name: &'static str,
    per_second: usize,
    bytes: usize,
}

const MEDIA: [Medium; 2] = [
    Medium { name: "sound", per_second: 50, bytes: 160 },
    Medium { name: "pictures", per_second: 30, bytes: 8_300 },
];

fn main() {
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    // This build of the library keeps books of nonces; they are not what is measured here.
    meeting_protocol::ledger::close();
    for medium in &MEDIA {
        run(medium);
    }
}

fn run(medium: &Medium) {
    let mut meeting = Meeting::of(2, 1, Successors::Nobody);
    let camera = meeting.stream(ALICE, "camera");
    meeting.run_until(Duration::from_secs(5), |meeting| meeting.hears(ALICE, camera, BOB));
    let kid = meeting.nodes[ALICE].seals[&camera].kid;
    let alice = meeting.nodes[ALICE].session.me();
    let now = [ALICE, BOB].map(|node| meeting.local(node));
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut sealer =
        Sealer::new(SealKey::new(kid, CipherSuite::default(), Secret::init_with(|key| key.fill(1))));
    let (mut sent, mut checker, mut clock) = (Sent::default(), Checker::default(), now[BOB]);
    checker.opened(kid, 1, clock);
    checker.watch(camera, clock);
    let peer = SigningKey::from_bytes(&[7; 32]);

    let mut times = [const { Vec::new() }; 5];
    let (mut bytes, mut vouched) = (0, 0);
    for _ in 0..ROUNDS {
        let [mut sending, mut receiving, mut hashing, mut signing, mut verifying] = [0.0; 5];
        for n in 0..SECONDS * 1_000 / TICK {
            // 23, then 22 of 50 a second.
            let until = |n: usize| (n * medium.per_second * TICK).div_ceil(1_000);
            let frames: Vec<Envelope> =
                (until(n)..until(n + 1)).map(|_| frame(&mut sealer, medium.bytes)).collect();
            let mut beacon = None;
            sending += cpu(|| {
                frames.iter().for_each(|frame| sent.frame(frame));
                let wish = Input::Command(Command::Beacon(sent.take()));
                beacon = outcome(&mut meeting.nodes[ALICE].session, wish, now[ALICE], &mut rng, |output| {
                    match output {
                        Output::Beacon(body) => Some(body),
                        _ => None,
                    }
                });
            });
            let body = beacon.expect("a beacon");
            bytes += body.len() + RECORD + HEADERS;
            clock = clock + EVERY;
            receiving +=
                cpu(|| {
                    for frame in &frames {
                        black_box(checker.frame(camera, frame.clone(), FrameDigest::of(frame), clock))
                            .expect("passes");
                    }
                    let beacon = Input::Beacon { from: alice, body };
                    let vouch =
                        outcome(&mut meeting.nodes[BOB].session, beacon, now[BOB], &mut rng, |output| {
                            match output {
                                Output::Vouched { vouch, .. } => Some(vouch),
                                _ => None,
                            }
                        });
                    vouched += checker.beacon(&vouch.expect("Alice's own word"), clock).len();
                    checker.tick(clock);
                });
            hashing += cpu(|| {
                for frame in &frames {
                    black_box(FrameDigest::of(frame));
                }
            });
            let mut signatures: Vec<Signature> = Vec::new();
            signing +=
                cpu(|| signatures.extend(frames.iter().map(|frame| peer.sign(&FrameDigest::of(frame).0))));
            verifying += cpu(|| {
                for (frame, signature) in frames.iter().zip(&signatures) {
                    peer.verify_strict(&FrameDigest::of(frame).0, signature).expect("its own");
                }
            });
        }
        for (times, time) in times.iter_mut().zip([sending, receiving, hashing, signing, verifying]) {
            times.push(time / (SECONDS as f64 * 1e9) * 100.0);
        }
    }
    assert!(checker.findings().iter().all(|finding| finding.what == meeting_protocol::beacon::What::Vouched));
    assert_eq!(vouched, 0, "no frame had to wait");

    let [sending, receiving, hashing, signing, verifying] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    });
    let kbits = |bytes: usize| bytes as f64 * 8.0 / 1_000.0;
    let ours = kbits(bytes / (ROUNDS * SECONDS));
    let theirs = kbits(medium.per_second * 64);
    println!(
        "{}: {ours:.1} kbit/s; of a core: {sending:.4} % to sign, {receiving:.4} % to check, {hashing:.4} % is the hash",
        medium.name
    );
    let figure = |what: &str, ours: f64, theirs: f64, unit: &str, digits: usize, aim: &str, how: &str| {
        println!(
            "figure: {what} {}, {} a second | {ours:.digits$} {unit} | Ed25519 on each frame | {theirs:.digits$} {unit} | \
             {:.2} | {aim} | {how}",
            medium.name,
            medium.per_second,
            ours / theirs
        );
    };
    figure("beacons for", ours, theirs, "kbit/s", 1, "at most 12 kbit/s", "bytes on the road");
    let cpu = "CPU time as a share of a core";
    figure("signing for", sending, signing, "%", 4, "none", cpu);
    figure("checking", receiving, verifying, "%", 4, "at most 0.05 %", cpu);
}

fn frame(sealer: &mut Sealer, bytes: usize) -> Envelope {
    let sealed = sealer.seal(&vec![0x5a; bytes]).expect("sealed").into();
    Envelope { pts: Some(1 << 40), dts: None, duration: Some(20_000_000), flags: Flags(0), layer: 0, sealed }
}

/// Feeds a session and gives the output looked for.
fn outcome<T>(
    session: &mut Session,
    input: Input,
    now: BootTime,
    rng: &mut ChaCha20Rng,
    mut wanted: impl FnMut(Output) -> Option<T>,
) -> Option<T> {
    session.handle(input, now, rng).expect("taken");
    let mut found = None;
    loop {
        match session.poll_output() {
            Output::Timeout(_) => return found,
            output => found = found.or(wanted(output)),
        }
    }
}

/// CPU time of this thread that `work` took, in ns.
fn cpu(work: impl FnOnce()) -> f64 {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
    };
    let start = now();
    work();
    now() - start
}

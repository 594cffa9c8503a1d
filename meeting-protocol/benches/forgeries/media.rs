//! Frames and beacons: what Alice sends to Bob, and what Carol does in Alice's name.

use std::{hint::black_box, time::Duration};

use bytes::Bytes;
use meeting_protocol::{
    BootTime,
    beacon::{Checker, FrameDigest, Sent, What},
    frame::{CipherSuite, KeyId, OpenKey, Opener, SealKey, Sealer},
    secret::Secret,
    session::{Command, Input, Output, Session, Successors},
    testing::Meeting,
};
use meeting_wire::{Envelope, Flags, ParticipantId};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::{
    ALICE,
    Arrives::{self, *},
    BOB, CAROL, altered, measured,
};

/// Of a frame.
const BYTES: usize = 1_200;

/// Three people, of whom Bob receives what Alice sends, and what Carol does in Alice's name.
pub struct World {
    meeting: Meeting,
    rng: ChaCha20Rng,
    now: [BootTime; 3],
    alice: ParticipantId,
    kid: KeyId,
    sealer: Sealer,
    opener: Opener,
    checker: Checker,
    sent: Sent,
    clock: BootTime,
    opened: Vec<u8>,
}

impl World {
    pub fn new() -> Self {
        let mut meeting = Meeting::of(3, 1, Successors::Nobody);
        let camera = meeting.stream(ALICE, "camera");
        meeting.run_until(Duration::from_secs(5), |meeting| meeting.hears(ALICE, camera, BOB));
        let kid = meeting.nodes[ALICE].seals[&camera].kid;
        let now = [ALICE, BOB, CAROL].map(|node| meeting.local(node));
        let mut opener = Opener::new();
        opener.insert(OpenKey { kid, suite: CipherSuite::default(), base_key: base_key(1), floor: 0 });
        let mut checker = Checker::default();
        checker.opened(kid, 1, now[BOB]);
        checker.watch(camera, now[BOB]);
        Self {
            alice: meeting.nodes[ALICE].session.me(),
            meeting,
            rng: ChaCha20Rng::seed_from_u64(1),
            now,
            kid,
            sealer: Sealer::new(SealKey::new(kid, CipherSuite::default(), base_key(1))),
            opener,
            checker,
            sent: Sent::default(),
            clock: now[BOB],
            opened: vec![0; BYTES + 64],
        }
    }

    /// What each of `n` costs, in ns.
    pub fn cost(&mut self, what: Arrives, n: usize) -> f64 {
        let total = match what {
            Frame | AlteredFrame | RepeatedFrame | FrameOfNoKey => self.frames(what, n),
            FrameToCheck | ForgedFrameToCheck => self.checked(what, n),
            _ => self.beacons(what, n),
        };
        total / n as f64
    }

    fn frames(&mut self, what: Arrives, n: usize) -> f64 {
        let mut frames: Vec<Bytes> = (0..n).map(|_| self.seal()).collect();
        match what {
            AlteredFrame => frames.iter_mut().for_each(|frame| *frame = altered(frame)),
            RepeatedFrame => {
                let mut opens = |frame: &Bytes| self.opener.open_into(frame, &mut self.opened).is_ok();
                assert!(frames.iter().all(&mut opens), "opened once");
            }
            FrameOfNoKey => {
                let stranger = SealKey::new(
                    KeyId::from(u64::from(self.kid) ^ 1 << 40),
                    CipherSuite::default(),
                    base_key(2),
                );
                let mut sealer = Sealer::new(stranger);
                frames.fill_with(|| sealer.seal(&[0x5a; BYTES]).expect("sealed").into());
            }
            _ => {}
        }
        let (opener, out, mut opened) = (&mut self.opener, &mut self.opened, 0);
        let cost = measured(&mut || {
            for frame in &frames {
                opened += usize::from(black_box(opener.open_into(frame, out)).is_ok());
            }
        });
        assert_eq!(opened, if what == Frame { n } else { 0 }, "{what:?}");
        cost
    }

    /// With a stream that somebody has forged lately: its frames wait for their beacon.
    fn checked(&mut self, what: Arrives, n: usize) -> f64 {
        let honest: Vec<Envelope> = (0..n).map(|_| self.envelope()).collect();
        let stream = self.kid.stream();
        let mut frames = honest.clone();
        if what == ForgedFrameToCheck {
            // Under the same key and counters: every member can.
            for frame in &mut frames {
                frame.sealed = altered(&frame.sealed);
            }
        }
        let (checker, clock) = (&mut self.checker, self.clock);
        let cost = measured(&mut || {
            for frame in &frames {
                let digest = FrameDigest::of(frame);
                black_box(checker.frame(stream, frame.clone(), digest, clock));
            }
        });
        // Their sender signs for the honest ones.
        for frames in honest.chunks(100) {
            frames.iter().for_each(|frame| self.sent.frame(frame));
            let beacon = self.beacon();
            self.clock = self.clock + Duration::from_millis(450);
            let vouch = self.hear(beacon).expect("Alice's own word");
            self.checker.beacon(&vouch, self.clock);
            self.checker.tick(self.clock);
        }
        let told = self.checker.findings();
        assert!(what == ForgedFrameToCheck || told.iter().all(|told| told.what != What::Forged));
        cost
    }

    fn beacons(&mut self, what: Arrives, n: usize) -> f64 {
        let beacons: Vec<Bytes> = (0..n)
            .map(|_| {
                // Of sound between two beacons.
                for _ in 0..22 {
                    let frame = self.envelope();
                    self.sent.frame(&frame);
                }
                let beacon = self.beacon();
                if what == Beacon { beacon } else { self.meeting.spoilt(CAROL, &beacon).expect("a post") }
            })
            .collect();
        let (alice, now) = (self.alice, self.now[BOB]);
        let session = &mut self.meeting.nodes[BOB].session;
        let (rng, mut taken) = (&mut self.rng, 0);
        let cost = measured(&mut || {
            for body in &beacons {
                let input = Input::Beacon { from: alice, body: body.clone() };
                taken += usize::from(handle(session, input, now, rng, |output| {
                    matches!(output, Output::Vouched { .. })
                }));
            }
        });
        assert_eq!(taken, if what == Beacon { n } else { 0 }, "{what:?}");
        cost
    }

    fn seal(&mut self) -> Bytes {
        self.sealer.seal(&[0x5a; BYTES]).expect("sealed").into()
    }

    fn envelope(&mut self) -> Envelope {
        let sealed = self.seal();
        Envelope {
            pts: Some(1 << 40),
            dts: None,
            duration: Some(20_000_000),
            flags: Flags(0),
            layer: 0,
            sealed,
        }
    }

    /// Alice signs for what she has sent.
    fn beacon(&mut self) -> Bytes {
        let wish = Input::Command(Command::Beacon(self.sent.take()));
        let mut beacon = None;
        let session = &mut self.meeting.nodes[ALICE].session;
        handle(session, wish, self.now[ALICE], &mut self.rng, |output| {
            if let Output::Beacon(body) = output {
                beacon = Some(body.clone());
            }
            true
        });
        beacon.expect("a beacon")
    }

    /// Bob hears it.
    fn hear(&mut self, body: Bytes) -> Option<meeting_protocol::beacon::Vouch> {
        let mut found = None;
        let session = &mut self.meeting.nodes[BOB].session;
        let input = Input::Beacon { from: self.alice, body };
        session.handle(input, self.now[BOB], &mut self.rng).expect("taken");
        loop {
            match session.poll_output() {
                Output::Timeout(_) => return found,
                Output::Vouched { vouch, .. } => found = Some(vouch),
                _ => {}
            }
        }
    }
}

/// Feeds a session and gives whether anything came of it that was looked for.
fn handle(
    session: &mut Session,
    input: Input,
    now: BootTime,
    rng: &mut ChaCha20Rng,
    mut wanted: impl FnMut(&Output) -> bool,
) -> bool {
    session.handle(input, now, rng).expect("taken");
    let mut found = false;
    loop {
        match session.poll_output() {
            Output::Timeout(_) => return found,
            output => found |= wanted(&output),
        }
    }
}

fn base_key(seed: u8) -> Secret<32> {
    Secret::init_with(|key| key.fill(seed))
}

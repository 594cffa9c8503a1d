//! What refusing costs: frames at an opener and at a checker, posts and beacons at a session, each beside the honest one of its
//! kind in the same run. Who floods a meeting with what is refused takes so much of everybody's processor for each.
//!
//! The figures are instructions, where valgrind is there to count them, and CPU time: the median over rounds in which all take
//! turns. What is refused was made before the count begins; what answers it is part of it.

#![allow(missing_docs)]

use std::{env, hint::black_box, process::Command as Program, time::Duration};

use bytes::Bytes;
use meeting_protocol::{
    BootTime,
    beacon::{Checker, FrameDigest, Sent, What},
    frame::{CipherSuite, KeyId, Lease, OpenKey, Opener, Sealer},
    secret::Secret,
    session::{Command, Input, Output, Session, Successors},
    testing::Meeting,
};
use meeting_wire::{Envelope, Flags, ParticipantId, Post, Slot};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: usize = 31;
/// Of each, in a round.
const TURN: usize = 200;
/// Of a frame.
const BYTES: usize = 1_200;

const ALICE: usize = 0;
const BOB: usize = 1;
const CAROL: usize = 2;

/// What comes, where it is refused, and the honest one it stands beside.
struct Case {
    what: &'static str,
    arrives: Arrives,
    beside: &'static str,
    honest: Arrives,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrives {
    Frame,
    AlteredFrame,
    RepeatedFrame,
    FrameOfNoKey,
    FrameToCheck,
    ForgedFrameToCheck,
    Statement,
    Noise,
    FalseStatement,
    FalseHeartbeat,
    Beacon,
    FalseBeacon,
}

use Arrives::*;

const CASES: [Case; 8] = [
    Case::new("an altered frame, at the opener", AlteredFrame, "a frame that opens", Frame),
    Case::new("a repeated frame, at the opener", RepeatedFrame, "a frame that opens", Frame),
    Case::new("a frame under no key, at the opener", FrameOfNoKey, "a frame that opens", Frame),
    Case::new(
        "a member's forged frame, at the checker",
        ForgedFrameToCheck,
        "an honest frame there",
        FrameToCheck,
    ),
    Case::new("a stranger's post", Noise, "a statement that is taken", Statement),
    Case::new("a member's false statement", FalseStatement, "a statement that is taken", Statement),
    Case::new("a member's false heartbeat", FalseHeartbeat, "a statement that is taken", Statement),
    Case::new("a member's false beacon", FalseBeacon, "a beacon that is taken", Beacon),
];

impl Case {
    const fn new(what: &'static str, arrives: Arrives, beside: &'static str, honest: Arrives) -> Self {
        Self { what, arrives, beside, honest }
    }
}

const ALL: [Arrives; 12] = [
    Frame,
    AlteredFrame,
    RepeatedFrame,
    FrameOfNoKey,
    FrameToCheck,
    ForgedFrameToCheck,
    Statement,
    Noise,
    FalseStatement,
    FalseHeartbeat,
    Beacon,
    FalseBeacon,
];

fn main() {
    // This build of the library keeps books of nonces; they are not what is measured here.
    meeting_protocol::ledger::close();
    let arguments: Vec<String> = env::args().collect();
    if let [_, once, number] = &arguments[..]
        && once == "--once"
    {
        World::new().cost(ALL[number.parse::<usize>().expect("a number")], TURN);
        return;
    }
    if arguments.iter().any(|argument| argument == "--test") {
        return;
    }
    let mut world = World::new();
    let mut times = ALL.map(|_| Vec::new());
    for round in 0..ROUNDS {
        for n in 0..ALL.len() {
            let n = (n * 5 + round) % ALL.len();
            times[n].push(world.cost(ALL[n], TURN));
        }
    }
    let times = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    });
    report(&times, "ns", "CPU time of each");
    match (0..ALL.len()).map(instructions).collect::<Option<Vec<f64>>>() {
        Some(counts) => report(&counts, "", "instructions of each"),
        None => println!("no valgrind found: instructions are not counted"),
    }
}

fn report(costs: &[f64], unit: &str, how: &str) {
    let cost = |what: Arrives| costs[ALL.iter().position(|one| *one == what).unwrap_or_default()];
    for Case { what, arrives, beside, honest } in &CASES {
        let (ours, theirs) = (cost(*arrives), cost(*honest));
        let ratio = ours / theirs;
        println!(
            "figure: refusing {what} | {ours:.0} {unit} | {beside} | {theirs:.0} {unit} | {ratio:.2} | at most 1.2 | {how}"
        );
    }
}

/// Three people, of whom Bob receives what Alice sends, and what Carol does in Alice's name.
struct World {
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
    seq: u64,
    caps: u64,
}

impl World {
    fn new() -> Self {
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
            sealer: Sealer::new(Lease::new(kid, CipherSuite::default(), base_key(1))),
            opener,
            checker,
            sent: Sent::default(),
            clock: now[BOB],
            opened: vec![0; BYTES + 64],
            seq: 1 << 32,
            caps: 0,
        }
    }

    /// What each of `n` costs, in ns.
    fn cost(&mut self, what: Arrives, n: usize) -> f64 {
        let total = match what {
            Frame | AlteredFrame | RepeatedFrame | FrameOfNoKey => self.frames(what, n),
            FrameToCheck | ForgedFrameToCheck => self.checked(what, n),
            Beacon | FalseBeacon => self.beacons(what, n),
            _ => self.posts(what, n),
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
                let stranger = Lease::new(
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
            self.clock = self.clock + Duration::from_millis(333);
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
                // A third of a second of sound.
                for _ in 0..16 {
                    let frame = self.envelope();
                    self.sent.frame(&frame);
                }
                if what == Beacon {
                    return self.beacon();
                }
                let spans = self.sent.take();
                self.meeting.lies(CAROL, ALICE, spans).expect("she is in").beacon
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

    fn posts(&mut self, what: Arrives, n: usize) -> f64 {
        let bodies: Vec<Bytes> = (0..n)
            .map(|_| match what {
                FalseStatement => self.meeting.lies(CAROL, ALICE, vec![]).expect("she is in").statement,
                FalseHeartbeat => self.meeting.lies(CAROL, ALICE, vec![]).expect("she is in").heartbeat,
                Noise => altered(&self.statement()),
                _ => self.statement(),
            })
            .collect();
        let posts: Vec<Post> = bodies
            .into_iter()
            .map(|body| {
                self.seq += 1;
                Post { seq: self.seq, from: self.alice, slot: Slot::Log, body }
            })
            .collect();
        let now = self.now[BOB];
        let session = &mut self.meeting.nodes[BOB].session;
        let (rng, mut taken) = (&mut self.rng, 0);
        let cost = measured(&mut || {
            for post in &posts {
                taken += usize::from(handle(session, Input::Post(post.clone()), now, rng, |output| {
                    matches!(output, Output::Keys(_) | Output::Event(_))
                }));
            }
        });
        assert!(if what == Statement { taken == n } else { taken < n }, "{what:?}: {taken} of {n}");
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

    /// Alice's stream has other caps, and she says so.
    fn statement(&mut self) -> Bytes {
        self.caps += 1;
        let wish =
            Command::StreamCaps { stream: self.kid.stream(), caps: format!("video/x-h264,n={}", self.caps) };
        let mut body = None;
        let session = &mut self.meeting.nodes[ALICE].session;
        handle(session, Input::Command(wish), self.now[ALICE], &mut self.rng, |output| {
            if let Output::Post { body: post, .. } = output {
                body = Some(post.clone());
            }
            true
        });
        body.expect("a post")
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

/// The same with another last byte.
fn altered(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    bytes.into()
}

/// CPU time of this thread that `work` took, in ns. Callgrind counts in here and nowhere else.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) -> f64 {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
    };
    let start = now();
    work();
    now() - start
}

/// Instructions of each one of a kind; none without valgrind.
fn instructions(number: usize) -> Option<f64> {
    let output = Program::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=forgeries::measured"])
        .arg(env::current_exe().ok()?)
        .args(["--once", &number.to_string()])
        .output()
        .ok()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "callgrind: {said}");
    let (_, count) = said.lines().find_map(|line| line.split_once("Collected :"))?;
    Some(count.trim().parse::<f64>().ok()? / TURN as f64)
}

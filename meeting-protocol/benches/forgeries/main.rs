//! What refusing costs: frames at an opener and at a checker, posts and beacons at a session, each beside the honest one of its
//! kind in the same run. Who floods a meeting with what is refused takes so much of everybody's processor for each.
//!
//! The figures are instructions, where valgrind is there to count them, and CPU time: the median over rounds in which all take
//! turns. What is refused was made before the count begins; what answers it is part of it.

#![allow(missing_docs)]

mod board;
mod media;

use std::{env, process::Command as Program};

use bytes::Bytes;
use media::World;
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: usize = 31;
/// Of what takes a meeting of its own.
const FEW_ROUNDS: usize = 7;

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
    Beacon,
    FalseBeacon,
    Passing,
    Noise,
    Statement,
    FalseStatement,
    Heartbeat,
    FalseHeartbeat,
    Pulse,
    FalsePulse,
    Announce,
    FalseAnnounce,
    LateAnnounce,
    Wrap,
    FalseWrap,
    Welcome,
    FalseWelcome,
    Branch,
    FalseBranch,
    Head,
    FalseHead,
}

use Arrives::*;

impl Arrives {
    fn is_refused(self) -> bool {
        CASES.iter().any(|case| case.arrives == self)
    }

    /// Of the media, past the board.
    fn is_media(self) -> bool {
        self as usize <= FalseBeacon as usize
    }

    /// How many are measured in a turn.
    fn many(self) -> usize {
        match self {
            // After one of these the session is another one.
            Welcome | Branch => 1,
            _ if self.is_media() => 200,
            _ => 20,
        }
    }

    /// What each costs, in ns.
    fn cost(self, world: &mut World) -> f64 {
        if self.is_media() { world.cost(self, self.many()) } else { board::cost(self, self.many()) }
    }
}

const CASES: [Case; 15] = [
    Case::new("an altered frame, at the opener", AlteredFrame, "a frame that opens", Frame),
    Case::new("a repeated frame, at the opener", RepeatedFrame, "a frame that opens", Frame),
    Case::new("a frame under no key, at the opener", FrameOfNoKey, "a frame that opens", Frame),
    Case::new(
        "a member's forged frame, at the checker",
        ForgedFrameToCheck,
        "an honest frame there",
        FrameToCheck,
    ),
    Case::new("a false beacon", FalseBeacon, "a beacon", Beacon),
    Case::new("a stranger's post", Noise, "an announce that passes by", Passing),
    Case::new("a false statement", FalseStatement, "a statement", Statement),
    Case::new("a false heartbeat", FalseHeartbeat, "a heartbeat", Heartbeat),
    Case::new("a false pulse", FalsePulse, "a pulse", Pulse),
    Case::new("a false announce", FalseAnnounce, "an announce", Announce),
    Case::new("an announce of half a minute ago", LateAnnounce, "an announce", Announce),
    Case::new("a wrap that does not open", FalseWrap, "a wrap", Wrap),
    Case::new("a false welcome", FalseWelcome, "a welcome", Welcome),
    Case::new("a false branch, of 24 people", FalseBranch, "a branch", Branch),
    Case::new("a false head", FalseHead, "a head that agrees", Head),
];

impl Case {
    const fn new(what: &'static str, arrives: Arrives, beside: &'static str, honest: Arrives) -> Self {
        Self { what, arrives, beside, honest }
    }
}

const ALL: [Arrives; 27] = [
    Frame,
    AlteredFrame,
    RepeatedFrame,
    FrameOfNoKey,
    FrameToCheck,
    ForgedFrameToCheck,
    Beacon,
    FalseBeacon,
    Passing,
    Noise,
    Statement,
    FalseStatement,
    Heartbeat,
    FalseHeartbeat,
    Pulse,
    FalsePulse,
    Announce,
    FalseAnnounce,
    LateAnnounce,
    Wrap,
    FalseWrap,
    Welcome,
    FalseWelcome,
    Branch,
    FalseBranch,
    Head,
    FalseHead,
];

fn main() {
    // This build of the library keeps books of nonces; they are not what is measured here.
    meeting_protocol::ledger::close();
    let arguments: Vec<String> = env::args().collect();
    if let [_, once, number] = &arguments[..]
        && once == "--once"
    {
        ALL[number.parse::<usize>().expect("a number")].cost(&mut World::new());
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
            if ALL[n].is_media() || round < FEW_ROUNDS {
                times[n].push(ALL[n].cost(&mut world));
            }
        }
    }
    let times = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
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
    Some(count.trim().parse::<f64>().ok()? / ALL[number].many() as f64)
}

//! What other processes and cores see of secrets: nothing.

#[path = "../../tests/did_not_run.rs"]
mod did_not_run;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
    process::{Child, Command, Stdio},
};

use did_not_run::did_not_run;
use secret_memory::{Slot, protection};

#[test]
fn slots_are_apart() {
    let mut slots: Vec<Slot<64>> = (0..1_000).map(|_| Slot::new()).collect();
    for (n, slot) in slots.iter_mut().enumerate() {
        slot.fill(n as u8);
    }
    assert!(slots.iter().enumerate().all(|(n, slot)| **slot == [n as u8; 64]));
    let mut long = Slot::<10_000>::new();
    long.fill(1);
    assert!(long.iter().all(|byte| *byte == 1));
}

#[test]
fn another_process_finds_no_secret_in_our_memory_and_no_core_has_it() {
    let mut holder = Holder::start();
    let pid = holder.child.id();
    let (mut ordinary, mut secret) = (0, 0);
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).expect("the memory of a child");
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("its map");
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with('r'))) {
        let (start, end) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let at = |text| u64::from_str_radix(text, 16).expect("hex");
        let mut bytes = vec![0; (at(end) - at(start)) as usize];
        // What cannot be read is what is looked for.
        if memory.seek(SeekFrom::Start(at(start))).is_ok() && memory.read_exact(&mut bytes).is_ok() {
            let count =
                |canary: &[u8]| bytes.windows(canary.len()).filter(|window| *window == canary).count();
            ordinary += count(&canary(ORDINARY));
            secret += count(&canary(SECRET));
        }
    }
    assert!(ordinary > 0, "what stands in ordinary memory is found");
    match holder.protection.as_str() {
        "Secret" => assert_eq!(secret, 0, "a secret is found"),
        // Whoever may trace the process finds it: its flags keep it from cores, forks and, if locked, the swap.
        other => did_not_run(&format!("this kernel has no memfd_secret, secrets are {other}")),
    }
    let flags = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("its map");
    let kept_out =
        |line: &&str| line.starts_with("VmFlags:") && line.contains(" dd ") && line.contains(" dc ");
    assert!(flags.lines().any(|line| kept_out(&line)), "no pages are kept out of cores and forks");
    holder.child.kill().expect("its end");
}

/// Runs as a process of its own and holds two canaries.
#[test]
#[ignore = "runs as a child of another test"]
fn holder_process() {
    let mut slot = Slot::<32>::new();
    for (n, byte) in slot.iter_mut().enumerate() {
        *byte = canary_byte(SECRET, n);
    }
    let ordinary = canary(ORDINARY);
    println!("holding {:?}", protection());
    let _ = std::io::stdin().read(&mut [0]);
    assert!(slot[0] != ordinary[0]);
}

struct Holder {
    child: Child,
    protection: String,
}

impl Holder {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "holder_process", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let protection = lines
            .find_map(|line| line.ok()?.split_once("holding ").map(|(_, how)| how.to_owned()))
            .expect("a word of it");
        Self { child, protection }
    }
}

/// Bytes that stand nowhere in the program.
fn canary(seed: u8) -> Vec<u8> {
    (0..32).map(|n| canary_byte(seed, n)).collect()
}

fn canary_byte(seed: u8, n: usize) -> u8 {
    seed.wrapping_mul(31).wrapping_add((n as u8).wrapping_mul(73)) ^ (n as u8).rotate_left(3)
}

const SECRET: u8 = 7;
const ORDINARY: u8 = 11;

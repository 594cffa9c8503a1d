//! A leader who shows two chains, and a relay that helps it: caught as soon as any word of one side reaches the other,
//! with a proof that anybody can check (PROTOCOL.md 3.13 and 7).

#![allow(clippy::unwrap_used)]

use std::{cell::Cell, rc::Rc, time::Duration};

use meeting_protocol::{
    beacon::{FrameDigest, Span},
    evidence::{Evidence, EvidenceError, Fault},
    frame::KeyId,
    session::{Command, EndReason, Event, Phase, Successors},
    testing::{Fate, Meeting},
};
use meeting_wire::{Slot, StreamId};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The leader's faces, and who sees which: Bob and Dave the first, Carol and Erin the second.
const FACES: [usize; 2] = [0, 1];
const BOB: usize = 2;
const CAROL: usize = 3;
const DAVE: usize = 4;
const ERIN: usize = 5;

const CAUGHT: Phase = Phase::Ended(EndReason::LeaderMisbehaved);

/// From the moment when any word gets across: two heartbeats.
const SOON: Duration = Duration::from_secs(4);

fn side(node: usize) -> usize {
    node % 2
}

/// What the relay lets from one side to the other: sender, receiver, whether it goes to one alone, whether it is a cell.
type Across = Box<dyn Fn(usize, usize, Slot) -> bool>;

struct Forked {
    meeting: Meeting,
}

impl Forked {
    /// Everybody is on both lists and in one half.
    fn new(seed: u64) -> Self {
        let mut meeting = Meeting::two_faced(seed, Successors::Nobody);
        // Newcomers hear one face after the other, each until it has them on its list; nobody is let in yet.
        let heard = Rc::new(Cell::new(Some(FACES[0])));
        let (hears, leader) = (heard.clone(), meeting.nodes[0].session.me());
        meeting.tamper = Some(Box::new(move |_, from, to, post| {
            let replayed = from == usize::MAX;
            let goes = match hears.get() {
                _ if replayed => post.from != leader,
                None => side(from) == side(to),
                Some(face) if FACES.contains(&from) => from == face && !matches!(post.slot, Slot::Direct(_)),
                Some(face) => to == face,
            };
            if goes { Fate::Deliver } else { Fate::Drop }
        }));
        for name in ["Bob", "Carol", "Dave", "Erin"] {
            meeting.join(name);
        }
        for (face, next) in [(FACES[0], Some(FACES[1])), (FACES[1], None)] {
            meeting.run_until(s(30), |meeting| meeting.state(face).roster.len() == 5);
            heard.set(next);
        }
        let live = |meeting: &Meeting, node: usize| meeting.phase(node) == Phase::Live;
        meeting.run_until(s(30), |meeting| (BOB..=ERIN).all(|node| live(meeting, node)));
        // Two chains by now, of one length or not.
        meeting.run(s(5));
        let codes = [BOB, DAVE, CAROL, ERIN].map(|node| meeting.nodes[node].session.roster_code().unwrap());
        assert!(codes[0] == codes[1] && codes[2] == codes[3] && codes[0] != codes[2]);
        assert_eq!(meeting.state(BOB).code, meeting.state(CAROL).code, "the security code shows nothing");
        Self { meeting }
    }

    /// From now on the relay lets this across, besides what stays on its side.
    fn across(&mut self, across: impl Fn(usize, usize, Slot) -> bool + 'static) {
        let across: Across = Box::new(across);
        self.meeting.tamper = Some(Box::new(move |_, from, to, post| {
            let stays = from != usize::MAX && side(from) == side(to);
            if stays || from != usize::MAX && across(from, to, post.slot) {
                Fate::Deliver
            } else {
                Fate::Drop
            }
        }));
    }

    /// Waits until these are out, and gives the proof that each has.
    fn caught(&mut self, nodes: &[usize], within: Duration) -> Vec<Evidence> {
        self.meeting.run_until(within, |meeting| nodes.iter().all(|node| meeting.phase(*node) == CAUGHT));
        nodes.iter().map(|node| self.evidence(*node).expect("a proof")).collect()
    }

    fn evidence(&self, node: usize) -> Option<Evidence> {
        self.meeting.nodes[node].events.iter().find_map(|event| match event {
            Event::Evidence(evidence) => Some((**evidence).clone()),
            _ => None,
        })
    }

    fn told(&self, node: usize, words: &str) -> bool {
        let said = |event: &Event| matches!(event, Event::Misbehaviour(text) if text.contains(words));
        self.meeting.nodes[node].events.iter().any(said)
    }
}

/// A stranger with the file alone sees whose fault it was.
fn holds(forked: &Forked, evidence: &Evidence) -> [&'static str; 2] {
    let read = Evidence::from_file(&evidence.to_file()).unwrap();
    let proof = read.verify().unwrap();
    let leader = &forked.meeting.nodes[0];
    assert_eq!(proof.meeting, forked.meeting.id());
    assert_eq!(proof.leader, leader.session.me());
    assert_eq!(proof.creator, forked.meeting.link().creator);
    assert_eq!(proof.device, Some((leader.device.public().fingerprint(), "Alice".into())));
    proof.words
}

const LINK: &str = "a link of the roster's chain";

#[test]
fn a_link_of_the_other_side_is_proof() {
    let mut forked = Forked::new(50_001);
    forked.across(|from, to, slot| from == FACES[1] && to == BOB && slot == Slot::Log);
    forked.meeting.command(FACES[1], Command::Rotate).unwrap();
    let evidence = forked.caught(&[BOB], SOON);
    assert_eq!(holds(&forked, &evidence[0]), [LINK, LINK]);
    assert!(forked.told(BOB, "Alice, who leads, signed for two different links"));
    assert_eq!(forked.meeting.phase(DAVE), Phase::Live, "who has seen nothing goes on");
}

#[test]
fn a_heartbeat_of_the_other_side_is_proof_however_its_counter_stands() {
    for (seed, towards) in [(50_002, BOB), (50_003, CAROL)] {
        let mut forked = Forked::new(seed);
        let other = FACES[1 - side(towards)];
        forked.across(move |from, to, slot| from == other && to == towards && slot == Slot::Cell);
        let evidence = forked.caught(&[towards], SOON);
        assert!(holds(&forked, &evidence[0]).contains(&"a heartbeat"));
    }
}

#[test]
fn a_members_head_is_enough_and_the_other_sides_link_is_asked_for() {
    let mut forked = Forked::new(50_004);
    // Of all that Bob's side says Bob's head alone gets across, and to Carol alone; and what the two tell each other.
    let people = [BOB, CAROL].map(|node| forked.meeting.nodes[node].session.me());
    let met = Rc::new(Cell::new(None));
    let first = met.clone();
    forked.across(move |from, to, slot| match slot {
        Slot::Cell => {
            let meets = (from, to) == (BOB, CAROL);
            first.set(first.get().or(meets.then_some(())));
            meets
        }
        Slot::Direct(who) => people.contains(&who) && [BOB, CAROL].contains(&from),
        Slot::Log => false,
    });
    forked.meeting.run_until(s(11), |_| met.get().is_some());
    let evidence = forked.caught(&[CAROL, ERIN], SOON);
    for evidence in &evidence {
        assert_eq!(holds(&forked, evidence), [LINK, LINK], "both signed links, and Erin has them from Carol");
    }
    assert!(forked.told(CAROL, "Bob signs for another chain than ours"));
}

#[test]
fn both_sides_of_a_fork_read_each_others_heads() {
    let mut forked = Forked::new(50_005);
    forked.across(|from, to, slot| match slot {
        Slot::Cell => !FACES.contains(&from) && !FACES.contains(&to),
        Slot::Direct(_) => !FACES.contains(&from),
        Slot::Log => false,
    });
    let evidence = forked.caught(&[BOB, CAROL, DAVE, ERIN], s(11));
    for evidence in &evidence {
        assert_eq!(holds(&forked, evidence), [LINK, LINK]);
    }
}

#[test]
fn a_statement_and_a_beacon_of_the_other_side_are_enough() {
    for (seed, beacon) in [(50_006, false), (50_007, true)] {
        let mut forked = Forked::new(seed);
        let people = [BOB, CAROL].map(|node| forked.meeting.nodes[node].session.me());
        forked.across(move |from, to, slot| match slot {
            Slot::Log => !beacon && (from, to) == (BOB, CAROL),
            Slot::Direct(who) => people.contains(&who) && [BOB, CAROL].contains(&from),
            Slot::Cell => false,
        });
        if beacon {
            let span = Span {
                kid: KeyId::new(StreamId(1), index(&forked.meeting, BOB), 1),
                first: 0,
                frames: vec![FrameDigest([7; 16])],
                closed: false,
            };
            forked.meeting.command(BOB, Command::Beacon(vec![span])).unwrap();
            let body = forked.meeting.nodes[BOB].beacons[0].clone();
            forked.meeting.hand_beacon(CAROL, people[0], body);
        } else {
            forked.meeting.stream(BOB, "camera");
        }
        let evidence = forked.caught(&[CAROL], SOON);
        assert_eq!(holds(&forked, &evidence[0]), [LINK, LINK], "beacon: {beacon}");
    }
}

fn index(meeting: &Meeting, node: usize) -> u16 {
    let me = meeting.nodes[node].session.me();
    meeting.state(node).roster.iter().find(|person| person.participant == me).unwrap().index
}

#[test]
fn somebody_whom_only_the_other_side_let_in_is_asked_too() {
    let mut forked = Forked::new(50_008);
    forked.across(|_, _, _| false);
    // Frank, node 6, comes to the first face's side; Carol's has never heard of him.
    let frank = forked.meeting.join("Frank");
    forked.meeting.run_until(s(20), |meeting| meeting.phase(frank) == Phase::Live);
    let me = forked.meeting.nodes[frank].session.me();
    let carol = forked.meeting.nodes[CAROL].session.me();
    forked.across(move |from, to, slot| match slot {
        Slot::Cell => (from, to) == (frank, CAROL),
        Slot::Direct(who) => (from == frank && who == carol) || (from == CAROL && who == me),
        Slot::Log => false,
    });
    let evidence = forked.caught(&[CAROL], s(11) + SOON);
    assert_eq!(holds(&forked, &evidence[0]), [LINK, LINK]);
}

#[test]
fn a_chain_that_is_far_ahead_is_found_out_as_well() {
    let mut forked = Forked::new(50_009);
    for _ in 0..20 {
        forked.meeting.command(FACES[0], Command::Rotate).unwrap();
        forked.meeting.run(s(1));
    }
    let people = [BOB, CAROL].map(|node| forked.meeting.nodes[node].session.me());
    forked.across(move |from, to, slot| match slot {
        Slot::Cell => (from, to) == (BOB, CAROL),
        Slot::Direct(who) => people.contains(&who) && [BOB, CAROL].contains(&from),
        Slot::Log => false,
    });
    let evidence = forked.caught(&[CAROL], s(10) + SOON);
    assert_eq!(holds(&forked, &evidence[0]), [LINK, LINK]);
}

#[test]
fn no_single_bit_of_a_proof_can_be_another() {
    let mut forked = Forked::new(50_010);
    forked.across(|from, to, slot| from == FACES[1] && to == BOB && slot == Slot::Log);
    forked.meeting.command(FACES[1], Command::Rotate).unwrap();
    let evidence = forked.caught(&[BOB], SOON).remove(0);
    let (file, proof) = (evidence.to_file(), evidence.verify().unwrap());
    assert!(matches!(proof.fault, Fault::Links(_)));
    for bit in 0..file.len() * 8 {
        let mut other = file.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        let verified = Evidence::from_file(&other).and_then(|other| other.verify());
        assert!(verified.is_err() || verified == Ok(proof.clone()), "bit {bit}: {verified:?}");
    }
    for cut in 0..file.len() {
        assert!(Evidence::from_file(&file[..cut]).is_err());
    }
    assert!(Evidence::from_file(&[&file[..], &[0]].concat()).is_err());
    assert_eq!(Evidence::from_file(&vec![0; 3 << 20]), Err(EvidenceError::TooLong));
}

#[test]
fn a_proof_holds_names_and_no_secret() {
    let mut forked = Forked::new(50_011);
    forked.across(|from, to, slot| from == FACES[1] && to == BOB && slot == Slot::Log);
    forked.meeting.command(FACES[1], Command::Rotate).unwrap();
    let evidence = forked.caught(&[BOB], SOON).remove(0);
    let names: Vec<String> = evidence.names().into_iter().collect();
    assert_eq!(names, ["Alice"], "the creator's: nobody came with either link");
    let file = evidence.to_file();
    let has = |needle: &[u8]| file.windows(needle.len()).any(|window| window == needle);
    assert!(has(b"Alice") && !has(forked.meeting.link().secret.expose()));
    for node in &forked.meeting.nodes {
        assert!(node.ever.keys().all(|key| !has(key)));
    }
}

#[test]
fn a_fork_that_nobody_crosses_never_merges() {
    // Two halves for a long time; when the relay lets everything across, nobody takes a key or a link of the other side.
    let mut forked = Forked::new(50_012);
    let cameras = [BOB, CAROL].map(|node| forked.meeting.stream(node, "camera"));
    forked.across(|_, _, _| false);
    forked.meeting.run(s(60));
    assert!(forked.meeting.hears(BOB, cameras[0], DAVE) && forked.meeting.hears(CAROL, cameras[1], ERIN));
    let ever = |forked: &Forked, node: usize| -> Vec<[u8; 32]> {
        forked.meeting.nodes[node].ever.keys().copied().collect()
    };
    let theirs = ever(&forked, BOB);
    forked.across(|_, _, _| true);
    forked.meeting.run(s(120));
    for (node, across) in [(DAVE, CAROL), (ERIN, BOB), (BOB, CAROL), (CAROL, BOB)] {
        let stream = cameras[side(across)];
        assert!(!forked.meeting.hears(across, stream, node));
        assert_eq!(forked.meeting.phase(node), CAUGHT);
    }
    assert!(ever(&forked, CAROL).iter().all(|key| !theirs.contains(key)), "no key of the other side");
}

#[test]
fn nobody_is_added_silently() {
    let mut meeting = Meeting::of(3, 50_013, Successors::Nobody);
    let codes = |meeting: &Meeting| [0, 1, 2].map(|node| meeting.nodes[node].session.roster_code().unwrap());
    let (before, epoch) = (codes(&meeting), meeting.epoch(0));
    // The leader lets in a device that never shows itself.
    let hidden = Rc::new(Cell::new(true));
    let hides = hidden.clone();
    meeting.tamper = Some(Box::new(move |_, from, to, post| {
        let pulse = (from, to) == (3, 0) && matches!(post.slot, Slot::Direct(_));
        if pulse && hides.get() { Fate::Drop } else { Fate::Deliver }
    }));
    let ghost = meeting.join("Eve");
    meeting.run_until(s(10), |meeting| meeting.epoch(0) > epoch);
    meeting.run(s(1));
    for (node, before) in before.iter().enumerate() {
        let state = meeting.state(node);
        let eve = state.roster.iter().find(|person| person.name == "Eve").expect("she is on every list");
        assert!(!eve.present && state.epoch > Some(epoch), "with a new key");
        assert_ne!(codes(&meeting)[node], *before);
        assert_eq!(codes(&meeting)[node], codes(&meeting)[0]);
    }
    hidden.set(false);
    meeting.run_until(s(20), |meeting| meeting.together(&[0, 1, 2, ghost]));
    for node in 0..3 {
        let here = |event: &&Event| matches!(event, Event::Arrived { name, .. } if name == "Eve");
        assert_eq!(meeting.nodes[node].events.iter().filter(here).count(), 1, "and everybody is told");
    }
}

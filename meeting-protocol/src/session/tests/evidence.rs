//! What is proof, and what is not.

use super::{
    forks::{ALICE, BOB, CAROL, group, says},
    *,
};
use crate::{
    evidence::{EvidenceError, Fault},
    testing::Meeting,
};

/// The link after a leader's head, twice, as only a leader who lies signs it.
fn two_links(meeting: &Meeting, leader: usize) -> [SignedLink; 2] {
    let (group, me) = (group(meeting, leader), &meeting.nodes[leader].session.me);
    [true, false].map(|locked| {
        let changes = vec![Change::Lock(locked)];
        let digest = group.roster.after(&changes).unwrap().digest();
        me.sign(group.next_link(me.participant, (changes, digest), None, group.head().body.time))
    })
}

fn proof(meeting: &Meeting, leader: usize) -> Evidence {
    let words = two_links(meeting, leader).map(Word::Link);
    Evidence::new(group(meeting, leader).lineage.clone(), None, words).unwrap()
}

#[test]
fn a_leader_who_took_over_is_named_with_its_device() {
    let mut meeting = Meeting::of(3, 9_101, Successors::FirstPresent(1));
    meeting.run(std::time::Duration::from_secs(3));
    meeting.command(ALICE, Command::Leave).unwrap();
    meeting.run_until(std::time::Duration::from_secs(15), |meeting| meeting.together(&[BOB, CAROL]));
    // Its announce comes behind its link.
    meeting.run(std::time::Duration::from_secs(1));
    // Eve posts it once more with a spoilt signature: the proof is not lost by that.
    let mut spoilt = group(&meeting, CAROL).leader_signed.clone().unwrap().to_bytes();
    *spoilt.last_mut().unwrap() ^= 1;
    let spoilt = Message::Announce(SignedAnnounce::from_bytes(&spoilt).unwrap());
    says(&mut meeting, BOB, CAROL, &spoilt);
    for link in two_links(&meeting, BOB) {
        says(&mut meeting, BOB, CAROL, &Message::Link(link));
    }
    assert_eq!(meeting.phase(CAROL), CAUGHT);
    let file = meeting.nodes[CAROL].events.iter().find_map(|event| match event {
        Event::Evidence(evidence) => Some(evidence.to_file()),
        _ => None,
    });
    let file = file.unwrap();
    let proof = Evidence::from_file(&file).unwrap().verify().unwrap();
    let bob = &meeting.nodes[BOB];
    assert_eq!(proof.device, Some((bob.device.public().fingerprint(), "Bob".into())));
    assert_eq!((proof.leader, proof.changes), (bob.session.me(), 1));
    // All bits of a file without a change of leader: see evil_leader.rs.
    for bit in (0..file.len() * 8).step_by(13) {
        let mut other = file.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        let verified = Evidence::from_file(&other).and_then(|other| other.verify());
        assert!(verified.is_err() || verified == Ok(proof.clone()), "bit {bit}: {verified:?}");
    }
    assert_eq!(proof.creator, meeting.nodes[ALICE].device.public().fingerprint());
}

#[test]
fn pieces_of_other_meetings_runs_and_people_prove_nothing() {
    let (here, there) =
        (Meeting::of(2, 9_102, Successors::Nobody), Meeting::of(2, 9_103, Successors::Nobody));
    let (good, other) = (proof(&here, ALICE), proof(&there, ALICE));
    assert!(matches!(good.verify().unwrap().fault, Fault::Links(_)));
    let [first, second] = good.words.clone();
    let bob = |change: fn(&mut Link)| {
        let Word::Link(link) = &second else { unreachable!() };
        let mut body = link.body.clone();
        change(&mut body);
        Word::Link(here.nodes[BOB].session.me.sign(body))
    };
    let alice = |change: fn(&mut Link)| {
        let Word::Link(link) = &second else { unreachable!() };
        let mut body = link.body.clone();
        change(&mut body);
        Word::Link(here.nodes[ALICE].session.me.sign(body))
    };
    let with = |second: Word| Evidence { words: [first.clone(), second], ..good.clone() }.verify();
    assert_eq!(with(first.clone()), Err(EvidenceError::Agree), "one word twice");
    assert_eq!(with(bob(|_| {})), Err(EvidenceError::Signature), "somebody else signs for her");
    assert_eq!(with(bob(|link| link.leader = BOB_ID)), Err(EvidenceError::Signature), "or for himself");
    assert_eq!(with(alice(|link| link.meeting = MEETING)), Err(EvidenceError::Signature));
    assert_eq!(with(alice(|link| link.instance = INSTANCE)), Err(EvidenceError::Signature), "another run");
    assert_eq!(with(other.words[1].clone()), Err(EvidenceError::Signature));
    let moved = Evidence { lineage: other.lineage.clone(), ..good.clone() };
    assert_eq!(moved.verify(), Err(EvidenceError::Signature));
    // Bob's announce does not make Alice's words Bob's, nor does an announce of hers elsewhere count here.
    let announces = [
        here.nodes[BOB].session.me.announce(group(&here, BOB).instance, None),
        there.nodes[ALICE].session.me.announce(group(&there, ALICE).instance, None),
    ];
    for announce in announces {
        let blamed = Evidence { announce: Some(announce), ..good.clone() };
        assert_eq!(blamed.verify(), Err(EvidenceError::Leader));
    }
    // A chain that starts with Bob's own genesis leads to Bob, not to Alice.
    let me = &here.nodes[BOB].session.me;
    let mut lineage = good.lineage.clone();
    lineage.genesis = me.sign(lineage.genesis.body);
    assert_eq!(Evidence { lineage, ..good.clone() }.verify(), Err(EvidenceError::Leader));
}

const BOB_ID: ParticipantId = super::BOB;

#[test]
fn honest_words_in_any_pair_do_not_contradict_each_other() {
    let mut two = Two::new();
    let mut words: Vec<Word> = Vec::new();
    for round in 0..40 {
        if round % 7 == 0 {
            two.alice.handle(Input::Command(Command::Rotate), two.now, &mut two.rng).unwrap();
        }
        two.now = BootTime(two.now.0 + 1_000);
        two.alice.handle(Input::Timeout, two.now, &mut two.rng).unwrap();
        loop {
            match two.alice.poll_output() {
                Output::Timeout(_) => break,
                Output::Post { body, .. } => {
                    match Message::from_bytes(&two.alice.me.board.open(&body).unwrap().1).unwrap() {
                        Message::Link(link) => words.push(Word::Link(link)),
                        Message::Heartbeat(heartbeat) => words.push(Word::Heartbeat(heartbeat)),
                        _ => {}
                    }
                }
                _ => {}
            }
        }
    }
    assert!(words.len() > 20);
    let lineage = two.group().lineage.clone();
    for first in &words {
        for second in &words {
            let pair =
                Evidence { lineage: lineage.clone(), announce: None, words: [first.clone(), second.clone()] };
            assert_eq!(pair.verify(), Err(EvidenceError::Agree), "{first:?} {second:?}");
        }
    }
}

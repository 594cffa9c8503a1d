//! Pulses that prove nothing, and a member that pulses without end.

use std::time::Duration;

use super::{
    forks::{ALICE, BOB, CAROL, group, says},
    *,
};
use crate::testing::{Fate, Meeting};

const DAVE: usize = 3;

/// A member's next pulse and its proof; none before there is a pairing.
fn pulse(meeting: &Meeting, from: usize, nonce: [u8; 16]) -> Option<(Pulse, [u8; 32])> {
    let session = &meeting.nodes[from].session;
    let Place::Member(member) = &session.place else { return None };
    let member::Duty::Follow(follow) = &member.duty else { return None };
    let pulse = Pulse {
        meeting: session.me.meeting,
        instance: member.group.instance,
        participant: session.me(),
        nonce,
        head: member.group.head_hash(),
        epoch_link: member.group.epochs.newest.link,
        heard: follow.last.map_or(0, |(.., time)| time),
    };
    let mac = follow.pairing.as_ref()?.prove(&pulse.to_bytes());
    Some((pulse, mac))
}

/// As many pulses as a heartbeat returns nonces, each with one of its own.
fn flood(meeting: &Meeting, from: usize, round: u64) -> Vec<Message> {
    let with = |number: usize| {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&round.to_be_bytes());
        nonce[8..].copy_from_slice(&(number as u64).to_be_bytes());
        let (pulse, mac) = pulse(meeting, from, nonce)?;
        Some(Message::Pulse(ProvenPulse { pulse: meeting.nodes[from].session.me.sign(pulse), mac }))
    };
    (0..claims::MAX_ECHOES).filter_map(with).collect()
}

#[test]
fn nobody_is_present_before_a_signed_and_maced_pulse_proves_it() {
    let mut meeting = Meeting::new(9_602, Successors::Nobody);
    meeting.run(Duration::from_secs(1));
    // Nothing that Bob tells Alice alone comes, so none of his own pulses.
    meeting.tamper = Some(Box::new(|_, from, _, post| match post.slot {
        Slot::Direct(_) if from == BOB => Fate::Drop,
        _ => Fate::Deliver,
    }));
    meeting.join("Bob");
    meeting.run_until(Duration::from_secs(5), |meeting| pulse(meeting, BOB, [1; 16]).is_some());
    let present = |meeting: &mut Meeting, said: Option<ProvenPulse>| {
        if let Some(proven) = said {
            says(meeting, BOB, ALICE, &Message::Pulse(proven));
        }
        meeting.run(Duration::from_secs(3));
        let roster = meeting.state(ALICE).roster;
        roster.iter().find(|person| person.name == "Bob").map(|person| person.present)
    };
    assert_eq!(present(&mut meeting, None), Some(false), "let in, and nothing proved");

    let (body, mac) = pulse(&meeting, BOB, [2; 16]).unwrap();
    let bob = |pulse: &Pulse| meeting.nodes[BOB].session.me.sign(pulse.clone());
    let mut altered = mac;
    altered[31] ^= 1;
    let elsewhere = Pulse { instance: InstanceId([9; 16]), ..body.clone() };
    let false_pulses = [
        ("another's signature", Signed::new(body.clone(), &signer()), mac),
        ("the leader's own signature", meeting.nodes[ALICE].session.me.sign(body.clone()), mac),
        ("an altered proof", bob(&body), altered),
        ("no proof", bob(&body), [0; 32]),
        ("the proof of another pulse", bob(&Pulse { nonce: [3; 16], ..body.clone() }), mac),
        ("another run of the meeting", bob(&elsewhere), mac),
    ];
    let honest = bob(&body);
    for (name, pulse, mac) in false_pulses {
        let before = meeting.nodes[ALICE].session.counters().forged;
        assert_eq!(present(&mut meeting, Some(ProvenPulse { pulse, mac })), Some(false), "{name}");
        assert_eq!(meeting.nodes[ALICE].session.counters().forged, before + 1, "{name}");
    }
    assert_eq!(present(&mut meeting, Some(ProvenPulse { pulse: honest, mac })), Some(true));
}

#[test]
fn who_pulses_without_end_keeps_no_nonce_of_others_back() {
    let mut meeting = Meeting::of(4, 9_601, Successors::FirstPresent(1));
    meeting.run(Duration::from_secs(3));
    // Dave is far away.
    meeting.tamper = Some(Box::new(|_, from, to, _| match (from, to) {
        (DAVE, _) | (_, DAVE) => Fate::Delay(180),
        _ => Fate::Deliver,
    }));
    meeting.disconnect(ALICE);
    meeting.run_until(Duration::from_secs(20), |meeting| meeting.state(BOB).leading);
    let (start, bob, mut flooded) = (meeting.now, meeting.nodes[BOB].session.me(), 0);
    let follows = |meeting: &Meeting| {
        group(meeting, DAVE).roster.header.leader == bob && meeting.phase(DAVE) == Phase::Live
    };
    while !follows(&meeting) {
        meeting.run(Duration::from_millis(20));
        assert!(meeting.now - start < 5_000, "Dave waits for his nonce");
        let beat = group(&meeting, CAROL).last_beat.as_ref().map_or(0, |beat| beat.body.counter);
        if beat != flooded {
            for pulse in flood(&meeting, CAROL, meeting.now) {
                says(&mut meeting, CAROL, BOB, &pulse);
                flooded = beat;
            }
        }
    }
    assert!(flooded > 0);
}

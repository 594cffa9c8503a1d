//! A member that pulses without end.

use std::time::Duration;

use super::{
    forks::{ALICE, BOB, CAROL, group, says},
    *,
};
use crate::testing::{Fate, Meeting};

const DAVE: usize = 3;

/// As many pulses as a heartbeat returns nonces, each with one of its own; none before there is a pairing.
fn flood(meeting: &Meeting, from: usize, round: u64) -> Vec<Message> {
    let session = &meeting.nodes[from].session;
    let Place::Member(member) = &session.place else { return Vec::new() };
    let member::Duty::Follow(follow) = &member.duty else { return Vec::new() };
    let Some(pairing) = &follow.pairing else { return Vec::new() };
    let pulse = |number: usize| {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&round.to_be_bytes());
        nonce[8..].copy_from_slice(&(number as u64).to_be_bytes());
        let pulse = Pulse {
            meeting: session.me.meeting,
            instance: member.group.instance,
            participant: session.me(),
            nonce,
            head: member.group.head_hash(),
            epoch_link: member.group.epochs.newest.link,
            heard: follow.last.map_or(0, |(.., time)| time),
        };
        let mac = pairing.prove(&pulse.to_bytes());
        Message::Pulse(ProvenPulse { pulse: session.me.sign(pulse), mac })
    };
    (0..claims::MAX_ECHOES).map(pulse).collect()
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

//! A leader and as many participants as it takes, in virtual time.

use std::time::Duration;

use meeting_protocol::{
    session::{Command, Input, Output, Successors},
    testing::{Fate, Meeting},
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

const LEADER: usize = 0;
/// Those who join within the same second share a rotation.
const AT_ONCE: usize = 50;
/// Seconds they may take: a leader spends a MiB a second on welcomes, which have everybody in them.
const PATIENCE: usize = 60;

/// A meeting whose leader has everybody in its roster and proved to be present.
pub fn leader_of(participants: usize) -> Meeting {
    let mut meeting = Meeting::new(1, Successors::Nobody);
    // What participants say to each other is none of the leader's business, and takes most of the time.
    meeting.tamper =
        Some(Box::new(|_, from, to, _| match from == LEADER || to == LEADER || from == usize::MAX {
            true => Fate::Deliver,
            false => Fate::Drop,
        }));
    while meeting.nodes.len() < participants {
        for _ in 0..AT_ONCE.min(participants - meeting.nodes.len()) {
            meeting.join("Bob");
        }
        for _ in 0..PATIENCE {
            meeting.run(Duration::from_secs(1));
            if present(&meeting) == meeting.nodes.len() {
                break;
            }
        }
        assert_eq!(present(&meeting), meeting.nodes.len(), "who is in and proved to be present");
    }
    meeting
}

fn present(meeting: &Meeting) -> usize {
    meeting.state(LEADER).roster.iter().filter(|person| person.present).count()
}

/// A new key for everybody; gives the bytes posted for it.
pub fn rotate(meeting: &mut Meeting) -> usize {
    let now = meeting.local(LEADER);
    let mut rng = ChaCha20Rng::seed_from_u64(meeting.epoch(LEADER));
    let leader = &mut meeting.nodes[LEADER].session;
    leader.handle(Input::Command(Command::Rotate), now, &mut rng).expect("a leader may");
    let mut bytes = 0;
    loop {
        match leader.poll_output() {
            Output::Post { body, .. } => bytes += body.len(),
            Output::Timeout(_) => return bytes,
            _ => {}
        }
    }
}

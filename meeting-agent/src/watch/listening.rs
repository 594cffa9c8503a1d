//! Whose beacons come here. A sender's frames are asked for behind its beacons, so that there is one for the first frame
//! too, and nobody has to wonder who sent that.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use meeting_protocol::BootTime;
use meeting_wire::ParticipantId;

/// Senders whose beacons are asked for.
#[derive(Debug, Default)]
pub struct Listening(HashMap<ParticipantId, Sender>);

#[derive(Debug)]
struct Sender {
    since: BootTime,
    heard: bool,
}

impl Listening {
    /// From now on to these and nobody else.
    pub fn to(&mut self, senders: &BTreeSet<ParticipantId>, now: BootTime) {
        self.0.retain(|sender, _| senders.contains(sender));
        for sender in senders {
            self.0.entry(*sender).or_insert(Sender { since: now, heard: false });
        }
    }

    /// A beacon came; gives whether it is the first.
    pub fn hears(&mut self, sender: ParticipantId) -> bool {
        self.0.get_mut(&sender).is_some_and(|sender| !std::mem::replace(&mut sender.heard, true))
    }

    /// Whether frames of this sender may be asked for: where no beacon comes they are, and show as unverified.
    pub fn is_ready(&self, sender: ParticipantId, now: BootTime) -> bool {
        self.0.get(&sender).is_some_and(|sender| sender.heard || now.since(sender.since) >= PATIENCE)
    }

    /// Whether any are.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Two beacons' time: senders sign each 450 ms.
const PATIENCE: Duration = Duration::from_millis(950);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_behind_the_first_beacon_or_in_a_while() {
        let [bob, carol] = [0xb, 0xc].map(|n| ParticipantId([n; 16]));
        let mut listening = Listening::default();
        listening.to(&BTreeSet::from([bob, carol]), BootTime(1_000));
        assert!(!listening.is_ready(bob, BootTime(1_100)));
        assert!(listening.hears(bob) && !listening.hears(bob));
        assert!(listening.is_ready(bob, BootTime(1_100)) && !listening.is_ready(carol, BootTime(1_100)));
        assert!(listening.is_ready(carol, BootTime(1_950)), "a sender without beacons is not muted");
        listening.to(&BTreeSet::new(), BootTime(2_000));
        listening.to(&BTreeSet::from([bob]), BootTime(2_100));
        assert!(!listening.is_ready(bob, BootTime(2_100)), "and then all over again");
    }
}

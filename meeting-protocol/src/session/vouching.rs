//! Beacons as signed words of a stay: made for our own frames, checked for everybody else's (PROTOCOL.md 5).

use std::collections::HashMap;

use meeting_wire::{Encode, InstanceId, ParticipantId};

use super::{Output, context::Cx, epochs::Opened, message::Message};
use crate::{
    beacon::{Beacon, Context, SignedBeacon, Span, Vouch},
    roster::Entry,
    weakness::{self, Weakness},
};

/// Numbers of beacons, ours and theirs.
#[derive(Default)]
pub(super) struct Vouching {
    next: u64,
    /// Those of each participant in the roster that have come.
    heard: HashMap<ParticipantId, Heard>,
}

/// Which of a sender's beacons have come: one may overtake another, and none counts twice.
#[derive(Clone, Copy, Default)]
struct Heard {
    newest: u64,
    /// Bit n stands for the one that is n before the newest.
    came: u64,
}

impl Heard {
    /// Whether this one has come, or is so far behind that nobody knows.
    fn has(&self, number: u64) -> bool {
        let behind = self.newest.checked_sub(number);
        behind.is_some_and(|behind| behind >= REORDERED || self.came >> behind & 1 == 1)
    }

    fn note(&mut self, number: u64) {
        let ahead = number.saturating_sub(self.newest);
        self.came = if ahead < REORDERED { self.came << ahead } else { 0 };
        self.newest = self.newest.max(number);
        let behind = self.newest - number;
        self.came |= if behind < REORDERED { 1 << behind } else { 0 };
    }
}

impl Vouching {
    /// Signs for frames of ours.
    pub fn beacon(
        &mut self,
        spans: Vec<Span>,
        time: Option<u64>,
        newest: &Opened,
        instance: InstanceId,
        cx: &mut Cx<'_>,
    ) {
        self.next += 1;
        let body = Beacon {
            number: self.next,
            epoch: newest.epoch,
            link: newest.link,
            time: time.unwrap_or_default(),
            spans,
        };
        let beacon = SignedBeacon::new(body, &context(cx, &instance, &cx.me.participant), &cx.me.signer);
        let message = Message::Beacon(beacon).to_bytes();
        let body = cx.me.board.seal(instance, &message, cx.rng);
        cx.out.push(Output::Beacon(body));
    }

    /// Whether a beacon is `entry`'s, and has not come before.
    pub fn is_new(
        &mut self,
        beacon: &SignedBeacon,
        entry: &Entry,
        instance: InstanceId,
        cx: &mut Cx<'_>,
    ) -> bool {
        let body = &beacon.body;
        let mut heard = self.heard.get(&entry.participant).copied().unwrap_or_default();
        if heard.has(body.number) {
            cx.counters.stale += 1;
            return false;
        }
        let ours = body.spans.iter().all(|span| span.kid.index() == entry.index);
        let signed = beacon.is_by(&entry.signer, &context(cx, &instance, &entry.participant))
            || weakness::is(Weakness::BeaconUnsigned);
        if !ours || !signed {
            cx.counters.forged += 1;
            return false;
        }
        heard.note(body.number);
        self.heard.insert(entry.participant, heard);
        true
    }

    /// Hands on what a beacon of `from`'s signs for.
    pub fn hand_on(
        from: ParticipantId,
        beacon: SignedBeacon,
        time: Option<u64>,
        newest: &Opened,
        cx: &mut Cx<'_>,
    ) {
        // A new leader's clock starts anew with its first epoch.
        let known = beacon.body.time > 0 && beacon.body.epoch == newest.epoch;
        let delay = time.filter(|_| known).map(|time| time.saturating_sub(beacon.body.time));
        let vouch = Vouch { spans: beacon.body.spans, delay };
        cx.out.push(Output::Vouched { from, vouch });
    }

    /// Somebody is gone.
    pub fn gone(&mut self, participant: ParticipantId) {
        self.heard.remove(&participant);
    }
}

fn context<'a>(cx: &'a Cx<'_>, instance: &'a InstanceId, sender: &'a ParticipantId) -> Context<'a> {
    Context { meeting: &cx.me.meeting.0, instance: &instance.0, sender: &sender.0 }
}

/// How far a beacon may be behind the newest: 20 s.
const REORDERED: u64 = u64::BITS as u64;

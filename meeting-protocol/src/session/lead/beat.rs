//! Heartbeats out, pulses in.

use std::time::Duration;

use meeting_wire::{Encode, Slot};

use super::{BEAT, CHALLENGE, EARLY_BEAT, Lead, MAX_CHALLENGES};
use crate::{
    roster::Change,
    secret::Secret,
    session::{
        claims::Heartbeat,
        context::Cx,
        group::Group,
        message::{Message, ProvenPulse},
    },
    weakness::{self, Weakness},
};

impl Lead {
    pub(in crate::session) fn on_pulse(&mut self, proven: &ProvenPulse, group: &mut Group, cx: &mut Cx<'_>) {
        let pulse = &proven.pulse.body;
        let entry = group.roster.entry(pulse.participant);
        let peer = self.peers.get_mut(&pulse.participant);
        let (Some(entry), Some(peer)) = (entry, peer) else {
            cx.counters.unauthorised += 1;
            return;
        };
        let proved = pulse.meeting == cx.me.meeting
            && pulse.instance == group.instance
            && (peer.pairing.proves(&pulse.to_bytes(), &proven.mac) && proven.pulse.is_by(&entry.signer)
                || weakness::is(Weakness::PulseUnproved));
        if !proved {
            cx.counters.forged += 1;
            return;
        }
        if group.knows(&pulse.epoch_link) == Some(false) || group.knows(&pulse.head) == Some(false) {
            group.doubt(pulse.participant, cx);
            return;
        }
        if self.echoes.get(&pulse.participant) == Some(&pulse.nonce) {
            cx.counters.stale += 1;
            return;
        }
        // A pulse held back or played again proves no more than that its sender heard that heartbeat.
        let heard = self.since + Duration::from_millis(pulse.heard);
        peer.seen = peer.seen.max(heard.min(cx.now));
        let waits = peer.offer.take().is_some();
        if let Some(wrap) = &mut peer.wrap {
            wrap.offer = None;
        }
        self.echoes.insert(pulse.participant, pulse.nonce);
        if waits {
            self.next_beat = self.next_beat.min(cx.now + EARLY_BEAT);
        }
        if !entry.present && !self.proved.contains(&pulse.participant) {
            self.proved.push(pulse.participant);
        }
    }

    pub(super) fn beat(&mut self, group: &mut Group, cx: &mut Cx<'_>) {
        self.next_beat = cx.now + BEAT;
        self.ticked = cx.now;
        if !self.proved.is_empty() {
            let proved = std::mem::take(&mut self.proved);
            let devices =
                proved.iter().filter_map(|proved| group.roster.entry(*proved)).map(|entry| entry.device);
            devices.for_each(|device| self.admission.was_present(device));
            self.commit(proved.into_iter().map(Change::Present).collect(), Vec::new(), false, group, cx);
        }
        let challenge = *Secret::<32>::random(cx.rng).expose();
        self.challenges.retain(|(_, issued)| cx.now.since(*issued) <= CHALLENGE);
        if self.challenges.len() >= MAX_CHALLENGES {
            self.challenges.pop_front();
        }
        self.challenges.push_back((challenge, cx.now));
        self.counter += 1;
        let heartbeat = Heartbeat {
            meeting: cx.me.meeting,
            instance: group.instance,
            leader: cx.me.participant,
            counter: self.counter,
            head_number: group.head().body.number,
            head: group.head_hash(),
            epoch: group.epochs.newest.epoch,
            epoch_link: group.epochs.newest.link,
            challenge,
            time: self.time(cx.now),
            previous: self.last,
            echoes: std::mem::take(&mut self.echoes).into_values().collect(),
        };
        self.last = heartbeat.hash();
        cx.post(Slot::Cell, group.instance, &Message::Heartbeat(cx.me.sign(heartbeat)));
        self.tell_rival(group, cx);
    }
}

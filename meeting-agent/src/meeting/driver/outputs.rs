//! What comes out of a session, on its way to elements, media and people.

use std::time::Duration;

use meeting_protocol::{
    local::FromAgent,
    session::{EndReason, Event, KeyChange, Phase},
};
use meeting_wire::ParticipantId;
use tracing::{info, warn};

use super::Driver;
use crate::{clock, evidence, glance, keyholders::TheirKey, watch::Stated};

impl Driver {
    pub(super) fn keys(&mut self, change: KeyChange) {
        match change {
            KeyChange::Seal { stream, epoch, kid, suite, base_key, keyframe } => {
                let suite = suite as u16;
                self.media.publisher.sealed_under(stream, kid);
                self.holders
                    .seal(stream, &FromAgent::SealKey { stream, epoch, kid, suite, base_key, keyframe });
            }
            KeyChange::Retire { before, at } => self.holders.retire(before, at),
            KeyChange::Open { from, stream, track, kind, caps, epoch, kid, suite, base_key, floor } => {
                let name = self.name(from);
                let stated = Stated { name: name.clone(), track: track.clone(), kind, caps: caps.clone() };
                let suite = suite as u16;
                let key = TheirKey { name, track, caps, epoch, kid, suite, base_key, floor };
                self.holders.open(from, stream, key);
                let messages = self.media.watching.stated((from, stream), stated, (kid, epoch));
                self.send(messages);
            }
            KeyChange::Close { from, stream } => {
                self.holders.close(from, stream);
                let messages = self.media.watching.ended((from, stream));
                self.send(messages);
            }
            KeyChange::Expire { before } => {
                self.holders.expire(before);
                self.media.watching.expire(before);
            }
            KeyChange::Lease { until } => self.holders.lease(until),
        }
    }

    fn name(&mut self, participant: ParticipantId) -> String {
        if !self.names.contains_key(&participant) {
            let roster = self.session.state().roster;
            self.names = roster.into_iter().map(|person| (person.participant, person.name)).collect();
        }
        self.names.get(&participant).cloned().unwrap_or_default()
    }

    pub(super) fn event(&mut self, event: Event) {
        let meeting = self.plan.link.meeting;
        match &event {
            Event::Phase(Phase::Ended(reason)) => self.ended(*reason),
            Event::Phase(Phase::Live) => (self.seeking, self.create) = (false, None),
            Event::Epoch(epoch) => {
                self.epochs += 1;
                info!(%meeting, epoch, "a new key is in use");
            }
            Event::LeaderChanged { participant, .. } => info!(%meeting, %participant, "somebody else leads"),
            Event::Misbehaviour(_) => {
                warn!(%meeting, "a peer broke the protocol: `meeting-agent status` says who")
            }
            Event::Evidence(proof) => {
                let sentence = match evidence::keep(&self.plan.state, &proof.to_file()) {
                    Ok(id) => format!("the proof of it is kept: `meeting-agent evidence export {id}`"),
                    Err(error) => format!("the proof of it could not be kept: {error}"),
                };
                self.remember(sentence);
            }
            _ => {}
        }
        if let Some(sentence) = glance::event(&event) {
            self.remember(sentence);
        }
    }

    /// For `status`.
    pub(super) fn remember(&mut self, sentence: String) {
        if self.events.len() >= EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(sentence);
    }

    fn ended(&mut self, reason: EndReason) {
        info!(meeting = %self.plan.link.meeting, ?reason, "out of the meeting");
        self.redial = None;
        if matches!(reason, EndReason::Branch | EndReason::Stale) {
            self.rejoin = Some(clock::now() + REJOIN + Duration::from_millis(clock::jitter(1_000)));
            return;
        }
        // out for good; elements stay connected and hear why
        if let Some(link) = self.link.take() {
            tokio::spawn(link.goodbye());
        }
        self.connected = false;
        self.down = None;
        self.media.watching.all_ended();
    }
}

/// Between the end of a stay and the next: branches must not rejoin in step.
const REJOIN: Duration = Duration::from_millis(500);
/// What `status` remembers.
const EVENTS: usize = 50;

//! How much a leader says to single people. Whoever holds the link can ask under many names at once, and welcomes and
//! links are large: all of them share so many bytes a second, and who was answered longest ago comes first.

use std::time::Duration;

use meeting_wire::{Encode, ParticipantId};

use super::{ANSWER, LINKS_PER_POST, Lead, NEWCOMERS, REMOVAL};
use crate::{
    BootTime,
    crypto::sign::Hash,
    session::{context::Cx, group::Group, message::Message, welcome},
};

/// Bytes of welcomes and links in one second: a quarter of what the relay takes of one person.
pub(in crate::session) const BYTES: usize = 1 << 20;
const SECOND: Duration = Duration::from_secs(1);
/// What newcomers have of it while some are at the door, whatever those who are in ask for.
const FOR_NEWCOMERS: Duration = Duration::from_millis(500);
/// A welcome beside its chain of leaders, its roster and those who come with it.
const WELCOME: usize = 4096;

/// What may still be sent, as time: each byte takes its part of a second.
#[derive(Default)]
pub(super) struct Allowance {
    /// Until when all that was sent is paid for; what more than a second has saved is lost.
    paid: BootTime,
}

impl Allowance {
    fn left(&self, now: BootTime) -> Duration {
        now.since(self.paid).min(SECOND)
    }

    /// Goes into debt rather than cut a post.
    pub fn spend(&mut self, bytes: usize, now: BootTime) {
        let from = self.paid.max(BootTime(now.0.saturating_sub(SECOND.as_millis() as u64)));
        self.paid = from + Duration::from_millis(bytes.div_ceil(BYTES / 1000) as u64);
    }

    /// People whom a link can let in, beside a welcome of so many bytes: each is in the roster of all and in the
    /// link. One at least, or nobody would ever come in.
    fn newcomers(&self, welcome: usize, now: BootTime) -> usize {
        let bytes = self.left(now).as_millis() as usize * BYTES / 1000;
        let each = 2 * welcome::MAX_ENTRY + REMOVAL;
        (1..=NEWCOMERS).take_while(|many| many * (welcome + many * each) <= bytes).last().unwrap_or(1)
    }
}

/// What somebody misses.
#[derive(Clone, Copy)]
pub(super) struct Missed {
    /// The newest link they have; a welcome is sent where it is not one of those that are kept.
    pub head: Hash,
    /// The newest epoch they have the key of.
    pub epoch: u64,
}

impl Missed {
    /// The welcome was lost.
    pub const ALL: Self = Self { head: [0; 32], epoch: 0 };
}

impl Lead {
    /// Whether a question of theirs may be looked at.
    pub(super) fn may_ask(&self, participant: ParticipantId, now: BootTime) -> bool {
        let peer = self.peers.get(&participant);
        peer.is_some_and(|peer| peer.asked.is_none() && now.since(peer.answered) >= ANSWER)
    }

    pub(super) fn asked(&mut self, participant: ParticipantId, missed: Missed) {
        if let Some(peer) = self.peers.get_mut(&participant) {
            peer.asked = Some(missed);
        }
    }

    /// Whether there is something left for those who are in.
    fn may_answer(&self, now: BootTime) -> bool {
        self.allowance.left(now) > self.kept_for_newcomers()
    }

    /// The same, and nobody in the roster waits for it.
    pub(super) fn is_idle(&self, now: BootTime) -> bool {
        self.may_answer(now) && self.peers.values().all(|peer| peer.asked.is_none())
    }

    fn kept_for_newcomers(&self) -> Duration {
        if self.admission.is_due() { FOR_NEWCOMERS } else { Duration::ZERO }
    }

    /// Answers those who have asked, as far as the allowance goes.
    pub(super) fn answer(&mut self, group: &Group, cx: &mut Cx<'_>) {
        while self.may_answer(cx.now) {
            let asked = self.peers.iter_mut().filter(|(_, peer)| peer.asked.is_some());
            let Some((participant, peer)) = asked.min_by_key(|(_, peer)| peer.answered) else { return };
            let (participant, missed) = (*participant, peer.asked.take().unwrap_or(Missed::ALL));
            peer.answered = cx.now;
            let mut bytes = 0;
            if missed.head != group.head_hash() {
                bytes += match group.links_after(&missed.head) {
                    Some(links) => links
                        .chunks(LINKS_PER_POST)
                        .map(|chunk| group.tell(participant, &Message::Links(chunk.to_vec()), cx))
                        .sum(),
                    None => self.welcome(participant, group, cx),
                };
            }
            if missed.epoch < group.epochs.newest.epoch {
                bytes += self.send_wrap(participant, group, cx);
            }
            self.allowance.spend(bytes, cx.now);
        }
    }

    /// When there is something left again for those who wait for it.
    pub(super) fn next_answer(&self) -> Option<BootTime> {
        let waits = self.peers.values().any(|peer| peer.asked.is_some());
        waits.then(|| self.allowance.paid + self.kept_for_newcomers() + Duration::from_millis(1))
    }

    /// How many the next link lets in.
    pub(super) fn newcomers(&self, group: &Group, now: BootTime) -> usize {
        let (lineage, roster) = (group.lineage.to_bytes().len(), group.roster.to_bytes().len());
        let fit = |many: &usize| welcome::is_a_post(lineage, roster + many * welcome::MAX_ENTRY);
        let affordable = self.allowance.newcomers(lineage + roster + WELCOME, now);
        (1..=affordable).take_while(fit).last().unwrap_or(1)
    }
}

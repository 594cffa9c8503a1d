//! What others want of a leader: a place, what they miss, or to leave.

use super::{ANSWER, Lead, Missed, given};
use crate::{
    announce::SignedAnnounce,
    crypto::sign::Signed,
    session::{
        claims::{Ask, Leave},
        context::Cx,
        group::Group,
        message::Message,
    },
};

impl Lead {
    pub(in crate::session) fn on_announce(
        &mut self,
        announce: SignedAnnounce,
        group: &mut Group,
        cx: &mut Cx<'_>,
    ) {
        let given = given(&self.challenges, &announce, cx.now);
        let here = (announce.unverified().meeting, announce.unverified().instance);
        let Some(given) = given.filter(|_| here == (cx.me.meeting, group.instance)) else {
            cx.counters.stale += 1;
            return;
        };
        let participant = announce.unverified().participant;
        if let Some(entry) = group.roster.entry(participant) {
            // They ask again because they missed the answer; whoever is proved to be in does not ask.
            let missed = !entry.present && entry.signer == announce.unverified().signer;
            if missed && self.may_ask(participant, cx.now) && announce.verified().is_some() {
                self.asked(participant, Missed::ALL);
            }
            return;
        }
        let signer = announce.unverified().signer;
        if self.signers(participant, group).iter().any(|known| *known != signer) {
            // Somebody else's id: what that one says, on another branch perhaps, would be taken for forged.
            cx.counters.unauthorised += 1;
            return;
        }
        self.admission.on_announce(announce, given, group, cx);
    }

    pub(in crate::session) fn on_ask(&mut self, signed: &Signed<Ask>, group: &mut Group, cx: &mut Cx<'_>) {
        let ask = &signed.body;
        let signer = group.roster.entry(ask.participant).map(|entry| entry.signer);
        let Some(signer) = signer else {
            self.tell_gone(signed, group, cx);
            return;
        };
        if !self.may_ask(ask.participant, cx.now) {
            cx.counters.over_limit += 1;
            return;
        }
        if !ask.is_here(cx.me.meeting, group.instance) || !signed.is_by(&signer) {
            cx.counters.forged += 1;
            return;
        }
        self.asked(ask.participant, Missed { head: ask.head, epoch: ask.epoch });
    }

    /// Somebody who is out asks why nothing comes any more: the links up to the one that says so.
    fn tell_gone(&mut self, signed: &Signed<Ask>, group: &Group, cx: &mut Cx<'_>) {
        let ask = &signed.body;
        let idle = self.is_idle(cx.now);
        let gone = self.gone.iter_mut().find(|gone| gone.participant == ask.participant);
        let Some(gone) = gone.filter(|gone| idle && gone.told.is_none_or(|at| cx.now.since(at) >= ANSWER))
        else {
            cx.counters.unauthorised += 1;
            return;
        };
        if !ask.is_here(cx.me.meeting, group.instance) || !signed.is_by(&gone.signer) {
            cx.counters.forged += 1;
            return;
        }
        gone.told = Some(cx.now);
        let mut links = group.links_after(&ask.head).unwrap_or_default();
        links.retain(|link| link.body.number <= gone.link);
        if !links.is_empty() {
            let bytes = group.tell(ask.participant, &Message::Links(links), cx);
            self.allowance.spend(bytes, cx.now);
        }
    }

    /// They are out with the next link, now or when others who leave meanwhile have said so too.
    pub(in crate::session) fn on_leave(&mut self, leave: &Leave) {
        if !self.leaving.contains(&leave.participant) {
            self.leaving.push(leave.participant);
        }
    }
}

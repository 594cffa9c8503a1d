//! The chain: each link is checked against the one before, the leader's key and the rules.

use super::{ASK_AFTER, Follow};
use crate::{
    evidence::Word,
    roster::{Change, Entry, Link, Roster, SignedLink},
    session::{EndReason, context::Cx, group::Group, welcome::Welcome},
    weakness::{self, Weakness},
};

impl Follow {
    pub(in crate::session) fn on_link(&mut self, link: SignedLink, group: &mut Group, cx: &mut Cx<'_>) {
        let body = &link.body;
        if body.meeting != cx.me.meeting || body.instance != group.instance {
            cx.counters.forged += 1;
            return;
        }
        if group.convict(Word::Link(link.clone()), cx) {
            return;
        }
        let by_leader = |group: &Group| {
            body.leader == group.roster.header.leader
                && group.roster.leader_signer().is_some_and(|signer| link.is_by(&signer))
                || weakness::is(Weakness::LinkUnsigned)
        };
        let head = group.head().body.number;
        if body.number <= head {
            match group.link(body.number) {
                Some((known, _)) if *known == body.hash() => {}
                // A link of an earlier leader's: no word of this one contradicts it.
                Some(_) if by_leader(group) => self.caught("signed another link of one number", group, cx),
                _ => cx.counters.stale += 1,
            }
            return;
        }
        if body.number > head + 1 {
            // Whoever wrote it: one question is all it can cause.
            self.seen_head = self.seen_head.max(head + 1);
            self.ask_soon(cx.now);
            return;
        }
        if body.takeover().is_some() {
            self.on_takeover(link, group, cx);
            return;
        }
        if !by_leader(group) {
            cx.counters.forged += 1;
            return;
        }
        if body.previous != group.head_hash() {
            self.caught("signed a link for another chain than ours", group, cx);
            return;
        }
        if body.time < group.head().body.time {
            self.caught("signed a link that is older than the one before", group, cx);
            return;
        }
        if self.extend(link, group, cx) {
            self.open_held(group, cx);
        }
    }

    /// Goes on to a link of the right place and signer, if it keeps the rules.
    pub(in crate::session) fn extend(
        &mut self,
        link: SignedLink,
        group: &mut Group,
        cx: &mut Cx<'_>,
    ) -> bool {
        let body = &link.body;
        let roster = match group.roster.after(&body.changes) {
            Ok(_) if breaks_lock(body, &group.roster) => {
                group.caught(body.leader, "let somebody new into a locked meeting", cx);
                return false;
            }
            Ok(roster) if roster.digest() == body.digest => roster,
            Ok(_) => {
                group.caught(body.leader, "signed a link whose digest is not its roster's", cx);
                return false;
            }
            Err(error) => {
                group.caught(body.leader, &format!("signed a link that cannot be: {error}"), cx);
                return false;
            }
        };
        match &body.opening {
            Some(opening) if !group.epochs.may_open(opening) => {
                group.caught(body.leader, "opened an epoch out of order or with a key used before", cx);
                return false;
            }
            None if body.adds() || body.removes() => {
                group.caught(body.leader, "let somebody in or out without a new key", cx);
                return false;
            }
            _ => {}
        }
        let rotates = body.opening.is_some();
        group.adopt(link, roster, cx);
        if group.roster.header.successor_limit == 0 && self.pairing.is_some() {
            // Nobody will ever encapsulate to us again.
            self.kem = None;
        }
        self.announces.retain(|participant, _| group.roster.entry(*participant).is_some());
        if rotates && group.ending.is_none() {
            self.next_ask = Some(cx.now + ASK_AFTER);
            self.ask_pause = ASK_AFTER;
        }
        true
    }

    /// The leader found our place in the chain too far back for links: go on from its newest one.
    pub(in crate::session) fn on_welcome(&mut self, welcome: Welcome, group: &mut Group, cx: &mut Cx<'_>) {
        let news = welcome.lineage == group.lineage && welcome.head.body.number > group.head().body.number;
        // While our leader is heard only a branch that answers it ends us.
        let gives_way = self.is_silent(cx.now) && group.gives_way(&welcome.lineage);
        // Signatures last: there may be hundreds.
        if !news && !gives_way {
            cx.counters.stale += 1;
            return;
        }
        let own = group.roster.entry(cx.me.participant);
        let same = |entry: &Entry| {
            own.is_some_and(|own| *entry == Entry { present: entry.present, ..own.clone() })
                && entry.announce == welcome.announce
        };
        let roster = welcome.roster((cx.me.meeting, group.instance));
        let Some(roster) = roster.filter(|roster| roster.entry(cx.me.participant).is_some_and(same)) else {
            cx.counters.forged += 1;
            return;
        };
        if gives_way {
            // We missed a change of leader, and the links that led there: the way back is a new stay.
            group.ending = Some(EndReason::Branch);
            return;
        }
        for link in [welcome.epoch_link(), &welcome.head] {
            if group.convict(Word::Link(link.clone()), cx) {
                return;
            }
        }
        let (epoch, newest) = (welcome.epoch_link(), group.epochs.newest);
        if epoch.body.opening.is_none_or(|opening| opening.epoch < newest.epoch) {
            self.caught("went back to an earlier epoch", group, cx);
            return;
        }
        if welcome.head.body.time < group.head().body.time {
            self.caught("signed a link that is older than the one before", group, cx);
            return;
        }
        group.skip_to(welcome, roster, cx);
    }

    /// The leader broke the protocol: nothing of it counts any more.
    pub(in crate::session) fn caught(&mut self, what: &str, group: &mut Group, cx: &mut Cx<'_>) {
        group.caught(group.roster.header.leader, what, cx);
    }
}

/// Whether a link adds a device that was not in while nobody new was to be let in.
fn breaks_lock(link: &Link, before: &Roster) -> bool {
    let new = |change: &Change| matches!(change, Change::Add(entry) if before.device(entry.device).is_none());
    before.header.locked && link.changes.iter().any(new)
}

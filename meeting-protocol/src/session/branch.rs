//! Two who lead in one instance: the relay cut the meeting in two, and each side knows nothing of the other's changes of
//! leader. The branch that goes first stays, and everybody on the other one joins again (PROTOCOL.md 3.8).
//!
//! ```text
//!  one leader  <--heartbeat(challenge)--  another one
//!       |                                     |
//!       '--branch(challenge, lineage)-------> |  mine goes first: nothing.  Theirs does: passes it on, and ends
//! ```
//!
//! The challenge shows that whoever goes first leads now: what is left of a branch that died ends no living one.

use super::{
    EndReason,
    claims::{Heartbeat, Leads},
    context::Cx,
    follow::Follow,
    group::Group,
    lead::{BEAT, CHALLENGE, Lead},
    lineage::Step,
    message::{Branch, Message},
};

impl Lead {
    /// Somebody else beats in this instance: a leader before us, or one of another branch, whose signature we cannot
    /// check. It is told who leads here and why.
    pub fn on_heartbeat(&mut self, heartbeat: &Heartbeat, group: &Group, cx: &mut Cx<'_>) {
        let them = heartbeat.leader;
        // Anybody may have written it: one answer a beat is all it can cause, and of two who beat each has its turn.
        let due =
            self.told.is_none_or(|(who, at)| cx.now.since(at) >= if who == them { BEAT * 2 } else { BEAT });
        if them == cx.me.participant || !due {
            return;
        }
        self.told = Some((them, cx.now));
        let word = cx.me.sign(Leads {
            meeting: cx.me.meeting,
            instance: group.instance,
            leader: cx.me.participant,
            challenge: heartbeat.challenge,
        });
        let branch = Branch { word, lineage: group.lineage.clone() };
        group.tell(them, &Message::Branch(Box::new(branch)), cx);
    }

    /// Somebody else who leads in this instance has heard us.
    pub fn on_branch(&mut self, branch: Box<Branch>, group: &mut Group, cx: &mut Cx<'_>) {
        let ours = |(challenge, issued): &(_, _)| {
            *challenge == branch.word.body.challenge && cx.now.since(*issued) <= CHALLENGE
        };
        if self.challenges.iter().any(ours) && group.is_behind(&branch, cx) {
            // Those who follow us would find us silent, and go on without us.
            group.tell_all(&Message::Branch(branch), cx);
            group.ending = Some(EndReason::Branch);
        } else {
            cx.counters.stale += 1;
        }
    }
}

impl Follow {
    /// Our leader has been answered by one who goes before it.
    pub fn on_branch(&mut self, branch: &Branch, group: &mut Group, cx: &mut Cx<'_>) {
        if !self.challenges.contains(&branch.word.body.challenge) {
            cx.counters.stale += 1;
            return;
        }
        match branch.lineage.steps.last() {
            // From where we stand, and of this silence: a takeover like any other.
            Some(Step { takeover, .. })
                if takeover.body.previous == group.head_hash() && !self.is_past(takeover) =>
            {
                self.on_takeover(takeover.clone(), group, cx);
            }
            _ if group.is_behind(branch, cx) => group.ending = Some(EndReason::Branch),
            _ => cx.counters.stale += 1,
        }
    }
}

impl Group {
    /// Whether who says this leads, now and with every right, and ours has to give way.
    fn is_behind(&self, branch: &Branch, cx: &Cx<'_>) -> bool {
        let (word, of) = (&branch.word.body, (cx.me.meeting, self.instance));
        // Signatures last: there may be hundreds.
        (word.meeting, word.instance) == of
            && self.gives_way(&branch.lineage)
            && branch
                .lineage
                .leader(of)
                .is_some_and(|(leader, signer)| word.leader == leader && branch.word.is_by(&signer))
    }
}

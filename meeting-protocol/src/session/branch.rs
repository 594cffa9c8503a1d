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

use std::collections::VecDeque;

use meeting_wire::ParticipantId;

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
use crate::{
    BootTime,
    crypto::sign::{Hash, Signed},
};

/// Others who lead in this instance and whose keys we know.
const MAX_RIVALS: usize = 64;

/// Who else leads in this instance, and is told that we do.
#[derive(Default)]
pub(super) struct Rivals {
    /// Those whose keys we know; who was told longest ago is first.
    known: VecDeque<Rival>,
    /// When one of them was told.
    told: Option<BootTime>,
    /// Which of the others was told last, and when.
    stranger: Option<(ParticipantId, BootTime)>,
}

struct Rival {
    leader: ParticipantId,
    /// Of its newest heartbeat, and the challenge in that until it is answered.
    counter: u64,
    challenge: Option<Hash>,
}

impl Rivals {
    /// A heartbeat of somebody whose key we know; whether it is news.
    fn heard(&mut self, heartbeat: &Heartbeat) -> bool {
        let (counter, challenge) = (heartbeat.counter, Some(heartbeat.challenge));
        match self.known.iter_mut().find(|rival| rival.leader == heartbeat.leader) {
            Some(rival) if rival.counter >= counter => return false,
            Some(rival) => (rival.counter, rival.challenge) = (counter, challenge),
            None => {
                if self.known.len() >= MAX_RIVALS {
                    self.known.pop_front();
                }
                self.known.push_back(Rival { leader: heartbeat.leader, counter, challenge });
            }
        }
        true
    }

    /// Whose turn it is, and the challenge to answer: the newest one, so that old heartbeats keep nobody from it.
    fn next(&mut self, now: BootTime) -> Option<(ParticipantId, Hash)> {
        if self.told.is_some_and(|at| now.since(at) < BEAT) {
            return None;
        }
        let turn = self.known.iter().position(|rival| rival.challenge.is_some())?;
        let mut rival = self.known.remove(turn)?;
        let answer = (rival.leader, rival.challenge.take()?);
        self.known.push_back(rival);
        self.told = Some(now);
        Some(answer)
    }

    /// Whether somebody whose key we do not know is to be told. Anybody may have written it: one answer a beat is all
    /// it can cause, and of two who beat each has its turn.
    fn is_due(&mut self, stranger: ParticipantId, now: BootTime) -> bool {
        let pause = |who: ParticipantId| if who == stranger { BEAT * 2 } else { BEAT };
        let due = self.stranger.is_none_or(|(who, at)| now.since(at) >= pause(who));
        if due {
            self.stranger = Some((stranger, now));
        }
        due
    }

    /// What others can fill here.
    #[cfg(feature = "simulator")]
    pub fn size(&self) -> super::inside::Size {
        ("rivals", self.known.len(), MAX_RIVALS)
    }
}

impl Lead {
    /// Somebody else beats in this instance: a leader before us, or one of another branch. Who was ever in beside
    /// leaders of ours has signed it; it is told with our next beat who leads here and why, all others at once.
    pub fn on_heartbeat(&mut self, signed: &Signed<Heartbeat>, group: &Group, cx: &mut Cx<'_>) {
        let heartbeat = &signed.body;
        let them = heartbeat.leader;
        if them == cx.me.participant {
            return;
        }
        match self.signers(them, group).as_slice() {
            [] if self.rivals.is_due(them, cx.now) => group.tell_branch(them, heartbeat.challenge, cx),
            [] => cx.counters.over_limit += 1,
            signers if !signers.iter().any(|signer| signed.is_by(signer)) => cx.counters.forged += 1,
            _ if !self.rivals.heard(heartbeat) => cx.counters.stale += 1,
            _ => {}
        }
    }

    /// With a beat: one of those whose keys we know is told that we lead.
    pub fn tell_rival(&mut self, group: &Group, cx: &mut Cx<'_>) {
        if let Some((them, challenge)) = self.rivals.next(cx.now) {
            group.tell_branch(them, challenge, cx);
        }
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
    /// Tells another leader that we lead, now and with every right.
    fn tell_branch(&self, them: ParticipantId, challenge: Hash, cx: &mut Cx<'_>) {
        let (meeting, instance, leader) = (cx.me.meeting, self.instance, cx.me.participant);
        let word = cx.me.sign(Leads { meeting, instance, leader, challenge });
        let branch = Branch { word, lineage: self.lineage.clone() };
        self.tell(them, &Message::Branch(Box::new(branch)), cx);
    }

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

//! When the leader falls silent: votes, and the takeover by a successor it named.

use std::{collections::HashSet, time::Duration};

use meeting_wire::{Encode, InstanceId, MeetingId, ParticipantId};

use super::{
    EndReason, LeaveReason, Successors,
    claims::{Resignation, SilenceVote},
    context::Cx,
    follow::Follow,
    group::Group,
    lead::Lead,
    message::Message,
};
use crate::{
    BootTime,
    announce::SignedAnnounce,
    crypto::sign::{Hash, Signed},
    roster::{Change, Removal, Roster, SignedLink, Successor, Takeover},
    weakness::{self, Weakness},
};

/// After so long without a heartbeat the leader is silent.
pub const SILENCE: Duration = Duration::from_secs(6);
/// How much longer each later successor waits.
pub const RANK: Duration = Duration::from_secs(2);
/// Between two votes of the same silence.
const VOTE: Duration = Duration::from_secs(1);
/// How many heartbeats a vote may be behind our own last one: an old vote says nothing of this silence.
pub const MAX_BEHIND: u64 = 5;

impl Follow {
    /// Whether we have heard nothing for long enough to agree to a takeover.
    pub fn is_silent(&self, now: BootTime) -> bool {
        now.since(self.fresh.heard) >= SILENCE
    }

    /// Votes, and takes over when it is our turn. Gives the new leader's state.
    pub fn tick_succession(&mut self, group: &mut Group, cx: &mut Cx<'_>) -> Option<Lead> {
        let silent = self.is_silent(cx.now);
        if let Some(link) = self.early_takeover.take_if(|_| silent) {
            self.on_takeover(link, group, cx);
            return None;
        }
        if !may_change(group) {
            return None;
        }
        if let Some(called) = self.called.take() {
            return self.take_over(Some(called), group, cx);
        }
        if !silent {
            return None;
        }
        if self.next_vote <= cx.now {
            self.vote(group, cx);
        }
        let rank = group.roster.rank(cx.me.participant)?;
        let turn = cx.now.since(self.fresh.heard) >= SILENCE + RANK * rank as u32;
        // Links may have come since they were cast: only votes for our head make a takeover that others accept.
        self.votes
            .retain(|voter, vote| vote.body.head == group.head_hash() && may_vote(*voter, &group.roster));
        let majority = is_majority(self.votes.len(), group.roster.present().count());
        if turn && majority { self.take_over(None, group, cx) } else { None }
    }

    /// When to look again.
    pub fn succession_deadline(&self, group: &Group) -> Option<BootTime> {
        let silent = self.fresh.heard + SILENCE;
        // Votes come once a second, and with each it may be our turn.
        let vote = may_change(group).then(|| self.next_vote.max(silent));
        let early = self.early_takeover.as_ref().map(|_| silent);
        vote.into_iter().chain(early).min()
    }

    fn vote(&mut self, group: &mut Group, cx: &mut Cx<'_>) {
        self.next_vote = cx.now + VOTE;
        let vote = cx.me.sign(SilenceVote {
            meeting: cx.me.meeting,
            instance: group.instance,
            participant: cx.me.participant,
            leader: group.roster.header.leader,
            head_number: group.head().body.number,
            head: group.head_hash(),
            heartbeat: self.last.map_or(0, |(counter, ..)| counter),
        });
        for Successor { participant, .. } in group.roster.header.successors.clone() {
            if participant == cx.me.participant {
                self.votes.insert(participant, vote.clone());
            } else {
                group.tell(participant, &Message::Vote(vote.clone()), cx);
            }
        }
    }

    /// Somebody else finds the leader silent.
    pub fn on_vote(&mut self, vote: Signed<SilenceVote>, group: &mut Group, cx: &mut Cx<'_>) {
        let own = self.last.map_or(0, |(counter, ..)| counter);
        if !is_valid_vote(&vote, &group.roster, (cx.me.meeting, group.instance)) {
            cx.counters.forged += 1;
        } else if vote.body.head_number > group.head().body.number {
            // They saw more of the chain: a takeover has to extend the newest link anybody accepted.
            group.ask(vote.body.participant, cx);
        } else if vote.body.head == group.head_hash()
            && vote.body.heartbeat + MAX_BEHIND >= own
            && may_vote(vote.body.participant, &group.roster)
        {
            self.votes.insert(vote.body.participant, vote);
        } else {
            cx.counters.stale += 1;
        }
    }

    /// What a successor needs to pair with everybody; each counts only if the roster has its hash.
    pub fn on_announces(&mut self, announces: Vec<SignedAnnounce>, group: &Group) {
        for announce in announces {
            let participant = announce.unverified().participant;
            let named =
                group.roster.entry(participant).is_some_and(|entry| entry.announce == announce.hash());
            if named {
                self.announces.insert(participant, announce);
            }
        }
    }

    /// The leader hands over.
    pub fn on_resign(&mut self, resign: Signed<Resignation>, group: &mut Group, cx: &mut Cx<'_>) {
        if !is_valid_resignation(&resign, (group.head_hash(), &group.roster), (cx.me.meeting, group.instance))
        {
            cx.counters.forged += 1;
        } else if resign.body.successor == cx.me.participant {
            self.called = Some(resign);
        }
    }

    /// A successor says it leads now. Refused while our own last heartbeat is young, unless the leader resigned.
    pub fn on_takeover(&mut self, link: SignedLink, group: &mut Group, cx: &mut Cx<'_>) {
        let of = (cx.me.meeting, group.instance);
        if !group.lineage.fits(1, step_len(&link, group))
            || !is_valid_takeover(&link, (group.head_hash(), &group.roster), of)
        {
            cx.counters.unauthorised += 1;
            return;
        }
        let Some(takeover) = link.body.takeover() else { return };
        let resigned = takeover.resignation.is_some();
        if !resigned && !self.is_silent(cx.now) {
            self.early_takeover = Some(link);
            return;
        }
        if self.is_past(&link) {
            cx.counters.stale += 1;
            return;
        }
        let lost_kem = self.kem.is_none();
        if self.extend(link, group, cx) && group.ending.is_none() {
            if lost_kem || group.epochs.lacks_link() {
                // The key the new leader encapsulates to is gone, as it should be where no successor was named; or the old
                // leader spoke of a later epoch, and nothing is sealed here under the new one's.
                group.ending = Some(EndReason::Branch);
                return;
            }
            self.new_leader(!resigned, cx.now);
            self.open_held(group, cx);
        }
    }

    /// Whether a takeover has votes of a silence that was over before our own last heartbeat.
    pub fn is_past(&self, link: &SignedLink) -> bool {
        let own = self.last.map_or(0, |(counter, ..)| counter);
        let behind = |vote: &Signed<SilenceVote>| vote.body.heartbeat.saturating_add(MAX_BEHIND) < own;
        link.body
            .takeover()
            .is_some_and(|takeover| takeover.resignation.is_none() && takeover.votes.iter().any(behind))
    }

    fn take_over(
        &mut self,
        resignation: Option<Signed<Resignation>>,
        group: &mut Group,
        cx: &mut Cx<'_>,
    ) -> Option<Lead> {
        let own = group.roster.entry(cx.me.participant)?.announce;
        let own = self.own.clone().filter(|announce| announce.hash() == own)?;
        let policy = Successors::FirstPresent(group.roster.header.successor_limit);
        let mut lead = Lead::new(own.clone(), policy, cx.now);
        let epoch = group.epochs.newest.epoch + 1;
        let old = group.roster.header.leader;
        group.leader_announce = own.hash();
        let announces = group
            .roster
            .entries()
            .filter(|entry| ![old, cx.me.participant].contains(&entry.participant))
            .filter_map(|entry| {
                self.announces.get(&entry.participant).filter(|a| a.hash() == entry.announce).cloned()
            })
            .collect();
        let paired = lead.adopt_peers(announces, epoch, group, cx);

        let reason = if resignation.is_some() { LeaveReason::Left } else { LeaveReason::Missing };
        let mut votes: Vec<_> = self.votes.values().filter(|_| resignation.is_none()).cloned().collect();
        // No more than it takes, and those that heard of the old leader last: newcomers are shown them for ever.
        votes.sort_by_key(|vote| std::cmp::Reverse(vote.body.heartbeat));
        votes.truncate(majority(group.roster.present().count()));
        let mut changes = vec![Change::Takeover(Takeover { leader: cx.me.participant, votes, resignation })];
        changes.push(Change::Remove(Removal { participant: old, reason }));
        // Whose announce we lack cannot get a key from us: they come back in a new stay.
        let lost = group.roster.entries().map(|entry| entry.participant);
        let lost = lost.filter(|p| *p != old && *p != cx.me.participant && !paired.contains(p));
        changes.extend(
            lost.map(|participant| Change::Remove(Removal { participant, reason: LeaveReason::Missing })),
        );
        if !lead.commit(changes, Vec::new(), true, group, cx) {
            return None;
        }
        // Evidence names a leader's device by it.
        group.tell_all(&Message::Announce(own), cx);
        Some(lead)
    }
}

/// Whether another leader can be made from here: somebody is named, and no later epoch was spoken of for so long that the key
/// has gone. Somebody may have been removed with that.
fn may_change(group: &Group) -> bool {
    !group.roster.header.successors.is_empty() && group.epochs.newest_with_key().is_some()
}

/// The bytes that a takeover adds to the chain of leaders.
fn step_len(takeover: &SignedLink, group: &Group) -> usize {
    group.head().to_bytes().len() + group.roster.to_bytes().len() + takeover.to_bytes().len()
}

/// More than half of those who are present, the leader counted.
pub fn is_majority(voters: usize, present: usize) -> bool {
    voters >= majority(present)
}

/// The fewest who are more than half.
pub(super) fn majority(present: usize) -> usize {
    present / 2 + 1
}

/// Whether somebody's vote counts: those who never proved to be here are nobody's majority.
fn may_vote(voter: ParticipantId, roster: &Roster) -> bool {
    roster.entry(voter).is_some_and(|entry| entry.present)
}

/// Whether the vote is by somebody in the roster, of this silence of this leader.
fn is_valid_vote(vote: &Signed<SilenceVote>, roster: &Roster, of: (MeetingId, InstanceId)) -> bool {
    let body = &vote.body;
    (body.meeting, body.instance) == of
        && body.leader == roster.header.leader
        && body.participant != body.leader
        && roster
            .entry(body.participant)
            .is_some_and(|entry| vote.is_by(&entry.signer) || weakness::is(Weakness::VoteUnsigned))
}

fn is_valid_resignation(
    resign: &Signed<Resignation>,
    (head, roster): (Hash, &Roster),
    of: (MeetingId, InstanceId),
) -> bool {
    let body = &resign.body;
    (body.meeting, body.instance) == of
        && body.leader == roster.header.leader
        && body.head == head
        && roster.rank(body.successor) == Some(0)
        && roster
            .leader_signer()
            .is_some_and(|signer| resign.is_by(&signer) || weakness::is(Weakness::ResignationUnsigned))
}

/// Whether a link after our head is by a successor the leader named and has its grounds: the leader's resignation,
/// or votes of more than half of those present, the leader counted.
pub(super) fn is_valid_takeover(
    link: &SignedLink,
    (head, roster): (Hash, &Roster),
    of: (MeetingId, InstanceId),
) -> bool {
    let body = &link.body;
    let Some(takeover) = body.takeover() else { return false };
    let named = roster.header.successors.iter().find(|successor| successor.participant == body.leader);
    let extends = (body.meeting, body.instance) == of
        && takeover.leader == body.leader
        && body.previous == head
        && body.opening.is_some()
        && named.is_some_and(|successor| link.is_by(&successor.signer));
    if !extends {
        return false;
    }
    match &takeover.resignation {
        Some(resign) => {
            is_valid_resignation(resign, (head, roster), of) && resign.body.successor == body.leader
        }
        None => {
            let voters: HashSet<_> = takeover.votes.iter().map(|vote| vote.body.participant).collect();
            voters.len() == takeover.votes.len()
                && (is_majority(voters.len(), roster.present().count())
                    || weakness::is(Weakness::TakeoverUncounted))
                && voters.iter().all(|voter| may_vote(*voter, roster))
                && takeover.votes.iter().all(|vote| vote.body.head == head && is_valid_vote(vote, roster, of))
        }
    }
}

/// Leaves as a leader: hands over to the first successor if there is one.
pub(super) fn resign(group: &Group, cx: &mut Cx<'_>) -> bool {
    let Some(successor) = group.roster.header.successors.first() else { return false };
    let resignation = cx.me.sign(Resignation {
        meeting: cx.me.meeting,
        instance: group.instance,
        leader: cx.me.participant,
        head: group.head_hash(),
        successor: successor.participant,
    });
    group.tell_all(&Message::Resign(resignation), cx);
    true
}

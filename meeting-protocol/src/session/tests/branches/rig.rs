//! Votes, takeovers and chains of leaders, good ones and others.

use std::time::Duration;

use super::super::{
    forks::{ALICE, BOB, CAROL, group},
    samples::*,
    *,
};
use crate::testing::Meeting;

pub(super) const DAVE: usize = 3;

/// Four people, of whom Bob and Carol are named.
pub(super) fn four(seed: u64) -> Meeting {
    let mut meeting = Meeting::of(4, seed, Successors::FirstPresent(2));
    meeting.run(Duration::from_secs(3));
    meeting
}

pub(super) fn of(meeting: &Meeting) -> (MeetingId, InstanceId) {
    (meeting.id(), group(meeting, ALICE).instance)
}

/// What somebody says of a silent Alice, in anybody's name.
pub(super) fn vote_of(
    meeting: &Meeting,
    voter: usize,
    change: impl Fn(&mut SilenceVote),
) -> Signed<SilenceVote> {
    let (group, me) = (group(meeting, ALICE), &meeting.nodes[voter].session.me);
    let mut vote = SilenceVote {
        meeting: me.meeting,
        instance: group.instance,
        participant: me.participant,
        leader: group.roster.header.leader,
        head_number: group.head().body.number,
        head: group.head_hash(),
        heartbeat: 1,
    };
    change(&mut vote);
    me.sign(vote)
}

pub(super) fn votes(meeting: &Meeting, voters: &[usize]) -> Vec<Signed<SilenceVote>> {
    voters.iter().map(|voter| vote_of(meeting, *voter, |_| {})).collect()
}

/// A takeover from Alice's head on these grounds.
pub(in crate::session::tests) fn taken(
    meeting: &Meeting,
    by: usize,
    votes: Vec<Signed<SilenceVote>>,
    resignation: Option<Signed<Resignation>>,
) -> Step {
    let (group, me) = (group(meeting, ALICE), &meeting.nodes[by].session.me);
    let old = group.roster.header.leader;
    let changes = vec![
        Change::Takeover(Takeover { leader: me.participant, votes, resignation }),
        Change::Remove(Removal { participant: old, reason: LeaveReason::Missing }),
    ];
    let digest = group.roster.after(&changes).unwrap().digest();
    let opening = EpochOpening { epoch: group.epochs.newest.epoch + 1, commitment: [1; 32] };
    let takeover = me.sign(group.next_link(me.participant, (changes, digest), Some(opening), 1));
    Step { last: group.head().clone(), roster: group.roster.clone(), takeover }
}

/// Alice's chain of leaders and this step.
pub(super) fn lineage_with(meeting: &Meeting, step: Step) -> Lineage {
    let mut lineage = group(meeting, ALICE).lineage.clone();
    lineage.steps.push(step);
    lineage
}

/// The challenge of the newest heartbeat that Carol has of Alice.
pub(super) fn challenge(meeting: &Meeting) -> Hash {
    group(meeting, CAROL).last_beat.as_ref().unwrap().body.challenge
}

pub(super) fn branch(meeting: &Meeting, by: usize, challenge: Hash, lineage: Lineage) -> Message {
    let me = &meeting.nodes[by].session.me;
    let (meeting, instance) = of(meeting);
    let word = me.sign(Leads { meeting, instance, leader: me.participant, challenge });
    Message::Branch(Box::new(Branch { word, lineage }))
}

pub(in crate::session::tests) fn resigns(
    meeting: &Meeting,
    by: usize,
    successor: usize,
) -> Signed<Resignation> {
    let (group, me) = (group(meeting, ALICE), &meeting.nodes[by].session.me);
    me.sign(Resignation {
        meeting: me.meeting,
        instance: group.instance,
        leader: group.roster.header.leader,
        head: group.head_hash(),
        successor: meeting.nodes[successor].session.me(),
    })
}

/// A heartbeat in somebody's name that nobody of that name signed.
pub(super) fn made_up(meeting: &Meeting, leader: ParticipantId, counter: u64) -> Message {
    let beat = Heartbeat {
        meeting: meeting.id(),
        instance: group(meeting, BOB).instance,
        leader,
        counter,
        head_number: 1,
        head: [1; 32],
        epoch: 1,
        epoch_link: [1; 32],
        challenge: [counter as u8; 32],
        time: 1,
        previous: [0; 32],
        echoes: vec![],
    };
    Message::Heartbeat(Signed::new(beat, &signer()))
}

/// So many people of this name, from an index on.
pub(super) fn people(indices: std::ops::Range<u16>, name: &str) -> Vec<Entry> {
    let somebody = |index: u16| {
        let mut entry = Entry { index, name: name.into(), ..entry() };
        entry.participant.0[..2].copy_from_slice(&index.to_be_bytes());
        entry.device.0[..2].copy_from_slice(&index.to_be_bytes());
        entry
    };
    indices.map(somebody).collect()
}

/// Six changes of leader by votes among two hundred.
pub(super) fn long_chain() -> Lineage {
    let header = crate::roster::Header { next_index: 200, ..header() };
    let roster = Roster::from_parts(header, people(0..200, "Somebody Somewhere")).unwrap();
    let votes = vec![vote(); succession::majority(200)];
    let bob = super::super::BOB;
    let takeover = link(vec![Change::Takeover(Takeover { leader: bob, votes, resignation: None })]);
    let step = Step { last: link(all_changes()), roster, takeover };
    Lineage { steps: vec![step; 6], ..lineage() }
}

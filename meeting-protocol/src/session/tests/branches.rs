//! Changes of leader as those see them who were not there, and branches that meet.

mod rig;

pub(super) use self::rig::{resigns, taken};

use std::time::Duration;

use self::rig::{
    DAVE, branch, challenge, four, lineage_with, long_chain, made_up, of, people, vote_of, votes,
};
use super::{
    forks::{ALICE, BOB, CAROL, group, says},
    samples::*,
    *,
};
use crate::{
    testing::{Fate, Meeting},
    weakness::{self, Weakness},
};

#[test]
fn a_change_of_leader_shows_its_votes_to_those_who_were_not_there() {
    let meeting = four(9_201);
    let of = of(&meeting);
    let leads = |step: Step| lineage_with(&meeting, step).leader(of).map(|(leader, _)| leader);
    let good = || taken(&meeting, BOB, votes(&meeting, &[BOB, CAROL, DAVE]), None);
    let bob = meeting.nodes[BOB].session.me();
    assert_eq!(leads(good()), Some(bob));
    assert_eq!(leads(taken(&meeting, BOB, Vec::new(), Some(resigns(&meeting, ALICE, BOB)))), Some(bob));

    let with = |last: Signed<SilenceVote>| {
        let votes = [votes(&meeting, &[BOB, CAROL]), vec![last]].concat();
        leads(taken(&meeting, BOB, votes, None))
    };
    let dave = |change: fn(&mut SilenceVote)| vote_of(&meeting, DAVE, change);
    let daves = meeting.nodes[DAVE].session.me();
    let refused = [
        ("two of four", leads(taken(&meeting, BOB, votes(&meeting, &[BOB, CAROL]), None))),
        ("a vote twice", with(vote_of(&meeting, CAROL, |_| {}))),
        ("the leader's own", with(vote_of(&meeting, ALICE, |_| {}))),
        ("somebody else's", with(vote_of(&meeting, BOB, |vote| vote.participant = daves))),
        ("nobody's in the roster", with(dave(|vote| vote.participant = super::BOB))),
        ("for another head", with(dave(|vote| vote.head = [1; 32]))),
        ("against another leader", with(dave(|vote| vote.leader = super::ALICE))),
        ("another meeting's", with(dave(|vote| vote.meeting = MEETING))),
        ("another run's", with(dave(|vote| vote.instance = INSTANCE))),
        ("by whom nobody named", leads(taken(&meeting, DAVE, votes(&meeting, &[BOB, CAROL, DAVE]), None))),
        (
            "a resignation to another",
            leads(taken(&meeting, CAROL, Vec::new(), Some(resigns(&meeting, ALICE, BOB)))),
        ),
        (
            "a resignation to the second",
            leads(taken(&meeting, CAROL, Vec::new(), Some(resigns(&meeting, ALICE, CAROL)))),
        ),
        (
            "a resignation by another",
            leads(taken(&meeting, BOB, Vec::new(), Some(resigns(&meeting, BOB, BOB)))),
        ),
        ("a smaller roster", {
            let step = good();
            let few = step.roster.entries().take(3).cloned().collect();
            let roster = Roster::from_parts(step.roster.header.clone(), few).unwrap();
            leads(Step { roster, ..step })
        }),
        ("a last link by another", {
            let step = good();
            let last = meeting.nodes[BOB].session.me.sign(step.last.body.clone());
            leads(Step { last, ..step })
        }),
        ("another number", {
            let step = good();
            let number = step.takeover.body.number + 1;
            let link = Link { number, ..step.takeover.body.clone() };
            leads(Step { takeover: meeting.nodes[BOB].session.me.sign(link), ..step })
        }),
        ("a takeover by another", {
            let step = good();
            leads(Step { takeover: meeting.nodes[CAROL].session.me.sign(step.takeover.body.clone()), ..step })
        }),
    ];
    for (what, leader) in refused {
        assert_eq!(leader, None, "{what}");
    }
}

#[test]
fn without_the_count_of_votes_two_of_four_would_lead() {
    let meeting = four(9_202);
    let lineage = lineage_with(&meeting, taken(&meeting, BOB, votes(&meeting, &[BOB, CAROL]), None));
    assert!(lineage.leader(of(&meeting)).is_none());
    weakness::set(Some(Weakness::TakeoverUncounted));
    let uncounted = lineage.leader(of(&meeting));
    weakness::set(None);
    assert!(uncounted.is_some());
}

#[test]
fn a_newcomer_takes_no_welcome_of_a_leader_without_votes() {
    let mut meeting = four(9_203);
    meeting.disconnect(ALICE);
    meeting.run_until(Duration::from_secs(20), |meeting| meeting.together(&[BOB, CAROL, DAVE]));
    let bobs = group(&meeting, BOB);
    let me = &meeting.nodes[BOB].session.me;
    let welcome = |lineage: Lineage| {
        let welcome = Welcome {
            announce: [0; 32],
            lineage,
            // Everybody keeps the new leader's announce, for evidence.
            leader: group(&meeting, CAROL).leader_signed.clone().unwrap(),
            head: bobs.head().clone(),
            epoch_link: (bobs.head_hash() != bobs.epochs.newest.link).then(|| bobs.epoch_link.clone()),
            header: bobs.roster.header.clone(),
            entries: bobs.roster.entries().cloned().collect(),
            signature: [0; 64],
        };
        welcome.signed(&me.signer)
    };
    let of = (meeting.id(), bobs.instance);
    assert!(welcome(bobs.lineage.clone()).roster(of).is_some());
    let mut few = bobs.lineage.clone();
    let mut link = few.steps[0].takeover.body.clone();
    for change in &mut link.changes {
        if let Change::Takeover(takeover) = change {
            takeover.votes.pop();
        }
    }
    few.steps[0].takeover = me.sign(link);
    assert!(welcome(few).roster(of).is_none());
}

#[test]
fn nobody_is_ended_but_by_one_who_goes_before_and_leads_now() {
    let mut meeting = four(9_204);
    // Alice goes on: Bob's takeover, if it is good, is from an earlier link than her newest.
    let good = lineage_with(&meeting, taken(&meeting, BOB, votes(&meeting, &[BOB, CAROL, DAVE]), None));
    let few = lineage_with(&meeting, taken(&meeting, BOB, votes(&meeting, &[BOB, CAROL]), None));
    let older = group(&meeting, ALICE).lineage.clone();
    meeting.command(ALICE, Command::Rotate).unwrap();
    meeting.run(Duration::from_secs(3));
    let now = challenge(&meeting);
    let mut elsewhere = good.clone();
    elsewhere.genesis = meeting.nodes[BOB].session.me.sign(elsewhere.genesis.body);
    let mut moved = good.clone();
    let moved_last = Link { time: 7, ..moved.steps[0].last.body.clone() };
    moved.steps[0].last = meeting.nodes[ALICE].session.me.sign(moved_last);
    let lies = [
        ("too few votes", branch(&meeting, BOB, now, few)),
        ("a chain that ours continues", branch(&meeting, ALICE, now, older)),
        ("no answer to what she said", branch(&meeting, BOB, [9; 32], good.clone())),
        ("somebody else's word", branch(&meeting, DAVE, now, good.clone())),
        ("another creator's", branch(&meeting, BOB, now, elsewhere)),
        ("a link that is not ours", branch(&meeting, BOB, now, moved)),
    ];
    for (what, lie) in &lies {
        for node in [ALICE, CAROL] {
            says(&mut meeting, DAVE, node, lie);
            assert_eq!(meeting.phase(node), Phase::Live, "{what}");
        }
    }
    // To Alice alone; she passes it on.
    let good = branch(&meeting, BOB, now, good);
    says(&mut meeting, BOB, ALICE, &good);
    assert_eq!(meeting.phase(ALICE), Phase::Ended(EndReason::Branch));
    meeting.run_until(Duration::from_secs(1), |meeting| {
        [BOB, CAROL, DAVE].iter().all(|node| meeting.phase(*node) == Phase::Ended(EndReason::Branch))
    });
}

#[test]
fn entries_of_whom_nobody_has_seen_depose_no_leader() {
    let mut meeting = four(9_211);
    // Six devices that somebody let in and that never prove to be there; they sign whatever is asked of them.
    meeting.tamper = Some(Box::new(|_, from, _, post| match post.slot {
        Slot::Direct(_) if (DAVE + 1..=DAVE + 6).contains(&from) => Fate::Drop,
        _ => Fate::Deliver,
    }));
    let ghosts: Vec<usize> = (0..6).map(|_| meeting.join("Ghost")).collect();
    let entries = |meeting: &Meeting| group(meeting, CAROL).roster.entries().len();
    meeting.run_until(Duration::from_secs(5), |meeting| entries(meeting) == 10);
    meeting.run(Duration::from_secs(3));
    let takes_over = |meeting: &Meeting, voters: &[usize]| {
        let step = taken(meeting, BOB, votes(meeting, voters), None);
        branch(meeting, BOB, challenge(meeting), lineage_with(meeting, step))
    };
    let by_ghosts = takes_over(&meeting, &[vec![BOB], ghosts.clone()].concat());
    for node in [ALICE, CAROL] {
        says(&mut meeting, BOB, node, &by_ghosts);
        assert_eq!(meeting.phase(node), Phase::Live);
    }
    assert!(meeting.state(ALICE).leading);
    // Nor do they add to the voices of others, or take away from them.
    let mixed = takes_over(&meeting, &[BOB, CAROL, ghosts[0], ghosts[1], ghosts[2], ghosts[3]]);
    says(&mut meeting, BOB, ALICE, &mixed);
    assert_eq!(meeting.phase(ALICE), Phase::Live);
    let by_all = takes_over(&meeting, &[BOB, CAROL, DAVE]);
    says(&mut meeting, BOB, ALICE, &by_all);
    assert_eq!(meeting.phase(ALICE), Phase::Ended(EndReason::Branch));
}

#[test]
fn an_answer_of_long_ago_ends_nobody() {
    let mut meeting = four(9_205);
    let good = lineage_with(&meeting, taken(&meeting, BOB, votes(&meeting, &[BOB, CAROL, DAVE]), None));
    meeting.command(ALICE, Command::Rotate).unwrap();
    meeting.run(Duration::from_secs(3));
    let good = branch(&meeting, BOB, challenge(&meeting), good);
    meeting.run(Duration::from_secs(60));
    for node in [ALICE, CAROL] {
        says(&mut meeting, BOB, node, &good);
        assert_eq!(meeting.phase(node), Phase::Live);
    }
}

#[test]
fn votes_hoarded_for_longer_than_links_are_kept_end_nobody() {
    let mut meeting = four(9_206);
    let hoarded = lineage_with(&meeting, taken(&meeting, BOB, votes(&meeting, &[BOB, CAROL, DAVE]), None));
    for _ in 0..message::MAX_LINKS {
        meeting.command(ALICE, Command::Rotate).unwrap();
        meeting.run(Duration::from_millis(200));
    }
    // Who comes in now takes the old leader's signature no longer than the others would.
    let frank = meeting.join("Frank");
    meeting.run_until(Duration::from_secs(10), |meeting| meeting.together(&[ALICE, BOB, CAROL, DAVE, frank]));
    meeting.run(Duration::from_secs(3));
    let late = branch(&meeting, BOB, challenge(&meeting), hoarded);
    for node in [ALICE, CAROL, frank] {
        says(&mut meeting, BOB, node, &late);
        assert_eq!(meeting.phase(node), Phase::Live);
    }
}

#[test]
fn a_flood_of_forged_heartbeats_causes_one_answer_a_beat() {
    let mut meeting = four(9_207);
    let before = meeting.posts.len();
    for number in 0..2_000_u32 {
        let mut leader = super::BOB;
        leader.0[..4].copy_from_slice(&number.to_be_bytes());
        let forged = made_up(&meeting, leader, u64::from(number));
        says(&mut meeting, DAVE, ALICE, &forged);
        meeting.run(Duration::from_millis(5));
    }
    let known: Vec<Slot> = meeting.nodes.iter().map(|node| Slot::Direct(node.session.me())).collect();
    let answers = meeting.posts[before..].iter().filter(|(_, from, slot, _)| {
        *from == ALICE && matches!(slot, Slot::Direct(_)) && !known.contains(slot)
    });
    assert!((4..=6).contains(&answers.count()), "ten seconds");
    assert_eq!(meeting.phase(ALICE), Phase::Live);
}

#[test]
fn no_flood_keeps_two_who_were_in_together_apart() {
    let mut meeting = four(9_209);
    // Bob and the others hear nothing of Alice; somebody with the link keeps what she says.
    meeting.tamper = Some(Box::new(|_, from, to, _| {
        if from != usize::MAX && (from == ALICE) != (to == ALICE) { Fate::Drop } else { Fate::Deliver }
    }));
    meeting.run_until(Duration::from_secs(20), |meeting| meeting.together(&[BOB, CAROL, DAVE]));
    meeting.run(Duration::from_secs(60));
    assert!(meeting.state(ALICE).leading && meeting.state(BOB).leading);
    let alice = meeting.nodes[ALICE].session.me();
    let mut old = meeting.recorded.clone();
    old.retain(|post| post.from == alice && post.slot == Slot::Cell);
    old.truncate(old.len() - 20);
    meeting.tamper = None;
    let before = meeting.posts.len();
    for number in 0..1_200_u32 {
        let mut nobody = super::BOB;
        nobody.0[..4].copy_from_slice(&number.to_be_bytes());
        for who in [nobody, alice] {
            let forged = made_up(&meeting, who, 1_000 + u64::from(number));
            says(&mut meeting, DAVE, BOB, &forged);
        }
        meeting.inject(BOB, old[number as usize * old.len() / 1_200].clone());
        meeting.run(Duration::from_millis(5));
    }
    assert_eq!(meeting.phase(ALICE), Phase::Ended(EndReason::Branch), "told within six seconds");
    // One answer in two seconds to those whose key is known, and one to all others.
    let followers = [CAROL, DAVE].map(|node| Slot::Direct(meeting.nodes[node].session.me()));
    let answers = meeting.posts[before..].iter().filter(|(_, from, slot, _)| {
        *from == BOB && matches!(slot, Slot::Direct(_)) && !followers.contains(slot)
    });
    assert!(answers.count() <= 8);
}

#[test]
fn while_the_leader_is_heard_no_welcome_of_another_branch_ends_anybody() {
    let mut meeting = four(9_210);
    let step = taken(&meeting, BOB, votes(&meeting, &[BOB, CAROL, DAVE]), None);
    let (takeover, before) = (step.takeover.clone(), group(&meeting, ALICE).roster.clone());
    let lineage = lineage_with(&meeting, step);
    let roster = before.after(&takeover.body.changes).unwrap();
    let own = match &meeting.nodes[BOB].session.place {
        Place::Member(member) => match &member.duty {
            member::Duty::Follow(follow) => follow.own.clone(),
            member::Duty::Lead(_) => None,
        },
        _ => None,
    };
    let welcome = Welcome {
        announce: before.entry(meeting.nodes[CAROL].session.me()).unwrap().announce,
        lineage,
        leader: own.unwrap(),
        head: takeover,
        epoch_link: None,
        header: roster.header.clone(),
        entries: roster.entries().cloned().collect(),
        signature: [0; 64],
    };
    let signed = welcome.signed(&meeting.nodes[BOB].session.me.signer);
    let welcome = Message::Welcome(Box::new(signed));
    meeting.command(ALICE, Command::Rotate).unwrap();
    meeting.run(Duration::from_secs(3));
    says(&mut meeting, BOB, CAROL, &welcome);
    assert_eq!(meeting.phase(CAROL), Phase::Live, "nobody says that Bob leads now");
    meeting.disconnect(BOB);
    meeting.disconnect(ALICE);
    meeting.run(Duration::from_secs(7));
    says(&mut meeting, BOB, CAROL, &welcome);
    assert_eq!(meeting.phase(CAROL), Phase::Ended(EndReason::Branch));
}

#[test]
fn whoever_leads_at_last_of_two_lineages_one_goes_before() {
    let mut meeting = four(9_208);
    let from_here = [BOB, CAROL].map(|by| taken(&meeting, by, votes(&meeting, &[BOB, CAROL, DAVE]), None));
    meeting.command(ALICE, Command::Rotate).unwrap();
    let later = taken(&meeting, BOB, votes(&meeting, &[BOB, CAROL, DAVE]), None);
    let [first, second] = from_here.map(|step| lineage_with(&meeting, step));
    let third = lineage_with(&meeting, later);
    let none = group(&meeting, ALICE).lineage.clone();
    // Each before all that come after it.
    let order = [first, second, third, none];
    for (i, one) in order.iter().enumerate() {
        for (j, other) in order.iter().enumerate() {
            assert_eq!(one.before(other).is_some(), i < j, "{i} and {j}");
        }
    }
}

#[test]
fn the_longer_the_chain_of_leaders_the_fewer_answers_a_second_but_always_one() {
    let answers = [4, 16, 200, lineage::MAX_LINEAGE >> 10, 512];
    assert_eq!(answers.map(|kib| admission::answers_a_second(kib << 10)), [32, 16, 1, 1, 1]);
}

#[test]
fn two_hundred_people_can_be_shown_six_changes_of_leader_by_votes() {
    let lineage = long_chain();
    assert!(lineage.fits(0, 0) && !lineage.fits(lineage::MAX_STEPS, 0));
    let roster = lineage.steps[0].roster.to_bytes().len();
    assert!(welcome::is_a_post(lineage.to_bytes().len(), roster));
}

#[test]
fn whom_no_post_could_welcome_is_refused_and_not_left_without_a_word() {
    for (chain, full) in [(lineage(), false), (long_chain(), true)] {
        let Two { mut rng, mut alice, mut bob, mut now, .. } = Two::unmet();
        let Place::Member(member) = &mut alice.place else { unreachable!() };
        let group = member.group_mut();
        let mut entries: Vec<Entry> = group.roster.entries().cloned().collect();
        entries.extend(people(1..999, &"n".repeat(64)));
        let header = crate::roster::Header { next_index: 999, ..group.roster.header.clone() };
        group.roster = Roster::from_parts(header, entries).unwrap();
        group.lineage.steps = chain.steps;
        let (mut welcomes, mut refusals) = (0, 0);
        for _ in 0..30 {
            now = BootTime(now.0 + 100);
            bob.handle(Input::Timeout, now, &mut rng).unwrap();
            hand_over(&mut bob, &mut alice, now, &mut rng);
            alice.handle(Input::Timeout, now, &mut rng).unwrap();
            loop {
                let (slot, body) = match alice.poll_output() {
                    Output::Post { slot, body } => (slot, body),
                    Output::Timeout(_) => break,
                    _ => continue,
                };
                let (_, message) = alice.me.board.open(&body).unwrap();
                match Message::from_bytes(&message).unwrap() {
                    Message::Welcome(_) => welcomes += 1,
                    Message::Answer(reply) if reply.answer.body.verdict == Verdict::Refused => refusals += 1,
                    _ => {}
                }
                let post = Post { seq: 0, from: alice.me(), slot, body };
                bob.handle(Input::Post(post), now, &mut rng).unwrap();
            }
        }
        assert_eq!((welcomes > 0, refusals > 0), (!full, full), "{welcomes} welcomes, {refusals} refusals");
        assert_eq!(alice.counters().over_limit, 0, "nothing was too long to be said");
    }
}

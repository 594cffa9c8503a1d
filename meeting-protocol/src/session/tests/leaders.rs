//! Leaders that break the rules.

use super::{
    branches::{resigns, taken},
    forks::{ALICE as FIRST, BOB as SECOND, CAROL, group, says},
    samples::*,
    *,
};
use crate::testing::Meeting;

#[test]
fn two_links_of_one_number_end_the_meeting() {
    let mut two = Two::new();
    let lock = two.signed(two.next_link(vec![Change::Lock(true)], None));
    let other = two.signed(two.next_link(vec![Change::Succession { limit: 1, order: vec![] }], None));
    assert_eq!(two.say(&lock), Phase::Live);
    assert_eq!(two.say(&lock), Phase::Live, "the same one again is a repeat");
    assert_eq!(two.say(&other), CAUGHT);
}

#[test]
fn links_that_break_a_rule_end_the_meeting() {
    type Break = fn(&Two) -> Link;
    let breaks: [(&str, Break); 7] = [
        ("another digest", |two| Link { digest: [0; 32], ..two.next_link(vec![Change::Lock(true)], None) }),
        ("another chain", |two| Link { previous: [0; 32], ..two.next_link(vec![Change::Lock(true)], None) }),
        ("back in time", |two| Link { time: 0, ..two.next_link(vec![Change::Lock(true)], None) }),
        ("an epoch skipped", |two| {
            let epoch = two.group().epochs.newest.epoch + 2;
            two.next_link(vec![], Some(EpochOpening { epoch, commitment: [1; 32] }))
        }),
        ("a commitment again", |two| {
            let newest = two.group().epochs.newest;
            two.next_link(
                vec![],
                Some(EpochOpening { epoch: newest.epoch + 1, commitment: newest.commitment }),
            )
        }),
        ("a removal without a new key", |two| {
            two.next_link(
                vec![Change::Remove(Removal { participant: two.bob.me(), reason: LeaveReason::Left })],
                None,
            )
        }),
        ("somebody added without a new key", |two| {
            let index = two.group().roster.header.next_index;
            two.next_link(vec![Change::Add(Entry { index, ..entry() })], None)
        }),
    ];
    for (name, broken) in breaks {
        let mut two = Two::new();
        let message = two.signed(broken(&two));
        assert_eq!(two.say(&message), CAUGHT, "{name}");
    }
}

#[test]
fn a_link_by_somebody_else_changes_nothing() {
    let mut two = Two::new();
    let link = two.next_link(vec![Change::Lock(true)], None);
    let by_bob = Message::Link(two.bob.me.sign(link.clone()));
    let by_nobody = Message::Link(Signed::new(link, &signer()));
    for message in [by_bob, by_nobody] {
        let forged = two.bob.counters().forged;
        assert_eq!(two.say(&message), Phase::Live);
        assert!(!two.bob.state().locked);
        assert_eq!(two.bob.counters().forged, forged + 1);
    }
}

#[test]
fn a_key_that_was_not_committed_to_is_refused() {
    let mut two = Two::new();
    let newest = two.group().epochs.newest.epoch;
    let link = two.next_link(vec![], Some(EpochOpening { epoch: newest + 1, commitment: [1; 32] }));
    let hash = link.hash();
    let message = two.signed(link);
    assert_eq!(two.say(&message), Phase::Live);
    let bob = two.bob.me();
    let Place::Member(member) = &mut two.alice.place else { unreachable!() };
    let sealed = member.lead_pairing(bob).wrap(newest + 1, &hash, &secret(9)).unwrap();
    let wrap = Message::Wrap(Wrap { to: bob, epoch: newest + 1, link: hash, offer: None, sealed });
    assert_eq!(two.say(&wrap), CAUGHT);
    assert_eq!(two.bob.state().epoch, None);
}

#[test]
fn heartbeats_that_contradict_each_other_end_the_meeting() {
    let beat = |two: &Two, counter: u64, later: u64, challenge: u8| {
        let group = two.group();
        Heartbeat {
            meeting: two.alice.me.meeting,
            instance: group.instance,
            leader: two.alice.me(),
            counter,
            head_number: group.head().body.number,
            head: group.head_hash(),
            epoch: group.epochs.newest.epoch,
            epoch_link: group.epochs.newest.link,
            challenge: [challenge; 32],
            time: group.epochs.newest.time + 10_000 + later,
            previous: [0; 32],
            echoes: vec![],
        }
    };
    type Bad<'a> = &'a dyn Fn(&Two) -> Heartbeat;
    let cases: [(&str, Bad<'_>); 6] = [
        ("one number twice", &|two| beat(two, 1_000, 0, 2)),
        ("back in time", &|two| beat(two, 1_001, 0, 1)),
        ("not chained", &|two| beat(two, 1_001, 1, 1)),
        ("another chain", &|two| Heartbeat { head: [9; 32], ..beat(two, 1_002, 1, 1) }),
        ("another epoch link", &|two| Heartbeat { epoch_link: [9; 32], ..beat(two, 1_002, 1, 1) }),
        ("no rotation", &|two| beat(two, 1_002, 140_001, 1)),
    ];
    for (name, bad) in cases {
        let mut two = Two::new();
        let message = |two: &Two, beat: Heartbeat| Message::Heartbeat(two.alice.me.sign(beat));
        let (first, second) = (message(&two, beat(&two, 1_000, 0, 1)), message(&two, bad(&two)));
        assert_eq!(two.say(&first), Phase::Live, "{name}");
        assert_eq!(two.say(&first), Phase::Live, "{name}: the same again is a repeat");
        assert_eq!(two.say(&second), CAUGHT, "{name}");
    }
    let mut two = Two::new();
    let last = Message::Heartbeat(two.alice.me.sign(beat(&two, 1_000, 139_999, 1)));
    assert_eq!(two.say(&last), Phase::Live, "a key of just under 150 s");
}

#[test]
fn a_welcome_holds_only_as_a_whole() {
    let two = Two::new();
    let group = two.group();
    let own = group.lineage.creator.clone();
    let welcome = Welcome {
        announce: [0; 32],
        lineage: group.lineage.clone(),
        leader: own,
        head: group.head().clone(),
        epoch_link: (group.head_hash() != group.epochs.newest.link).then(|| group.epoch_link.clone()),
        header: group.roster.header.clone(),
        entries: group.roster.entries().cloned().collect(),
        signature: [0; 64],
    };
    let welcome = welcome.signed(&two.alice.me.signer);
    let of = (two.alice.me.meeting, group.instance);
    assert!(welcome.roster(of).is_some());
    assert!(welcome.roster((MEETING, of.1)).is_none() && welcome.roster((of.0, INSTANCE)).is_none());
    assert!(welcome.clone().signed(&two.bob.me.signer).roster(of).is_none());
    let other = Welcome { epoch_link: Some(group.lineage.genesis.clone()), ..welcome.clone() };
    assert!(other.roster(of).is_none(), "the link of an epoch that is over");
    type Alter = fn(&mut Welcome);
    let alterations: [Alter; 7] = [
        |welcome| welcome.announce[0] ^= 1,
        |welcome| welcome.header.locked = true,
        |welcome| welcome.entries[1].name = "Eve".into(),
        |welcome| drop(welcome.entries.pop()),
        |welcome| welcome.leader = announce(),
        |welcome| welcome.lineage.creator = announce(),
        |welcome| welcome.head.body.time += 1,
    ];
    for (i, alter) in alterations.iter().enumerate() {
        let mut other = welcome.clone();
        alter(&mut other);
        assert!(other.roster(of).is_none(), "alteration {i}");
    }
}

#[test]
fn somebody_new_in_a_locked_meeting_ends_it() {
    for locked in [false, true] {
        let mut two = Two::new();
        let lock = two.next_link(vec![Change::Lock(locked)], None);
        let group = two.group();
        let add = vec![Change::Add(Entry { index: group.roster.header.next_index, ..entry() })];
        let both = [lock.changes.clone(), add.clone()].concat();
        let opening = EpochOpening { epoch: group.epochs.newest.epoch + 1, commitment: [1; 32] };
        let link = Link {
            number: lock.number + 1,
            previous: lock.hash(),
            digest: group.roster.after(&both).unwrap().digest(),
            changes: add,
            opening: Some(opening),
            ..lock.clone()
        };
        let (lock, link) = (two.signed(lock), two.signed(link));
        assert_eq!(two.say(&lock), Phase::Live);
        assert_eq!(two.say(&link), if locked { CAUGHT } else { Phase::Live });
    }
}

#[test]
fn a_takeover_that_breaks_a_rule_is_told_of_whoever_signed_it() {
    type Break = fn(&mut Link, &Roster);
    let breaks: [(&str, Break); 4] = [
        ("nothing", |_, _| {}),
        ("another digest", |link, _| link.digest = [0; 32]),
        ("an epoch skipped", |link, _| link.opening.as_mut().unwrap().epoch += 1),
        ("somebody new while locked", |link, roster| {
            link.changes.push(Change::Add(Entry { index: roster.header.next_index, ..entry() }));
            link.digest = roster.after(&link.changes).unwrap().digest();
        }),
    ];
    for (number, (what, broken)) in breaks.into_iter().enumerate() {
        let mut meeting = Meeting::of(3, 9_501 + number as u64, Successors::FirstPresent(1));
        meeting.command(FIRST, Command::Lock(true)).unwrap();
        meeting.run(std::time::Duration::from_secs(1));
        let step = taken(&meeting, SECOND, Vec::new(), Some(resigns(&meeting, FIRST, SECOND)));
        let mut link = step.takeover.body;
        broken(&mut link, &group(&meeting, FIRST).roster);
        let link = Message::Link(meeting.nodes[SECOND].session.me.sign(link));
        says(&mut meeting, SECOND, CAROL, &link);
        assert_eq!(meeting.phase(CAROL) == CAUGHT, number > 0, "{what}");
        let told = meeting.nodes[CAROL].events.iter().find_map(|event| match event {
            Event::Misbehaviour(text) => Some(text.as_str()),
            _ => None,
        });
        assert!(told.is_none_or(|text| text.starts_with("Bob, who leads, ")), "{what}: {told:?}");
        assert_eq!(told.is_some(), number > 0, "{what}");
    }
}

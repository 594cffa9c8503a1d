//! Leaders that leave, fall silent, or are cut off.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use meeting_protocol::{
    session::{Command, EndReason, Phase, Role, Successors, WaitReason},
    testing::{Fate, Meeting},
};

use meeting_wire::Slot;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_named_successor_takes_over_by_silence_votes() {
    let mut meeting = Meeting::of(4, 30, Successors::FirstPresent(2));
    let camera = meeting.stream(2, "camera");
    meeting.run(s(3));
    assert_eq!(meeting.state(2).roster[1].successor, Some(1));
    let (code, epoch) = (meeting.state(1).code, meeting.epoch(1));
    meeting.disconnect(0);
    let start = meeting.now;
    meeting.run_until(s(15), |meeting| meeting.state(1).leading);
    assert!(meeting.now - start >= 4_000 && meeting.now - start < 9_000, "{}", meeting.now - start);
    meeting.run_until(s(10), |meeting| meeting.together(&[1, 2, 3]) && meeting.hears(2, camera, 3));
    assert!(meeting.epoch(1) > epoch);
    for node in [1, 2, 3] {
        let state = meeting.state(node);
        assert!(state.leader_verified && state.code != code, "compare again");
    }
    // The old leader comes back to a branch that is over, and joins again; so does a newcomer.
    meeting.connect(0);
    meeting.run_until(s(5), |meeting| meeting.phase(0) == Phase::Ended(EndReason::Branch));
    let alice = meeting.nodes[0].device.clone();
    let alice = meeting.join_as("Alice", alice, Role::Participant, 1, 0);
    let carol = meeting.join("Carol");
    meeting.run_until(s(15), |meeting| meeting.together(&[1, 2, 3, alice, carol]));
    assert!(meeting.state(carol).leader_verified, "through the creator's named successor");
    meeting.run(s(300));
    assert!(meeting.together(&[1, 2, 3, alice, carol]));
}

#[test]
fn a_leader_that_leaves_hands_over_or_ends_the_meeting() {
    let mut meeting = Meeting::of(3, 31, Successors::FirstPresent(1));
    meeting.run(s(3));
    meeting.command(0, Command::Leave).unwrap();
    meeting.run_until(s(5), |meeting| meeting.together(&[1, 2]));
    assert!(meeting.state(1).leading);

    let mut meeting = Meeting::of(3, 32, Successors::Nobody);
    meeting.command(0, Command::Leave).unwrap();
    meeting.run(s(1));
    assert_eq!(meeting.phase(1), Phase::Ended(EndReason::LeaderLeft));
    assert_eq!(meeting.phase(2), Phase::Ended(EndReason::LeaderLeft));
}

#[test]
fn no_majority_no_takeover() {
    // Two of four, the leader counted, are not more than half.
    let mut meeting = Meeting::of(4, 33, Successors::FirstPresent(3));
    meeting.run(s(3));
    meeting.disconnect(0);
    meeting.disconnect(3);
    meeting.run(s(60));
    assert!(!meeting.state(1).leading && !meeting.state(2).leading);
    assert_eq!(meeting.phase(1), Phase::Stale);
}

#[test]
fn entries_of_whom_nobody_has_seen_keep_no_majority_from_taking_over() {
    let mut meeting = Meeting::of(4, 0x6057, Successors::FirstPresent(2));
    // Six devices come in and never prove to be there.
    meeting.tamper = Some(Box::new(|_, from, _, post| match post.slot {
        Slot::Direct(_) if (4..10).contains(&from) => Fate::Drop,
        _ => Fate::Deliver,
    }));
    let ghosts: Vec<usize> = (0..6).map(|_| meeting.join("Ghost")).collect();
    meeting.run_until(s(5), |meeting| meeting.state(3).roster.len() == 10);
    meeting.run(s(3));
    for node in ghosts.into_iter().chain([0]) {
        meeting.disconnect(node);
    }
    meeting.run_until(s(15), |meeting| {
        meeting.state(1).leading && [1, 2, 3].iter().all(|node| meeting.phase(*node) == Phase::Live)
    });
    meeting.run_until(s(120), |meeting| meeting.together(&[1, 2, 3]));
}

#[test]
fn a_meeting_cut_in_two_goes_on_in_one_half_and_never_merges() {
    let mut meeting = Meeting::of(6, 34, Successors::FirstPresent(2));
    meeting.run(s(3));
    // The leader and one on this side, four on the other.
    meeting.tamper = Some(Box::new(|_, from, to, _| {
        let side = |node: usize| node == 0 || node == 5;
        if from != usize::MAX && side(from) != side(to) { Fate::Drop } else { Fate::Deliver }
    }));
    meeting.run_until(s(20), |meeting| {
        meeting.state(1).leading && (1..5).all(|node| meeting.epoch(node) == meeting.epoch(1))
    });
    let far = meeting.epoch(1);
    meeting.command(0, Command::Rotate).unwrap();
    meeting.run(s(1));
    assert_eq!(meeting.phase(5), Phase::Live, "the smaller half has a chain of its own now");
    meeting.tamper = None;
    meeting.run(s(120));
    assert_eq!(meeting.phase(0), Phase::Ended(EndReason::Branch));
    assert!(matches!(meeting.phase(5), Phase::Ended(_)), "{:?}", meeting.phase(5));
    assert!(meeting.together(&[1, 2, 3, 4]) && meeting.epoch(1) >= far);
}

#[test]
fn after_a_cut_in_which_the_old_side_made_no_link_it_is_back_at_once() {
    let mut meeting = Meeting::of(6, 0x0c07, Successors::FirstPresent(2));
    meeting.run(s(3));
    meeting.tamper = Some(Box::new(|_, from, to, _| {
        let side = |node: usize| node == 0 || node == 5;
        if from != usize::MAX && side(from) != side(to) { Fate::Drop } else { Fate::Deliver }
    }));
    let head = meeting.epoch(5);
    meeting.run(s(30));
    assert!(meeting.state(1).leading && meeting.epoch(5) == head && meeting.phase(5) == Phase::Live);
    meeting.tamper = None;
    // The takeover is of the very head of who followed the old leader, and long past for them.
    meeting.run_until(s(10), |meeting| {
        [0, 5].iter().all(|node| meeting.phase(*node) == Phase::Ended(EndReason::Branch))
    });
    let mut all = vec![1, 2, 3, 4];
    for node in [0, 5] {
        let device = meeting.nodes[node].device.clone();
        all.push(meeting.join_as("Bob", device, Role::Participant, 1, 0));
    }
    meeting.run_until(s(10), |meeting| meeting.together(&all));
}

#[test]
fn a_missed_takeover_is_asked_for() {
    let mut meeting = Meeting::of(4, 35, Successors::FirstPresent(1));
    meeting.run(s(3));
    meeting.disconnect(0);
    meeting.tamper = Some(Box::new(|_, from, to, post| {
        if from == 1 && to == 3 && post.slot == Slot::Log { Fate::Drop } else { Fate::Deliver }
    }));
    meeting.run_until(s(30), |meeting| meeting.together(&[1, 2, 3]));
}

#[test]
fn a_takeover_while_the_leader_is_heard_is_refused() {
    let mut meeting = Meeting::of(4, 36, Successors::FirstPresent(1));
    meeting.run(s(3));
    // The relay hides the leader from three of four, who then agree; the fourth still hears it.
    meeting.tamper =
        Some(Box::new(
            |_, from, to, _| if from == 0 && (1..3).contains(&to) { Fate::Drop } else { Fate::Deliver },
        ));
    meeting.run(s(60));
    assert!(!meeting.state(1).leading, "two votes of four");
    assert!(meeting.state(0).leading && meeting.phase(3) == Phase::Live);
}

#[test]
fn clocks_of_very_different_uptime_survive_a_change_of_leader() {
    let mut meeting = Meeting::new(37, Successors::FirstPresent(2));
    let mut all = vec![0];
    for (offset, ppm) in [(10_000_000_000, 500), (3, -500), (77_000, 0)] {
        let device = meeting.device();
        all.push(meeting.join_as("Bob", device, Role::Participant, offset, ppm));
    }
    meeting.run_until(s(20), |meeting| meeting.together(&all));
    meeting.run(s(600));
    meeting.disconnect(0);
    meeting.run_until(s(30), |meeting| meeting.together(&all[1..]));
    meeting.run(s(3600));
    assert!(meeting.together(&all[1..]));
}

#[test]
fn two_people_cannot_outvote_a_leader_that_falls_silent() {
    // One of two, the leader counted, is not more than half: the successor that is named ends as stale.
    let mut meeting = Meeting::of(2, 39, Successors::FirstPresent(1));
    let camera = meeting.stream(1, "camera");
    meeting.run(s(3));
    assert_eq!(meeting.state(1).roster[1].successor, Some(1));
    meeting.disconnect(0);
    meeting.run_until(s(9), |meeting| meeting.phase(1) == Phase::Stale);
    assert!(meeting.nodes[1].sealing(camera, meeting.local(1)).is_none());
    let start = meeting.now;
    meeting.run_until(s(121), |meeting| meeting.phase(1) == Phase::Ended(EndReason::Stale));
    assert!(meeting.now - start >= 119_000 && !meeting.state(1).leading);
    assert_eq!(meeting.nodes[1].session.counters().misbehaviour, 0);
}

#[test]
fn a_leader_of_two_that_resigns_needs_no_votes() {
    let mut meeting = Meeting::of(2, 42, Successors::FirstPresent(1));
    meeting.run(s(3));
    meeting.command(0, Command::Leave).unwrap();
    meeting.run_until(s(5), |meeting| meeting.together(&[1]) && meeting.state(1).leading);
}

#[test]
fn a_joiner_survives_a_change_of_leader() {
    let mut meeting = Meeting::of(3, 43, Successors::FirstPresent(1));
    meeting.run(s(3));
    let carol = meeting.join("Carol");
    meeting.run(Duration::from_millis(50));
    meeting.command(0, Command::Leave).unwrap();
    meeting.run_until(s(15), |meeting| meeting.together(&[1, 2, carol]));
    assert!(meeting.state(carol).leader_verified);
    meeting.audit();
}

#[test]
fn of_two_who_take_over_at_once_the_first_in_order_goes_on() {
    let mut meeting = Meeting::of(5, 44, Successors::FirstPresent(2));
    meeting.run(s(3));
    // Nobody hears of the first successor's takeover before the second one's is out.
    let mut meet = false;
    meeting.tamper = Some(Box::new(move |now, from, to, _| {
        meet |= now > 40_000;
        match (from, to) {
            (1, _) if !meet => Fate::Delay(5_000),
            _ => Fate::Deliver,
        }
    }));
    meeting.disconnect(0);
    meeting.run_until(s(15), |meeting| meeting.state(1).leading && meeting.state(2).leading);
    meeting.tamper = None;
    meeting.run_until(s(15), |meeting| meeting.phase(2) == Phase::Ended(EndReason::Branch));
    meeting.run(s(30));
    assert!(meeting.state(1).leading, "{:?}", meeting.phase(1));
}

#[test]
fn after_a_takeover_nobody_lives_on_what_the_old_leader_vouched_for() {
    let mut meeting = Meeting::of(4, 55, Successors::FirstPresent(1));
    let camera = meeting.stream(2, "camera");
    meeting.run(s(3));
    let (bob, dave) = (meeting.nodes[1].session.me(), meeting.nodes[3].session.me());
    let carol = meeting.nodes[2].session.me();
    // Alice is cut off right after a heartbeat, and Carol hears nothing of Bob.
    let beats = |meeting: &Meeting| {
        meeting.posts.iter().filter(|(_, from, slot, _)| (*from, *slot) == (0, Slot::Cell)).count()
    };
    let before = beats(&meeting);
    meeting.run_until(s(3), |meeting| beats(meeting) > before);
    meeting.run(Duration::from_millis(100));
    meeting.tamper =
        Some(Box::new(
            |_, from, to, _| {
                if from == 0 || to == 0 || (from, to) == (1, 2) { Fate::Drop } else { Fate::Deliver }
            },
        ));
    meeting.run_until(s(9), |meeting| meeting.state(1).leading);
    let takeover: Vec<_> = meeting
        .recorded
        .iter()
        .filter(|post| post.from == bob && (post.slot == Slot::Log || post.slot == Slot::Direct(carol)))
        .cloned()
        .collect();
    meeting.run(Duration::from_millis(100));
    meeting.command(1, Command::Remove(dave)).unwrap();
    let removed = meeting.now;
    // Two more heartbeats of Alice's: Carol stays with her, and the votes are not yet too old.
    let before = beats(&meeting);
    meeting.tamper = Some(Box::new(move |_, from, to, post| {
        if (from, to, post.slot) == (0, 2, Slot::Cell) || (from != 0 && to != 0 && (from, to) != (1, 2)) {
            Fate::Deliver
        } else {
            Fate::Drop
        }
    }));
    meeting.run_until(s(5), |meeting| beats(meeting) == before + 2);
    meeting.run(Duration::from_millis(100));
    meeting.tamper =
        Some(Box::new(
            |_, from, to, _| {
                if from == 0 || to == 0 || (from, to) == (1, 2) { Fate::Drop } else { Fate::Deliver }
            },
        ));
    meeting.run(s(6));
    // Bob's takeover and its key, as they were before he removed Dave, who has that key as well.
    for post in takeover {
        meeting.inject(2, post);
    }
    assert!(meeting.now > removed + 8_000 && meeting.state(2).roster[0].leader);
    assert!(meeting.state(2).roster.iter().any(|person| person.participant == dave));
    assert!(meeting.nodes[2].sealing(camera, meeting.local(2)).is_none(), "Dave was removed over 8 s ago");
    meeting.tamper = None;
    meeting.run_until(s(10), |meeting| meeting.together(&[1, 2]) && meeting.hears(2, camera, 1));
}

#[test]
fn a_leader_of_long_ago_is_told_even_if_the_board_forgot() {
    let mut meeting = Meeting::of(6, 0x510, Successors::FirstPresent(3));
    for leader in [0, 1] {
        meeting.disconnect(leader);
        meeting.run_until(s(30), |meeting| meeting.state(leader + 1).leading);
    }
    let head = |meeting: &Meeting| meeting.state(2).roster.len();
    assert_eq!(head(&meeting), 4);
    meeting.forget();
    meeting.connect(0);
    meeting.run_until(s(10), |meeting| meeting.phase(0) == Phase::Ended(EndReason::Branch));
}

#[test]
fn a_successor_that_was_handed_its_own_announce_is_not_its_own_peer() {
    let mut meeting = Meeting::of(4, 0x5e1f, Successors::FirstPresent(2));
    // The relay gives Bob what Alice told Carol: the announces of all others, Bob's among them.
    let carol = Slot::Direct(meeting.nodes[2].session.me());
    for post in meeting.recorded.clone().into_iter().filter(|post| post.slot == carol) {
        meeting.inject(1, post);
    }
    meeting.disconnect(0);
    meeting.run_until(s(30), |meeting| meeting.state(1).leading && meeting.together(&[1, 2, 3]));
    meeting.audit();
    meeting.run(s(100));
    assert!(meeting.together(&[1, 2, 3]), "nobody misses the leader's own pulses");
}

#[test]
fn branches_that_parted_at_different_links_end_as_one() {
    let mut meeting = Meeting::of(9, 0xb4a7, Successors::FirstPresent(3));
    meeting.run(s(3));
    // Bob and four others hear nothing of the rest, nor the rest of them.
    meeting.tamper = Some(Box::new(|_, from, to, _| {
        let far = |node: usize| [1, 3, 4, 5, 8].contains(&node);
        if from != usize::MAX && far(from) != far(to) { Fate::Drop } else { Fate::Deliver }
    }));
    meeting.run_until(s(20), |meeting| meeting.state(1).leading);
    // The rest are a meeting of four for Alice, once the others are missed.
    meeting
        .run_until(s(120), |meeting| meeting.together(&[0, 2, 6, 7]) && meeting.together(&[1, 3, 4, 5, 8]));
    // They change their leader twice: by votes, and by a resignation.
    meeting.disconnect(0);
    meeting.run_until(s(20), |meeting| meeting.together(&[2, 6, 7]));
    meeting.command(2, Command::Leave).unwrap();
    meeting.run_until(s(20), |meeting| meeting.together(&[6, 7]));
    assert!(meeting.state(1).leading && meeting.state(6).leading);
    // When they hear each other, those who went on from the earlier link stay.
    meeting.tamper = None;
    meeting.run_until(s(10), |meeting| {
        [6, 7].iter().all(|node| meeting.phase(*node) == Phase::Ended(EndReason::Branch))
    });
    let mut all = vec![1, 3, 4, 5, 8];
    for node in [6, 7] {
        let device = meeting.nodes[node].device.clone();
        all.push(meeting.join_as("Bob", device, Role::Participant, 1, 0));
    }
    meeting.run_until(s(20), |meeting| meeting.together(&all));
    // So does the leader of long ago.
    meeting.connect(0);
    meeting.run_until(s(10), |meeting| meeting.phase(0) == Phase::Ended(EndReason::Branch));
    meeting.run(s(120));
    assert!(meeting.together(&all) && meeting.state(1).leading);
    meeting.audit();
}

#[test]
fn a_leader_whose_chain_of_leaders_is_full_names_nobody() {
    let mut meeting = Meeting::of(2, 0xf011, Successors::FirstPresent(1));
    let mut leader = 0;
    for change in 0..64 {
        let next = leader + 1;
        let named = |meeting: &Meeting| meeting.state(leader).roster.iter().any(|p| p.successor.is_some());
        meeting.run_until(s(10), |meeting| meeting.together(&[leader, next]) && named(meeting));
        meeting.command(leader, Command::Leave).unwrap();
        meeting.run_until(s(10), |meeting| meeting.state(next).leading);
        meeting.disconnect(leader);
        // A newcomer would ask each of them.
        meeting.forget();
        leader = meeting.join("Bob") - 1;
        assert_eq!(leader, change + 1);
    }
    // Newcomers are shown all 64, and a 65th would be one too many.
    meeting.run_until(s(10), |meeting| meeting.together(&[64, 65]));
    assert!(meeting.state(65).leader_verified);
    meeting.run(s(10));
    assert!(meeting.state(64).roster.iter().all(|person| person.successor.is_none()));
    meeting.command(64, Command::Leave).unwrap();
    meeting.run_until(s(5), |meeting| meeting.phase(65) == Phase::Ended(EndReason::LeaderLeft));
}

/// Of six people two are removed one after the other, as the leader's heartbeats say to those who hear them. Its links reach
/// nobody. Then it is cut off.
fn removed_unseen(seed: u64, hears: fn(usize) -> bool) -> Meeting {
    let mut meeting = Meeting::of(6, seed, Successors::FirstPresent(1));
    meeting.run(s(3));
    meeting.tamper = Some(Box::new(move |_, from, to, post| match post.slot {
        _ if from != 0 => Fate::Deliver,
        Slot::Cell if hears(to) => Fate::Deliver,
        _ => Fate::Drop,
    }));
    for node in [4, 5] {
        let who = meeting.nodes[node].session.me();
        meeting.command(0, Command::Remove(who)).unwrap();
        meeting.run(Duration::from_millis(600));
    }
    meeting.run(s(2));
    meeting.disconnect(0);
    meeting
}

#[test]
fn nobody_takes_over_from_before_a_removal_that_was_spoken_of() {
    let mut meeting = removed_unseen(0x0ed, |_| true);
    for _ in 0..60 {
        meeting.run(s(1));
        assert!(!meeting.state(1).leading);
    }
}

#[test]
fn who_heard_of_more_epochs_than_a_takeover_opens_comes_again_and_does_not_wait_for_the_next_one() {
    let mut meeting = removed_unseen(0x0ee, |to| to == 3);
    meeting.run_until(s(10), |meeting| meeting.state(1).leading);
    meeting.run_until(s(5), |meeting| meeting.phase(3) == Phase::Ended(EndReason::Branch));
    let device = meeting.nodes[3].device.clone();
    let back = meeting.join_as("Bob", device, Role::Participant, 0, 0);
    meeting.run_until(s(5), |meeting| meeting.together(&[1, 2, 4, 5, back]));
}

/// Carol leads three people, and Bob, who led before her, nobody, cut off from all but newcomers. One of the two is slow to
/// answer.
fn led_once(seed: u64, slow: usize) -> Meeting {
    let mut meeting = Meeting::of(5, seed, Successors::FirstPresent(2));
    meeting.run(s(3));
    meeting.command(0, Command::Leave).unwrap();
    meeting.run_until(s(5), |meeting| meeting.together(&[1, 2, 3, 4]));
    meeting.run(s(3));
    meeting.tamper = Some(Box::new(move |_, from, to, post| match (from, to) {
        (1 | 2, 5 | 6) if from == slow && post.slot != Slot::Cell => Fate::Delay(1_000),
        (1, 5 | 6) | (5 | 6, 1) => Fate::Deliver,
        (1, _) | (_, 1) => Fate::Drop,
        _ => Fate::Deliver,
    }));
    meeting.run_until(s(20), |meeting| meeting.together(&[2, 3, 4]));
    meeting
}

#[test]
fn who_led_once_turns_nobody_away_from_who_leads_now() {
    let mut meeting = led_once(0x1ed, 2);
    meeting.command(1, Command::Lock(true)).unwrap();
    let frank = meeting.join("Frank");
    let alice = meeting.nodes[0].device.clone();
    let alice = meeting.join_as("Alice", alice, Role::Participant, 0, 0);
    meeting.run_until(s(10), |meeting| meeting.together(&[2, 3, 4, frank, alice]));
    assert!(meeting.state(1).leading && meeting.state(1).locked);
}

#[test]
fn nor_lets_anybody_in_whom_the_leader_has_turned_away() {
    let mut meeting = led_once(0x1ee, 1);
    meeting.command(2, Command::Lock(true)).unwrap();
    let frank = meeting.join("Frank");
    meeting.run_until(s(10), |meeting| meeting.phase(frank) == Phase::Ended(EndReason::Locked));
}

#[test]
fn nor_is_the_device_that_made_the_link_turned_away_by_who_led_once() {
    let mut meeting = led_once(0x1ef, 2);
    meeting.command(1, Command::Lock(true)).unwrap();
    (2..5).for_each(|node| meeting.disconnect(node));
    meeting.forget();
    let alice = meeting.nodes[0].device.clone();
    let alice = meeting.join_as("Alice", alice, Role::Participant, 0, 0);
    meeting.run(s(20));
    assert_eq!(meeting.phase(alice), Phase::Joining(WaitReason::Answer));
}

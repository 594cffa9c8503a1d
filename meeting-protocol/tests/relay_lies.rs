//! A relay that drops, delays, replays and forgets.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use meeting_protocol::{
    session::{Command, EndReason, Phase, Successors, WaitReason},
    testing::{Fate, Meeting},
};
use meeting_wire::Slot;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn replayed_posts_change_nothing() {
    let mut meeting = Meeting::of(2, 10, Successors::Nobody);
    let bob = meeting.nodes[1].session.me();
    meeting.command(1, Command::Leave).unwrap();
    meeting.run(s(1));
    assert_eq!(meeting.state(0).roster.len(), 1);
    let epoch = meeting.epoch(0);
    for post in meeting.recorded.clone() {
        meeting.inject(0, post);
    }
    meeting.run(s(5));
    assert_eq!(
        (meeting.state(0).roster.len(), meeting.epoch(0)),
        (1, epoch),
        "an accepted announce is never accepted again"
    );
    // Nor does a later one with the challenge of long ago.
    meeting.run(s(40));
    for post in meeting.recorded.clone().into_iter().filter(|post| post.from == bob) {
        meeting.inject(0, post);
    }
    meeting.run(s(5));
    assert_eq!(meeting.state(0).roster.len(), 1);
}

#[test]
fn without_heartbeats_stale_then_back_then_over() {
    for cut in [0, 500, 1_000, 1_900] {
        let mut meeting = Meeting::of(2, 11 + cut, Successors::Nobody);
        let camera = meeting.stream(1, "camera");
        meeting.run(s(31) + Duration::from_millis(cut));
        let start = meeting.now;
        meeting.disconnect(1);
        meeting.run_until(s(9), |meeting| meeting.phase(1) == Phase::Stale);
        assert!(meeting.now - start <= 8_001, "stale after {} ms", meeting.now - start);
        assert!(meeting.nodes[1].sealing(camera, meeting.local(1)).is_none());
        meeting.run(s(30));
        meeting.connect(1);
        meeting.run_until(s(5), |meeting| meeting.together(&[0, 1]) && meeting.hears(1, camera, 0));
        meeting.disconnect(1);
        meeting.run_until(s(129), |meeting| meeting.phase(1) == Phase::Ended(EndReason::Stale));
        meeting.run_until(s(60), |meeting| meeting.state(0).roster.len() == 1);
    }
}

#[test]
fn heartbeats_that_drip_do_not_keep_a_stale_meeting_alive() {
    let mut meeting = Meeting::of(2, 20, Successors::Nobody);
    meeting.run(s(31));
    let start = meeting.now;
    // Each heartbeat comes just before patience would end, ever later.
    let mut held = 0;
    meeting.tamper = Some(Box::new(move |_, _, to, post| {
        if to == 1 && post.slot == Slot::Cell {
            held += 1;
            Fate::Delay(held * 4_000)
        } else {
            Fate::Deliver
        }
    }));
    meeting.run_until(s(20), |meeting| meeting.phase(1) == Phase::Stale);
    // What the leader said comes with its age: the first that dripped was said within two seconds, and counts for eight from then.
    assert!(meeting.now - start <= 10_001, "{}", meeting.now - start);
    let lease = *meeting.nodes[1].leases.last().unwrap();
    assert!(lease.1 <= meeting.local(1));
}

#[test]
fn a_welcome_held_back_leaves_a_newcomer_what_is_left_since_its_announce() {
    for held in [0, 5_000, 9_000] {
        let mut meeting = Meeting::new(2_100 + held, Successors::Nobody);
        meeting.run(s(1));
        let bob = meeting.join("Bob");
        let asked = meeting.now;
        // All that is for Bob alone is late, and of the leader's pulses only the first one reaches him.
        let mut beats = 0;
        meeting.tamper = Some(Box::new(move |_, _, to, post| match post.slot {
            Slot::Direct(_) if to == bob => Fate::Delay(held),
            Slot::Cell if to == bob => {
                beats += 1;
                if beats > 1 { Fate::Drop } else { Fate::Deliver }
            }
            _ => Fate::Deliver,
        }));
        let camera = meeting.stream(bob, "camera");
        let seals = |meeting: &Meeting| meeting.nodes[bob].sealing(camera, meeting.local(bob)).is_some();
        let came = asked + held + 900;
        meeting.run_until(s(20), |meeting| seals(meeting) || meeting.now > came);
        assert_eq!(seals(&meeting), held < 8_000, "counted from the announce, {held} ms before");
        let left = (asked + 8_500).saturating_sub(meeting.now);
        meeting.run(Duration::from_millis(left));
        assert!(!seals(&meeting), "nothing past 8 s, {held} ms held back");
    }
}

#[test]
fn a_withheld_wrap_is_asked_for_and_nothing_is_sealed_meanwhile() {
    let mut meeting = Meeting::of(2, 22, Successors::Nobody);
    let camera = meeting.stream(1, "camera");
    meeting.run(s(1));
    // Wraps are the only small direct posts of a leader.
    let mut left = 3;
    meeting.tamper = Some(Box::new(move |_, from, to, post| {
        if from == 0 && to == 1 && matches!(post.slot, Slot::Direct(_)) && left > 0 {
            left -= 1;
            Fate::Drop
        } else {
            Fate::Deliver
        }
    }));
    let old = meeting.epoch(1);
    meeting.command(0, Command::Rotate).unwrap();
    meeting.run(Duration::from_millis(700));
    assert_eq!(meeting.epoch(1), old);
    assert!(meeting.nodes[1].sealing(camera, meeting.local(1)).is_none(), "key or no key");
    meeting.run_until(s(20), |meeting| meeting.epoch(1) == old + 1);
    assert!(meeting.nodes[1].sealing(camera, meeting.local(1)).is_some());
}

#[test]
fn withheld_links_are_asked_for_and_retire_the_old_key_at_once() {
    let mut meeting = Meeting::of(3, 23, Successors::Nobody);
    let camera = meeting.stream(1, "camera");
    meeting.run(s(1));
    meeting.tamper = Some(Box::new(|_, from, to, post| {
        if from == 0 && to == 1 && post.slot == Slot::Log { Fate::Drop } else { Fate::Deliver }
    }));
    let carol = meeting.nodes[2].session.me();
    meeting.command(0, Command::Remove(carol)).unwrap();
    meeting.run_until(s(3), |meeting| {
        meeting.nodes[1].retired.0 > meeting.epoch(1) || meeting.state(1).roster.len() == 2
    });
    meeting.run_until(s(5), |meeting| meeting.together(&[0, 1]) && meeting.hears(1, camera, 0));
}

#[test]
fn a_relay_that_forgets_everything_breaks_nothing() {
    let mut meeting = Meeting::of(3, 24, Successors::Nobody);
    let camera = meeting.stream(0, "camera");
    meeting.run(s(1));
    for node in 0..3 {
        meeting.disconnect(node);
    }
    meeting.forget();
    meeting.run(s(3));
    for node in 0..3 {
        meeting.connect(node);
    }
    meeting.join("Bob");
    meeting.run_until(s(10), |meeting| {
        meeting.together(&[0, 1, 2, 3]) && (1..4).all(|node| meeting.hears(0, camera, node))
    });
}

#[test]
fn a_lost_welcome_comes_again() {
    let mut meeting = Meeting::new(38, Successors::Nobody);
    let mut left = 3;
    meeting.tamper = Some(Box::new(move |_, from, _, post| {
        if from == 0 && matches!(post.slot, Slot::Direct(_)) && left > 0 {
            left -= 1;
            Fate::Drop
        } else {
            Fate::Deliver
        }
    }));
    let bob = meeting.join("Bob");
    meeting.run_until(s(20), |meeting| meeting.together(&[0, bob]));
    assert_eq!(meeting.epoch(0), 2, "asking again lets nobody in twice");
}

#[test]
fn who_lacks_the_newest_key_is_not_live() {
    let mut meeting = Meeting::of(2, 45, Successors::Nobody);
    let camera = meeting.stream(1, "camera");
    meeting.run(s(1));
    meeting.tamper = Some(Box::new(|_, from, to, post| {
        if (from, to) == (0, 1) && matches!(post.slot, Slot::Direct(_)) { Fate::Drop } else { Fate::Deliver }
    }));
    meeting.command(0, Command::Rotate).unwrap();
    let start = meeting.now;
    meeting.run_until(s(2), |meeting| meeting.phase(1) == Phase::Joining(WaitReason::Key));
    assert!((1_000..1_100).contains(&(meeting.now - start)), "{}", meeting.now - start);
    assert!(meeting.nodes[1].sealing(camera, meeting.local(1)).is_none());
    meeting.run(s(20));
    assert_eq!(meeting.phase(1), Phase::Joining(WaitReason::Key), "heartbeats alone are no key");
    meeting.tamper = None;
    meeting.run_until(s(9), |meeting| meeting.together(&[0, 1]) && meeting.hears(1, camera, 0));
    // Nor is who knows of a newer epoch by heartbeat only.
    meeting.tamper = Some(Box::new(|_, from, to, post| {
        if (from, to) == (0, 1) && post.slot != Slot::Cell { Fate::Drop } else { Fate::Deliver }
    }));
    meeting.command(0, Command::Rotate).unwrap();
    meeting.run_until(s(4), |meeting| meeting.phase(1) == Phase::Joining(WaitReason::Key));
}

#[test]
fn pulses_played_again_or_held_back_keep_nobody_here() {
    for held_back in [false, true] {
        let mut meeting = Meeting::of(3, 460 + u64::from(held_back), Successors::Nobody);
        meeting.run(s(40));
        if held_back {
            // The relay saves up what Bob says while he believes the leader gone.
            meeting.tamper =
                Some(Box::new(|_, from, to, _| if from + to == 1 { Fate::Drop } else { Fate::Deliver }));
            meeting.run(s(60));
            meeting.tamper = None;
        }
        let bob = meeting.nodes[1].session.me();
        meeting.disconnect(1);
        let pulses: Vec<_> = meeting
            .recorded
            .iter()
            .filter(|post| post.from == bob && matches!(post.slot, Slot::Direct(_)))
            .cloned()
            .collect();
        assert!(pulses.len() >= 2);
        for post in pulses.iter().cycle().take(95) {
            meeting.inject(0, post.clone());
            meeting.run(s(1));
        }
        assert_eq!(meeting.state(0).roster.len(), 2, "held back: {held_back}");
        assert!(meeting.together(&[0, 2]));
    }
}

#[test]
fn a_relay_that_cuts_the_leader_off_again_and_again_keeps_nobody_here() {
    let mut meeting = Meeting::of(3, 47, Successors::Nobody);
    meeting.disconnect(1);
    for _ in 0..10 {
        meeting.run(s(10));
        meeting.disconnect(0);
        meeting.run(Duration::from_millis(100));
        meeting.connect(0);
    }
    assert_eq!(meeting.state(0).roster.len(), 2);
    // An outage of the leader's own is nobody's absence.
    meeting.disconnect(0);
    meeting.run(s(100));
    assert_eq!(meeting.state(0).roster.len(), 2);
    meeting.connect(0);
    meeting.run_until(s(10), |meeting| meeting.together(&[0, 2]));
    meeting.run(s(100));
    assert!(meeting.together(&[0, 2]));
}

#[test]
fn the_removed_are_told_even_if_the_relay_hides_it() {
    let mut meeting = Meeting::of(3, 49, Successors::Nobody);
    meeting.tamper = Some(Box::new(|_, from, to, post| {
        if (from, to) == (0, 1) && post.slot == Slot::Log { Fate::Drop } else { Fate::Deliver }
    }));
    let bob = meeting.nodes[1].session.me();
    meeting.command(0, Command::Remove(bob)).unwrap();
    meeting.run_until(s(5), |meeting| meeting.phase(1) == Phase::Ended(EndReason::Removed));
}

#[test]
fn the_end_of_a_stream_is_heard_late_early_or_without_a_key() {
    let mut meeting = Meeting::of(2, 53, Successors::Nobody);
    // The end overtakes the beginning.
    let mut first = true;
    meeting.tamper = Some(Box::new(move |_, from, to, _| {
        if (from, to) == (1, 0) && std::mem::take(&mut first) { Fate::Delay(500) } else { Fate::Deliver }
    }));
    let camera = meeting.stream(1, "camera");
    meeting.command(1, Command::CloseStream(camera)).unwrap();
    meeting.run(s(1));
    assert!(meeting.state(0).streams.is_empty() && meeting.nodes[0].opens.is_empty());
    // The end comes while there is no key to say it under.
    let voice = meeting.stream(1, "voice");
    meeting.run(s(1));
    assert_eq!(meeting.state(0).streams.len(), 1);
    let mut wraps = 2;
    meeting.tamper = Some(Box::new(move |_, from, to, post| {
        let withheld = (from, to) == (0, 1) && matches!(post.slot, Slot::Direct(_)) && wraps > 0;
        wraps -= u64::from(withheld);
        if withheld { Fate::Drop } else { Fate::Deliver }
    }));
    meeting.command(0, Command::Rotate).unwrap();
    meeting.run(Duration::from_millis(100));
    meeting.command(1, Command::CloseStream(voice)).unwrap();
    meeting.run(s(5));
    assert!(meeting.together(&[0, 1]));
    assert!(meeting.state(0).streams.is_empty() && meeting.nodes[0].opens.is_empty());
}

#[test]
fn a_late_statement_brings_no_key_back_that_is_over() {
    let mut meeting = Meeting::of(3, 56, Successors::Nobody);
    let camera = meeting.stream(2, "camera");
    meeting.run(s(1));
    let (carol, old) = (meeting.nodes[2].session.me(), meeting.epoch(1));
    // Carol's word on her stream is held back, and with it Bob's next two keys.
    meeting.tamper = Some(Box::new(|_, from, to, post| {
        let withheld = to == 1 && (from == 2 || matches!(post.slot, Slot::Direct(_)));
        if withheld { Fate::Drop } else { Fate::Deliver }
    }));
    meeting.command(2, Command::StreamCaps { stream: camera, caps: "video/x-vp8".into() }).unwrap();
    let late = meeting.recorded.iter().rfind(|post| post.from == carol).unwrap().clone();
    assert!(meeting.nodes[1].opens.contains_key(&(carol, camera, old)));
    for _ in 0..2 {
        meeting.command(0, Command::Rotate).unwrap();
        meeting.run(Duration::from_millis(300));
    }
    // The old epoch closes, whether there is a newer key or not.
    meeting.run(s(3));
    assert!(!meeting.nodes[1].opens.contains_key(&(carol, camera, old)));
    meeting.inject(1, late);
    assert!(!meeting.nodes[1].opens.contains_key(&(carol, camera, old)));
}

#[test]
fn a_link_and_a_key_held_back_until_their_epoch_had_closed_open_nothing() {
    let mut meeting = Meeting::of(3, 58, Successors::Nobody);
    let (camera, microphone) = (meeting.stream(2, "camera"), meeting.stream(1, "microphone"));
    meeting.run(s(1));
    let (bob, carol) = (meeting.nodes[1].session.me(), meeting.nodes[2].session.me());
    let old = meeting.epoch(1);
    // Of two epochs, the second of which is without Carol, nothing reaches Bob but heartbeats.
    meeting.tamper =
        Some(Box::new(
            |_, _, to, post| {
                if to == 1 && post.slot != Slot::Cell { Fate::Drop } else { Fate::Deliver }
            },
        ));
    let before = meeting.recorded.len();
    meeting.command(0, Command::Rotate).unwrap();
    meeting.run(Duration::from_millis(200));
    let first = meeting.recorded[before..].to_vec();
    meeting.command(0, Command::Remove(carol)).unwrap();
    meeting.run_until(s(3), |meeting| meeting.nodes[1].retired.0 == old + 2);
    meeting.run(s(3));
    // Now the first one is handed over: its link, its key and what Carol said under it.
    let said = meeting.posts.len();
    for post in first {
        if post.from == carol || [Slot::Log, Slot::Direct(bob)].contains(&post.slot) {
            meeting.inject(1, post);
        }
    }
    meeting.run(Duration::from_millis(200));
    assert!(!meeting.nodes[1].opens.keys().any(|(from, ..)| *from == carol), "she was removed seconds ago");
    let stated = meeting.posts[said..].iter().any(|(_, from, slot, _)| (*from, *slot) == (1, Slot::Log));
    assert!(!stated, "nobody states a stream under a key that is over");
    assert!(meeting.nodes[1].sealing(microphone, meeting.local(1)).is_none());
    assert!(!meeting.nodes[1].ever.values().any(|epoch| *epoch == old + 1));
    // Who is only behind comes along.
    meeting.tamper = None;
    meeting.run_until(s(10), |meeting| meeting.together(&[0, 1]) && meeting.hears(1, microphone, 0));
    assert!(!meeting.nodes[1].opens.keys().any(|(from, stream, _)| (*from, *stream) == (carol, camera)));
}

#[test]
fn what_somebody_said_before_leaving_opens_nothing_once_they_have_left() {
    let mut meeting = Meeting::of(3, 0x1ea7e, Successors::Nobody);
    meeting.stream(2, "camera");
    meeting.run(s(3));
    // Of a second stream Bob hears nothing in time.
    meeting.tamper =
        Some(Box::new(|_, from, to, _| if (from, to) == (2, 1) { Fate::Drop } else { Fate::Deliver }));
    meeting.stream(2, "screen");
    let carol = meeting.nodes[2].session.me();
    let opens = |meeting: &Meeting| meeting.nodes[1].opens.keys().filter(|(from, ..)| *from == carol).count();
    assert_eq!(opens(&meeting), 1);
    // The leader hears nothing of it.
    meeting.tamper =
        Some(Box::new(|_, from, to, _| if (from, to) == (2, 0) { Fate::Drop } else { Fate::Deliver }));
    meeting.command(2, Command::Leave).unwrap();
    meeting.run(s(1));
    for post in meeting.recorded.clone().into_iter().filter(|post| post.from == carol) {
        meeting.inject(1, post);
        assert_eq!((opens(&meeting), meeting.state(1).streams.len()), (0, 0));
    }
    assert_eq!(meeting.state(0).roster.len(), 3);
}

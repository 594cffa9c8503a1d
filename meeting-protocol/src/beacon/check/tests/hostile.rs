//! A relay and a member that know how a checker works: what it must not forget, and not pass over in silence.

use super::*;

/// A third of a second of Alice and the beacon that speaks of it do not come; gives the first counter of that.
fn gap(scene: &mut Scene) -> u64 {
    let first = scene.ctr;
    scene.third(|_, _| {});
    scene.sent.take();
    first
}

#[test]
fn a_frame_forged_into_the_gap_of_a_lost_beacon_is_told() {
    let mut scene = Scene::new();
    scene.honest_thirds(3);
    let gap = gap(&mut scene);
    scene.honest_thirds(1);
    assert!(scene.come(&frame(kid(), gap + 3, b"forged")), "so could an honest one");
    let came = scene.now;
    while !scene.told.contains(&What::Unverified) {
        assert!(scene.now - came < 2_000, "unnoticed for 2 s");
        scene.honest_thirds(1);
    }
}

#[test]
fn while_frames_wait_for_their_beacon_none_comes_through_a_gap() {
    let mut scene = Scene::new();
    scene.honest_thirds(3);
    let gap = gap(&mut scene);
    scene.honest_thirds(1);
    scene.come(&frame(kid(), scene.ctr + 5_000, b"forged"));
    assert_eq!(scene.told.last(), Some(&What::Forged));
    assert!((0..10).all(|n| !scene.come(&frame(kid(), gap + n, b"forged"))));
}

#[test]
fn what_a_beacon_refused_that_was_held_back_does_not_go_on_again() {
    let mut scene = Scene::new();
    scene.honest_thirds(3);
    // A beacon that says how far Alice is now comes when she is further, and nobody knows how old it is.
    let (old, signed) = (scene.sent.idle(), scene.ctr);
    let mut came = Vec::new();
    for _ in 0..8 {
        scene.third(|scene, envelope| {
            scene.come(&envelope);
            came.push(envelope);
        });
    }
    scene.delay = None;
    scene.sign(old);
    assert!(scene.told.contains(&What::Forged), "that is how it looks");
    let again = |scene: &mut Scene| {
        let altered = Envelope { pts: Some(1), ..came[0].clone() };
        came.iter().chain([&altered]).filter(|envelope| scene.come(envelope)).count()
    };
    assert_eq!(again(&mut scene), 0);
    scene.delivered.clear();
    scene.beacon();
    scene.tick();
    assert_eq!((again(&mut scene), scene.delivered.len()), (0, 0), "from counter {signed} on");
}

#[test]
fn what_went_on_before_nobody_watched_never_goes_on_again() {
    for forged in [None, Some(7), Some(500)] {
        let mut scene = Scene::new();
        let mut old = Vec::new();
        for third in 0..10 {
            scene.third(|scene, envelope| {
                assert!(scene.come(&envelope));
                old.push(envelope);
            });
            // Nobody has signed for the last ones.
            if third < 9 {
                scene.beacon();
            }
        }
        if let Some(ahead) = forged {
            scene.come(&frame(kid(), scene.ctr + ahead, b"forged"));
        }
        scene.checker.rest(CAMERA);
        gap(&mut scene);
        assert!(old.iter().all(|envelope| !scene.come(envelope)), "at rest");
        scene.checker.watch(CAMERA, BootTime(scene.now));
        assert!(old.iter().all(|envelope| !scene.come(envelope)), "before the first beacon");
        scene.third(|scene, envelope| assert!(scene.come(&envelope)));
        scene.beacon();
        assert!(old.iter().all(|envelope| !scene.come(envelope)), "after it");
        let before = scene.honest_delivered();
        scene.honest_thirds(60);
        assert!(scene.honest_delivered() >= before + 599, "and nobody is muted");
        assert!(forged.is_some() || !scene.told.contains(&What::Forged), "{:?}", scene.told);
    }
}

#[test]
fn made_up_key_ids_make_nothing_forgotten() {
    let mut scene = Scene::new();
    scene.honest_thirds(3);
    let mut made_up = (0..).map(|n| KeyId::new(CAMERA, 3, 100 + n));
    while !scene.told.contains(&What::Forged) {
        assert!(scene.now < 10_000, "Alice's frames are others, and nobody is told");
        scene.third(|scene, envelope| {
            let (header, _) = Header::parse(&envelope.sealed).unwrap();
            scene.come(&frame(kid(), header.ctr, b"forged"));
        });
        for kid in made_up.by_ref().take(3) {
            scene.come(&frame(kid, 0, b"made up"));
        }
        scene.beacon();
    }
}

#[test]
fn no_frame_comes_again_for_made_up_key_ids_and_withheld_beacons() {
    let mut scene = Scene::new();
    let mut old = Vec::new();
    for _ in 0..10 {
        scene.third(|scene, envelope| {
            scene.come(&envelope);
            old.push(envelope);
        });
        scene.beacon();
    }
    for epoch in 20..30 {
        scene.come(&frame(KeyId::new(CAMERA, 3, epoch), 0, b"made up"));
    }
    scene.come(&frame(KeyId::new(StreamId(2), 3, 9), 0, b"swapped"));
    for _ in 0..8 {
        scene.third(|_, _| {});
    }
    let before = scene.delivered.len();
    for envelope in &old {
        scene.come(envelope);
    }
    assert_eq!(scene.delivered.len(), before);
}

#[test]
fn a_key_that_comes_late_is_checked_from_its_first_frame() {
    let mut scene = Scene::new();
    scene.honest_thirds(3);
    let next = KeyId::new(CAMERA, 3, 10);
    let first = frame(next, scene.ctr, b"honest");
    scene.sent.frame(&first);
    assert!(scene.come(&first), "its sender may have it before us");
    assert!(scene.come(&frame(next, scene.ctr + 1, b"forged")));
    scene.checker.opened(next, 10, BootTime(scene.now));
    scene.now += 1_000;
    scene.beacon();
    scene.now += 990;
    scene.tick();
    assert!(
        scene.told.iter().any(|what| matches!(what, What::Forged | What::Unverified)),
        "{:?}",
        scene.told
    );
    assert!(!scene.come(&first));
}

#[test]
fn frames_forged_before_the_first_beacon_are_told() {
    let mut scene = Scene::new();
    for ctr in 500..520 {
        assert!(scene.come(&frame(kid(), ctr, b"forged")));
    }
    // Alice's own do not come, and neither does her beacon that speaks of them.
    scene.third(|_, _| {});
    scene.third(|_, _| {});
    scene.sent.take();
    let came = scene.now - 660;
    while !scene.told.contains(&What::Unverified) {
        assert!(scene.now - came < 2_000, "{:?}", scene.told);
        scene.honest_thirds(1);
    }
}

#[test]
fn a_frame_that_was_never_sent_is_forged_however_late_beacons_are() {
    for delay in [500, 1_200, 2_900] {
        let mut scene = Scene::new();
        scene.delay = Some(delay);
        scene.honest_thirds(3);
        assert!(scene.come(&frame(kid(), scene.ctr + 3_000, b"forged")));
        scene.honest_thirds(14);
        assert!(scene.told.contains(&What::Forged), "{delay} ms: {:?}", scene.told);
    }
}

#[test]
fn elements_start_anew_for_each_forged_frame_that_went_on() {
    let mut scene = Scene::new();
    scene.honest_thirds(3);
    assert!(scene.come(&frame(kid(), scene.ctr + 3_000, b"forged")));
    scene.come(&frame(KeyId::new(StreamId(2), 3, 9), 0, b"swapped"));
    assert_eq!(scene.told.last(), Some(&What::Forged));
    scene.honest_thirds(6);
    assert_eq!(scene.told.last(), Some(&What::ForgedBefore), "{:?}", scene.told);
}

#[test]
fn a_flood_makes_nothing_forgotten_that_went_on() {
    for beacons in [true, false] {
        let mut scene = Scene::new();
        scene.honest_thirds(3);
        if !beacons {
            scene.now += 3_000;
        }
        let mut old = Vec::new();
        scene.third(|scene, envelope| {
            assert!(scene.come(&envelope));
            old.push(envelope);
        });
        for n in 0..2_200 {
            scene.come(&frame(kid(), scene.ctr + 100 + n, b"garbage"));
        }
        scene.come(&frame(KeyId::new(StreamId(2), 3, 9), 0, b"swapped"));
        for envelope in &old {
            assert!(!scene.come(envelope));
        }
        scene.beacon();
        let times =
            |one: &Envelope| scene.delivered.iter().filter(|other| other.sealed == one.sealed).count();
        assert!(old.iter().all(|envelope| times(envelope) == 1), "beacons: {beacons}");
    }
}

#[test]
fn what_ended_the_player_is_still_told() {
    for signed in [true, false] {
        let mut scene = Scene::new();
        scene.honest_thirds(3);
        assert!(scene.come(&frame(kid(), scene.ctr, b"forged")));
        scene.checker.rest(CAMERA);
        assert!(!scene.checker.is_settled());
        scene.next();
        if signed {
            scene.beacon();
        }
        scene.now += 1_900;
        scene.tick();
        assert!(scene.checker.is_settled());
        assert!(
            scene.told.iter().any(|what| matches!(what, What::Forged | What::CutOff)),
            "{:?}",
            scene.told
        );
    }
}

#[test]
fn a_person_is_told_of_doubts_less_and_less_often() {
    let mut scene = Scene::new();
    scene.honest_thirds(3);
    let gap = gap(&mut scene);
    scene.honest_thirds(1);
    for n in 0..10 {
        scene.come(&frame(kid(), gap + n, b"forged"));
        scene.honest_thirds(30);
    }
    let told = scene.told.iter().filter(|what| **what == What::Unverified).count();
    assert!((1..=5).contains(&told), "in 100 s told {told} times");
}

#[test]
fn nothing_comes_through_a_gap_of_long_ago() {
    let mut scene = Scene::new();
    scene.honest_thirds(3);
    let gap = gap(&mut scene);
    scene.honest_thirds(220);
    assert!((0..10).all(|n| !scene.come(&frame(kid(), gap + n, b"forged"))));
}

#[test]
fn a_flood_without_beacons_makes_no_forged_frame_forgotten_before_it_shows() {
    let mut scene = Scene::new();
    scene.honest_thirds(3);
    // The relay holds back all of Alice.
    for _ in 0..7 {
        scene.third(|_, _| {});
    }
    assert!(scene.come(&frame(kid(), scene.ctr, b"forged")));
    let came = scene.now;
    for junk in 0.. {
        if scene.told.contains(&What::Unverified) {
            break;
        }
        assert!(scene.now - came < 2_000, "unnoticed for 2 s");
        assert!(!scene.checker.is_settled());
        scene.come(&frame(kid(), scene.ctr + 1 + junk, b"junk"));
        if junk % 3 == 2 {
            scene.now += 2;
        }
        if junk % 500 == 499 {
            scene.tick();
        }
    }
}

#[test]
fn what_is_forged_into_a_stream_that_rests_is_forged() {
    const VOICE: KeyId = KeyId::new(StreamId(2), 3, 9);
    for (sent_before, kid) in [(true, VOICE), (true, KeyId::new(StreamId(2), 3, 10)), (false, VOICE)] {
        for camera_rests in [false, true] {
            let mut scene = Scene::new();
            scene.checker.opened(kid, 9, BootTime(scene.now));
            scene.checker.watch(StreamId(2), BootTime(scene.now));
            if sent_before {
                scene.sent.frame(&frame(VOICE, 0, b"honest"));
            }
            scene.honest_thirds(6);
            let forged = frame(kid, 1, b"forged");
            let digest = FrameDigest::of(&forged);
            assert!(scene.checker.frame(StreamId(2), forged, digest, BootTime(scene.now)).is_some());
            let came = scene.now;
            while !scene.told.contains(&What::Forged) {
                assert!(scene.now - came < 2_000, "{:?}", scene.told);
                if camera_rests {
                    scene.now += 330;
                    scene.tick();
                    scene.idle();
                } else {
                    scene.honest_thirds(1);
                }
            }
            assert_eq!(scene.checker.trust(StreamId(2)), (Trust::Forged, 1));
            assert_ne!(scene.checker.trust(CAMERA).0, Trust::Forged);
        }
    }
}

#[test]
fn idle_beacons_keep_the_guard_up() {
    let mut scene = Scene::new();
    scene.honest_thirds(3);
    scene.come(&frame(kid(), scene.ctr + 20_000, b"forged"));
    assert_eq!(scene.told.last(), Some(&What::Forged));
    let before = scene.delivered.len();
    for _ in 0..5 {
        for _ in 0..5 {
            scene.come(&frame(kid(), scene.ctr, &scene.now.to_be_bytes()));
            scene.now += 333;
            scene.tick();
        }
        // As late as a sender makes one.
        scene.idle();
    }
    assert_eq!(scene.delivered.len(), before, "what nobody signed for goes nowhere");
}

#[test]
fn a_leader_who_makes_keys_makes_no_frame_forgotten() {
    for ahead in [1, 256] {
        let mut scene = Scene::new();
        scene.honest_thirds(3);
        assert!(scene.come(&frame(kid(), scene.ctr, b"forged")));
        for epoch in 0..18 {
            let epoch = 9 + ahead + epoch;
            let kid = KeyId::new(CAMERA, 3, epoch);
            scene.checker.opened(kid, epoch, BootTime(scene.now));
            scene.come(&frame(kid, scene.ctr + epoch, b"forged"));
        }
        scene.now += 1_700;
        scene.tick();
        assert!(scene.told.contains(&What::Unverified), "{:?}", scene.told);
    }
}

#[test]
fn whoever_looks_like_a_broken_connection_again_and_again_has_one_sentence() {
    let mut scene = Scene::new();
    scene.honest_thirds(3);
    for _ in 0..2 {
        scene.sent.take();
        scene.come(&frame(kid(), scene.ctr, &scene.now.to_be_bytes()));
        scene.ctr += 1;
        scene.now += 1_900;
        scene.tick();
    }
    assert_eq!(scene.told, [What::Vouched, What::CutOff, What::Unverified]);
}

#[test]
fn spans_without_frames_cost_their_receiver_little() {
    let mut scene = Scene::new();
    for _ in 0..MEMORY {
        let envelope = scene.next();
        scene.come(&envelope);
    }
    scene.beacon();
    let span = Span { kid: kid(), first: scene.ctr, frames: Vec::new(), closed: false };
    let vouch = Vouch { spans: vec![span; 255], delay: None };
    let mut takes = || {
        let start = std::time::Instant::now();
        for _ in 0..1_000 {
            scene.checker.beacon(&vouch, BootTime(scene.now));
        }
        start.elapsed()
    };
    // Looking at all that is known for each would be five hundred million steps. The machine may stand still once.
    let least = (0..5).map(|_| takes()).min();
    assert!(least < Some(Duration::from_secs(1)), "{least:?}");
}

#[test]
fn a_beacon_that_is_held_back_brings_no_frame_again() {
    let mut scene = Scene::new();
    scene.honest_thirds(3);
    let mut old = Vec::new();
    scene.third(|scene, envelope| {
        assert!(scene.come(&envelope));
        old.push(envelope);
    });
    let held_back = scene.sent.take();
    scene.honest_thirds(220);
    // What was forged makes room where it is found out.
    scene.come(&frame(kid(), scene.ctr + 3_000, b"forged"));
    while !scene.told.contains(&What::Forged) {
        scene.honest_thirds(1);
    }
    scene.sign(held_back);
    assert!(old.iter().all(|envelope| !scene.come(envelope)));
}

#[test]
fn a_flood_that_is_refused_makes_no_refused_frame_forgotten() {
    let mut scene = Scene::new();
    scene.honest_thirds(3);
    // An honest frame that a beacon refused which was held back, of an age that nobody knows; what signs for it does not come.
    let old = scene.sent.idle();
    let honest = scene.next();
    assert!(scene.come(&honest));
    scene.now += 2_100;
    scene.delay = None;
    scene.sign(old);
    scene.sent.take();
    scene.delay = Some(20);
    let quiet = |scene: &mut Scene, thirds| {
        for _ in 0..thirds {
            scene.now += 330;
            scene.tick();
            scene.idle();
        }
    };
    quiet(&mut scene, 40);
    for n in 0..MEMORY as u64 {
        scene.come(&frame(kid(), scene.ctr + n, b"forged"));
    }
    scene.now += 1_300;
    scene.idle();
    quiet(&mut scene, 70);
    assert!(!scene.come(&honest), "it went on before");
}

#[test]
fn who_looks_as_seldom_as_may_be_is_told_within_two_seconds() {
    for phase in (0..500).step_by(25) {
        let mut scene = Scene::new();
        scene.honest_thirds(3);
        let gap = gap(&mut scene);
        scene.honest_thirds(1);
        assert!(scene.come(&frame(kid(), gap + 3, b"forged")));
        let came = scene.now;
        scene.now += phase;
        while !scene.told.contains(&What::Unverified) {
            scene.tick();
            scene.idle();
            scene.now += LOOK.as_millis() as u64;
            assert!(scene.now - came < 2_000 + LOOK.as_millis() as u64, "told late, at {phase}");
        }
    }
}

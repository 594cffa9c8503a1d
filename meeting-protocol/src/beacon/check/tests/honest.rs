//! Honest senders over honest networks: what happens every day accuses nobody.

use super::*;

impl Scene {
    /// Nobody was accused, and Bob hears Alice.
    fn is_peaceful(&mut self) {
        self.honest_thirds(6);
        let fine = |what: &What| matches!(what, What::Vouched | What::CutOff);
        assert!(self.told.iter().all(fine), "{:?}", self.told);
        assert_eq!(self.checker.trust(CAMERA), (Trust::Vouched, 0));
    }

    fn rest_for(&mut self, thirds: usize) {
        self.checker.rest(CAMERA);
        for _ in 0..thirds {
            self.third(|_, _| {});
            self.beacon();
        }
    }
}

#[test]
fn who_watches_again_after_a_long_pause_is_told_nothing() {
    let mut scene = Scene::new();
    scene.honest_thirds(3);
    scene.rest_for(500);
    scene.checker.watch(CAMERA, BootTime(scene.now));
    let first = scene.next();
    assert!(scene.come(&first));
    scene.is_peaceful();
    // Nor where the newest beacon says nothing of the stream.
    scene.rest_for(500);
    scene.sign(Vec::new());
    scene.checker.watch(CAMERA, BootTime(scene.now));
    scene.is_peaceful();
}

#[test]
fn a_beacon_may_overtake_the_frames_it_speaks_of() {
    let mut scene = Scene::new();
    scene.checker = Checker::default();
    scene.checker.opened(kid(), 9, BootTime(scene.now));
    let mut late = Vec::new();
    for _ in 0..2 {
        late.clear();
        scene.third(|_, envelope| late.push(envelope));
        scene.beacon();
    }
    scene.checker.watch(CAMERA, BootTime(scene.now));
    assert!(late.iter().all(|envelope| scene.come(envelope)), "signed for already");
    assert!(late.iter().all(|envelope| !scene.come(envelope)));
    scene.is_peaceful();
    assert_eq!(scene.told, [What::Vouched]);
}

#[test]
fn frames_and_beacons_that_overtake_each_other_accuse_nobody() {
    let mut scene = Scene::new();
    scene.honest_thirds(3);
    for _ in 0..20 {
        let mut frames = Vec::new();
        let mut beacons = Vec::new();
        for _ in 0..2 {
            scene.third(|_, envelope| frames.push(envelope));
            beacons.push(scene.sent.take());
        }
        frames.reverse();
        for (n, envelope) in frames.iter().enumerate() {
            scene.come(envelope);
            if n % 10 == 5 {
                scene.sign(beacons.pop().unwrap());
            }
        }
    }
    assert_eq!(scene.honest_delivered(), 430);
    scene.is_peaceful();
    assert_eq!(scene.told, [What::Vouched]);
}

#[test]
fn a_connection_that_breaks_accuses_nobody() {
    // Our own, the relay's other one, or Alice leaves: her last frames come without their beacon.
    let breaks: [fn(&mut Scene); 3] = [
        |scene| scene.checker.cut(CAMERA, BootTime(scene.now)),
        |scene| scene.checker.forget(CAMERA),
        |_| {},
    ];
    for (break_off, back_after) in breaks.iter().flat_map(|one| [1, 9].map(|thirds| (one, thirds))) {
        let mut scene = Scene::new();
        scene.honest_thirds(3);
        scene.third(|scene, envelope| assert!(scene.come(&envelope)));
        scene.sent.take();
        break_off(&mut scene);
        let gone = scene.checker.streams[&CAMERA].has_ended;
        let watched = scene.checker.streams[&CAMERA].watched.is_some();
        for _ in 0..if watched { 9 } else { back_after } {
            scene.now += 330;
            scene.tick();
            if gone {
                // Others of her streams go on.
                scene.sign(Vec::new());
            }
        }
        if gone {
            scene.now += 2_000;
            scene.tick();
            assert!(!scene.checker.knows(CAMERA));
            scene.checker.opened(kid(), 9, BootTime(scene.now));
        }
        scene.checker.watch(CAMERA, BootTime(scene.now));
        scene.is_peaceful();
        assert_eq!(scene.told.iter().filter(|what| **what == What::CutOff).count(), 1, "{:?}", scene.told);
    }
}

#[test]
fn a_stream_that_rests_for_long_accuses_nobody() {
    const VOICE: KeyId = KeyId::new(StreamId(2), 3, 9);
    let mut scene = Scene::new();
    scene.checker.opened(VOICE, 9, BootTime(scene.now));
    scene.checker.watch(StreamId(2), BootTime(scene.now));
    for n in 0..60 {
        // Each fifth beacon is lost, and the second stream sends a frame now and then.
        if n % 8 == 1 {
            let envelope = frame(VOICE, n, b"voice");
            scene.sent.frame(&envelope);
            let digest = FrameDigest::of(&envelope);
            assert!(scene.checker.frame(StreamId(2), envelope, digest, BootTime(scene.now)).is_some());
        }
        scene.honest_thirds(1);
        if n % 5 == 4 {
            scene.third(|_, _| {});
            scene.sent.take();
        }
    }
    scene.is_peaceful();
    assert_eq!(scene.checker.trust(StreamId(2)), (Trust::Vouched, 0));
}

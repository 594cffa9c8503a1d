#![allow(clippy::unwrap_used)]

use super::{key::HELD, *};
use crate::beacon::Sent;

const CAMERA: StreamId = StreamId(1);

pub fn frame(kid: KeyId, ctr: u64, text: &[u8]) -> Envelope {
    let mut sealed = vec![0; Header::MAX_LEN];
    let len = Header { kid: kid.into(), ctr }.emit(sealed.first_chunk_mut().unwrap());
    sealed.truncate(len);
    sealed.extend_from_slice(text);
    Envelope {
        pts: Some(ctr * 33),
        dts: None,
        duration: None,
        flags: meeting_wire::Flags(0),
        layer: 0,
        sealed: sealed.into(),
    }
}

/// Alice's sender and Bob's checker, 30 frames and 3 beacons a second, and no network but the test.
struct Scene {
    sent: Sent,
    checker: Checker,
    now: u64,
    ctr: u64,
    delay: Option<u64>,
    delivered: Vec<Envelope>,
    told: Vec<What>,
}

fn kid() -> KeyId {
    KeyId::new(CAMERA, 3, 9)
}

impl Scene {
    fn new() -> Self {
        let mut checker = Checker::default();
        checker.opened(kid(), 9, BootTime(1_000));
        checker.watch(CAMERA, BootTime(1_000));
        let (sent, delay) = (Sent::default(), Some(20));
        Self { sent, checker, now: 1_000, ctr: 500, delay, delivered: Vec::new(), told: Vec::new() }
    }

    fn come(&mut self, envelope: &Envelope) -> bool {
        let digest = FrameDigest::of(envelope);
        let passed = self.checker.frame(CAMERA, envelope.clone(), digest, BootTime(self.now));
        let through = passed.is_some();
        self.delivered.extend(passed);
        self.tell();
        through
    }

    fn tell(&mut self) {
        self.told.extend(self.checker.findings().into_iter().map(|finding| finding.what));
    }

    /// Alice's next frame, on its way.
    fn next(&mut self) -> Envelope {
        let envelope = frame(kid(), self.ctr, b"honest");
        self.ctr += 1;
        self.sent.frame(&envelope);
        envelope
    }

    fn beacon(&mut self) {
        let vouch = Vouch { spans: self.sent.take(), delay: self.delay };
        let released = self.checker.beacon(&vouch, BootTime(self.now));
        self.delivered.extend(released.into_iter().map(|(_, envelope)| envelope));
        self.tell();
    }

    fn tick(&mut self) {
        let released = self.checker.tick(BootTime(self.now));
        self.delivered.extend(released.into_iter().map(|(_, envelope)| envelope));
        self.tell();
    }

    /// A third of a second of Alice, with what a relay and a member make of each frame.
    fn third(&mut self, mut between: impl FnMut(&mut Self, Envelope)) {
        for _ in 0..10 {
            let envelope = self.next();
            between(self, envelope);
            self.now += 33;
        }
        self.tick();
    }

    fn honest_thirds(&mut self, thirds: usize) {
        for _ in 0..thirds {
            self.third(|scene, envelope| {
                scene.come(&envelope);
            });
            self.beacon();
        }
    }

    fn honest_delivered(&self) -> u64 {
        let honest = |envelope: &&Envelope| envelope.sealed.ends_with(b"honest") && envelope.layer == 0;
        self.delivered.iter().filter(honest).count() as u64
    }
}

#[test]
fn honest_frames_pass_at_once_and_are_vouched_for() {
    let mut scene = Scene::new();
    scene.third(|scene, envelope| assert!(scene.come(&envelope)));
    scene.beacon();
    scene.honest_thirds(30);
    assert_eq!(scene.told, [What::Vouched]);
    assert_eq!(scene.checker.trust(CAMERA), (Trust::Vouched, 0));
    assert_eq!(scene.honest_delivered(), 310);
}

#[test]
fn a_frame_that_comes_twice_goes_on_once() {
    let mut scene = Scene::new();
    let first = scene.next();
    assert!(scene.come(&first) && !scene.come(&first));
    scene.beacon();
    let second = scene.next();
    scene.beacon();
    assert!(!scene.come(&first) && scene.come(&second) && !scene.come(&second));
    assert_eq!(scene.told, [What::Vouched], "a repetition is no forgery");
}

#[test]
fn one_injected_frame_is_told_and_the_honest_stream_goes_on() {
    for ahead in [0, 1, 7, 500, 4_000, 1 << 40] {
        let mut scene = Scene::new();
        scene.honest_thirds(3);
        let forged = frame(kid(), scene.ctr + ahead, b"forged");
        scene.come(&forged);
        let injected = scene.now;
        while !scene.told.contains(&What::Forged) {
            assert!(scene.now - injected < 2_000, "unnoticed for 2 s, {ahead} ahead");
            scene.honest_thirds(1);
        }
        scene.honest_thirds(60);
        assert_eq!(scene.told.iter().filter(|what| **what == What::Forged).count(), 1, "told once");
        let lost = scene.ctr - 500 - scene.honest_delivered();
        assert!(lost <= 1, "{lost} honest frames lost, {ahead} ahead");
        assert_eq!(scene.checker.trust(CAMERA).0, Trust::Vouched, "and it ends");
    }
}

#[test]
fn a_million_forged_frames_go_nowhere() {
    let mut scene = Scene::new();
    scene.honest_thirds(3);
    let (before, mut forged, mut through) = (scene.delivered.len(), 0u64, 0);
    for _ in 0..100 {
        scene.third(|scene, envelope| {
            for n in 0..1_000 {
                // counters of the past, of now, and far ahead
                let ctr = (scene.ctr + n * 37 % 3_000).saturating_sub(200);
                through += u32::from(scene.come(&frame(kid(), ctr, &forged.to_be_bytes())));
                forged += 1;
            }
            scene.come(&envelope);
        });
        scene.beacon();
    }
    assert_eq!(forged, 1_000_000);
    // Until the first contradiction they pass, as honest frames do.
    assert!(through <= 2, "{through} forged frames went on");
    let honest = scene.delivered.len() - before - through as usize;
    assert!(honest >= 950, "{honest} of 1,000 honest frames came through");
    assert_eq!(scene.told.iter().filter(|what| **what == What::Forged).count(), 1);
    let kept: usize =
        scene.checker.streams[&CAMERA].keys.iter().map(|key| key.known.len() + key.held.len()).sum();
    assert!(kept <= MEMORY + HELD, "{kept} entries");
}

#[test]
fn altered_times_flags_and_layers_are_told() {
    let alter: [fn(&mut Envelope); 4] = [
        |envelope| envelope.pts = envelope.pts.map(|pts| pts + 1),
        |envelope| envelope.flags = meeting_wire::Flags(meeting_wire::Flags::KEYFRAME),
        |envelope| envelope.layer = 1,
        |envelope| envelope.duration = Some(5),
    ];
    for alter in alter {
        let mut scene = Scene::new();
        scene.honest_thirds(2);
        let mut envelope = scene.next();
        alter(&mut envelope);
        scene.come(&envelope);
        scene.honest_thirds(1);
        assert!(scene.told.contains(&What::Forged));
    }
}

#[test]
fn without_beacons_frames_pass_and_show_as_unverified() {
    let mut scene = Scene::new();
    scene.honest_thirds(3);
    for _ in 0..9 {
        scene.third(|scene, envelope| {
            scene.come(&envelope);
        });
        scene.sent.take();
    }
    assert_eq!(scene.told, [What::Vouched, What::Unverified]);
    assert_eq!(scene.honest_delivered(), 120, "nobody is muted");
    scene.honest_thirds(14);
    assert_eq!(scene.told.last(), Some(&What::Vouched));
}

#[test]
fn a_guarded_stream_whose_beacons_are_dropped_is_not_muted() {
    let mut scene = Scene::new();
    scene.honest_thirds(3);
    scene.come(&frame(kid(), scene.ctr, b"forged"));
    scene.honest_thirds(1);
    assert!(scene.told.contains(&What::Forged));
    for _ in 0..15 {
        scene.third(|scene, envelope| {
            scene.come(&envelope);
        });
        scene.sent.take();
    }
    assert!(scene.told.contains(&What::Unverified));
    assert!(scene.honest_delivered() > 150, "{}", scene.honest_delivered());
}

#[test]
fn a_frame_that_waited_goes_on_once_however_often_it_comes() {
    let mut scene = Scene::new();
    scene.honest_thirds(3);
    scene.come(&frame(kid(), 20_000, b"forged"));
    assert_eq!(scene.told.last(), Some(&What::Forged));
    // From here on the relay drops every beacon: the guard ends before what waits behind it has waited for long.
    scene.now += 1_900;
    let (honest, other) = (scene.next(), frame(kid(), scene.ctr - 1, b"forged too"));
    assert!(!scene.come(&honest) && !scene.come(&other), "guarded");
    scene.now += 200;
    scene.tick();
    scene.come(&honest);
    scene.come(&other);
    scene.now += 2_000;
    scene.tick();
    scene.come(&honest);
    scene.now += 2_000;
    scene.tick();
    let times = scene.delivered.iter().filter(|envelope| envelope.sealed == honest.sealed).count();
    let others = scene.delivered.iter().filter(|envelope| envelope.sealed == other.sealed).count();
    assert_eq!((times, others), (1, 0), "elements take one frame of a counter, and start anew in between");
}

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
fn nothing_comes_under_a_key_that_its_sender_has_left() {
    let mut scene = Scene::new();
    scene.honest_thirds(2);
    let old = kid();
    scene.sent.frame(&frame(KeyId::new(CAMERA, 3, 10), scene.ctr, b"honest"));
    scene.beacon();
    assert!(!scene.come(&frame(old, scene.ctr + 1, b"forged")));
    assert_eq!(scene.told, [What::Vouched, What::Forged]);
}

#[test]
fn late_and_withheld_media_are_told_once() {
    let mut scene = Scene::new();
    scene.honest_thirds(2);
    scene.delay = Some(4_000);
    scene.honest_thirds(3);
    scene.delay = Some(50);
    assert_eq!(scene.told, [What::Vouched, What::Late(4_000)]);
    for _ in 0..30 {
        let mut n = 0;
        scene.third(|scene, envelope| {
            n += 1;
            if n % 3 == 0 {
                scene.come(&envelope);
            }
        });
        scene.beacon();
    }
    assert_eq!(scene.told, [What::Vouched, What::Late(4_000), What::Withheld]);
}

#[test]
fn a_frame_of_another_stream_is_not_taken_for_this_one() {
    let mut scene = Scene::new();
    assert!(!scene.come(&frame(KeyId::new(StreamId(2), 3, 9), 0, b"swapped")));
    assert_eq!(scene.told, [What::Forged]);
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
            scene.told.iter().any(|what| matches!(what, What::Forged | What::Unverified)),
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
fn a_key_id_that_comes_again_is_another_key() {
    let mut scene = Scene::new();
    scene.honest_thirds(2);
    scene.sent.frame(&frame(KeyId::new(CAMERA, 3, 10), scene.ctr, b"honest"));
    scene.ctr += 1;
    scene.beacon();
    scene.checker.expire(10);
    assert!(!scene.come(&frame(kid(), scene.ctr, b"honest")), "over");
    scene.tick();
    scene.checker.opened(kid(), 9 + 256, BootTime(scene.now));
    scene.honest_thirds(3);
    assert!(!scene.told.contains(&What::Forged), "{:?}", scene.told);
    assert_eq!(scene.honest_delivered(), 50);
}

#[test]
fn a_sender_of_whom_nothing_comes_is_told_once() {
    let mut scene = Scene::new();
    scene.honest_thirds(3);
    for _ in 0..30 {
        scene.third(|_, _| {});
    }
    assert_eq!(scene.told, [What::Vouched, What::Silent]);
    // One who has nothing to send says so.
    let mut scene = Scene::new();
    scene.honest_thirds(3);
    for _ in 0..30 {
        scene.now += 330;
        scene.beacon();
        scene.tick();
    }
    assert_eq!(scene.told, [What::Vouched]);
}

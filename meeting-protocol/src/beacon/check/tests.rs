#![allow(clippy::unwrap_used)]

mod honest;
mod hostile;

use super::{
    key::{HELD, MEMORY},
    *,
};
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
        let spans = self.sent.take();
        self.sign(spans);
    }

    /// Alice says how far she is, having sent nothing.
    fn idle(&mut self) {
        let spans = self.sent.idle();
        self.sign(spans);
    }

    fn sign(&mut self, spans: Vec<Span>) {
        let vouch = Vouch { spans, delay: self.delay };
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
    println!("{through} of {forged} forged frames and {honest} of 1,000 honest ones came through");
    assert!(honest >= 999, "{honest} of 1,000 honest frames came through");
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
    scene.delay = Some(3_000);
    scene.honest_thirds(3);
    assert_eq!(scene.told, [What::Vouched]);
    scene.delay = Some(3_001);
    scene.honest_thirds(3);
    scene.delay = Some(50);
    assert_eq!(scene.told, [What::Vouched, What::Late(3_001)]);
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
    assert_eq!(scene.told, [What::Vouched, What::Late(3_001), What::Withheld]);
}

#[test]
fn a_frame_of_another_stream_is_not_taken_for_this_one() {
    let mut scene = Scene::new();
    assert!(!scene.come(&frame(KeyId::new(StreamId(2), 3, 9), 0, b"swapped")));
    assert_eq!(scene.told, [What::Forged]);
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

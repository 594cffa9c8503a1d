//! Ten minutes of a meeting in a moment: the pads and their threads are real, the clocks are simulated.

#![allow(clippy::unwrap_used)]

use std::sync::mpsc;

use gst_check::TestClock;
use meeting_wire::{Flags, Kind, StreamId};
use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};

use super::*;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
const ALICE: ParticipantId = ParticipantId([0xa1; 16]);
/// What any frame takes, and what it may take longer.
const WAY: u64 = 20 * MS;
const JITTER: u64 = 50 * MS;
/// When Alice's clock showed 0, ours showed this.
const BEGINNING: u64 = 7 * SECOND;

/// A frame of Alice on its way.
struct Sent {
    /// When it was captured, and when it arrives, on our clock.
    captured: u64,
    arrives: u64,
    kind: Kind,
}

/// A frame that came out of its pad.
struct Heard {
    kind: Kind,
    captured: u64,
    pts: u64,
}

/// A `meetingsrc` that believes to play, with a pad for Alice's picture and one for her sound.
struct Scene {
    source: super::super::MeetingSrc,
    clock: TestClock,
    heard: mpsc::Receiver<Heard>,
    /// Those that nobody pushes to any more would be gone.
    _sinks: Vec<gst::Pad>,
}

impl Scene {
    fn open() -> Self {
        gst::init().unwrap();
        let source: super::super::MeetingSrc = glib::Object::new();
        let clock = TestClock::new();
        source.set_clock(Some(&clock)).unwrap();
        source.set_base_time(gst::ClockTime::ZERO);
        source.imp().playing.store(true, Ordering::Release);
        let (hears, heard) = mpsc::channel();
        for kind in [Kind::Video, Kind::Audio] {
            let caps = if kind == Kind::Video { "video/x-vp8" } else { "audio/x-opus" };
            let (name, track, caps) = ("Alice".into(), format!("{kind:?}"), caps.into());
            source.imp().announce(About { id: id(kind), name, track, kind, caps });
        }
        let sinks = source.src_pads().into_iter().map(|pad| {
            let kind = if pad.name().starts_with("video") { Kind::Video } else { Kind::Audio };
            let hears = hears.clone();
            let sink = gst::Pad::builder(gst::PadDirection::Sink)
                .chain_function(move |_, _, buffer| {
                    let captured =
                        u64::from_be_bytes(buffer.map_readable().unwrap().as_slice().try_into().unwrap());
                    let _ = hears.send(Heard { kind, captured, pts: buffer.pts().unwrap().nseconds() });
                    Ok(gst::FlowSuccess::Ok)
                })
                .build();
            sink.set_active(true).unwrap();
            pad.link(&sink).unwrap();
            sink
        });
        Self { clock, heard, _sinks: sinks.collect(), source }
    }

    /// Has all these frames arrive, and gives them as they came out.
    fn play(&self, sent: &[Sent], ppm: i64) -> Vec<Heard> {
        let mut heard = Vec::new();
        for (n, frame) in sent.iter().enumerate() {
            self.clock.set_time(gst::ClockTime::from_nseconds(frame.arrives));
            let pts = on_her_clock(frame.captured, ppm);
            self.source.imp().frame(id(frame.kind), envelope(frame.captured, pts));
            // No queue may overflow: what is measured are times.
            while n - heard.len() > 16 {
                heard.push(self.next());
            }
        }
        while heard.len() < sent.len() {
            heard.push(self.next());
        }
        heard
    }

    fn next(&self) -> Heard {
        self.heard.recv_timeout(Duration::from_secs(30)).expect("a frame")
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.source.imp().stop();
    }
}

fn id(kind: Kind) -> Id {
    Id { from: ALICE, stream: StreamId(if kind == Kind::Video { 1 } else { 2 }) }
}

fn envelope(captured: u64, pts: u64) -> Envelope {
    let sealed = captured.to_be_bytes().to_vec().into();
    Envelope { pts: Some(pts), dts: None, duration: None, flags: Flags(Flags::KEYFRAME), layer: 0, sealed }
}

/// What a clock shows that is fast by so many ns in each ms of ours.
fn on_her_clock(captured: u64, ppm: i64) -> u64 {
    let since = captured - BEGINNING;
    since.saturating_add_signed(since as i64 / 1_000_000 * ppm)
}

/// So long of 25 pictures and 50 pieces of sound a second, in the order in which they arrive: within a track in theirs.
fn meeting(length: u64, seed: u64) -> Vec<Sent> {
    let mut random = ChaCha20Rng::seed_from_u64(seed);
    let mut sent = Vec::new();
    for (kind, every) in [(Kind::Video, 40 * MS), (Kind::Audio, 20 * MS)] {
        let mut last = 0;
        for captured in (BEGINNING..BEGINNING + length).step_by(every as usize) {
            last = last.max(captured + WAY + random.next_u64() % JITTER);
            sent.push(Sent { captured, arrives: last, kind });
        }
    }
    sent.sort_by_key(|frame| frame.arrives);
    sent
}

#[test]
fn sound_and_picture_stay_together_and_in_time_for_ten_minutes() {
    for (seed, ppm) in [(1, 100), (2, -100)] {
        let scene = Scene::open();
        let sent = meeting(600 * SECOND, seed);
        let heard = scene.play(&sent, ppm);
        assert_eq!(scene.source.property::<gst::Structure>("stats").get::<u64>("dropped"), Ok(0));

        let of = |wanted: Kind| heard.iter().filter(move |frame| frame.kind == wanted);
        let sound: HashMap<u64, u64> = of(Kind::Audio).map(|frame| (frame.captured, frame.pts)).collect();
        let (mut skew, mut late, mut early) = (0, 0, u64::MAX);
        for picture in of(Kind::Video) {
            skew = skew.max(picture.pts.abs_diff(sound[&picture.captured]));
            // Once the fastest frame has come, the line is where the way is shortest.
            if picture.captured > BEGINNING + 5 * SECOND {
                late = late.max(picture.pts - picture.captured);
                early = early.min(picture.pts - picture.captured);
            }
        }
        println!("{ppm} ppm: skew {} us, {} to {} us after capture", skew / 1000, early / 1000, late / 1000);
        assert!(skew <= 40 * MS, "{ppm} ppm: sound and picture are {skew} ns apart");
        // Frames are shown a way after their capture, whatever the clocks did since; a slow one is followed from behind.
        assert!(early >= WAY - 3 * MS && late <= WAY + 10 * MS, "{ppm} ppm: from {early} to {late} ns");
    }
}

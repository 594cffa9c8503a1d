//! Sealed recordings: written without a key, opened with a key file and with nothing else.

#![allow(clippy::unwrap_used)]

#[path = "support/film.rs"]
mod film;
mod support;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    sync::{Arc, Mutex},
};

use film::{Film, Frame, MS, Track, camera, cut, microphone, two_tracks};
use gst::prelude::*;
use support::{Pipeline, bytes, stat, until};

/// What came out behind each pad, by track label: time from the recording's beginning, whether a keyframe, bytes.
type Played = BTreeMap<String, Vec<(u64, bool, Vec<u8>)>>;

/// A pipeline that opens whatever the demuxer gives, and what came out of it.
struct Player {
    pipeline: Pipeline,
    played: Arc<Mutex<Played>>,
}

impl Player {
    /// `source` gives the bytes; everything else is named as in a pipeline.
    fn new(keys: &str, source: &str) -> Self {
        let pipeline = Pipeline::parse(&format!("{keys} {source} ! e2eedemux name=demux"));
        let played = Arc::new(Mutex::new(Played::new()));
        let (weak, all) = (pipeline.0.downgrade(), played.clone());
        pipeline.element("demux").connect_pad_added(move |_, pad| {
            let Some(pipeline) = weak.upgrade() else { return };
            let open = gst::ElementFactory::make("e2eeopen").build().unwrap();
            let sink = gst::ElementFactory::make("fakesink")
                .property("signal-handoffs", true)
                .property("sync", false)
                .build()
                .unwrap();
            pipeline.add_many([&open, &sink]).unwrap();
            open.link(&sink).unwrap();
            let (from, all) = (pad.clone(), all.clone());
            sink.connect("handoff", false, move |values| {
                let buffer = values[1].get::<gst::Buffer>().unwrap();
                let caps = from.current_caps().unwrap();
                let label = caps.structure(0).unwrap().get::<String>("track").unwrap();
                let keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
                let frame = (buffer.pts().unwrap().nseconds(), keyframe, bytes(&buffer));
                all.lock().unwrap().entry(label).or_default().push(frame);
                None
            });
            pad.link(&open.static_pad("sink").unwrap()).unwrap();
            sink.sync_state_with_parent().unwrap();
            open.sync_state_with_parent().unwrap();
        });
        Self { pipeline, played }
    }

    fn of(film: &Film) -> Self {
        Self::new(&film.source(), &format!("filesrc location={}", film.sealed().display()))
    }

    fn finish(self) -> Played {
        self.pipeline.play();
        self.pipeline.until_eos();
        self.played.lock().unwrap().clone()
    }
}

/// What should come out of these frames.
fn expected<'a>(film: &Film, frames: impl IntoIterator<Item = &'a Frame>) -> Played {
    let mut all = Played::new();
    for frame in frames {
        let origin = film.frames[0].pts;
        let out = (frame.pts - origin, frame.keyframe, frame.bytes.clone());
        all.entry(film.tracks[frame.track].label.to_owned()).or_default().push(out);
    }
    all
}

fn film() -> Film {
    Film::new(vec![camera(), microphone()], two_tracks(5, 1))
}

/// Not with `assert_eq`, which would print megabytes.
fn same(got: &Played, wanted: &Played) {
    let counts =
        |played: &Played| played.iter().map(|(label, all)| (label.clone(), all.len())).collect::<Vec<_>>();
    assert_eq!(counts(got), counts(wanted));
    assert!(got == wanted, "other frames than were sealed");
}

#[test]
fn exactly_the_frames_that_were_sealed_come_out_in_their_order() {
    let film = film();
    same(&Player::of(&film).finish(), &expected(&film, &film.frames));
}

#[test]
fn the_file_holds_no_run_of_a_frame_and_no_name_label_or_caps() {
    let film = film();
    let file = fs::read(film.sealed()).unwrap();
    for word in ["in clear", "Alice", "Liddell", "camera", "microphone", "x-vp8", "x-opus", "(int)160"] {
        assert!(!file.windows(word.len()).any(|run| run == word.as_bytes()), "{word}");
    }
    let keys = fs::read(film.keys()).unwrap();
    for word in ["Alice", "camera", "x-vp8", film::WORDS] {
        assert!(!keys.windows(word.len()).any(|run| run == word.as_bytes()), "{word}");
    }
}

#[test]
fn what_is_pushed_plays_from_its_beginning() {
    let film = film();
    let source = format!("filesrc location={} blocksize=777 ! queue", film.sealed().display());
    same(&Player::new(&film.source(), &source).finish(), &expected(&film, &film.frames));
}

#[test]
fn a_kid_that_comes_again_after_256_epochs_names_another_key() {
    let film = Film::new(vec![camera(), microphone()], two_tracks(250, 64));
    assert!(film.frames.last().unwrap().epoch - film.frames[0].epoch > 512);
    same(&Player::of(&film).finish(), &expected(&film, &film.frames));
}

#[test]
fn seeking_lands_on_a_keyframe_and_opens_what_was_opened_before() {
    // Epochs whose KIDs come twice: where in the file a frame stands says which is meant.
    let film = Film::new(vec![camera(), microphone()], two_tracks(250, 64));
    let player = Player::of(&film);
    player.pipeline.play();
    player.pipeline.until_eos();
    for wanted in [5_555, 2_000, 9_999, 0] {
        player.played.lock().unwrap().clear();
        let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT;
        player.pipeline.0.seek_simple(flags, gst::ClockTime::from_mseconds(wanted)).unwrap();
        player.pipeline.until_eos();
        let played = player.played.lock().unwrap().clone();
        // A keyframe each 600 ms of the recording's own time.
        let begins = wanted / 600 * 600 * MS;
        let after = film.frames.iter().filter(|frame| frame.pts + 20 * MS > begins + film.frames[0].pts);
        same(
            &played,
            &expected(
                &film,
                after.filter(|frame| frame.track == 1 || frame.pts - film.frames[0].pts >= begins),
            ),
        );
        assert!(played["camera"][0].1, "a keyframe");
    }
    let duration = player.pipeline.element("demux").static_pad("video_0").unwrap();
    assert_eq!(duration.query_duration::<gst::ClockTime>(), Some(gst::ClockTime::from_seconds(10)));
}

#[test]
fn a_seek_without_flush_goes_on_there() {
    let film = film();
    let player = Player::of(&film);
    player.pipeline.0.set_state(gst::State::Paused).unwrap();
    until("preroll", || {
        let sinks: Vec<_> = player.pipeline.0.iterate_sinks().into_iter().flatten().collect();
        let state = |sink: &gst::Element| sink.state(gst::ClockTime::from_mseconds(10));
        sinks.len() == 2
            && sinks.iter().all(|sink| {
                state(sink)
                    == (Ok(gst::StateChangeSuccess::Success), gst::State::Paused, gst::State::VoidPending)
            })
    });
    player.pipeline.0.seek_simple(gst::SeekFlags::KEY_UNIT, gst::ClockTime::from_seconds(6)).unwrap();
    let played = player.finish();
    let (before, after): (Vec<_>, Vec<_>) =
        played["camera"].iter().map(|(time, ..)| *time).partition(|time| *time < 6_000 * MS);
    assert!(before.len() < 10, "{}: only what was on its way", before.len());
    assert_eq!((after[0], after.len()), (6_000 * MS, 100));
}

#[test]
fn caps_change_where_they_changed_also_after_a_seek() {
    let small = "video/x-vp8, width=(int)160, height=(int)90";
    let large = "video/x-vp8, width=(int)640, height=(int)360, caps-version=(uint)1";
    // In the middle of an epoch, of which each lasts a second.
    let turned = 1_000 * MS + 5_400 * MS;
    let track = Track { later: Some((turned, large.into())), ..Track::new("camera", small) };
    let frames = two_tracks(5, 1).into_iter().filter(|frame| frame.track == 0).collect();
    let film = Film::new(vec![track], frames);
    let player = Player::of(&film);
    let changes = Arc::new(Mutex::new(Vec::new()));
    let seen = changes.clone();
    player.pipeline.element("demux").connect_pad_added(move |_, pad| {
        let (seen, last) = (seen.clone(), Mutex::new(None));
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::BUFFER, move |_, info| {
            let mut last = last.lock().unwrap();
            if let Some(gst::EventView::Caps(caps)) = info.event().map(|event| event.view()) {
                *last = Some(caps.caps().structure(0).unwrap().get::<i32>("width").unwrap());
            }
            if let (Some(buffer), Some(width)) = (info.buffer(), *last) {
                seen.lock().unwrap().push((buffer.pts().unwrap().mseconds(), width));
            }
            gst::PadProbeReturn::Ok
        });
    });
    let as_sealed =
        |seen: &[(u64, i32)]| seen.iter().all(|(pts, width)| *width == if *pts < 5_400 { 160 } else { 640 });
    player.pipeline.play();
    player.pipeline.until_eos();
    assert!(changes.lock().unwrap().len() == 250 && as_sealed(&changes.lock().unwrap()));
    for to in [5_700, 5_000] {
        changes.lock().unwrap().clear();
        let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT;
        player.pipeline.0.seek_simple(flags, gst::ClockTime::from_mseconds(to)).unwrap();
        player.pipeline.until_eos();
        let seen = changes.lock().unwrap();
        assert!(seen[0].0 == to / 600 * 600 && as_sealed(&seen), "{:?}", &seen[..3]);
    }
}

#[test]
fn who_comes_late_holds_nobody_up_in_decodebin() {
    let caps =
        "audio/x-raw, format=(string)S16LE, layout=(string)interleaved, rate=(int)192000, channels=(int)2";
    // More than any queue in between holds, before the second track begins.
    let frames = (0..1_000_u64).flat_map(|n| {
        let frame = |track| Frame {
            track,
            epoch: 5,
            pts: n * 20 * MS,
            keyframe: true,
            bytes: vec![track as u8 + 1; 192 * 20 * 4],
        };
        [Some(frame(0)), (n >= 900).then(|| frame(1))].into_iter().flatten()
    });
    let film = Film::new(vec![Track::new("first", caps), Track::new("late", caps)], frames.collect());
    let pipeline = Pipeline::parse(&format!(
        "{} filesrc location={} ! decodebin name=d d. ! fakesink name=a signal-handoffs=true sync=false \
         d. ! fakesink name=b signal-handoffs=true sync=false",
        film.source(),
        film.sealed().display()
    ));
    let counts = Arc::new(Mutex::new(BTreeMap::<u8, usize>::new()));
    for sink in ["a", "b"] {
        let counts = counts.clone();
        pipeline.element(sink).connect("handoff", false, move |values| {
            let whose = bytes(&values[1].get::<gst::Buffer>().unwrap())[0];
            *counts.lock().unwrap().entry(whose).or_default() += 1;
            None
        });
    }
    pipeline.play();
    pipeline.until_eos();
    assert_eq!(*counts.lock().unwrap(), BTreeMap::from([(1, 1_000), (2, 100)]));
}

#[test]
fn a_cut_recording_plays_up_to_the_cut() {
    let film = film();
    let whole = fs::read(film.sealed()).unwrap().len();
    let cut_file = film.path("cut.sealed");
    let source = format!("filesrc location={}", cut_file.display());
    let everything = expected(&film, &film.frames);
    let mut most = 0;
    for n in 1..24 {
        let len = whole * n / 24 + n % 7;
        cut(&film.sealed(), &cut_file, len);
        let played = Player::new(&film.source(), &source).finish();
        let count: usize = played.values().map(Vec::len).sum();
        assert!(played.iter().all(|(label, all)| everything[label].starts_with(all)), "cut at {len}");
        assert!(count >= most, "cut at {len}");
        most = count;
    }
    assert!(most > film.frames.len() / 2, "{most}");
    // Only the index is missing, then not even that.
    cut(&film.sealed(), &cut_file, whole - 3);
    same(&Player::new(&film.source(), &source).finish(), &everything);
}

#[test]
fn damage_is_told_and_what_came_before_plays() {
    let film = film();
    let mut file = fs::read(film.sealed()).unwrap();
    let at = file.len() / 2;
    file[at..at + 64].fill(0xff);
    fs::write(film.sealed(), &file[..file.len() - 1]).unwrap();
    let player = Player::of(&film);
    player.pipeline.play();
    player.pipeline.until_eos();
    let played = player.played.lock().unwrap().clone();
    let everything = expected(&film, &film.frames);
    let count: usize = played.values().map(Vec::len).sum();
    assert!(count > film.frames.len() / 4 && count < film.frames.len(), "{count}");
    // The bytes may have been a frame's: then that one does not open, and the rest does.
    assert!(played.iter().all(|(label, all)| all.iter().all(|frame| everything[label].contains(frame))));
}

#[test]
fn a_key_file_of_one_track_opens_no_other() {
    let film = film();
    film.write_keys(|frame| frame.track == 1);
    let sound = film.frames.iter().filter(|frame| frame.track == 1);
    same(&Player::of(&film).finish(), &expected(&film, sound));
}

#[test]
fn epochs_whose_keys_are_not_there_stay_sealed() {
    let film = film();
    let there = |frame: &Frame| (7..10).contains(&frame.epoch);
    film.write_keys(there);
    same(&Player::of(&film).finish(), &expected(&film, film.frames.iter().filter(|frame| there(frame))));
}

#[test]
fn without_a_key_file_every_track_comes_out_sealed_and_nameless() {
    let film = film();
    let pipeline = Pipeline::parse(&format!(
        "filesrc location={} ! e2eedemux name=demux demux.video_0 ! queue ! fakesink name=a \
         demux.audio_0 ! queue ! fakesink name=b",
        film.sealed().display()
    ));
    pipeline.play();
    pipeline.until_eos();
    assert_eq!(stat(&pipeline.element("demux"), "frames"), film.frames.len() as u64);
    let caps = pipeline.element("a").static_pad("sink").unwrap().current_caps().unwrap().to_string();
    assert!(caps.contains("participant") && !caps.contains("vp8") && !caps.contains("Alice"), "{caps}");
}

#[test]
fn of_too_many_tracks_so_many_get_a_pad_and_it_is_said_once() {
    let frame = |track| Frame { track, epoch: 5, pts: 1_000 * MS, keyframe: true, bytes: vec![1] };
    let film = Film::new(vec![camera(); 400], (0..400).map(frame).collect());
    for push in ["", "! queue"] {
        let file = film.sealed();
        let pipeline =
            Pipeline::parse(&format!("filesrc location={} {push} ! e2eedemux name=demux", file.display()));
        let (demux, weak) = (pipeline.element("demux"), pipeline.0.downgrade());
        demux.connect_pad_added(move |_, pad| {
            let sink = gst::ElementFactory::make("fakesink").property("async", false).build().unwrap();
            weak.upgrade().unwrap().add(&sink).unwrap();
            sink.sync_state_with_parent().unwrap();
            pad.link(&sink.static_pad("sink").unwrap()).unwrap();
        });
        pipeline.play();
        let warning = pipeline.until_warning();
        assert!(warning.contains("256 tracks"), "{warning}");
        let types = [gst::MessageType::Warning, gst::MessageType::Error, gst::MessageType::Eos];
        let next = pipeline.wait(&types, |_| true).unwrap();
        assert_eq!(next.type_(), gst::MessageType::Eos, "{next:?}");
        assert_eq!(demux.num_src_pads(), 256);
    }
}

#[test]
fn decodebin_opens_it_by_itself_and_pictures_decode() {
    let (caps, pictures) = encoded();
    let film = Film::new(vec![Track::new("camera", &caps)], pictures);
    let pipeline = Pipeline::parse(&format!(
        "{} filesrc location={} ! decodebin ! video/x-raw ! fakesink name=screen signal-handoffs=true sync=false",
        film.source(),
        film.sealed().display()
    ));
    let shown = Arc::new(Mutex::new(Vec::new()));
    let seen = shown.clone();
    pipeline.element("screen").connect("handoff", false, move |values| {
        seen.lock().unwrap().push(values[1].get::<gst::Buffer>().unwrap().pts().unwrap().nseconds());
        None
    });
    pipeline.play();
    pipeline.until_eos();
    assert_eq!(shown.lock().unwrap().len(), film.frames.len());
    assert!(shown.lock().unwrap().is_sorted());
    shown.lock().unwrap().clear();
    let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT;
    pipeline.0.seek_simple(flags, gst::ClockTime::from_mseconds(1_500)).unwrap();
    pipeline.until_eos();
    let first = shown.lock().unwrap()[0];
    assert!((1_000 * MS..=1_500 * MS).contains(&first), "{first}");
}

/// Three seconds of H.264 in avc form, whose codec headers are in the caps alone; a keyframe each half second.
fn encoded() -> (String, Vec<Frame>) {
    let pipeline = Pipeline::parse(
        "videotestsrc num-buffers=90 ! video/x-raw,width=160,height=90,framerate=30/1 \
         ! x264enc tune=zerolatency key-int-max=15 ! video/x-h264,stream-format=avc,alignment=au \
         ! appsink name=out sync=false",
    );
    let sink = pipeline.element("out").downcast::<gst_app::AppSink>().unwrap();
    pipeline.play();
    let (mut caps, mut frames) = (String::new(), Vec::new());
    while let Ok(sample) = sink.pull_sample() {
        caps = sample.caps().unwrap().to_string();
        let buffer = sample.buffer_owned().unwrap();
        let keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let pts = buffer.pts().unwrap().nseconds();
        frames.push(Frame { track: 0, epoch: 5 + pts / (700 * MS), pts, keyframe, bytes: bytes(&buffer) });
    }
    (caps, frames)
}

#[test]
fn what_is_wrong_with_a_key_file_is_said() {
    let film = film();
    let keys = fs::read(film.keys()).unwrap();
    let error = || {
        let pipeline = Pipeline::parse(&format!("{} fakesrc num-buffers=1 ! fakesink", film.source()));
        assert!(pipeline.0.set_state(gst::State::Playing).is_err());
        pipeline.until_error()
    };
    fs::write(film.words(), "some other words\n").unwrap();
    assert!(error().contains("passphrase"), "{}", error());
    fs::set_permissions(film.words(), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(error().contains("chmod 600"), "{}", error());
    fs::set_permissions(film.words(), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(film.words(), film::WORDS).unwrap();
    fs::write(film.keys(), b"RIFF and so on").unwrap();
    assert!(error().contains("no key file"), "{}", error());
    let mut newer = keys.clone();
    newer[4] = 9;
    fs::write(film.keys(), newer).unwrap();
    assert!(error().contains("version 9"), "{}", error());
    fs::write(film.keys(), &keys[..40]).unwrap();
    assert!(error().contains("cut"), "{}", error());
    fs::remove_file(film.keys()).unwrap();
    assert!(error().contains("cannot read"), "{}", error());
}

#[test]
fn a_key_file_without_its_end_warns_and_opens_what_is_there() {
    let film = film();
    let keys = fs::read(film.keys()).unwrap();
    fs::write(film.keys(), &keys[..keys.len() - 30]).unwrap();
    let player = Player::of(&film);
    player.pipeline.play();
    let warning = player.pipeline.until_warning();
    assert!(warning.contains("keys may be missing"), "{warning}");
    player.pipeline.until_eos();
    let played = player.played.lock().unwrap().clone();
    assert!(played["camera"].len() > 100, "{}", played["camera"].len());
}

#[test]
fn no_recording_at_all_is_said() {
    let film = film();
    fs::write(film.sealed(), b"e2er\x02 from later").unwrap();
    let player = Player::of(&film);
    let _ = player.pipeline.0.set_state(gst::State::Playing);
    assert!(player.pipeline.until_error().contains("no sealed recording"));
}

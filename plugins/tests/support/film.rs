//! Sealed recordings and their key files, made without a meeting.

#![allow(dead_code, clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use gst::prelude::*;
use meeting_protocol::{
    frame::{CipherSuite, KeyId, SealKey, Sealer},
    keyfile::{Cost, KeyFileWriter, RecordedKey},
    secret::Secret,
};
use meeting_wire::{MeetingId, ParticipantId, StreamId};

use crate::support::{Pipeline, init};

pub const MEETING: MeetingId = MeetingId([7; 16]);
pub const ALICE: ParticipantId = ParticipantId([0xa1; 16]);
pub const WORDS: &str = "correct horse battery staple";
pub const MS: u64 = 1_000_000;

/// A folder with a recording, a key file and the passphrase.
pub struct Film {
    folder: tempfile::TempDir,
    /// No two films have a key in common.
    salt: [u8; 16],
    pub tracks: Vec<Track>,
    pub frames: Vec<Frame>,
}

/// A track of Alice's.
#[derive(Clone)]
pub struct Track {
    pub label: &'static str,
    pub caps: String,
    /// From this frame time on the caps are these.
    pub later: Option<(u64, String)>,
}

impl Track {
    pub fn new(label: &'static str, caps: &str) -> Self {
        Self { label, caps: caps.into(), later: None }
    }

    fn caps_at(&self, pts: u64) -> &str {
        let later = self.later.as_ref().filter(|(since, _)| pts >= *since);
        later.map_or(&self.caps, |(_, caps)| caps)
    }
}

/// A frame before it was sealed.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    pub track: usize,
    pub epoch: u64,
    pub pts: u64,
    pub keyframe: bool,
    pub bytes: Vec<u8>,
}

pub fn camera() -> Track {
    Track::new("camera", "video/x-vp8, width=(int)160, height=(int)90")
}

pub fn microphone() -> Track {
    Track::new("microphone", "audio/x-opus, rate=(int)48000, channels=(int)1")
}

/// Ten seconds of a camera and a microphone, a key a second from `epoch` on, in steps of `step`.
pub fn two_tracks(epoch: u64, step: u64) -> Vec<Frame> {
    (0..500_u64)
        .flat_map(|n| {
            let (pts, epoch) = (1_000 * MS + n * 20 * MS, epoch + n / 50 * step);
            let bytes =
                |word: &str, more: usize| format!("{word} {n} in clear ").repeat(2 + more).into_bytes();
            let sound = Frame { track: 1, epoch, pts, keyframe: true, bytes: bytes("sound", 0) };
            let picture = Frame {
                track: 0,
                epoch,
                pts,
                keyframe: n % 30 == 0,
                bytes: bytes("picture", n as usize % 90),
            };
            [Some(sound), (n % 2 == 0).then_some(picture)].into_iter().flatten()
        })
        .collect()
}

impl Film {
    pub fn new(tracks: Vec<Track>, frames: Vec<Frame>) -> Self {
        init();
        let film =
            Self { folder: tempfile::tempdir().unwrap(), salt: gste2ee::random::bytes(), tracks, frames };
        fs::write(film.words(), format!("{WORDS}\n")).unwrap();
        fs::set_permissions(film.words(), fs::Permissions::from_mode(0o600)).unwrap();
        film.record();
        film.write_keys(|_| true);
        film
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn sealed(&self) -> PathBuf {
        self.path("film.sealed")
    }

    pub fn keys(&self) -> PathBuf {
        self.path("film.keys")
    }

    pub fn words(&self) -> PathBuf {
        self.path("words")
    }

    /// The key source for this film, as in a pipeline.
    pub fn source(&self) -> String {
        let (keys, words) = (self.keys(), self.words());
        format!("meetingkey key-file={} passphrase-file={}", keys.display(), words.display())
    }

    /// A key file with the keys of some frames.
    pub fn write_keys(&self, wanted: impl Fn(&Frame) -> bool) {
        let cheap = Cost { memory: 8, passes: 1, lanes: 1 };
        let rng = &mut gste2ee::random::rng();
        let (mut writer, mut bytes) = KeyFileWriter::new(MEETING, WORDS.as_bytes(), cheap, rng).unwrap();
        let mut seen = Vec::new();
        for frame in self.frames.iter().filter(|frame| wanted(frame)) {
            let key = (frame.track, frame.epoch, self.tracks[frame.track].caps_at(frame.pts));
            if !seen.contains(&key) {
                seen.push(key);
                bytes.extend(writer.key(self.key(frame)));
            }
        }
        bytes.extend(writer.end());
        fs::write(self.keys(), bytes).unwrap();
    }

    fn key(&self, frame: &Frame) -> RecordedKey {
        let track = &self.tracks[frame.track];
        RecordedKey {
            from: ALICE,
            name: "Alice Liddell".into(),
            stream: stream(frame.track),
            track: track.label.into(),
            caps: track.caps_at(frame.pts).into(),
            epoch: frame.epoch,
            kid: KeyId::new(stream(frame.track), 9, frame.epoch),
            suite: CipherSuite::default(),
            base_key: self.base_key(frame),
        }
    }

    fn base_key(&self, frame: &Frame) -> Secret<32> {
        Secret::init_with(|key| {
            key[..2].copy_from_slice(&(frame.track as u16 + 1).to_be_bytes());
            key[8..16].copy_from_slice(&frame.epoch.to_be_bytes());
            key[16..].copy_from_slice(&self.salt);
        })
    }

    /// Seals the frames and has `e2eemux` write them, in their order.
    fn record(&self) {
        let pipeline = Pipeline::parse(&format!(
            "e2eemux name=mux ! filesink async=false sync=false buffer-mode=unbuffered location={}",
            self.sealed().display()
        ));
        let mux = pipeline.element("mux");
        pipeline.play();
        let pads: Vec<gst::Pad> = (0..self.tracks.len()).map(|n| self.feed(&mux, n)).collect();
        let mut sealers: Vec<Option<(u64, Sealer)>> = self.tracks.iter().map(|_| None).collect();
        for frame in &self.frames {
            let place = &mut sealers[frame.track];
            if place.as_ref().is_none_or(|(epoch, _)| *epoch != frame.epoch) {
                let kid = KeyId::new(stream(frame.track), 9, frame.epoch);
                let key = SealKey::new(kid, CipherSuite::default(), self.base_key(frame));
                *place = Some((frame.epoch, Sealer::new(key)));
            }
            let sealed = place.as_mut().unwrap().1.seal(&frame.bytes).unwrap();
            let mut buffer = gst::Buffer::from_slice(sealed);
            let target = buffer.get_mut().unwrap();
            target.set_pts(gst::ClockTime::from_nseconds(frame.pts));
            target.set_duration(gst::ClockTime::from_mseconds(20));
            if !frame.keyframe {
                target.set_flags(gst::BufferFlags::DELTA_UNIT);
            }
            // The same caps again are no change.
            pads[frame.track].push_event(gst::event::Caps::new(&self.caps(frame.track, frame.pts)));
            pads[frame.track].push(buffer).unwrap();
        }
        for pad in &pads {
            assert!(pad.push_event(gst::event::Eos::new()));
        }
        pipeline.until_eos();
    }

    fn feed(&self, mux: &gst::Element, track: usize) -> gst::Pad {
        let pad = gst::Pad::builder(gst::PadDirection::Src).build();
        pad.set_active(true).unwrap();
        pad.link(&mux.request_pad_simple("sink_%u").unwrap()).unwrap();
        pad.push_event(gst::event::StreamStart::new(self.tracks[track].label));
        pad.push_event(gst::event::Caps::new(&self.caps(track, 0)));
        pad.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        pad
    }

    /// As `meetingsrc` has them.
    fn caps(&self, track: usize, pts: u64) -> gst::Caps {
        let of = &self.tracks[track];
        gste2ee::caps::of_track(of.caps_at(pts), ALICE, "Alice Liddell", stream(track), of.label).unwrap()
    }
}

pub fn stream(track: usize) -> StreamId {
    StreamId(3 + track as u32)
}

/// A copy of a file, cut.
pub fn cut(from: &Path, to: &Path, len: usize) {
    fs::write(to, &fs::read(from).unwrap()[..len]).unwrap();
}

//! One track of a file that can be read anywhere, on a thread of its own: a track that begins in an hour holds up none
//! that plays now.

use std::sync::{Arc, Mutex};

use gst::prelude::*;
use meeting_wire::Kind;

use super::{
    format::Epochs,
    index::{First, Track},
    line::Line,
    walk::{Bytes, Step, Stop, Walk},
};
use crate::lock::lock;

/// Bytes of whatever is before the demuxer.
#[derive(Clone)]
pub struct Upstream(pub gst::Pad);

impl Bytes for Upstream {
    type Error = gst::FlowError;

    fn read(&self, at: u64, len: usize) -> Result<Vec<u8>, gst::FlowError> {
        match self.0.pull_range(at, len as u32) {
            Ok(buffer) => Ok(buffer.map_readable().map_err(|_| gst::FlowError::Error)?.to_vec()),
            Err(gst::FlowError::Eos) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// A track and where it is.
pub struct Player {
    /// Its pad.
    pub pad: gst::Pad,
    number: u32,
    track: Track,
    first: First,
    upstream: Upstream,
    running: Mutex<Running>,
    wish: Mutex<Option<(Place, gst::Event)>>,
}

struct Running {
    line: Line,
    walk: Walk<Upstream>,
    place: Place,
}

/// Where to go on.
#[derive(Clone, Debug)]
pub struct Place {
    /// The record.
    offset: u64,
    /// Epochs up to there.
    epochs: Epochs,
    /// Frames that are over by then are left out, but for pictures, which later ones need.
    from: u64,
    /// Frames that begin then or later are left out.
    until: Option<u64>,
}

/// What came of a step.
pub enum Outcome {
    /// A frame went out, or none was due.
    Flowed(Result<gst::FlowSuccess, gst::FlowError>),
    /// The track is over.
    Ended,
    /// It cannot be read further.
    Stopped(Stop<gst::FlowError>),
}

impl Player {
    /// A player at the first frame of `track`.
    pub fn new(
        number: u32,
        track: Track,
        first: First,
        upstream: Upstream,
        pad: gst::Pad,
        line: Line,
    ) -> Arc<Self> {
        let place = Place { offset: first.offset, epochs: Epochs::default(), from: 0, until: None };
        let running = Running { line, walk: Walk::new(upstream.clone(), first.offset), place };
        Arc::new(Self {
            pad,
            number,
            track,
            first,
            upstream,
            running: Mutex::new(running),
            wish: Mutex::default(),
        })
    }

    /// Whether it shows pictures.
    pub fn is_video(&self) -> bool {
        self.track.source.kind == Kind::Video
    }

    /// Goes there before the next frame.
    pub fn go_to(&self, place: Place, segment: gst::Event) {
        *lock(&self.wish) = Some((place, segment));
    }

    /// One frame, if one is found soon.
    pub fn step(&self) -> Outcome {
        let mut running = lock(&self.running);
        let Running { line, walk, place } = &mut *running;
        if let Some((wish, segment)) = lock(&self.wish).take() {
            walk.go_to(wish.offset);
            line.begin(wish.epochs, segment);
            *place = wish;
        }
        for _ in 0..AT_ONCE {
            match walk.step() {
                Ok(Some((_, Step::Frame(head)))) if head.track == self.number => {
                    if !self.is_video() && head.until.is_some_and(|until| until <= place.from) {
                        continue;
                    }
                    if place.until.is_some_and(|until| head.time.is_some_and(|time| time >= until)) {
                        line.end();
                        return Outcome::Ended;
                    }
                    return match walk.envelope() {
                        Ok(envelope) => Outcome::Flowed(line.push(&head, envelope)),
                        Err(stop) => Outcome::Stopped(stop),
                    };
                }
                Ok(Some((_, Step::End(number)))) if number != self.number => {}
                Ok(Some((_, Step::End(_))) | None) => {
                    line.end();
                    return Outcome::Ended;
                }
                Ok(Some(_)) => {}
                Err(stop) => return Outcome::Stopped(stop),
            }
        }
        Outcome::Flowed(Ok(gst::FlowSuccess::Ok))
    }

    /// Says that nothing more comes.
    pub fn end(&self) {
        lock(&self.running).line.end();
    }

    /// Where to read from for `time`, and when what stands there shows: of pictures the keyframe before.
    pub fn find(&self, time: u64, until: Option<u64>) -> Result<(Place, u64), Stop<gst::FlowError>> {
        let entries = &self.track.entries;
        let before = entries.partition_point(|entry| entry.time <= time).checked_sub(1);
        let Some(entry) = before.and_then(|n| entries.get(n)) else {
            let place = Place { offset: self.first.offset, epochs: Epochs::default(), from: time, until };
            return Ok((place, self.first.time));
        };
        let mut walk = Walk::new(self.upstream.clone(), entry.offset);
        let head = match walk.step()? {
            Some((_, Step::Frame(head))) if head.track == self.number => head,
            _ => return Err(Stop::Damaged(entry.offset, meeting_wire::DecodeError::Invalid("the index"))),
        };
        let place = |offset, epochs| Place { offset, epochs, from: time, until };
        let mut epochs = Epochs { kid: Some(head.kid), since: entry.epochs.into() };
        let mut found = (place(entry.offset, epochs), entry.time);
        // The index names one keyframe in a second: a later one may be nearer.
        while self.is_video() {
            match walk.step() {
                Ok(Some((offset, Step::Frame(head)))) if head.track == self.number => {
                    let shows = head.time.unwrap_or(0);
                    if shows > time.saturating_add(LOOK_AHEAD) {
                        break;
                    }
                    if head.keyframe && shows <= time {
                        found = (place(offset, epochs), shows);
                    }
                    epochs.frame(head.kid);
                }
                Ok(Some((_, Step::End(number)))) if number == self.number => break,
                Ok(Some(_)) => {}
                // What is read there says it again.
                Ok(None) | Err(_) => break,
            }
        }
        Ok(found)
    }
}

/// Records that are passed in one step, so that whoever wants to stop the thread does not wait.
const AT_ONCE: usize = 1024;
/// Frames are not always in the order in which they show.
const LOOK_AHEAD: u64 = 500_000_000;

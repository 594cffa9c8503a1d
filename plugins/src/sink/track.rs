//! One pad of `meetingsink`: a GstBaseSink, so that clock, preroll and EOS are what they are everywhere.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock},
    time::Duration,
};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::{prelude::*, subclass::prelude::*};
use meeting_protocol::frame::{Header, KeyId};
use meeting_wire::{Envelope, Flags, Kind, MAX_FRAME, StreamId};

use super::exit::Exit;
use crate::{
    CAT, caps, clock, envelope,
    lock::lock,
    report,
    wish::{ASK_EVERY, Wish},
};

glib::wrapper! {
    /// The sink behind one pad.
    pub struct TrackSink(ObjectSubclass<Track>) @extends gst_base::BaseSink, gst::Element, gst::Object;
}

impl TrackSink {
    /// A sink that sends through `exit`.
    pub fn new(exit: &Arc<Exit>, sync: bool) -> Self {
        let sink: Self = glib::Object::new();
        // Nothing is shown here, so nobody has to be ready before it is: else a short queue before us would be complained of.
        sink.set_processing_deadline(gst::ClockTime::ZERO);
        let _ = sink.imp().exit.set(exit.clone());
        sink.imp().state().sync = sync;
        sink
    }

    /// Whether to wait for the clock before a frame is sent, where the source is not live.
    pub fn set_wait_for_clock(&self, sync: bool) {
        self.imp().state().sync = sync;
    }
}

#[derive(Default)]
struct State {
    sync: bool,
    video: bool,
    sound: bool,
    /// The number of the caps of the frames that come now.
    version: u32,
    segment: gst::FormattedSegment<gst::ClockTime>,
    stream: Option<StreamId>,
    /// A frame that others need was dropped: what follows is no use before the next keyframe.
    broken: bool,
    /// A frame that is longer than the meeting carries was told of.
    too_long: bool,
    wish: Wish,
}

/// See [`TrackSink`].
#[derive(Default)]
pub struct Track {
    exit: OnceLock<Arc<Exit>>,
    state: Mutex<State>,
    refusal: report::Refusal,
}

impl Track {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Running times on the clock that all pipelines of this device share.
    fn capture_times(
        &self,
        segment: &gst::FormattedSegment<gst::ClockTime>,
        sound: bool,
        buffer: &gst::BufferRef,
    ) -> Times {
        let obj = self.obj();
        let base = obj.base_time().map_or(0, gst::ClockTime::nseconds) as i128;
        let skew = obj.clock().map_or(0, |clock| {
            let shared = clock.downcast_ref::<gst::SystemClock>().is_some_and(|clock| {
                clock.property::<gst::ClockType>("clock-type") == gst::ClockType::Monotonic
            });
            if shared { 0 } else { clock::capture_now() as i128 - clock.time().nseconds() as i128 }
        });
        let capture = |time: Option<gst::ClockTime>| {
            let running = segment.to_running_time_full(time?)?;
            let running = match running {
                gst::Signed::Positive(time) => time.nseconds() as i128,
                gst::Signed::Negative(time) => -(time.nseconds() as i128),
            };
            u64::try_from(base + skew + running).ok()
        };
        let (pts, dts) = (capture(buffer.pts()), capture(buffer.dts()));
        // Some pictures have two times that differ and some have not. Sound, which is sent far more often, never does.
        Times { pts: pts.or(dts), dts: dts.filter(|_| !sound || dts != pts) }
    }

    /// Nobody takes a frame this long: said once, as the next one will be no shorter.
    fn refuse_long(&self, exit: &Exit, len: usize) {
        exit.count_dropped();
        let mut state = self.state();
        state.broken = state.video;
        if !std::mem::replace(&mut state.too_long, true) {
            drop(state);
            gst::element_imp_warning!(
                self,
                gst::StreamError::Format,
                ("a frame of {len} bytes is dropped: a meeting carries {MAX_FRAME}; lower bitrate or resolution")
            );
        }
    }

    fn ask_for_keyframe(&self) {
        let ask = {
            let mut state = self.state();
            state.wish.want();
            state.wish.due(ASK_EVERY, clock::boot_now)
        };
        if ask {
            self.obj().sink_pad().push_event(report::want_keyframe());
        }
    }
}

struct Times {
    pts: Option<u64>,
    dts: Option<u64>,
}

#[glib::object_subclass]
impl ObjectSubclass for Track {
    const NAME: &'static str = "GstE2eeMeetingSinkTrack";
    type Type = TrackSink;
    type ParentType = gst_base::BaseSink;
}

impl ObjectImpl for Track {}

impl GstObjectImpl for Track {}

impl ElementImpl for Track {
    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: std::sync::LazyLock<Vec<gst::PadTemplate>> = std::sync::LazyLock::new(|| {
            let sink = gst::PadTemplate::new(
                "sink",
                gst::PadDirection::Sink,
                gst::PadPresence::Always,
                &caps::sframe(),
            );
            sink.into_iter().collect()
        });
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::ReadyToPaused {
            // Picture and sound do not wait for the first caption, which a person has yet to say.
            let mut latency = gst::query::Latency::new();
            let obj = self.obj();
            let pad = obj.sink_pad();
            let live = pad.peer_query(&mut latency) && latency.result().0;
            obj.set_async(!live && !caps::is_sparse(&pad.peer_query_caps(None)));
        }
        if transition == gst::StateChange::PausedToPlaying {
            // What is captured now is late already: a live frame goes out as it comes.
            let live = self.obj().query_latency().is_ok_and(|(_, live, _, _)| live);
            let sync = self.state().sync && !live;
            self.obj().set_sync(sync);
        }
        self.parent_change_state(transition)
    }
}

impl BaseSinkImpl for Track {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let sync = self.state().sync;
        *self.state() = State { sync, ..State::default() };
        Ok(())
    }

    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let mut state = self.state();
        let kind = caps::sealed_kind(caps);
        (state.video, state.sound) = (kind == Kind::Video, kind == Kind::Audio);
        state.version = caps::version(caps);
        Ok(())
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        let answered = BaseSinkImplExt::parent_query(self, query);
        self.refusal.look(&*self.obj(), query, &caps::sframe(), |_| NOT_SEALED.to_owned());
        answered
    }

    fn event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Segment(segment) => {
                if let Some(segment) = segment.segment().downcast_ref::<gst::ClockTime>() {
                    self.state().segment = segment.clone();
                }
            }
            // Whoever hears of the end takes the pipeline down, and the stream is closed on another connection.
            gst::EventView::Eos(_) => {
                if let Some(exit) = self.exit.get() {
                    exit.outbox.drain(LAST_FRAMES);
                }
            }
            _ => {}
        }
        self.parent_event(event)
    }

    fn render(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let exit = self.exit.get().ok_or(gst::FlowError::Error)?;
        let sealed = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
        if sealed.len() > MAX_FRAME {
            self.refuse_long(exit, sealed.len());
            return Ok(gst::FlowSuccess::Ok);
        }
        let Some((header, _)) = Header::parse(&sealed) else {
            if exit.count_malformed() == 0 {
                gst::element_imp_warning!(
                    self,
                    gst::StreamError::Format,
                    ("these buffers are not sealed frames: only what comes from e2eeseal can be published")
                );
            }
            return Ok(gst::FlowSuccess::Ok);
        };
        let stream = KeyId::from(header.kid).stream();
        let flags = envelope::flags(buffer.flags());
        let keyframe = flags.has(Flags::KEYFRAME);

        let (video, sound, version, segment) = {
            let mut state = self.state();
            if state.stream.replace(stream) != Some(stream) {
                exit.route(stream, self.obj().sink_pad());
            }
            if keyframe {
                state.broken = false;
                state.wish.fulfil();
            }
            if state.broken {
                drop(state);
                exit.count_dropped();
                self.ask_for_keyframe();
                return Ok(gst::FlowSuccess::Ok);
            }
            (state.video, state.sound, state.version, state.segment.clone())
        };

        let times = self.capture_times(&segment, sound, buffer);
        let envelope = Envelope {
            pts: times.pts,
            dts: times.dts,
            duration: buffer.duration().map(gst::ClockTime::nseconds),
            flags: flags.with_caps_version(version),
            layer: 0,
            sealed: bytes(&sealed),
        };
        let patience = if video && keyframe { PATIENCE } else { Duration::ZERO };
        if !exit.send(stream, envelope, patience) && video && !flags.has(Flags::DROPPABLE) {
            gst::debug!(CAT, imp = self, "the agent is slow: dropping until the next keyframe");
            self.state().broken = true;
            self.ask_for_keyframe();
        }
        Ok(gst::FlowSuccess::Ok)
    }
}

fn bytes(sealed: &[u8]) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(sealed)
}

const NOT_SEALED: &str = "frames that are not sealed are not published: put e2eeseal before meetingsink";
/// How long a slow agent may take for what comes before the end of a track.
const LAST_FRAMES: Duration = Duration::from_secs(1);
/// How long a keyframe waits for a slow agent; anything else is dropped at once.
const PATIENCE: Duration = Duration::from_millis(100);

//! The shell GStreamer sees: a pad for each track; a file plays from any time, what is pushed from its beginning on.

mod pads;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::UniqueFlowCombiner;
use meeting_protocol::frame::KeyId;
use pads::Pads;

use super::{
    feed::Feed,
    film::Film,
    format::{FrameHead, MAX_TRACKS, Record, Source},
    index::{Index, Indexed},
    line::Line,
    player::{Outcome, Player, Upstream},
    walk::Stop,
};
use crate::{
    CAT, address, caps,
    context::{self, NoKeys},
    lock::lock,
    report,
    store::Archive,
};

type Flow = Result<gst::FlowSuccess, gst::FlowError>;

pub struct E2eeDemux {
    sink: gst::Pad,
    meeting: Mutex<String>,
    /// A file that can be read anywhere.
    film: Mutex<Option<Arc<Film>>>,
    /// What is pushed at us.
    pushed: Mutex<Pushed>,
    combiner: Mutex<UniqueFlowCombiner>,
    pads: Mutex<Pads>,
    frames: AtomicU64,
    /// Said once: what is wrong with the file.
    told: AtomicBool,
}

#[derive(Default)]
struct Pushed {
    feed: Feed,
    origin: Option<u64>,
    /// Looked for when the first track comes.
    archive: Option<Option<Arc<Archive>>>,
    tracks: Vec<Source>,
    lines: BTreeMap<u32, (gst::Pad, Line)>,
}

impl E2eeDemux {
    /// The keys of a key file in reach; none if there is none, and tracks come out as they are.
    fn archive(&self) -> Result<Option<Arc<Archive>>, gst::ErrorMessage> {
        let failed =
            |error: &dyn std::fmt::Display| gst::error_msg!(gst::ResourceError::Settings, ("{error}"));
        let meeting = address::meeting(&lock(&self.meeting)).map_err(|error| failed(&error))?;
        match context::find(self.obj().upcast_ref(), meeting) {
            Ok(store) => Ok(store.archive()),
            Err(NoKeys::Nobody) => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Reads what is there and plays it.
    fn open_film(&self) -> Result<(), gst::ErrorMessage> {
        let upstream = Upstream(self.sink.clone());
        let len = self.sink.peer_query_duration::<gst::format::Bytes>().map_or(0, |bytes| *bytes);
        let broken = |stop: Stop<gst::FlowError>| {
            let text = stop.sentence().unwrap_or_else(|| "the recording cannot be read".into());
            gst::error_msg!(gst::StreamError::Demux, ("{text}"))
        };
        let Indexed { index, stop } = Index::of(upstream.clone(), len).map_err(broken)?;
        if let Some(stop) = stop {
            self.tell(&stop);
        }
        let archive = self.archive()?;
        let origin = index.origin();
        let mut players = Vec::new();
        for (number, track) in (0..).zip(&index.tracks) {
            let Some(first) = track.first else { continue };
            let source = track.source;
            if archive.as_ref().is_some_and(|archive| !archive.knows(source.from, source.stream)) {
                gst::info!(CAT, imp = self, "no key of track {number}: it stays sealed");
                continue;
            }
            let Some((pad, start)) = self.add_pad(source, number) else { continue };
            let line = Line::new(pad.clone(), source, first.kid, archive.clone(), start, origin);
            players.push(Player::new(number, track.clone(), first, upstream.clone(), pad, line));
        }
        if players.is_empty() {
            let text = match (&archive, index.tracks.iter().any(|track| track.first.is_some())) {
                (Some(_), true) => "the key file has no key of any track of this recording: it stays sealed",
                _ => "the recording holds no frame",
            };
            return Err(gst::error_msg!(gst::StreamError::Demux, ("{text}")));
        }
        let film = Arc::new(Film::new(index, players));
        *lock(&self.film) = Some(film.clone());
        for player in &film.players {
            let _ = self.obj().add_pad(&player.pad);
        }
        self.obj().no_more_pads();
        film.players.iter().for_each(|player| self.start(player));
        Ok(())
    }

    fn start(&self, player: &Arc<Player>) {
        // A pad that has a task goes on with it and never lets go of what it would have done instead.
        let (demux, weak, pad) = (self.obj().downgrade(), Arc::downgrade(player), player.pad.downgrade());
        let _ = player.pad.start_task(move || match (demux.upgrade(), weak.upgrade()) {
            (Some(demux), Some(player)) => demux.imp().step(&player),
            _ => drop(pad.upgrade().map(|pad| pad.pause_task())),
        });
    }

    fn step(&self, player: &Player) {
        let flow = match player.step() {
            Outcome::Flowed(flow) => flow,
            Outcome::Ended => return drop(player.pad.pause_task()),
            Outcome::Stopped(Stop::Unread(gst::FlowError::Flushing)) => Err(gst::FlowError::Flushing),
            Outcome::Stopped(stop) => {
                self.tell(&stop);
                player.end();
                return drop(player.pad.pause_task());
            }
        };
        if flow.is_ok() {
            self.frames.fetch_add(1, Ordering::Relaxed);
        }
        match self.combine(&player.pad, flow) {
            Ok(_) if flow != Err(gst::FlowError::Eos) => {}
            Err(error) if error != gst::FlowError::Flushing && error != gst::FlowError::Eos => {
                player.end();
                self.fail(error);
                let _ = player.pad.pause_task();
            }
            _ => {
                if flow == Err(gst::FlowError::Eos) {
                    player.end();
                }
                let _ = player.pad.pause_task();
            }
        }
    }

    fn combine(&self, pad: &gst::Pad, flow: Flow) -> Flow {
        lock(&self.combiner).update_pad_flow(pad, flow)
    }

    fn fail(&self, error: gst::FlowError) {
        gst::element_imp_error!(self, gst::StreamError::Failed, ("the pipeline took no more"), ["{error}"]);
    }

    /// Says what is wrong with the file, once.
    fn tell(&self, stop: &Stop<gst::FlowError>) {
        if !self.told.swap(true, Ordering::Relaxed) {
            let text = stop.sentence().unwrap_or_else(|| "the recording cannot be read further".into());
            gst::element_imp_warning!(self, gst::StreamError::Demux, ("{text}"));
        }
    }

    fn activate(&self, pad: &gst::Pad) -> Result<(), gst::LoggableError> {
        let mut query = gst::query::Scheduling::new();
        let seekable = pad.peer_query(&mut query)
            && query.has_scheduling_mode_with_flags(gst::PadMode::Pull, gst::SchedulingFlags::SEEKABLE);
        let mode = if seekable { gst::PadMode::Pull } else { gst::PadMode::Push };
        pad.activate_mode(mode, true)
            .map_err(|error| gst::loggable_error!(CAT, "no way to read the recording: {error}"))
    }

    fn activate_mode(
        &self,
        pad: &gst::Pad,
        mode: gst::PadMode,
        active: bool,
    ) -> Result<(), gst::LoggableError> {
        if mode != gst::PadMode::Pull {
            return Ok(());
        }
        if !active {
            return pad.stop_task().map_err(|error| gst::loggable_error!(CAT, "{error}"));
        }
        let (weak, sink) = (self.obj().downgrade(), pad.clone());
        let begun = pad.start_task(move || {
            let Some(demux) = weak.upgrade() else { return drop(sink.pause_task()) };
            let imp = demux.imp();
            if let Err(error) = imp.open_film() {
                imp.post_error_message(error);
            }
            let _ = sink.pause_task();
        });
        begun.map_err(|error| gst::loggable_error!(CAT, "{error}"))
    }

    fn chain(&self, buffer: &gst::Buffer) -> Flow {
        let mut pushed = lock(&self.pushed);
        pushed.feed.push(&buffer.map_readable().map_err(|_| gst::FlowError::Error)?);
        loop {
            match pushed.feed.next() {
                Ok(Some((record, clear))) => self.record(&mut pushed, record, clear)?,
                Ok(None) => return Ok(gst::FlowSuccess::Ok),
                Err(stop) => return self.broken(stop),
            };
        }
    }

    fn record(&self, pushed: &mut Pushed, record: Record, clear: Option<FrameHead>) -> Flow {
        match (record, clear) {
            (Record::Track(source), _) if pushed.tracks.len() < MAX_TRACKS => {
                if pushed.archive.is_none() {
                    pushed.archive = Some(self.archive().map_err(|error| {
                        self.post_error_message(error);
                        gst::FlowError::Error
                    })?);
                }
                pushed.tracks.push(source);
            }
            (Record::End(track), _) => {
                if let Some((_, mut line)) = pushed.lines.remove(&track) {
                    line.end();
                }
            }
            (Record::Frame { track, envelope }, Some(head)) => {
                let origin = *pushed.origin.get_or_insert(head.time.unwrap_or(0));
                if !pushed.lines.contains_key(&track)
                    && let Some(line) = self.new_line(pushed, track, head.kid, origin)
                {
                    pushed.lines.insert(track, line);
                }
                if let Some((pad, line)) = pushed.lines.get_mut(&track) {
                    let flow = line.push(&head, envelope);
                    self.frames.fetch_add(1, Ordering::Relaxed);
                    return self.combine(pad, flow);
                }
            }
            _ => {}
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn new_line(&self, pushed: &Pushed, number: u32, kid: KeyId, origin: u64) -> Option<(gst::Pad, Line)> {
        let source = *pushed.tracks.get(number as usize)?;
        let archive = pushed.archive.clone().flatten();
        if archive.as_ref().is_some_and(|archive| !archive.knows(source.from, source.stream)) {
            return None;
        }
        let (pad, start) = self.add_pad(source, number)?;
        let line = Line::new(pad.clone(), source, kid, archive, start, origin);
        self.obj().add_pad(&pad).ok()?;
        Some((pad, line))
    }

    /// What was pushed is over: it plays up to here.
    fn broken(&self, stop: Stop<gst::FlowError>) -> Flow {
        if matches!(stop, Stop::Damaged(0, _)) {
            let text = stop.sentence().unwrap_or_default();
            gst::element_imp_error!(self, gst::StreamError::Demux, ("{text}"));
            return Err(gst::FlowError::Error);
        }
        self.tell(&stop);
        Err(gst::FlowError::Eos)
    }

    fn sink_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        match event.type_() {
            gst::EventType::Eos => {
                let mut pushed = lock(&self.pushed);
                if let Some(at) = pushed.feed.cut() {
                    self.tell(&Stop::Cut(at));
                }
                let lines = std::mem::take(&mut pushed.lines);
                if lock(&self.pads).all.is_empty() {
                    gst::element_imp_error!(
                        self,
                        gst::StreamError::Demux,
                        ("nothing of this recording can be played")
                    );
                }
                lines.into_values().for_each(|(_, mut line)| line.end());
                true
            }
            // Ours are in bytes or of the whole; each line has its own.
            gst::EventType::StreamStart | gst::EventType::Caps | gst::EventType::Segment => true,
            _ => gst::Pad::event_default(pad, Some(&*self.obj()), event),
        }
    }

    fn stop(&self) {
        *lock(&self.film) = None;
        let pads = std::mem::take(&mut *lock(&self.pads));
        for pad in pads.all {
            lock(&self.combiner).remove_pad(&pad);
            let _ = pad.set_active(false);
            let _ = pad.stop_task();
            let _ = self.obj().remove_pad(&pad);
        }
        *lock(&self.pushed) = Pushed::default();
        self.frames.store(0, Ordering::Relaxed);
        self.told.store(false, Ordering::Relaxed);
    }

    fn stats(&self) -> gst::Structure {
        gst::Structure::builder("e2eedemux-stats")
            .field("tracks", lock(&self.pads).all.len() as u32)
            .field("frames", self.frames.load(Ordering::Relaxed))
            .build()
    }
}

#[glib::object_subclass]
impl ObjectSubclass for E2eeDemux {
    const NAME: &'static str = "GstE2eeDemux";
    type Type = super::E2eeDemux;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> Self {
        let template = class.pad_template("sink").expect("the template below");
        let sink = gst::Pad::builder_from_template(&template)
            .activate_function(|pad, parent| {
                let failed = || Err(gst::loggable_error!(CAT, "panicked"));
                Self::catch_panic_pad_function(parent, failed, |imp| imp.activate(pad))
            })
            .activatemode_function(|pad, parent, mode, active| {
                let failed = || Err(gst::loggable_error!(CAT, "panicked"));
                Self::catch_panic_pad_function(parent, failed, |imp| imp.activate_mode(pad, mode, active))
            })
            .chain_function(|_pad, parent, buffer| {
                let failed = || Err(gst::FlowError::Error);
                Self::catch_panic_pad_function(parent, failed, |imp| imp.chain(&buffer))
            })
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.sink_event(pad, event))
            })
            .build();
        Self {
            sink,
            meeting: Mutex::default(),
            film: Mutex::default(),
            pushed: Mutex::default(),
            combiner: Mutex::default(),
            pads: Mutex::default(),
            frames: AtomicU64::new(0),
            told: AtomicBool::new(false),
        }
    }
}

impl ObjectImpl for E2eeDemux {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                report::meeting_property(),
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb("tracks that have a pad, frames that went out")
                    .read_only()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if pspec.name() == "meeting" {
            *lock(&self.meeting) = value.get::<Option<String>>().ok().flatten().unwrap_or_default();
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "meeting" => report::shown_meeting(&lock(&self.meeting)).to_value(),
            _ => self.stats().to_value(),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let _ = self.obj().add_pad(&self.sink);
    }
}

impl GstObjectImpl for E2eeDemux {}

impl ElementImpl for E2eeDemux {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Sealed recording demuxer",
                "Codec/Demuxer",
                "Gives the tracks of a sealed recording, one pad for each. With a `meetingkey key-file=..` around it these are \
                 the tracks whose keys are there, ready for `e2eeopen`; without one, all of them, sealed and nameless",
                "The gst-e2ee authors",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let (sometimes, always) = (gst::PadPresence::Sometimes, gst::PadPresence::Always);
            let sealed = caps::sframe();
            let out = |name| gst::PadTemplate::new(name, gst::PadDirection::Src, sometimes, &sealed);
            [
                gst::PadTemplate::new("sink", gst::PadDirection::Sink, always, &super::caps()),
                out("video_%u"),
                out("audio_%u"),
                out("data_%u"),
            ]
            .into_iter()
            .flatten()
            .collect()
        });
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        let success = self.parent_change_state(transition)?;
        if transition == gst::StateChange::PausedToReady {
            self.stop();
        }
        Ok(success)
    }
}

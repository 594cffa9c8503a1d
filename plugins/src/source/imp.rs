//! The shell GStreamer sees: a live source whose pads follow the tracks of the meeting.

mod net;
mod pads;
mod uri;

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::UniqueFlowCombiner;
use meeting_protocol::local::ToAgent;
use meeting_wire::{Envelope, MeetingId, ParticipantId};

use self::net::Net;
use super::{
    keys::Keys,
    timeline::Timeline,
    track::{About, Id, Track},
};
use crate::{
    CAT,
    bounds::{self, MaxPixels},
    caps, clock,
    lock::lock,
    outbox::Outbox,
    report,
    store::KeyStore,
    throttle::Throttle,
};

#[derive(Clone, Default)]
struct Settings {
    agent: String,
    meeting: String,
    participant: String,
    track: String,
    /// Whether a URI said so, as players do.
    by_uri: bool,
}

pub struct MeetingSrc {
    settings: Mutex<Settings>,
    latency_ms: AtomicU64,
    max_pixels: MaxPixels,
    /// What was said of streams that are too large.
    told: Mutex<Throttle<Id>>,
    net: Mutex<Net>,
    /// From the first opener that finds no others, to NULL.
    keys: Mutex<Option<Keys>>,
    outbox: Arc<Outbox>,
    playing: AtomicBool,
    tracks: Mutex<HashMap<Id, Arc<Track>>>,
    timelines: Mutex<HashMap<ParticipantId, Timeline>>,
    combiner: Mutex<UniqueFlowCombiner>,
    group: Mutex<Option<gst::GroupId>>,
    /// The next number for a pad of video, audio and data.
    numbers: Mutex<[u32; 3]>,
    /// When the first pad came.
    first_pad: Mutex<Option<Instant>>,
    /// Whether a player has heard that it may start.
    settled: AtomicBool,
}

impl Default for MeetingSrc {
    fn default() -> Self {
        Self {
            settings: Mutex::default(),
            latency_ms: AtomicU64::new(LATENCY_MS),
            max_pixels: MaxPixels::default(),
            told: Mutex::default(),
            net: Mutex::default(),
            keys: Mutex::default(),
            outbox: Arc::default(),
            playing: AtomicBool::new(false),
            tracks: Mutex::default(),
            timelines: Mutex::default(),
            combiner: Mutex::default(),
            group: Mutex::default(),
            numbers: Mutex::default(),
            first_pad: Mutex::default(),
            settled: AtomicBool::new(false),
        }
    }
}

impl MeetingSrc {
    /// The meeting it is connected to.
    pub fn meeting(&self) -> Option<MeetingId> {
        lock(&self.net).meeting
    }

    /// The keys that it has brought.
    pub fn store(&self) -> Option<Arc<KeyStore>> {
        lock(&self.keys).as_ref()?.store()
    }

    /// Brings keys, if it has not yet.
    pub fn bring_keys(&self) -> Option<Arc<KeyStore>> {
        let meeting = self.meeting()?;
        let mut keys = lock(&self.keys);
        if keys.is_none() {
            *keys = Keys::bring(&self.obj(), meeting);
        }
        keys.as_ref()?.store()
    }

    /// A track is here, or its caps have changed.
    pub fn announce(&self, about: About) {
        let Some(pad_caps) = about.pad_caps() else {
            gst::warning!(
                CAT,
                imp = self,
                "the track {} of {} has caps nobody can open",
                about.track,
                about.name
            );
            return;
        };
        // A track that grows beyond it keeps its pad: frames of those caps wait for them in vain.
        if let Some(what) = self.max_pixels.beyond(&caps::opened(&pad_caps)) {
            if lock(&self.told).admits(about.id, clock::boot_now()) {
                let who = caps::owner_name(&pad_caps);
                gst::element_imp_warning!(
                    self,
                    gst::StreamError::Format,
                    ("{who} sends {what}: it is left out")
                );
            }
            return;
        }
        let known = lock(&self.tracks).get(&about.id).cloned();
        match known {
            Some(track) => track.set_caps(pad_caps),
            None if self.has_room(about.id.from) => self.add(&about, pad_caps),
            None => gst::warning!(CAT, imp = self, "too many tracks: one of {} is left out", about.name),
        }
    }

    /// A track has ended.
    pub fn end(&self, id: Id) {
        let track = lock(&self.tracks).get(&id).cloned();
        if let Some(track) = track {
            track.end();
        }
    }

    /// The end of a track has left its pad, which goes too. Under a player it stays until the end has passed the queues
    /// behind it: `decodebin3` of 1.22 forgets an end whose pad has gone, and nobody would notice that it is over.
    pub fn ended(&self, id: Id) {
        let stays = if lock(&self.settings).by_uri { QUEUED } else { Duration::ZERO };
        self.obj().call_async(move |element| {
            std::thread::sleep(stays);
            element.imp().remove(id);
        });
    }

    /// Takes out the pad of a track that has ended.
    pub fn remove(&self, id: Id) {
        let Some(track) = lock(&self.tracks).remove(&id) else { return };
        lock(&self.combiner).remove_pad(&track.pad);
        track.stop(&self.obj());
        self.removed(id);
    }

    fn removed(&self, id: Id) {
        let alone = !lock(&self.tracks).keys().any(|other| other.from == id.from);
        if alone {
            lock(&self.timelines).remove(&id.from);
        }
        self.tell_collection(None);
    }

    /// A frame has come.
    pub fn frame(&self, id: Id, envelope: Envelope) {
        let Some(track) = lock(&self.tracks).get(&id).cloned() else { return };
        self.settle();
        let now = self.obj().current_running_time().filter(|_| self.playing.load(Ordering::Acquire));
        let Some(now) = now.map(gst::ClockTime::nseconds) else {
            track.skip();
            return;
        };
        let (pts, dts) = {
            let mut timelines = lock(&self.timelines);
            let timeline = timelines.entry(id.from).or_default();
            if let Some(pts) = envelope.dts.or(envelope.pts) {
                timeline.arrived(pts, now);
            }
            let map = |time: Option<u64>| time.map(|time| timeline.running_time(time));
            (map(envelope.pts).or(Some(now)), map(envelope.dts))
        };
        let wishes = track.still_wishes(envelope.flags);
        if !track.push(envelope, pts, dts) || wishes {
            self.ask_for_keyframe(&track);
        }
    }

    /// Passes a decoder's wish on.
    pub fn ask_for_keyframe(&self, track: &Track) {
        if track.may_ask() {
            let wish = ToAgent::KeyframeRequest { from: track.id.from, stream: track.id.stream };
            self.outbox.push(&wish, Duration::ZERO);
        }
    }

    /// Tells a player that all pads are here. That is never so in a meeting, but `playbin` shows nothing before it hears
    /// it; elsewhere `gst-launch-1.0` would complain of links that wait for somebody to come.
    fn settle(&self) {
        let here = |first: Instant| first.elapsed() >= SETTLED && lock(&self.settings).by_uri;
        if !self.settled.load(Ordering::Relaxed) && lock(&self.first_pad).is_some_and(here) {
            self.settled.store(true, Ordering::Relaxed);
            self.obj().call_async(|element| element.no_more_pads());
        }
    }

    /// What the flow of one pad means for all.
    pub fn combine(
        &self,
        pad: &gst::Pad,
        flow: Result<gst::FlowSuccess, gst::FlowError>,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        lock(&self.combiner).update_pad_flow(pad, flow)
    }

    fn stop(&self) {
        let tracks: Vec<_> = lock(&self.tracks).drain().map(|(_, track)| track).collect();
        for track in tracks {
            lock(&self.combiner).remove_pad(&track.pad);
            track.stop(&self.obj());
        }
        lock(&self.timelines).clear();
        *lock(&self.group) = None;
        *lock(&self.numbers) = [0; 3];
        *lock(&self.first_pad) = None;
        self.settled.store(false, Ordering::Relaxed);
    }

    fn stats(&self) -> gst::Structure {
        let tracks = lock(&self.tracks);
        let (pushed, dropped) =
            tracks.values().map(|track| track.counts()).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        gst::Structure::builder("meetingsrc-stats")
            .field("tracks", tracks.len() as u32)
            .field("pushed", pushed)
            .field("dropped", dropped)
            .build()
    }
}

#[glib::object_subclass]
impl ObjectSubclass for MeetingSrc {
    const NAME: &'static str = "GstE2eeMeetingSrc";
    type Type = super::MeetingSrc;
    type ParentType = gst::Element;
    type Interfaces = (gst::URIHandler,);
}

impl ObjectImpl for MeetingSrc {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                report::agent_property(),
                report::meeting_property(),
                glib::ParamSpecString::builder("participant")
                    .nick("Participant")
                    .blurb("Only this participant: an id in hex, or a display name; empty for everybody")
                    .default_value(Some(""))
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("track")
                    .nick("Track")
                    .blurb("Only tracks with this label, such as video or audio; empty for all")
                    .default_value(Some(""))
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt::builder("latency")
                    .nick("Latency")
                    .blurb("How long frames may take to arrive before they are late, in ms")
                    .maximum(10_000)
                    .default_value(LATENCY_MS as u32)
                    .mutable_playing()
                    .build(),
                bounds::property(),
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb("tracks, pushed, dropped (the pipeline was slow)")
                    .read_only()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let text = || value.get::<Option<String>>().ok().flatten().unwrap_or_default();
        match pspec.name() {
            "agent" => lock(&self.settings).agent = text(),
            "meeting" => lock(&self.settings).meeting = text(),
            "participant" => lock(&self.settings).participant = text(),
            "track" => lock(&self.settings).track = text(),
            "max-pixels" => self.max_pixels.set(value),
            "latency" => {
                let latency = value.get::<u32>().unwrap_or(LATENCY_MS as u32);
                self.latency_ms.store(latency.into(), Ordering::Relaxed);
                let _ = self.obj().post_message(gst::message::Latency::builder().src(&*self.obj()).build());
            }
            _ => {}
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "agent" => report::shown_agent(&lock(&self.settings).agent).to_value(),
            "meeting" => report::shown_meeting(&lock(&self.settings).meeting).to_value(),
            "participant" => lock(&self.settings).participant.to_value(),
            "track" => lock(&self.settings).track.to_value(),
            "max-pixels" => self.max_pixels.get().to_value(),
            "latency" => (self.latency_ms.load(Ordering::Relaxed) as u32).to_value(),
            _ => self.stats().to_value(),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        self.obj().set_element_flags(gst::ElementFlags::SOURCE);
    }
}

impl GstObjectImpl for MeetingSrc {}

impl ElementImpl for MeetingSrc {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Meeting source",
                "Source/Network",
                "Gives the sealed tracks of the others in an end-to-end-encrypted meeting, from the agent. Put `e2eeopen` \
                 (or `decodebin`, which finds it) behind each pad and a `meetingkey` into the pipeline; without one, it brings \
                 the keys to open with itself, so that players take `meeting://MEETING-ID`",
                "The gst-e2ee authors",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let pad = |name| {
                gst::PadTemplate::new(
                    name,
                    gst::PadDirection::Src,
                    gst::PadPresence::Sometimes,
                    &caps::sframe(),
                )
            };
            ["video_%u", "audio_%u", "data_%u"].into_iter().filter_map(|name| pad(name).ok()).collect()
        });
        &TEMPLATES
    }

    /// End-of-stream from the application, such as Ctrl-C under `gst-launch-1.0 -e`: every track ends after the
    /// frames that are here, and files behind them are finished.
    fn send_event(&self, event: gst::Event) -> bool {
        match event.type_() {
            gst::EventType::Eos => {}
            gst::EventType::Seek => return false,
            _ => return self.parent_send_event(event),
        }
        let tracks: Vec<_> = lock(&self.tracks).values().cloned().collect();
        tracks.iter().for_each(|track| track.end());
        !tracks.is_empty()
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        let prepared = match transition {
            gst::StateChange::NullToReady => self.connect(),
            gst::StateChange::PlayingToPaused => {
                self.playing.store(false, Ordering::Release);
                Ok(())
            }
            gst::StateChange::PausedToReady => {
                // Before the pads go, or the threads that wait for frames would hold them.
                self.hang_up();
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(error) = prepared {
            self.post_error_message(error);
            return Err(gst::StateChangeError);
        }
        let mut success = self.parent_change_state(transition)?;
        match transition {
            gst::StateChange::ReadyToPaused => {
                if let Err(error) = self.start() {
                    self.post_error_message(error);
                    return Err(gst::StateChangeError);
                }
                success = gst::StateChangeSuccess::NoPreroll;
            }
            gst::StateChange::PausedToPlaying => {
                self.playing.store(true, Ordering::Release);
                let tracks: Vec<_> = lock(&self.tracks).values().cloned().collect();
                tracks.iter().for_each(|track| self.ask_for_keyframe(track));
            }
            gst::StateChange::PlayingToPaused => success = gst::StateChangeSuccess::NoPreroll,
            gst::StateChange::PausedToReady => self.stop(),
            gst::StateChange::ReadyToNull => {
                *lock(&self.net) = Net::default();
                let keys = lock(&self.keys).take();
                drop(keys);
            }
            _ => {}
        }
        Ok(success)
    }
}

/// Enough for the jitter of a home network; late frames are the sink's business.
const LATENCY_MS: u64 = 200;
/// What belongs to one person has come by then.
const SETTLED: Duration = Duration::from_millis(500);
/// What waits in a player's queues has been shown by then.
const QUEUED: Duration = Duration::from_secs(1);
#[cfg(test)]
mod tests;

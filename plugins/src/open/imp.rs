//! The shell GStreamer sees: map, [`Gate::open`], push.

use std::sync::{
    Arc, LazyLock, Mutex, MutexGuard,
    atomic::{AtomicBool, Ordering},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::{
    prelude::*,
    subclass::{base_transform::GenerateOutputSuccess, prelude::*},
};
use meeting_wire::{Kind, StreamId};

use super::{
    failures::Reason,
    gate::{Counts, Gate, Owner, Refused},
};
use crate::{
    CAT, address,
    bounds::{self, MaxPixels},
    caps, clock, context,
    lock::lock,
    recording, report,
    store::KeyStore,
    throttle::Throttle,
    wish::{ASK_EVERY, Wish},
};

/// Alive between READY and PAUSED.
struct State {
    gate: Gate,
    throttle: Throttle<(Reason, Option<StreamId>)>,
    video: bool,
    wish: Wish,
    /// The number of the caps of the frames that come now.
    version: u32,
    /// The stream and the caps whose codec headers were looked for.
    restored: Option<(StreamId, u32)>,
    /// Whether the frames that come now are of a size that no decoder is to hear of.
    beyond: bool,
    /// Caps may come with every frame.
    told_beyond: Throttle<String>,
}

/// What a sealer of this process stated last: the sealed caps do not have the codec headers.
#[derive(Default)]
struct Headers {
    stream: Option<StreamId>,
    version: u32,
    caps: Option<gst::Caps>,
}

#[derive(Default)]
pub struct E2eeOpen {
    meeting: Mutex<String>,
    max_pixels: MaxPixels,
    state: Mutex<Option<State>>,
    /// A copy outside `state`, so that whoever looks does not wait for a frame that waits for its key.
    counts: Mutex<Counts>,
    /// Alive between READY and PAUSED.
    store: Mutex<Option<Arc<KeyStore>>>,
    headers: Mutex<Headers>,
    refusal: report::Refusal,
    cancelled: AtomicBool,
}

impl E2eeOpen {
    fn meeting(&self) -> MutexGuard<'_, String> {
        lock(&self.meeting)
    }

    fn state(&self) -> MutexGuard<'_, Option<State>> {
        lock(&self.state)
    }

    fn store(&self) -> MutexGuard<'_, Option<Arc<KeyStore>>> {
        lock(&self.store)
    }

    fn headers(&self) -> MutexGuard<'_, Headers> {
        lock(&self.headers)
    }

    /// Puts the codec headers of a stream into the caps, and has it stay so.
    fn restore_headers(&self, stream: StreamId, version: u32) -> Result<(), gst::FlowError> {
        let caps = self.stated(stream, version);
        let found = caps.is_some();
        *self.headers() = Headers { stream: Some(stream), version, caps };
        let current = self.obj().src_pad().current_caps();
        let Some(mut plain) = current.filter(|_| found) else { return Ok(()) };
        self.add_headers(&mut plain, version);
        self.obj().update_src_caps(&plain).map_err(|_| gst::FlowError::NotNegotiated)
    }

    fn stated(&self, stream: StreamId, version: u32) -> Option<gst::Caps> {
        let store = self.store().clone()?;
        store.stated(stream, version).and_then(|text| caps::from_statement(&text))
    }

    fn add_headers(&self, plain: &mut gst::Caps, version: u32) {
        let mut headers = self.headers();
        if headers.version != version
            && let Some(stream) = headers.stream
        {
            headers.caps = self.stated(stream, version);
            headers.version = version;
        }
        let Some(stated) = headers.caps.as_ref().and_then(|caps| caps.structure(0)) else { return };
        let has_any = caps::CODEC_HEADERS.iter().any(|name| stated.has_field(*name));
        if plain.is_any() || !has_any {
            return;
        }
        for structure in plain.make_mut().iter_mut().filter(|structure| structure.name() == stated.name()) {
            for name in caps::CODEC_HEADERS {
                if let Ok(value) = stated.value(name) {
                    structure.set_value(name, value.clone());
                }
            }
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        lock(&self.counts)
    }

    /// Ends any wait for a key, from outside the streaming thread.
    fn cancel(&self, cancelled: bool) {
        self.cancelled.store(cancelled, Ordering::Release);
        let store = self.store().clone();
        if let Some(store) = store {
            store.wake();
        }
    }

    /// Whether these caps stay here, which is told. It is no error: others in the pipeline have done nothing.
    fn withholds(&self, sealed: &gst::CapsRef) -> bool {
        let beyond = self.max_pixels.beyond(&caps::opened(sealed));
        if let Some(state) = self.state().as_mut() {
            state.beyond = beyond.is_some();
        }
        let Some(what) = beyond else { return false };
        let now = clock::boot_now();
        if self.state().as_mut().is_some_and(|state| state.told_beyond.admits(what.clone(), now)) {
            let who = caps::owner_name(sealed);
            gst::element_imp_warning!(
                self,
                gst::StreamError::Format,
                ("{who} sends {what}: it is not opened")
            );
        }
        true
    }

    /// Whether no caps have gone out yet since those that came stay here.
    fn waits_for_caps(&self) -> bool {
        self.state().as_ref().is_some_and(|state| state.beyond) && !self.obj().src_pad().has_current_caps()
    }

    /// Passes caps on, and the segment behind them that had to wait for the first ones.
    fn take_caps(&self, caps: gst::Event) -> bool {
        let first = !self.obj().src_pad().has_current_caps();
        let taken = self.parent_sink_event(caps);
        match self.obj().sink_pad().sticky_event::<gst::event::Segment>(0) {
            Some(segment) if taken && first => self.parent_sink_event(segment.into()),
            _ => taken,
        }
    }

    fn stats(&self) -> gst::Structure {
        let counts = self.counts().clone();
        let mut stats = gst::Structure::builder("e2eeopen-stats")
            .field("opened", counts.opened)
            .field("bytes", counts.bytes)
            .build();
        for (reason, count) in Reason::ALL.iter().zip(counts.refused) {
            stats.set(reason.word(), count);
        }
        stats
    }

    fn say_refused(&self, refused: &Refused, count: u64) {
        let who = refused.who.as_deref();
        let text = |text: Option<String>| text.unwrap_or_default();
        let structure = gst::Structure::builder("e2ee-open-failure")
            .field("reason", refused.reason.word())
            .field("count", count)
            .field("participant", text(who.map(|who| who.participant.to_string())))
            .field("name", text(who.map(|who| who.name.clone())))
            .field("track", text(who.map(|who| who.track.clone())))
            .field("kid", text(refused.kid.map(|kid| kid.to_string())))
            .build();
        gst::warning!(CAT, imp = self, "not opened: {structure}");
        let _ = self.obj().post_message(gst::message::Element::builder(structure).src(&*self.obj()).build());
    }
}

#[glib::object_subclass]
impl ObjectSubclass for E2eeOpen {
    const NAME: &'static str = "GstE2eeOpen";
    type Type = super::E2eeOpen;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for E2eeOpen {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                report::meeting_property(),
                bounds::property(),
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb("opened, bytes, and what was refused: no-key, forged, replayed, malformed, mismatch, stale")
                    .read_only()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        match pspec.name() {
            "meeting" => *self.meeting() = value.get::<Option<String>>().ok().flatten().unwrap_or_default(),
            "max-pixels" => self.max_pixels.set(value),
            _ => {}
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "meeting" => report::shown_meeting(&self.meeting()).to_value(),
            "max-pixels" => self.max_pixels.get().to_value(),
            _ => self.stats().to_value(),
        }
    }
}

impl GstObjectImpl for E2eeOpen {}

impl ElementImpl for E2eeOpen {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "End-to-end opener",
                "Codec/Decryptor/Video/Audio",
                "Opens the sealed frames of a meeting (RFC 9605 SFrame). Takes its keys from a `meetingkey` in the same \
                 pipeline, passes on what authenticates and posts `e2ee-open-failure` about the rest",
                "The gst-e2ee authors",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> =
            LazyLock::new(|| report::always_pads(&caps::sframe(), &gst::Caps::new_any()));
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::PausedToReady {
            // Before the pads go, or the thread that waits for a key would hold them.
            self.cancel(true);
        }
        self.parent_change_state(transition)
    }
}

impl BaseTransformImpl for E2eeOpen {
    const MODE: gst_base::subclass::BaseTransformMode = gst_base::subclass::BaseTransformMode::NeverInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let meeting = address::meeting(&self.meeting())
            .map_err(|error| gst::error_msg!(gst::ResourceError::Settings, ("{error}")))?;
        let store = context::find_to_open(self.obj().upcast_ref(), meeting)
            .map_err(|error| gst::error_msg!(gst::ResourceError::NotFound, ("{error}")))?;
        gst::info!(CAT, imp = self, "opening for meeting {}", store.meeting());
        self.cancelled.store(false, Ordering::Release);
        *self.counts() = Counts::default();
        *self.store() = Some(store.clone());
        *self.state() = Some(State {
            gate: Gate::new(store),
            throttle: Throttle::default(),
            video: false,
            wish: Wish::default(),
            version: 0,
            restored: None,
            beyond: false,
            told_beyond: Throttle::default(),
        });
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *self.store() = None;
        *self.headers() = Headers::default();
        let state = self.state().take();
        drop(state);
        Ok(())
    }

    fn transform_caps(
        &self,
        direction: gst::PadDirection,
        from: &gst::Caps,
        filter: Option<&gst::Caps>,
    ) -> Option<gst::Caps> {
        let caps = match direction {
            gst::PadDirection::Sink => {
                let mut plain = caps::opened(from);
                self.add_headers(&mut plain, caps::version(from));
                plain
            }
            _ => caps::sealed_for_opening(from),
        };
        Some(report::filtered(caps, filter))
    }

    fn query(&self, direction: gst::PadDirection, query: &mut gst::QueryRef) -> bool {
        let answered = BaseTransformImplExt::parent_query(self, direction, query);
        if direction == gst::PadDirection::Sink {
            self.refusal.look(&*self.obj(), query, &caps::sframe(), |_| NOT_SEALED.to_owned());
        }
        answered
    }

    fn set_caps(&self, incaps: &gst::Caps, outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let mut guard = self.state();
        let state = guard.as_mut().ok_or_else(|| gst::loggable_error!(CAT, "caps before start"))?;
        state.video = caps::kind(outcaps) == Kind::Video;
        state.version = caps::version(incaps);
        state.gate.bind(owner(incaps)?);
        Ok(())
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Caps(caps) if self.withholds(caps.caps()) => return true,
            gst::EventView::Caps(_) => return self.take_caps(event),
            // No segment goes before the first caps.
            gst::EventView::Segment(_) if self.waits_for_caps() => return true,
            _ => {}
        }
        match event.type_() {
            gst::EventType::FlushStart => self.cancel(true),
            gst::EventType::FlushStop => self.cancel(false),
            gst::EventType::CustomDownstream => {
                if let Some(epoch) = recording::begins_at(&event) {
                    if let Some(state) = self.state().as_mut() {
                        state.gate.begin_at(epoch);
                    }
                    return true;
                }
            }
            _ => {}
        }
        self.parent_sink_event(event)
    }

    fn submit_input_buffer(
        &self,
        is_discont: bool,
        inbuf: gst::Buffer,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        if self.state().as_ref().is_some_and(|state| state.beyond) {
            return Ok(gst::FlowSuccess::Ok);
        }
        self.parent_submit_input_buffer(is_discont, inbuf)
    }

    fn decide_allocation(&self, query: &mut gst::query::Allocation) -> Result<(), gst::LoggableError> {
        report::no_pools(query);
        Ok(())
    }

    fn transform_meta<'a>(
        &self,
        _outbuf: &mut gst::BufferRef,
        _meta: gst::MetaRef<'a, gst::Meta>,
        _inbuf: &'a gst::BufferRef,
    ) -> bool {
        true
    }

    // Not `transform`, as in `e2eeseal`.
    fn generate_output(&self) -> Result<GenerateOutputSuccess, gst::FlowError> {
        let Some(inbuf) = self.take_queued_buffer() else { return Ok(GenerateOutputSuccess::NoOutput) };
        let mut outbuf = report::output_for(self, &inbuf, 0)?;
        let target = outbuf.make_mut();
        let now = clock::boot_now();
        let mut guard = self.state();
        let state = guard.as_mut().ok_or(gst::FlowError::NotNegotiated)?;
        let opened = {
            let sealed = inbuf.map_readable().map_err(|_| gst::FlowError::Error)?;
            let mut out = target.map_writable().map_err(|_| gst::FlowError::Error)?;
            state.gate.open(now, &sealed, &mut out, || self.cancelled.load(Ordering::Acquire))
        };
        self.counts().clone_from(&state.gate.counts);
        if state.video && opened.is_err() {
            state.wish.want();
        }
        let ask = state.wish.due(ASK_EVERY, || now);

        let output = match opened {
            Ok(opened) => {
                let version = state.version;
                let news = state.restored.replace((opened.stream, version)) != Some((opened.stream, version));
                drop(guard);
                target.set_size(opened.len);
                if opened.discont {
                    target.set_flags(gst::BufferFlags::DISCONT);
                }
                if news {
                    self.restore_headers(opened.stream, version)?;
                }
                GenerateOutputSuccess::Buffer(outbuf)
            }
            Err(refused) => {
                let stream = refused.kid.map(|kid| kid.stream());
                let say = state.throttle.admits((refused.reason, stream), now);
                let count = state.gate.counts.refused[refused.reason.index()];
                drop(guard);
                if say {
                    self.say_refused(&refused, count);
                }
                GenerateOutputSuccess::Dropped
            }
        };
        if ask {
            self.obj().sink_pad().push_event(report::lost_picture());
        }
        Ok(output)
    }
}

/// Whose stream the caps say it is; caps that say it wrongly are refused rather than taken as silent.
fn owner(caps: &gst::CapsRef) -> Result<Option<Owner>, gst::LoggableError> {
    let Some(structure) = caps.structure(0).filter(|structure| structure.has_field("participant")) else {
        return Ok(None);
    };
    let participant = structure.get::<&str>("participant").ok().and_then(|text| text.parse().ok());
    let stream = structure.get::<u32>("stream").ok().map(StreamId);
    match (participant, stream) {
        (Some(participant), Some(stream)) => Ok(Some(Owner { participant, stream })),
        _ => Err(gst::loggable_error!(CAT, "caps with a participant or stream that is none")),
    }
}

const NOT_SEALED: &str = "these frames are not sealed, so there is nothing to open: leave e2eeopen out, or put it behind meetingsrc";

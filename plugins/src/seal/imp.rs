//! The shell GStreamer sees: map, [`Lane::seal`], push.

use std::sync::{
    Arc, LazyLock, Mutex, MutexGuard,
    atomic::{AtomicBool, Ordering},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::{
    prelude::*,
    subclass::{base_transform::GenerateOutputSuccess, prelude::*},
};
use meeting_protocol::{MAX_CAPS, frame::Sealer};
use meeting_wire::Kind;

use super::{
    Format,
    lane::{Counts, Lane, Sealed, Unsealed},
};
use crate::{
    CAT, address, caps, clock, context,
    lock::lock,
    report,
    store::{KeyStore, Stated},
};

#[derive(Clone, Default)]
struct Settings {
    track: String,
    meeting: String,
    format: Format,
}

#[derive(Default)]
pub struct E2eeSeal {
    settings: Mutex<Settings>,
    /// Alive from the first caps in PAUSED to READY.
    lane: Mutex<Option<Lane>>,
    /// A copy outside `lane`, so that whoever looks does not wait for a frame that waits for its key.
    counts: Mutex<Counts>,
    /// Alive between READY and PAUSED.
    store: Mutex<Option<Arc<KeyStore>>>,
    /// The caps of the frames that come now, and their number.
    taken: Mutex<Option<(gst::Caps, u32)>>,
    refusal: report::Refusal,
    cancelled: AtomicBool,
}

impl E2eeSeal {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        lock(&self.settings)
    }

    fn lane(&self) -> MutexGuard<'_, Option<Lane>> {
        lock(&self.lane)
    }

    fn store(&self) -> MutexGuard<'_, Option<Arc<KeyStore>>> {
        lock(&self.store)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        lock(&self.counts)
    }

    /// The number of these caps: another one than that of the caps before.
    fn number(&self, caps: &gst::Caps) -> u32 {
        let mut taken = lock(&self.taken);
        match &mut *taken {
            Some((known, number)) if known == caps => *number,
            Some((known, number)) => {
                *known = caps.clone();
                *number = number.wrapping_add(1);
                *number
            }
            none => none.insert((caps.clone(), 0)).1,
        }
    }

    /// Ends any wait for a key, from outside the streaming thread.
    fn cancel(&self, cancelled: bool) {
        self.cancelled.store(cancelled, Ordering::Release);
        let store = self.store().clone();
        if let Some(store) = store {
            store.wake();
        }
    }

    fn stats(&self) -> gst::Structure {
        let counts = self.counts().clone();
        gst::Structure::builder("e2eeseal-stats")
            .field("sealed", counts.sealed)
            .field("bytes", counts.bytes)
            .field("dropped-no-key", counts.no_key)
            .field("dropped-stale", counts.stale)
            .field("epoch", counts.epoch)
            .field("ctr", counts.ctr)
            .field("track", &*counts.track)
            .build()
    }

    fn say_dropped(&self, why: Unsealed) {
        let (state, detail) = match why {
            Unsealed::NoKey => ("no-key", "frames are dropped until the meeting has a key for this stream"),
            Unsealed::Stale => (
                "stale",
                "frames are dropped: the membership could not be confirmed in time, or a newer key is on its way",
            ),
            Unsealed::Forked => (
                "no-key",
                "frames are dropped: this process is a fork of the one that has the key; start a pipeline of its own in it",
            ),
        };
        gst::warning!(CAT, imp = self, "{detail}");
        report::say_state(self.obj().upcast_ref(), state, detail);
    }
}

#[glib::object_subclass]
impl ObjectSubclass for E2eeSeal {
    const NAME: &'static str = "GstE2eeSeal";
    type Type = super::E2eeSeal;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for E2eeSeal {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                glib::ParamSpecString::builder("track")
                    .nick("Track")
                    .blurb("Label of the stream for the others in the meeting; empty lets the agent choose video, audio, video-2, ...")
                    .default_value(Some(""))
                    .mutable_ready()
                    .build(),
                report::meeting_property(),
                glib::ParamSpecEnum::builder_with_default("format", Format::default())
                    .nick("Format")
                    .blurb("Form of the sealed frames")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb("sealed, bytes, dropped-no-key, dropped-stale, epoch, ctr, track")
                    .read_only()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let text = || value.get::<Option<String>>().ok().flatten().unwrap_or_default();
        let mut settings = self.settings();
        match pspec.name() {
            "track" => settings.track = text(),
            "meeting" => settings.meeting = text(),
            "format" => settings.format = value.get().unwrap_or_default(),
            _ => {}
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "track" => self.settings().track.to_value(),
            "meeting" => report::shown_meeting(&self.settings().meeting).to_value(),
            "format" => self.settings().format.to_value(),
            _ => self.stats().to_value(),
        }
    }
}

impl GstObjectImpl for E2eeSeal {}

impl ElementImpl for E2eeSeal {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "End-to-end sealer",
                "Codec/Encryptor/Video/Audio",
                "Seals encoded frames for the others in a meeting (RFC 9605 SFrame). Takes its keys from a `meetingkey` \
                 in the same pipeline and lets nothing through that is not sealed",
                "The gst-e2ee authors",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> =
            LazyLock::new(|| report::always_pads(&caps::plain(), &caps::sframe()));
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

impl BaseTransformImpl for E2eeSeal {
    const MODE: gst_base::subclass::BaseTransformMode = gst_base::subclass::BaseTransformMode::NeverInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings().clone();
        let meeting = address::meeting(&settings.meeting)
            .map_err(|error| gst::error_msg!(gst::ResourceError::Settings, ("{error}")))?;
        let store = context::find(self.obj().upcast_ref(), meeting)
            .map_err(|error| gst::error_msg!(gst::ResourceError::NotFound, ("{error}")))?;
        gst::info!(CAT, imp = self, "sealing for meeting {}", store.meeting());
        self.cancelled.store(false, Ordering::Release);
        *self.counts() = Counts::default();
        *lock(&self.taken) = None;
        *self.store() = Some(store);
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *self.store() = None;
        let lane = self.lane().take();
        drop(lane);
        Ok(())
    }

    fn transform_caps(
        &self,
        direction: gst::PadDirection,
        from: &gst::Caps,
        filter: Option<&gst::Caps>,
    ) -> Option<gst::Caps> {
        let caps = match direction {
            gst::PadDirection::Sink => caps::sealed(from),
            _ => caps::before_sealing(from),
        };
        Some(report::filtered(caps, filter))
    }

    fn fixate_caps(&self, direction: gst::PadDirection, caps: &gst::Caps, othercaps: gst::Caps) -> gst::Caps {
        let fixed = self.parent_fixate_caps(direction, caps, othercaps);
        match direction {
            gst::PadDirection::Sink => caps::with_version(fixed, self.number(caps)),
            _ => fixed,
        }
    }

    fn query(&self, direction: gst::PadDirection, query: &mut gst::QueryRef) -> bool {
        let answered = BaseTransformImplExt::parent_query(self, direction, query);
        if direction == gst::PadDirection::Sink {
            self.refusal.look(&*self.obj(), query, &caps::plain(), caps::advice);
        }
        answered
    }

    fn set_caps(&self, incaps: &gst::Caps, outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let version = caps::version(outcaps);
        let caps = caps::with_version(incaps.clone(), version).to_string();
        if caps.len() > MAX_CAPS {
            gst::element_imp_error!(
                self,
                gst::StreamError::Format,
                ("the caps with their codec headers are longer than the {MAX_CAPS} bytes a meeting carries")
            );
            return Err(gst::loggable_error!(CAT, "the caps are longer than {MAX_CAPS} bytes"));
        }
        let stated = Stated { version, caps };
        let (track, kind) = (self.settings().track.clone(), caps::kind(incaps));
        let store = self.store().clone().ok_or_else(|| gst::loggable_error!(CAT, "caps before start"))?;
        match &mut *self.lane() {
            Some(lane) if lane.kind() == kind => lane.set_caps(stated),
            // A stream stays what it is, picture or sound: what becomes something else is a new one.
            other => *other = Some(Lane::open(store, kind, &track, stated)),
        }
        Ok(())
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match event.type_() {
            gst::EventType::FlushStart => self.cancel(true),
            gst::EventType::FlushStop => self.cancel(false),
            _ => {}
        }
        self.parent_sink_event(event)
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

    // Not `transform`: for each buffer the base class would ask for caps and sizes that do not change.
    fn generate_output(&self) -> Result<GenerateOutputSuccess, gst::FlowError> {
        let Some(inbuf) = self.take_queued_buffer() else { return Ok(GenerateOutputSuccess::NoOutput) };
        let mut outbuf = report::output_for(self, &inbuf, Sealer::OVERHEAD)?;
        let target = outbuf.make_mut();
        let mut guard = self.lane();
        let lane = guard.as_mut().ok_or(gst::FlowError::NotNegotiated)?;
        lane.wait_once(|| self.cancelled.load(Ordering::Acquire));
        let sealed = {
            let frame = inbuf.map_readable().map_err(|_| gst::FlowError::Error)?;
            let mut out = target.map_writable().map_err(|_| gst::FlowError::Error)?;
            lane.seal(clock::boot_now(), &frame, &mut out)
        };
        let refusal = lane.take_refusal();
        self.counts().clone_from(&lane.counts);
        let video = lane.kind() == Kind::Video;
        drop(guard);

        if let Some(text) = refusal {
            gst::element_imp_error!(
                self,
                gst::ResourceError::Settings,
                ("{text}"),
                ["the agent gives no stream"]
            );
            return Err(gst::FlowError::Error);
        }
        match sealed {
            Sealed::Frame { len, discont, keyframe } => {
                target.set_size(len);
                if discont {
                    target.set_flags(gst::BufferFlags::DISCONT);
                }
                if keyframe && video {
                    self.obj().sink_pad().push_event(report::want_keyframe());
                }
                Ok(GenerateOutputSuccess::Buffer(outbuf))
            }
            Sealed::Dropped { why, first } => {
                if first {
                    self.say_dropped(why);
                }
                Ok(GenerateOutputSuccess::Dropped)
            }
        }
    }
}

//! The shell GStreamer sees: a bin with one sink for each requested pad, and the link to the agent.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

use gst::{glib, prelude::*, subclass::prelude::*};
use meeting_protocol::local::Purpose;

use super::{
    exit::{Exit, Publish},
    track::TrackSink,
};
use crate::{
    address, caps,
    link::{self, Connection, Link},
    lock::lock,
    report,
};

#[derive(Clone)]
struct Settings {
    agent: String,
    meeting: String,
    sync: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { agent: String::new(), meeting: String::new(), sync: true }
    }
}

#[derive(Default)]
pub struct MeetingSink {
    settings: Mutex<Settings>,
    exit: Arc<Exit>,
    /// Alive between NULL and READY.
    link: Mutex<Option<Link>>,
    next_pad: Mutex<u32>,
}

impl MeetingSink {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        lock(&self.settings)
    }

    fn connect(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings().clone();
        let meeting = address::meeting(&settings.meeting)
            .map_err(|error| gst::error_msg!(gst::ResourceError::Settings, ("{error}")))?;
        let path = address::socket(&settings.agent)
            .map_err(|error| gst::error_msg!(gst::ResourceError::Settings, ("{error}")))?;
        let refused = |error| gst::error_msg!(gst::ResourceError::NotFound, ("{error}"));
        let connection =
            Connection::open(&path, Purpose::Publish { meeting }, link::PATIENCE).map_err(refused)?;
        let publish =
            Publish { element: self.obj().downgrade(), meeting: connection.meeting, exit: self.exit.clone() };
        self.exit.outbox.reopen();
        let outbox = self.exit.outbox.clone();
        let link =
            Link::open("e2ee-publish", path, outbox, connection, Arc::new(publish)).map_err(refused)?;
        *lock(&self.link) = Some(link);
        Ok(())
    }

    fn tracks(&self) -> Vec<TrackSink> {
        let children = self.obj().children();
        children.into_iter().filter_map(|child| child.downcast().ok()).collect()
    }
}

#[glib::object_subclass]
impl ObjectSubclass for MeetingSink {
    const NAME: &'static str = "GstE2eeMeetingSink";
    type Type = super::MeetingSink;
    type ParentType = gst::Bin;
}

impl ObjectImpl for MeetingSink {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                report::agent_property(),
                report::meeting_property(),
                glib::ParamSpecBoolean::builder("sync")
                    .nick("Sync")
                    .blurb(
                        "Send frames of a source that is not live, such as a file, at the pace of the clock",
                    )
                    .default_value(true)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb(
                        "sent, bytes, dropped (the agent was slow or away), malformed (not a sealed frame)",
                    )
                    .read_only()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let text = || value.get::<Option<String>>().ok().flatten().unwrap_or_default();
        match pspec.name() {
            "agent" => self.settings().agent = text(),
            "meeting" => self.settings().meeting = text(),
            "sync" => {
                let sync = value.get().unwrap_or(true);
                self.settings().sync = sync;
                self.tracks().iter().for_each(|track| track.set_wait_for_clock(sync));
            }
            _ => {}
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "agent" => report::shown_agent(&self.settings().agent).to_value(),
            "meeting" => report::shown_meeting(&self.settings().meeting).to_value(),
            "sync" => self.settings().sync.to_value(),
            _ => self.exit.stats().to_value(),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        self.exit.outbox.close();
        self.obj().set_element_flags(gst::ElementFlags::SINK);
    }
}

impl GstObjectImpl for MeetingSink {}

impl ElementImpl for MeetingSink {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Meeting sink",
                "Sink/Network",
                "Publishes sealed frames as tracks of an end-to-end-encrypted meeting, through the agent. Put `e2eeseal` \
                 before each pad; frames that are not sealed cannot be linked to it",
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
                    gst::PadDirection::Sink,
                    gst::PadPresence::Request,
                    &caps::sframe(),
                )
            };
            ["sink_%u", "video_%u", "audio_%u"].into_iter().filter_map(|name| pad(name).ok()).collect()
        });
        &TEMPLATES
    }

    fn request_new_pad(
        &self,
        template: &gst::PadTemplate,
        name: Option<&str>,
        _caps: Option<&gst::Caps>,
    ) -> Option<gst::Pad> {
        let obj = self.obj();
        let name = match name.filter(|name| !name.contains('%')) {
            Some(name) => name.to_owned(),
            None => {
                let mut next = lock(&self.next_pad);
                loop {
                    let name = template.name_template().replace("%u", &next.to_string());
                    *next += 1;
                    if obj.static_pad(&name).is_none() {
                        break name;
                    }
                }
            }
        };
        let track = TrackSink::new(&self.exit, self.settings().sync);
        obj.add(&track).ok()?;
        let target = track.static_pad("sink")?;
        let pad =
            gst::GhostPad::builder_from_template(template).name(name).with_target(&target).ok()?.build();
        pad.set_active(true).ok()?;
        obj.add_pad(&pad).ok()?;
        let _ = track.sync_state_with_parent();
        Some(pad.upcast())
    }

    fn release_pad(&self, pad: &gst::Pad) {
        let obj = self.obj();
        let target = pad.downcast_ref::<gst::GhostPad>().and_then(|pad| pad.target());
        let track = target.and_then(|target| target.parent_element());
        let _ = pad.set_active(false);
        let _ = obj.remove_pad(pad);
        if let Some(track) = track {
            let _ = track.set_state(gst::State::Null);
            let _ = obj.remove(&track);
        }
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::NullToReady
            && let Err(error) = self.connect()
        {
            self.post_error_message(error);
            return Err(gst::StateChangeError);
        }
        let success = self.parent_change_state(transition)?;
        if transition == gst::StateChange::ReadyToNull {
            let link = lock(&self.link).take();
            drop(link);
        }
        Ok(success)
    }
}

impl BinImpl for MeetingSink {}

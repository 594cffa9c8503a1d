//! The shell GStreamer sees: connects in NULL to READY, offers the store, holds preroll until there are keys.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId},
    time::Duration,
};

use gst::{glib, prelude::*, subclass::prelude::*};
use meeting_protocol::local::{MeetingState, Purpose};
use meeting_wire::MeetingId;

use super::agent::{Keys, ToSocket, state_message};
use crate::{
    CAT, address, clock, context,
    link::{self, Connection, Link, LinkError},
    lock::lock,
    loopback::Loopback,
    outbox::Outbox,
    random, report,
    store::{Archive, KeyStore},
};

#[derive(Clone)]
struct Settings {
    agent: String,
    meeting: String,
    key_file: String,
    passphrase_file: String,
    loopback: bool,
    wait: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            agent: String::new(),
            meeting: String::new(),
            key_file: String::new(),
            passphrase_file: String::new(),
            loopback: false,
            wait: true,
        }
    }
}

/// Alive between NULL and READY.
struct Active {
    store: Arc<KeyStore>,
    source: Source,
}

enum Source {
    Agent { _link: Link },
    KeyFile,
    Loopback(Arc<Loopback>),
}

/// A wait for the first keys, of which each start has its own.
#[derive(Default)]
struct Hold {
    waits: bool,
    number: u64,
}

#[derive(Default)]
pub struct MeetingKey {
    settings: Mutex<Settings>,
    active: Mutex<Option<Active>>,
    shown: Mutex<MeetingState>,
    /// Whether preroll waits for the first keys.
    holding: Mutex<Hold>,
    /// Who says now that it waits no longer.
    telling: Mutex<Option<ThreadId>>,
    told: Condvar,
}

impl MeetingKey {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        lock(&self.settings)
    }

    fn active(&self) -> MutexGuard<'_, Option<Active>> {
        lock(&self.active)
    }

    fn shown(&self) -> MutexGuard<'_, MeetingState> {
        lock(&self.shown)
    }

    fn holding(&self) -> MutexGuard<'_, Hold> {
        lock(&self.holding)
    }

    /// The keys, from READY to NULL.
    pub fn store(&self) -> Option<Arc<KeyStore>> {
        self.active().as_ref().map(|active| active.store.clone())
    }

    /// Tells the application where the meeting stands.
    pub fn show(&self, state: MeetingState) {
        let obj = self.obj();
        let Some(meeting) = self.store().map(|store| store.meeting()) else { return };
        gst::info!(CAT, imp = self, "{state}");
        let message = state_message(&obj, meeting, &state);
        *self.shown() = state;
        let _ = obj.post_message(message);
        for name in ["state", "security-code", "epoch", "participants"] {
            obj.notify(name);
        }
    }

    /// The agent is gone; keys are good until their lease ends.
    pub fn lost(&self, why: &str) {
        let known = self.shown().clone();
        if known.phase != LOST || known.detail != why {
            self.show(MeetingState { phase: LOST.into(), detail: why.into(), ..known });
        }
    }

    /// Lets preroll go on once sealing and opening are allowed.
    pub fn keys_changed(&self) {
        if !self.has_lease() {
            return;
        }
        let mut hold = self.holding();
        if std::mem::take(&mut hold.waits) {
            let number = hold.number;
            // Not from here: whoever hears of it may take its time, and the next key comes by this thread.
            self.obj().call_async(move |element| element.imp().waits_no_longer(number));
        }
    }

    /// Says that a wait is over, unless the pipeline has left it meanwhile.
    fn waits_no_longer(&self, number: u64) {
        // The state change that is to be continued may not have returned yet, and a live pipeline goes on to the next one.
        thread::sleep(SETTLE);
        *lock(&self.telling) = Some(thread::current().id());
        if self.holding().number == number {
            let obj = self.obj();
            let _ = obj.continue_state(gst::StateChangeReturn::Success);
            let _ = obj.post_message(gst::message::AsyncDone::builder().src(&*obj).build());
        }
        lock(&self.telling).take_if(|teller| *teller == thread::current().id());
        self.told.notify_all();
    }

    /// Whoever plays as soon as it hears of PAUSED waits until the pipeline knows of it too, as for a sink that has
    /// prerolled: GStreamer 1.22 says so first and takes note afterwards, and a pipeline that plays meanwhile never
    /// posts its end.
    fn let_it_be_told(&self) {
        let own = thread::current().id();
        let is_being_told = |teller: &mut Option<ThreadId>| teller.is_some_and(|teller| teller != own);
        let told = self.told.wait_timeout_while(lock(&self.telling), TELLING, is_being_told);
        if told.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
            gst::warning!(
                CAT,
                imp = self,
                "PAUSED is still being told of: the pipeline may not post its end"
            );
        }
    }

    fn has_lease(&self) -> bool {
        self.store().is_some_and(|store| store.rules().may_open(clock::boot_now()))
    }

    fn connect(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings().clone();
        let meeting = address::meeting(&settings.meeting)
            .map_err(|error| gst::error_msg!(gst::ResourceError::Settings, ("{error}")))?;
        let store = if !settings.key_file.is_empty() {
            self.start_key_file(&settings, meeting)?
        } else if settings.loopback {
            self.start_loopback(meeting)
        } else {
            let path = address::socket(&settings.agent)
                .map_err(|error| gst::error_msg!(gst::ResourceError::Settings, ("{error}")))?;
            self.start_agent(path, meeting)
                .map_err(|error| gst::error_msg!(gst::ResourceError::NotFound, ("{error}")))?
        };
        if self.is_second(store.meeting()) {
            self.disconnect();
            let text =
                "another `meetingkey` beside this one has the keys of the same meeting: take one of them out";
            return Err(gst::error_msg!(gst::ResourceError::Busy, ("{text}")));
        }
        context::offer(self.obj().upcast_ref(), &store);
        Ok(())
    }

    /// Whether another one in the same bin serves the meeting: elements would take turns between the two.
    fn is_second(&self, meeting: MeetingId) -> bool {
        let obj = self.obj();
        let Some(bin) = obj.parent().and_downcast::<gst::Bin>() else { return false };
        let others =
            bin.children().into_iter().filter_map(|child| child.downcast::<super::MeetingKey>().ok());
        let mut stores = others.filter(|other| *other != *obj).filter_map(|other| other.imp().store());
        stores.any(|store| store.meeting() == meeting)
    }

    fn start_loopback(&self, meeting: Option<MeetingId>) -> Arc<KeyStore> {
        let store = KeyStore::new(meeting.unwrap_or_else(|| MeetingId(random::bytes())), true);
        let loopback = Arc::new(Loopback::new(Arc::downgrade(&store)));
        store.attach(Box::new(loopback.clone()));
        loopback.start();
        *self.active() = Some(Active { store: store.clone(), source: Source::Loopback(loopback) });
        self.show(MeetingState {
            phase: "loopback".into(),
            detail: "random keys inside this process, for trying things out: nobody else is here".into(),
            epoch: 1,
            participants: 1,
            ..MeetingState::default()
        });
        store
    }

    fn start_key_file(
        &self,
        settings: &Settings,
        wanted: Option<MeetingId>,
    ) -> Result<Arc<KeyStore>, gst::ErrorMessage> {
        let words = Some(settings.passphrase_file.as_str()).filter(|path| !path.is_empty()).map(Path::new);
        let (meeting, archive, problem) = Archive::read(Path::new(&settings.key_file), words)
            .map_err(|error| gst::error_msg!(gst::ResourceError::OpenRead, ("{error}")))?;
        if let Some(wanted) = wanted.filter(|wanted| *wanted != meeting) {
            let text = format!("the key file is of the meeting {meeting}, not of {wanted}");
            return Err(gst::error_msg!(gst::ResourceError::Settings, ("{text}")));
        }
        if let Some(problem) = problem {
            gst::element_imp_warning!(self, gst::ResourceError::Read, ("{problem}"));
        }
        let store = KeyStore::of_archive(meeting, archive);
        *self.active() = Some(Active { store: store.clone(), source: Source::KeyFile });
        self.show(MeetingState {
            phase: "key-file".into(),
            detail: "keys of a recording: nobody is here".into(),
            ..MeetingState::default()
        });
        Ok(store)
    }

    fn start_agent(&self, path: PathBuf, meeting: Option<MeetingId>) -> Result<Arc<KeyStore>, LinkError> {
        let connection = Connection::open(&path, Purpose::Keys { meeting }, link::PATIENCE)?;
        let store = KeyStore::new(connection.meeting, false);
        let outbox = Arc::new(Outbox::default());
        store.attach(Box::new(ToSocket(outbox.clone())));
        let keys = Arc::new(Keys { element: self.obj().downgrade(), store: store.clone() });
        // The first state may come before the link is kept, and is shown all the same.
        let mut active = self.active();
        let link = Link::open("e2ee-keys", path, outbox, connection, keys)?;
        *active = Some(Active { store: store.clone(), source: Source::Agent { _link: link } });
        Ok(store)
    }

    fn disconnect(&self) {
        let active = self.active().take();
        if let Some(active) = active {
            active.store.close();
        }
        *self.shown() = MeetingState::default();
    }

    fn rotate(&self) -> u64 {
        let loopback = match self.active().as_ref().map(|active| &active.source) {
            Some(Source::Loopback(loopback)) => loopback.clone(),
            _ => return 0,
        };
        let epoch = loopback.rotate();
        let known = self.shown().clone();
        self.show(MeetingState { epoch, ..known });
        epoch
    }
}

#[glib::object_subclass]
impl ObjectSubclass for MeetingKey {
    const NAME: &'static str = "GstE2eeMeetingKey";
    type Type = super::MeetingKey;
    type ParentType = gst::Element;
}

impl ObjectImpl for MeetingKey {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                report::agent_property(),
                report::meeting_property(),
                glib::ParamSpecString::builder("key-file")
                    .nick("Key file")
                    .blurb("Take the keys of a sealed recording from this file, which `meeting-agent record-keys` wrote")
                    .default_value(Some(""))
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("passphrase-file")
                    .nick("Passphrase file")
                    .blurb("File whose first line is the key file's passphrase; nobody else may read it")
                    .default_value(Some(""))
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoolean::builder("loopback")
                    .nick("Loopback")
                    .blurb("Make random keys inside the process instead of asking an agent: for trying things out")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecBoolean::builder("wait")
                    .nick("Wait")
                    .blurb("Hold the preroll of a pipeline that is not live until the meeting gives keys")
                    .default_value(true)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("state")
                    .nick("State")
                    .blurb("joining, live, stale, ended, agent-lost, loopback or key-file; empty in NULL")
                    .read_only()
                    .build(),
                glib::ParamSpecString::builder("security-code")
                    .nick("Security code")
                    .blurb("What the people in the meeting read aloud and compare; empty before there is one")
                    .read_only()
                    .build(),
                glib::ParamSpecUInt64::builder("epoch")
                    .nick("Epoch")
                    .blurb("Number of the meeting's current key, 0 before the first")
                    .read_only()
                    .build(),
                glib::ParamSpecUInt::builder("participants")
                    .nick("Participants")
                    .blurb("How many are in the meeting")
                    .read_only()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn signals() -> &'static [glib::subclass::Signal] {
        static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(|| {
            vec![
                glib::subclass::Signal::builder("rotate")
                    .action()
                    .return_type::<u64>()
                    .class_handler(|values| {
                        let element = values.first()?.get::<super::MeetingKey>().ok()?;
                        Some(element.imp().rotate().to_value())
                    })
                    .build(),
            ]
        });
        &SIGNALS
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let text = || value.get::<Option<String>>().ok().flatten().unwrap_or_default();
        let mut settings = self.settings();
        match pspec.name() {
            "agent" => settings.agent = text(),
            "meeting" => settings.meeting = text(),
            "key-file" => settings.key_file = text(),
            "passphrase-file" => settings.passphrase_file = text(),
            "loopback" => settings.loopback = value.get().unwrap_or_default(),
            "wait" => settings.wait = value.get().unwrap_or(true),
            _ => {}
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "agent" => report::shown_agent(&self.settings().agent).to_value(),
            "meeting" => report::shown_meeting(&self.settings().meeting).to_value(),
            "key-file" => self.settings().key_file.to_value(),
            "passphrase-file" => self.settings().passphrase_file.to_value(),
            "loopback" => self.settings().loopback.to_value(),
            "wait" => self.settings().wait.to_value(),
            "state" => self.shown().phase.to_value(),
            "security-code" => self.shown().security_code.to_value(),
            "epoch" => self.shown().epoch.to_value(),
            _ => self.shown().participants.to_value(),
        }
    }
}

impl GstObjectImpl for MeetingKey {}

impl ElementImpl for MeetingKey {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Meeting keys",
                "Generic",
                "Brings the keys of an end-to-end-encrypted meeting from the agent to `e2eeseal` and `e2eeopen` in the \
                 same pipeline. Has no pads: put it anywhere. Posts `e2ee-state` about the meeting and `e2ee-stream` about who \
                 vouches for a stream",
                "The gst-e2ee authors",
            )
        });
        Some(&METADATA)
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
        match transition {
            gst::StateChange::PausedToReady => {
                let mut hold = self.holding();
                (hold.waits, hold.number) = (false, hold.number + 1);
                drop(hold);
                self.let_it_be_told();
            }
            gst::StateChange::PausedToPlaying => self.let_it_be_told(),
            _ => {}
        }
        let success = self.parent_change_state(transition)?;
        match transition {
            gst::StateChange::ReadyToPaused if self.settings().wait && !self.has_lease() => {
                self.holding().waits = true;
                let start = gst::message::AsyncStart::builder().src(&*self.obj()).build();
                let _ = self.obj().post_message(start);
                self.keys_changed();
                Ok(gst::StateChangeSuccess::Async)
            }
            gst::StateChange::ReadyToNull => {
                self.disconnect();
                Ok(success)
            }
            _ => Ok(success),
        }
    }
}

/// What a state change takes to return, with a margin.
const SETTLE: Duration = Duration::from_millis(20);
/// What the application does on hearing of it, where it is told in the same thread.
const TELLING: Duration = Duration::from_secs(1);
const LOST: &str = "agent-lost";

//! The connection to the agent: made in READY, served from PAUSED on.

use std::sync::Arc;

use gst::{prelude::*, subclass::prelude::*};
use meeting_protocol::local::Purpose;
use meeting_wire::MeetingId;

use super::MeetingSrc;
use crate::{
    address,
    link::{self, Connection, Link},
    lock::lock,
    report,
    source::watch::Watch,
};

/// Alive from READY to NULL; the connection waits there until PAUSED, when its thread starts.
#[derive(Default)]
pub(super) struct Net {
    /// The one it is of.
    pub meeting: Option<MeetingId>,
    waiting: Option<(Connection, Arc<Watch>)>,
    link: Option<Link>,
    /// When it is said that there is no track yet.
    patience: Option<gst::SingleShotClockId>,
}

impl MeetingSrc {
    /// Connects to the agent, which names its meeting.
    pub(super) fn connect(&self) -> Result<(), gst::ErrorMessage> {
        let settings = lock(&self.settings).clone();
        let meeting = address::meeting(&settings.meeting)
            .map_err(|error| gst::error_msg!(gst::ResourceError::Settings, ("{error}")))?;
        let (participant, track) = (settings.participant, settings.track);
        let purpose = Purpose::Watch { meeting, participant: participant.clone(), track: track.clone() };
        let path = address::socket(&settings.agent)
            .map_err(|error| gst::error_msg!(gst::ResourceError::Settings, ("{error}")))?;
        let connection = Connection::open(&path, purpose, link::PATIENCE)
            .map_err(|error| gst::error_msg!(gst::ResourceError::NotFound, ("{error}")))?;
        let watch =
            Watch { element: self.obj().downgrade(), meeting: connection.meeting, participant, track };
        let mut net = lock(&self.net);
        net.meeting = Some(watch.meeting);
        net.waiting = Some((connection, Arc::new(watch)));
        Ok(())
    }

    /// Serves the connection; one that was hung up is made anew.
    pub(super) fn start(&self) -> Result<(), gst::ErrorMessage> {
        if lock(&self.net).waiting.is_none() {
            self.connect()?;
        }
        let waiting = lock(&self.net).waiting.take();
        if let Some((connection, watch)) = waiting {
            self.outbox.reopen();
            let path = address::socket(&lock(&self.settings).agent)
                .map_err(|error| gst::error_msg!(gst::ResourceError::Settings, ("{error}")))?;
            let link = Link::open("e2ee-watch", path, self.outbox.clone(), connection, watch)
                .map_err(|error| gst::error_msg!(gst::ResourceError::NotFound, ("{error}")))?;
            lock(&self.net).link = Some(link);
        }
        let clock = gst::SystemClock::obtain();
        let patience = clock.new_single_shot_id(clock.time() + PATIENCE);
        let element = self.obj().downgrade();
        let _ = patience.wait_async(move |_, _, _| {
            if let Some(element) = element.upgrade() {
                element.imp().say_if_alone();
            }
        });
        lock(&self.net).patience = Some(patience);
        Ok(())
    }

    /// Without a track nothing comes, and nobody would know why.
    fn say_if_alone(&self) {
        if !lock(&self.tracks).is_empty() {
            return;
        }
        let settings = lock(&self.settings).clone();
        let what = if settings.track.is_empty() {
            "a track".to_owned()
        } else {
            format!("a track `{}`", settings.track)
        };
        let who = if settings.participant.is_empty() { "nobody else" } else { "nobody of that name" };
        let detail = format!(
            "{who} in the meeting has {what} yet: waiting; `meeting-agent status` shows who has which"
        );
        report::say_state(self.obj().upcast_ref(), "waiting", &detail);
    }

    /// Ends the connection, and any wait for frames.
    pub(super) fn hang_up(&self) {
        let (link, patience) = {
            let mut net = lock(&self.net);
            (net.link.take(), net.patience.take())
        };
        if let Some(patience) = patience {
            patience.unschedule();
        }
        drop(link);
        lock(&self.tracks).values().for_each(|track| track.close());
    }
}

/// How long tracks may take to show up before it is said that there are none.
const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(2);

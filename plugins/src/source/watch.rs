//! The element's end of the link: tracks come, change and go, and frames in between.

use gst::{glib, prelude::*, subclass::prelude::*};
use meeting_protocol::local::{FromAgent, Purpose};
use meeting_wire::MeetingId;

use super::track::{About, Id};
use crate::{link::Client, report};

/// See the module.
pub struct Watch {
    /// The element.
    pub element: glib::WeakRef<super::MeetingSrc>,
    /// The meeting of the first connection; later ones stay with it.
    pub meeting: MeetingId,
    /// Only this participant, or everybody if empty.
    pub participant: String,
    /// Only this track, or all if empty.
    pub track: String,
}

impl Client for Watch {
    fn purpose(&self) -> Purpose {
        Purpose::Watch {
            meeting: Some(self.meeting),
            participant: self.participant.clone(),
            track: self.track.clone(),
        }
    }

    fn up(&self, _meeting: MeetingId) {
        // The agent names all tracks anew; those that are here already keep their pads.
        if let Some(element) = self.element.upgrade() {
            report::say_state(element.upcast_ref(), "live", "the agent is back");
        }
    }

    fn message(&self, message: FromAgent) {
        let Some(element) = self.element.upgrade() else { return };
        let imp = element.imp();
        match message {
            FromAgent::Track { from, name, stream, track, kind, caps } => {
                imp.announce(About { id: Id { from, stream }, name, track, kind, caps });
            }
            FromAgent::TrackGone { from, stream } => imp.end(Id { from, stream }),
            FromAgent::Frame { from, stream, envelope } => imp.frame(Id { from, stream }, envelope),
            _ => {}
        }
    }

    fn down(&self, why: &str) {
        if let Some(element) = self.element.upgrade() {
            report::say_state(element.upcast_ref(), "agent-lost", why);
        }
    }
}

//! What `meetingkey` does with its connection: keys to the store, the meeting's state to the application.

use std::{sync::Arc, time::Duration};

use gst::{glib, prelude::*, subclass::prelude::*};
use meeting_protocol::local::{FromAgent, Purpose, ToAgent};
use meeting_wire::MeetingId;

use super::imp;
use crate::{
    link::Client,
    outbox::Outbox,
    store::{KeyStore, Uplink},
};

/// The store's wishes go to the agent.
pub struct ToSocket(pub Arc<Outbox>);

impl Uplink for ToSocket {
    fn send(&self, message: ToAgent) {
        self.0.push(&message, Duration::ZERO);
    }
}

/// The element's end of the link.
pub struct Keys {
    /// The element.
    pub element: glib::WeakRef<super::MeetingKey>,
    /// What it feeds.
    pub store: Arc<KeyStore>,
}

impl Keys {
    fn with(&self, f: impl FnOnce(&imp::MeetingKey)) {
        if let Some(element) = self.element.upgrade() {
            f(element.imp());
        }
    }
}

impl Client for Keys {
    fn purpose(&self) -> Purpose {
        // Whichever meeting it was at first, it stays: the elements hold its store.
        Purpose::Keys { meeting: Some(self.store.meeting()) }
    }

    fn up(&self, _meeting: MeetingId) {
        self.store.reconnected();
    }

    fn message(&self, message: FromAgent) {
        match message {
            FromAgent::State(state) => self.with(|imp| imp.show(state)),
            FromAgent::Trust { from, name, stream, track, trust, detail } => {
                if let Some(element) = self.element.upgrade() {
                    let structure = gst::Structure::builder("e2ee-stream")
                        .field("meeting", self.store.meeting().to_string())
                        .field("participant", from.to_string())
                        .field("participant-name", name)
                        .field("stream", stream.0)
                        .field("track", track)
                        .field("trust", trust)
                        .field("detail", detail)
                        .build();
                    let message = gst::message::Element::builder(structure).src(&element).build();
                    let _ = element.post_message(message);
                }
            }
            message => {
                self.store.apply(message);
                self.with(imp::MeetingKey::keys_changed);
            }
        }
    }

    fn down(&self, why: &str) {
        self.with(|imp| imp.lost(why));
    }
}

/// The message that tells an application about its meeting.
pub fn state_message(
    element: &super::MeetingKey,
    meeting: MeetingId,
    state: &meeting_protocol::local::MeetingState,
) -> gst::Message {
    let structure = gst::Structure::builder("e2ee-state")
        .field("meeting", meeting.to_string())
        .field("state", &state.phase)
        .field("detail", &state.detail)
        .field("epoch", state.epoch)
        .field("participants", state.participants)
        .field("security-code", &state.security_code)
        .field("leader-verified", state.leader_verified)
        .field("verified", state.verified)
        .build();
    gst::message::Element::builder(structure).src(element.upcast_ref::<gst::Object>()).build()
}

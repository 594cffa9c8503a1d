//! What the agent names, as devices that come and go.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

use gst::{glib, prelude::*};
use meeting_protocol::local::{FromAgent, Purpose};
use meeting_wire::MeetingId;

use super::{MeetingDevice, MeetingDeviceProvider};
use crate::{
    CAT, address,
    link::{Client, Connection, Link},
    lock::lock,
    source::{About, Id},
};

/// A list that follows the meeting until it is dropped.
pub struct List {
    names: Arc<Names>,
    _link: Link,
}

impl List {
    /// Asks the agent, and waits until it has named what there is: not for long, for somebody waits for a list of
    /// cameras. Where no agent answers, devices come when one does. `provider` hears of them.
    pub fn follow(agent: &str, provider: Option<&MeetingDeviceProvider>) -> Option<Self> {
        let path = address::socket(agent).ok()?;
        let connection = connect(&path);
        let meeting = connection.as_ref().map(|connection| connection.meeting);
        let here = connection.is_some();
        // Who asks once does not wait for an agent to come.
        if !here && provider.is_none() {
            return None;
        }
        let names = Arc::new(Names {
            agent: agent.to_owned(),
            provider: provider.map(ObjectExt::downgrade),
            state: Mutex::new(State { meeting, ..State::default() }),
            named: Condvar::new(),
        });
        let link = Link::open("e2ee-devices", path, Arc::default(), connection, names.clone()).ok()?;
        if here {
            let state = names.state();
            drop(names.named.wait_timeout_while(state, PATIENCE, |state| !state.named));
        }
        Some(Self { names, _link: link })
    }

    /// The devices there are now.
    pub fn devices(&self) -> Vec<gst::Device> {
        self.names.state().devices.values().map(|device| device.clone().upcast()).collect()
    }
}

fn connect(path: &Path) -> Option<Connection> {
    let connection = Connection::open(path, PURPOSE, PATIENCE);
    connection.inspect_err(|error| gst::debug!(CAT, "no devices: {error}")).ok()
}

struct Names {
    agent: String,
    provider: Option<glib::WeakRef<MeetingDeviceProvider>>,
    state: Mutex<State>,
    named: Condvar,
}

#[derive(Default)]
struct State {
    meeting: Option<MeetingId>,
    devices: HashMap<Id, MeetingDevice>,
    named: bool,
}

impl Names {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn come(&self, about: &About) {
        let mut state = self.state();
        let device = state.meeting.and_then(|meeting| MeetingDevice::new(&self.agent, meeting, about));
        let Some(device) = device.filter(|_| state.devices.len() < MAX_DEVICES) else { return };
        let old = state.devices.insert(about.id, device.clone());
        drop(state);
        let Some(provider) = self.provider() else { return };
        match old {
            Some(old) => provider.device_changed(&device, &old),
            None => provider.device_add(&device),
        }
    }

    fn go(&self, gone: impl Fn(&Id) -> bool) {
        let gone: Vec<_> = self.state().devices.extract_if(|id, _| gone(id)).collect();
        if let Some(provider) = self.provider() {
            gone.iter().for_each(|(_, device)| provider.device_remove(device));
        }
    }

    fn provider(&self) -> Option<MeetingDeviceProvider> {
        self.provider.as_ref()?.upgrade()
    }
}

impl Client for Names {
    fn purpose(&self) -> Purpose {
        // Whichever there is: this user may leave one and join another.
        PURPOSE
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }

    fn up(&self, meeting: MeetingId) {
        self.state().meeting = Some(meeting);
    }

    fn message(&self, message: FromAgent) {
        match message {
            FromAgent::Track { from, name, stream, track, kind, caps } => {
                self.come(&About { id: Id { from, stream }, name, track, kind, caps });
            }
            FromAgent::TrackGone { from, stream } => self.go(|id| *id == Id { from, stream }),
            FromAgent::Named => {
                self.state().named = true;
                self.named.notify_all();
            }
            _ => {}
        }
    }

    fn down(&self, why: &str) {
        gst::debug!(CAT, "no devices: {why}");
        self.go(|_| true);
    }
}

const PURPOSE: Purpose = Purpose::Tracks { meeting: None };
/// For the whole list, both to be let in and to be answered: whoever lists cameras waits meanwhile.
const PATIENCE: Duration = Duration::from_millis(100);
/// As many tracks as a `meetingsrc` has pads.
const MAX_DEVICES: usize = 1024;

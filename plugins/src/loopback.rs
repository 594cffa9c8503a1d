//! An agent inside the process, for trying things out: random keys that never leave it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, Weak},
    time::Duration,
};

use meeting_protocol::{
    frame::{CipherSuite, KeyId},
    local::{FromAgent, ToAgent},
    secret::Secret,
};
use meeting_wire::{Kind, ParticipantId, StreamId};

use crate::{
    clock,
    lock::lock,
    random,
    store::{KeyStore, Uplink, for_ever},
};

/// Answers what an agent would, for one participant who hears only themselves.
pub struct Loopback {
    store: Weak<KeyStore>,
    state: Mutex<State>,
}

struct State {
    me: ParticipantId,
    epoch: u64,
    next_stream: u32,
    /// Open streams and their labels.
    streams: BTreeMap<StreamId, String>,
}

impl Loopback {
    /// A loopback that feeds `store`.
    pub fn new(store: Weak<KeyStore>) -> Self {
        let me = ParticipantId(random::bytes());
        let state = State { me, epoch: 1, next_stream: 0, streams: BTreeMap::new() };
        Self { store, state: Mutex::new(state) }
    }

    /// Lets sealing and opening begin.
    pub fn start(&self) {
        self.tell(|_, out| out.push(FromAgent::Lease { until: for_ever() }));
    }

    /// Begins a new epoch: a new key for each stream; the one before is good for openers a while longer.
    pub fn rotate(&self) -> u64 {
        self.tell(|state, out| {
            state.epoch += 1;
            let streams: Vec<_> = state.streams.keys().copied().collect();
            streams.into_iter().for_each(|stream| state.key(stream, out));
            out.push(FromAgent::Retire { before: state.epoch, at: clock::boot_now() + GRACE });
            out.push(FromAgent::Expire { before: state.epoch.saturating_sub(1) });
        });
        lock(&self.state).epoch
    }

    /// The store hears the answers in the order they were made.
    fn tell(&self, answer: impl FnOnce(&mut State, &mut Vec<FromAgent>)) {
        let mut state = lock(&self.state);
        let mut out = Vec::new();
        answer(&mut state, &mut out);
        if let Some(store) = self.store.upgrade() {
            out.into_iter().for_each(|message| store.apply(message));
        }
    }
}

impl Uplink for std::sync::Arc<Loopback> {
    fn send(&self, message: ToAgent) {
        self.tell(|state, out| match message {
            ToAgent::OpenStream { request, kind, track, .. } => {
                state.next_stream += 1;
                let stream = StreamId(state.next_stream);
                let track = state.label(kind, track);
                state.streams.insert(stream, track.clone());
                out.push(FromAgent::StreamOpened { request, stream, track });
                state.key(stream, out);
            }
            ToAgent::CloseStream { stream } => {
                state.streams.remove(&stream);
            }
            _ => {}
        });
    }
}

impl State {
    /// A key for a stream in this epoch, to the opener first.
    fn key(&self, stream: StreamId, out: &mut Vec<FromAgent>) {
        let kid = KeyId::new(stream, 1, self.epoch);
        let suite = CipherSuite::default().into();
        let base_key = Secret::random(&mut random::rng());
        out.push(FromAgent::OpenKey {
            from: self.me,
            name: "myself".into(),
            stream,
            track: self.streams.get(&stream).cloned().unwrap_or_default(),
            // The store knows them: the sealer is in this process.
            caps: String::new(),
            epoch: self.epoch,
            kid,
            suite,
            base_key: base_key.duplicate(),
            floor: 0,
        });
        out.push(FromAgent::SealKey { stream, epoch: self.epoch, kid, suite, base_key, keyframe: false });
    }

    fn label(&self, kind: Kind, wish: String) -> String {
        let base = match (wish.as_str(), kind) {
            ("", Kind::Video) => "video",
            ("", Kind::Audio) => "audio",
            ("", Kind::Data) => "data",
            (wish, _) => wish,
        };
        let free = |label: &String| !self.streams.values().any(|other| other == label);
        let numbered = (2..).map(|n| format!("{base}-{n}"));
        std::iter::once(base.to_owned()).chain(numbered).find(free).unwrap_or_default()
    }
}

/// As in a meeting where nobody was removed.
const GRACE: Duration = Duration::from_millis(500);

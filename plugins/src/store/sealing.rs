//! What a sealing element has of the store: its stream, and each of its keys once.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use meeting_protocol::{frame::SealKey, local::ToAgent};
use meeting_wire::{Kind, StreamId};

use super::KeyStore;

/// Caps with all codec headers, as a stream's statement has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stated {
    /// Their number in this stream.
    pub version: u32,
    /// As a string, the number included.
    pub caps: String,
}

/// A key to seal with, given once.
pub struct NewKey {
    /// Its epoch.
    pub epoch: u64,
    /// The key.
    pub key: SealKey,
    /// Somebody joined: the encoder should make a keyframe.
    pub keyframe: bool,
}

/// A stream that an element of ours seals.
pub(super) struct Sealing {
    kind: Kind,
    track: String,
    stated: Stated,
    /// What was stated before, the newest last: an opener of the loopback may lag behind.
    before: VecDeque<Stated>,
    /// The version of the caps that the agent has heard of.
    told: u32,
    stream: Option<StreamId>,
    key: Option<NewKey>,
    refused: Option<String>,
    /// The connection was lost since: what was given before is not good any more.
    reset: bool,
}

impl Sealing {
    fn new(kind: Kind, track: &str, stated: Stated) -> Self {
        Self {
            kind,
            track: track.to_owned(),
            told: stated.version,
            stated,
            before: VecDeque::new(),
            stream: None,
            key: None,
            refused: None,
            reset: false,
        }
    }

    /// Whether the agent has opened it under this number.
    pub fn is(&self, stream: StreamId) -> bool {
        self.stream == Some(stream)
    }

    /// The agent has opened it. Gives what is to be answered.
    pub fn opened(&mut self, stream: StreamId, track: String) -> Option<ToAgent> {
        self.stream = Some(stream);
        self.track = track;
        // The caps may have changed while the answer was on its way.
        self.news()
    }

    /// The agent gives no stream.
    pub fn refuse(&mut self, text: String) {
        self.refused = Some(text);
    }

    /// A key for its element. One that was not taken takes its wish for a keyframe along.
    pub fn give(&mut self, new: NewKey) {
        let missed = self.key.as_ref().is_some_and(|key| key.keyframe);
        self.key = Some(NewKey { keyframe: new.keyframe || missed, ..new });
    }

    /// The connection is back: the stream is asked for anew.
    pub fn again(&mut self, request: u32) -> ToAgent {
        self.stream = None;
        self.key = None;
        self.reset = true;
        self.told = self.stated.version;
        self.wish(request)
    }

    fn wish(&self, request: u32) -> ToAgent {
        ToAgent::OpenStream {
            request,
            kind: self.kind,
            track: self.track.clone(),
            caps: self.stated.caps.clone(),
            random: crate::random::bytes(),
        }
    }

    fn set_caps(&mut self, stated: Stated) -> Option<ToAgent> {
        if self.stated == stated {
            return None;
        }
        let old = std::mem::replace(&mut self.stated, stated);
        self.before.push_back(old);
        if self.before.len() > MAX_BEFORE {
            self.before.pop_front();
        }
        self.news()
    }

    /// Caps that the agent has not heard of, once it can place them.
    fn news(&mut self) -> Option<ToAgent> {
        let stream = self.stream.filter(|_| self.told != self.stated.version)?;
        self.told = self.stated.version;
        Some(ToAgent::StreamCaps { stream, caps: self.stated.caps.clone() })
    }
}

impl KeyStore {
    /// Asks for a stream to seal.
    pub fn open_stream(self: &Arc<Self>, kind: Kind, track: &str, stated: Stated) -> SealStream {
        let sealing = Sealing::new(kind, track, stated);
        let mut inner = self.inner();
        inner.next_request += 1;
        let request = inner.next_request;
        let wish = sealing.wish(request);
        inner.seals.insert(request, sealing);
        drop(inner);
        self.send(wish);
        SealStream { store: self.clone(), request }
    }

    /// The caps of a stream that is sealed in this process; of the loopback only.
    pub fn stated(&self, stream: StreamId, version: u32) -> Option<String> {
        let inner = self.inner();
        let sealing = inner.seals.values().find(|sealing| self.local && sealing.is(stream))?;
        let mut all = sealing.before.iter().chain([&sealing.stated]);
        all.find(|stated| stated.version == version).map(|stated| stated.caps.clone())
    }
}

/// One stream that is being sealed; dropping it closes the stream for good.
pub struct SealStream {
    store: Arc<KeyStore>,
    request: u32,
}

impl SealStream {
    /// The key that has come since the last call.
    pub fn take_key(&self) -> Option<NewKey> {
        self.store.inner().seals.get_mut(&self.request)?.key.take()
    }

    /// Whether keys taken earlier must not be used any more; said once.
    pub fn take_reset(&self) -> bool {
        let mut inner = self.store.inner();
        inner.seals.get_mut(&self.request).is_some_and(|sealing| std::mem::take(&mut sealing.reset))
    }

    /// Waits until there is a key to take, the stream is refused, or `cancelled`; at most until `deadline`.
    pub fn wait(&self, deadline: Instant, cancelled: impl Fn() -> bool) {
        self.store.wait_until(deadline, |inner| {
            let sealing = inner.seals.get(&self.request);
            let settled = sealing.is_none_or(|sealing| sealing.key.is_some() || sealing.refused.is_some());
            (settled || cancelled()).then_some(())
        });
    }

    /// Why the agent gives no stream; said once.
    pub fn take_refusal(&self) -> Option<String> {
        self.store.inner().seals.get_mut(&self.request)?.refused.take()
    }

    /// The label in force, once the agent has chosen it.
    pub fn label(&self) -> Option<String> {
        let inner = self.store.inner();
        let sealing = inner.seals.get(&self.request).filter(|sealing| sealing.stream.is_some())?;
        Some(sealing.track.clone())
    }

    /// The caps have changed.
    pub fn set_caps(&self, stated: Stated) {
        let mut inner = self.store.inner();
        let Some(sealing) = inner.seals.get_mut(&self.request) else { return };
        let news = sealing.set_caps(stated);
        drop(inner);
        if let Some(news) = news {
            self.store.send(news);
        }
    }
}

impl Drop for SealStream {
    fn drop(&mut self) {
        let sealing = self.store.inner().seals.remove(&self.request);
        if let Some(stream) = sealing.and_then(|sealing| sealing.stream) {
            self.store.send(ToAgent::CloseStream { stream });
        }
    }
}

/// As many caps of a stream as an envelope tells apart.
const MAX_BEFORE: usize = 7;

//! Frames of this device on their way out: a bounded queue and a writer for each stream.
//!
//! ```text
//!  local connection --push--> queue --pop--> writer --> group streams and datagrams to the relay
//!                             drops here      gives up late groups here
//! ```
//!
//! What a writer has written is noted for the next beacon, which travels as a stream of its own.
//!
//! Nothing here waits for the relay but the writers, and nothing here knows a key. A video group that falls
//! behind loses its rest, never the next keyframe. A pipeline writes into the streams of its own user, and no faster than
//! the relay takes it.

mod allowance;
mod queue;
mod writer;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use allowance::{Allowance, Allowances};
use bytes::Bytes;
use meeting_protocol::{
    beacon::{BEACONS, Sent, Span},
    frame::{Header, KeyId},
};
use meeting_wire::{Envelope, Flags, Kind, StreamId};
use queue::Queue;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::{
    counters::{Counters, reason},
    rates,
    task::Task,
};

/// What a pipeline that publishes hears back: a stream that needs a keyframe.
pub type KeyframeWishes = mpsc::Sender<StreamId>;

/// A pipeline that publishes.
#[derive(Debug)]
pub struct Pipeline {
    /// The user of its process.
    pub user: u32,
    /// What it hears back.
    pub wishes: KeyframeWishes,
}

/// All streams that this device publishes in one meeting.
#[derive(Debug)]
pub struct Publisher {
    state: Mutex<Publishing>,
    /// What went out since the last beacon.
    sent: Mutex<Sent>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct Publishing {
    connection: Option<quinn::Connection>,
    streams: HashMap<StreamId, Stream>,
    allowances: Allowances,
}

#[derive(Debug)]
struct Stream {
    kind: Kind,
    /// Whose pipelines may write into it; nobody's into the beacons.
    user: Option<u32>,
    /// The newest key that it was to be sealed under: beacons sign for its frames, and for no others.
    kid: Option<KeyId>,
    allowance: Allowance,
    queue: Arc<Queue>,
    writer: Option<Task>,
    source: Option<KeyframeWishes>,
    asked: Option<Instant>,
    /// Somebody needs a keyframe that has not come yet.
    owed: bool,
}

impl Publisher {
    /// No streams, no connection.
    pub fn new(counters: Arc<Counters>) -> Arc<Self> {
        let allowances = Allowances::new(0, Instant::now());
        let state = Publishing { connection: None, streams: HashMap::new(), allowances };
        Arc::new(Self { state: Mutex::new(state), sent: Mutex::default(), counters })
    }

    /// Frames of this stream may come from now on, from pipelines of this user.
    pub fn open(self: &Arc<Self>, stream: StreamId, kind: Kind, user: u32) {
        self.insert(stream, kind, Some(user));
    }

    /// Frames of this stream are sealed under this key from now on.
    pub fn sealed_under(&self, stream: StreamId, kid: KeyId) {
        if let Some(stream) = self.lock().streams.get_mut(&stream) {
            stream.kid = Some(kid);
        }
    }

    fn insert(self: &Arc<Self>, id: StreamId, kind: Kind, user: Option<u32>) {
        let mut state = self.lock();
        let queue = Arc::new(Queue::new(kind));
        let writer = state.connection.clone().map(|link| self.writer(id, kind, link, queue.clone()));
        let allowance = state.allowances.of_stream(Instant::now());
        let stream = Stream {
            kind,
            user,
            kid: None,
            allowance,
            queue,
            writer,
            source: None,
            asked: None,
            owed: false,
        };
        state.streams.insert(id, stream);
    }

    /// Beacons may come from now on; gives whether that is new.
    pub fn open_beacons(self: &Arc<Self>) -> bool {
        let new = !self.lock().streams.contains_key(&BEACONS);
        if new {
            self.insert(BEACONS, Kind::Data, None);
        }
        new
    }

    /// A signed beacon for everybody who gets our frames.
    pub fn beacon(&self, body: Bytes) {
        let envelope =
            Envelope { pts: None, dts: None, duration: None, flags: Flags(0), layer: 0, sealed: body };
        if let Some(lane) = self.lock().streams.get(&BEACONS) {
            lane.queue.push(envelope, Instant::now());
        }
    }

    /// What went out since the last call, for the next beacon.
    pub fn take_sent(&self) -> Vec<Span> {
        self.sent().take()
    }

    /// How far each stream is, for a beacon where nothing went out.
    pub fn idle(&self) -> Vec<Span> {
        self.sent().idle()
    }

    /// Nothing that went out is to be signed for any more: a new stay has keys of its own.
    pub fn forget_sent(&self) {
        *self.sent() = Sent::default();
    }

    /// No more frames of this stream; ends when the last ones are with the relay, and have had time to go on from there.
    pub fn close(self: &Arc<Self>, stream: StreamId) -> impl Future<Output = ()> + use<> {
        let closed = self.close_within(stream, Duration::MAX);
        async move {
            closed.await;
            sleep(ONWARD).await;
        }
    }

    /// No more frames of this stream; ends when the last ones are with the relay. What is not on its way after so long never goes
    /// out.
    pub fn close_within(
        self: &Arc<Self>,
        stream: StreamId,
        most: Duration,
    ) -> impl Future<Output = ()> + use<> {
        let closed = self.lock().streams.remove(&stream);
        let publisher = self.clone();
        async move {
            if let Some(Stream { queue, writer: Some(mut writer), .. }) = closed {
                queue.close();
                if timeout(most, writer.ended()).await.is_err() {
                    writer.stop().await;
                }
            }
            publisher.sent().ended(stream);
        }
    }

    /// Every open stream, for telling the relay again.
    pub fn streams(&self) -> Vec<(StreamId, Kind)> {
        let mut streams: Vec<_> = self.lock().streams.iter().map(|(id, stream)| (*id, stream.kind)).collect();
        streams.sort_by_key(|(id, _)| *id);
        streams
    }

    /// Frames have a way out, which takes so many Mbit/s.
    pub fn attach(self: &Arc<Self>, connection: quinn::Connection, mbit: u32) {
        let mut state = self.lock();
        let now = Instant::now();
        state.allowances = Allowances::new(mbit, now);
        let Publishing { streams, allowances, .. } = &mut *state;
        for (id, stream) in streams {
            stream.allowance = allowances.of_stream(now);
            stream.queue.restart();
            stream.writer = Some(self.writer(*id, stream.kind, connection.clone(), stream.queue.clone()));
        }
        state.connection = Some(connection);
    }

    /// The way out is gone.
    pub fn detach(&self) {
        let mut state = self.lock();
        state.connection = None;
        for stream in state.streams.values_mut() {
            stream.writer = None;
            self.counters.dropped(reason::OFFLINE, stream.queue.restart());
        }
    }

    /// Takes a frame from a pipeline, which hears when a keyframe is needed.
    pub fn push(&self, id: StreamId, envelope: Envelope, from: &Pipeline, now: Instant) {
        let mut state = self.lock();
        let Publishing { connection, streams, allowances } = &mut *state;
        let Some(stream) = streams.get_mut(&id).filter(|stream| stream.user == Some(from.user)) else {
            return self.counters.dropped(reason::UNKNOWN, 1);
        };
        if !stream.may_hold(&envelope) {
            return self.counters.dropped(reason::FOREIGN_KEY, 1);
        }
        // the newest: a sink that was started again takes its stream along
        if !stream.source.as_ref().is_some_and(|known| known.same_channel(&from.wishes)) {
            stream.source = Some(from.wishes.clone());
        }
        if connection.is_none() {
            return self.counters.dropped(reason::OFFLINE, 1);
        }
        let cost = (rates::cost(stream.kind, envelope.flags), rates::size(&envelope));
        if !allowances.take(from.user, &mut stream.allowance, cost, now) {
            // what leans on it helps nobody
            let rest = if stream.kind == Kind::Video { stream.queue.give_up_group() } else { 0 };
            stream.owed |= stream.kind == Kind::Video;
            return self.counters.dropped(reason::RATE, 1 + rest);
        }
        stream.owed &= !envelope.flags.has(Flags::KEYFRAME);
        let lost = stream.queue.push(envelope, now);
        if let Some((why, n)) = lost {
            self.counters.dropped(why, n);
        }
        if stream.owed || (lost.is_some() && stream.kind == Kind::Video) {
            stream.ask_for_keyframe(id);
        }
    }

    /// Somebody cannot go on without a keyframe of this stream.
    pub fn keyframe_wanted(&self, id: StreamId) {
        if let Some(stream) = self.lock().streams.get_mut(&id) {
            // too soon after the last one it is asked for with a later frame
            stream.owed = true;
            stream.ask_for_keyframe(id);
        }
    }

    fn writer(
        self: &Arc<Self>,
        id: StreamId,
        kind: Kind,
        link: quinn::Connection,
        queue: Arc<Queue>,
    ) -> Task {
        // weak: the publisher owns the task
        let (publisher, counters) = (Arc::downgrade(self), self.counters.clone());
        Task::spawn(async move {
            let keyframe = || {
                if let Some(publisher) = publisher.upgrade() {
                    publisher.keyframe_wanted(id);
                }
            };
            let sent = |envelope: &Envelope| {
                counters.sent();
                if let Some(publisher) = publisher.upgrade().filter(|_| id != BEACONS) {
                    publisher.sent().frame(envelope);
                }
            };
            writer::run(id, kind, &link, &queue, &counters, sent, keyframe).await;
        })
    }

    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Publishing> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// Whether a frame names a key of this stream, whichever epoch it is of. One that does not was sealed for somewhere else,
    /// and signing for it would be signing in the name of that.
    fn may_hold(&self, envelope: &Envelope) -> bool {
        let named = Header::parse(&envelope.sealed).map(|(header, _)| KeyId::from(header.kid));
        let place = |kid: KeyId| (kid.stream(), kid.index());
        named.is_some_and(|named| self.kid.is_some_and(|kid| place(kid) == place(named)))
    }

    fn ask_for_keyframe(&mut self, id: StreamId) {
        let now = Instant::now();
        if self.asked.is_some_and(|asked| now.duration_since(asked) < KEYFRAME_EVERY) {
            return;
        }
        if let Some(source) = &self.source
            && source.try_send(id).is_ok()
        {
            self.asked = Some(now);
        }
    }
}

/// A keyframe costs everybody: at most two a second are asked for of one stream, ours or another's.
pub const KEYFRAME_EVERY: Duration = Duration::from_millis(500);

/// QUIC tells that bytes are on the relay's machine, not that the relay has read them: a stream, or a member, that goes at once
/// takes its last frames along.
pub const ONWARD: Duration = Duration::from_millis(300);

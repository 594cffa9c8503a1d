//! Frames of others on their way in: who publishes what, who on this machine wants it, and a bounded queue for
//! each of those.
//!
//! ```text
//!  relay --group streams, datagrams--> reader --deliver--> queue --pop--> local connection
//!                                      keeps groups in order  drops old groups here
//! ```
//!
//! Before a frame goes on it is checked against its sender's beacons: those come as a stream of their own, go to the driver for
//! their signature, and come back by [`Watching::vouched`].
//!
//! A track is shown when the relay offers it *and* its sender has stated it under the meeting's key; frames are
//! asked for only while somebody here watches. Nothing here knows a key.

mod fair;
mod listening;
mod queue;
mod reader;
mod tally;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use meeting_protocol::{
    beacon::{BEACONS, Checker, FrameDigest, Trust, Vouch, What},
    frame::KeyId,
    local::{self, FromAgent},
};
use meeting_wire::{Bucket, Envelope, Kind, MAX_SUBSCRIPTIONS, ParticipantId, Route, StreamId, ToRelay};

use fair::fair;
use listening::Listening;
pub use queue::{Parcel, Queue};
pub use reader::run;
pub use tally::Tally;

use tokio::sync::mpsc;

use crate::{
    clock,
    counters::{Counters, reason},
    people, rates,
};

/// A stream of somebody.
pub type Source = (ParticipantId, StreamId);

/// Everything that is watched in one meeting.
#[derive(Debug)]
pub struct Watching {
    state: Mutex<State>,
    beacons: mpsc::Sender<(ParticipantId, Bytes)>,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct State {
    offered: HashMap<Route, Offer>,
    stated: BTreeMap<Source, Stated>,
    /// What has ended while frames of it were still to be signed for.
    ended: BTreeMap<Source, Stated>,
    watchers: HashMap<u64, Watcher>,
    checkers: HashMap<ParticipantId, Checker>,
    listening: Listening,
    /// Of each sender, for those of its beacons that are looked at.
    beacons: HashMap<ParticipantId, Bucket>,
}

/// What beacons, or that none came, led to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// To tell.
    pub found: Vec<(Source, What)>,
    /// For the relay.
    pub messages: Vec<ToRelay>,
}

#[derive(Debug)]
struct Offer {
    source: Source,
    kind: Kind,
    subscribed: bool,
    tally: Tally,
}

/// What the sender of a stream said of it under the meeting's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stated {
    /// The sender's name.
    pub name: String,
    /// The label.
    pub track: String,
    /// What it carries.
    pub kind: Kind,
    /// Its caps.
    pub caps: String,
}

/// A local connection and its wishes.
#[derive(Debug)]
pub struct Watcher {
    /// Whose streams: an id in hex or a name; empty for everybody's.
    pub participant: String,
    /// Which label; empty for all.
    pub track: String,
    /// Whether it gets their frames, and not only their names.
    pub frames: bool,
    /// Where its messages go.
    pub queue: Arc<Queue>,
    /// What it was told of.
    shown: BTreeSet<Source>,
}

impl Watcher {
    /// A watcher who has seen nothing yet.
    pub fn new(participant: String, track: String, queue: Arc<Queue>) -> Self {
        Self { participant, track, frames: true, queue, shown: BTreeSet::new() }
    }

    /// One that asks which tracks there are, and for no frame.
    pub fn of_names(queue: Arc<Queue>) -> Self {
        Self { frames: false, ..Self::new(String::new(), String::new(), queue) }
    }

    fn wants(&self, source: &Source, stated: &Stated) -> bool {
        self.wants_somebody(source.0, Some(stated)) && (self.track.is_empty() || self.track == stated.track)
    }

    fn wants_somebody(&self, participant: ParticipantId, stated: Option<&Stated>) -> bool {
        let name = stated.map_or("", |stated| stated.name.as_str());
        self.participant.is_empty() || people::is_meant(&self.participant, participant, name)
    }
}

impl Watching {
    /// Nobody watches, nothing is offered. Beacons go out by `beacons`.
    pub fn new(counters: Arc<Counters>, beacons: mpsc::Sender<(ParticipantId, Bytes)>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), beacons, counters })
    }

    /// Somebody here wants to watch; the answer goes to the relay, as from all of these.
    pub fn add(&self, id: u64, watcher: Watcher) -> Vec<ToRelay> {
        let mut state = self.lock();
        let names = (!watcher.frames).then(|| watcher.queue.clone());
        state.watchers.insert(id, watcher);
        let messages = state.settle();
        if let Some(queue) = names {
            queue.say(&FromAgent::Named);
        }
        messages
    }

    /// Somebody here is gone.
    pub fn remove(&self, id: u64) -> Vec<ToRelay> {
        let mut state = self.lock();
        state.watchers.remove(&id);
        state.settle()
    }

    /// The relay offers a stream.
    pub fn offered(&self, route: Route, source: Source, kind: Kind) -> Vec<ToRelay> {
        let mut state = self.lock();
        if state.offered.len() >= MAX_OFFERS {
            return Vec::new();
        }
        state.offered.insert(route, Offer { source, kind, subscribed: false, tally: Tally::default() });
        state.settle()
    }

    /// The relay no longer offers a stream.
    pub fn withdrawn(&self, route: Route) -> Vec<ToRelay> {
        let mut state = self.lock();
        if let Some(Offer { source: (from, stream), .. }) = state.offered.remove(&route)
            && let Some(checker) = state.checkers.get_mut(&from)
        {
            checker.cut(stream, clock::now());
        }
        state.settle()
    }

    /// The relay connection is gone, and its routes with it. Tracks stay: they come back, or the session says
    /// that they have ended.
    pub fn disconnected(&self) {
        let mut state = self.lock();
        let now = clock::now();
        state.checkers.values_mut().for_each(|checker| checker.cut_all(now));
        state.offered.clear();
        state.listening.to(&BTreeSet::new(), now);
    }

    /// A sender stated a stream, for the first time, with other caps, or under the key of another epoch.
    pub fn stated(&self, source: Source, stated: Stated, (kid, epoch): (KeyId, u64)) -> Vec<ToRelay> {
        let mut state = self.lock();
        if state.stated.contains_key(&source) || state.stated.len() < MAX_OFFERS {
            state.checkers.entry(source.0).or_default().opened(kid, epoch, clock::now());
        }
        let old = state.stated.get(&source);
        // no element seals under the number of the beacons
        if source.1 == BEACONS || old == Some(&stated) || (old.is_none() && state.stated.len() >= MAX_OFFERS)
        {
            return Vec::new();
        }
        state.stated.insert(source, stated);
        for watcher in state.watchers.values_mut() {
            watcher.shown.remove(&source);
        }
        state.settle()
    }

    /// A stream has ended, as the session says.
    pub fn ended(&self, source: Source) -> Vec<ToRelay> {
        let mut state = self.lock();
        let State { stated, ended, checkers, .. } = &mut *state;
        let gone = stated.remove(&source);
        if let Some(checker) = checkers.get_mut(&source.0) {
            checker.forget(source.1);
            ended.extend(gone.filter(|_| ended.len() < MAX_OFFERS).map(|gone| (source, gone)));
        }
        state.settle()
    }

    /// Keys of epochs before this one are over.
    pub fn expire(&self, before: u64) {
        self.lock().checkers.values_mut().for_each(|checker| checker.expire(before));
    }

    /// A new stay begins: no stream of the old one goes on.
    pub fn all_ended(&self) {
        let mut state = self.lock();
        state.offered.clear();
        state.stated.clear();
        state.ended.clear();
        state.checkers.clear();
        state.listening = Listening::default();
        state.settle();
    }

    /// Whose stream it is or was, and what it is called; empty where nobody has said so.
    pub fn called(&self, source: Source) -> (String, String) {
        let state = self.lock();
        let stated = state.stated.get(&source).or_else(|| state.ended.get(&source));
        stated.map(|stated| (stated.name.clone(), stated.track.clone())).unwrap_or_default()
    }

    /// Whether there may be more to tell of whose frames a stream has.
    pub fn checks(&self, (from, stream): Source) -> bool {
        self.lock().checkers.get(&from).is_some_and(|checker| checker.knows(stream))
    }

    /// The relay's name for a video stream that it sends us, for asking for a keyframe: it passes over any other.
    pub fn route(&self, source: Source) -> Option<Route> {
        let comes = |offer: &Offer| offer.source == source && offer.subscribed && offer.kind == Kind::Video;
        self.lock().offered.iter().find(|(_, offer)| comes(offer)).map(|(route, _)| *route)
    }

    /// Pictures that somebody here has lost a part of, and reads on.
    pub fn cut(&self) -> BTreeSet<Source> {
        let state = self.lock();
        let cut = |watcher: &Watcher| {
            let cut = watcher.queue.cut();
            cut.into_iter().filter(|source| watcher.shown.contains(source)).collect::<Vec<_>>()
        };
        state.watchers.values().flat_map(cut).collect()
    }

    /// How much of a stream got here since the relay last offered it.
    pub fn tally(&self, source: Source) -> Tally {
        let state = self.lock();
        state
            .offered
            .values()
            .find(|offer| offer.source == source)
            .map(|offer| offer.tally)
            .unwrap_or_default()
    }

    /// Takes a frame from the relay.
    fn deliver(&self, route: Route, envelope: Envelope) {
        let digest = FrameDigest::of(&envelope);
        let mut state = self.lock();
        let State { offered, checkers, beacons, .. } = &mut *state;
        let Some(offer) = offered.get_mut(&route) else {
            return self.counters.dropped(reason::UNKNOWN, 1);
        };
        let (from, stream) = offer.source;
        if stream == BEACONS {
            // What one sender makes too many of costs no other their place, under whatever route it comes.
            let now = Instant::now();
            let fits = beacons.len() < MAX_OFFERS || beacons.contains_key(&from);
            let full = || Bucket::new(rates::BEACONS_OF_ONE, now);
            if !fits || !beacons.entry(from).or_insert_with(full).take(1.0, now) {
                return self.counters.dropped(reason::RATE, 1);
            }
            // one that finds no place is as good as lost on its way
            let _ = self.beacons.try_send((from, envelope.sealed));
            return;
        }
        self.counters.received();
        offer.tally.frame(&envelope.sealed);
        let (source, kind) = (offer.source, offer.kind);
        let Some(checker) = checkers.get_mut(&from) else { return };
        if let Some(envelope) = checker.frame(stream, envelope, digest, clock::now()) {
            state.hand_on(source, kind, envelope, &self.counters);
        }
    }

    /// A sender has signed for frames of its own.
    pub fn vouched(&self, from: ParticipantId, vouch: &Vouch) -> Outcome {
        let mut state = self.lock();
        let mut outcome = Outcome::default();
        if let Some(checker) = state.checkers.get_mut(&from) {
            let released = checker.beacon(vouch, clock::now());
            state.release(from, released, &self.counters);
            outcome.found = state.findings();
        }
        if state.listening.hears(from) {
            outcome.messages = state.settle();
        }
        outcome
    }

    /// Lets time pass: what nobody has signed for in time shows.
    pub fn tick(&self) -> Outcome {
        let mut state = self.lock();
        let now = clock::now();
        let State { ended, checkers, beacons, .. } = &mut *state;
        // One that is full again is as good as a new one.
        beacons.retain(|_, bucket| !bucket.has(rates::BEACONS_OF_ONE.burst, Instant::now()));
        ended.retain(|(from, stream), _| checkers.get(from).is_some_and(|checker| checker.knows(*stream)));
        let released: Vec<_> =
            state.checkers.iter_mut().map(|(from, checker)| (*from, checker.tick(now))).collect();
        for (from, released) in released {
            state.release(from, released, &self.counters);
        }
        let found = state.findings();
        let State { stated, checkers, .. } = &mut *state;
        checkers.retain(|from, checker| !checker.is_settled() || stated_by(stated, *from).is_some());
        Outcome { found, messages: state.settle() }
    }

    /// What is known of who sent a stream's frames, and how many were forged.
    pub fn trust(&self, source: Source) -> (Trust, u64) {
        self.lock().checkers.get(&source.0).map(|checker| checker.trust(source.1)).unwrap_or_default()
    }

    /// One above the newest counter that a key's holder has signed for.
    pub fn signed_below(&self, from: ParticipantId, kid: KeyId) -> Option<u64> {
        self.lock().checkers.get(&from)?.signed_below(kid)
    }

    /// Whether anything is checked here.
    pub fn is_busy(&self) -> bool {
        let state = self.lock();
        !state.listening.is_empty() || state.checkers.values().any(|checker| !checker.is_settled())
    }

    fn kind(&self, route: Route) -> Option<Kind> {
        self.lock().offered.get(&route).map(|offer| offer.kind)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Hands a frame to everybody here who wants it.
    fn hand_on(&self, source: Source, kind: Kind, envelope: Envelope, counters: &Counters) {
        let (from, stream) = source;
        let keyframe = envelope.flags.has(meeting_wire::Flags::KEYFRAME | meeting_wire::Flags::HEADER);
        let message = FromAgent::Frame { from, stream, envelope };
        let bytes: Bytes = local::packed(&message).to_vec().into();
        let watchers = self.watchers.values().filter(|watcher| watcher.frames);
        for watcher in watchers.filter(|watcher| watcher.shown.contains(&source)) {
            let parcel = Parcel { source, kind, keyframe, bytes: bytes.clone() };
            counters.dropped(reason::FULL, watcher.queue.push(parcel));
        }
    }

    fn release(&self, from: ParticipantId, released: Vec<(StreamId, Envelope)>, counters: &Counters) {
        for (stream, envelope) in released {
            let source = (from, stream);
            if let Some(stated) = self.stated.get(&source) {
                self.hand_on(source, stated.kind, envelope, counters);
            }
        }
    }

    fn findings(&mut self) -> Vec<(Source, What)> {
        let each = self.checkers.iter_mut().flat_map(|(from, checker)| {
            checker.findings().into_iter().map(|finding| ((*from, finding.stream), finding.what))
        });
        each.collect()
    }

    /// Brings what watchers were told, and what the relay was asked for, in line with what there is.
    fn settle(&mut self) -> Vec<ToRelay> {
        let Self { offered, stated, watchers, checkers, listening, .. } = self;
        let now = clock::now();
        for watcher in watchers.values_mut() {
            let gone: Vec<Source> =
                watcher.shown.iter().filter(|source| !stated.contains_key(source)).copied().collect();
            for source in gone {
                watcher.shown.remove(&source);
                watcher.queue.gone(source);
            }
            for offer in offered.values() {
                let Some(track) = stated.get(&offer.source) else { continue };
                if watcher.wants(&offer.source, track) && watcher.shown.insert(offer.source) {
                    watcher.queue.say(&FromAgent::Track {
                        from: offer.source.0,
                        name: track.name.clone(),
                        stream: offer.source.1,
                        track: track.track.clone(),
                        kind: track.kind,
                        caps: track.caps.clone(),
                    });
                }
            }
        }
        let watched = watchers.values().filter(|watcher| watcher.frames);
        let wanted: BTreeSet<Source> = watched.flat_map(|watcher| watcher.shown.iter().copied()).collect();
        let mut senders: BTreeSet<ParticipantId> = offered.values().map(|offer| offer.source.0).collect();
        senders.retain(|from| {
            let one = stated_by(stated, *from);
            watchers.values().any(|watcher| watcher.frames && watcher.wants_somebody(*from, one))
        });
        listening.to(&senders, now);
        let is_wanted = |offer: &Offer| match offer.source {
            // What went on before is still to be signed for.
            (from, BEACONS) => {
                senders.contains(&from) || checkers.get(&from).is_some_and(|checker| !checker.is_settled())
            }
            (from, _) => {
                wanted.contains(&offer.source) && (offer.subscribed || listening.is_ready(from, now))
            }
        };
        let wanted = offered.iter().filter(|(_, offer)| is_wanted(offer));
        let wanted = fair(wanted.map(|(route, offer)| (offer.source, *route)).collect(), MAX_SUBSCRIPTIONS);
        let mut messages = Vec::new();
        for (route, offer) in offered {
            let (from, stream) = offer.source;
            let wanted = wanted.contains(route);
            if wanted == offer.subscribed {
                continue;
            }
            offer.subscribed = wanted;
            let route = *route;
            if wanted {
                if stream != BEACONS {
                    checkers.entry(from).or_default().watch(stream, now);
                }
                messages.push(ToRelay::Subscribe { route });
            } else {
                if let Some(checker) = checkers.get_mut(&from) {
                    checker.rest(stream);
                }
                messages.push(ToRelay::Unsubscribe { route });
            }
        }
        messages
    }
}

/// One of the streams that somebody has stated.
fn stated_by(stated: &BTreeMap<Source, Stated>, from: ParticipantId) -> Option<&Stated> {
    let (source, one) = stated.range((from, StreamId(0))..).next()?;
    (source.0 == from).then_some(one)
}

/// Streams of one meeting: five each of 1,000 people fit.
const MAX_OFFERS: usize = 8_192;

#[cfg(test)]
mod tests;

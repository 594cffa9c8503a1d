//! Frames and beacons: sealed, checked, opened, and held against the book.

use meeting_wire::{Envelope, ParticipantId, StreamId};

use super::{World, book::FrameFact, book::Limits, happen::Happening, weather::Parcel};
use crate::{
    beacon::{EVERY, FrameDigest, Trust, What},
    frame::WINDOW,
    session::{Command, Input},
    weakness::{self, Weakness},
};

/// A forged or altered frame that went through, to be told of in time.
pub(super) struct Watched {
    to: usize,
    from: ParticipantId,
    stream: StreamId,
    came: u64,
    due: u64,
}

impl World {
    /// A device's pipelines run for a moment.
    pub(super) fn media(&mut self, number: usize) {
        self.after(TICK, Happening::Media(number));
        let device = &self.devices[number];
        if device.asleep > self.now || device.session.is_none() {
            return;
        }
        let streams: Vec<StreamId> = device.elements.sealing.keys().copied().collect();
        for stream in streams {
            self.seal(number, stream);
        }
        if !self.cast.beacons {
            return;
        }
        let spans = self.devices[number].sent.take();
        if !spans.is_empty() {
            self.feed(number, Input::Command(Command::Beacon(spans)));
        }
        let now = self.local(number);
        let mut senders: Vec<ParticipantId> = self.devices[number].checkers.keys().copied().collect();
        senders.sort();
        for from in senders {
            let checker = self.devices[number].checkers.get_mut(&from);
            for (stream, envelope) in checker.map(|checker| checker.tick(now)).unwrap_or_default() {
                self.open(number, from, stream, &envelope);
            }
            self.findings(number, from);
        }
        self.watch(number);
    }

    pub(super) fn seal(&mut self, number: usize, stream: StreamId) {
        let (now, frame) = (self.local(number), self.frames);
        let limits = self.limits(number, false);
        let device = &mut self.devices[number];
        let Some(from) = device.me() else { return };
        let Some((envelope, link, epoch)) = device.elements.seal(stream, frame, now) else { return };
        self.frames += 1;
        self.tally.sealed += 1;
        self.over(number, epoch, GRACE, "seals");
        self.fresh(number, "seals");
        let device = &self.devices[number];
        self.book.used(self.now, &device.name, &link, limits);
        if !device.evil {
            let leader =
                self.devices.iter().find(|other| other.me().is_some() && other.me() == device.leader);
            let stood =
                |since| [Some(device), leader].iter().flatten().map(|one| one.stood_since(since)).sum();
            self.book.lasts(self.now, &device.name, &link, stood);
        }
        self.book.frames.insert(frame, FrameFact { from, stream, link, sealed: self.now, forged: false });
        if self.cast.beacons {
            self.devices[number].sent.frame(&envelope);
        }
        self.send_up(number, Parcel::Frame { from, stream, envelope });
    }

    /// Nothing under an epoch that it has known to be over for so long.
    fn over(&self, number: usize, epoch: u64, limit: u64, what: &str) {
        let device = &self.devices[number];
        if let Some((_, at)) = device.learned.iter().find(|(newest, _)| *newest > epoch) {
            let since = self.local(number).since(*at).as_millis() as u64;
            let name = &device.name;
            assert!(
                since <= limit,
                "{name} {what} under epoch {epoch}, over for {since} ms by its own knowledge"
            );
        }
    }

    /// Whoever seals or opens has the leader's word, which is not older than it may be.
    fn fresh(&self, number: usize, what: &str) {
        let device = &self.devices[number];
        if device.leads() {
            return;
        }
        let age = self.now - device.proved.unwrap_or(0);
        let limit = LIMIT + device.drift(self.now) + device.unknown();
        assert!(age <= limit, "{} {what} {age} ms after the leader's last word", device.name);
    }

    fn limits(&self, number: usize, opens: bool) -> Limits {
        if self.cast.calm && !self.healed {
            // An honest relay over an even network: who is removed hears nothing that is sealed a second later.
            let limit = if opens { 1_000 + GRACE + CLOSING } else { 1_000 };
            return Limits { opens, removal: limit, replaced: Some(limit) };
        }
        // A stale member that comes back opens what is late for two seconds from then, as `over` holds.
        let device = &self.devices[number];
        let removal = if opens { u64::MAX } else { LIMIT + device.drift(self.now) + device.unknown() };
        Limits { opens, removal, replaced: None }
    }

    /// A frame comes out of the network.
    pub(super) fn receive(&mut self, to: usize, from: ParticipantId, stream: StreamId, envelope: Envelope) {
        let now = self.local(to);
        if !self.cast.beacons {
            self.open(to, from, stream, &envelope);
            return;
        }
        let device = &mut self.devices[to];
        let checker = device.checkers.entry(from).or_default();
        let digest = FrameDigest::of(&envelope);
        if let Some(envelope) = checker.frame(stream, envelope, digest, now) {
            self.open(to, from, stream, &envelope);
        }
        self.findings(to, from);
        self.bounded(to);
    }

    /// An element gets a frame.
    pub(super) fn open(&mut self, to: usize, from: ParticipantId, stream: StreamId, envelope: &Envelope) {
        let now = self.local(to);
        let Some((frame, epoch, link)) = self.devices[to].elements.open(from, stream, envelope, now) else {
            return;
        };
        let fact = self.book.frames.get(&frame).expect("what opens was sealed by somebody");
        let name = &self.devices[to].name;
        assert_eq!(fact.link, link, "{name} opens a frame under the key of another epoch");
        assert!(
            (fact.from, fact.stream) == (from, stream),
            "{name} opens a frame of one stream as another's"
        );
        let altered = !self.altered.is_empty() && self.altered.contains(&FrameDigest::of(envelope).0);
        let (forged, sealed) = (fact.forged || altered, fact.sealed);
        self.over(to, epoch, GRACE + CLOSING, "opens");
        self.fresh(to, "opens");
        let limits = self.limits(to, true);
        let device = &mut self.devices[to];
        self.book.used(self.now, &device.name, &link, limits);
        if forged {
            self.tally.forged += 1;
            self.tally.did(if altered { "altered frame opened" } else { "forged frame opened" });
            if self.cast.beacons {
                let due = self.now + NOTICE;
                self.watched.push(Watched { to, from, stream, came: self.now, due });
            }
            return;
        }
        self.tally.opened += 1;
        let new =
            device.elements.opening.get_mut(&(from, stream)).is_some_and(|open| open.seen.insert(frame));
        assert!(new, "{} opens a frame a second time, sealed at {sealed}", device.name);
    }

    /// The pipelines that watch crash and start anew; the agent stays.
    pub(super) fn crash_watching(&mut self, number: usize) {
        let now = self.local(number);
        let device = &mut self.devices[number];
        for ((from, stream), opening) in &mut device.elements.opening {
            if let Some(checker) = device.checkers.get_mut(from) {
                checker.rest(*stream);
                checker.watch(*stream, now);
            }
            // Not even the floors that openers tell their agent help here.
            opening.restart(|_| 0);
        }
    }

    /// What the checker of one sender has to say.
    pub(super) fn findings(&mut self, number: usize, from: ParticipantId) {
        let now = self.now;
        let device = &mut self.devices[number];
        let Some(checker) = device.checkers.get_mut(&from) else { return };
        if weakness::is(Weakness::BeaconsUnchecked) {
            checker.findings();
            return;
        }
        for finding in checker.findings() {
            let stream = finding.stream;
            match finding.what {
                What::Forged | What::ForgedBefore => {
                    // Elements start anew: the forged frame may have taken an honest one's counter.
                    if let Some(opening) = device.elements.opening.get_mut(&(from, stream)) {
                        opening.restart(|kid| checker.signed_below(kid).unwrap_or(0).saturating_sub(WINDOW));
                    }
                    device.told.insert((from, stream), now);
                }
                What::Unverified | What::CutOff => {
                    device.told.insert((from, stream), now);
                }
                _ => {}
            }
        }
    }

    /// Forged frames that went through here are told by now.
    fn watch(&mut self, number: usize) {
        let now = self.now;
        let device = &mut self.devices[number];
        for watched in self.watched.iter().filter(|watched| watched.to == number) {
            let trust = device.checkers.get(&watched.from).map(|checker| checker.trust(watched.stream).0);
            let said = matches!(trust, Some(Trust::Forged | Trust::Unverified));
            if said && !weakness::is(Weakness::BeaconsUnchecked) {
                device.told.insert((watched.from, watched.stream), now);
            }
        }
        let (awake, tally) = (device.awake_since, &mut self.tally);
        self.watched.retain(|watched| {
            if watched.to != number {
                return true;
            }
            let key = (watched.from, watched.stream);
            let there = device.elements.opening.contains_key(&key) && awake <= watched.came;
            let told = device.told.get(&key).filter(|at| **at >= watched.came);
            if let Some(at) = told.filter(|_| there) {
                tally.noticed = tally.noticed.max(at - watched.came);
            }
            assert!(
                !there || told.is_some() || now < watched.due,
                "{} is not told of a forged frame within {NOTICE} ms",
                device.name
            );
            there && told.is_none()
        });
    }
}

/// Between two frames of a stream, and between two beacons and two looks: an agent's.
const TICK: u64 = EVERY.as_millis() as u64;
/// How old the leader's word may be, and how long openers keep a key after the switch.
const LIMIT: u64 = 8_000;
const CLOSING: u64 = 2_000;
/// How long one may seal under a key that is known to be over.
const GRACE: u64 = 501;
/// How long a forged frame may go untold.
const NOTICE: u64 = 2_000;

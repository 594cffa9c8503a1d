//! What can happen next, and how sessions take it.

use meeting_wire::{Decode, Post, Slot};

use super::{World, device::Stolen, trick, weather::Parcel, weather::Topic};
use crate::session::{EndReason, Event, Input, KeyChange, Output, Phase, message::Message};

/// One thing that happens.
pub(super) enum Happening {
    /// A parcel reaches the relay, from a device over a connection.
    Up(usize, u64, Parcel),
    /// A parcel reaches a device over a connection.
    Down(usize, u64, Parcel),
    /// A new device comes.
    Arrives,
    /// A device that was here comes again.
    Returns(usize),
    Connects(usize),
    /// A connection on which nothing comes is given up.
    GivenUp(usize, u64),
    Wakes(usize),
    /// A device's pipelines run.
    Media(usize),
    Scene,
    Mischief,
    Lie(usize),
    /// By now everybody knows what the leader did.
    Told,
}

impl World {
    pub(super) fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Up(from, line, parcel) => {
                let device = &self.devices[from];
                if device.line == line && device.cut <= self.now {
                    self.relays(from, parcel);
                }
            }
            Happening::Down(to, line, parcel) => self.reaches(to, line, parcel),
            Happening::Arrives => self.arrive(),
            Happening::Returns(device) => self.enter(device),
            Happening::Connects(device) => self.connect(device),
            Happening::GivenUp(device, line) => {
                if self.devices[device].line == line {
                    self.disconnect(device);
                }
            }
            Happening::Wakes(device) => self.wake(device),
            Happening::Media(device) => self.media(device),
            Happening::Scene => self.scene(),
            Happening::Mischief if !self.healed => {
                self.mischief();
                let pause = self.dice.between(2_000, 15_000);
                self.after(pause, Happening::Mischief);
            }
            Happening::Lie(device) if !self.healed => self.lie(device),
            Happening::Told => assert!(self.is_told(), "the leader's lie goes on for {} ms", trick::TOLD),
            Happening::Mischief | Happening::Lie(_) => {}
        }
    }

    fn reaches(&mut self, to: usize, line: u64, parcel: Parcel) {
        let device = &mut self.devices[to];
        if device.line != line || device.cut > self.now {
            return;
        }
        if device.asleep > self.now {
            // What streams carry waits in the kernel; datagrams are gone.
            if let Parcel::Post(_) = parcel {
                let at = device.asleep + 1;
                self.at(at, Happening::Down(to, line, parcel));
            }
            return;
        }
        match parcel {
            Parcel::Post(post) => {
                device.seen = device.seen.max(Some(post.seq));
                self.feed(to, Input::Post(post));
            }
            Parcel::Beacon { from, body } => self.feed(to, Input::Beacon { from, body }),
            Parcel::Frame { from, stream, envelope } => self.receive(to, from, stream, envelope),
        }
    }

    /// Sends a parcel to the relay.
    pub(super) fn send_up(&mut self, from: usize, parcel: Parcel) {
        let topic = self.topic(&parcel);
        let device = &mut self.devices[from];
        let Some(time) = device.path.time(topic, &mut self.dice) else { return };
        let mut at = self.now + time;
        if matches!(parcel, Parcel::Post(_)) {
            // a stream keeps its order
            at = at.max(device.up);
            device.up = at;
        }
        let line = device.line;
        if line != 0 {
            self.at(at, Happening::Up(from, line, parcel));
        }
    }

    /// Sends a parcel from the relay, late if it wills.
    pub(super) fn send_down(&mut self, to: usize, parcel: Parcel, topic: Topic, late: u64) {
        let device = &mut self.devices[to];
        let Some(time) = device.path.time(topic, &mut self.dice) else { return };
        let mut at = self.now + time + late;
        if late == 0 && matches!(parcel, Parcel::Post(_)) {
            at = at.max(device.down);
            device.down = at;
        }
        let line = device.line;
        if line != 0 {
            self.at(at, Happening::Down(to, line, parcel));
        }
    }

    pub(super) fn topic(&self, parcel: &Parcel) -> Topic {
        match parcel {
            Parcel::Post(post) => self.read(&post.body).map_or(Topic::Noise, |message| Topic::of(&message)),
            Parcel::Frame { .. } => Topic::Frame,
            Parcel::Beacon { .. } => Topic::Beacon,
        }
    }

    pub(super) fn read(&self, body: &[u8]) -> Option<Message> {
        Message::from_bytes(&self.board.open(body)?.1).ok()
    }

    /// Hands a session an input, and sees that it keeps every promise.
    pub(super) fn feed(&mut self, number: usize, input: Input) {
        let now = self.local(number);
        let device = &mut self.devices[number];
        if device.asleep > self.now {
            return;
        }
        let Some(session) = &mut device.session else { return };
        let command = matches!(input, Input::Command(_));
        let result = session.handle(input, now, &mut device.rng);
        assert!(result.is_ok() || command, "only commands are refused");
        self.drain(number);
    }

    pub(super) fn drain(&mut self, number: usize) {
        let now = self.local(number);
        let mut new_key = false;
        // The epoch of a key that was given and taken back within one input.
        let mut taken = 0;
        loop {
            let device = &mut self.devices[number];
            let Some(session) = &mut device.session else { return };
            match session.poll_output() {
                Output::Post { slot, body } => self.posts(number, slot, body),
                Output::Keys(change) => {
                    match &change {
                        KeyChange::Expire { before } if *before > taken => taken = 0,
                        KeyChange::Seal { epoch, .. } | KeyChange::Open { epoch, .. }
                            if session.is_without(*epoch) =>
                        {
                            taken = taken.max(*epoch);
                            continue;
                        }
                        _ => {}
                    }
                    self.keys(number, change);
                }
                Output::Event(event) => {
                    new_key |= matches!(event, Event::Epoch(_));
                    self.told(number, event);
                }
                Output::Beacon(body) => {
                    let me = session.me();
                    self.send_up(number, Parcel::Beacon { from: me, body });
                }
                Output::Vouched { from, vouch } => {
                    let checker = device.checkers.entry(from).or_default();
                    let released = checker.beacon(&vouch, now);
                    for (stream, envelope) in released {
                        self.open(number, from, stream, &envelope);
                    }
                    self.findings(number, from);
                }
                Output::Timeout(at) => {
                    device.timeout = at;
                    break;
                }
            }
        }
        assert_eq!(taken, 0, "a key to use is of an epoch whose key is there");
        self.look(number, new_key);
        self.bounded(number);
    }

    /// What a session believes, against what is true.
    fn look(&mut self, number: usize, new_key: bool) {
        let now = self.local(number);
        let device = &mut self.devices[number];
        let Some(session) = &device.session else { return };
        let newest = session.newest_epoch();
        if device.learned.last().is_none_or(|(epoch, _)| *epoch < newest) {
            device.learned.push((newest, now));
        }
        let Some(head) = session.head() else { return };
        device.leader = session.leader();
        let heard = session.heard();
        let held = if new_key { session.held_keys() } else { Vec::new() };
        let (name, me) = (device.name.clone(), session.me());
        if let Some((beat, anchor)) = heard {
            let word = beat.or((device.proved.is_none()).then_some(head));
            let at = word.and_then(|word| self.book.word(&name, &word));
            device.hears(self.now, at, anchor);
        }
        if self.devices[number].head.replace(head) != Some(head)
            && let Some(digest) = self.devices[number].session.as_ref().and_then(|session| session.digest())
        {
            self.book.stands(&name, &head, &digest);
        }
        self.book.holds(&name, me, &held);
    }

    fn posts(&mut self, number: usize, slot: Slot, body: bytes::Bytes) {
        let message = self.read(&body);
        let topic = message.as_ref().map(Topic::of);
        self.trace.line(self.now, format!("{} posts {topic:?} {}", self.devices[number].name, body.len()));
        let me = self.devices[number].me();
        match &message {
            // What a leader signed and others pass on, as proof against it, is not said by them.
            Some(Message::Link(link)) if Some(link.body.leader) != me => {}
            Some(Message::Heartbeat(beat)) if Some(beat.body.leader) != me => {}
            Some(message) => {
                let device = &self.devices[number];
                self.book.said(self.now, slot, message, |since| device.stood_since(since));
            }
            None => {}
        }
        let Some(from) = self.devices[number].me() else { return };
        self.send_up(number, Parcel::Post(Post { seq: 0, from, slot, body }));
    }

    fn keys(&mut self, number: usize, change: KeyChange) {
        let now = self.local(number);
        let device = &mut self.devices[number];
        let ended = device.session.as_ref().is_none_or(|session| session.head().is_none());
        let link = match &change {
            // Its elements hear nothing more.
            KeyChange::Seal { .. } | KeyChange::Open { .. } if ended => return,
            KeyChange::Seal { epoch, .. } | KeyChange::Open { epoch, .. } => {
                let held = device.session.as_ref().map(|session| session.held_keys()).unwrap_or_default();
                held.iter().find(|(held, ..)| held == epoch).map(|(_, link, _)| *link)
            }
            _ => None,
        };
        match &change {
            KeyChange::Open { from, stream, kid, base_key, epoch, .. } => {
                if device.evil && device.hoard.len() < 2_000 {
                    let base_key = *base_key.expose();
                    let (from, stream, kid) = (*from, *stream, *kid);
                    let link = link.unwrap_or_default();
                    device.hoard.push(Stolen { from, stream, kid, base_key, link });
                }
                let checker = device.checkers.entry(*from).or_default();
                checker.opened(*kid, *epoch, now);
                checker.watch(*stream, now);
                let (from, stream) = (*from, *stream);
                self.stated(number, from, stream);
            }
            KeyChange::Expire { before } => {
                device.checkers.values_mut().for_each(|checker| checker.expire(*before));
            }
            KeyChange::Close { from, stream } => {
                if let Some(checker) = device.checkers.get_mut(from) {
                    checker.forget(*stream);
                }
            }
            _ => {}
        }
        self.devices[number].elements.apply(change, link);
    }

    /// Somebody was told of a stream: its sender has opened it.
    fn stated(&self, to: usize, from: meeting_wire::ParticipantId, stream: meeting_wire::StreamId) {
        let sender = self.devices.iter().find(|device| device.me() == Some(from));
        if let Some(sender) = sender.filter(|sender| !sender.evil) {
            let (to, from) = (&self.devices[to].name, &sender.name);
            assert!(stream.0 < sender.next_stream, "{to} is told of a stream that {from} never opened");
        }
    }

    fn told(&mut self, number: usize, event: Event) {
        let honest = !self.cast.evil_leader;
        let name = self.devices[number].name.clone();
        match &event {
            Event::Phase(Phase::Ended(reason)) => {
                self.trace.line(self.now, format!("{name} ended: {reason:?}"));
                if *reason == EndReason::LeaderMisbehaved {
                    // What Eve said falsely as a member counts against her once she leads.
                    let leader = self.devices[number].leader;
                    let eve = leader.is_some_and(|leader| self.eves.contains(&leader));
                    assert!(!honest || eve, "{name} accuses an honest leader");
                }
                if *reason == EndReason::LeaderLeft {
                    let leader = self.devices[number].leader;
                    let said = leader
                        .is_none_or(|leader| self.eves.contains(&leader) || self.book.over.contains(&leader));
                    assert!(said, "{name} takes a meeting for over that its leader has not ended");
                }
                if matches!(reason, EndReason::Refused | EndReason::Locked) {
                    let device = &self.devices[number];
                    let asked = self.now - device.entered;
                    let away = device.me().is_some_and(|me| self.book.turned_away.contains(&me));
                    assert!(away || asked > PATIENCE, "{name} is turned away by no leader, after {asked} ms");
                }
                let device = &mut self.devices[number];
                device.gone |= matches!(reason, EndReason::Left | EndReason::Removed);
                device.gone |= *reason == EndReason::Refused && device.refused;
                device.gone |= matches!(reason, EndReason::LeaderLeft | EndReason::LeaderMisbehaved);
                if !device.gone {
                    let pause = self.dice.between(500, 8_000);
                    self.after(pause, Happening::Returns(number));
                }
            }
            Event::Phase(phase) => self.trace.line(self.now, format!("{name} {phase:?}")),
            Event::LeaderChanged { .. } => self.tally.takeovers += 1,
            Event::Epoch(epoch) => self.tally.epochs = self.tally.epochs.max(*epoch),
            Event::Misbehaviour(text) => {
                self.trace.line(self.now, format!("{name} is told: {text}"));
                let may = self.cast.evil_member || !honest || self.cast.successors > 0;
                assert!(may, "{name} accuses somebody honest: {text}");
            }
            _ => {}
        }
    }
}

/// How long at least whoever wants in asks, by clocks that drift.
const PATIENCE: u64 = 119_000;

//! What people and machines do: come, go, sleep, crash, lose their network, press buttons.

use std::sync::Arc;

use meeting_wire::{Kind, StreamId};

use super::{World, device::Device, happen::Happening, weather::Path};
use crate::{
    beacon::Checker,
    identity::DeviceKey,
    session::{Command, Creating, Input, Joining, OpenStream, Role, Session, Successors},
};

impl World {
    /// The creator opens the meeting.
    pub(super) fn open_meeting(&mut self, successors: Successors) {
        let now = self.local(0);
        let device = &mut self.devices[0];
        let creating = Creating {
            link: self.link.duplicate(),
            device: device.key.clone(),
            name: device.name.clone(),
            role: Role::Participant,
            successors,
        };
        let session = Session::create(creating, now, &mut device.rng).expect("the creator's own link");
        device.enter(session, self.now);
        device.begun = true;
        self.begin(0);
    }

    pub(super) fn add_device(&mut self, name: String, key: Arc<DeviceKey>) -> usize {
        let path = Path::new(self.cast.even(), &mut self.dice);
        let ppm = self.dice.between(0, 1_001) as i64 - 500;
        let clock = (self.dice.between(0, 1 << 40), ppm);
        self.devices.push(Device::new(name, key, path, clock, self.dice.split()));
        self.devices.len() - 1
    }

    pub(super) fn arrive(&mut self) {
        if self.devices.len() >= MOST {
            return;
        }
        let key = super::super::device(&mut self.dice.0);
        let number = self.devices.len();
        let evil = self.cast.evil_member && number == 2;
        let name = if evil { "Eve".to_owned() } else { format!("p{number}") };
        let number = self.add_device(name, key);
        self.devices[number].evil = evil;
        if evil {
            self.after(5_000, Happening::Lie(number));
        }
        self.enter(number);
    }

    /// A device asks for a place, anew if it had one.
    pub(super) fn enter(&mut self, number: usize) {
        let now = self.local(number);
        let device = &mut self.devices[number];
        let joining = Joining {
            link: self.link.duplicate(),
            device: device.key.clone(),
            name: device.name.clone(),
            role: Role::Participant,
        };
        device.line = 0;
        let again = std::mem::replace(&mut device.begun, true);
        let mut session = Session::join(joining, now, &mut device.rng);
        if device.evil {
            session.keep_past();
            self.eves.push(session.me());
        }
        device.enter(session, self.now);
        if again {
            self.drain(number);
            self.connect(number);
            self.open_stream(number);
        } else {
            self.begin(number);
        }
    }

    fn begin(&mut self, number: usize) {
        self.tally.stays += 1;
        self.trace.line(self.now, format!("{} begins", self.devices[number].name));
        self.drain(number);
        self.connect(number);
        self.open_stream(number);
        let phase = self.dice.between(0, 330);
        self.after(phase, Happening::Media(number));
    }

    pub(super) fn connect(&mut self, number: usize) {
        let device = &mut self.devices[number];
        if device.line != 0 || device.session.is_none() {
            return;
        }
        let later = device.cut.max(device.asleep);
        if later > self.now {
            self.at(later + 100, Happening::Connects(number));
            return;
        }
        self.lines += 1;
        device.line = self.lines;
        (device.up, device.down) = (self.now, self.now);
        self.feed(number, Input::Connected);
        self.replay_board(number);
    }

    pub(super) fn disconnect(&mut self, number: usize) {
        if self.devices[number].line == 0 {
            return;
        }
        self.devices[number].line = 0;
        self.trace.line(self.now, format!("{} is cut off", self.devices[number].name));
        self.feed(number, Input::Disconnected);
        let pause = self.dice.between(100, 5_000);
        self.after(pause, Happening::Connects(number));
    }

    pub(super) fn wake(&mut self, number: usize) {
        let device = &mut self.devices[number];
        let slept = self.now - device.awake_since;
        device.awake_since = self.now;
        // Its pipelines may run before its agent has noticed anything.
        let streams: Vec<StreamId> = device.elements.sealing.keys().copied().collect();
        for stream in streams {
            self.seal(number, stream);
        }
        if slept > 5_000 {
            self.disconnect(number);
        }
    }

    fn open_stream(&mut self, number: usize) {
        let device = &mut self.devices[number];
        let stream = StreamId(device.next_stream);
        device.next_stream += 1;
        let wish = OpenStream {
            stream,
            kind: if stream.0.is_multiple_of(2) { Kind::Audio } else { Kind::Video },
            track: format!("track {}", stream.0),
            caps: "video/x-h264".into(),
            random: self.dice.bytes16(),
        };
        self.feed(number, Input::Command(Command::OpenStream(wish)));
    }

    /// Something happens in somebody's life.
    pub(super) fn scene(&mut self) {
        let pause = if self.healed { 2_000 } else { self.dice.between(500, 14_000) };
        self.after(pause, Happening::Scene);
        let leader = self.devices.iter().position(Device::leads);
        if let Some(leader) = leader {
            self.approve(leader);
        }
        self.book.recipients();
        if self.healed {
            if let Some(leader) = leader {
                self.feed(leader, Input::Command(Command::Lock(false)));
            }
            return;
        }
        if self.cast.evil_leader && self.now > self.end / 3 {
            self.trick();
            return;
        }
        let who = self.somebody();
        let kinds = if self.cast.even() { 9 } else { 17 };
        let kind = self.dice.between(0, kinds);
        self.trace.line(self.now, format!("scene {kind} {}", self.devices[who].name));
        match kind {
            0 | 1 => self.arrive(),
            2 => self.leave(who),
            3 => self.remove(leader, who),
            4 => self.lead(leader, Command::Rotate),
            5 => {
                let locked = self.dice.chance(40);
                self.lead(leader, Command::Lock(locked));
            }
            6 if self.devices[who].next_stream < 20 => self.open_stream(who),
            7 => {
                let stream = StreamId(self.dice.between(1, 20) as u32);
                self.feed(who, Input::Command(Command::CloseStream(stream)));
                self.devices[who].elements.sealing.remove(&stream);
            }
            8 => {
                let stream = StreamId(1);
                let caps = "video/x-vp8".into();
                self.feed(who, Input::Command(Command::StreamCaps { stream, caps }));
            }
            9 => self.disconnect(who),
            10 => {
                self.devices[who].cut = self.now + self.dice.between(3_000, 40_000);
                let (line, notice) = (self.devices[who].line, self.dice.between(1_000, 3_000));
                self.after(notice, Happening::GivenUp(who, line));
            }
            11 => self.sleep(who),
            12 => self.crash(who),
            13 => {
                self.tally.did("board lost");
                self.relay = self.relay.restarted();
                (0..self.devices.len()).for_each(|device| self.disconnect(device));
            }
            14 => (0..3).for_each(|_| self.arrive()),
            15 if self.cast.beacons => {
                self.crash_watching(who);
                if !self.cast.honest_relay {
                    self.play_frames_again(who);
                }
            }
            _ => {
                // everybody's network at once
                for device in 0..self.devices.len() {
                    self.devices[device].path = Path::new(false, &mut self.dice);
                }
            }
        }
    }

    fn leave(&mut self, who: usize) {
        if self.devices[who].leads() && (self.cast.successors == 0 || self.dice.chance(70)) {
            return;
        }
        self.feed(who, Input::Command(Command::Leave));
    }

    fn remove(&mut self, leader: Option<usize>, who: usize) {
        let Some(leader) = leader.filter(|leader| *leader != who && self.dice.chance(40)) else { return };
        if let Some(victim) = self.devices[who].me() {
            self.feed(leader, Input::Command(Command::Remove(victim)));
            self.devices[who].refused = true;
        }
    }

    fn lead(&mut self, leader: Option<usize>, command: Command) {
        if let Some(leader) = leader {
            self.feed(leader, Input::Command(command));
        }
    }

    fn approve(&mut self, leader: usize) {
        let waiting = self.devices[leader].session.as_ref().map(|session| session.state().waiting);
        for waiting in waiting.unwrap_or_default() {
            self.feed(leader, Input::Command(Command::Approve(waiting.participant)));
        }
    }

    fn sleep(&mut self, who: usize) {
        if self.devices[who].leads() && self.dice.chance(60) {
            return;
        }
        let long = if self.dice.chance(15) { 180_000 } else { 20_000 };
        let until = self.now + self.dice.between(200, long);
        let (now, still) = (self.now, self.dice.chance(25));
        let device = &mut self.devices[who];
        if device.asleep > now {
            return;
        }
        self.trace.line(now, format!("{} sleeps until {until}, its clock too: {still}", device.name));
        if still {
            device.stand_still(now, until);
            self.tally.did("clock stood still");
        } else {
            (device.asleep, device.awake_since) = (until, now);
        }
        self.at(until, Happening::Wakes(who));
    }

    /// Agent and pipelines are gone; what they knew is nowhere.
    fn crash(&mut self, who: usize) {
        let device = &mut self.devices[who];
        if device.leads() && (self.cast.successors == 0 || self.dice.chance(60)) || device.gone {
            return;
        }
        device.line = 0;
        device.elements = Default::default();
        if device.end() {
            let pause = self.dice.between(500, 8_000);
            self.after(pause, Happening::Returns(who));
        }
    }

    /// No session, checker or element of a device keeps more than it declares, whatever it was sent.
    pub(super) fn bounded(&self, number: usize) {
        let device = &self.devices[number];
        let sizes = device.session.iter().flat_map(Session::sizes);
        let checkers = device.checkers.values().flat_map(Checker::sizes);
        for (what, len, limit) in sizes.chain(checkers).chain(device.elements.sizes()) {
            assert!(len <= limit, "{} keeps {len} {what}, {limit} are declared", device.name);
        }
    }

    /// Relay and network do what they should from now on, and nobody starts anything new.
    pub(super) fn heal(&mut self) {
        self.trace.line(self.now, "all is well again".into());
        self.healed = true;
        (self.relay.moods, self.relay.fork, self.relay.rollback) = (Vec::new(), None, None);
        for number in 0..self.devices.len() {
            let device = &mut self.devices[number];
            device.path = Path { latency: 30, jitter: 10, loss: 0 };
            device.cut = self.now;
            device.go_on(self.now);
            self.disconnect(number);
        }
    }
}

/// Devices that ever come.
const MOST: usize = 12;

//! Whole meetings against everybody who means harm, from one seed.
//!
//! ```text
//!  Scene (joins, leaves, sleeps, crashes) --> Device { Session, Elements with real keys, Checker, clock }
//!                                                 |   ^
//!                                    Path (delay, loss), then the relay and its Moods
//!                                                 v   |
//!  Lies (members, ex-members, leaders) --> Relay { log, cells, the newest of all it ever saw }
//!
//!  Book: what leaders signed and senders sealed, against which every step is held
//! ```
//!
//! The promises are assertions at the place where they would be broken; whichever fails, [`simulate`] gives the seed's last
//! lines. The relay is the board of PROTOCOL.md 2.1: what the real one adds, its own tests show.

mod book;
mod device;
mod dice;
mod elements;
mod evil;
mod happen;
mod media;
mod mischief;
mod relay;
mod scene;
mod tally;
mod trick;
mod weather;

use std::{
    collections::{BTreeMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use meeting_wire::ParticipantId;

pub use self::tally::Tally;
use self::{book::Book, device::Device, dice::Dice, dice::Trace, happen::Happening, relay::Relay};
use crate::{
    BootTime,
    board::Board,
    crypto::{memo::Memo, sign::Hash},
    ledger,
    link::MeetingLink,
    session::{Input, Phase, Session, Successors},
    weakness::{self, Weakness},
};

/// What became of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The seed it replays from.
    pub seed: u64,
    /// Of everything that happened.
    pub hash: [u8; 32],
    /// What promise was broken, with the last lines before.
    pub failure: Option<String>,
    /// Counts of what was tried, so that nobody takes an empty run for a good one.
    pub tally: Tally,
}

/// Runs one meeting of this length, with a defence switched off or none.
pub fn simulate(seed: u64, length: Duration, weakness: Option<Weakness>) -> Outcome {
    weakness::set(weakness);
    let scope = (ledger::Scope::new(), Memo::new());
    let mut world = World::new(seed, length);
    let result = catch_unwind(AssertUnwindSafe(|| world.live()));
    drop(scope);
    weakness::set(None);
    let failure = result.err().map(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        format!("{}{}", world.trace.tail(), text.unwrap_or_default())
    });
    Outcome { seed, hash: world.trace.hash(), failure, tally: world.tally }
}

/// Who takes part and how they mean it: drawn first.
#[derive(Clone, Copy, Debug)]
struct Cast {
    people: u64,
    successors: u8,
    /// The relay does what it should.
    honest_relay: bool,
    /// And the network too: the short limits hold.
    calm: bool,
    evil_member: bool,
    evil_leader: bool,
    /// Which way it breaks the rules.
    trick: u64,
    beacons: bool,
}

impl Cast {
    /// The network and what happens to people are no worse than where a leader's lie has to show in time.
    fn even(&self) -> bool {
        self.calm || self.evil_leader && self.honest_relay
    }
}

impl Cast {
    fn draw(seed: u64, dice: &mut Dice) -> Self {
        let (kind, round) = (seed % 8, seed / 8);
        let (calm, evil_leader) = (kind == 3, kind == 7);
        let honest_relay = match (calm, evil_leader) {
            (true, _) => true,
            // each trick before the one and before the other
            (_, true) => (round / trick::TRICKS).is_multiple_of(2),
            _ => dice.chance(20),
        };
        Self {
            people: dice.between(3, 9),
            successors: if evil_leader || dice.chance(50) { 0 } else { dice.between(1, 4) as u8 },
            honest_relay,
            calm,
            evil_member: !evil_leader && dice.chance(60),
            evil_leader,
            trick: round % trick::TRICKS,
            // half of the time goes into their signatures
            beacons: kind == 1,
        }
    }
}

struct World {
    now: u64,
    end: u64,
    dice: Dice,
    cast: Cast,
    link: MeetingLink,
    board: Board,
    devices: Vec<Device>,
    relay: Relay,
    queue: BTreeMap<(u64, u64), Happening>,
    queued: u64,
    lines: u64,
    /// What Eve was called in each of her stays.
    eves: Vec<ParticipantId>,
    /// Frames that she sealed as somebody else.
    forgeries: Vec<weather::Parcel>,
    frames: u64,
    /// Frames that the relay altered and that open all the same.
    altered: HashSet<[u8; 16]>,
    watched: Vec<media::Watched>,
    /// Before whom the evil leader tried its trick.
    tricked: Option<Vec<usize>>,
    /// Links that it signed then.
    lies: HashSet<Hash>,
    /// Everything is well again: nobody starts anything new.
    healed: bool,
    book: Book,
    trace: Trace,
    tally: Tally,
}

impl World {
    fn new(seed: u64, length: Duration) -> Self {
        let mut dice = Dice::new(seed);
        let cast = Cast::draw(seed, &mut dice);
        let key = super::device(&mut dice.0);
        let link = MeetingLink::new("relay.example".into(), key.public().fingerprint(), None, &mut dice.0);
        let mut world = Self {
            now: 0,
            end: length.as_millis() as u64,
            board: Board::new(link.secret.duplicate(), link.meeting),
            book: Book::new(&link),
            link,
            cast,
            dice,
            devices: Vec::new(),
            relay: Relay::default(),
            queue: BTreeMap::new(),
            queued: 0,
            lines: 0,
            eves: Vec::new(),
            forgeries: Vec::new(),
            frames: 0,
            altered: HashSet::new(),
            watched: Vec::new(),
            tricked: None,
            lies: HashSet::new(),
            healed: false,
            trace: Trace::new(),
            tally: Tally::default(),
        };
        world.trace.line(0, format!("seed {seed}: {cast:?}"));
        world.add_device("leader".into(), key);
        world
    }

    fn live(&mut self) {
        self.book.leader_is_evil = self.cast.evil_leader;
        self.devices[0].evil = self.cast.evil_leader;
        let successors = match self.cast.successors {
            0 => Successors::Nobody,
            n => Successors::FirstPresent(n),
        };
        self.open_meeting(successors);
        for _ in 1..self.cast.people {
            let at = self.dice.between(0, 30_000);
            self.at(at, Happening::Arrives);
        }
        self.at(5_000, Happening::Scene);
        if !self.cast.honest_relay {
            self.at(10_000, Happening::Mischief);
        }
        self.until(self.end);
        self.heal();
        self.until(self.end + HEALING);
        assert!(self.is_told(), "the leader's lie goes on when all is well again");
        // The chain or a key may have changed in this very moment: what tells of it is on its way.
        while let Some(what) = self.apart().or_else(|| self.unheard()) {
            assert!(self.now < self.end + HEALING + SETTLING, "{what}");
            self.until(self.now + 500);
        }
        if self.devices.iter().any(Device::leads) {
            self.tally.together += self.honest().count() as u64;
        }
        self.book.recipients();
    }

    fn until(&mut self, end: u64) {
        let mut still = 0;
        loop {
            let queued = self.queue.first_key_value().map(|((at, _), _)| *at).unwrap_or(u64::MAX);
            let timer = |(i, device): (usize, &Device)| {
                device.session.as_ref()?;
                Some((device.global(device.timeout, self.now).max(device.asleep), i))
            };
            let (timeout, device) =
                self.devices.iter().enumerate().filter_map(timer).min().unwrap_or((u64::MAX, 0));
            let next = queued.min(timeout);
            if next > end {
                self.now = end;
                return;
            }
            still = if next > self.now { 0 } else { still + 1 };
            assert!(still < 50_000, "time stands still");
            self.now = self.now.max(next);
            if queued <= timeout {
                if let Some((_, happening)) = self.queue.pop_first() {
                    self.happens(happening);
                }
            } else {
                self.feed(device, Input::Timeout);
            }
        }
    }

    fn at(&mut self, at: u64, happening: Happening) {
        self.queued += 1;
        self.queue.insert((at.max(self.now), self.queued), happening);
    }

    fn after(&mut self, delay: u64, happening: Happening) {
        self.at(self.now + delay, happening);
    }

    fn somebody(&mut self) -> usize {
        self.dice.between(0, self.devices.len() as u64) as usize
    }

    /// The honest ones who are in a stay, and have not gone for good.
    fn honest(&self) -> impl Iterator<Item = (&Device, &Session)> {
        let honest = self.devices.iter().filter(|device| !device.evil && !device.gone);
        honest.filter_map(|device| Some((device, device.session.as_ref()?)))
    }

    /// Why the honest ones are not in one meeting, or out with a reason.
    fn apart(&self) -> Option<String> {
        let leaders = self.devices.iter().filter(|device| device.leads()).filter_map(|d| d.session.as_ref());
        let heads: Vec<_> = leaders.filter_map(Session::head).collect();
        if heads.len() > 1 {
            return Some(format!("{} lead when all is well again", heads.len()));
        }
        self.honest().find_map(|(device, session)| {
            let (phase, name) = (session.state().phase, &device.name);
            if heads.is_empty() {
                return (phase == Phase::Live).then(|| format!("{name} is live and nobody leads"));
            }
            let there = session.head().is_some_and(|head| heads.contains(&head));
            let is_back = phase == Phase::Live && there;
            (!is_back).then(|| format!("{name} does not come back: {phase:?}, at a head: {there}"))
        })
    }

    /// An honest person who does not hear a stream of another one, where somebody honest leads.
    fn unheard(&self) -> Option<String> {
        if self.cast.evil_leader || !self.devices.iter().any(Device::leads) {
            return None;
        }
        for (sender, session) in self.honest() {
            let me = session.me();
            for (stream, sealing) in &sender.elements.sealing {
                for (other, _) in self.honest().filter(|(_, session)| session.me() != me) {
                    let opens = other.elements.opening.get(&(me, *stream));
                    if !opens.is_some_and(|opening| opening.opens(sealing)) {
                        return Some(format!("{} does not hear {}", other.name, sender.name));
                    }
                }
            }
        }
        None
    }

    fn local(&self, device: usize) -> BootTime {
        self.devices[device].local(self.now)
    }
}

/// How long everybody has to find together again: 120 s for who is stale, 90 s for who is missing, and the way back in.
const HEALING: u64 = 240_000;
/// How long a new key may take to be of use to everybody.
const SETTLING: u64 = 2_000;

#[cfg(test)]
mod tests;

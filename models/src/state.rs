//! What there is at one moment: people, links and heartbeats. All that was ever sent stays with the relay.

use meeting_protocol::{BootTime, testing::limits::BEAT};

use crate::{age::Age, rules::Config, steps};

/// A person by number; also the order of succession.
pub type Who = u8;
/// A link by its place in [`State::links`]: its hash.
pub type LinkId = u8;

/// Why a link is its signer's to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grounds {
    /// It leads.
    Leads,
    /// It takes over with these voters, a bit each, the oldest of whose votes names this heartbeat.
    Votes(u8, u8),
    /// It takes over from a leader that resigned.
    Resigned,
}

/// A link. Each one opens an epoch: links that open none change nothing that is modelled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    pub previous: Option<LinkId>,
    pub number: u8,
    pub leader: Who,
    pub grounds: Grounds,
    /// A bit for each person: those who are present. Others only count where a rule is broken.
    pub roster: u8,
    /// The tick it was made in.
    pub at: u8,
}

impl Link {
    /// Each link opens the next epoch.
    pub fn epoch(&self) -> u8 {
        self.number
    }

    pub fn has(&self, who: Who) -> bool {
        self.roster & 1 << who != 0
    }

    /// The place of somebody in the order of succession.
    pub fn rank(&self, who: Who) -> Option<u8> {
        let before = |other: &Who| *other != self.leader && self.has(*other);
        before(&who).then(|| (0..who).filter(before).count() as u8)
    }
}

/// A heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Beat {
    pub leader: Who,
    pub counter: u8,
    pub head: LinkId,
    /// Leader time in ms.
    pub time: u64,
    /// The tick it was sent in, and the pulses that it returns.
    pub tick: u8,
}

/// A silence vote.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vote {
    pub voter: Who,
    pub head: LinkId,
    pub counter: u8,
}

/// What somebody does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Duty {
    Lead(Lead),
    Follow(Follow),
    Out,
}

/// What only a leader has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lead {
    /// The tick its time counts from.
    pub since: u8,
    /// Of its newest heartbeat.
    pub counter: u8,
    /// How often it has beaten in this tick.
    pub beaten: u8,
    pub asleep: bool,
}

impl Lead {
    pub fn new(since: u8) -> Self {
        Self { since, counter: 0, beaten: 0, asleep: false }
    }
}

/// What only a follower has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Follow {
    pub age: Age,
    /// Counter and time of the newest heartbeat.
    pub last: Option<(u8, u64)>,
}

/// Somebody.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Person {
    pub duty: Duty,
    pub head: LinkId,
    /// The newest epoch that a link or a heartbeat named.
    pub known: u8,
    /// The newest key, as the link that its wrap came for.
    pub key: Option<LinkId>,
    /// For the properties: all heads so far, a bit each.
    pub heads: u32,
    /// For the properties: went back in time or epoch, or left a leader that was heard.
    pub went_back: bool,
    pub left_early: bool,
}

/// One moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub now: u8,
    pub people: Vec<Person>,
    pub links: Vec<Link>,
    pub beats: Vec<Beat>,
    /// The newest of each voter at each head.
    pub votes: Vec<Vote>,
    /// Head and leader of those who resigned.
    pub resigned: Vec<(LinkId, Who)>,
    pub rotations: u8,
    pub removals: u8,
    pub early_beats: u8,
    pub sleeps: u8,
    /// Counted only where it is limited.
    pub handed: u8,
}

impl State {
    /// Everybody is in and has the first key; nobody has heard a heartbeat.
    pub fn first(config: &Config) -> Self {
        let roster = (1 << config.people) - 1;
        let genesis = Link { previous: None, number: 0, leader: 0, grounds: Grounds::Leads, roster, at: 0 };
        let person = |who| Person {
            duty: if who == 0 {
                Duty::Lead(Lead::new(0))
            } else {
                Duty::Follow(Follow { age: Age::new(time(0)), last: None })
            },
            head: 0,
            known: 0,
            key: Some(0),
            heads: 1,
            went_back: false,
            left_early: false,
        };
        let mut first = Self {
            now: 0,
            people: (0..config.people).map(person).collect(),
            links: vec![genesis],
            beats: Vec::new(),
            votes: Vec::new(),
            resigned: Vec::new(),
            rotations: 0,
            removals: 0,
            early_beats: 0,
            sleeps: 0,
            handed: 0,
        };
        (1..config.people).for_each(|who| first.pulse(who));
        steps::beat(&mut first, 0);
        first
    }

    pub fn person(&self, who: Who) -> &Person {
        &self.people[usize::from(who)]
    }

    pub fn person_mut(&mut self, who: Who) -> &mut Person {
        &mut self.people[usize::from(who)]
    }

    pub fn link(&self, id: LinkId) -> &Link {
        &self.links[usize::from(id)]
    }

    /// The link at somebody's head.
    pub fn head(&self, who: Who) -> &Link {
        self.link(self.person(who).head)
    }

    /// Whether `link` is `from` or comes after it.
    pub fn extends(&self, link: LinkId, from: LinkId) -> bool {
        link == from || self.link(link).previous.is_some_and(|previous| self.extends(previous, from))
    }

    /// The takeovers that led to a link, the first one first.
    fn takeovers(&self, link: LinkId) -> Vec<LinkId> {
        let here = self.link(link);
        let mut before = here.previous.map(|previous| self.takeovers(previous)).unwrap_or_default();
        before.extend((here.grounds != Grounds::Leads).then_some(link));
        before
    }

    /// Whether the branch that a link stands on goes before the one that another stands on: the longer one where it goes
    /// on from the other, else the one that parted at the earlier link, else the first in the order of succession.
    pub fn goes_before(&self, config: &Config, link: LinkId, other: LinkId) -> bool {
        let (ours, theirs) = (self.takeovers(link), self.takeovers(other));
        let parted = ours.iter().zip(&theirs).position(|(one, other)| one != other);
        let Some(at) = parted else { return ours.len() > theirs.len() };
        let place = |takeover: LinkId| {
            let link = self.link(takeover);
            let last = self.link(link.previous.unwrap_or_default());
            (last.number, last.rank(link.leader))
        };
        let (one, other) = (place(ours[at]), place(theirs[at]));
        // Without the rule only those who took over from one link know which of them is first.
        (one.0 == other.0 || config.rules.earlier_first) && one < other
    }

    /// Whether somebody has a key of the leader they follow, and so a pairing.
    pub fn is_paired(&self, who: Who) -> bool {
        self.person(who).key.is_some_and(|key| self.link(key).leader == self.head(who).leader)
    }

    /// A pulse leaves.
    pub fn pulse(&mut self, who: Who) {
        let (now, leader) = (self.now, self.head(who).leader);
        if let Duty::Follow(follow) = &mut self.person_mut(who).duty {
            follow.age.sent(nonce(who, now, leader), time(now));
        }
    }

    /// The key that somebody seals under now.
    pub fn sealing(&self, config: &Config, who: Who) -> Option<LinkId> {
        let person = self.person(who);
        let fresh = match &person.duty {
            Duty::Lead(_) => true,
            Duty::Follow(follow) => follow.age.is_fresh(config.rules.age, time(self.now)),
            Duty::Out => false,
        };
        let retired = |key: &LinkId| config.rules.retire && self.link(*key).epoch() < person.known;
        person.key.filter(|key| fresh && !retired(key))
    }

    /// Who was handed the key of a link.
    pub fn is_handed(&self, config: &Config, link: &Link, who: Who) -> bool {
        match link.previous {
            Some(previous) if !config.rules.new_roster => self.link(previous).has(who),
            _ => link.has(who),
        }
    }

    /// Whether somebody who keeps everything can know the key of a link.
    pub fn can_know(&self, config: &Config, link: &Link, who: Who) -> bool {
        let derives = |previous| !config.rules.fresh_key && self.can_know(config, self.link(previous), who);
        self.is_handed(config, link, who) || link.previous.is_some_and(derives)
    }
}

/// A tick on everybody's clock.
pub fn time(tick: u8) -> BootTime {
    BootTime(0) + BEAT * u32::from(tick)
}

/// The nonce of the pulse that somebody sent to a leader in a tick.
pub fn nonce(who: Who, tick: u8, leader: Who) -> [u8; 16] {
    let mut nonce = [0; 16];
    nonce[..3].copy_from_slice(&[who, tick, leader]);
    nonce
}

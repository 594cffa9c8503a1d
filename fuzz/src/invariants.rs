//! A meeting of three, and what holds in it after every step, whatever relay and members do.

use std::{cell::RefCell, collections::HashMap, rc::Rc, time::Duration};

use bytes::Bytes;
use meeting_protocol::{
    session::{EndReason, Phase, Successors},
    testing::{Fate, Meeting},
};
use meeting_wire::{ParticipantId, Post, Slot, StreamId};

use crate::fresh;

/// What the relay does and has done, shared with the closure that does it.
#[derive(Default)]
pub struct Weather {
    /// What happens to posts to a node.
    pub fate: HashMap<usize, Fate>,
    /// Posts of this slot reach nobody: 1 log, 2 cell, 3 direct.
    pub withheld: u8,
    /// When each post was made.
    made: HashMap<Bytes, u64>,
    /// What is on its way to a node and may be the leader's word.
    words: HashMap<usize, Vec<Word>>,
}

/// A heartbeat, or what was sent to one person alone: a welcome for one.
struct Word {
    comes: u64,
    made: u64,
    heartbeat: bool,
}

/// Alice, who leads, Bob and Carol, each with a camera, and the relay.
pub struct Trio {
    pub meeting: Meeting,
    pub weather: Rc<RefCell<Weather>>,
    /// One leader for the whole meeting, so that there is one branch.
    single: bool,
    keys: HashMap<(ParticipantId, StreamId, u64), [u8; 32]>,
    /// Since when each node has been seen to be in.
    entered: HashMap<usize, u64>,
}

impl Trio {
    pub fn new(successors: Successors) -> Self {
        let single = successors == Successors::Nobody;
        let weather = Rc::new(RefCell::new(Weather::default()));
        let mut meeting = Meeting::new(fresh::seed(), successors);
        let sky = weather.clone();
        meeting.tamper =
            Some(Box::new(move |now, from, to, post| sky.borrow_mut().decide(now, from, to, post)));
        meeting.join("Bob");
        meeting.join("Carol");
        meeting.run_until(Duration::from_secs(20), |meeting| meeting.together(&[0, 1, 2]));
        for node in 0..3 {
            meeting.stream(node, "camera");
        }
        Self { meeting, weather, single, keys: HashMap::new(), entered: HashMap::new() }
    }

    /// Lets time pass; nobody floods the relay meanwhile.
    pub fn run(&mut self, ms: u64) {
        let before = self.meeting.posts.len();
        self.meeting.run(Duration::from_millis(ms));
        let posts = self.meeting.posts.len() - before;
        let nodes = self.meeting.nodes.len();
        let most = nodes * (200 + ms as usize / 10);
        assert!(posts <= most, "{posts} posts of {nodes} people in {ms} ms");
    }

    /// Hands a node a post from before, or one made of it.
    pub fn hand(&mut self, to: usize, post: Post) {
        let now = self.meeting.now;
        self.weather.borrow_mut().word(now, now, to, &post);
        self.meeting.inject(to, post);
    }

    /// What holds for these nodes, who are honest, among honest leaders.
    pub fn check(&mut self, honest: &[usize]) {
        for &node in honest {
            self.bounded(node);
            self.fresh(node);
            if self.single {
                self.agreed(node);
            }
        }
        if self.single {
            self.outsiders();
        }
    }

    /// Whose chain has the same link has the same key, whatever the leader: the link commits to it.
    pub fn committed(&self, honest: &[usize]) {
        let mut keys = HashMap::new();
        for node in honest {
            for (of, key) in self.meeting.nodes[*node].session.meeting_keys() {
                let known = *keys.entry(of).or_insert(key);
                assert!(known == key, "two keys for one link");
            }
        }
    }

    /// No honest leader is ever accused.
    pub fn nobody_accused(&self, honest: &[usize]) {
        for &node in honest {
            let ended = self.meeting.phase(node) == Phase::Ended(EndReason::LeaderMisbehaved);
            assert!(!ended, "{node} accuses an honest leader: {:?}", self.meeting.nodes[node].events);
        }
    }

    /// Queues and lists have ends.
    pub fn bounded(&self, node: usize) {
        let state = self.meeting.state(node);
        assert!(state.waiting.len() <= 64 && state.roster.len() <= 1000);
        assert!(state.streams.len() <= 64 * 1000);
        assert!(self.meeting.nodes[node].opens.len() <= EPOCHS * (state.streams.len() + 1));
    }

    /// Nobody seals or opens later than 8 s after the newest heartbeat that has come was made, or the welcome.
    fn fresh(&mut self, node: usize) {
        let (now, local) = (self.meeting.now, self.meeting.local(node));
        let lease = self.meeting.nodes[node].lease;
        assert!(lease <= local + LIMIT, "a lease of more than 8 s");
        let state = self.meeting.state(node);
        if matches!(state.phase, Phase::Joining(_)) {
            self.entered.remove(&node);
            return;
        }
        let entered = *self.entered.entry(node).or_insert(now);
        if state.leading || !self.single {
            return;
        }
        let weather = self.weather.borrow();
        let came = weather.words.get(&node).into_iter().flatten().filter(|word| word.comes <= now);
        let counts = came.filter(|word| word.heartbeat || word.made <= entered);
        let newest = counts.map(|word| word.made).max().unwrap_or_default();
        let until = newest + (local.0 - now) + LIMIT.as_millis() as u64;
        assert!(lease.0 <= until, "{node} goes on {} ms after 8 s without a heartbeat", lease.0 - until);
    }

    /// One stream has one key in an epoch, whoever has it.
    fn agreed(&mut self, node: usize) {
        let node = &self.meeting.nodes[node];
        let me = node.session.me();
        let own = node.seals.iter().map(|(stream, key)| ((me, *stream, key.epoch), key));
        let theirs = node.opens.iter().map(|(of, key)| (*of, key));
        for (of, key) in own.chain(theirs) {
            let known = *self.keys.entry(of).or_insert(key.base_key);
            assert!(known == key.base_key, "two keys for {of:?}");
        }
    }

    /// Who is not in the leader's roster opens nothing that the leader seals.
    fn outsiders(&self) {
        let roster = self.meeting.state(0).roster;
        for node in 1..self.meeting.nodes.len() {
            let me = self.meeting.nodes[node].session.me();
            let outside = roster.iter().all(|person| person.participant != me);
            assert!(
                !outside || !self.meeting.hears(0, StreamId(0), node),
                "{node} is not in and hears the leader"
            );
        }
    }
}

impl Weather {
    fn decide(&mut self, now: u64, from: usize, to: usize, post: &Post) -> Fate {
        if from != usize::MAX {
            self.made.entry(post.body.clone()).or_insert(now);
        }
        let slot = match post.slot {
            Slot::Log => 1,
            Slot::Cell => 2,
            Slot::Direct(_) => 3,
        };
        let fate = self.fate.get(&to).copied().filter(|_| self.withheld != slot);
        let fate = if self.withheld == slot { Fate::Drop } else { fate.unwrap_or(Fate::Deliver) };
        match fate {
            Fate::Deliver => self.word(now + LATENCY, now, to, post),
            Fate::Delay(ms) => self.word(now + LATENCY + ms, now, to, post),
            Fate::Drop => {}
        }
        fate
    }

    fn word(&mut self, comes: u64, now: u64, to: usize, post: &Post) {
        if post.slot != Slot::Log {
            let made = self.made.get(&post.body).copied().unwrap_or(now);
            let heartbeat = post.slot == Slot::Cell;
            self.words.entry(to).or_default().push(Word { comes, made, heartbeat });
        }
    }
}

/// As in `Meeting`.
const LATENCY: u64 = 20;
const LIMIT: Duration = Duration::from_secs(8);
/// Of which keys are kept at a time: the newest, eight that are closing, one that comes.
const EPOCHS: usize = 10;

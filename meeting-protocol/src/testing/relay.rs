//! The relay and the passing of time.

use std::time::Duration;

use meeting_wire::{Post, Slot};

use super::{Fate, Meeting, Node};
use crate::session::{Input, Output};

impl Meeting {
    /// The relay can be reached: it replays what the node has not seen, and to a newcomer nothing but cells.
    pub fn connect(&mut self, node: usize) {
        self.nodes[node].connected = true;
        self.feed(node, Input::Connected);
        let (me, seen) = (self.nodes[node].session.me(), self.nodes[node].seen);
        let replay: Vec<Post> = self
            .log
            .iter()
            .filter(|post| seen.is_some_and(|seen| post.seq > seen) && post.from != me)
            .cloned()
            .chain(self.cells.values().filter(|post| post.from != me).cloned())
            .collect();
        for post in replay {
            self.send(usize::MAX, node, post);
        }
    }

    /// The connection is gone, and what was on its way with it.
    pub fn disconnect(&mut self, node: usize) {
        self.nodes[node].connected = false;
        self.wire.retain(|_, (to, _)| *to != node);
        self.feed(node, Input::Disconnected);
    }

    /// The relay forgets everything.
    pub fn forget(&mut self) {
        self.log.clear();
        self.cells.clear();
    }

    /// Hands a post to one node as if the relay had just received it.
    pub fn inject(&mut self, to: usize, post: Post) {
        self.feed(to, Input::Post(post));
    }

    /// Lets time pass.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span.as_millis() as u64;
        self.run_until_or(end, |_| false);
    }

    /// Lets time pass until something holds.
    ///
    /// # Panics
    ///
    /// If it does not within `limit`.
    pub fn run_until(&mut self, limit: Duration, holds: impl FnMut(&Self) -> bool) {
        let end = self.now + limit.as_millis() as u64;
        assert!(self.run_until_or(end, holds), "not within {limit:?}: {:#?}", self.summary());
    }

    pub(super) fn run_until_or(&mut self, end: u64, mut holds: impl FnMut(&Self) -> bool) -> bool {
        let mut still = 0;
        loop {
            if holds(self) {
                return true;
            }
            let post = self.wire.first_key_value().map(|((at, _), _)| *at);
            let timer =
                self.nodes.iter().enumerate().map(|(i, node)| (node.global(node.timeout, self.now), i)).min();
            let (at, node) = timer.unwrap_or((u64::MAX, 0));
            let next = post.unwrap_or(u64::MAX).min(at);
            if next > end {
                self.now = end;
                return holds(self);
            }
            still = if next > self.now { 0 } else { still + 1 };
            assert!(still < 100_000, "time stands still: {:#?}", self.summary());
            self.now = self.now.max(next);
            if post.is_some_and(|post| post <= at) {
                let Some((_, (to, post))) = self.wire.pop_first() else { continue };
                if self.nodes[to].connected {
                    self.nodes[to].seen = self.nodes[to].seen.max(Some(post.seq));
                    self.feed(to, Input::Post(post));
                }
            } else {
                self.feed(node, Input::Timeout);
            }
        }
    }

    pub(super) fn feed(&mut self, number: usize, input: Input) {
        let now = self.nodes[number].local(self.now);
        let Node { session, rng, .. } = &mut self.nodes[number];
        session.handle(input, now, rng).expect("only commands are refused");
        self.drain(number);
    }

    pub(super) fn drain(&mut self, number: usize) {
        loop {
            let node = &mut self.nodes[number];
            match node.session.poll_output() {
                Output::Post { slot, body } => self.post(number, slot, body),
                Output::Keys(change) => {
                    let now = node.local(self.now);
                    node.apply(change, now);
                }
                Output::Event(event) => node.events.push(event),
                Output::Beacon(body) => node.beacons.push(body),
                Output::Vouched { from, vouch } => node.vouched.push((from, vouch)),
                Output::Timeout(at) => {
                    node.timeout = at;
                    return;
                }
            }
        }
    }

    pub(super) fn post(&mut self, from: usize, slot: Slot, body: bytes::Bytes) {
        self.audit.post(slot, &body);
        if !self.nodes[from].connected {
            return;
        }
        self.posts.push((self.now, from, slot, body.len()));
        let mut post = Post { seq: 0, from: self.nodes[from].session.me(), slot, body };
        match slot {
            Slot::Log => {
                self.seq += 1;
                post.seq = self.seq;
                self.log.push(post.clone());
                if self.log.len() > 4096 {
                    self.log.remove(0);
                }
            }
            Slot::Cell => {
                self.cells.insert(post.from, post.clone());
            }
            Slot::Direct(_) => {}
        }
        self.recorded.push(post.clone());
        if self.recorded.len() > 20_000 {
            self.recorded.drain(..10_000);
        }
        for to in 0..self.nodes.len() {
            let addressed = match slot {
                Slot::Direct(participant) => self.nodes[to].session.me() == participant,
                _ => to != from,
            };
            if addressed && self.nodes[to].connected {
                self.send(from, to, post.clone());
            }
        }
    }

    pub(super) fn send(&mut self, from: usize, to: usize, post: Post) {
        let fate = self.tamper.as_mut().map_or(Fate::Deliver, |tamper| tamper(self.now, from, to, &post));
        let delay = match fate {
            Fate::Deliver => 0,
            Fate::Delay(ms) => ms,
            Fate::Drop => return,
        };
        self.wired += 1;
        self.wire.insert((self.now + self.latency + delay, self.wired), (to, post));
    }
}

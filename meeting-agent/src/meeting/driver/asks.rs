//! What the relay is asked for, no faster than it takes. Who changes their mind meanwhile asks for the last of it: pipelines that
//! come and go cost the connection nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use meeting_wire::{Route, ToRelay};

use crate::bucket::{self, Bucket};

/// Subscriptions on their way to the relay.
pub struct Asks {
    bucket: Bucket,
    /// What it was asked for.
    asked: BTreeSet<Route>,
    /// What it is to hear yet.
    waiting: BTreeMap<Route, bool>,
}

impl Asks {
    /// Nothing was asked for.
    pub fn new(now: Instant) -> Self {
        let bucket = Bucket::new(bucket::SUBSCRIPTIONS, now);
        Self { bucket, asked: BTreeSet::new(), waiting: BTreeMap::new() }
    }

    /// Takes what may have to wait out of these messages, and gives what may go now.
    pub fn pass(&mut self, messages: impl IntoIterator<Item = ToRelay>, now: Instant) -> Vec<ToRelay> {
        let mut other = Vec::new();
        for message in messages {
            match message {
                ToRelay::Subscribe { route } => self.want(route, true),
                ToRelay::Unsubscribe { route } => self.want(route, false),
                message => other.push(message),
            }
        }
        other.extend(self.due(now));
        other
    }

    /// What has waited and may go now.
    pub fn due(&mut self, now: Instant) -> Vec<ToRelay> {
        let mut due = Vec::new();
        while !self.waiting.is_empty() && self.bucket.has(1.0, now) {
            let Some((route, wanted)) = self.waiting.pop_first() else { break };
            self.bucket.take(1.0);
            due.push(if wanted {
                self.asked.insert(route);
                ToRelay::Subscribe { route }
            } else {
                self.asked.remove(&route);
                ToRelay::Unsubscribe { route }
            });
        }
        due
    }

    /// Whether anything waits.
    pub fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn want(&mut self, route: Route, wanted: bool) {
        if self.asked.contains(&route) == wanted {
            self.waiting.remove(&route);
        } else {
            self.waiting.insert(route, wanted);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_comes_and_goes_over_and_over_asks_for_no_more_than_the_relay_takes() {
        let now = Instant::now();
        let mut asks = Asks::new(now);
        let routes = (0..200).map(Route);
        let mut sent = 0;
        for _ in 0..100 {
            sent += asks.pass(routes.clone().map(|route| ToRelay::Subscribe { route }), now).len();
            sent += asks.pass(routes.clone().map(|route| ToRelay::Unsubscribe { route }), now).len();
        }
        assert_eq!(sent, 4_096);
        let later = asks.due(now + Duration::from_secs(1));
        let gone = later.iter().all(|ask| matches!(ask, ToRelay::Unsubscribe { .. }));
        assert!(gone && later.len() == 96 && !asks.waits(), "who came in between and went asks for nothing");
        let now = now + Duration::from_secs(2);
        assert_eq!(asks.pass(routes.map(|route| ToRelay::Subscribe { route }), now).len(), 200);
        assert!(asks.pass([ToRelay::Subscribe { route: Route(1) }], now).is_empty(), "once");
    }
}

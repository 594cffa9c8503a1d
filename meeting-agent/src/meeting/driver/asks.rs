//! What the relay is asked for, no faster than it takes. Who changes their mind meanwhile asks for the last of it: pipelines that
//! come and go cost the connection nothing.

use std::{collections::BTreeSet, time::Instant};

use meeting_wire::{Bucket, Route, ToRelay};

use crate::rates;

/// Subscriptions on their way to the relay, and keyframes that are asked for.
pub struct Asks {
    subscriptions: Bucket,
    keyframes: Bucket,
    /// What it was asked for.
    asked: BTreeSet<Route>,
    /// What it is to hear yet: ends first, since it ends the connection for more than it takes at one time.
    leaving: BTreeSet<Route>,
    joining: BTreeSet<Route>,
}

impl Asks {
    /// Nothing was asked for.
    pub fn new(now: Instant) -> Self {
        Self {
            subscriptions: Bucket::new(rates::SUBSCRIPTIONS, now),
            keyframes: Bucket::new(rates::KEYFRAMES, now),
            asked: BTreeSet::new(),
            leaving: BTreeSet::new(),
            joining: BTreeSet::new(),
        }
    }

    /// Takes what may have to wait out of these messages, and gives what may go now.
    pub fn pass(&mut self, messages: impl IntoIterator<Item = ToRelay>, now: Instant) -> Vec<ToRelay> {
        let mut other = Vec::new();
        for message in messages {
            match message {
                ToRelay::Subscribe { route } => self.want(route, true),
                ToRelay::Unsubscribe { route } => self.want(route, false),
                // who needs one asks again in a second
                ToRelay::KeyframeRequest { .. } if !self.keyframes.take(1.0, now) => {}
                message => other.push(message),
            }
        }
        other.extend(self.due(now));
        other
    }

    /// What has waited and may go now.
    pub fn due(&mut self, now: Instant) -> Vec<ToRelay> {
        let mut due = Vec::new();
        while self.waits() && self.subscriptions.take(1.0, now) {
            if let Some(route) = self.leaving.pop_first() {
                self.asked.remove(&route);
                due.push(ToRelay::Unsubscribe { route });
            } else if let Some(route) = self.joining.pop_first() {
                self.asked.insert(route);
                due.push(ToRelay::Subscribe { route });
            }
        }
        due
    }

    /// Whether anything waits.
    pub fn waits(&self) -> bool {
        !self.leaving.is_empty() || !self.joining.is_empty()
    }

    /// A stream has ended, and with it whatever was asked for.
    pub fn gone(&mut self, route: Route) {
        for routes in [&mut self.asked, &mut self.leaving, &mut self.joining] {
            routes.remove(&route);
        }
    }

    fn want(&mut self, route: Route, wanted: bool) {
        self.leaving.remove(&route);
        self.joining.remove(&route);
        if self.asked.contains(&route) != wanted {
            let waiting = if wanted { &mut self.joining } else { &mut self.leaving };
            waiting.insert(route);
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

    #[test]
    fn what_ends_goes_before_what_begins() {
        let now = Instant::now();
        let mut asks = Asks::new(now);
        let begin = |route| ToRelay::Subscribe { route: Route(route) };
        let end = |route| ToRelay::Unsubscribe { route: Route(route) };
        assert_eq!(asks.pass([begin(5)], now), [begin(5)]);
        assert_eq!(asks.pass([begin(3), end(5)], now), [end(5), begin(3)]);
    }

    #[test]
    fn of_a_stream_that_is_over_nothing_is_kept() {
        let now = Instant::now();
        let mut asks = Asks::new(now);
        asks.pass([ToRelay::Subscribe { route: Route(5) }], now);
        asks.gone(Route(5));
        assert!(asks.asked.is_empty() && !asks.waits());
    }

    #[test]
    fn keyframes_are_asked_for_no_faster_than_the_relay_takes_it() {
        let now = Instant::now();
        let mut asks = Asks::new(now);
        let requests = (0..10_000).map(|route| ToRelay::KeyframeRequest { route: Route(route) });
        assert_eq!(asks.pass(requests.clone(), now).len(), 1_024);
        assert_eq!(asks.pass(requests, now + Duration::from_secs(1)).len(), 200);
    }
}

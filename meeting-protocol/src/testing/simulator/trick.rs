//! A leader that breaks the rules, before an honest relay or an evil one.

use meeting_wire::{Post, Slot};

use super::{
    World,
    happen::Happening,
    weather::{Parcel, Topic},
};
use crate::{
    crypto::sign::Hash,
    ledger::Scope,
    roster::Change,
    secret::Secret,
    session::{Phase, message::Message},
};

impl World {
    /// The leader breaks the rules, once, before everybody; whoever is there must not go on with it.
    pub(super) fn trick(&mut self) {
        if self.cast.trick == KEEPS_KEY
            && let Some(session) = &mut self.devices[0].session
        {
            // Whoever comes makes it change the key all the same.
            session.keep_key();
        }
        if self.tricked.is_some() {
            return;
        }
        let leader = self.devices[0].session.as_ref().map(|session| session.state().roster);
        let roster: Vec<_> = leader.into_iter().flatten().map(|person| person.participant).collect();
        let live = |device: &usize| {
            let session = self.devices[*device].session.as_ref().filter(|_| *device != 0);
            session
                .is_some_and(|session| session.state().phase == Phase::Live && roster.contains(&session.me()))
        };
        let people: Vec<usize> = (0..self.devices.len()).filter(live).collect();
        if people.is_empty() {
            return;
        }
        let kind = self.cast.trick;
        let done = match kind {
            0 => self.two_links(&people),
            1 => self.one_link(&people, |world| world.devices[0].session.as_ref()?.newest_commitment()),
            OTHER_KEY => self.other_key(&people),
            3 => self.one_link_of(&people, None),
            _ => Some(()),
        };
        if done.is_some() {
            self.trace.line(self.now, format!("the leader's trick {kind}"));
            let relay = if self.cast.honest_relay { "an honest" } else { "an evil" };
            self.tally.lies += 1;
            self.tally.did(format!("trick {kind} before {relay} relay"));
            self.tricked = Some(people);
            if self.cast.honest_relay && self.now + TOLD < self.end {
                self.after(TOLD, Happening::Told);
            }
        }
    }

    /// Everybody who was there has ended, left, been told, or goes on without it. (Of a key that never changes the book
    /// knows how old it is.)
    pub(super) fn is_told(&self) -> bool {
        let Some(people) = &self.tricked else { return true };
        people.iter().all(|number| {
            let Some(session) = &self.devices[*number].session else { return true };
            // Whom the lie reached out of its turn has not believed it.
            let believes = session.head().is_some_and(|head| self.lies.contains(&head));
            // Another key than the link's is only refused.
            let waits = self.cast.trick == OTHER_KEY && session.state().phase != Phase::Live;
            !believes || waits || session.counters().misbehaviour > 0
        })
    }

    /// Two histories for two halves.
    fn two_links(&mut self, people: &[usize]) -> Option<()> {
        let (odd, even): (Vec<_>, Vec<_>) = people.iter().copied().partition(|person| person % 2 == 1);
        if odd.is_empty() || even.is_empty() {
            // Who has nobody to compare with waits for the leader's next link.
            return None;
        }
        for (half, byte) in [(even, 1), (odd, 2)] {
            let key = Secret::init_with(|key| *key = [byte; 32]);
            self.false_epoch(&half, &key, &key)?;
        }
        Some(())
    }

    /// Another key than the link commits to.
    fn other_key(&mut self, people: &[usize]) -> Option<()> {
        let key = |byte| Secret::init_with(|key: &mut [u8; 32]| *key = [byte; 32]);
        self.false_epoch(people, &key(3), &key(4))
    }

    fn false_epoch(&mut self, people: &[usize], said: &Secret<32>, given: &Secret<32>) -> Option<()> {
        let session = self.devices[0].session.as_mut()?;
        let epoch = session.newest_epoch() + 1;
        let commitment = session.commitment(said, epoch)?;
        let link = session.false_link(Vec::new(), Some(commitment))?;
        for person in people {
            let to = self.devices[*person].me()?;
            let session = self.devices[0].session.as_mut()?;
            let wrap = Scope::off(|| session.false_wrap(to, &link.body, given))?;
            self.tell_falsely(*person, &Message::Link(link.clone()))?;
            self.tell_falsely(*person, &wrap)?;
        }
        Some(())
    }

    fn one_link(&mut self, people: &[usize], commitment: impl Fn(&Self) -> Option<Hash>) -> Option<()> {
        let commitment = commitment(self)?;
        let link = self.devices[0].session.as_ref()?.false_link(Vec::new(), Some(commitment))?;
        people.iter().try_for_each(|person| self.tell_falsely(*person, &Message::Link(link.clone())))
    }

    /// Somebody comes in without a new key.
    fn one_link_of(&mut self, people: &[usize], commitment: Option<Hash>) -> Option<()> {
        let entry = self.devices[0].session.as_ref()?.invented_entry()?;
        let session = self.devices[0].session.as_ref()?;
        let link = session.false_link(vec![Change::Add(entry)], commitment)?;
        people.iter().try_for_each(|person| self.tell_falsely(*person, &Message::Link(link.clone())))
    }

    fn tell_falsely(&mut self, to: usize, message: &Message) -> Option<()> {
        if let Message::Link(link) = message {
            self.lies.insert(link.body.hash());
        }
        let session = self.devices[0].session.as_ref()?;
        let from = session.me();
        let body = session.seal(message, &mut self.dice.0)?;
        let slot = Slot::Direct(self.devices[to].me()?);
        self.send_down(to, Parcel::Post(Post { seq: 0, from, slot, body }), Topic::of(message), 0);
        Some(())
    }
}

/// Ways of breaking them; the last one is a key that never changes.
pub(super) const TRICKS: u64 = 5;
const OTHER_KEY: u64 = 2;
const KEEPS_KEY: u64 = TRICKS - 1;
/// Two heartbeats and a moment.
pub(super) const TOLD: u64 = 5_000;

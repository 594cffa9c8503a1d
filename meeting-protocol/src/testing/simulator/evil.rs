//! Members, people who once were, and leaders, all with programs of their own.

use bytes::Bytes;
use meeting_wire::{Envelope, ParticipantId, Post, Slot};

use super::{
    World,
    book::FrameFact,
    elements::envelope,
    happen::Happening,
    mischief::LATELY,
    weather::{Parcel, Topic},
};
use crate::{
    beacon::{FrameDigest, Span},
    crypto::sign::Hash,
    frame::{CipherSuite, Header, KeyId, Lease, Sealer},
    ledger::Scope,
    roster::Change,
    secret::Secret,
    session::{
        Phase,
        forgery::{Lie, Seen},
        message::Message,
    },
};

impl World {
    /// Eve, in or out, tries something.
    pub(super) fn lie(&mut self, eve: usize) {
        let pause = self.dice.between(300, 4_000);
        self.after(pause, Happening::Lie(eve));
        if self.devices[eve].leads() {
            // What a leader can do is tried elsewhere.
            return;
        }
        match self.dice.between(0, 10) {
            0..=4 => self.say_falsely(eve, 1),
            5 if self.dice.chance(20) => self.say_falsely(eve, 300),
            6 => self.beacon_falsely(eve),
            _ => self.seal_falsely(eve),
        }
    }

    fn victim(&mut self) -> Option<(usize, ParticipantId)> {
        let victim = self.somebody();
        Some((victim, self.devices[victim].me()?))
    }

    fn say_falsely(&mut self, eve: usize, times: u64) {
        let Some((_, victim)) = self.victim() else { return };
        let Some(lie) = self.dice.pick(&Lie::ALL) else { return };
        let (before, seen) = (self.dice.chance(30), self.seen(victim));
        for _ in 0..times {
            let Some((session, over)) = self.devices[eve].lies_in(before) else { return };
            let body = Scope::off(|| session.lie(lie, victim, &seen, &mut self.dice.0));
            let Some(body) = body else { return };
            self.tally.lies += 1;
            self.tally.afterwards += u64::from(over);
            let slot = match self.dice.between(0, 3) {
                0 => Slot::Direct(victim),
                1 if lie == Lie::Heartbeat => Slot::Cell,
                _ => Slot::Log,
            };
            let from = session.me();
            if matches!(lie, Lie::Twin | Lie::Ghost)
                && let Some(message) = self.read(&body)
            {
                // Who holds the link and a device's key may ask.
                self.book.said(self.now, slot, &message);
            }
            self.send_up(eve, Parcel::Post(Post { seq: 0, from, slot, body }));
        }
        self.trace.line(self.now, format!("Eve lies: {lie:?} x {times}"));
    }

    /// What anybody who holds the link can read.
    fn seen(&self, victim: ParticipantId) -> Seen {
        let mut seen = Seen::default();
        for kept in self.relay.posts.iter().rev().take(LATELY) {
            let wanted = match kept.topic {
                Topic::Heartbeat => seen.beat.is_none(),
                Topic::Announce => seen.announce.is_none(),
                _ => false,
            };
            let (true, Parcel::Post(post)) = (wanted, &kept.parcel) else { continue };
            match self.read(&post.body) {
                // What Eve says in another's name comes from herself.
                Some(Message::Heartbeat(beat)) if beat.body.leader == post.from => seen.beat = Some(beat),
                Some(Message::Announce(announce)) if post.from == victim => seen.announce = Some(announce),
                _ => {}
            }
        }
        seen
    }

    /// For frames of the victim, or for those it never sealed: in its name where the relay helps, else in Eve's.
    fn beacon_falsely(&mut self, eve: usize) {
        let Some((_, victim)) = self.victim() else { return };
        let (before, own_name, own_frames) =
            (self.dice.chance(30), self.dice.chance(30), self.dice.chance(30));
        let Some((session, _)) = self.devices[eve].lies_in(before) else { return };
        let own = session.me();
        let name = if own_name || self.cast.honest_relay { own } else { victim };
        let spans = self.false_spans(if own_frames { own } else { victim });
        if name == own {
            let Some(body) = self.false_beacon(eve, before, name, spans) else { return };
            self.send_up(eve, Parcel::Beacon { from: name, body });
        } else {
            let to = self.somebody();
            self.vouch_falsely(eve, name, spans, to, 0);
        }
    }

    fn false_beacon(
        &mut self,
        eve: usize,
        before: bool,
        name: ParticipantId,
        spans: Vec<Span>,
    ) -> Option<Bytes> {
        let (session, _) = self.devices[eve].lies_in(before)?;
        let body = session.false_beacon(name, spans, &mut self.dice.0)?;
        self.tally.lies += 1;
        Some(body)
    }

    /// Signs for frames as if somebody else did, to one whom the relay hands it.
    fn vouch_falsely(&mut self, eve: usize, name: ParticipantId, spans: Vec<Span>, to: usize, late: u64) {
        let Some(body) = self.false_beacon(eve, false, name, spans) else { return };
        self.send_down(to, Parcel::Beacon { from: name, body }, Topic::Beacon, late);
    }

    /// Frames somebody sealed or Eve did, and such as there are none, with counters that jump and keys that end.
    fn false_spans(&mut self, of: ParticipantId) -> Vec<Span> {
        let kept = self.relay.media.iter().rev().take(LATELY).map(|kept| &kept.parcel);
        let frames: Vec<Envelope> = kept
            .chain(&self.forgeries)
            .filter_map(|parcel| match parcel {
                Parcel::Frame { from, envelope, .. } if *from == of => Some(envelope.clone()),
                _ => None,
            })
            .collect();
        let dice = &mut self.dice;
        let mut spans = Vec::new();
        for _ in 0..dice.between(1, 4) {
            let Some(envelope) = dice.pick(&frames) else { break };
            let Some((header, _)) = Header::parse(&envelope.sealed) else { continue };
            let jump = if dice.chance(30) { dice.between(0, 6_000) } else { 0 };
            let digest = match dice.between(0, 3) {
                0 => FrameDigest::of(&envelope),
                1 => FrameDigest(dice.bytes16()),
                _ => FrameDigest::NONE,
            };
            let frames = vec![digest; dice.between(0, 4) as usize];
            let closed = dice.chance(30);
            spans.push(Span { kid: header.kid.into(), first: header.ctr + jump, frames, closed });
        }
        spans
    }

    /// A frame under somebody else's key, on that stream's way if the relay helps.
    fn seal_falsely(&mut self, eve: usize) {
        if self.cast.honest_relay {
            return;
        }
        let hoard = &self.devices[eve].hoard;
        let recent = hoard.len().saturating_sub(40);
        let at = recent + self.dice.between(0, 40) as usize;
        let Some(stolen) = hoard.get(at) else { return };
        let (from, stream, kid, link) = (stolen.from, stolen.stream, stolen.kid, stolen.link);
        let base_key = Secret::init_with(|key| *key = stolen.base_key);
        let counter = self.counter_of(kid) + self.dice.between(0, 4);
        let frame = self.frames;
        self.frames += 1;
        let sealed = Scope::off(|| {
            Sealer::starting_at(Lease::new(kid, CipherSuite::default(), base_key), counter)
                .seal(&frame.to_be_bytes())
        });
        let Ok(sealed) = sealed else { return };
        self.tally.lies += 1;
        self.book.frames.insert(frame, FrameFact { from, stream, link, sealed: self.now, forged: true });
        let to = self.somebody();
        let envelope = envelope(sealed, 0);
        let digest = FrameDigest::of(&envelope);
        let parcel = Parcel::Frame { from, stream, envelope };
        self.trace.line(self.now, format!("Eve seals as {stream:?} to {}", self.devices[to].name));
        if self.forgeries.len() >= FORGERIES {
            self.forgeries.remove(0);
        }
        self.forgeries.push(parcel.clone());
        self.send_down(to, parcel, Topic::Frame, 0);
        if self.cast.beacons && self.dice.chance(50) {
            let (late, closed) = (self.dice.between(0, 300), self.dice.chance(30));
            let span = Span { kid, first: counter, frames: vec![digest], closed };
            self.vouch_falsely(eve, from, vec![span], to, late);
        }
    }

    /// The newest counter that the relay has seen under a key.
    fn counter_of(&self, kid: KeyId) -> u64 {
        let counter = |parcel: &Parcel| match parcel {
            Parcel::Frame { envelope, .. } => {
                let (header, _) = Header::parse(&envelope.sealed)?;
                (KeyId::from(header.kid) == kid).then_some(header.ctr)
            }
            _ => None,
        };
        self.relay.media.iter().rev().take(LATELY).find_map(|kept| counter(&kept.parcel)).unwrap_or(0)
    }

    /// The leader breaks the rules, once, before everybody; whoever is there must not go on with it.
    pub(super) fn trick(&mut self) {
        if let Some((at, _)) = &self.tricked {
            assert!(self.now < at + TOLD || self.is_told(), "the leader's lie goes on for {TOLD} ms");
            return;
        }
        let live = |device: &usize| {
            let session = self.devices[*device].session.as_ref();
            session.is_some_and(|session| session.state().phase == Phase::Live) && *device != 0
        };
        let people: Vec<usize> = (0..self.devices.len()).filter(live).collect();
        let kind = self.cast.trick;
        let done = match kind {
            0 => self.two_links(&people),
            1 => self.one_link(&people, |world| world.devices[0].session.as_ref()?.newest_commitment()),
            2 => self.other_key(&people),
            _ => self.one_link_of(&people, None),
        };
        if done.is_some() {
            self.trace.line(self.now, format!("the leader's trick {kind}"));
            self.tally.lies += 1;
            self.tricked = Some((self.now, people));
        }
    }

    /// Everybody who was there has ended, left, been told, or goes on without it.
    fn is_told(&self) -> bool {
        let Some((_, people)) = &self.tricked else { return true };
        people.iter().all(|number| {
            let Some(session) = &self.devices[*number].session else { return true };
            // Whom the lie reached out of its turn has not believed it.
            let believes = session.head().is_some_and(|head| self.lies.contains(&head));
            !matches!(session.state().phase, Phase::Live) || session.counters().misbehaviour > 0 || !believes
        })
    }

    /// Two histories for two halves.
    fn two_links(&mut self, people: &[usize]) -> Option<()> {
        for (side, byte) in [(0, 1), (1, 2)] {
            let key = Secret::init_with(|key| *key = [byte; 32]);
            let half: Vec<usize> = people.iter().copied().filter(|person| person % 2 == side).collect();
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

/// Two heartbeats and a moment.
const TOLD: u64 = 5_000;
/// Frames of hers that she remembers.
const FORGERIES: usize = 16;

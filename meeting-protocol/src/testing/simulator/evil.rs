//! Members and people who once were, with programs of their own.

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
    frame::{CipherSuite, Header, KeyId, SealKey, Sealer},
    ledger::Scope,
    secret::Secret,
    session::{
        Phase, Session,
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

    /// Somebody at the door.
    fn newcomer(&self) -> Option<ParticipantId> {
        let sessions = self.devices.iter().filter_map(|device| device.session.as_ref());
        let joining = |session: &&Session| matches!(session.state().phase, Phase::Joining(_));
        sessions.filter(joining).map(Session::me).next()
    }

    fn say_falsely(&mut self, eve: usize, times: u64) {
        let Some(lie) = self.dice.pick(&Lie::ALL) else { return };
        // Who is in believes no answer.
        let victim = if lie == Lie::Answer { self.newcomer() } else { None };
        let Some(victim) = victim.or_else(|| Some(self.victim()?.1)) else { return };
        let (before, seen) = (self.dice.chance(30), self.seen(victim));
        for _ in 0..times {
            let Some((session, over)) = self.devices[eve].lies_in(before) else { return };
            let body = Scope::off(|| session.lie(lie, victim, &seen, &mut self.dice.0));
            let Some(body) = body else { return };
            self.tally.lies += 1;
            self.tally.did(format!("lie {lie:?}"));
            if over {
                self.tally.did("lie of one who was");
            }
            let slot = match self.dice.between(0, 3) {
                0 => Slot::Direct(victim),
                1 if lie == Lie::Heartbeat => Slot::Cell,
                _ => Slot::Log,
            };
            let said = self.read(&body);
            // An announce counts from the stay that it is of: over a connection of its own, or with the relay's help.
            let from = match &said {
                Some(Message::Announce(announce)) => announce.unverified().participant,
                _ => session.me(),
            };
            let own = lie == Lie::Vote && victim == session.me();
            if (own || matches!(lie, Lie::Twin | Lie::Ghost))
                && let Some(message) = said
            {
                // Who holds the link and a device's key may ask, and whoever is in may vote.
                self.book.said(self.now, slot, &message, |_| 0);
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
        // The next one, so that true ones follow, or one after which they count as old.
        let number = if self.dice.chance(80) { self.beacons_of(name) + 1 } else { u64::MAX >> 3 };
        let (session, _) = self.devices[eve].lies_in(before)?;
        let own = session.me() == name;
        let body = session.false_beacon(name, number, spans, &mut self.dice.0)?;
        self.tally.lies += 1;
        self.tally.did(if own { "false beacon in one's own name" } else { "false beacon in another's name" });
        Some(body)
    }

    /// The number of somebody's newest beacon.
    fn beacons_of(&self, name: ParticipantId) -> u64 {
        let number = |parcel: &Parcel| match parcel {
            Parcel::Beacon { from, body } if *from == name => match self.read(body)? {
                Message::Beacon(beacon) => Some(beacon.body.number),
                _ => None,
            },
            _ => None,
        };
        self.relay.media.iter().rev().take(LATELY).find_map(|kept| number(&kept.parcel)).unwrap_or(0)
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
        // One that its sender uses too, or one that it comes to later or never.
        let ahead = if self.dice.chance(70) { 4 } else { 1_000 };
        let counter = self.counter_of(kid) + self.dice.between(0, ahead);
        let frame = self.frames;
        self.frames += 1;
        let sealed = Scope::off(|| {
            Sealer::starting_at(SealKey::new(kid, CipherSuite::default(), base_key), counter)
                .seal(&frame.to_be_bytes())
        });
        let Ok(sealed) = sealed else { return };
        self.tally.lies += 1;
        self.tally.did("frame sealed as somebody else");
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
            self.tally.did("false beacon for a frame sealed as somebody else");
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
}

/// Frames of hers that she remembers.
const FORGERIES: usize = 16;

//! A room: who is in a meeting, who offers which stream, and who gets what. Pure: no socket, and time is an
//! argument.
//!
//! `H` is how the caller reaches a member. A method changes the room and returns [`Delivery`]s, which the
//! caller hands on before it lets anybody else at the room: that is what gives all members one order.
//!
//! A route names a stream alike towards all subscribers and is never given twice, so a frame is encoded once
//! for everybody.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use meeting_wire::{Claim, FromRelay, Kind, ParticipantId, Post, Refusal, Route, Slot, StreamId};
use thiserror::Error;

use crate::board::Board;
use crate::claims::Claims;
use crate::keyframe::{Ask, KeyframeGate};
use crate::limits;

/// One meeting's members and streams.
#[derive(Debug)]
pub struct Room<H> {
    terms: Terms,
    board: Board,
    members: BTreeMap<ParticipantId, Member<H>>,
    claims: Claims,
    tracks: BTreeMap<Route, Track<H>>,
    next_route: u32,
    next_seat: u64,
    empty_since: Option<Instant>,
}

/// What holds for everybody in a room, and what they are told.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The most participants.
    pub max_participants: usize,
    /// Mbit/s of media from each.
    pub max_publish_mbit: u32,
}

/// A connection's place in a room. It ends when another connection of the same participant takes the place;
/// calls with an ended one do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    participant: ParticipantId,
    number: u64,
}

/// A message and who gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery<H> {
    /// In no order.
    pub to: Vec<H>,
    /// The same for all of them.
    pub message: FromRelay,
}

/// What a newcomer's entry brings about.
#[derive(Debug)]
pub struct Joined<H> {
    /// The newcomer's place.
    pub seat: Seat,
    /// What it has to read first: the welcome, the board and the streams there are.
    pub greeting: Vec<FromRelay>,
    /// The connection that had the place.
    pub replaced: Option<H>,
    /// For the others.
    pub deliveries: Vec<Delivery<H>>,
}

/// Where the frames of a stream go.
#[derive(Clone, Debug)]
pub struct Audience<H> {
    /// Whose stream it is.
    pub from: ParticipantId,
    /// How they are forwarded.
    pub kind: Kind,
    /// The stream's name towards subscribers.
    pub route: Route,
    /// The subscribers; the same allocation as long as nobody comes or goes.
    pub to: Arc<[H]>,
}

/// What a keyframe request brings about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked<H> {
    /// For the publisher, if it is told now.
    pub delivery: Option<Delivery<H>>,
    /// When to call [`Room::keyframe_due`], if it is told later.
    pub wake: Option<Instant>,
}

/// What a member may not do; its connection ends.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// More than [`limits::STREAMS`].
    #[error("too many streams published")]
    Streams,
    /// A number published twice with different kinds.
    #[error("a stream published again as another kind")]
    Kind,
    /// More than [`limits::SUBSCRIPTIONS`].
    #[error("too many subscriptions")]
    Subscriptions,
    /// A cell above [`limits::CELL`].
    #[error("a cell post that is too long")]
    Cell,
}

#[derive(Debug)]
struct Member<H> {
    seat: u64,
    handle: H,
    streams: HashMap<StreamId, Route>,
    subscriptions: HashSet<Route>,
}

#[derive(Debug)]
struct Track<H> {
    from: ParticipantId,
    stream: StreamId,
    kind: Kind,
    subscribers: BTreeMap<ParticipantId, H>,
    audience: Arc<[H]>,
    gate: KeyframeGate,
}

impl<H: Clone> Room<H> {
    /// An empty room; `base` is for [`Board::new`].
    pub fn new(terms: Terms, base: u64, now: Instant) -> Self {
        Self {
            terms,
            board: Board::new(base),
            members: BTreeMap::new(),
            claims: Claims::default(),
            tracks: BTreeMap::new(),
            next_route: 1,
            next_seat: 1,
            empty_since: Some(now),
        }
    }

    /// Since when nobody has been here; `None` while somebody is.
    pub fn empty_since(&self) -> Option<Instant> {
        self.empty_since
    }

    /// Lets a participant in, in place of its former connection if there is one. A place once claimed stays with
    /// whoever knows the claim.
    pub fn join(
        &mut self,
        (participant, claim): (ParticipantId, Claim),
        handle: H,
        since: u64,
    ) -> Result<Joined<H>, Refusal> {
        if !self.claims.allow(participant, claim) {
            return Err(Refusal::Taken);
        }
        if !self.members.contains_key(&participant) && self.members.len() >= self.terms.max_participants {
            return Err(Refusal::Full);
        }
        self.claims.enter(participant, claim);
        let mut deliveries = Vec::new();
        let replaced = self.members.remove(&participant).map(|former| {
            deliveries = self.withdraw(participant, &former);
            former.handle
        });
        let mut greeting = vec![FromRelay::Welcome {
            version: meeting_wire::VERSION,
            max_participants: self.terms.max_participants as u32,
            max_publish_mbit: self.terms.max_publish_mbit,
        }];
        greeting.extend(self.board.replay(since).map(FromRelay::Post));
        greeting.extend(self.tracks.iter().map(|(route, track)| track.published(*route)));

        let seat = Seat { participant, number: self.next_seat };
        self.next_seat += 1;
        let member =
            Member { seat: seat.number, handle, streams: HashMap::new(), subscriptions: HashSet::new() };
        self.members.insert(participant, member);
        self.empty_since = None;
        Ok(Joined { seat, greeting, replaced, deliveries })
    }

    /// Takes a participant out. Whoever says goodbye also takes its cell along; a lost one may come back to it.
    pub fn leave(&mut self, seat: Seat, goodbye: bool, now: Instant) -> Vec<Delivery<H>> {
        if self.member(seat).is_none() {
            return Vec::new();
        }
        let Some(member) = self.members.remove(&seat.participant) else {
            return Vec::new();
        };
        self.claims.leave(seat.participant);
        let mut deliveries = self.withdraw(seat.participant, &member);
        if goodbye {
            self.board.clear_cell(seat.participant);
        }
        if self.members.is_empty() {
            self.empty_since = Some(now);
        }
        deliveries.push(self.to_others(seat, FromRelay::Gone { participant: seat.participant }));
        deliveries
    }

    /// Puts something on the board. The author gets its own log posts back too: their place in the order is news.
    pub fn post(&mut self, seat: Seat, slot: Slot, body: Bytes) -> Result<Vec<Delivery<H>>, Fault> {
        if self.member(seat).is_none() {
            return Ok(Vec::new());
        }
        let from = seat.participant;
        Ok(vec![match slot {
            Slot::Log => {
                let message = FromRelay::Post(self.board.append(from, body));
                Delivery { to: self.members.values().map(|member| member.handle.clone()).collect(), message }
            }
            Slot::Cell if body.len() > limits::CELL => return Err(Fault::Cell),
            Slot::Cell => {
                let message = FromRelay::Post(self.board.set_cell(from, body));
                self.to_others(seat, message)
            }
            Slot::Direct(to) => Delivery {
                to: self.members.get(&to).map(|member| member.handle.clone()).into_iter().collect(),
                message: FromRelay::Post(Post { seq: 0, from, slot, body }),
            },
        }])
    }

    /// See [`Board::forget_oldest`]; the author of what needs the room keeps its cell.
    pub fn forget_oldest(&mut self, author: Seat) -> bool {
        self.board.forget_oldest(author.participant, |other| self.members.contains_key(other))
    }

    /// Whether somebody who knows this claim was here before.
    pub fn knows(&self, participant: ParticipantId, claim: Claim) -> bool {
        self.claims.know(participant, claim)
    }

    /// Offers a stream to the others. Offering it again changes nothing.
    pub fn publish(&mut self, seat: Seat, stream: StreamId, kind: Kind) -> Result<Vec<Delivery<H>>, Fault> {
        let next = Route(self.next_route);
        let Some(member) = self.member(seat) else {
            return Ok(Vec::new());
        };
        if let Some(route) = member.streams.get(&stream) {
            let same = self.tracks.get(route).is_some_and(|track| track.kind == kind);
            return if same { Ok(Vec::new()) } else { Err(Fault::Kind) };
        }
        if member.streams.len() >= limits::STREAMS {
            return Err(Fault::Streams);
        }
        // 2^32 publishes in one meeting: at the message rate allowed, two years of doing nothing else.
        let following = self.next_route.checked_add(1).ok_or(Fault::Streams)?;
        let Some(member) = self.member_mut(seat) else {
            return Ok(Vec::new());
        };
        member.streams.insert(stream, next);
        self.next_route = following;
        let track = Track {
            from: seat.participant,
            stream,
            kind,
            subscribers: BTreeMap::new(),
            audience: Arc::new([]),
            gate: KeyframeGate::default(),
        };
        let message = track.published(next);
        self.tracks.insert(next, track);
        Ok(vec![self.to_others(seat, message)])
    }

    /// Ends a stream; one that is not there is ended already.
    pub fn unpublish(&mut self, seat: Seat, stream: StreamId) -> Vec<Delivery<H>> {
        let route = self.member_mut(seat).and_then(|member| member.streams.remove(&stream));
        match route {
            Some(route) => vec![self.end_track(seat.participant, route)],
            None => Vec::new(),
        }
    }

    /// Lets a stream's frames go to this member. A route that has ended is passed over: the news may be on
    /// its way. A video stream's publisher is asked for a keyframe, as no other frame helps a newcomer.
    pub fn subscribe(&mut self, seat: Seat, route: Route, now: Instant) -> Result<Asked<H>, Fault> {
        let Some(member) = self.member_mut(seat) else {
            return Ok(Asked::nothing());
        };
        if member.subscriptions.len() >= limits::SUBSCRIPTIONS && !member.subscriptions.contains(&route) {
            return Err(Fault::Subscriptions);
        }
        let handle = member.handle.clone();
        match self.tracks.get_mut(&route) {
            Some(track) if track.from != seat.participant => {
                track.subscribers.insert(seat.participant, handle);
                track.recount();
            }
            _ => return Ok(Asked::nothing()),
        }
        if let Some(member) = self.member_mut(seat) {
            member.subscriptions.insert(route);
        }
        Ok(self.keyframe_request(seat, route, now))
    }

    /// Stops a stream's frames to this member.
    pub fn unsubscribe(&mut self, seat: Seat, route: Route) {
        let subscribed = self.member_mut(seat).is_some_and(|member| member.subscriptions.remove(&route));
        if let Some(track) = self.tracks.get_mut(&route).filter(|_| subscribed) {
            track.subscribers.remove(&seat.participant);
            track.recount();
        }
    }

    /// Asks a video stream's publisher for a keyframe, for one of its subscribers.
    pub fn keyframe_request(&mut self, seat: Seat, route: Route, now: Instant) -> Asked<H> {
        let subscribed = self.member(seat).is_some_and(|member| member.subscriptions.contains(&route));
        let asked = match self.tracks.get_mut(&route) {
            Some(track) if subscribed && track.kind == Kind::Video => track.gate.ask(now),
            _ => Ask::Merged,
        };
        match asked {
            Ask::Now => Asked { delivery: self.keyframe_wanted(route), wake: None },
            Ask::At(due) => Asked { delivery: None, wake: Some(due) },
            Ask::Merged => Asked::nothing(),
        }
    }

    /// Passes a keyframe request on whose time has come.
    pub fn keyframe_due(&mut self, route: Route, now: Instant) -> Option<Delivery<H>> {
        let due = self.tracks.get_mut(&route).is_some_and(|track| track.gate.due(now));
        if due { self.keyframe_wanted(route) } else { None }
    }

    /// Who gets a stream's frames; `None` when it is not published (any more, or yet).
    pub fn audience(&self, seat: Seat, stream: StreamId) -> Option<Audience<H>> {
        let route = *self.member(seat)?.streams.get(&stream)?;
        let track = self.tracks.get(&route)?;
        Some(Audience { from: track.from, kind: track.kind, route, to: track.audience.clone() })
    }

    fn member(&self, seat: Seat) -> Option<&Member<H>> {
        self.members.get(&seat.participant).filter(|member| member.seat == seat.number)
    }

    fn member_mut(&mut self, seat: Seat) -> Option<&mut Member<H>> {
        self.members.get_mut(&seat.participant).filter(|member| member.seat == seat.number)
    }

    fn to_others(&self, seat: Seat, message: FromRelay) -> Delivery<H> {
        let others = self.members.iter().filter(|(participant, _)| **participant != seat.participant);
        Delivery { to: others.map(|(_, member)| member.handle.clone()).collect(), message }
    }

    fn keyframe_wanted(&self, route: Route) -> Option<Delivery<H>> {
        let track = self.tracks.get(&route)?;
        let publisher = self.members.get(&track.from)?;
        Some(Delivery {
            to: vec![publisher.handle.clone()],
            message: FromRelay::KeyframeWanted { stream: track.stream },
        })
    }

    /// Ends all that a member offered and got; the member itself is out of `members` already.
    fn withdraw(&mut self, participant: ParticipantId, member: &Member<H>) -> Vec<Delivery<H>> {
        for route in &member.subscriptions {
            if let Some(track) = self.tracks.get_mut(route) {
                track.subscribers.remove(&participant);
                track.recount();
            }
        }
        member.streams.values().map(|route| self.end_track(participant, *route)).collect()
    }

    fn end_track(&mut self, publisher: ParticipantId, route: Route) -> Delivery<H> {
        if let Some(track) = self.tracks.remove(&route) {
            for subscriber in track.subscribers.keys() {
                if let Some(member) = self.members.get_mut(subscriber) {
                    member.subscriptions.remove(&route);
                }
            }
        }
        let others = self.members.iter().filter(|(participant, _)| **participant != publisher);
        Delivery {
            to: others.map(|(_, member)| member.handle.clone()).collect(),
            message: FromRelay::Unpublished { route },
        }
    }
}

impl<H: Clone> Track<H> {
    fn published(&self, route: Route) -> FromRelay {
        FromRelay::Published { from: self.from, stream: self.stream, kind: self.kind, route }
    }

    fn recount(&mut self) {
        self.audience = self.subscribers.values().cloned().collect();
    }
}

impl<H> Asked<H> {
    fn nothing() -> Self {
        Self { delivery: None, wake: None }
    }
}

#[cfg(test)]
mod tests;

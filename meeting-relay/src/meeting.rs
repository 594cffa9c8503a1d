//! The meetings of a relay: each a [`Room`] behind a lock, with its deliveries carried out before the next
//! change, which gives all members one order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use meeting_wire::{
    Admission, Claim, FromRelay, Kind, MeetingId, ParticipantId, Post, Refusal, Route, Slot, StreamId,
    ToRelay, packed,
};
use tokio::sync::mpsc;

use crate::budget::{Budget, Charge};
use crate::config::Meetings as Rules;
use crate::limits;
use crate::outlet::{Outgoing, Outlet, Taken};
use crate::room::{Asked, Audience, Delivery, Fault, Room, Seat, Terms};
use crate::window::Windows;

/// All meetings that are open.
#[derive(Debug)]
pub struct Meetings {
    rules: Rules,
    memory: Arc<Budget>,
    windows: Windows,
    open: Mutex<HashMap<MeetingId, Arc<Meeting>>>,
}

/// One meeting.
#[derive(Debug)]
pub struct Meeting {
    room: Mutex<Room<Arc<Outlet>>>,
    /// Two parts of what it may keep: media never take the room of posts.
    posts: Arc<Budget>,
    media: Arc<Budget>,
    windows: Windows,
    _charge: Charge,
}

/// A connection's entry into a meeting.
#[derive(Debug)]
pub struct Entry {
    /// Where it is now.
    pub meeting: Arc<Meeting>,
    /// Its place there.
    pub seat: Seat,
    /// The way out to it, and the queue that its writer drains.
    pub outlet: (Arc<Outlet>, mpsc::Receiver<Outgoing>),
    /// What it has to be told first.
    pub greeting: Vec<FromRelay>,
}

impl Meetings {
    /// None yet, under these rules.
    pub fn new(rules: Rules) -> Self {
        let memory = Budget::new(rules.max_memory_mb.saturating_mul(1024 * 1024));
        let windows = Windows::new(&memory);
        Self { rules, memory, windows, open: Mutex::default() }
    }

    /// All that may be kept for others.
    pub fn memory(&self) -> &Arc<Budget> {
        &self.memory
    }

    /// The rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Lets a connection in, or says why not.
    pub fn admit(
        &self,
        id: MeetingId,
        admission: &Admission,
        who: (ParticipantId, Claim),
        (connection, taken): (&quinn::Connection, Taken),
        since: u64,
    ) -> Result<Entry, Refusal> {
        let may_create = match admission {
            Admission::Create { token } if !self.rules.accepts(token) => return Err(Refusal::Token),
            Admission::Create { .. } => true,
            Admission::Join => false,
        };
        let mut open = lock(&self.open);
        let meeting = match open.get(&id) {
            Some(meeting) => meeting.clone(),
            None if !may_create => return Err(Refusal::NoMeeting),
            None if open.len() >= self.rules.max_meetings => return Err(Refusal::Busy),
            None => {
                let Rules { max_participants, max_publish_mbit, .. } = self.rules;
                let room =
                    Room::new(Terms { max_participants, max_publish_mbit }, board_base(), Instant::now());
                let charge = self.memory.charge_new(limits::MEETING_OWN).ok_or(Refusal::Busy)?;
                let memory = self.memory.part(self.memory.limit() / limits::SHARE, 0);
                let posts = memory.part(memory.limit(), limits::MEETING_OWN / 2);
                let media =
                    memory.part(memory.limit() - memory.limit() / limits::SHARE, limits::MEETING_OWN / 2);
                let room = Mutex::new(room);
                let windows = self.windows.of_meeting();
                let meeting = Arc::new(Meeting { room, posts, media, windows, _charge: charge });
                open.insert(id, meeting.clone());
                meeting
            }
        };
        // Still under the lock of the list, so that the meeting cannot end in between.
        let mut room = lock(&meeting.room);
        let outlet = Outlet::new(connection.clone(), taken, &meeting.posts, &meeting.media);
        let joined = room.join(who, outlet.0.clone(), since)?;
        if let Some(former) = joined.replaced {
            former.expel(Refusal::Replaced);
        }
        deliver(joined.deliveries);
        drop(room);
        Ok(Entry { meeting, seat: joined.seat, outlet, greeting: joined.greeting })
    }

    /// Room for the connection of whoever says this hello: newcomers leave some alone, those who come back do not.
    pub fn charge_member(&self, hello: &ToRelay) -> Option<Charge> {
        let comes_back = match hello {
            ToRelay::Hello { meeting, participant, claim, .. } => lock(&self.open)
                .get(meeting)
                .is_some_and(|meeting| lock(&meeting.room).knows(*participant, *claim)),
            _ => false,
        };
        if comes_back {
            self.memory.charge(limits::MEMBER_BYTES)
        } else {
            self.memory.charge_new(limits::MEMBER_BYTES)
        }
    }

    /// Ends the meetings that nobody has been in for as long as the rules keep them.
    pub fn sweep(&self, now: Instant) {
        let keep: Duration = self.rules.keep_empty;
        lock(&self.open).retain(|_, meeting| {
            let empty_since = lock(&meeting.room).empty_since();
            empty_since.is_none_or(|since| now.saturating_duration_since(since) < keep)
        });
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        lock(&self.open).len()
    }
}

impl Meeting {
    /// Room for so many bytes of somebody's posts, `None` when too many of this meeting or of all are on their way.
    pub fn charge(&self, author: Seat, bytes: usize) -> Option<Charge> {
        let mut charge = self.posts.charge(bytes);
        while charge.is_none() && self.forget_oldest(author) {
            charge = self.posts.charge(bytes);
        }
        charge
    }

    /// So many more for a post.
    pub fn grow(&self, author: Seat, charge: &mut Charge, more: usize) -> bool {
        let mut grown = charge.grow(more);
        while !grown && self.forget_oldest(author) {
            grown = charge.grow(more);
        }
        grown
    }

    /// The log may be lost at any time, and so may cells: they make room for what is said now.
    fn forget_oldest(&self, author: Seat) -> bool {
        lock(&self.room).forget_oldest(author)
    }

    /// Room for so many bytes of media.
    pub fn charge_media(&self, bytes: usize) -> Option<Charge> {
        self.media.charge(bytes)
    }

    /// Where the windows of its publishers are charged.
    pub fn windows(&self) -> &Windows {
        &self.windows
    }

    /// See [`Room::post`]. Tells how many were dropped on the way.
    pub fn post(&self, seat: Seat, slot: Slot, body: Bytes, memory: Charge) -> Result<usize, Fault> {
        let mut room = lock(&self.room);
        Ok(deliver_held(room.post(seat, slot, body)?, Some(memory)))
    }

    /// See [`Room::publish`].
    pub fn publish(&self, seat: Seat, stream: StreamId, kind: Kind) -> Result<(), Fault> {
        let mut room = lock(&self.room);
        deliver(room.publish(seat, stream, kind)?);
        Ok(())
    }

    /// See [`Room::unpublish`].
    pub fn unpublish(&self, seat: Seat, stream: StreamId) {
        let mut room = lock(&self.room);
        deliver(room.unpublish(seat, stream));
    }

    /// See [`Room::subscribe`].
    pub fn subscribe(self: &Arc<Self>, seat: Seat, route: Route) -> Result<(), Fault> {
        let mut room = lock(&self.room);
        let asked = room.subscribe(seat, route, Instant::now())?;
        self.ask(asked, route);
        Ok(())
    }

    /// See [`Room::unsubscribe`].
    pub fn unsubscribe(&self, seat: Seat, route: Route) {
        lock(&self.room).unsubscribe(seat, route);
    }

    /// See [`Room::keyframe_request`].
    pub fn keyframe_request(self: &Arc<Self>, seat: Seat, route: Route) {
        let mut room = lock(&self.room);
        let asked = room.keyframe_request(seat, route, Instant::now());
        self.ask(asked, route);
    }

    /// See [`Room::audience`].
    pub fn audience(&self, seat: Seat, stream: StreamId) -> Option<Audience<Arc<Outlet>>> {
        lock(&self.room).audience(seat, stream)
    }

    /// See [`Room::leave`].
    pub fn leave(&self, seat: Seat, goodbye: bool) {
        let mut room = lock(&self.room);
        deliver(room.leave(seat, goodbye, Instant::now()));
    }

    fn ask(self: &Arc<Self>, asked: Asked<Arc<Outlet>>, route: Route) {
        deliver(asked.delivery);
        if let Some(due) = asked.wake {
            let meeting = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep_until(due.into()).await;
                let mut room = lock(&meeting.room);
                deliver(room.keyframe_due(route, Instant::now()));
            });
        }
    }
}

/// Encodes each message once and queues it; never waits, so it may run under the room's lock.
fn deliver(deliveries: impl IntoIterator<Item = Delivery<Arc<Outlet>>>) {
    deliver_held(deliveries, None);
}

/// The same, where the first message has room of its own for as long as it is on its way. Tells how many posts for one alone
/// were dropped.
fn deliver_held(
    deliveries: impl IntoIterator<Item = Delivery<Arc<Outlet>>>,
    mut memory: Option<Charge>,
) -> usize {
    let mut dropped = 0;
    for Delivery { to, message } in deliveries {
        if to.is_empty() {
            continue;
        }
        let mut bytes = packed(&message);
        if let Some(charge) = memory.take() {
            bytes = charge.hold(bytes);
        }
        for outlet in to {
            match &message {
                FromRelay::Post(Post { from, slot: Slot::Direct(_), .. }) => {
                    dropped += usize::from(!outlet.send_direct(*from, bytes.clone()));
                }
                _ => outlet.send(bytes.clone()),
            }
        }
    }
    dropped
}

/// Microseconds since 1970: above every number of a board that was opened earlier and got fewer posts than that.
fn board_base() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// A panic while the lock was held has ended that connection; the room itself is changed in whole steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The way out to one agent: its connection, its bounded queue of control messages, its budget for media.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use meeting_wire::{ParticipantId, Refusal};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};

use crate::budget::{Budget, Charge};
use crate::data;
use crate::limits;
use crate::shares::{Each, Shares};
use crate::sound::Pile;
use crate::window::Window;

/// What rooms and forwarders hold of a connection.
#[derive(Debug)]
pub struct Outlet {
    connection: quinn::Connection,
    messages: mpsc::Sender<Outgoing>,
    control: Arc<Budget>,
    /// The part of it that posts to this agent alone may have.
    direct: Shares,
    media: Shares,
    lanes: Shares,
    turns: Each<data::Turn>,
    pile: Mutex<Pile>,
    memory: Memory,
    taken: Mutex<Taken>,
    expelled: OnceLock<Refusal>,
    expulsion: Notify,
}

/// Where what waits is charged: the member's parts of what its meeting may keep.
#[derive(Debug)]
struct Memory {
    posts: Arc<Budget>,
    media: Arc<Budget>,
}

/// What a connection takes beside its queues, given back when nobody holds it any more: quinn frees it no sooner.
#[derive(Debug)]
pub struct Taken {
    /// Its receive window.
    pub window: Window,
    /// What quinn notes of the packets in its send window.
    pub notes: Option<Charge>,
    _place: OwnedSemaphorePermit,
    _memory: Charge,
}

/// An encoded control message on its way, with its share of the queue.
#[derive(Debug)]
pub struct Outgoing {
    /// As on the wire, behind its length.
    pub bytes: Bytes,
    _charges: [Charge; 2],
}

impl Taken {
    /// A place among those who said hello, and the memory that each of them has.
    pub fn new(place: OwnedSemaphorePermit, memory: Charge) -> Self {
        Self { window: Window::default(), notes: None, _place: place, _memory: memory }
    }
}

impl Outlet {
    /// The way out through `connection`, and the queue that its writer drains. What waits there is charged to its meeting's
    /// `posts` and `media`, beyond what each member has, but for the bytes themselves, which others have too.
    pub fn new(
        connection: quinn::Connection,
        taken: Taken,
        posts: &Arc<Budget>,
        media: &Arc<Budget>,
    ) -> (Arc<Self>, mpsc::Receiver<Outgoing>) {
        let (messages, queue) = mpsc::channel(limits::QUEUED_MESSAGES);
        let control = Budget::new(limits::QUEUED_CONTROL);
        let own = |of: &Arc<Budget>| of.part(usize::MAX, limits::MEMBER_OWN / 2);
        let outlet = Self {
            connection,
            messages,
            direct: Shares::new(control.part(limits::QUEUED_DIRECT, 0), limits::QUEUED_DIRECT_OF_ONE),
            control,
            media: Shares::new(Budget::new(limits::QUEUED_MEDIA), limits::QUEUED_MEDIA_OF_ONE),
            lanes: Shares::new(Budget::new(limits::LANES), limits::LANES_OF_ONE),
            turns: Each::default(),
            pile: Mutex::default(),
            memory: Memory { posts: own(posts), media: own(media) },
            taken: Mutex::new(taken),
            expelled: OnceLock::new(),
            expulsion: Notify::new(),
        };
        (Arc::new(outlet), queue)
    }

    /// The connection, for streams and datagrams.
    pub fn connection(&self) -> &quinn::Connection {
        &self.connection
    }

    /// What the connection takes.
    pub fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a control message. One that does not fit ends the connection: an agent that missed a post could
    /// not tell, and would be wrong about the meeting.
    pub fn send(&self, bytes: Bytes) {
        let amount = bytes.len();
        if !self.queue(bytes, &self.control, amount) {
            self.expel(Refusal::Busy);
        }
    }

    /// Queues a post for this agent alone; false when too much waits. It is dropped then, as whoever misses it asks again:
    /// its author must not be able to end this connection.
    #[must_use]
    pub fn send_direct(&self, author: ParticipantId, bytes: Bytes) -> bool {
        let amount = bytes.len() + limits::PLACE_BYTES;
        self.queue(bytes, &self.direct.of(author), amount)
    }

    fn queue(&self, bytes: Bytes, queue: &Arc<Budget>, amount: usize) -> bool {
        let (Some(place), Some(memory)) =
            (queue.charge(amount), self.memory.posts.charge(limits::ITEM_BYTES))
        else {
            return false;
        };
        let outgoing = Outgoing { bytes, _charges: [place, memory] };
        !matches!(self.messages.try_send(outgoing), Err(mpsc::error::TrySendError::Full(_)))
    }

    /// Room for the messages of a greeting, if this agent has it without others.
    pub fn charge_greeting(&self, messages: usize) -> Option<Charge> {
        self.memory.posts.charge(messages * limits::ITEM_BYTES)
    }

    /// A publisher's share of the bytes that may wait here.
    pub fn media_of(&self, publisher: ParticipantId) -> Arc<Budget> {
        self.media.of(publisher)
    }

    /// Room for `bytes` of media of a publisher's `share`, `None` when too much waits already. What is larger than a share
    /// counts as one, or it would take the room of the others too; its meeting is charged for all of it.
    pub fn charge_media(&self, share: &Arc<Budget>, bytes: usize) -> Option<[Charge; 2]> {
        let place = share.charge(bytes.min(limits::QUEUED_MEDIA_OF_ONE))?;
        Some([place, self.memory.media.charge(limits::ITEM_BYTES)?])
    }

    /// Room for one more group of a publisher on its way.
    pub fn charge_lane(&self, publisher: ParticipantId) -> Option<[Charge; 2]> {
        Some([self.lanes.of(publisher).charge(1)?, self.memory.media.charge(limits::LANE_BYTES)?])
    }

    /// Whose turn it is among a publisher's groups of data.
    pub fn turn_of(&self, publisher: ParticipantId) -> Arc<data::Turn> {
        self.turns.get(publisher, Arc::default)
    }

    /// Whether a datagram may go, or would, being more than a voice, keep all else waiting.
    pub fn takes_sound(&self, loud: bool, now: Instant) -> bool {
        let piled = self.connection.datagram_send_buffer_space() < limits::DATAGRAM_SEND / 2;
        self.pile.lock().unwrap_or_else(PoisonError::into_inner).takes(loud, piled, now)
    }

    /// Ends the connection with a reason; the first reason counts.
    pub fn expel(&self, refusal: Refusal) {
        if self.expelled.set(refusal).is_ok() {
            self.expulsion.notify_one();
        }
    }

    /// Waits for [`Outlet::expel`]; for one waiter.
    pub async fn expelled(&self) -> Refusal {
        loop {
            if let Some(refusal) = self.expelled.get() {
                return *refusal;
            }
            self.expulsion.notified().await;
        }
    }
}

//! The way out to one agent: its connection, its bounded queue of control messages, its budget for media.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use meeting_wire::{Encode, FromRelay, Refusal, Writer};
use tokio::sync::{Notify, mpsc};

use crate::limits::{self, Budget, Charge};

/// What rooms and forwarders hold of a connection.
#[derive(Debug)]
pub struct Outlet {
    connection: quinn::Connection,
    messages: mpsc::Sender<Outgoing>,
    control: Arc<Budget>,
    media: Arc<Budget>,
    lanes: Arc<Budget>,
    memory: Arc<Budget>,
    expelled: OnceLock<Refusal>,
    expulsion: Notify,
}

/// An encoded control message on its way, with its share of the queue.
#[derive(Debug)]
pub struct Outgoing {
    /// As on the wire, behind its length.
    pub bytes: Bytes,
    _charges: [Charge; 2],
}

impl Outlet {
    /// The way out through `connection`, and the queue that its writer drains. What waits there is charged to `memory`
    /// but for the bytes themselves, which others have too.
    pub fn new(connection: quinn::Connection, memory: Arc<Budget>) -> (Arc<Self>, mpsc::Receiver<Outgoing>) {
        let (messages, queue) = mpsc::channel(limits::QUEUED_MESSAGES);
        let outlet = Self {
            connection,
            messages,
            control: Budget::new(limits::QUEUED_CONTROL),
            media: Budget::new(limits::QUEUED_MEDIA),
            lanes: Budget::new(limits::LANES),
            memory,
            expelled: OnceLock::new(),
            expulsion: Notify::new(),
        };
        (Arc::new(outlet), queue)
    }

    /// The connection, for streams and datagrams.
    pub fn connection(&self) -> &quinn::Connection {
        &self.connection
    }

    /// Queues a control message. One that does not fit ends the connection: an agent that missed a post could
    /// not tell, and would be wrong about the meeting.
    pub fn send(&self, bytes: Bytes) {
        let sent = self.charge(&self.control, bytes.len(), limits::ITEM_BYTES).map(|charges| {
            let outgoing = Outgoing { bytes, _charges: charges };
            !matches!(self.messages.try_send(outgoing), Err(mpsc::error::TrySendError::Full(_)))
        });
        if sent != Some(true) {
            self.expel(Refusal::Busy);
        }
    }

    /// Room for `bytes` of media, `None` when too much waits already.
    pub fn charge_media(&self, bytes: usize) -> Option<[Charge; 2]> {
        self.charge(&self.media, bytes, limits::ITEM_BYTES)
    }

    /// Room for one more group on its way.
    pub fn charge_lane(&self) -> Option<[Charge; 2]> {
        self.charge(&self.lanes, 1, limits::LANE_BYTES)
    }

    fn charge(&self, own: &Arc<Budget>, amount: usize, bytes: usize) -> Option<[Charge; 2]> {
        Some([own.charge(amount)?, self.memory.charge(bytes)?])
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

/// A control message as on the wire.
pub fn packed(message: &FromRelay) -> Bytes {
    let mut out = Writer::default();
    out.bytes(&message.to_bytes());
    out.into_bytes().into()
}

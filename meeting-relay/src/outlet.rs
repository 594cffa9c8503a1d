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
    expelled: OnceLock<Refusal>,
    expulsion: Notify,
}

/// An encoded control message on its way, with its share of the queue.
#[derive(Debug)]
pub struct Outgoing {
    /// As on the wire, behind its length.
    pub bytes: Bytes,
    _charge: Charge,
}

impl Outlet {
    /// The way out through `connection`, and the queue that its writer drains.
    pub fn new(connection: quinn::Connection) -> (Arc<Self>, mpsc::Receiver<Outgoing>) {
        let (messages, queue) = mpsc::channel(limits::QUEUED_MESSAGES);
        let outlet = Self {
            connection,
            messages,
            control: Budget::new(limits::QUEUED_CONTROL),
            media: Budget::new(limits::QUEUED_MEDIA),
            lanes: Budget::new(limits::LANES),
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
        let sent = self.control.charge(bytes.len()).map(|charge| {
            let outgoing = Outgoing { bytes, _charge: charge };
            !matches!(self.messages.try_send(outgoing), Err(mpsc::error::TrySendError::Full(_)))
        });
        if sent != Some(true) {
            self.expel(Refusal::Busy);
        }
    }

    /// Room for `bytes` of media, `None` when too much waits already.
    pub fn charge_media(&self, bytes: usize) -> Option<Charge> {
        self.media.charge(bytes)
    }

    /// Room for one more group on its way.
    pub fn charge_lane(&self) -> Option<Charge> {
        self.lanes.charge(1)
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

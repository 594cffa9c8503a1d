//! Reads what the relay forwards: group streams record by record, datagrams one by one.
//!
//! Groups of one stream travel side by side, but a decoder wants them in order: the first frame of a group waits
//! for the groups before it, a moment at most, and then ends them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use meeting_wire::{
    AudioDatagram, Decode, DecodeError, Envelope, GroupHeader, Kind, Record, RecordKind, Route,
};
use quinn::{Connection, RecvStream, VarInt};
use thiserror::Error;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::Watching;
use crate::counters::reason;

/// Reads until the connection ends.
pub async fn run(connection: &Connection, watching: &Arc<Watching>) {
    let order = Arc::new(Order::default());
    let room = Arc::new(Semaphore::new(ASSEMBLING / PERMIT));
    let mut readers = JoinSet::new();
    loop {
        tokio::select! {
            accepted = connection.accept_uni() => {
                let Ok(recv) = accepted else { return };
                let place = order.arrive();
                let (watching, order, room) = (watching.clone(), order.clone(), room.clone());
                readers.spawn(async move {
                    let guard = Place { order: &order, place };
                    if group(recv, &guard, &watching, &room).await.is_err() {
                        watching.counters.dropped(reason::DAMAGED, 1);
                    }
                });
            }
            datagram = connection.read_datagram() => {
                let Ok(bytes) = datagram else { return };
                match AudioDatagram::from_bytes(&bytes) {
                    Ok(AudioDatagram { route, envelope }) => watching.deliver(route, envelope),
                    Err(_) => watching.counters.dropped(reason::DAMAGED, 1),
                }
            }
            Some(_) = readers.join_next() => {}
        }
    }
}

/// Why a group stream is not read to its end; always the fault of those who sent it.
#[derive(Debug, Error)]
#[error("a group stream that makes no sense")]
struct Damaged;

impl From<DecodeError> for Damaged {
    fn from(_: DecodeError) -> Self {
        Self
    }
}

async fn group(
    mut recv: RecvStream,
    place: &Place<'_>,
    watching: &Watching,
    room: &Semaphore,
) -> Result<(), Damaged> {
    let mut header = [0; GroupHeader::LEN];
    match timeout(STALLED, recv.read_exact(&mut header)).await {
        Ok(Ok(())) => {}
        _ => return Ok(()),
    }
    let header = GroupHeader::from_bytes(&header)?;
    let Some(kind) = watching.kind(header.route) else {
        let _ = recv.stop(VarInt::from_u32(0));
        return Ok(());
    };
    place.name(header.route, header.group);
    let mut first = true;
    loop {
        let record = tokio::select! {
            record = record(&mut recv, room) => record?,
            () = place.overtaken() => None,
        };
        let Some((record_kind, body)) = record else {
            let _ = recv.stop(VarInt::from_u32(0));
            return Ok(());
        };
        if std::mem::take(&mut first) {
            let patience = if kind == Kind::Data { REORDER_DATA } else { REORDER };
            let _ = timeout_at(Instant::now() + patience, place.turn()).await;
            if kind == Kind::Video {
                place.overtake();
            }
        }
        if record_kind == RecordKind::Frame {
            watching.deliver(header.route, Envelope::from_bytes(&body)?);
        }
    }
}

/// The next record, none at the end. Memory grows with the bytes that are there, not with the length claimed.
async fn record(recv: &mut RecvStream, room: &Semaphore) -> Result<Option<(RecordKind, Vec<u8>)>, Damaged> {
    let mut head = [0; Record::HEAD];
    if recv.read_exact(&mut head).await.is_err() {
        return Ok(None);
    }
    let (kind, len) = Record::head(head)?;
    let whole = async {
        let _room = room.acquire_many((len / PERMIT + 1) as u32).await.ok()?;
        let mut body = Vec::with_capacity(len.min(64 * 1024));
        while body.len() < len {
            body.extend_from_slice(&recv.read_chunk(len - body.len(), true).await.ok()??.bytes);
        }
        Some((kind, body))
    };
    Ok(timeout(STALLED, whole).await.unwrap_or(None))
}

/// Which group streams are being read, in the order they came.
#[derive(Debug, Default)]
struct Order {
    state: Mutex<Places>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Places {
    next: u64,
    /// Streams by arrival; those whose header has not come yet have no name.
    open: BTreeMap<u64, Option<(Route, u64)>>,
    /// The newest group of each route that has begun.
    begun: BTreeMap<Route, u64>,
}

/// One group stream's place in the order, given up when dropped.
struct Place<'a> {
    order: &'a Order,
    place: u64,
}

impl Order {
    fn arrive(&self) -> u64 {
        let mut state = self.lock();
        state.next += 1;
        let place = state.next;
        state.open.insert(place, None);
        place
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place<'_> {
    fn name(&self, route: Route, group: u64) {
        self.order.lock().open.insert(self.place, Some((route, group)));
        self.order.changed.notify_waiters();
    }

    /// Waits until no older group of this route is open, nor an older stream that may be one.
    async fn turn(&self) {
        self.when(|places, route, group| {
            !places.open.iter().any(|(place, name)| match name {
                Some((other, older)) => *other == route && *older < group,
                None => *place < self.place,
            })
        })
        .await;
    }

    /// Waits until a newer group of this route has begun.
    async fn overtaken(&self) {
        self.when(|places, route, group| places.begun.get(&route).is_some_and(|newest| *newest > group))
            .await;
    }

    /// Begins: older groups of this route end.
    fn overtake(&self) {
        let mut state = self.order.lock();
        if let Some(Some((route, group))) = state.open.get(&self.place).copied() {
            if state.begun.len() >= MAX_ROUTES {
                state.begun.clear();
            }
            let newest = state.begun.entry(route).or_insert(group);
            *newest = (*newest).max(group);
        }
        drop(state);
        self.order.changed.notify_waiters();
    }

    async fn when(&self, condition: impl Fn(&Places, Route, u64) -> bool) {
        loop {
            let changed = self.order.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let state = self.order.lock();
                if let Some(Some((route, group))) = state.open.get(&self.place)
                    && condition(&state, *route, *group)
                {
                    return;
                }
            }
            changed.await;
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.order.lock().open.remove(&self.place);
        self.order.changed.notify_waiters();
    }
}

/// How long a new group waits for the end of the one before it: a lost packet's repair on a usual path.
const REORDER: Duration = Duration::from_millis(150);
/// The same for data, of which none is late: more than one repair. What waits behind it fills the room that everybody's groups
/// share, so it is not for longer.
const REORDER_DATA: Duration = Duration::from_millis(250);
/// How long one record, or a header, may take to arrive.
const STALLED: Duration = Duration::from_secs(3);
/// Bytes of unfinished records of one meeting.
const ASSEMBLING: usize = 4 * Record::MAX;
/// What one permit of that stands for.
const PERMIT: usize = 4 * 1024;
/// Routes remembered.
const MAX_ROUTES: usize = 8_192;

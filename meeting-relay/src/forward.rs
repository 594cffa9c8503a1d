//! Media fan-out: each record of a group, as it arrives, to each subscriber, and never a slow one at the cost
//! of another.
//!
//! ```text
//!  publisher's group stream          Group::pass             one lane per subscriber
//!  record, record, record  ------>  bounded queue  ------>   carry: its own group stream
//! ```
//!
//! **Age decides what is dropped.** A video frame whose turn comes after [`limits::LATE`] ends its lane: the
//! subscriber's stream is reset and the next group starts afresh. The first frame of a group may take longer as
//! long as no newer group is there, else a keyframe could never pass a slow link.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use meeting_wire::{Encode, GroupHeader, Kind};
use quinn::{SendStream, VarInt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use crate::age::{Turn, out_of_patience, turn};
use crate::budget::{Budget, Charge};
use crate::counters::Counters;
use crate::data;
use crate::limits;
use crate::outlet::Outlet;
use crate::room::Audience;

/// A record of a group, as on the wire.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Kind, length and body.
    pub record: Bytes,
    /// When its last byte came.
    pub at: Instant,
    /// Whether no other frame needs it.
    pub droppable: bool,
    /// Whether it goes before pictures.
    pub urgent: bool,
}

/// One group on its way from its publisher to the stream's subscribers.
#[derive(Debug)]
pub struct Group {
    header: GroupHeader,
    newer: watch::Receiver<u64>,
    counters: Arc<Counters>,
    audience: Option<Arc<[Arc<Outlet>]>>,
    lanes: HashMap<usize, Lane>,
    begun: bool,
}

#[derive(Debug)]
enum Lane {
    Open(Open),
    /// Came after the group's first frame: the next group is the first that helps.
    Waiting,
    /// Ended early, and the rest of the group with it. Data has another one with its next record.
    Lost,
}

#[derive(Debug)]
struct Open {
    queue: mpsc::Sender<Parcel>,
    /// What its publisher may have waiting for this subscriber.
    share: Arc<Budget>,
    whole: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Parcel {
    arrival: Arrival,
    _charges: [Charge; 2],
}

/// Why a record does not wait for a subscriber.
enum Unqueued {
    /// Too much does already.
    Full,
    /// The lane has ended.
    Closed,
}

/// Why a lane ends early.
enum Lost {
    Late,
    Unfinished,
    Stopped,
}

impl Group {
    /// A group whose stream has begun; `newer` is from [`crate::newest`], `midway` says that records of it are lost
    /// already.
    pub fn new(
        header: GroupHeader,
        newer: watch::Receiver<u64>,
        midway: bool,
        counters: Arc<Counters>,
    ) -> Self {
        Self { header, newer, counters, audience: None, lanes: HashMap::new(), begun: midway }
    }

    /// Hands a record to everybody in the audience; without one, the stream is not published.
    pub fn pass(&mut self, arrival: &Arrival, audience: Option<&Audience<Arc<Outlet>>>) {
        self.settle(audience);
        self.begun = true;
        let Some(audience) = audience else {
            return self.counters.frames_unrouted.one();
        };
        for outlet in audience.to.iter() {
            let Some(lane) = self.lanes.get_mut(&Arc::as_ptr(outlet).addr()) else {
                continue;
            };
            // Data goes on at once: each piece may be of use without the one before it.
            if matches!(lane, Lane::Lost) && audience.kind == Kind::Data {
                *lane = open_lane(outlet, audience, self.header, &self.newer, &self.counters);
            }
            let Lane::Open(open) = lane else {
                if matches!(lane, Lane::Lost) {
                    self.counters.frames_dropped_late.one();
                }
                continue;
            };
            match open.queue(outlet, arrival) {
                Ok(()) => {}
                Err(Unqueued::Closed) => {
                    self.counters.frames_dropped_late.one();
                    *lane = Lane::Lost;
                }
                Err(Unqueued::Full) => {
                    self.counters.frames_dropped_full.one();
                    if audience.kind != Kind::Data {
                        *lane = Lane::Lost;
                    }
                }
            }
        }
    }

    /// The publisher has finished the group; without this, dropping it resets the subscribers' streams.
    pub fn finish(self) {
        for lane in self.lanes.values() {
            if let Lane::Open(open) = lane {
                open.whole.store(true, Ordering::Release);
            }
        }
    }

    /// Opens lanes for those who came and closes those of whom left.
    pub fn settle(&mut self, audience: Option<&Audience<Arc<Outlet>>>) {
        let Some(audience) = audience else {
            self.audience = None;
            return self.lanes.clear();
        };
        if self.audience.as_ref().is_some_and(|known| Arc::ptr_eq(known, &audience.to)) {
            return;
        }
        let mut former = std::mem::take(&mut self.lanes);
        for outlet in audience.to.iter() {
            let key = Arc::as_ptr(outlet).addr();
            let lane = match former.remove(&key) {
                Some(lane) => lane,
                None if self.begun && audience.kind == Kind::Video => Lane::Waiting,
                None => open_lane(outlet, audience, self.header, &self.newer, &self.counters),
            };
            self.lanes.insert(key, lane);
        }
        self.audience = Some(audience.to.clone());
    }
}

impl Open {
    fn queue(&self, outlet: &Outlet, arrival: &Arrival) -> Result<(), Unqueued> {
        let charges = outlet.charge_media(&self.share, arrival.record.len()).ok_or(Unqueued::Full)?;
        let parcel = Parcel { arrival: arrival.clone(), _charges: charges };
        self.queue.try_send(parcel).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unqueued::Full,
            mpsc::error::TrySendError::Closed(_) => Unqueued::Closed,
        })
    }
}

fn open_lane(
    outlet: &Arc<Outlet>,
    audience: &Audience<Arc<Outlet>>,
    header: GroupHeader,
    newer: &watch::Receiver<u64>,
    counters: &Arc<Counters>,
) -> Lane {
    let Audience { from, kind, route, .. } = *audience;
    let Some(charges) = outlet.charge_lane(from) else {
        return Lane::Lost;
    };
    let (queue, parcels) = mpsc::channel(limits::QUEUED_RECORDS);
    let whole = Arc::new(AtomicBool::new(false));
    let carrier = Carrier {
        outlet: outlet.clone(),
        kind,
        turn: (kind == Kind::Data).then(|| outlet.turn_of(from)),
        urgent: None,
        header: GroupHeader { route, ..header },
        newer: newer.clone(),
        whole: whole.clone(),
        counters: counters.clone(),
        _charges: charges,
    };
    tokio::spawn(carrier.carry(parcels));
    Lane::Open(Open { queue, share: outlet.media_of(from), whole })
}

/// Carries one group to one subscriber.
struct Carrier {
    outlet: Arc<Outlet>,
    kind: Kind,
    /// For data.
    turn: Option<Arc<data::Turn>>,
    urgent: Option<bool>,
    header: GroupHeader,
    newer: watch::Receiver<u64>,
    whole: Arc<AtomicBool>,
    counters: Arc<Counters>,
    _charges: [Charge; 2],
}

impl Carrier {
    async fn carry(mut self, mut parcels: mpsc::Receiver<Parcel>) {
        let Some(first) = parcels.recv().await else { return };
        let mut stream = tokio::select! {
            opened = self.outlet.connection().open_uni() => match opened {
                Ok(stream) => stream,
                Err(_) => return,
            },
            () = out_of_patience(self.kind, true, first.arrival.at, &mut self.newer, self.header.group) => {
                self.counters.frames_dropped_late.add(1 + parcels.len());
                return;
            }
        };
        let code = match self.write_all(&mut stream, first, &mut parcels).await {
            Ok(()) => return self.linger(stream).await,
            Err(Lost::Late) => {
                self.counters.frames_dropped_late.add(1 + parcels.len());
                reset::LATE
            }
            Err(Lost::Unfinished) => reset::UNFINISHED,
            Err(Lost::Stopped) => return,
        };
        let _ = stream.reset(VarInt::from_u32(code));
    }

    async fn write_all(
        &mut self,
        stream: &mut SendStream,
        first: Parcel,
        parcels: &mut mpsc::Receiver<Parcel>,
    ) -> Result<(), Lost> {
        let header: Bytes = self.header.to_bytes().into();
        self.write(stream, Some(header), &first.arrival).await?;
        drop(first);
        while let Some(Parcel { arrival, _charges }) = parcels.recv().await {
            match turn(self.kind, arrival.droppable, arrival.at.elapsed()) {
                Turn::Send => self.write(stream, None, &arrival).await?,
                Turn::Skip => self.counters.frames_dropped_late.one(),
                Turn::End => return Err(Lost::Late),
            }
        }
        if self.whole.load(Ordering::Acquire) { Ok(()) } else { Err(Lost::Unfinished) }
    }

    /// Writes a record, behind the header if it is the group's first.
    async fn write(
        &mut self,
        stream: &mut SendStream,
        header: Option<Bytes>,
        arrival: &Arrival,
    ) -> Result<(), Lost> {
        let first = header.is_some();
        if self.urgent != Some(arrival.urgent) {
            self.urgent = Some(arrival.urgent);
            let _ = stream.set_priority(if arrival.urgent { priority::URGENT } else { priority::ORDINARY });
        }
        let (header, record) = (header.unwrap_or_default(), arrival.record.clone());
        let bytes = header.len() + record.len();
        let written = async {
            match &self.turn {
                Some(turn) if !arrival.urgent => {
                    // It waits for no turn: until it comes the subscriber cannot tell whose stream this is, and holds up
                    // the later ones of everybody.
                    stream.write_all(&header).await?;
                    data::write(turn, stream, record).await
                }
                _ => stream.write_all_chunks(&mut [header, record]).await,
            }
        };
        tokio::select! {
            biased;
            written = written => written.map_err(|_| Lost::Stopped)?,
            () = out_of_patience(self.kind, first, arrival.at, &mut self.newer, self.header.group) => {
                return Err(Lost::Late);
            }
        }
        self.counters.frames_out.one();
        self.counters.bytes_out.add(bytes);
        Ok(())
    }

    /// Sees a finished video group out: when a newer one comes before its bytes have arrived, it goes behind
    /// that, and then away.
    async fn linger(mut self, mut stream: SendStream) {
        if stream.finish().is_err() || self.kind != Kind::Video {
            return;
        }
        let group = self.header.group;
        let arrived = stream.stopped();
        tokio::pin!(arrived);
        let superseded = async { drop(self.newer.wait_for(|newest| *newest > group).await) };
        tokio::select! {
            _ = &mut arrived => return,
            () = superseded => {
                let _ = stream.set_priority(priority::OLD_VIDEO);
                if timeout(limits::LATE, &mut arrived).await.is_ok() {
                    return;
                }
            }
            () = tokio::time::sleep(limits::STALLED) => {}
        }
        let _ = stream.reset(VarInt::from_u32(reset::LATE));
    }
}

/// QUIC error codes of group streams that the relay resets towards a subscriber.
pub mod reset {
    /// Its frames came too late: the next group is on its way or has to be asked for.
    pub const LATE: u32 = 1;
    /// The publisher, or the subscription, ended before the group did, or the subscriber's queue was full.
    pub const UNFINISHED: u32 = 2;
}

/// Stream priorities towards a subscriber: higher goes first, equal ones take turns.
pub(crate) mod priority {
    pub(crate) const CONTROL: i32 = 10;
    pub(crate) const URGENT: i32 = 5;
    /// Pictures, and data: it is never late, so it must not go before what can be.
    pub(crate) const ORDINARY: i32 = 0;
    pub(crate) const OLD_VIDEO: i32 = -1;
}

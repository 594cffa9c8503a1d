//! Media from one connection: group streams and datagrams, checked, counted and handed to [`crate::forward`].

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use meeting_wire::{
    AudioDatagram, BEACONS, Bucket, Decode, Flags, GroupHeader, Kind, Record, RecordKind, StreamId,
};
use quinn::{ReadExactError, RecvStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::forward::{Arrival, Group};
use crate::limits;
use crate::session::{End, Member, Misbehaviour};
use crate::sound::{self, Sound};
use crate::whole::{Unfinished, read_on};

/// What is left of one connection's media rates.
#[derive(Debug)]
pub struct Rates(Mutex<Buckets>);

#[derive(Debug)]
struct Buckets {
    groups: Bucket,
    frames: Bucket,
    bytes: Bucket,
    sound: Bucket,
    voice: Bucket,
    beacons: Bucket,
}

impl Rates {
    /// Full ones, at so many Mbit/s.
    pub fn new(mbit: u32, now: Instant) -> Self {
        Self(Mutex::new(Buckets {
            groups: Bucket::new(limits::GROUPS, now),
            frames: Bucket::new(limits::FRAMES, now),
            bytes: Bucket::new(limits::media_bytes(mbit), now),
            sound: Bucket::new(limits::URGENT_SOUND, now),
            voice: Bucket::new(limits::VOICE, now),
            beacons: Bucket::new(limits::BEACONS, now),
        }))
    }

    fn group(&self, now: Instant) -> Result<(), Misbehaviour> {
        if self.lock().groups.take(1.0, now) { Ok(()) } else { Err(Misbehaviour::TooMany("groups")) }
    }

    fn frame(&self, bytes: usize, now: Instant) -> Result<(), Misbehaviour> {
        let mut buckets = self.lock();
        if !buckets.frames.take(1.0, now) {
            return Err(Misbehaviour::TooMany("frames"));
        }
        if !buckets.bytes.take(bytes as f64, now) {
            return Err(Misbehaviour::TooMany("bytes of media"));
        }
        Ok(())
    }

    /// Whether so much more of a stream may go before pictures.
    fn urgent(&self, kind: Kind, stream: StreamId, bytes: usize, now: Instant) -> bool {
        match kind {
            Kind::Audio => self.lock().sound.take(bytes as f64, now),
            Kind::Data if stream == BEACONS => self.lock().beacons.take(bytes as f64, now),
            Kind::Data | Kind::Video => false,
        }
    }

    /// Whether so much more sound in datagrams is more than a voice.
    fn loud(&self, bytes: usize, now: Instant) -> bool {
        !self.lock().voice.take(bytes as f64, now)
    }

    fn lock(&self) -> MutexGuard<'_, Buckets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes group streams until the end; they end with this.
pub async fn groups(member: &Arc<Member>) -> End {
    let mut readers = JoinSet::new();
    loop {
        tokio::select! {
            accepted = member.outlet.connection().accept_uni() => {
                let Ok(recv) = accepted else { return End::Lost };
                if let Err(misbehaviour) = member.rates.group(Instant::now()) {
                    return misbehaviour.into();
                }
                let member = member.clone();
                readers.spawn(async move { group(recv, &member).await });
            }
            Some(read) = readers.join_next() => {
                if let Ok(Err(misbehaviour)) = read {
                    return misbehaviour.into();
                }
            }
        }
    }
}

/// Takes datagrams until the end.
pub async fn datagrams(member: &Arc<Member>) -> End {
    loop {
        let Ok(bytes) = member.outlet.connection().read_datagram().await else {
            return End::Lost;
        };
        if let Err(misbehaviour) = datagram(&bytes, member) {
            return misbehaviour.into();
        }
    }
}

/// Reads one group stream, record by record. A stream that the publisher resets is its right.
async fn group(mut recv: RecvStream, member: &Member) -> Result<(), Misbehaviour> {
    let mut header = [0; GroupHeader::LEN];
    match recv.read_exact(&mut header).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(_)) => return Err(Misbehaviour::Truncated("a group header")),
        Err(ReadExactError::ReadError(_)) => return Ok(()),
    }
    let header = GroupHeader::from_bytes(&header)
        .map_err(|error| Misbehaviour::Bytes { at: "a group header", error })?;
    if header.layer >= limits::LAYERS {
        return Err(Misbehaviour::Layer);
    }
    let stream = StreamId(header.route.0);
    let mut group = None;
    let mut midway = false;
    loop {
        let mut arrival = match next(&mut recv, member, stream, &mut group).await? {
            Next::Record(arrival) => arrival,
            Next::Finished => break,
            Next::Broken => return Ok(()),
        };
        let audience = member.meeting.audience(member.seat, stream);
        if group.is_none() && audience.is_some() {
            let newer = member.newest.note(stream, &header);
            group = Some(Group::new(header, newer, midway, member.counters.clone()));
        }
        arrival.urgent = audience
            .as_ref()
            .is_some_and(|to| member.rates.urgent(to.kind, stream, arrival.record.len(), Instant::now()));
        match &mut group {
            Some(group) => group.pass(&arrival, audience.as_ref()),
            // A group may overtake the message that publishes its stream.
            None => member.counters.frames_unrouted.one(),
        }
        midway = true;
    }
    if let Some(group) = group {
        group.finish();
    }
    Ok(())
}

/// What comes next on a group stream.
enum Next {
    Record(Arrival),
    /// The publisher has ended the group.
    Finished,
    /// The stream was reset, or the connection is gone.
    Broken,
}

/// Waits for it, and lets go of those who leave meanwhile: it may be for hours.
async fn next(
    recv: &mut RecvStream,
    member: &Member,
    stream: StreamId,
    group: &mut Option<Group>,
) -> Result<Next, Misbehaviour> {
    // Not begun anew each time: what has come of a record would be lost.
    let mut record = pin!(record(recv, member));
    loop {
        match timeout(limits::SETTLES, &mut record).await {
            Ok(next) => return next,
            Err(_) => {
                if let Some(group) = group {
                    group.settle(member.meeting.audience(member.seat, stream).as_ref());
                }
            }
        }
    }
}

async fn record(recv: &mut RecvStream, member: &Member) -> Result<Next, Misbehaviour> {
    let mut head = [0; Record::HEAD];
    match recv.read_exact(&mut head).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(0)) => return Ok(Next::Finished),
        Err(ReadExactError::FinishedEarly(_)) => return Err(Misbehaviour::Truncated("a record")),
        Err(ReadExactError::ReadError(_)) => return Ok(Next::Broken),
    }
    let (kind, len) = Record::head(head).map_err(|error| Misbehaviour::Bytes { at: "a record", error })?;
    let rest = if len > limits::AHEAD { limits::BESIDE_LARGE } else { 0 };
    // Whoever sends two large pictures at one time does no wrong: the rest of this group is not read, and the next one comes.
    let Some(_charge) = member.assembling.charge_leaving(len, rest) else {
        member.counters.frames_dropped_full.one();
        return Ok(Next::Broken);
    };
    let whole = Record::HEAD + len;
    // Who claims little has it at once.
    let first = if member.assembling.used() <= limits::AHEAD { whole } else { whole.min(limits::PACKET) };
    let Some(mut room) = member.meeting.charge_media(first) else {
        return Ok(no_room(member));
    };
    let mut bytes = Vec::with_capacity(first);
    bytes.extend_from_slice(&head);
    match read_on(recv, &mut bytes, whole, |more| room.grow(more)).await {
        Ok(()) => {}
        Err(Unfinished::NoRoom) => return Ok(no_room(member)),
        Err(Unfinished::Truncated) => return Err(Misbehaviour::Truncated("a record")),
        Err(Unfinished::Stopped | Unfinished::Broken) => return Ok(Next::Broken),
    }
    member.rates.frame(bytes.len(), Instant::now())?;
    member.counters.frames_in.one();
    member.counters.bytes_in.add(bytes.len());
    if kind == RecordKind::Frame {
        member.recorder.frame(bytes.get(Record::HEAD..).unwrap_or_default());
    }
    // The second byte of an envelope; what follows is sealed or none of the relay's business.
    let flags = bytes.get(Record::HEAD + 1).filter(|_| kind == RecordKind::Frame).map_or(0, |flags| *flags);
    Ok(Next::Record(Arrival {
        record: room.hold(bytes),
        at: tokio::time::Instant::now(),
        droppable: Flags(flags).has(Flags::DROPPABLE),
        urgent: false,
    }))
}

/// Too much waits in this meeting, or everywhere: the rest of the group is not read.
fn no_room(member: &Member) -> Next {
    member.counters.short_of_memory.one();
    Next::Broken
}

fn datagram(bytes: &Bytes, member: &Member) -> Result<(), Misbehaviour> {
    let parsed =
        AudioDatagram::from_bytes(bytes).map_err(|error| Misbehaviour::Bytes { at: "a datagram", error })?;
    let (stream, now) = (StreamId(parsed.route.0), Instant::now());
    member.rates.frame(bytes.len(), now)?;
    member.counters.frames_in.one();
    member.counters.bytes_in.add(bytes.len());
    member.recorder.frame(&bytes[4..]);
    match member.meeting.audience(member.seat, stream) {
        Some(audience) if audience.kind == Kind::Audio => {
            let sound = Sound {
                envelope: &bytes[4..],
                group: member.large_audio.fetch_add(1, Ordering::Relaxed),
                urgent: member.rates.urgent(Kind::Audio, stream, bytes.len(), now),
                loud: member.rates.loud(bytes.len(), now),
            };
            sound::pass(sound, &audience, &member.counters);
        }
        _ => member.counters.frames_unrouted.one(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_frames_and_bytes_have_a_rate_each() {
        let now = Instant::now();
        let rates = || Rates::new(1, now);
        let passes = |most: f64, mut take: Box<dyn FnMut() -> Result<(), Misbehaviour>>| {
            assert!((0..most as usize).all(|_| take().is_ok()));
            take()
        };
        let groups = rates();
        let groups = passes(limits::GROUPS.burst, Box::new(move || groups.group(now)));
        assert_eq!(groups, Err(Misbehaviour::TooMany("groups")));
        let frames = rates();
        let frames = passes(limits::FRAMES.burst, Box::new(move || frames.frame(1, now)));
        assert_eq!(frames, Err(Misbehaviour::TooMany("frames")));
        let bytes = rates();
        let bytes = passes(2.0, Box::new(move || bytes.frame(Record::MAX, now)));
        assert_eq!(bytes, Err(Misbehaviour::TooMany("bytes of media")));
    }

    #[test]
    fn sound_and_beacons_go_before_pictures_within_bounds() {
        let now = Instant::now();
        let rates = Rates::new(1, now);
        let most = limits::URGENT_SOUND.burst as usize;
        assert_eq!([most, 1].map(|bytes| rates.urgent(Kind::Audio, StreamId(1), bytes, now)), [true, false]);
        let most = limits::BEACONS.burst as usize;
        assert_eq!([most, 1].map(|bytes| rates.urgent(Kind::Data, BEACONS, bytes, now)), [true, false]);
        assert!(
            !rates.urgent(Kind::Data, StreamId(1), 1, now) && !rates.urgent(Kind::Video, BEACONS, 1, now)
        );
    }
}

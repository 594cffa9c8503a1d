//! Media from one connection: group streams and datagrams, checked, counted and handed to [`crate::forward`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use meeting_wire::{AudioDatagram, Decode, Flags, GroupHeader, Kind, Record, RecordKind, StreamId};
use quinn::{ReadExactError, RecvStream};
use tokio::task::JoinSet;

use crate::forward::{Arrival, Group, pass_datagram};
use crate::limits::{self, Bucket};
use crate::session::{End, Member, Misbehaviour};

/// Takes group streams until the end; they end with this.
pub async fn groups(member: &Arc<Member>) -> End {
    let mut rate = Bucket::new(limits::GROUPS, Instant::now());
    let mut readers = JoinSet::new();
    loop {
        tokio::select! {
            accepted = member.outlet.connection().accept_uni() => {
                let Ok(recv) = accepted else { return End::Lost };
                if !rate.take(1.0, Instant::now()) {
                    return Misbehaviour::TooMany("groups").into();
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
        let arrival = match record(&mut recv, member).await? {
            Next::Record(arrival) => arrival,
            Next::Finished => break,
            Next::Broken => return Ok(()),
        };
        let audience = member.meeting.audience(member.seat, stream);
        if group.is_none() && audience.is_some() {
            let newer = member.newest.note(stream, &header);
            group = Some(Group::new(header, newer, midway, member.counters.clone()));
        }
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

async fn record(recv: &mut RecvStream, member: &Member) -> Result<Next, Misbehaviour> {
    let mut head = [0; Record::HEAD];
    match recv.read_exact(&mut head).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(0)) => return Ok(Next::Finished),
        Err(ReadExactError::FinishedEarly(_)) => return Err(Misbehaviour::Truncated("a record")),
        Err(ReadExactError::ReadError(_)) => return Ok(Next::Broken),
    }
    let (kind, len) = Record::head(head).map_err(|error| Misbehaviour::Bytes { at: "a record", error })?;
    let _charge =
        member.assembling.charge(len).ok_or(Misbehaviour::TooMany("bytes of unfinished records"))?;

    // Memory grows with the bytes that are there, not with the length claimed.
    let mut bytes = Vec::with_capacity(Record::HEAD + len.min(64 * 1024));
    bytes.extend_from_slice(&head);
    while bytes.len() < Record::HEAD + len {
        match recv.read_chunk(Record::HEAD + len - bytes.len(), true).await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk.bytes),
            Ok(None) => return Err(Misbehaviour::Truncated("a record")),
            Err(_) => return Ok(Next::Broken),
        }
    }
    member.counters.frames_in.one();
    member.counters.bytes_in.add(bytes.len());
    if kind == RecordKind::Frame {
        member.recorder.frame(bytes.get(Record::HEAD..).unwrap_or_default());
    }
    // The second byte of an envelope; what follows is sealed or none of the relay's business.
    let flags = bytes.get(Record::HEAD + 1).filter(|_| kind == RecordKind::Frame).map_or(0, |flags| *flags);
    Ok(Next::Record(Arrival {
        record: Bytes::from(bytes),
        at: tokio::time::Instant::now(),
        droppable: Flags(flags).has(Flags::DROPPABLE),
    }))
}

fn datagram(bytes: &Bytes, member: &Member) -> Result<(), Misbehaviour> {
    let parsed =
        AudioDatagram::from_bytes(bytes).map_err(|error| Misbehaviour::Bytes { at: "a datagram", error })?;
    member.counters.frames_in.one();
    member.counters.bytes_in.add(bytes.len());
    member.recorder.frame(&bytes[4..]);
    match member.meeting.audience(member.seat, StreamId(parsed.route.0)) {
        Some(audience) if audience.kind == Kind::Audio => {
            let group = member.large_audio.fetch_add(1, Ordering::Relaxed);
            pass_datagram(&bytes[4..], &audience, group, &member.counters);
        }
        _ => member.counters.frames_unrouted.one(),
    }
    Ok(())
}

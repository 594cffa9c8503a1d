//! Writes one stream's frames to the relay: video as a QUIC stream for each group, audio as datagrams, data in short groups.
//!
//! Streams overtake each other, and so would frames of sound too large for a datagram if each had its own: from such a
//! frame on they go in short groups, in order, until they have been small for a while. What is lost of a group costs its
//! rest; so groups of data are short too, end when nothing comes for a while, and each beacon has its own.

use std::time::Duration;

use bytes::Bytes;
use meeting_wire::{AudioDatagram, Encode, Envelope, GroupHeader, Kind, Record, Route, StreamId};
use quinn::{Connection, SendStream, VarInt, WriteError};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    BEACONS,
    queue::{Queue, Waiting},
};
use crate::counters::{Counters, reason};

/// Writes until the connection ends or the queue is closed and empty; `sent` is called
/// with each frame that was written, `keyframe` when a group had to be given up.
pub async fn run(
    id: StreamId,
    kind: Kind,
    link: &Connection,
    queue: &Queue,
    counters: &Counters,
    sent: impl Fn(&Envelope),
    keyframe: impl Fn(),
) {
    let mut group = None;
    let mut in_order = 0_usize;
    loop {
        let next = match &group {
            Some(_) if kind == Kind::Data => match timeout(PAUSE, queue.pop()).await {
                Ok(next) => next,
                Err(_) => {
                    finish(&mut group);
                    continue;
                }
            },
            _ => queue.pop().await,
        };
        let Some(frame) = next else { break };
        let deadline = Instant::from_std(frame.since) + patience(kind, &frame);
        if kind == Kind::Audio {
            in_order = if fits(link, &frame) { in_order.saturating_sub(1) } else { IN_ORDER };
            if in_order == 0 {
                finish(&mut group);
                if datagram(id, link, &frame) {
                    sent(&frame.envelope);
                    continue;
                }
            }
        }
        let written = timeout_at(deadline, write(id, kind, link, queue, &mut group, &frame)).await;
        match written {
            Ok(Ok(())) => sent(&frame.envelope),
            Ok(Err(WriteError::ConnectionLost(_))) => return,
            Ok(Err(_)) | Err(_) => {
                // cut off midway, which resets it
                group = None;
                counters
                    .dropped(reason::LATE, 1 + if kind == Kind::Video { queue.give_up_group() } else { 0 });
                if kind == Kind::Video {
                    keyframe();
                }
            }
        }
    }
    if let Some(mut last) = group {
        let _ = last.stream.finish();
        // the relay forgets a stream's frames with the stream: it is told after it has the last ones
        let _ = timeout(FAREWELL, last.stream.stopped()).await;
    }
}

/// A group stream that has begun.
struct Group {
    stream: SendStream,
    records: usize,
    /// Whether a part of what is being written may be on its way.
    midway: bool,
}

impl Drop for Group {
    fn drop(&mut self) {
        // quinn would finish the stream, and the relay end the connection for a record that ends too early
        if self.midway {
            let _ = self.stream.reset(VarInt::from_u32(LATE));
        }
    }
}

fn finish(group: &mut Option<Group>) {
    if let Some(mut old) = group.take() {
        let _ = old.stream.finish();
    }
}

async fn write(
    id: StreamId,
    kind: Kind,
    link: &Connection,
    queue: &Queue,
    group: &mut Option<Group>,
    frame: &Waiting,
) -> Result<(), WriteError> {
    let most = match kind {
        Kind::Video => usize::MAX,
        Kind::Data if id == BEACONS => 1,
        Kind::Audio | Kind::Data => IN_ORDER,
    };
    let full = group.as_ref().is_some_and(|group| group.records >= most);
    if frame.opens || full || group.is_none() {
        finish(group);
        let stream = link.open_uni().await?;
        let _ = stream.set_priority(priority(kind));
        let header = GroupHeader { route: Route(id.0), group: queue.next_group(), layer: 0 };
        let opened = group.insert(Group { stream, records: 0, midway: true });
        opened.stream.write_all(&header.to_bytes()).await?;
    }
    let Some(group) = group else { return Err(WriteError::ClosedStream) };
    (group.records, group.midway) = (group.records + 1, true);
    group.stream.write_all_chunks(&mut [Bytes::from(Record::frame(&frame.envelope).to_bytes())]).await?;
    group.midway = false;
    Ok(())
}

/// Whether the path takes the frame as a datagram.
fn fits(link: &Connection, frame: &Waiting) -> bool {
    let most = link.max_datagram_size().unwrap_or(0).min(MAX_DATAGRAM);
    frame.envelope.sealed.len() + ENVELOPE_HEAD <= most
}

/// Whether the frame went out as a datagram.
fn datagram(id: StreamId, link: &Connection, frame: &Waiting) -> bool {
    if !fits(link, frame) {
        return false;
    }
    let datagram = AudioDatagram { route: Route(id.0), envelope: frame.envelope.clone() };
    link.send_datagram(datagram.to_bytes().into()).is_ok()
}

/// How long after its arrival a frame may still be written.
fn patience(kind: Kind, frame: &Waiting) -> Duration {
    match kind {
        Kind::Audio => Duration::from_millis(300),
        // large pictures pass a slow link whole, or nothing ever does
        Kind::Video if frame.opens => Duration::from_secs(2),
        Kind::Video => Duration::from_millis(500),
        Kind::Data => Duration::from_secs(10),
    }
}

fn priority(kind: Kind) -> i32 {
    match kind {
        Kind::Audio => 5,
        Kind::Data => 1,
        Kind::Video => 0,
    }
}

/// The path MTU can fall to 1,200 bytes.
const MAX_DATAGRAM: usize = 1_100;
/// The longest clear part of a datagram: route, bits, flags, layer and three times.
const ENVELOPE_HEAD: usize = 4 + 3 + 3 * 8;
/// Frames of sound or data in one group, and small ones of sound before they are datagrams again: half a second of it.
const IN_ORDER: usize = 25;
/// A group of data in which nothing comes for so long ends: an open one takes a place at each subscriber.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the end of a closed stream may take to arrive.
const FAREWELL: Duration = Duration::from_secs(1);
/// The application's reset code of a group that came too late.
const LATE: u32 = 1;

//! Writes one stream's frames to the relay: video as a QUIC stream for each group, audio as datagrams, data as
//! one long group.

use std::time::Duration;

use bytes::Bytes;
use meeting_wire::{AudioDatagram, Encode, Envelope, GroupHeader, Kind, Record, Route, StreamId};
use quinn::{Connection, SendStream, VarInt, WriteError};
use tokio::time::{Instant, timeout, timeout_at};

use super::queue::{Queue, Waiting};
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
    while let Some(frame) = queue.pop().await {
        let deadline = Instant::from_std(frame.since) + patience(kind, &frame);
        if kind == Kind::Audio && datagram(id, link, &frame) {
            sent(&frame.envelope);
            continue;
        }
        let written = timeout_at(deadline, write(id, kind, link, queue, &mut group, &frame)).await;
        match written {
            Ok(Ok(())) => sent(&frame.envelope),
            Ok(Err(WriteError::ConnectionLost(_))) => return,
            Ok(Err(_)) | Err(_) => {
                if let Some(mut stream) = group.take() {
                    let _ = stream.reset(VarInt::from_u32(LATE));
                }
                counters
                    .dropped(reason::LATE, 1 + if kind == Kind::Video { queue.give_up_group() } else { 0 });
                if kind == Kind::Video {
                    keyframe();
                }
            }
        }
    }
    if let Some(mut last) = group {
        let _ = last.finish();
        // the relay forgets a stream's frames with the stream: it is told only after it has them all
        let _ = timeout(FAREWELL, last.stopped()).await;
    }
}

async fn write(
    id: StreamId,
    kind: Kind,
    link: &Connection,
    queue: &Queue,
    group: &mut Option<SendStream>,
    frame: &Waiting,
) -> Result<(), WriteError> {
    if frame.opens || group.is_none() {
        if let Some(mut old) = group.take() {
            let _ = old.finish();
        }
        let stream = link.open_uni().await?;
        let _ = stream.set_priority(priority(kind));
        let header = GroupHeader { route: Route(id.0), group: queue.next_group(), layer: 0 };
        let opened = group.insert(stream);
        opened.write_all(&header.to_bytes()).await?;
    }
    let Some(stream) = group else { return Err(WriteError::ClosedStream) };
    stream.write_all_chunks(&mut [Bytes::from(Record::frame(&frame.envelope).to_bytes())]).await?;
    if kind == Kind::Audio {
        // too large for a datagram: a group of its own
        let _ = stream.finish();
        *group = None;
    }
    Ok(())
}

/// Whether the frame went out as a datagram.
fn datagram(id: StreamId, link: &Connection, frame: &Waiting) -> bool {
    let most = link.max_datagram_size().unwrap_or(0).min(MAX_DATAGRAM);
    if frame.envelope.sealed.len() + ENVELOPE_HEAD > most {
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
/// How long the end of a closed stream may take to arrive.
const FAREWELL: Duration = Duration::from_secs(1);
/// The application's reset code of a group that came too late.
const LATE: u32 = 1;

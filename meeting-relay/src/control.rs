//! The control stream of one connection: what the agent says, and what it is told.

use std::time::Instant;

use bytes::Bytes;
use meeting_wire::{
    Bucket, Decode, DecodeError, FromRelay, Kind, Reader, Refusal, Slot, ToRelay, VERSION, message_len,
    packed,
};
use quinn::{ReadExactError, RecvStream, SendStream};
use tokio::sync::{mpsc, oneshot};

use crate::budget::Charge;
use crate::limits;
use crate::outlet::Outgoing;
use crate::session::{End, Member, Misbehaviour};
use crate::whole::{Unfinished, read_on};

/// The receiving half of a control stream.
#[derive(Debug)]
pub struct Ear(RecvStream);

impl Ear {
    /// At the beginning of the stream.
    pub fn new(recv: RecvStream) -> Self {
        Self(recv)
    }

    /// The first message, `None` if there is none. Of another version's hello only the version is read: the
    /// rest may look different there.
    pub async fn hello(&mut self) -> Result<Option<ToRelay>, End> {
        // No memory is given to what a stranger claims.
        let Some(len) = self.len().await? else {
            return Ok(None);
        };
        if len > limits::HELLO_BYTES {
            return Err(Misbehaviour::Bytes { at: HELLO, error: DecodeError::TooLong("a hello") }.into());
        }
        let bytes = self.bytes(len, len, |_| true).await?;
        match ToRelay::from_bytes(&bytes) {
            Ok(message) => Ok(Some(message)),
            Err(_) if other_version(&bytes) => Err(End::Refused(Refusal::Version)),
            Err(error) => Err(Misbehaviour::Bytes { at: HELLO, error }.into()),
        }
    }

    /// The next message, `None` at the end of the stream. There is room for it as it is kept and as it is passed on.
    pub async fn message(&mut self, member: &Member) -> Result<Option<(ToRelay, [Charge; 2])>, End> {
        let Some(len) = self.len().await? else {
            return Ok(None);
        };
        let first = len.min(limits::PACKET);
        let room = || member.meeting.charge(member.seat, first + limits::ITEM_BYTES);
        let short = || member.counters.short_of_memory.one();
        let (Some(mut kept), Some(mut passed_on)) = (room(), room()) else {
            short();
            return Err(End::Refused(Refusal::Busy));
        };
        let grow = |more| {
            let grow = |charge| member.meeting.grow(member.seat, charge, more);
            let grown = grow(&mut kept) && grow(&mut passed_on);
            if !grown {
                short();
            }
            grown
        };
        let bytes = self.bytes(first, len, grow).await?;
        let message =
            ToRelay::from_bytes(&bytes).map_err(|error| Misbehaviour::Bytes { at: MESSAGE, error })?;
        Ok(Some((message, [kept, passed_on])))
    }

    async fn len(&mut self) -> Result<Option<usize>, End> {
        let mut len = [0; 4];
        match self.0.read_exact(&mut len).await {
            Ok(()) => {}
            Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
            Err(ReadExactError::FinishedEarly(_)) => return Err(Misbehaviour::Truncated(MESSAGE).into()),
            Err(ReadExactError::ReadError(_)) => return Err(End::Lost),
        }
        let len = message_len(len).map_err(|error| Misbehaviour::Bytes { at: MESSAGE, error })?;
        Ok(Some(len))
    }

    /// `len` bytes, where there is room for the `first` of them.
    async fn bytes(
        &mut self,
        first: usize,
        len: usize,
        grow: impl FnMut(usize) -> bool,
    ) -> Result<Vec<u8>, End> {
        let mut bytes = Vec::with_capacity(first);
        match read_on(&mut self.0, &mut bytes, len, grow).await {
            Ok(()) => Ok(bytes),
            Err(Unfinished::NoRoom) => Err(End::Refused(Refusal::Busy)),
            Err(Unfinished::Stopped) => Err(Misbehaviour::Stopped(MESSAGE).into()),
            Err(Unfinished::Truncated) => Err(Misbehaviour::Truncated(MESSAGE).into()),
            Err(Unfinished::Broken) => Err(End::Lost),
        }
    }
}

/// Takes an agent's messages until the end.
pub async fn listen(mut ear: Ear, member: &Member) -> End {
    let mut rates = Rates::new(Instant::now());
    loop {
        let (message, room) = match ear.message(member).await {
            Ok(Some(message)) => message,
            Ok(None) => return End::Lost,
            Err(end) => return end,
        };
        if matches!(message, ToRelay::Goodbye) {
            return End::Goodbye;
        }
        let allowed = rates.take(&message, Instant::now());
        if let Err(misbehaviour) = allowed.and_then(|()| act(message, room, member)) {
            return misbehaviour.into();
        }
    }
}

/// Tells the agent what is queued for it until `ending` brings its last message, or none.
pub async fn speak(
    mut send: SendStream,
    (greeting, room): (Vec<FromRelay>, Option<Charge>),
    mut queue: mpsc::Receiver<Outgoing>,
    mut ending: oneshot::Receiver<Option<Bytes>>,
) {
    for message in greeting {
        if send.write_chunk(packed(&message)).await.is_err() {
            return;
        }
    }
    drop(room);
    loop {
        let message = tokio::select! {
            biased;
            last = &mut ending => {
                if let Ok(Some(last)) = last {
                    let _ = send.write_chunk(last).await;
                }
                let _ = send.finish();
                let _ = send.stopped().await;
                return;
            }
            message = queue.recv() => message,
        };
        let Some(message) = message else { return };
        if send.write_chunk(message.bytes).await.is_err() {
            return;
        }
    }
}

struct Rates {
    messages: Bucket,
    log: Bucket,
    bytes: Bucket,
    to_all: Bucket,
}

impl Rates {
    fn new(now: Instant) -> Self {
        Self {
            messages: Bucket::new(limits::MESSAGES, now),
            log: Bucket::new(limits::LOG, now),
            bytes: Bucket::new(limits::POST_BYTES, now),
            to_all: Bucket::holding(limits::TO_ALL_AT_FIRST, limits::TO_ALL, now),
        }
    }

    fn take(&mut self, message: &ToRelay, now: Instant) -> Result<(), Misbehaviour> {
        if !self.messages.take(1.0, now) {
            return Err(Misbehaviour::TooMany("messages"));
        }
        if let ToRelay::Post { slot, body } = message {
            if !self.bytes.take(body.len() as f64, now) {
                return Err(Misbehaviour::TooMany("bytes of posts"));
            }
            if matches!(slot, Slot::Log) && !self.log.take(1.0, now) {
                return Err(Misbehaviour::TooMany("log posts"));
            }
        }
        let to_all = match message {
            ToRelay::Post { slot: Slot::Log | Slot::Cell, body } => body.len(),
            ToRelay::Publish { .. } | ToRelay::Unpublish { .. } => 0,
            _ => return Ok(()),
        };
        if !self.to_all.take((to_all + limits::PLACE_BYTES) as f64, now) {
            return Err(Misbehaviour::TooMany("bytes for everybody"));
        }
        Ok(())
    }
}

fn act(message: ToRelay, [kept, passed_on]: [Charge; 2], member: &Member) -> Result<(), Misbehaviour> {
    let Member { meeting, seat, .. } = member;
    match message {
        ToRelay::Post { slot, body } => {
            member.counters.posts.one();
            member.recorder.post(&body);
            let dropped = meeting.post(*seat, slot, kept.hold(body), passed_on)?;
            member.counters.posts_dropped.add(dropped);
        }
        ToRelay::Publish { stream, kind } => {
            meeting.publish(*seat, stream, kind)?;
            if kind != Kind::Audio {
                member.publishes.notify_one();
            }
        }
        ToRelay::Unpublish { stream } => {
            meeting.unpublish(*seat, stream);
            member.newest.forget(stream);
        }
        ToRelay::Subscribe { route } => meeting.subscribe(*seat, route)?,
        ToRelay::Unsubscribe { route } => meeting.unsubscribe(*seat, route),
        ToRelay::KeyframeRequest { route } => meeting.keyframe_request(*seat, route),
        // Goodbye is taken before this.
        _ => return Err(Misbehaviour::SecondHello),
    }
    Ok(())
}

fn other_version(bytes: &[u8]) -> bool {
    let version =
        |reader: &mut Reader<'_>| -> Result<(u8, u16), DecodeError> { Ok((reader.u8()?, reader.u16()?)) };
    matches!(version(&mut Reader::new(bytes)), Ok((0, version)) if version != VERSION)
}

const HELLO: &str = "the hello";
const MESSAGE: &str = "a control message";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_states_all_its_streams_anew_thrice_a_second_goes_on() {
        let start = Instant::now();
        let mut rates = Rates::new(start);
        let statement = ToRelay::Post { slot: Slot::Log, body: Bytes::from_static(&[7; 600]) };
        for epoch in 0..180_u32 {
            let now = start + epoch * Duration::from_millis(333);
            for _ in 1..limits::STREAMS {
                assert_eq!(rates.take(&statement, now), Ok(()), "epoch {epoch}");
            }
        }
    }
}

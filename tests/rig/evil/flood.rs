//! All that an evil relay can send to one agent, as fast as it takes it.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use meeting_wire::{
    AudioDatagram, Encode, Envelope, FromRelay, GroupHeader, MAX_FRAME, MAX_POST, ParticipantId, Post,
    Record, Route, Slot, StreamId,
};
use quinn::SendStream;
use tokio::time::{sleep, timeout};

use super::{EvilRelay, Inside};

impl EvilRelay {
    /// Floods the agent for a while, with frames that look `like` one of this stream, and gives how many bytes it took.
    /// Frames are as long as may be, groups say that more comes and go no further, posts are in thousands of names.
    pub fn flood(&self, stream: StreamId, like: &Envelope, time: Duration) -> Result<u64> {
        let offered = self.inside.state().routes.iter().rev().find(|(_, id)| *id == stream).copied();
        let (route, _) = offered.context("no such stream is offered")?;
        let sent = Arc::new(AtomicU64::new(0));
        self.runtime.block_on(async {
            let all = async {
                tokio::join!(
                    posts(&self.inside, &sent),
                    groups(&self.inside, &sent, route, longest(like)),
                    datagrams(&self.inside, &sent, route, like),
                )
            };
            let _ = timeout(time, all).await;
        });
        Ok(sent.load(Ordering::Relaxed))
    }
}

/// The same frame with as many bytes as a frame may have.
fn longest(like: &Envelope) -> Bytes {
    let mut sealed = like.sealed.to_vec();
    sealed.resize(MAX_FRAME, 0x5a);
    Record::frame(&Envelope { sealed: sealed.into(), ..like.clone() }).to_bytes().into()
}

async fn posts(inside: &Inside, sent: &AtomicU64) {
    for n in 0u128.. {
        let from = ParticipantId((n % 5_000).to_be_bytes());
        let post =
            FromRelay::Post(Post { seq: 0, from, slot: Slot::Cell, body: vec![n as u8; MAX_POST].into() });
        let message = post.to_bytes();
        let control = inside.state().control.clone();
        let took = match control {
            Some(control) => {
                let mut control = control.lock().await;
                let head = (message.len() as u32).to_be_bytes();
                control.write_all(&head).await.is_ok() && control.write_all(&message).await.is_ok()
            }
            None => false,
        };
        count(took, message.len(), sent).await;
    }
}

async fn groups(inside: &Inside, sent: &AtomicU64, route: Route, record: Bytes) {
    let mut unfinished = VecDeque::<SendStream>::new();
    for n in 0.. {
        let whole = n % 2 == 0;
        let header = GroupHeader { route, group: (1 << 40) + n, layer: 0 }.to_bytes();
        let part = if whole { record.clone() } else { record.slice(..record.len() / 2) };
        let victim = inside.state().victim.clone();
        let group = async {
            let mut stream = victim?.open_uni().await.ok()?;
            stream.write_all(&header).await.ok()?;
            stream.write_all(&part).await.ok()?;
            Some(stream)
        };
        // What an agent does not read does not count.
        let stream = timeout(Duration::from_millis(500), group).await.ok().flatten();
        count(stream.is_some(), part.len(), sent).await;
        unfinished.extend(stream.filter(|_| !whole));
        if unfinished.len() > UNFINISHED {
            let _ = unfinished.pop_front().map(|mut stream| stream.reset(0u32.into()));
        }
    }
}

async fn datagrams(inside: &Inside, sent: &AtomicU64, route: Route, like: &Envelope) {
    let datagram: Bytes = AudioDatagram { route, envelope: like.clone() }.to_bytes().into();
    loop {
        let victim = inside.state().victim.clone();
        let took = match victim {
            Some(victim) => victim.send_datagram_wait(datagram.clone()).await.is_ok(),
            None => false,
        };
        count(took, datagram.len(), sent).await;
    }
}

/// An agent that has hung up comes again.
async fn count(took: bool, bytes: usize, sent: &AtomicU64) {
    if took {
        sent.fetch_add(bytes as u64, Ordering::Relaxed);
    } else {
        sleep(AGAIN).await;
    }
}

const AGAIN: Duration = Duration::from_millis(50);
/// Groups that are open at one time.
const UNFINISHED: usize = 100;

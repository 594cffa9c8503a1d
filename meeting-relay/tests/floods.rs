//! Who sends too much for others: the one who does ends, or its own words and frames are lost, and nobody else is hurt.

#[allow(dead_code)]
mod common;

use std::time::Duration;

use bytes::Bytes;
use common::*;
use meeting_relay::close_code;
use meeting_wire::{
    Decode, Encode, FromRelay, GroupHeader, Kind, MAX_POST, ParticipantId, RecordKind, Refusal, Route, Slot,
    StreamId, ToRelay,
};
use quinn::{RecvStream, TransportConfig, VarInt};
use tokio::sync::{Mutex, mpsc};

const CAMERA: StreamId = StreamId(3);
const CHAT: StreamId = StreamId(4);
/// What goes before pictures, as long as it is little.
const BEACONS: StreamId = StreamId(0);

/// Alice, who has said something to everybody, and Bob, who does not read for now.
async fn meet(rig: &Rig) -> (Agent, Agent) {
    let mut alice = rig.create(ALICE).await;
    alice.post(Slot::Log, b"link").await;
    alice.hear_post().await;
    let mut narrow = TransportConfig::default();
    narrow.receive_window(VarInt::from_u32(60_000));
    let mut bob = rig.join_over(BOB, narrow).await;
    assert_eq!(&bob.hear_post().await.body[..], b"link");
    (alice, bob)
}

async fn send_long_posts(eve: &mut Agent, slot: Slot) {
    let body = Bytes::from(vec![0xe; MAX_POST]);
    for _ in 0..20 {
        eve.say_to_whom_it_may(ToRelay::Post { slot, body: body.clone() }).await;
    }
}

/// Reads until a word of this author comes.
async fn hear_from(agent: &mut Agent, author: ParticipantId, body: &[u8]) {
    while !matches!(agent.hear().await, FromRelay::Post(post) if post.from == author && post.body == body) {}
}

#[tokio::test]
async fn a_flood_for_everybody_ends_its_author_alone() {
    let rig = Rig::start();
    let (mut alice, mut bob) = meet(&rig).await;
    let mut eve = rig.join(EVE).await;
    send_long_posts(&mut eve, Slot::Log).await;
    let (code, said) = eve.closed().await;
    assert_eq!(code, close_code(Refusal::Protocol), "{said}");
    assert!(said.contains("too many bytes for everybody"), "{said}");

    let mut carol = rig.join(CAROL).await;
    assert_eq!(&carol.hear_post().await.body[..], b"link", "the log was not flushed");
    alice.post(Slot::Direct(BOB), b"all is well").await;
    hear_from(&mut bob, ALICE, b"all is well").await;
}

#[tokio::test]
async fn a_flood_for_one_leaves_room_for_the_words_of_others() {
    let rig = Rig::start();
    let (mut alice, mut bob) = meet(&rig).await;
    let mut eve = rig.join(EVE).await;
    assert_eq!(&eve.hear_post().await.body[..], b"link");
    send_long_posts(&mut eve, Slot::Direct(BOB)).await;
    eve.post(Slot::Direct(EVE), b"all sent").await;
    assert_eq!(&eve.hear_post().await.body[..], b"all sent", "she goes on, and is not waited for");
    counted(&rig.counters.posts_dropped, 10).await;

    let long = Bytes::from(vec![0xa; 100_000]);
    alice.say(ToRelay::Post { slot: Slot::Direct(BOB), body: long.clone() }).await;
    alice.post(Slot::Log, b"next link").await;
    hear_from(&mut bob, ALICE, &long).await;
    hear_from(&mut bob, ALICE, b"next link").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_data_costs_a_slow_subscriber_nobody_elses_pictures() {
    for stream in [CHAT, BEACONS] {
        pictures_pass_beside_a_flood_on(stream).await;
    }
}

async fn pictures_pass_beside_a_flood_on(stream: StreamId) {
    let rig = Rig::start();
    let mut alice = rig.create(ALICE).await;
    let mut eve = rig.join(EVE).await;
    let mut narrow = TransportConfig::default();
    narrow.receive_window(VarInt::from_u32(60_000));
    let mut bob = rig.join_over(BOB, narrow).await;
    let pictures = alice.publish_to(&mut bob, CAMERA, Kind::Video).await;
    eve.hear().await;
    let chat = eve.publish_to(&mut bob, stream, Kind::Data).await;
    bob.subscribe(BOB, pictures).await;
    bob.subscribe(BOB, chat).await;
    let mut whole = read_slowly(&bob, pictures);

    let flood = tokio::spawn(async move {
        let record = record(RecordKind::Frame, 6, 50_000).to_bytes();
        for group in 0.. {
            let mut send = eve.open_group(stream, group, 0).await;
            for _ in 0..20 {
                send.write_all(&record).await.expect("within her rate");
            }
            // 80 Mbit/s.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    counted(&rig.counters.frames_dropped_full, 1).await;
    for group in 0..10 {
        let picture = record(RecordKind::Frame, group as u8, 10_000);
        alice.send_group(CAMERA, group, 0, &[picture]).await;
        assert_eq!(soon(whole.recv()).await, Some((group, true)));
    }
    flood.abort();
}

/// Reads all streams in turn, about a packet in a millisecond. Tells of each group on `route` whether it came whole.
fn read_slowly(agent: &Agent, route: Route) -> mpsc::UnboundedReceiver<(u64, bool)> {
    static TURN: Mutex<()> = Mutex::const_new(());
    async fn read(mut recv: RecvStream) -> Result<(GroupHeader, bool), quinn::ReadError> {
        let mut header = [0; GroupHeader::LEN];
        if recv.read_exact(&mut header).await.is_err() {
            return Err(quinn::ReadError::ClosedStream);
        }
        let header = GroupHeader::from_bytes(&header).expect("a header");
        loop {
            let turn = TURN.lock().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            drop(turn);
            match recv.read_chunk(16 * 1024, true).await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok((header, true)),
                Err(_) => return Ok((header, false)),
            }
        }
    }
    let (whole, groups) = mpsc::unbounded_channel();
    let connection = agent.connection.clone();
    tokio::spawn(async move {
        while let Ok(recv) = connection.accept_uni().await {
            let whole = whole.clone();
            tokio::spawn(async move {
                if let Ok((header, came)) = read(recv).await
                    && header.route == route
                {
                    let _ = whole.send((header.group, came));
                }
            });
        }
    });
    groups
}

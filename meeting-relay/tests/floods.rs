//! Who sends too much for others: the one who does ends, or its own words and frames are lost, and nobody else is hurt.

#[allow(dead_code)]
mod common;

use std::time::Duration;

use bytes::Bytes;
use common::*;
use meeting_relay::close_code;
use meeting_wire::{
    Admission, AudioDatagram, BEACONS, Decode, Encode, Envelope, Flags, FromRelay, GroupHeader, Kind,
    MAX_POST, ParticipantId, Record, RecordKind, Refusal, Route, Slot, StreamId, ToRelay,
};
use quinn::{RecvStream, TransportConfig, VarInt};
use tokio::sync::{Mutex, mpsc};
use tokio::time::MissedTickBehavior;

const CAMERA: StreamId = StreamId(3);
const CHAT: StreamId = StreamId(4);
const VOICE: StreamId = StreamId(5);

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
        pictures_pass_beside_a_flood_on(stream, 50_000).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_record_takes_no_more_of_a_slow_subscriber_than_its_share() {
    pictures_pass_beside_a_flood_on(CHAT, Record::MAX - 3).await;
}

#[tokio::test]
async fn data_that_is_not_read_keeps_back_no_header_of_what_comes_later() {
    let rig = Rig::start();
    let mut alice = rig.create(ALICE).await;
    let mut narrow = TransportConfig::default();
    narrow.stream_receive_window(VarInt::from_u32(1_000));
    let mut bob = rig.join_over(BOB, narrow).await;
    let chat = alice.publish_to(&mut bob, CHAT, Kind::Data).await;
    bob.subscribe(BOB, chat).await;
    let header = async || {
        let mut recv = bob.connection.accept_uni().await.expect("a group");
        recv.read_exact(&mut [0; GroupHeader::LEN]).await.expect("its header");
        recv
    };

    // The turn of each lasts for half a second, ten in all.
    let word = [record(RecordKind::Frame, 6, 10_000)];
    let mut unread = Vec::new();
    for group in 0..20 {
        alice.send_group(CHAT, group, 0, &word).await;
    }
    for _ in 0..20 {
        unread.push(soon(header()).await);
    }
    alice.send_group(CHAT, 20, 0, &word).await;
    let last = tokio::time::timeout(Duration::from_secs(4), header()).await;
    assert!(last.is_ok(), "it waited for the turns of the others");
}

#[tokio::test]
async fn of_two_large_records_at_one_time_one_is_stopped_alone() {
    let rig = Rig::start();
    let mut alice = rig.create(ALICE).await;
    let mut bob = rig.join(BOB).await;
    let pictures = alice.publish_to(&mut bob, CAMERA, Kind::Video).await;
    let files = alice.publish_to(&mut bob, CHAT, Kind::Data).await;
    bob.subscribe(BOB, pictures).await;
    bob.subscribe(BOB, files).await;

    let large = record(RecordKind::Frame, 6, 9 * 1024 * 1024).to_bytes();
    let mut first = alice.open_group(CHAT, 0, 0).await;
    let mut second = alice.open_group(CHAT, 1, 0).await;
    for group in [&mut first, &mut second] {
        group.write_all(&large[..1_000]).await.expect("sent");
    }
    let (stopped, mut other) = tokio::select! {
        stopped = soon(first.stopped()) => (stopped, second),
        stopped = soon(second.stopped()) => (stopped, first),
    };
    assert_eq!(stopped, Ok(Some(0_u8.into())));

    let picture = [record(RecordKind::Frame, 1, 1_000)];
    alice.send_group(CAMERA, 0, 0, &picture).await;
    let (header, bytes) = bob.next_group().await;
    assert_eq!((header.route, bytes), (pictures, Ok(picture[0].to_bytes())));
    alice.post(Slot::Direct(BOB), b"all is well").await;
    hear_from(&mut bob, ALICE, b"all is well").await;

    other.write_all(&large[1_000..]).await.expect("this one is taken");
    other.finish().expect("open");
    let (header, bytes) = bob.next_group().await;
    assert!(header.route == files && bytes == Ok(large), "whole");
    assert_eq!(rig.counters.frames_dropped_full.value(), 1);
}

async fn pictures_pass_beside_a_flood_on(stream: StreamId, len: usize) {
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
        let record = record(RecordKind::Frame, 6, len).to_bytes();
        let at_once = 1_000_000_usize.div_ceil(len);
        for group in 0.. {
            let mut send = eve.open_group(stream, group, 0).await;
            for _ in 0..at_once {
                send.write_all(&record).await.expect("within her rate");
            }
            // 80 Mbit/s.
            tokio::time::sleep(Duration::from_micros((len * at_once) as u64 / 10)).await;
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

#[tokio::test]
async fn data_goes_on_after_what_found_no_room() {
    let rig = Rig::start();
    let (mut alice, mut bob) = meet(&rig).await;
    let chat = alice.publish_to(&mut bob, CHAT, Kind::Data).await;
    bob.subscribe(BOB, chat).await;
    let mut group = alice.open_group(CHAT, 0, 0).await;
    for seed in 0..40 {
        group.write_all(&record(RecordKind::Frame, seed, 100_000).to_bytes()).await.expect("within her rate");
    }
    counted(&rig.counters.frames_dropped_full, 1).await;

    let last = record(RecordKind::Frame, 99, 10).to_bytes();
    let connection = bob.connection.clone();
    let expected = last.clone();
    let mut reading = tokio::spawn(async move {
        loop {
            let mut recv = connection.accept_uni().await.expect("connected");
            let mut end = Vec::new();
            while let Ok(Some(chunk)) = recv.read_chunk(16 * 1024, true).await {
                end.extend_from_slice(&chunk.bytes);
                if end.ends_with(&expected) {
                    return;
                }
                end.drain(..end.len().saturating_sub(expected.len()));
            }
        }
    });
    let comes = async {
        while tokio::time::timeout(Duration::from_millis(50), &mut reading).await.is_err() {
            group.write_all(&last).await.expect("she goes on");
        }
    };
    soon(comes).await;
}

#[tokio::test]
async fn data_goes_on_in_another_stream_where_one_was_stopped() {
    let rig = Rig::start();
    let (mut alice, mut bob) = meet(&rig).await;
    let chat = alice.publish_to(&mut bob, CHAT, Kind::Data).await;
    bob.subscribe(BOB, chat).await;
    let mut group = alice.open_group(CHAT, 7, 0).await;
    let word = record(RecordKind::Frame, 1, 10).to_bytes();
    group.write_all(&word).await.expect("sent");
    let mut heard = soon(bob.connection.accept_uni()).await.expect("a group");
    heard.stop(VarInt::from_u32(0)).expect("open");
    let mut again = soon(async {
        loop {
            group.write_all(&word).await.expect("she goes on");
            let accepted = tokio::time::timeout(Duration::from_millis(50), bob.connection.accept_uni()).await;
            if let Ok(again) = accepted {
                break again.expect("connected");
            }
        }
    })
    .await;
    let mut bytes = vec![0; GroupHeader::LEN + word.len()];
    soon(again.read_exact(&mut bytes)).await.expect("a record");
    let header = GroupHeader { route: chat, group: 7, layer: 0 };
    assert_eq!(bytes, [header.to_bytes(), word].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_sound_keeps_nothing_else_from_a_slow_subscriber() {
    let rig = Rig::start();
    let mut alice = rig.create(ALICE).await;
    let mut eve = rig.join(EVE).await;
    // 1 Mbit/s.
    let path = narrow::path(rig.address, 125_000).await;
    let connection = connect(path, rig.certificate.clone(), TransportConfig::default()).await;
    let (mut bob, _welcome) = Agent::greet(connection, hello(BOB, Admission::Join)).await;
    let noise = eve.publish_to(&mut bob, VOICE, Kind::Audio).await;
    bob.subscribe(BOB, noise).await;
    let voice = alice.publish_to(&mut bob, VOICE, Kind::Audio).await;
    bob.subscribe(BOB, voice).await;

    // 9 Mbit/s, of which each fills a packet.
    let noise = Bytes::from(sound(1_153).to_bytes());
    let flood = tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        // What is missed while the machine stands still is not made up for at once; so it is with the talk below.
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            for _ in 0..10 {
                eve.connection.send_datagram(noise.clone()).expect("within her rate");
            }
        }
    });
    counted(&rig.counters.frames_in, 1_000).await;

    let (mut speaking, words) = (tokio::time::interval(Duration::from_millis(20)), sound(100).to_bytes());
    speaking.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let talk = alice.connection.clone();
    let talking = tokio::spawn(async move {
        for _ in 0..250 {
            speaking.tick().await;
            talk.send_datagram(words.clone().into()).expect("small");
        }
    });
    let listening = bob.connection.clone();
    let voices = tokio::spawn(async move {
        let mut heard = 0;
        while let Ok(datagram) = listening.read_datagram().await {
            heard += usize::from(datagram.starts_with(&voice.0.to_be_bytes()));
            if heard == 125 {
                return;
            }
        }
    });
    // Without a heartbeat for 8 s Bob would be stale.
    for word in [&b"one"[..], b"two", b"three"] {
        alice.say(ToRelay::Post { slot: Slot::Cell, body: Bytes::from_static(word) }).await;
        let heard = hear_from(&mut bob, ALICE, word);
        tokio::time::timeout(Duration::from_secs(4), heard).await.expect("before the sound");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    soon(talking).await.expect("no panic");
    assert!(tokio::time::timeout(Duration::from_secs(4), voices).await.is_ok(), "not half of a voice came");
    flood.abort();
}

fn sound(len: usize) -> AudioDatagram {
    let sealed = Bytes::from(vec![7; len]);
    let envelope = Envelope { pts: None, dts: None, duration: None, flags: Flags(0), layer: 0, sealed };
    AudioDatagram { route: Route(VOICE.0), envelope }
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

//! The real relay on a port of its own, with agents that keep to the rules.

#[allow(dead_code)]
mod common;

use std::time::Duration;

use bytes::Bytes;
use common::*;
use meeting_relay::{SHUTDOWN, close_code, reset};
use meeting_wire::{
    Admission, AudioDatagram, Encode, Envelope, Flags, FromRelay, Kind, Record, RecordKind, Refusal, Route,
    Slot, StreamId, ToRelay, VERSION,
};
use quinn::{TransportConfig, VarInt};

const CAMERA: StreamId = StreamId(3);
const VOICE: StreamId = StreamId(4);

async fn refusal(rig: &Rig, hello: ToRelay) -> Refusal {
    let (agent, answer) = rig.hello(hello, TransportConfig::default()).await;
    let FromRelay::Refused(refusal) = answer else { panic!("{answer:?}") };
    assert_eq!(agent.closed().await, (close_code(refusal), refusal.to_string()));
    refusal
}

fn create(token: &str) -> Admission {
    Admission::Create { token: token.into() }
}

#[tokio::test]
async fn who_is_let_in() {
    let rig = Rig::with(|config| {
        config.meetings.create_tokens = vec!["a token of the operator".into()];
        config.meetings.max_participants = 2;
        config.meetings.max_meetings = 1;
    });
    assert_eq!(refusal(&rig, hello(ALICE, Admission::Join)).await, Refusal::NoMeeting);
    assert_eq!(refusal(&rig, hello(ALICE, create("a token of somebody"))).await, Refusal::Token);
    let creation = hello(ALICE, create("a token of the operator"));
    let (_alice, answer) = rig.hello(creation.clone(), TransportConfig::default()).await;
    assert_eq!(answer, FromRelay::Welcome { version: VERSION, max_participants: 2, max_publish_mbit: 100 });
    let _bob = rig.join(BOB).await;
    assert_eq!(refusal(&rig, hello(CAROL, Admission::Join)).await, Refusal::Full);

    let ToRelay::Hello { participant, since, admission, version, .. } = creation else { unreachable!() };
    let other = meeting_wire::MeetingId([2; 16]);
    let second = ToRelay::Hello {
        version,
        meeting: other,
        participant,
        claim: meeting_wire::Claim(ALICE.0),
        since,
        admission,
    };
    assert_eq!(refusal(&rig, second).await, Refusal::Busy);
    assert_eq!(rig.counters.refused.value(), 4);
}

#[tokio::test]
async fn another_version_is_refused_as_such() {
    let rig = Rig::start();
    let mut other = hello(ALICE, Admission::Join);
    if let ToRelay::Hello { version, .. } = &mut other {
        *version = VERSION + 1;
    }
    assert_eq!(refusal(&rig, other.clone()).await, Refusal::Version);

    // And when the rest of the message looks different there.
    let bytes = [&other.to_bytes()[..], b"and more"].concat();
    let connection = rig.connect(TransportConfig::default()).await;
    let (mut send, recv) = connection.open_bi().await.expect("allowed");
    send.write_all(&(bytes.len() as u32).to_be_bytes()).await.expect("sent");
    send.write_all(&bytes).await.expect("sent");
    let agent = Agent { connection, send, recv };
    assert_eq!(agent.closed().await.0, close_code(Refusal::Version));
}

#[tokio::test]
async fn connections_above_the_limit_are_told_so() {
    let rig = Rig::with(|config| config.meetings.max_connections = 1);
    let alice = rig.create(ALICE).await;
    assert_eq!(refusal(&rig, hello(BOB, Admission::Join)).await, Refusal::Busy);
    drop(alice);
}

#[tokio::test]
async fn posts_reach_those_they_are_for() {
    let rig = Rig::start();
    let mut alice = rig.create(ALICE).await;
    let mut bob = rig.join(BOB).await;
    let mut carol = rig.join(CAROL).await;

    alice.post(Slot::Direct(CAROL), b"for Carol").await;
    alice.post(Slot::Cell, b"heartbeat").await;
    alice.post(Slot::Log, b"link").await;

    let post = carol.hear_post().await;
    assert_eq!((post.from, post.slot, &post.body[..]), (ALICE, Slot::Direct(CAROL), &b"for Carol"[..]));
    for agent in [&mut bob, &mut carol] {
        let cell = agent.hear_post().await;
        assert_eq!((cell.seq, cell.slot, &cell.body[..]), (0, Slot::Cell, &b"heartbeat"[..]));
        let link = agent.hear_post().await;
        assert_eq!((link.slot, &link.body[..]), (Slot::Log, &b"link"[..]));
        assert!(link.seq > 0);
    }
    assert_eq!(&alice.hear_post().await.body[..], b"link", "the author learns its place in the order");
    assert_eq!(rig.counters.posts.value(), 3);
}

#[tokio::test]
async fn the_log_is_replayed_from_where_one_was() {
    let rig = Rig::start();
    let mut alice = rig.create(ALICE).await;
    let mut seqs = Vec::new();
    for body in [b"one", b"two", b"three" as &[u8]] {
        alice.post(Slot::Log, body).await;
        seqs.push(alice.hear_post().await.seq);
    }
    alice.post(Slot::Cell, b"old beat").await;
    alice.post(Slot::Cell, b"new beat").await;
    alice.post(Slot::Direct(ALICE), b"done").await;
    alice.hear_post().await;

    let mut since = hello(BOB, Admission::Join);
    if let ToRelay::Hello { since, .. } = &mut since {
        *since = seqs[0];
    }
    let (mut bob, _welcome) = rig.hello(since, TransportConfig::default()).await;
    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.push(bob.hear_post().await.body);
    }
    assert_eq!(heard, [&b"new beat"[..], b"two", b"three"]);
}

#[tokio::test]
async fn the_board_outlives_a_lost_network_and_not_the_meeting() {
    let rig = Rig::with(|config| config.meetings.keep_empty = Duration::from_secs(3600));
    let mut alice = rig.create(ALICE).await;
    alice.post(Slot::Log, b"link").await;
    alice.hear_post().await;
    alice.connection.close(VarInt::from_u32(0), b"");
    let mut again = rig.join(ALICE).await;
    assert_eq!(&again.hear_post().await.body[..], b"link");

    let rig = Rig::with(|config| config.meetings.keep_empty = Duration::ZERO);
    let mut alice = rig.create(ALICE).await;
    loop {
        alice.say(ToRelay::Goodbye).await;
        assert_eq!(alice.closed().await.0, 0);
        let (agent, answer) = rig.hello(hello(ALICE, Admission::Join), TransportConfig::default()).await;
        match answer {
            FromRelay::Refused(refusal) => break assert_eq!(refusal, Refusal::NoMeeting),
            // The sweeper has not been there yet.
            _ => alice = agent,
        }
    }
}

#[tokio::test]
async fn a_second_connection_replaces_the_first() {
    let rig = Rig::start();
    let mut alice = rig.create(ALICE).await;
    let mut bob = rig.join(BOB).await;
    let route = alice.publish_to(&mut bob, CAMERA, Kind::Video).await;
    let mut again = rig.join(ALICE).await;
    assert_eq!(alice.hear().await, FromRelay::Refused(Refusal::Replaced));
    assert_eq!(alice.closed().await.0, close_code(Refusal::Replaced));
    assert_eq!(bob.hear().await, FromRelay::Unpublished { route });
    // Had the end of the first connection taken the second along, Bob would hear that Alice is gone.
    bob.post(Slot::Direct(ALICE), b"still there?").await;
    assert_eq!(&again.hear_post().await.body[..], b"still there?");
    again.post(Slot::Direct(BOB), b"yes").await;
    assert_eq!(&bob.hear_post().await.body[..], b"yes");
}

#[tokio::test]
async fn leaving_is_told() {
    let rig = Rig::start();
    let mut alice = rig.create(ALICE).await;
    let mut bob = rig.join(BOB).await;
    let carol = rig.join(CAROL).await;
    let route = bob.publish_to(&mut alice, VOICE, Kind::Audio).await;
    bob.say(ToRelay::Goodbye).await;
    assert_eq!(bob.closed().await.0, 0);
    assert_eq!(alice.hear().await, FromRelay::Unpublished { route });
    assert_eq!(alice.hear().await, FromRelay::Gone { participant: BOB });
    carol.connection.close(VarInt::from_u32(9), b"lost");
    assert_eq!(alice.hear().await, FromRelay::Gone { participant: CAROL });
}

#[tokio::test]
async fn groups_arrive_byte_for_byte() {
    let rig = Rig::start();
    let mut alice = rig.create(ALICE).await;
    let mut bob = rig.join(BOB).await;
    let route = alice.publish_to(&mut bob, CAMERA, Kind::Video).await;
    bob.subscribe(BOB, route).await;
    assert_eq!(alice.hear().await, FromRelay::KeyframeWanted { stream: CAMERA });

    let mut sent = 0;
    for (group, layer) in [(0, 0), (1, 0), (1, 1), (u64::MAX, 2)] {
        let records = [
            record(RecordKind::Frame, layer, 40_000),
            record(RecordKind::Other(1), layer, 200),
            record(RecordKind::Other(77), layer, 0),
        ];
        let (header, bytes, times) = alice.show(&bob, CAMERA, (group, layer), &records).await;
        assert_eq!((header.route, header.group, header.layer), (route, group, layer));
        let expected: Vec<u8> = records.iter().flat_map(Encode::to_bytes).collect();
        assert_eq!(bytes, expected);
        sent += times * records.len() as u64;
    }
    counted(&rig.counters.frames_in, sent).await;
    assert_eq!(rig.counters.frames_in.value(), sent);
    assert_eq!(rig.counters.frames_out.value() + rig.counters.frames_dropped_late.value(), sent);
}

#[tokio::test]
async fn records_are_passed_on_before_their_group_ends() {
    let rig = Rig::start();
    let mut alice = rig.create(ALICE).await;
    let mut bob = rig.join(BOB).await;
    let route = alice.publish_to(&mut bob, StreamId(9), Kind::Data).await;
    bob.subscribe(BOB, route).await;
    let mut group = alice.open_group(StreamId(9), 5, 0).await;
    let first = record(RecordKind::Frame, 1, 300).to_bytes();
    group.write_all(&first).await.expect("sent");
    let mut heard = soon(bob.connection.accept_uni()).await.expect("a group");
    let mut bytes = vec![0; 13 + first.len()];
    soon(heard.read_exact(&mut bytes)).await.expect("the first record, although the group is open");
    assert_eq!(&bytes[13..], first);

    // A group that its publisher gives up is not passed off as whole.
    group.reset(VarInt::from_u32(1)).expect("open");
    let error = soon(heard.read_to_end(100)).await.expect_err("reset");
    let expected = quinn::ReadError::Reset(VarInt::from_u32(reset::UNFINISHED));
    assert_eq!(error, quinn::ReadToEndError::Read(expected));
}

#[tokio::test]
async fn who_subscribes_midway_starts_with_the_next_group() {
    let rig = Rig::start();
    let mut alice = rig.create(ALICE).await;
    let mut bob = rig.join(BOB).await;
    let mut carol = rig.join(CAROL).await;
    let route = alice.publish_to(&mut bob, CAMERA, Kind::Video).await;
    carol.hear().await;
    bob.subscribe(BOB, route).await;
    let mut group = alice.open_group(CAMERA, 1, 0).await;
    group.write_all(&record(RecordKind::Frame, 1, 10).to_bytes()).await.expect("sent");
    let mut heard = soon(bob.connection.accept_uni()).await.expect("a group");
    soon(heard.read_exact(&mut [0; 13])).await.expect("its header");

    carol.subscribe(CAROL, route).await;
    group.write_all(&record(RecordKind::Frame, 2, 10).to_bytes()).await.expect("sent");
    group.finish().expect("open");
    soon(heard.read_to_end(1000)).await.expect("Bob has it all");
    alice.send_group(CAMERA, 2, 0, &[record(RecordKind::Frame, 3, 10)]).await;
    assert_eq!(carol.next_group().await.0.group, 2);

    bob.say(ToRelay::Unsubscribe { route }).await;
    bob.post(Slot::Direct(BOB), b"unsubscribed").await;
    bob.hear_post().await;
    assert_eq!(bob.next_group().await.0.group, 2);
    let out = rig.counters.frames_out.value();
    alice.send_group(CAMERA, 3, 0, &[record(RecordKind::Frame, 3, 10)]).await;
    assert_eq!(carol.next_group().await.0.group, 3);
    assert_eq!(rig.counters.frames_out.value(), out + 1, "Carol's only");
}

#[tokio::test]
async fn sound_travels_in_datagrams() {
    let rig = Rig::start();
    let mut alice = rig.create(ALICE).await;
    let mut bob = rig.join(BOB).await;
    let mut narrow = TransportConfig::default();
    narrow.datagram_receive_buffer_size(None);
    let mut carol = rig.join_over(CAROL, narrow).await;
    let route = alice.publish_to(&mut bob, VOICE, Kind::Audio).await;
    carol.hear().await;
    bob.subscribe(BOB, route).await;
    carol.subscribe(CAROL, route).await;

    let envelope = Envelope {
        pts: Some(20_000_000),
        dts: None,
        duration: Some(20_000_000),
        flags: Flags(Flags::MARKER),
        layer: 0,
        sealed: Bytes::from_static(b"sealed sound"),
    };
    let datagram = AudioDatagram { route: Route(VOICE.0), envelope: envelope.clone() };
    alice.connection.send_datagram(datagram.to_bytes().into()).expect("small enough");
    let heard = soon(bob.connection.read_datagram()).await.expect("connected");
    assert_eq!(heard, AudioDatagram { route, envelope: envelope.clone() }.to_bytes());

    let (header, bytes) = carol.next_group().await;
    assert_eq!(header.route, route, "Carol's path takes no datagrams: a group of one record");
    assert_eq!(bytes, Ok(Record::frame(&envelope).to_bytes()));
}

#[tokio::test]
async fn keyframe_requests_are_merged() {
    let rig = Rig::start();
    let mut alice = rig.create(ALICE).await;
    let mut bob = rig.join(BOB).await;
    let mut carol = rig.join(CAROL).await;
    let route = alice.publish_to(&mut bob, CAMERA, Kind::Video).await;
    carol.hear().await;
    bob.say(ToRelay::Subscribe { route }).await;
    carol.say(ToRelay::Subscribe { route }).await;
    for _ in 0..10 {
        carol.say(ToRelay::KeyframeRequest { route }).await;
    }
    let wanted = FromRelay::KeyframeWanted { stream: CAMERA };
    assert_eq!(alice.hear().await, wanted);
    assert_eq!(alice.hear().await, wanted, "the last request is not forgotten");
    carol.post(Slot::Direct(ALICE), b"that was all").await;
    assert_eq!(&alice.hear_post().await.body[..], b"that was all");
}

#[tokio::test]
async fn a_slow_subscriber_loses_old_groups_and_nobody_else_does() {
    let rig = Rig::start();
    let mut alice = rig.create(ALICE).await;
    let mut narrow = TransportConfig::default();
    narrow.receive_window(VarInt::from_u32(60_000));
    let mut bob = rig.join_over(BOB, narrow).await;
    let mut carol = rig.join(CAROL).await;
    let route = alice.publish_to(&mut carol, CAMERA, Kind::Video).await;
    bob.hear().await;
    bob.subscribe(BOB, route).await;
    carol.subscribe(CAROL, route).await;

    // Bob reads nothing while Carol gets group after group.
    for group in 0..8 {
        let records = [record(RecordKind::Frame, group as u8, 100_000)];
        let (header, bytes, _) = alice.show(&carol, CAMERA, (group, 0), &records).await;
        assert_eq!((header.group, bytes), (group, records[0].to_bytes()));
    }
    counted(&rig.counters.frames_dropped_late, 1).await;

    // Now he reads: what is left of old groups ends in resets, and a new group comes whole.
    let last = [record(RecordKind::Frame, 99, 30_000)];
    alice.send_group(CAMERA, 99, 0, &last).await;
    loop {
        let (header, bytes) = bob.next_group().await;
        match bytes {
            Err(code) => assert_eq!(code, u64::from(reset::LATE)),
            Ok(bytes) if header.group == 99 => break assert_eq!(bytes, last[0].to_bytes()),
            Ok(bytes) => assert_eq!(bytes.len(), 100_000 + 3 + Record::HEAD, "whole or reset, never cut"),
        }
    }
}

#[tokio::test]
async fn data_waits_where_pictures_would_be_dropped() {
    let rig = Rig::start();
    let mut alice = rig.create(ALICE).await;
    let mut narrow = TransportConfig::default();
    narrow.receive_window(VarInt::from_u32(20_000));
    let mut bob = rig.join_over(BOB, narrow).await;
    let route = alice.publish_to(&mut bob, CAMERA, Kind::Data).await;
    bob.subscribe(BOB, route).await;
    let records: Vec<Record> = (0..40).map(|seed| record(RecordKind::Frame, seed, 10_000)).collect();
    alice.send_group(CAMERA, 1, 0, &records).await;
    counted(&rig.counters.frames_in, 40).await;
    // Long enough for a video frame to be too late.
    tokio::time::sleep(Duration::from_millis(400)).await;
    let expected: Vec<u8> = records.iter().flat_map(Encode::to_bytes).collect();
    assert_eq!(bob.next_group().await.1, Ok(expected));
}

#[tokio::test]
async fn a_shutdown_is_told_and_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ready, stats) = (dir.path().join("ready"), dir.path().join("stats"));
    let rig = Rig::with(|config| {
        config.ready_file = Some(ready.clone());
        config.stats = Some(stats.clone());
    });
    let address = rig.address.to_string();
    let mut alice = rig.create(ALICE).await;
    alice.post(Slot::Log, b"link").await;
    alice.hear_post().await;
    let line = std::fs::read_to_string(&ready).expect("written before the first connection");
    let (written, hash) = line.trim_end().split_once(' ').expect("two words");
    assert_eq!((written, hash.len()), (&address[..], 64));
    rig.stop().await;
    assert_eq!(alice.closed().await, (SHUTDOWN, "the relay is shutting down".into()));
    let stats = std::fs::read_to_string(&stats).expect("written at the end");
    assert!(stats.contains("posts 1\n") && stats.contains("connections 1\n"), "{stats}");
}

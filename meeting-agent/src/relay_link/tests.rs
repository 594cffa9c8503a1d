#![allow(clippy::unwrap_used)]

mod rig;

use std::time::Instant;

use bytes::Bytes;
use meeting_protocol::{
    frame::{Header, KeyId},
    local::FromAgent,
};
use meeting_relay::{SHUTDOWN, close_code};
use meeting_wire::{BEACONS, Envelope, Flags, Kind, Slot, StreamId};
use rig::{
    ALICE, BOB, Device, PATIENCE, Running, both, frame, guest, hangs_up, over_again, source, wanted, watched,
};
use tempfile::TempDir;

use super::*;
use crate::{counters::reason, publish::Pipeline};

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_every_kind_cross_the_relay_whole_and_in_order() {
    over_again(frames_of_every_kind_cross).await;
}

async fn frames_of_every_kind_cross() -> bool {
    let folder = TempDir::new().unwrap();
    let relay = Running::start(folder.path(), None);
    let (alice, bob) = watched(&relay, &[(1, Kind::Data), (2, Kind::Audio), (3, Kind::Video)]).await;

    let (wishes, _wished) = source();
    let mut sent = 0;
    for n in 0..90 {
        let flags = if n % 30 == 0 { Flags::KEYFRAME } else { 0 };
        alice.media.publisher.push(StreamId(1), frame(1, n, 0, 50), &wishes, Instant::now());
        // every tenth is too large for a datagram
        alice.media.publisher.push(
            StreamId(2),
            frame(2, n, 0, if n % 10 == 0 { 3_000 } else { 80 }),
            &wishes,
            Instant::now(),
        );
        alice.media.publisher.push(StreamId(3), frame(3, n, flags, 2_000), &wishes, Instant::now());
        sent += 3;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut got: [Vec<u64>; 3] = Default::default();
    for _ in 0..sent {
        let Some((stream, envelope)) = relay.unless_late(&alice, bob.frame()).await else { return false };
        let n = envelope.pts.unwrap();
        let (_, header) = Header::parse(&envelope.sealed).unwrap();
        assert!(envelope.sealed[header..].iter().all(|byte| *byte == n as u8));
        got[stream.0 as usize - 1].push(n);
    }
    let all: Vec<u64> = (0..90).collect();
    assert_eq!(got[0], all, "data in order");
    assert_eq!(got[2], all, "video in order");
    assert_eq!(got[1], all, "audio in order");
    assert_eq!((alice.counters.read().0, bob.counters.read().1), (270, 270));
    assert!(bob.counters.read().2.is_empty(), "{:?}", bob.counters.read());
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_frames_of_a_closed_stream_arrive() {
    over_again(last_frames_arrive).await;
}

async fn last_frames_arrive() -> bool {
    let folder = TempDir::new().unwrap();
    let relay = Running::start(folder.path(), None);
    let (alice, bob) = watched(&relay, &[(3, Kind::Video)]).await;
    let (wishes, _wished) = source();
    for n in 0..20 {
        alice.media.publisher.push(
            StreamId(3),
            frame(3, n, if n == 0 { Flags::KEYFRAME } else { 0 }, 4_000),
            &wishes,
            Instant::now(),
        );
    }
    alice.media.publisher.close(StreamId(3)).await;
    alice.link.out.send(ToRelay::Unpublish { stream: StreamId(3) }).await.unwrap();
    for n in 0..20 {
        let Some((_, envelope)) = relay.unless_late(&alice, bob.frame()).await else { return false };
        assert_eq!(envelope.pts, Some(n));
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_floods_costs_the_others_neither_the_relay_nor_their_streams() {
    let folder = TempDir::new().unwrap();
    let relay = Running::start(folder.path(), None);
    let (mut alice, bob) = watched(&relay, &[(1, Kind::Data), (3, Kind::Video)]).await;
    let (wishes, _wished) = source();
    let publisher = &alice.media.publisher;
    let flood = async {
        for n in 0..40_000 {
            publisher.push(StreamId(1), frame(1, n, 0, 1), &wishes, Instant::now());
            if n % 64 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        publisher.push(StreamId(3), frame(3, 0, Flags::KEYFRAME, 10), &wishes, Instant::now());
    };
    let seen = async { while bob.frame().await.0 != StreamId(3) {} };
    tokio::join!(flood, seen);
    assert!(alice.link.events.try_recv().is_err(), "connected all the time");
    let dropped = alice.counters.read().2;
    assert!(dropped[reason::RATE] > 0 && !dropped.contains_key(reason::UNKNOWN), "{dropped:?}");

    assert!(publisher.open_beacons());
    publisher.push(BEACONS, frame(0, 0, 0, 1), &wishes, Instant::now());
    let stranger = Pipeline { user: guest(), ..source().0 };
    publisher.push(StreamId(3), frame(3, 1, Flags::KEYFRAME, 10), &stranger, Instant::now());
    assert_eq!(alice.counters.read().2[reason::UNKNOWN], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_of_a_guest_that_flood_with_many_streams_leave_the_agents_user_a_quarter() {
    let folder = TempDir::new().unwrap();
    let relay = Running::start(folder.path(), None);
    let (mut alice, bob) = watched(&relay, &[(3, Kind::Video)]).await;
    let ((wishes, _wished), (theirs, _heard)) = (source(), source());
    let theirs = Pipeline { user: guest(), ..theirs };
    let floods = (4..8).map(StreamId);
    for stream in floods.clone() {
        alice.open_for(guest(), stream, Kind::Data);
        alice.link.out.send(ToRelay::Publish { stream, kind: Kind::Data }).await.unwrap();
    }
    let publisher = &alice.media.publisher;
    for n in 0..10_000 {
        for stream in floods.clone() {
            publisher.push(stream, frame(stream.0, n, 0, 1), &theirs, Instant::now());
        }
        if n % 16 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    publisher.push(StreamId(3), frame(3, 0, Flags::KEYFRAME, 10), &wishes, Instant::now());
    assert_eq!(bob.frame().await.0, StreamId(3));
    assert!(alice.link.events.try_recv().is_err(), "connected all the time");
    assert!(alice.counters.read().2[reason::RATE] > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_cut_off_in_the_middle_of_a_frame_costs_the_others_nothing() {
    over_again(cut_off_in_the_middle).await;
}

async fn cut_off_in_the_middle() -> bool {
    let folder = TempDir::new().unwrap();
    let relay = Running::start(folder.path(), None);
    let (mut alice, bob) = watched(&relay, &[(3, Kind::Video), (4, Kind::Video)]).await;
    let (wishes, _wished) = source();
    let publisher = &alice.media.publisher;
    let large = frame(3, 0, Flags::KEYFRAME, 12 * 1024 * 1024);
    let begun = Instant::now();
    publisher.push(StreamId(3), large, &wishes, begun);
    tokio::time::sleep(Duration::from_millis(10)).await;
    publisher.close_within(StreamId(3), Duration::ZERO).await;
    let closed = begun.elapsed();
    // in which the relay would end the connection
    tokio::time::sleep(Duration::from_millis(300)).await;
    publisher.push(StreamId(4), frame(4, 0, Flags::KEYFRAME, 10), &wishes, Instant::now());
    let first = bob.frame().await.0;
    if first == StreamId(3) && closed > Duration::from_millis(100) {
        // it had the time to go out whole
        return false;
    }
    assert_eq!(first, StreamId(4), "the other one had not gone out whole");
    assert!(alice.link.events.try_recv().is_err(), "connected all the time");
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_sends_more_bytes_than_the_relay_takes_costs_the_others_nothing() {
    let folder = TempDir::new().unwrap();
    let relay = Running::with(folder.path(), |config| config.meetings.max_publish_mbit = 8);
    let (mut alice, bob) = watched(&relay, &[(1, Kind::Data), (3, Kind::Video)]).await;
    let (wishes, _wished) = source();
    let publisher = &alice.media.publisher;
    for n in 0..200 {
        let raw = frame(3, n, Flags::KEYFRAME, 1024 * 1024);
        publisher.push(StreamId(3), raw, &wishes, Instant::now());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    publisher.push(StreamId(1), frame(1, 0, 0, 1), &wishes, Instant::now());
    while bob.frame().await.0 != StreamId(1) {}
    while let Ok(event) = alice.link.events.try_recv() {
        let wanted = matches!(event, LinkEvent::Message(FromRelay::KeyframeWanted { .. }));
        assert!(wanted, "connected all the time: {event:?}");
    }
    assert!(alice.counters.read().2[reason::RATE] > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_out_that_was_sealed_for_another_stream_or_stay() {
    let folder = TempDir::new().unwrap();
    let relay = Running::start(folder.path(), None);
    let mut alice = Device::start(relay.hail(ALICE));
    alice.up().await;
    alice.publish(&[(1, Kind::Data), (2, Kind::Data)]).await;
    let (wishes, _wished) = source();
    let publisher = &alice.media.publisher;
    let kids = [(2, 1, 2), (1, 9, 1), (1, 1, 1), (1, 1, 2)];
    for (stream, index, epoch) in kids {
        let mut sealed = vec![0; Header::MAX_LEN];
        let kid = KeyId::new(StreamId(stream), index, epoch).into();
        let header = Header { kid, ctr: 0 }.emit(sealed.first_chunk_mut().unwrap());
        sealed.resize(header + 17, 0);
        let envelope = Envelope { sealed: sealed.into(), ..frame(1, 0, 0, 1) };
        publisher.push(StreamId(1), envelope, &wishes, Instant::now());
    }
    publisher.push(
        StreamId(1),
        Envelope { sealed: Bytes::new(), ..frame(1, 0, 0, 1) },
        &wishes,
        Instant::now(),
    );
    assert_eq!(alice.counters.read().2[reason::FOREIGN_KEY], 3, "those of its own stream and stay go out");
    publisher.close(StreamId(1)).await;
    let signed: Vec<KeyId> = publisher.take_sent().iter().map(|span| span.kid).collect();
    assert!(signed.iter().all(|kid| (kid.stream(), kid.index()) == (StreamId(1), 1)), "{signed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_many_leave_room_for_a_picture() {
    let folder = TempDir::new().unwrap();
    let relay = Running::start(folder.path(), None);
    let mut bob = Device::start(relay.hail(BOB));
    bob.up().await;
    let mut others = Vec::new();
    for number in 0..2 {
        let other = ParticipantId([0xc0 + number; 16]);
        let mut other = Device::start(relay.hail(other));
        other.up().await;
        let streams: Vec<_> = (1..=64).map(|stream| (stream, Kind::Data)).collect();
        other.publish(&streams).await;
        bob.subscribe(64).await;
        let (wishes, _wished) = source();
        let mut came = std::collections::BTreeSet::new();
        for n in 0..400 {
            // Until the relay knows of all subscriptions.
            for stream in (1..=64).map(StreamId).filter(|stream| !came.contains(stream)) {
                other.media.publisher.push(stream, frame(stream.0, n, 0, 10), &wishes, Instant::now());
            }
            while let Ok(bytes) = timeout(Duration::from_millis(50), bob.queue.pop()).await {
                if let FromAgent::Frame { stream, .. } = FromAgent::from_bytes(&bytes.unwrap()[4..]).unwrap()
                {
                    came.insert(stream);
                }
            }
            if came.len() == 64 {
                break;
            }
        }
        assert_eq!(came.len(), 64, "each has a group open");
        others.push(other);
    }
    let mut alice = Device::start(relay.hail(ALICE));
    alice.up().await;
    alice.publish(&[(3, Kind::Video)]).await;
    bob.subscribe(1).await;
    wanted(&mut alice, 3).await;
    let (wishes, _wished) = source();
    alice.media.publisher.push(StreamId(3), frame(3, 7, Flags::KEYFRAME, 10), &wishes, Instant::now());
    assert_eq!(bob.frame().await.1.pts, Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_certificate_than_the_links_is_refused() {
    let folder = TempDir::new().unwrap();
    let relay = Running::start(folder.path(), None);
    let mut eve = Device::start(Hail { certificate: Some([0xee; 32]), ..relay.hail(ALICE) });
    let LinkEvent::Down(reason) = eve.event().await else { panic!("connected") };
    assert!(reason.contains("certificate"), "{reason}");
    assert!(matches!(eve.event().await, LinkEvent::Down(_)), "and it stays so");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_relay_is_called_again_and_frames_go_on_with_a_keyframe() {
    let folder = TempDir::new().unwrap();
    let relay = Running::start(folder.path(), None);
    let (mut alice, mut bob) = both(&relay).await;
    let address = relay.stop().await;
    assert!(matches!(alice.event().await, LinkEvent::Down(_)));
    assert!(matches!(bob.event().await, LinkEvent::Down(_)));
    let (wishes, _wished) = source();
    alice.open(StreamId(3), Kind::Video);
    alice.media.publisher.push(StreamId(3), frame(3, 0, Flags::KEYFRAME, 10), &wishes, Instant::now());
    assert_eq!(alice.counters.read().2["offline"], 1);

    let _relay = Running::start(folder.path(), Some(address));
    alice.up().await;
    bob.up().await;
    alice.link.out.send(ToRelay::Publish { stream: StreamId(3), kind: Kind::Video }).await.unwrap();
    bob.subscribe(1).await;
    wanted(&mut alice, 3).await;
    for (n, flags) in [(1, 0), (2, Flags::KEYFRAME), (3, 0)] {
        alice.media.publisher.push(StreamId(3), frame(3, n, flags, 10), &wishes, Instant::now());
    }
    assert_eq!(bob.frame().await.1.pts, Some(2));
    assert_eq!(bob.frame().await.1.pts, Some(3));
    assert_eq!(alice.counters.read().2["no-keyframe"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyframe_that_is_wanted_too_soon_is_asked_for_later() {
    let folder = TempDir::new().unwrap();
    let relay = Running::start(folder.path(), None);
    let mut alice = Device::start(relay.hail(ALICE));
    alice.up().await;
    alice.publish(&[(3, Kind::Video)]).await;
    let (wishes, mut wished) = source();
    let publisher = &alice.media.publisher;
    publisher.push(StreamId(3), frame(3, 0, Flags::KEYFRAME, 10), &wishes, Instant::now());
    publisher.keyframe_wanted(StreamId(3));
    assert_eq!(wished.try_recv(), Ok(StreamId(3)));
    publisher.push(StreamId(3), frame(3, 1, Flags::KEYFRAME, 10), &wishes, Instant::now());
    // for somebody who came after that one
    publisher.keyframe_wanted(StreamId(3));
    assert!(wished.try_recv().is_err(), "at most twice a second");
    let later = async {
        for n in 2.. {
            publisher.push(StreamId(3), frame(3, n, 0, 10), &wishes, Instant::now());
            if wished.try_recv().is_ok() {
                return n;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        0
    };
    let asked = timeout(PATIENCE, later).await.unwrap();
    publisher.push(StreamId(3), frame(3, asked + 1, Flags::KEYFRAME, 10), &wishes, Instant::now());
    tokio::time::sleep(Duration::from_millis(600)).await;
    publisher.push(StreamId(3), frame(3, asked + 2, 0, 10), &wishes, Instant::now());
    assert!(wished.try_recv().is_err(), "one that has come is not asked for again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goodbye_reaches_the_others() {
    let folder = TempDir::new().unwrap();
    let relay = Running::start(folder.path(), None);
    let (alice, mut bob) = both(&relay).await;
    let body = Bytes::from_static(b"last words");
    alice.link.out.send(ToRelay::Post { slot: Slot::Log, body: body.clone() }).await.unwrap();
    alice.link.goodbye().await;
    let mut posts = Vec::new();
    loop {
        match bob.event().await {
            LinkEvent::Message(FromRelay::Post(post)) => posts.push(post.body),
            LinkEvent::Message(FromRelay::Gone { participant: ALICE }) => break,
            _ => {}
        }
    }
    assert_eq!(posts, [body]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_session_has_not_read_comes_again_by_the_next_link() {
    let folder = TempDir::new().unwrap();
    let relay = Running::start(folder.path(), None);
    let bob = relay.hail(BOB);
    let (mut alice, mut first) = (Device::start(relay.hail(ALICE)), Device::start(bob.clone()));
    alice.up().await;
    first.up().await;
    for word in ["read", "unread", "unread too"] {
        alice.link.out.send(ToRelay::Post { slot: Slot::Log, body: word.into() }).await.unwrap();
    }
    let post = first.post().await;
    assert_eq!(post.body, "read");
    // as the driver does, when the session has it
    bob.since.store(post.seq, Ordering::Relaxed);
    drop(first.post().await);
    drop(first);
    let mut second = Device::start(bob);
    assert_eq!([second.post().await.body, second.post().await.body], ["unread", "unread too"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meeting_nobody_has_opened_is_tried_again_until_somebody_does() {
    let folder = TempDir::new().unwrap();
    let relay = Running::start(folder.path(), None);
    let mut bob = Device::start(Hail { admission: Admission::Join, ..relay.hail(BOB) });
    let LinkEvent::Down(reason) = bob.event().await else { panic!("let in") };
    assert!(reason.contains("creator"), "{reason}");
    let mut alice = Device::start(relay.hail(ALICE));
    alice.up().await;
    bob.up().await;
}

#[tokio::test]
async fn a_creator_without_its_token_enters_what_is_open() {
    let folder = TempDir::new().unwrap();
    let token = "0123456789abcdef";
    let relay =
        Running::with(folder.path(), |config| config.meetings.create_tokens = vec![token.to_string()]);
    let mut alice =
        Device::start(Hail { admission: Admission::Create { token: token.into() }, ..relay.hail(ALICE) });
    alice.up().await;
    let mut again = Device::start(relay.hail(BOB));
    again.up().await;
    let mut wrong = Device::start(Hail {
        admission: Admission::Create { token: "fedcba9876543210".into() },
        ..relay.hail(ParticipantId([0xc; 16]))
    });
    assert!(matches!(wrong.event().await, LinkEvent::Refused(Refusal::Token)), "a wrong token is no mistake");
}

#[tokio::test]
async fn a_relay_that_says_by_its_code_alone_why_it_hangs_up_is_understood() {
    let mut alice = Device::start(hangs_up(close_code(Refusal::Version)));
    let LinkEvent::Refused(refusal) = alice.event().await else { panic!("called again") };
    assert_eq!(refusal, Refusal::Version, "which calling again does not change");
    for (code, words) in [(close_code(Refusal::Full), "full"), (0, "hung up"), (SHUTDOWN, "hung up")] {
        let mut alice = Device::start(hangs_up(code));
        let LinkEvent::Down(reason) = alice.event().await else { panic!("not called again for {code}") };
        assert!(reason.contains(words), "{code}: {reason}");
    }
}

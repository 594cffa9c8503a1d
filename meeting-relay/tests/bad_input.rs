//! What Eve may send to the relay: her connection ends with a reason, and nobody else's does.

#[allow(dead_code)]
mod common;

use std::time::Duration;

use bytes::Bytes;
use common::*;
use meeting_relay::{close_code, limits};
use meeting_wire::{
    Admission, Encode, FromRelay, Kind, MAX_CONTROL, Record, RecordKind, Refusal, Route, Slot, StreamId,
    ToRelay,
};
use quinn::TransportConfig;

const CAMERA: StreamId = StreamId(3);

/// Something Eve does after a proper hello.
#[derive(Clone, Copy, Debug)]
enum Evil {
    Control(&'static [u8], Ending),
    HugeControl,
    Group(&'static [u8]),
    GroupHeaderAnd(&'static [u8]),
    HugeRecord,
    Datagram(&'static [u8]),
    SecondHello,
    ManyStreams,
    OtherKind,
    LongCell,
    FloodOfPosts,
    FloodOfPostBytes,
    FloodOfCells,
    FloodOfStreams,
    FloodOfMessages,
    FloodOfMedia,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    Open,
    Finished,
}

const ALL: &[(Evil, &str)] = &[
    (Evil::Control(&[0, 0, 0, 3, 0xff, 0xff, 0xff], Ending::Open), "a control message"),
    (Evil::Control(&[0, 0, 0, 0], Ending::Open), "end too early"),
    (Evil::Control(&[0, 0, 0, 2, 7, 7], Ending::Open), "left over"),
    (Evil::Control(&[0, 0, 0, 9, 7], Ending::Finished), "ends too early"),
    (Evil::Control(&[0, 0], Ending::Finished), "ends too early"),
    (Evil::HugeControl, "longer than allowed"),
    (Evil::Group(&[]), "a group header ends too early"),
    (Evil::Group(&[1; 12]), "a group header ends too early"),
    (Evil::Group(&[0xff; 13]), "layer"),
    (Evil::GroupHeaderAnd(&[0, 0, 0]), "a record ends too early"),
    (Evil::GroupHeaderAnd(&[0, 0, 0, 0, 9, 1, 2]), "a record ends too early"),
    (Evil::HugeRecord, "longer than allowed"),
    (Evil::Datagram(&[]), "a datagram"),
    (Evil::Datagram(&[0, 0, 0, 1, 0, 0]), "a datagram"),
    (Evil::Datagram(&[0xff; 40]), "a datagram"),
    (Evil::SecondHello, "first message"),
    (Evil::ManyStreams, "too many streams"),
    (Evil::OtherKind, "another kind"),
    (Evil::LongCell, "cell"),
    (Evil::FloodOfPosts, "too many log posts"),
    (Evil::FloodOfPostBytes, "too many bytes of posts"),
    (Evil::FloodOfCells, "too many bytes for everybody"),
    (Evil::FloodOfStreams, "too many bytes for everybody"),
    (Evil::FloodOfMessages, "too many messages"),
    (Evil::FloodOfMedia, "too many bytes of media"),
];

async fn send_group(eve: &Agent, bytes: &[&[u8]]) {
    let mut send = eve.connection.open_uni().await.expect("allowed");
    for part in bytes {
        // The relay may have ended the connection in the middle of it.
        let _ = send.write_all(part).await;
    }
    let _ = send.finish();
}

/// False when the relay does not listen any more.
async fn say_anyway(eve: &mut Agent, message: ToRelay) -> bool {
    let bytes = message.to_bytes();
    eve.send.write_all(&[&(bytes.len() as u32).to_be_bytes()[..], &bytes].concat()).await.is_ok()
}

/// Many in a breath, and again: one by one they might come at the allowed rate.
async fn repeat(eve: &mut Agent, messages: &[ToRelay]) {
    let framed = messages.iter().map(|message| {
        let bytes = message.to_bytes();
        [&(bytes.len() as u32).to_be_bytes()[..], &bytes].concat()
    });
    let breath = framed.collect::<Vec<_>>().concat().repeat(1_000);
    while eve.send.write_all(&breath).await.is_ok() {}
}

async fn commit(evil: Evil, eve: &mut Agent) {
    let header = [0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    let claim = |len: usize| [&[0], &(len as u32).to_be_bytes()[..]].concat();
    match evil {
        Evil::Control(bytes, ending) => {
            eve.send.write_all(bytes).await.expect("sent");
            if ending == Ending::Finished {
                eve.send.finish().expect("open");
            }
        }
        Evil::HugeControl => {
            eve.send.write_all(&(MAX_CONTROL as u32 + 1).to_be_bytes()).await.expect("sent");
        }
        Evil::Group(bytes) => send_group(eve, &[bytes]).await,
        Evil::GroupHeaderAnd(bytes) => send_group(eve, &[&header, bytes]).await,
        Evil::HugeRecord => send_group(eve, &[&header, &claim(Record::MAX + 1)]).await,
        Evil::Datagram(bytes) => {
            eve.connection.send_datagram(Bytes::from_static(bytes)).expect("small enough");
        }
        Evil::SecondHello => drop(say_anyway(eve, hello(EVE, Admission::Join)).await),
        Evil::ManyStreams => {
            for n in 0..=limits::STREAMS as u32 {
                say_anyway(eve, ToRelay::Publish { stream: StreamId(n), kind: Kind::Data }).await;
            }
        }
        Evil::OtherKind => {
            for kind in [Kind::Audio, Kind::Video] {
                say_anyway(eve, ToRelay::Publish { stream: CAMERA, kind }).await;
            }
        }
        Evil::LongCell => {
            let body = Bytes::from(vec![0; limits::CELL + 1]);
            say_anyway(eve, ToRelay::Post { slot: Slot::Cell, body }).await;
        }
        Evil::FloodOfPosts => repeat(eve, &[ToRelay::Post { slot: Slot::Log, body: Bytes::new() }]).await,
        Evil::FloodOfPostBytes => {
            let body = Bytes::from(vec![0; meeting_wire::MAX_POST]);
            while say_anyway(eve, ToRelay::Post { slot: Slot::Direct(CAROL), body: body.clone() }).await {}
        }
        Evil::FloodOfCells => {
            let body = Bytes::from(vec![0; limits::CELL]);
            while say_anyway(eve, ToRelay::Post { slot: Slot::Cell, body: body.clone() }).await {}
        }
        Evil::FloodOfStreams => {
            let stream = CAMERA;
            repeat(eve, &[ToRelay::Publish { stream, kind: Kind::Data }, ToRelay::Unpublish { stream }])
                .await;
        }
        Evil::FloodOfMessages => repeat(eve, &[ToRelay::KeyframeRequest { route: Route(999) }]).await,
        Evil::FloodOfMedia => {
            send_group(eve, &[&header, &record(RecordKind::Frame, 0, 1_000_000).to_bytes().repeat(64)]).await;
        }
    }
}

#[tokio::test]
async fn eve_ends_her_own_connection_only() {
    let rig = Rig::with(|config| config.meetings.max_publish_mbit = 1);
    let mut alice = rig.create(ALICE).await;
    let mut bob = rig.join(BOB).await;
    let route = alice.publish_to(&mut bob, CAMERA, Kind::Video).await;
    bob.subscribe(BOB, route).await;

    for (n, (evil, reason)) in ALL.iter().enumerate() {
        let mut eve = rig.join(EVE).await;
        commit(*evil, &mut eve).await;
        let (code, said) = eve.closed().await;
        assert_eq!(code, close_code(Refusal::Protocol), "{evil:?}: {said}");
        assert!(said.contains(reason), "{evil:?}: {said}");
        assert_eq!(rig.counters.misbehaved.value(), n as u64 + 1);

        let picture = [record(RecordKind::Frame, n as u8, 1_000)];
        alice.send_group(CAMERA, n as u64, 0, &picture).await;
        assert_eq!(bob.next_group().await.1, Ok(picture[0].to_bytes()), "after {evil:?}");
    }
    alice.post(Slot::Direct(BOB), b"all is well").await;
    loop {
        if let FromRelay::Post(post) = bob.hear().await
            && post.from == ALICE
        {
            break assert_eq!(&post.body[..], b"all is well");
        }
    }
}

#[tokio::test]
async fn the_reason_is_also_the_last_message() {
    let rig = Rig::start();
    let mut eve = rig.create(EVE).await;
    eve.send.write_all(&[0, 0, 0, 1, 99]).await.expect("sent");
    assert_eq!(eve.hear().await, FromRelay::Refused(Refusal::Protocol));
    assert_eq!(eve.try_hear().await, None);
}

#[tokio::test]
async fn what_is_not_hers_moves_nothing() {
    let rig = Rig::start();
    let mut alice = rig.create(ALICE).await;
    let mut bob = rig.join(BOB).await;
    let mut eve = rig.join(EVE).await;
    let route = alice.publish_to(&mut bob, CAMERA, Kind::Video).await;
    eve.hear().await;
    bob.subscribe(BOB, route).await;
    alice.hear().await;

    // Alice's stream number and Alice's route in Eve's hands; a keyframe request without a subscription;
    // routes that nobody has.
    eve.send_group(CAMERA, 7, 0, &[record(RecordKind::Frame, 6, 66)]).await;
    eve.send_group(StreamId(route.0), 7, 0, &[record(RecordKind::Frame, 6, 66)]).await;
    eve.connection.send_datagram(Bytes::from_static(&[0, 0, 0, 3, 0, 0, 0, 1])).expect("small");
    eve.say(ToRelay::KeyframeRequest { route }).await;
    eve.say(ToRelay::Subscribe { route: Route(999) }).await;
    eve.say(ToRelay::Unsubscribe { route }).await;
    eve.say(ToRelay::Unpublish { stream: CAMERA }).await;
    eve.post(Slot::Direct(ALICE), b"done").await;
    assert_eq!(&alice.hear_post().await.body[..], b"done", "and no keyframe was wanted");
    counted(&rig.counters.frames_unrouted, 3).await;

    let picture = [record(RecordKind::Frame, 1, 1_000)];
    alice.send_group(CAMERA, 8, 0, &picture).await;
    let (header, bytes) = bob.next_group().await;
    assert_eq!((header.group, bytes), (8, Ok(picture[0].to_bytes())), "the first that Bob gets is Alice's");
}

#[tokio::test]
async fn who_stops_in_the_middle_is_not_waited_for() {
    let rig = Rig::start();
    let mut eve = rig.create(EVE).await;
    let mut carol = rig.join(CAROL).await;
    carol.send.write_all(&[0, 0, 1, 0, 1]).await.expect("the beginning of a post");

    let mut half = eve.open_group(CAMERA, 0, 0).await;
    half.write_all(&record(RecordKind::Frame, 1, 1_000).to_bytes()[..500]).await.expect("sent");
    let drip = async |group, len| {
        let mut send = eve.open_group(CAMERA, group, 0).await;
        for byte in record(RecordKind::Frame, 1, len).to_bytes() {
            if send.write_all(&[byte]).await.is_err() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        send.finish().is_ok()
    };
    let (slow, too_slow) = soon(async { tokio::join!(drip(1, 60), drip(2, 100_000)) }).await;
    assert!(slow && !too_slow, "what comes is waited for as long as there is enough of it");
    assert_eq!(soon(half.stopped()).await, Ok(Some(0_u8.into())));
    counted(&rig.counters.frames_unrouted, 1).await;
    let (code, said) = carol.closed().await;
    assert_eq!((code, &said[..]), (close_code(Refusal::Protocol), "a control message stops in the middle"));

    eve.post(Slot::Direct(EVE), b"her connection goes on").await;
    while !matches!(eve.hear().await, FromRelay::Post(post) if post.from == EVE) {}
}

#[tokio::test]
async fn before_the_hello() {
    let rig = Rig::start();
    for (bytes, reason) in [
        (&[0xff, 0xff, 0xff, 0xff][..], "longer than allowed"),
        (&[0, 0, 0, 2, 0xff, 0xff], "the hello"),
        (&[0, 0, 0, 1, 7], "could not make sense"),
    ] {
        let connection = rig.connect(TransportConfig::default()).await;
        let (mut send, recv) = connection.open_bi().await.expect("allowed");
        send.write_all(bytes).await.expect("sent");
        let eve = Agent { connection, send, recv };
        let (code, said) = eve.closed().await;
        assert_eq!(code, close_code(Refusal::Protocol), "{said}");
        assert!(said.contains(reason), "{said}");
    }
}

#[tokio::test]
async fn silence_instead_of_a_hello_is_not_waited_for() {
    let rig = Rig::start();
    let connection = rig.connect(TransportConfig::default()).await;
    let (mut send, recv) = connection.open_bi().await.expect("allowed");
    send.write_all(&[0, 0]).await.expect("sent");
    let eve = Agent { connection, send, recv };
    let (code, said) = eve.closed().await;
    assert_eq!((code, &said[..]), (close_code(Refusal::Protocol), "no hello in time"));
}

#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, path::Path, time::Instant};

use meeting_protocol::{
    beacon::Vouch,
    frame::{Header, KeyId},
    local::FromAgent,
};
use meeting_relay::{Config, Relay};
use meeting_wire::{Envelope, Flags, Kind, StreamId};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::{
    counters::{Counters, reason},
    publish::Pipeline,
    watch::{Queue, Stated, Watcher},
};

const MEETING: MeetingId = MeetingId([7; 16]);
const ALICE: ParticipantId = ParticipantId([0xa; 16]);
const BOB: ParticipantId = ParticipantId([0xb; 16]);
const PATIENCE: Duration = Duration::from_secs(20);

/// A relay of one test; dropped, it stops.
struct Running {
    address: SocketAddr,
    certificate: [u8; 32],
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(folder: &Path, listen: Option<SocketAddr>) -> Self {
        Self::with(folder, |config| config.listen = listen.unwrap_or(config.listen))
    }

    fn with(folder: &Path, change: impl Fn(&mut Config)) -> Self {
        let bind = || {
            let mut config = Config::development(folder);
            change(&mut config);
            Relay::bind(config)
        };
        // a port is free again only when the former relay's last task has seen its end
        let until = Instant::now() + PATIENCE;
        let relay = loop {
            match bind() {
                Err(_) if Instant::now() < until => std::thread::yield_now(),
                bound => break bound.unwrap(),
            }
        };
        let (address, certificate) = (relay.local_addr(), relay.certificate_hash());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            relay.run(async { stopped.await.unwrap_or(()) }).await.unwrap();
        });
        Self { address, certificate, stop: Some(stop), task }
    }

    async fn stop(mut self) -> SocketAddr {
        drop(self.stop.take());
        (&mut self.task).await.unwrap();
        self.address
    }

    fn hail(&self, participant: ParticipantId) -> Hail {
        Hail {
            relay: self.address.to_string(),
            certificate: Some(self.certificate),
            meeting: MEETING,
            participant,
            claim: Claim(participant.0),
            admission: Admission::Create { token: String::new() },
        }
    }
}

/// One device without a session.
struct Device {
    link: RelayLink,
    media: Media,
    counters: Arc<Counters>,
    queue: Arc<Queue>,
}

impl Device {
    fn start(hail: Hail) -> Self {
        let counters = Arc::new(Counters::default());
        let media = Media {
            publisher: Publisher::new(counters.clone()),
            watching: Watching::new(counters.clone(), mpsc::channel(8).0),
        };
        let queue = Arc::new(Queue::default());
        media.watching.add(1, Watcher::new(String::new(), String::new(), queue.clone()));
        let link = RelayLink::start(hail, media.clone()).unwrap();
        Self { link, media, counters, queue }
    }

    async fn event(&mut self) -> LinkEvent {
        timeout(PATIENCE, self.link.events.recv()).await.unwrap().unwrap()
    }

    async fn up(&mut self) {
        loop {
            match self.event().await {
                LinkEvent::Up => return,
                LinkEvent::Down(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Offers streams as the driver does.
    async fn publish(&self, streams: &[(u32, Kind)]) {
        for (id, kind) in streams {
            self.open(StreamId(*id), *kind);
            self.link.out.send(ToRelay::Publish { stream: StreamId(*id), kind: *kind }).await.unwrap();
        }
    }

    /// Opens a stream, whose key is there at once.
    fn open(&self, stream: StreamId, kind: Kind) {
        self.media.publisher.open(stream, kind, USER);
        self.media.publisher.sealed_under(stream, KeyId::new(stream, 1, 1));
    }

    /// Subscribes to what is offered, as the driver does, up to `n` streams.
    async fn subscribe(&mut self, n: usize) {
        for _ in 0..n {
            let LinkEvent::Message(FromRelay::Published { from, stream, kind, route }) = self.event().await
            else {
                panic!("no stream")
            };
            let caps = String::new();
            self.media.watching.offered(route, (from, stream), kind);
            let stated = Stated { name: "Alice".into(), track: stream.0.to_string(), kind, caps };
            let key = (KeyId::new(stream, 1, 1), 1);
            let stated = self.media.watching.stated((from, stream), stated, key);
            let heard = self.media.watching.vouched(from, &Vouch { spans: Vec::new(), delay: None });
            for message in stated.into_iter().chain(heard.messages) {
                self.link.out.send(message).await.unwrap();
            }
        }
    }

    async fn frame(&self) -> (StreamId, Envelope) {
        loop {
            let bytes = timeout(PATIENCE, self.queue.pop()).await.expect("a frame").unwrap();
            if let FromAgent::Frame { from: ALICE, stream, envelope } =
                FromAgent::from_bytes(&bytes[4..]).unwrap()
            {
                return (stream, envelope);
            }
        }
    }
}

/// Alice and Bob, connected.
async fn both(relay: &Running) -> (Device, Device) {
    let (mut alice, mut bob) = (Device::start(relay.hail(ALICE)), Device::start(relay.hail(BOB)));
    alice.up().await;
    bob.up().await;
    (alice, bob)
}

/// A sealed frame's header (RFC 9605 4.3) in front of `len` bytes that tell it from others.
fn frame(stream: u32, n: u64, flags: u8, len: usize) -> Envelope {
    let mut sealed = vec![0; Header::MAX_LEN];
    let kid = KeyId::new(StreamId(stream), 1, 1).into();
    let header = Header { kid, ctr: n }.emit(sealed.first_chunk_mut().unwrap());
    sealed.truncate(header);
    sealed.resize(header + len, n as u8);
    Envelope { pts: Some(n), dts: None, duration: None, flags: Flags(flags), layer: 0, sealed: sealed.into() }
}

/// Waits for the relay's word that somebody subscribed to this stream of ours.
async fn wanted(device: &mut Device, id: u32) {
    loop {
        if let LinkEvent::Message(FromRelay::KeyframeWanted { stream }) = device.event().await {
            assert_eq!(stream, StreamId(id));
            return;
        }
    }
}

/// The user of all pipelines here.
const USER: u32 = 1000;

fn source() -> (Pipeline, mpsc::Receiver<StreamId>) {
    let (wishes, wished) = mpsc::channel(8);
    (Pipeline { user: USER, wishes }, wished)
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_every_kind_cross_the_relay_whole_and_in_order() {
    let folder = TempDir::new().unwrap();
    let relay = Running::start(folder.path(), None);
    let (mut alice, mut bob) = both(&relay).await;
    alice.publish(&[(1, Kind::Data), (2, Kind::Audio), (3, Kind::Video)]).await;
    bob.subscribe(3).await;
    // asked for last, so the others are subscribed too
    wanted(&mut alice, 3).await;

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
        let (stream, envelope) = bob.frame().await;
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
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_frames_of_a_closed_stream_arrive() {
    let folder = TempDir::new().unwrap();
    let relay = Running::start(folder.path(), None);
    let (mut alice, mut bob) = both(&relay).await;
    alice.publish(&[(3, Kind::Video)]).await;
    bob.subscribe(1).await;
    wanted(&mut alice, 3).await;
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
        assert_eq!(bob.frame().await.1.pts, Some(n));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_floods_costs_the_others_neither_the_relay_nor_their_streams() {
    let folder = TempDir::new().unwrap();
    let relay = Running::start(folder.path(), None);
    let (mut alice, mut bob) = both(&relay).await;
    alice.publish(&[(1, Kind::Data), (3, Kind::Video)]).await;
    bob.subscribe(2).await;
    wanted(&mut alice, 3).await;
    let (wishes, _wished) = source();
    let publisher = &alice.media.publisher;
    for n in 0..40_000 {
        publisher.push(StreamId(1), frame(1, n, 0, 1), &wishes, Instant::now());
        if n % 64 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    publisher.push(StreamId(3), frame(3, 0, Flags::KEYFRAME, 10), &wishes, Instant::now());
    while bob.frame().await.0 != StreamId(3) {}
    assert!(alice.link.events.try_recv().is_err(), "connected all the time");
    let dropped = alice.counters.read().2;
    assert!(dropped[reason::RATE] > 0 && !dropped.contains_key(reason::UNKNOWN), "{dropped:?}");

    assert!(publisher.open_beacons());
    publisher.push(StreamId(0), frame(0, 0, 0, 1), &wishes, Instant::now());
    let stranger = Pipeline { user: USER + 1, ..source().0 };
    publisher.push(StreamId(3), frame(3, 1, Flags::KEYFRAME, 10), &stranger, Instant::now());
    assert_eq!(alice.counters.read().2[reason::UNKNOWN], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_sends_more_bytes_than_the_relay_takes_costs_the_others_nothing() {
    let folder = TempDir::new().unwrap();
    let relay = Running::with(folder.path(), |config| config.meetings.max_publish_mbit = 8);
    let (mut alice, mut bob) = both(&relay).await;
    alice.publish(&[(1, Kind::Data), (3, Kind::Video)]).await;
    bob.subscribe(2).await;
    wanted(&mut alice, 3).await;
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

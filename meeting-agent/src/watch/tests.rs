#![allow(clippy::unwrap_used)]

use meeting_protocol::{beacon::Span, frame::Header};
use meeting_wire::Flags;

use super::*;

const BOB: ParticipantId = ParticipantId([0xb; 16]);
const CAMERA: Source = (BOB, StreamId(1));
const ROUTE: Route = Route(7);

fn watching() -> Arc<Watching> {
    Watching::new(Arc::default(), mpsc::channel(8).0)
}

fn camera(caps: &str) -> Stated {
    Stated { name: "Bob".into(), track: "video".into(), kind: Kind::Video, caps: caps.into() }
}

const KEY: (KeyId, u64) = (KeyId::new(CAMERA.1, 1, 1), 1);

/// A beacon of Bob's; gives what is asked for then.
fn beacon(watching: &Watching) -> Vec<ToRelay> {
    watching.vouched(BOB, &Vouch { spans: Vec::new(), delay: None }).messages
}

fn watcher(participant: &str, track: &str) -> (Watcher, Arc<Queue>) {
    let queue = Arc::new(Queue::default());
    (Watcher::new(participant.into(), track.into(), queue.clone()), queue)
}

async fn next(queue: &Queue) -> FromAgent {
    let bytes = tokio::time::timeout(std::time::Duration::from_secs(5), queue.pop()).await.unwrap().unwrap();
    meeting_wire::Decode::from_bytes(&bytes[4..]).unwrap()
}

#[tokio::test]
async fn a_track_needs_the_relays_offer_and_the_senders_statement() {
    let watching = watching();
    let (alice, queue) = watcher("", "");
    assert_eq!(watching.add(1, alice), []);
    assert_eq!(watching.offered(ROUTE, CAMERA, Kind::Video), []);
    assert_eq!(watching.stated(CAMERA, camera("x"), KEY), []);
    assert!(matches!(next(&queue).await, FromAgent::Track { from: BOB, caps, .. } if caps == "x"));
    assert_eq!(beacon(&watching), [ToRelay::Subscribe { route: ROUTE }], "behind the beacons");

    assert_eq!(watching.stated(CAMERA, camera("y"), KEY), [], "subscribed already");
    assert!(matches!(next(&queue).await, FromAgent::Track { caps, .. } if caps == "y"));
    assert_eq!(watching.ended(CAMERA), [ToRelay::Unsubscribe { route: ROUTE }]);
    assert!(matches!(next(&queue).await, FromAgent::TrackGone { from: BOB, .. }));
}

#[tokio::test]
async fn nothing_is_asked_for_that_nobody_watches() {
    let watching = watching();
    watching.offered(ROUTE, CAMERA, Kind::Video);
    watching.stated(CAMERA, camera("x"), KEY);
    assert_eq!(watching.add(1, watcher("Carol", "").0), []);
    assert_eq!(watching.add(2, watcher("Bob", "audio").0), []);
    assert_eq!(beacon(&watching), []);
    assert_eq!(watching.route(CAMERA), None, "nor any keyframe");
    assert_eq!(watching.add(3, watcher(&BOB.to_string(), "video").0), [ToRelay::Subscribe { route: ROUTE }]);
    assert_eq!(watching.route(CAMERA), Some(ROUTE));
    assert_eq!(watching.add(4, watcher("Bob", "").0), []);
    assert_eq!(watching.remove(3), []);
    assert_eq!(watching.remove(4), [ToRelay::Unsubscribe { route: ROUTE }]);
}

#[tokio::test]
async fn a_name_that_is_an_id_of_another_is_not_watched_in_the_others_place() {
    let watching = watching();
    let (watcher, _queue) = watcher(&BOB.to_string(), "");
    watching.add(1, watcher);
    let eve = (ParticipantId([0xe; 16]), StreamId(1));
    watching.offered(ROUTE, eve, Kind::Video);
    let stated = Stated { name: BOB.to_string(), ..camera("x") };
    assert_eq!(watching.stated(eve, stated, KEY), []);
    assert_eq!(watching.vouched(eve.0, &Vouch { spans: Vec::new(), delay: None }).messages, []);
    watching.offered(Route(9), CAMERA, Kind::Video);
    assert_eq!(watching.stated(CAMERA, camera("x"), KEY), []);
    assert_eq!(beacon(&watching), [ToRelay::Subscribe { route: Route(9) }]);
}

#[tokio::test]
async fn who_asks_for_names_alone_gets_no_frame_and_costs_none() {
    let watching = watching();
    watching.offered(ROUTE, CAMERA, Kind::Video);
    watching.stated(CAMERA, camera("x"), KEY);
    let queue = Arc::new(Queue::default());
    assert_eq!(watching.add(1, Watcher::of_names(queue.clone())), []);
    assert!(matches!(next(&queue).await, FromAgent::Track { from: BOB, .. }));
    assert!(matches!(next(&queue).await, FromAgent::Named));

    assert_eq!(watching.add(2, watcher("", "").0), []);
    assert_eq!(beacon(&watching), [ToRelay::Subscribe { route: ROUTE }]);
    let mut sealed = vec![0; Header::MAX_LEN];
    Header { kid: KEY.0.into(), ctr: 0 }.emit(sealed.first_chunk_mut().unwrap());
    let flags = Flags(Flags::KEYFRAME);
    let sealed = sealed.into();
    watching.deliver(ROUTE, Envelope { pts: None, dts: None, duration: None, flags, layer: 0, sealed });
    watching.ended(CAMERA);
    assert!(matches!(next(&queue).await, FromAgent::TrackGone { from: BOB, .. }), "and no frame before");
}

#[tokio::test]
async fn after_a_reconnect_the_tracks_go_on() {
    let watching = watching();
    let (alice, queue) = watcher("", "");
    watching.add(1, alice);
    watching.offered(ROUTE, CAMERA, Kind::Video);
    watching.stated(CAMERA, camera("x"), KEY);
    assert!(matches!(next(&queue).await, FromAgent::Track { .. }));
    watching.disconnected();
    assert_eq!(watching.offered(Route(9), CAMERA, Kind::Video), []);
    assert_eq!(beacon(&watching), [ToRelay::Subscribe { route: Route(9) }]);
    let mut sealed = vec![0; Header::MAX_LEN];
    Header { kid: KEY.0.into(), ctr: 0 }.emit(sealed.first_chunk_mut().unwrap());
    let envelope = Envelope {
        pts: Some(1),
        dts: None,
        duration: None,
        flags: Flags(Flags::KEYFRAME),
        layer: 0,
        sealed: sealed.into(),
    };
    watching.deliver(ROUTE, envelope.clone());
    watching.deliver(Route(9), envelope.clone());
    let FromAgent::Frame { from, stream, envelope: got } = next(&queue).await else { panic!("no frame") };
    assert_eq!(((from, stream), got), (CAMERA, envelope));
    assert_eq!(watching.counters.read().2[reason::UNKNOWN], 1);
}

#[test]
fn of_streams_that_are_over_there_is_nothing_more_to_tell() {
    let watching = watching();
    watching.stated(CAMERA, camera("x"), KEY);
    assert!(watching.checks(CAMERA));
    watching.ended(CAMERA);
    watching.tick();
    assert!(!watching.checks(CAMERA));
}

#[test]
fn one_senders_flood_of_beacons_costs_no_other_their_place() {
    let (out, mut beacons) = mpsc::channel(32);
    let watching = Watching::new(Arc::default(), out);
    let alice = ParticipantId([0xa; 16]);
    watching.offered(ROUTE, (BOB, BEACONS), Kind::Data);
    watching.offered(Route(8), (alice, BEACONS), Kind::Data);
    let beacon = |route| {
        let sealed = Bytes::from_static(b"signed");
        let envelope = Envelope { pts: None, dts: None, duration: None, flags: Flags(0), layer: 0, sealed };
        watching.deliver(route, envelope);
    };
    (0..1_000).for_each(|_| beacon(ROUTE));
    watching.withdrawn(ROUTE);
    for route in (100..200).map(Route) {
        watching.offered(route, (BOB, BEACONS), Kind::Data);
        (0..10).for_each(|_| beacon(route));
        watching.withdrawn(route);
    }
    beacon(Route(8));
    let mut from = Vec::new();
    while let Ok((who, _)) = beacons.try_recv() {
        from.push(who);
    }
    // On a busy machine some more are due meanwhile.
    assert!((17..32).contains(&from.len()) && from.last() == Some(&alice), "{from:?}");
}

#[test]
fn beacons_are_asked_for_first_and_last() {
    let watching = watching();
    let beacons = Route(8);
    watching.offered(beacons, (BOB, BEACONS), Kind::Data);
    watching.offered(ROUTE, CAMERA, Kind::Video);
    watching.stated(CAMERA, camera("x"), KEY);
    assert_eq!(watching.add(1, watcher("Bob", "").0), [ToRelay::Subscribe { route: beacons }]);
    assert_eq!(beacon(&watching), [ToRelay::Subscribe { route: ROUTE }]);
    let mut sealed = vec![0; Header::MAX_LEN];
    Header { kid: KEY.0.into(), ctr: 0 }.emit(sealed.first_chunk_mut().unwrap());
    let (flags, sealed) = (Flags(Flags::KEYFRAME), sealed.into());
    let frame = Envelope { pts: None, dts: None, duration: None, flags, layer: 0, sealed };
    watching.deliver(ROUTE, frame.clone());
    // Nobody watches any more, but the frame that went on is still to be signed for.
    assert_eq!(watching.remove(1), [ToRelay::Unsubscribe { route: ROUTE }]);
    let span = Span { kid: KEY.0, first: 0, frames: vec![FrameDigest::of(&frame)], closed: false };
    watching.vouched(BOB, &Vouch { spans: vec![span], delay: None });
    assert_eq!(watching.tick().messages, [ToRelay::Unsubscribe { route: beacons }]);
}

#[test]
fn what_ended_unsigned_is_still_called_by_its_name() {
    let watching = watching();
    watching.offered(ROUTE, CAMERA, Kind::Video);
    watching.stated(CAMERA, camera("x"), KEY);
    watching.add(1, watcher("Bob", "").0);
    beacon(&watching);
    let mut sealed = vec![0; Header::MAX_LEN];
    Header { kid: KEY.0.into(), ctr: 0 }.emit(sealed.first_chunk_mut().unwrap());
    let (flags, sealed) = (Flags(Flags::KEYFRAME), sealed.into());
    let frame = Envelope { pts: None, dts: None, duration: None, flags, layer: 0, sealed };
    watching.deliver(ROUTE, frame.clone());
    watching.ended(CAMERA);
    let name = ("Bob".to_owned(), "video".to_owned());
    assert!(watching.tick().found.is_empty());
    assert_eq!(watching.called(CAMERA), name);
    let span = Span { kid: KEY.0, first: 0, frames: vec![FrameDigest::of(&frame)], closed: true };
    let signed = watching.vouched(BOB, &Vouch { spans: vec![span], delay: None });
    assert_eq!((signed.found, watching.called(CAMERA)), (vec![(CAMERA, What::Vouched)], name));
    assert!(watching.tick().found.is_empty() && watching.tick().found.is_empty());
    assert_eq!(watching.called(CAMERA), Default::default(), "and then forgotten");
}

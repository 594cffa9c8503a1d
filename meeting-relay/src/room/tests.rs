//! What a room does, with names for handles.

use std::time::Duration;

use meeting_wire::BEACONS;

use super::*;

const ALICE: ParticipantId = ParticipantId([0xa; 16]);
const BOB: ParticipantId = ParticipantId([0xb; 16]);
const CAROL: ParticipantId = ParticipantId([0xc; 16]);
const CAMERA: StreamId = StreamId(7);

struct Rig {
    room: Room<&'static str>,
    now: Instant,
    alice: Seat,
    bob: Seat,
    carol: Seat,
}

fn rig() -> Rig {
    let now = Instant::now();
    let mut room = Room::new(Terms { max_participants: 3, max_publish_mbit: 100 }, 0, now);
    let mut join = |id, name| room.join(claimed(id), name, 0).expect("there is room").seat;
    let (alice, bob, carol) = (join(ALICE, "alice"), join(BOB, "bob"), join(CAROL, "carol"));
    Rig { room, now, alice, bob, carol }
}

fn route_of(deliveries: &[Delivery<&'static str>]) -> Route {
    match deliveries {
        [Delivery { message: FromRelay::Published { route, .. }, .. }] => *route,
        other => panic!("one Published expected: {other:?}"),
    }
}

fn publish(rig: &mut Rig, kind: Kind) -> Route {
    route_of(&rig.room.publish(rig.alice, CAMERA, kind).expect("within limits"))
}

#[test]
fn posts_go_where_they_are_addressed() {
    let mut rig = rig();
    let body = Bytes::from_static(b"sealed");
    let to =
        |deliveries: Result<Vec<Delivery<&'static str>>, Fault>| deliveries.expect("allowed")[0].to.clone();
    assert_eq!(to(rig.room.post(rig.alice, Slot::Log, body.clone())), ["alice", "bob", "carol"]);
    assert_eq!(to(rig.room.post(rig.alice, Slot::Cell, body.clone())), ["bob", "carol"]);
    assert_eq!(to(rig.room.post(rig.alice, Slot::Direct(CAROL), body.clone())), ["carol"]);
    let nobody = Slot::Direct(ParticipantId([0; 16]));
    assert_eq!(to(rig.room.post(rig.alice, nobody, body)), [""; 0]);
    let long = Bytes::from(vec![0; limits::CELL + 1]);
    assert_eq!(rig.room.post(rig.alice, Slot::Cell, long), Err(Fault::Cell));
}

#[test]
fn a_full_room_takes_nobody_but_a_replacement() {
    let mut rig = rig();
    assert_eq!(rig.room.join(claimed(ParticipantId([0xe; 16])), "eve", 0).err(), Some(Refusal::Full));
    let joined = rig.room.join(claimed(BOB), "bob again", 0).expect("his own place");
    assert_eq!(joined.replaced, Some("bob"));
}

#[test]
fn a_replaced_connection_can_do_nothing_more() {
    let mut rig = rig();
    let route = publish(&mut rig, Kind::Video);
    let joined = rig.room.join(claimed(ALICE), "alice again", 0).expect("her own place");
    assert_eq!(
        joined.deliveries,
        [Delivery { to: vec!["bob", "carol"], message: FromRelay::Unpublished { route } }]
    );
    assert_eq!(rig.room.leave(rig.alice, true, rig.now), []);
    assert_eq!(rig.room.post(rig.alice, Slot::Log, Bytes::new()), Ok(vec![]));
    assert_eq!(rig.room.publish(rig.alice, CAMERA, Kind::Audio), Ok(vec![]));
    assert_eq!(rig.room.members.len(), 3);
}

#[test]
fn frames_go_to_subscribers_only() {
    let mut rig = rig();
    assert!(rig.room.audience(rig.alice, CAMERA).is_none());
    let route = publish(&mut rig, Kind::Video);
    assert_eq!(&*rig.room.audience(rig.alice, CAMERA).expect("published").to, [""; 0]);
    rig.room.subscribe(rig.bob, route, rig.now).expect("allowed");
    rig.room.subscribe(rig.alice, route, rig.now).expect("passed over: it is her own");
    let audience = rig.room.audience(rig.alice, CAMERA).expect("published");
    assert_eq!((audience.kind, audience.route, &*audience.to), (Kind::Video, route, &["bob"][..]));
    let same = rig.room.audience(rig.alice, CAMERA).expect("published");
    assert!(Arc::ptr_eq(&audience.to, &same.to));
    rig.room.unsubscribe(rig.bob, route);
    assert_eq!(&*rig.room.audience(rig.alice, CAMERA).expect("published").to, [""; 0]);
    assert!(rig.room.audience(rig.bob, CAMERA).is_none(), "Bob publishes nothing under that number");
}

#[test]
fn a_lost_subscriber_gets_nothing_more() {
    let mut rig = rig();
    let route = publish(&mut rig, Kind::Audio);
    rig.room.subscribe(rig.bob, route, rig.now).expect("allowed");
    rig.room.leave(rig.bob, false, rig.now);
    assert_eq!(&*rig.room.audience(rig.alice, CAMERA).expect("published").to, [""; 0]);
}

#[test]
fn a_newcomer_reads_welcome_board_and_streams() {
    let mut rig = rig();
    let route = publish(&mut rig, Kind::Data);
    rig.room.post(rig.alice, Slot::Log, Bytes::from_static(b"link")).expect("allowed");
    rig.room.post(rig.alice, Slot::Cell, Bytes::from_static(b"beat")).expect("allowed");
    rig.room.leave(rig.carol, true, rig.now);
    let joined = rig.room.join(claimed(CAROL), "carol", 0).expect("there is room");
    let [FromRelay::Welcome { .. }, FromRelay::Post(cell), FromRelay::Post(log), published] =
        &joined.greeting[..]
    else {
        panic!("{:?}", joined.greeting)
    };
    assert_eq!((log.seq, &log.body[..], cell.seq, &cell.body[..]), (1, &b"link"[..], 0, &b"beat"[..]));
    let expected = FromRelay::Published { from: ALICE, stream: CAMERA, kind: Kind::Data, route };
    assert_eq!(published, &expected);
}

#[test]
fn leaving_is_told_and_a_goodbye_takes_the_cell_along() {
    let mut rig = rig();
    let route = publish(&mut rig, Kind::Video);
    rig.room.post(rig.alice, Slot::Cell, Bytes::from_static(b"beat")).expect("allowed");
    rig.room.post(rig.bob, Slot::Cell, Bytes::from_static(b"beat")).expect("allowed");
    let told = rig.room.leave(rig.alice, true, rig.now);
    let to = vec!["bob", "carol"];
    assert_eq!(
        told,
        [
            Delivery { to: to.clone(), message: FromRelay::Unpublished { route } },
            Delivery { to, message: FromRelay::Gone { participant: ALICE } },
        ]
    );
    rig.room.leave(rig.bob, false, rig.now);
    let authors: Vec<_> = rig.room.board.replay(0).map(|post| post.from).collect();
    assert_eq!(authors, [BOB]);
    assert_eq!(rig.room.empty_since(), None);
    rig.room.leave(rig.carol, true, rig.now);
    assert_eq!(rig.room.empty_since(), Some(rig.now));
}

#[test]
fn keyframe_requests_merge() {
    let mut rig = rig();
    let route = publish(&mut rig, Kind::Video);
    let first = rig.room.subscribe(rig.bob, route, rig.now).expect("allowed");
    let wanted = Delivery { to: vec!["alice"], message: FromRelay::KeyframeWanted { stream: CAMERA } };
    assert_eq!(first, Asked { delivery: Some(wanted.clone()), wake: None });
    let soon = rig.now + Duration::from_millis(1);
    let second = rig.room.subscribe(rig.carol, route, soon).expect("allowed");
    let due = rig.now + limits::KEYFRAME_EVERY;
    assert_eq!(second, Asked { delivery: None, wake: Some(due) });
    assert_eq!(rig.room.keyframe_request(rig.bob, route, soon), Asked::nothing());
    assert_eq!(rig.room.keyframe_due(route, due), Some(wanted));
    assert_eq!(rig.room.keyframe_due(route, due), None);
}

#[test]
fn only_subscribers_of_video_can_ask_for_keyframes() {
    let mut rig = rig();
    let video = publish(&mut rig, Kind::Video);
    assert_eq!(rig.room.keyframe_request(rig.bob, video, rig.now), Asked::nothing());
    let voice = rig.room.publish(rig.bob, StreamId(1), Kind::Audio).expect("allowed");
    let asked = rig.room.subscribe(rig.carol, route_of(&voice), rig.now);
    assert_eq!(asked, Ok(Asked::nothing()));
}

#[test]
fn all_streams_of_a_participant_and_its_beacons_are_within_the_limit() {
    let mut rig = rig();
    for n in 1..=64 {
        rig.room.publish(rig.alice, StreamId(n), Kind::Video).expect("as many as an agent opens");
    }
    assert!(rig.room.publish(rig.alice, BEACONS, Kind::Data).is_ok());
}

#[test]
fn streams_and_subscriptions_are_bounded() {
    let mut rig = rig();
    for n in 0..limits::STREAMS as u32 {
        rig.room.publish(rig.alice, StreamId(n), Kind::Audio).expect("within the limit");
    }
    let above = StreamId(limits::STREAMS as u32);
    assert_eq!(rig.room.publish(rig.alice, above, Kind::Audio), Err(Fault::Streams));
    assert_eq!(rig.room.publish(rig.alice, StreamId(0), Kind::Audio), Ok(vec![]), "again is nothing new");
    assert_eq!(rig.room.publish(rig.alice, StreamId(0), Kind::Video), Err(Fault::Kind));

    let member = rig.room.members.get_mut(&BOB).expect("in");
    member.subscriptions = (1_000_000..1_000_000 + limits::SUBSCRIPTIONS as u32).map(Route).collect();
    assert_eq!(rig.room.subscribe(rig.bob, Route(1), rig.now), Err(Fault::Subscriptions));
}

#[test]
fn routes_are_never_given_twice() {
    let mut rig = rig();
    let first = publish(&mut rig, Kind::Video);
    rig.room.unpublish(rig.alice, CAMERA);
    let second = publish(&mut rig, Kind::Video);
    assert_ne!(first, second);
    assert_eq!(rig.room.subscribe(rig.bob, first, rig.now), Ok(Asked::nothing()));
    rig.room.next_route = u32::MAX;
    assert_eq!(rig.room.publish(rig.alice, StreamId(8), Kind::Video), Err(Fault::Streams));
}

#[test]
fn nobody_takes_a_place_without_its_claim() {
    let mut rig = rig();
    let stranger = (BOB, Claim([0xee; 16]));
    assert_eq!(rig.room.join(stranger, "eve", 0).err(), Some(Refusal::Taken));
    rig.room.leave(rig.bob, true, rig.now);
    assert_eq!(rig.room.join(stranger, "eve", 0).err(), Some(Refusal::Taken), "not even when it is empty");
    assert!(rig.room.join(claimed(BOB), "bob", 0).is_ok());
}

#[test]
fn however_many_were_here_once_a_newcomer_gets_in() {
    let mut rig = rig();
    rig.room.leave(rig.carol, true, rig.now);
    let visitor = |n: usize| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        ParticipantId(id)
    };
    for n in 0..limits::CLAIMS {
        let seat = rig.room.join(claimed(visitor(n)), "visitor", 0).expect("there is room").seat;
        rig.room.leave(seat, true, rig.now);
    }
    let last = visitor(limits::CLAIMS - 1);
    let stranger = Claim([0xee; 16]);
    assert_eq!(rig.room.join((last, stranger), "eve", 0).err(), Some(Refusal::Taken), "it left last");
    assert_eq!(rig.room.join((BOB, stranger), "eve", 0).err(), Some(Refusal::Taken), "he is here");
    assert!(rig.room.join(claimed(BOB), "bob again", 0).is_ok() && rig.room.knows(last, Claim(last.0)));
    assert!(!rig.room.knows(CAROL, Claim(CAROL.0)), "she has been away for longest");
    assert!(rig.room.join(claimed(visitor(limits::CLAIMS)), "one more", 0).is_ok());
}

fn claimed(participant: ParticipantId) -> (ParticipantId, Claim) {
    (participant, Claim(participant.0))
}

//! Every message, pinned as hex: a change here is a change of the protocol.
//!
//! Spaces separate the fields; the text before the colon names the message.

use bytes::Bytes;
use meeting_wire::{
    ALPN, Admission, AudioDatagram, Decode, DecodeError, Encode, Envelope, Flags, FromRelay, GroupHeader,
    Hex, Kind, MAX_CONTROL, MAX_FRAME, MAX_POST, MeetingId, ParticipantId, Post, Record, RecordKind, Refusal,
    Route, Slot, StreamId, ToRelay, VERSION, message_len,
};

const MEETING: MeetingId = MeetingId([0x11; 16]);
const ALICE: ParticipantId = ParticipantId([0xaa; 16]);
const BOB: ParticipantId = ParticipantId([0xbb; 16]);
const M: &str = "11111111111111111111111111111111";
const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

#[track_caller]
fn pinned<T: Encode + Decode + PartialEq + std::fmt::Debug>(value: T, hex: &str) {
    let hex = hex
        .replace("{M}", M)
        .replace("{A}", A)
        .replace("{B}", B)
        .replace("{C}", &"c1".repeat(16))
        .replace(' ', "");
    let bytes = value.to_bytes();
    assert_eq!(Hex(&bytes).to_string(), hex, "{value:?}");
    assert_eq!(T::from_bytes(&bytes), Ok(value));
}

fn hello(admission: Admission) -> ToRelay {
    ToRelay::Hello {
        version: 1,
        meeting: MEETING,
        participant: ALICE,
        claim: meeting_wire::Claim([0xc1; 16]),
        since: 5,
        admission,
    }
}

fn body() -> Bytes {
    Bytes::from_static(&[0xc0, 0xde])
}

#[test]
#[rustfmt::skip]
fn to_relay() {
    let (stream, route) = (StreamId(7), Route(9));
    let create = Admission::Create { token: "tok".into() };
    //                                                            kind, then the fields
    pinned(hello(Admission::Join),                               "00 0001 {M} {A} {C} 0000000000000005 00");
    pinned(hello(create),                                        "00 0001 {M} {A} {C} 0000000000000005 01 00000003 746f6b");
    pinned(ToRelay::Post { slot: Slot::Log, body: body() },         "01 00 00000002 c0de");
    pinned(ToRelay::Post { slot: Slot::Cell, body: body() },        "01 01 00000002 c0de");
    pinned(ToRelay::Post { slot: Slot::Direct(BOB), body: body() }, "01 02 {B} 00000002 c0de");
    pinned(ToRelay::Publish { stream, kind: Kind::Video },       "02 00000007 00");
    pinned(ToRelay::Publish { stream, kind: Kind::Audio },       "02 00000007 01");
    pinned(ToRelay::Publish { stream, kind: Kind::Data },        "02 00000007 02");
    pinned(ToRelay::Unpublish { stream },                        "03 00000007");
    pinned(ToRelay::Subscribe { route },                         "04 00000009");
    pinned(ToRelay::Unsubscribe { route },                       "05 00000009");
    pinned(ToRelay::KeyframeRequest { route },                   "06 00000009");
    pinned(ToRelay::Goodbye,                                     "07");
}

#[test]
#[rustfmt::skip]
fn from_relay() {
    let (stream, route) = (StreamId(7), Route(9));
    let post = |seq, slot| FromRelay::Post(Post { seq, from: ALICE, slot, body: body() });
    let welcome = FromRelay::Welcome { version: 1, max_participants: 200, max_publish_mbit: 100 };
    pinned(welcome, "00 0001 000000c8 00000064");
    pinned(FromRelay::Refused(Refusal::Version),                 "01 00");
    pinned(FromRelay::Refused(Refusal::Token),                   "01 01");
    pinned(FromRelay::Refused(Refusal::NoMeeting),               "01 02");
    pinned(FromRelay::Refused(Refusal::Full),                    "01 03");
    pinned(FromRelay::Refused(Refusal::Busy),                    "01 04");
    pinned(FromRelay::Refused(Refusal::Protocol),                "01 05");
    pinned(FromRelay::Refused(Refusal::Replaced),                "01 06");
    pinned(post(3, Slot::Log),                                   "02 0000000000000003 {A} 00 00000002 c0de");
    pinned(post(0, Slot::Cell),                                  "02 0000000000000000 {A} 01 00000002 c0de");
    pinned(post(0, Slot::Direct(BOB)),                           "02 0000000000000000 {A} 02 {B} 00000002 c0de");
    pinned(FromRelay::Published { from: ALICE, stream, kind: Kind::Audio, route }, "03 {A} 00000007 01 00000009");
    pinned(FromRelay::Unpublished { route },                     "04 00000009");
    pinned(FromRelay::KeyframeWanted { stream },                 "05 00000007");
    pinned(FromRelay::Gone { participant: BOB },                 "06 {B}");
}

#[test]
#[rustfmt::skip]
fn media() {
    let bare = Envelope { pts: None, dts: None, duration: None, flags: Flags(0), layer: 0, sealed: body() };
    let full = Envelope {
        pts: Some(1_000_000_000),
        dts: Some(63),
        duration: Some(0x4000),
        flags: Flags(Flags::KEYFRAME | Flags::MARKER),
        layer: 2,
        sealed: body(),
    };
    let late = Envelope { duration: Some((1 << 62) - 1), dts: Some(64), ..bare.clone() };
    //                    times present, flags, layer, times, sealed
    pinned(bare.clone(),                                         "00 00 00 c0de");
    pinned(full,                                                 "07 11 02 bb9aca00 3f 80004000 c0de");
    pinned(late,                                                 "06 00 00 4040 ffffffffffffffff c0de");
    pinned(GroupHeader { route: Route(9), group: 5, layer: 2 },  "00000009 0000000000000005 02");
    pinned(AudioDatagram { route: Route(9), envelope: bare.clone() }, "00000009 00 00 00 c0de");

    let records = [
        (Record::frame(&bare),                                           "00 00000005 00 00 00 c0de"),
        (Record { kind: RecordKind::Other(1), body: body() },              "01 00000002 c0de"),
        (Record { kind: RecordKind::Other(9), body: Bytes::new() },      "09 00000000"),
    ];
    for (record, hex) in records {
        let bytes = record.to_bytes();
        assert_eq!(Hex(&bytes).to_string(), hex.replace(' ', ""));
        let head = *bytes.first_chunk().expect("a record has a head");
        assert_eq!(Record::head(head), Ok((record.kind, record.body.len())));
    }
}

#[test]
fn numbers() {
    assert_eq!(ALPN, b"e2ee-meeting/1");
    assert_eq!((VERSION, GroupHeader::LEN, Record::HEAD), (1, 13, 5));
    assert_eq!((MAX_POST, MAX_CONTROL, MAX_FRAME), (524_288, 524_352, 16_777_216));
    let flags = [Flags::KEYFRAME, Flags::DROPPABLE, Flags::DISCONT, Flags::HEADER, Flags::MARKER];
    assert_eq!(flags, [1, 2, 4, 8, 16]);
}

#[test]
fn limits_are_refused_before_anything_is_allocated() {
    let at = |n: usize| (n as u32).to_be_bytes();
    assert_eq!(message_len(at(MAX_CONTROL)), Ok(MAX_CONTROL));
    assert_eq!(message_len(at(MAX_CONTROL + 1)), Err(DecodeError::TooLong("a control message")));
    let head = |n: usize| Record::head([&[0], &at(n)[..]].concat().try_into().expect("five bytes"));
    assert_eq!(head(Record::MAX), Ok((RecordKind::Frame, Record::MAX)));
    assert_eq!(head(Record::MAX + 1), Err(DecodeError::TooLong("a record")));
    let post = [&[1, 0], &at(MAX_POST + 1)[..]].concat();
    assert_eq!(ToRelay::from_bytes(&post), Err(DecodeError::TooLong("the body of a post")));
    let longest = ToRelay::Post { slot: Slot::Direct(BOB), body: vec![0; MAX_POST].into() };
    assert!(longest.to_bytes().len() <= MAX_CONTROL);
    let from = FromRelay::Post(Post {
        seq: 0,
        from: ALICE,
        slot: Slot::Direct(BOB),
        body: vec![0; MAX_POST].into(),
    });
    assert!(from.to_bytes().len() <= MAX_CONTROL, "the relay can hand on whatever it takes");
}

#[test]
fn second_forms_are_refused() {
    let refused = |hex: &str| {
        let digits: Vec<u8> = hex.bytes().filter(|digit| *digit != b' ').collect();
        let bytes: Vec<u8> = digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex"))
            .collect();
        Envelope::from_bytes(&bytes).expect_err(hex)
    };
    let times = DecodeError::Invalid("the time bits of an envelope");
    let varint = DecodeError::Invalid("a variable integer");
    assert_eq!(refused("08 00 00"), times);
    assert_eq!(refused("01 00 00 403f"), varint);
    assert_eq!(refused("01 00 00 80003fff"), varint);
    assert_eq!(refused("01 00 00 c00000003fffffff"), varint);
    assert_eq!(refused("01 00 00 40"), DecodeError::UnexpectedEnd);
    assert_eq!(ToRelay::from_bytes(&[7, 7]), Err(DecodeError::Trailing));
}

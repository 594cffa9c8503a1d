use meeting_wire::Flags;
use proptest::prelude::*;

use super::*;
use crate::local::{MAX_MESSAGE, VERSION, message_len, packed};

fn envelope() -> Envelope {
    let flags = Flags(Flags::KEYFRAME);
    Envelope { pts: Some(7), dts: None, duration: Some(9), flags, layer: 0, sealed: vec![1, 2, 3].into() }
}

fn to_agent() -> Vec<ToAgent> {
    let meeting = Some(MeetingId([1; 16]));
    let (from, stream, kid) = (ParticipantId([2; 16]), StreamId(3), KeyId::from(0x0300_0401));
    let hello = |purpose| ToAgent::Hello { version: VERSION, purpose };
    vec![
        hello(Purpose::Keys { meeting }),
        hello(Purpose::Publish { meeting: None }),
        hello(Purpose::Watch { meeting, participant: "Alice".into(), track: "camera".into() }),
        hello(Purpose::Control),
        hello(Purpose::Tracks { meeting }),
        ToAgent::OpenStream {
            request: 1,
            kind: Kind::Video,
            track: "camera".into(),
            caps: "video/x-vp8".into(),
            random: [5; 16],
        },
        ToAgent::StreamCaps { stream, caps: "video/x-vp9".into() },
        ToAgent::CloseStream { stream },
        ToAgent::WantOpenKeys,
        ToAgent::Floor { from, kid, floor: 99 },
        ToAgent::Frame { stream, envelope: envelope() },
        ToAgent::KeyframeRequest { from, stream },
        ToAgent::Control("{}".into()),
    ]
}

fn from_agent() -> Vec<FromAgent> {
    let (from, stream, kid) = (ParticipantId([2; 16]), StreamId(3), KeyId::from(0x0300_0401));
    let key = || Secret::init_with(|key| *key = [6; 32]);
    let (name, track): (String, String) = ("Alice".into(), "camera".into());
    vec![
        FromAgent::Welcome { version: VERSION, meeting: MeetingId([1; 16]) },
        FromAgent::Refused { text: "join a meeting first".into() },
        FromAgent::State(MeetingState {
            phase: "live".into(),
            epoch: 2,
            verified: true,
            ..MeetingState::default()
        }),
        FromAgent::StreamOpened { request: 1, stream, track: track.clone() },
        FromAgent::StreamRefused { request: 1, text: "no".into() },
        FromAgent::SealKey { stream, epoch: 1, kid, suite: 5, base_key: key(), keyframe: true },
        FromAgent::Retire { before: 2, at: BootTime(5) },
        FromAgent::OpenKey {
            from,
            name: name.clone(),
            stream,
            track: track.clone(),
            caps: "video/x-vp8".into(),
            epoch: 1,
            kid,
            suite: 5,
            base_key: key(),
            floor: 4,
        },
        FromAgent::CloseKey { from, stream },
        FromAgent::Expire { before: 1 },
        FromAgent::Lease { until: BootTime(8) },
        FromAgent::Track {
            from,
            name: name.clone(),
            stream,
            track: track.clone(),
            kind: Kind::Audio,
            caps: "audio/x-opus".into(),
        },
        FromAgent::TrackGone { from, stream },
        FromAgent::Frame { from, stream, envelope: envelope() },
        FromAgent::KeyframeWanted { stream },
        FromAgent::Control("{}".into()),
        FromAgent::Trust { from, name, stream, track, trust: "forged".into(), detail: "by whom?".into() },
        FromAgent::Named,
    ]
}

#[test]
fn every_message_reads_back_as_it_was_written() {
    for (tag, message) in from_agent().iter().enumerate() {
        let bytes = message.to_bytes();
        assert_eq!(bytes[0] as usize, tag, "{message:?}");
        // A secret cannot be compared, its bytes can.
        assert_eq!(FromAgent::from_bytes(&bytes).expect("read").to_bytes(), bytes);
    }
    for message in to_agent() {
        assert_eq!(ToAgent::from_bytes(&message.to_bytes()), Ok(message));
    }
    assert_eq!(**packed(&ToAgent::WantOpenKeys), [0, 0, 0, 1, 4]);
}

#[test]
fn no_message_reads_from_less_or_more_than_its_bytes() {
    let bodies = to_agent().iter().map(Encode::to_bytes).collect::<Vec<_>>();
    for bytes in bodies.iter().filter(|bytes| bytes[0] != 6) {
        assert!((0..bytes.len()).all(|len| ToAgent::from_bytes(&bytes[..len]).is_err()), "{bytes:?}");
        assert!(ToAgent::from_bytes(&[bytes, &[0][..]].concat()).is_err(), "{bytes:?}");
    }
    assert!(message_len((MAX_MESSAGE as u32).to_be_bytes()).is_ok());
    assert!(message_len((MAX_MESSAGE as u32 + 1).to_be_bytes()).is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_have_one_form_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200), tag in 0_u8..20) {
        let bytes = [&[tag], &bytes[..]].concat();
        if let Ok(message) = ToAgent::from_bytes(&bytes) {
            prop_assert_eq!(message.to_bytes(), bytes.clone());
        }
        if let Ok(message) = FromAgent::from_bytes(&bytes) {
            prop_assert_eq!(message.to_bytes(), bytes);
        }
    }
}

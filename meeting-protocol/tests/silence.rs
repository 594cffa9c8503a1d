//! Nothing that is shown shows a key: every public type that could hold one is formatted and searched.

#![allow(clippy::unwrap_used)]

use std::fmt::Debug;

use meeting_protocol::{
    frame::{CipherSuite, KeyId, OpenKey, SealKey, Sealer},
    identity::DeviceKey,
    keyfile::RecordedKey,
    link::MeetingLink,
    secret::Secret,
    session::{Command, KeyChange, Output, Successors},
    testing::Meeting,
};
use meeting_wire::{Kind, ParticipantId, StreamId};

/// Byte 0xa7 in every form a formatter has.
const CANARY: u8 = 0xa7;

fn secret() -> Secret<32> {
    Secret::init_with(|bytes| *bytes = [CANARY; 32])
}

/// The ways 32 such bytes can be printed; two in a row are enough to tell.
fn shows(text: &str) -> bool {
    let text = text.to_lowercase();
    let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    ["a7a7", "167,167", "0xa7,0xa7", "p6enp6"].iter().any(|form| compact.contains(form))
}

fn silent(what: &str, value: &impl Debug) {
    assert!(!shows(&format!("{value:?}")) && !shows(&format!("{value:#?}")), "{what} shows a key: {value:?}");
}

#[test]
fn the_search_finds_what_it_looks_for() {
    assert!(
        shows(&format!("{:?}", [CANARY; 32]))
            && shows(&format!("{:#?}", [CANARY; 2]))
            && shows(&format!("{:x?}", [CANARY; 3]).replace(", ", ""))
    );
}

#[test]
fn every_type_with_a_key_is_silent() {
    let kid = KeyId::new(StreamId(1), 2, 3);
    let suite = CipherSuite::default();
    let seal =
        || KeyChange::Seal { stream: StreamId(1), epoch: 3, kid, suite, base_key: secret(), keyframe: false };
    let open = KeyChange::Open {
        from: ParticipantId([1; 16]),
        stream: StreamId(1),
        track: "camera".into(),
        kind: Kind::Video,
        caps: String::new(),
        epoch: 3,
        kid,
        suite,
        base_key: secret(),
        floor: 0,
    };
    silent("Secret", &secret());
    silent("KeyChange::Seal", &seal());
    silent("KeyChange::Open", &open);
    silent("Output", &Output::Keys(seal()));
    silent("SealKey", &SealKey::new(kid, suite, secret()));
    silent("Sealer", &Sealer::new(SealKey::new(kid, suite, secret())));
    silent("OpenKey", &OpenKey { kid, suite, base_key: secret(), floor: 0 });
    let recorded = RecordedKey {
        from: ParticipantId([1; 16]),
        name: String::new(),
        stream: StreamId(1),
        track: String::new(),
        caps: String::new(),
        epoch: 3,
        kid,
        suite,
        base_key: secret(),
    };
    silent("RecordedKey", &recorded);
    silent("DeviceKey", &DeviceKey::from_seed(&secret()));
    let device = DeviceKey::from_seed(&secret());
    let link = MeetingLink {
        relay: "relay.example".into(),
        meeting: meeting_wire::MeetingId([1; 16]),
        secret: secret(),
        creator: device.public().fingerprint(),
        relay_certificate: None,
    };
    silent("MeetingLink", &link);
}

#[test]
fn a_meeting_tells_no_key_in_states_events_or_posts() {
    let mut meeting = Meeting::new(60, Successors::FirstPresent(1));
    let camera = meeting.stream(0, "camera");
    let bob = meeting.join("Bob");
    meeting.run_until(std::time::Duration::from_secs(10), |meeting| {
        meeting.together(&[0, 1]) && meeting.hears(0, camera, bob)
    });
    meeting.command(0, Command::Rotate).unwrap();
    meeting.run(std::time::Duration::from_secs(3));
    let invite = *meeting.link().secret.expose();
    let mut keys: Vec<[u8; 32]> = vec![invite];
    keys.extend(
        meeting
            .nodes
            .iter()
            .flat_map(|node| node.opens.values().chain(node.seals.values()).map(|key| key.base_key)),
    );
    assert!(keys.len() >= 3);
    for node in 0..2 {
        let shown = format!(
            "{:?} {:?} {:?}",
            meeting.state(node),
            meeting.nodes[node].events,
            meeting.nodes[node].session.counters()
        );
        for key in &keys {
            assert!(
                !shown.contains(&hex::encode(&key[..8]))
                    && !shown.contains(&format!("{:?}", &key[..4]).replace(['[', ']'], ""))
            );
        }
    }
    // Nor does the relay see one, a name, a label or caps.
    for post in &meeting.recorded {
        for needle in keys.iter().map(|key| &key[..]).chain([&b"Alice"[..], b"camera", b"video/x-h264"]) {
            assert!(!post.body.windows(needle.len()).any(|window| window == needle));
        }
    }
}

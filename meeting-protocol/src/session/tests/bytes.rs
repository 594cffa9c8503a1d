//! Bytes that must never change.

use super::{samples::*, *};

#[test]
fn the_bytes_of_every_message_are_pinned() {
    let mut now: String =
        messages().iter().map(|(name, message)| format!("{name} {}\n", Hex(&message.to_bytes()))).collect();
    now.extend(evidence().iter().map(|evidence| format!("evidence {}\n", Hex(&evidence.to_file()))));
    let key = EpochKey { epoch: 9, link: [0xdd; 32], key: secret(0xee) };
    let derived: [(&str, Hash); 5] = [
        ("commitment", EpochKey::commitment(&key.key, MEETING, INSTANCE, 9)),
        ("announce-hash", announce().hash()),
        ("link-hash", link(all_changes()).body.hash()),
        ("roster-digest", Roster::before_genesis(ALICE).digest()),
        (
            "stream-key",
            *key.stream(
                DevicePublic([1; 32]),
                &match opened(&key) {
                    Said::Open(facts) => facts,
                    Said::Close(_) => unreachable!(),
                },
            )
            .expose(),
        ),
    ];
    now.extend(derived.iter().map(|(name, bytes)| format!("{name} {}\n", Hex(bytes))));
    let pinned = include_str!("../snapshots.txt");
    for (now, pinned) in now.lines().zip(pinned.lines()) {
        assert_eq!(now, pinned);
    }
    assert_eq!(now.lines().count(), pinned.lines().count());
}

fn opened(key: &EpochKey) -> Said {
    statement().body.open(key, 7, &[0x12; 32]).unwrap()
}

#[test]
fn every_message_reads_back_and_no_cut_or_longer_one_does() {
    for (name, message) in messages() {
        let bytes = message.to_bytes();
        assert_eq!(Message::from_bytes(&bytes).as_ref(), Ok(&message), "{name}");
        assert!(Message::from_bytes(&[&bytes[..], &[0]].concat()).is_err(), "{name}");
        for cut in 0..bytes.len() {
            assert!(Message::from_bytes(&bytes[..cut]).is_err(), "{name} cut to {cut}");
        }
    }
}

#[test]
fn a_file_of_evidence_reads_back_and_no_cut_or_longer_one_does() {
    for evidence in evidence() {
        let bytes = evidence.to_file();
        assert_eq!(Evidence::from_file(&bytes).as_ref(), Ok(&evidence));
        assert!(Evidence::from_file(&[&bytes[..], &[0]].concat()).is_err());
        for cut in 0..bytes.len() {
            assert!(Evidence::from_file(&bytes[..cut]).is_err(), "cut to {cut}");
        }
    }
}

#[test]
fn an_announce_is_its_devices_down_to_every_bit() {
    let bytes = announce().to_bytes();
    assert!(announce().verified().is_some());
    for bit in 0..bytes.len() * 8 {
        let mut other = bytes.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        let verified = SignedAnnounce::from_bytes(&other).is_ok_and(|announce| announce.verified().is_some());
        assert!(!verified, "bit {bit}");
    }
}

#[test]
fn a_statement_opens_only_for_its_sender_and_epoch() {
    let statement = statement().body;
    let key = |link: u8| EpochKey { epoch: 9, link: [link; 32], key: secret(0xee) };
    assert!(statement.open(&key(0xdd), 7, &[0x12; 32]).is_some());
    assert!(statement.open(&key(0xdc), 7, &[0x12; 32]).is_none());
    assert!(statement.open(&key(0xdd), 8, &[0x12; 32]).is_none());
    assert!(statement.open(&key(0xdd), 7, &[0x13; 32]).is_none());
    let other = Statement { counter: 3, ..statement };
    assert!(other.open(&key(0xdd), 7, &[0x12; 32]).is_none());
}

#[test]
fn every_part_of_a_stream_key_counts() {
    let key = EpochKey { epoch: 9, link: [0xdd; 32], key: secret(0xee) };
    let facts = match opened(&key) {
        Said::Open(facts) => facts,
        Said::Close(_) => unreachable!(),
    };
    let device = DevicePublic([1; 32]);
    let base = *key.stream(device, &facts).expose();
    let mut others = vec![
        *key.stream(DevicePublic([2; 32]), &facts).expose(),
        *EpochKey { epoch: 9, link: [0xdc; 32], key: secret(0xee) }.stream(device, &facts).expose(),
        *EpochKey { epoch: 9, link: [0xdd; 32], key: secret(0xed) }.stream(device, &facts).expose(),
    ];
    type Alter = fn(&mut StreamFacts);
    let alterations: [Alter; 4] = [
        |facts| facts.track = "screen".into(),
        |facts| facts.kind = Kind::Video,
        |facts| facts.instance[0] ^= 1,
        |facts| facts.kid = KeyId::new(StreamId(2), 7, 9),
    ];
    others.extend(alterations.iter().map(|alter| {
        let mut facts = facts.clone();
        alter(&mut facts);
        *key.stream(device, &facts).expose()
    }));
    assert!(others.iter().all(|other| *other != base));
    let caps = StreamFacts { caps: "other".into(), ..facts };
    assert_eq!(*key.stream(device, &caps).expose(), base, "new caps are no new key");
}

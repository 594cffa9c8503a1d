//! One ciphertext of two keys. AES-GCM does not commit to its key: who has two can make a frame that opens under both,
//! to something else under each. What refuses it is above: an epoch has one key, and its signed link commits to it.

use std::array;

use super::*;
use crate::{
    crypto::aead::{Aead, AeadKey},
    frame::{FrameKey, Header, OpenKey, Opener},
    weakness::{self, Weakness},
};

#[test]
fn a_frame_of_two_keys_opens_under_the_one_that_the_link_commits_to() {
    let members = [
        ("the key of the link", 0, None, Phase::Live),
        ("another", 1, None, CAUGHT),
        ("another, and takes any", 1, Some(Weakness::CommitmentUnchecked), Phase::Live),
    ];
    for (given, number, off, fate) in members {
        let mut two = Two::new();
        let (meeting, instance, bob) = (two.alice.me.meeting, two.group().instance, two.bob.me());
        let (epoch, keys) = (two.group().epochs.newest.epoch + 1, [secret(9), secret(10)]);
        let commitment = EpochKey::commitment(&keys[0], meeting, instance, epoch);
        let link = two.next_link(vec![], Some(EpochOpening { epoch, commitment }));
        let hash = link.hash();
        let streams = [0, 1].map(|n| stream(&EpochKey { epoch, link: hash, key: keys[n].duplicate() }));
        let sealed = frame_of_both(&streams, epoch);
        let shows = streams.each_ref().map(|key| opened(key, epoch, &sealed));
        assert!(shows.iter().all(Option::is_some) && shows[0] != shows[1], "AES-GCM opens it under both");

        let link = two.signed(link);
        assert_eq!(two.say(&link), Phase::Live);
        let Place::Member(alice) = &mut two.alice.place else { unreachable!() };
        let wrapped = alice.lead_pairing(bob).wrap(epoch, &hash, &keys[number]).unwrap();
        weakness::set(off);
        let phase =
            two.say(&Message::Wrap(Wrap { to: bob, epoch, link: hash, offer: None, sealed: wrapped }));
        weakness::set(None);
        assert_eq!(phase, fate, "who is given {given}");

        let key = match &two.bob.place {
            Place::Member(bob) => bob.group().epochs.newest_key(),
            _ => None,
        };
        let seen = key.and_then(|key| opened(&stream(key), epoch, &sealed));
        let expected = (fate == Phase::Live).then(|| shows[number].clone()).flatten();
        assert_eq!(seen, expected, "who is given {given}");
    }
}

fn kid(epoch: u64) -> KeyId {
    KeyId::new(StreamId(1), 0, epoch)
}

/// The base key of Alice's camera.
fn stream(key: &EpochKey) -> Secret<32> {
    let facts = StreamFacts {
        stream: StreamId(1),
        kind: Kind::Video,
        track: "camera".into(),
        caps: "video/x-vp8".into(),
        instance: [7; 16],
        kid: kid(key.epoch),
        suite: CipherSuite::default(),
    };
    key.stream(DevicePublic([1; 32]), &facts)
}

fn opened(base_key: &Secret<32>, epoch: u64, sealed: &[u8]) -> Option<Vec<u8>> {
    let mut opener = Opener::new();
    let (kid, suite, base_key) = (kid(epoch), CipherSuite::default(), base_key.duplicate());
    opener.insert(OpenKey { kid, suite, base_key, floor: 0 });
    opener.open(sealed).ok()
}

/// A sealed frame of one block that opens under both keys. A tag is an affine function of the block, and so is the
/// difference of the two keys' tags: 129 of them tell all of it, and the block is where it is zero.
fn frame_of_both(base_keys: &[Secret<32>; 2], epoch: u64) -> Vec<u8> {
    let mut header = [0; Header::MAX_LEN];
    let len = Header { kid: kid(epoch).into(), ctr: 0 }.emit(&mut header);
    let header = &header[..len];
    let keys = base_keys
        .each_ref()
        .map(|key| FrameKey::<AeadKey>::derive(CipherSuite::default(), kid(epoch), key.expose()));
    let tag = |key: &FrameKey, block: u128| {
        let seal = |mut bytes: [u8; 16]| {
            let tag = key.aead().seal_in_place_detached(&key.nonce_of(0), header, &mut bytes).unwrap();
            (u128::from_be_bytes(bytes), u128::from_be_bytes(tag))
        };
        let (key_stream, _) = seal([0; 16]);
        seal((key_stream ^ block).to_be_bytes()).1
    };
    let difference = |block| tag(&keys[0], block) ^ tag(&keys[1], block);
    let at_zero = difference(0);
    let block = bits_that_give(at_zero, array::from_fn(|bit| difference(1 << bit) ^ at_zero));
    [header, &block.to_be_bytes(), &tag(&keys[0], block).to_be_bytes()].concat()
}

/// The set of bits whose columns add up to `sum`: Gaussian elimination over one bit.
fn bits_that_give(sum: u128, columns: [u128; 128]) -> u128 {
    let mut basis: Vec<(u128, u128)> = Vec::new();
    let reduced = |basis: &[(u128, u128)], start: (u128, u128)| {
        basis.iter().fold(start, |at, by| if at.0 ^ by.0 < at.0 { (at.0 ^ by.0, at.1 ^ by.1) } else { at })
    };
    for (bit, column) in columns.into_iter().enumerate() {
        let next = reduced(&basis, (column, 1 << bit));
        if next.0 != 0 {
            basis.push(next);
        }
    }
    let (rest, bits) = reduced(&basis, (sum, 0));
    assert_eq!(rest, 0, "there is such a set");
    bits
}

//! X-Wing keys whose X25519 half is a point of low order: whoever has one agrees with everybody on the same.

use serde::Deserialize;

use super::{
    forgers::{last_heartbeat, tell_alice},
    samples::*,
    *,
};
use crate::crypto::{
    labels,
    wrap::{KemSecret, Pairing, PairingContext},
};

/// Of X-Wing public keys and encapsulated keys, at their end.
const POINT: usize = 32;
/// The neutral element.
const LOW: [u8; POINT] = [0; POINT];

#[derive(Deserialize)]
struct File {
    #[serde(rename = "testGroups")]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    tests: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    #[serde(rename = "tcId")]
    id: u32,
    flags: Vec<String>,
    #[serde(with = "hex::serde")]
    public: [u8; POINT],
}

#[test]
fn every_low_order_point_is_refused_and_no_other() {
    let file: File = serde_json::from_str(include_str!("../../../tests/vectors/x25519_test.json")).unwrap();
    let rng = &mut ChaCha20Rng::from_seed([9; 32]);
    let context = PairingContext {
        meeting: MEETING,
        instance: INSTANCE,
        leader_announce: [3; 32],
        announce: [4; 32],
        start: 7,
        psk_generation: 0,
    };
    let (kem, public) = KemSecret::random(rng);
    let (enc, _) = Pairing::offer(&public, &secret(5), &context, rng).unwrap();
    let (mut low, mut all) = (0, 0);
    for vector in file.groups.into_iter().flat_map(|group| group.tests) {
        let sound = !vector.flags.iter().any(|flag| flag == "LowOrderPublic");
        let (public, enc) = (with_point(&public, &vector.public), with_point(&enc, &vector.public));
        let taken = [
            announce_with(&public).verified().is_some(),
            Pairing::offer(&public, &secret(5), &context, rng).is_ok(),
            Pairing::accept(&kem, &enc, &secret(5), &context).is_ok(),
        ];
        assert_eq!(taken, [sound; 3], "test {}", vector.id);
        low += usize::from(!sound);
        all += 1;
    }
    assert_eq!((low, all), (31, 518));
}

#[test]
fn an_announce_with_such_a_key_is_forged_and_lets_nobody_in() {
    for (point, forged, people) in [([9; POINT], 0, 3), (LOW, 1, 2)] {
        let mut two = Two::new();
        let challenge = last_heartbeat(&mut two).body.challenge;
        let device = DeviceKey::from_seed(&secret(1));
        let announce = Announce {
            meeting: two.alice.me.meeting,
            instance: two.group().instance,
            challenge: Some(challenge),
            device: device.public(),
            participant: ParticipantId([0xca; 16]),
            kem: with_point(&two.bob.me.kem, &point),
            ..announce().unverified().clone()
        };
        let before = two.alice.counters().forged;
        tell_alice(&mut two, &Message::Announce(SignedAnnounce::new(announce, &device)));
        assert_eq!(two.alice.counters().forged - before, forged, "{point:?}");
        assert_eq!(two.alice.state().roster.len(), people, "{point:?}");
    }
}

#[test]
fn a_wrap_with_such_an_enc_is_forged_and_gives_no_key() {
    for (point, phase) in [(None, Phase::Live), (Some(LOW), Phase::Joining(WaitReason::Key))] {
        let mut two = Two::unmet();
        for _ in 0..30 {
            two.now = BootTime(two.now.0 + 100);
            meet(&mut two, point);
        }
        assert_eq!(two.bob.state().phase, phase);
        assert_eq!(two.bob.counters().forged > 0, point.is_some());
    }
}

/// Lets time pass and hands all posts over; the leader's program has put another point into its wraps, and signs them.
fn meet(two: &mut Two, point: Option<[u8; POINT]>) {
    two.alice.handle(Input::Timeout, two.now, &mut two.rng).unwrap();
    two.bob.handle(Input::Timeout, two.now, &mut two.rng).unwrap();
    for _ in 0..6 {
        loop {
            let (slot, body) = match two.alice.poll_output() {
                Output::Post { slot, body } => (slot, body),
                Output::Timeout(_) => break,
                _ => continue,
            };
            let (instance, message) = two.alice.me.board.open(&body).unwrap();
            let body = match Message::from_bytes(&message) {
                Ok(Message::Wrap(wrap)) => {
                    let wrap = Message::Wrap(signed_anew(two, wrap, point));
                    two.alice.me.board.seal(instance, &wrap.to_bytes(), &mut two.rng)
                }
                _ => body,
            };
            let post = Post { seq: 0, from: two.alice.me(), slot, body };
            two.bob.handle(Input::Post(post), two.now, &mut two.rng).unwrap();
        }
        hand_over(&mut two.bob, &mut two.alice, two.now, &mut two.rng);
    }
}

fn signed_anew(two: &Two, mut wrap: Wrap, point: Option<[u8; POINT]>) -> Wrap {
    let group = two.group();
    if let Some(offer) = &mut wrap.offer {
        let context = PairingContext {
            meeting: two.alice.me.meeting,
            instance: group.instance,
            leader_announce: group.leader_announce,
            announce: group.roster.entry(wrap.to).unwrap().announce,
            start: offer.start,
            psk_generation: group.roster.header.psk_generation,
        };
        if let Some(point) = point {
            offer.enc = with_point(&offer.enc, &point);
        }
        offer.signature = two.alice.me.signer.sign(labels::PAIRING, &context.signed_bytes(&offer.enc));
    }
    wrap
}

fn with_point(x_wing: &[u8], point: &[u8; POINT]) -> Vec<u8> {
    [&x_wing[..x_wing.len() - POINT], point].concat()
}

fn announce_with(kem: &[u8]) -> SignedAnnounce {
    let announce = Announce { kem: kem.to_vec(), ..announce().unverified().clone() };
    SignedAnnounce::new(announce, &DeviceKey::from_seed(&secret(3)))
}

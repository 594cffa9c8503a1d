//! What Eve can do to a sealed stream: nothing but lose frames.
//!
//! Eve sits at the relay. She sees, drops, repeats, reorders and rewrites sealed frames; in some tests she has a
//! key of another stream. Every test runs over both AEAD back ends, in both directions between them where that
//! makes sense, and with the nonce ledger on.

use getrandom::SysRng;
use meeting_protocol::{
    crypto::aead::{Aead, TAG_LEN, aws_lc, pure_rust},
    frame::{
        CipherSuite, FrameKey, Header, KeyId, MAX_CTR, MAX_KEYS, OpenError, OpenKey, Opener, SealError,
        SealKey, Sealer, WINDOW,
    },
    secret::Secret,
};
use meeting_wire::StreamId;
use proptest::prelude::*;
use rand_core::UnwrapErr;

/// Each test once for each back end: `on_aws_lc::NAME` and `in_pure_rust::NAME`.
macro_rules! on_both {
    ($($(#[$attr:meta])* fn $name:ident<$aead:ident: Aead>() $body:block)*) => {
        $(fn $name<$aead: Aead>() $body)*

        mod on_aws_lc {
            $($(#[$attr])* fn $name() { super::$name::<super::aws_lc::AeadKey>(); })*
        }

        mod in_pure_rust {
            $($(#[$attr])* fn $name() { super::$name::<super::pure_rust::AeadKey>(); })*
        }
    };
}

const ALICE: KeyId = KeyId::new(StreamId(7), 1, 3);
const BOB: KeyId = KeyId::new(StreamId(9), 2, 3);

on_both! {
    #[test]
    fn every_flipped_bit_is_refused<A: Aead>() {
        let (mut alice, mut bob) = pair::<A>(ALICE);
        for frame in (0..100).map(frame) {
            let sealed = alice.seal(&frame).expect("sealed");
            for bit in 0..sealed.len() * 8 {
                let mut flipped = sealed.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(bob.open(&flipped).is_err(), "bit {bit} of {} bytes", sealed.len());
            }
            assert_eq!(bob.open(&sealed).as_ref(), Ok(&frame));
        }
    }

    #[test]
    fn every_other_length_is_refused<A: Aead>() {
        let (mut alice, mut bob) = pair::<A>(ALICE);
        for frame in (0..100).map(frame) {
            let sealed = alice.seal(&frame).expect("sealed");
            for len in 0..sealed.len() {
                assert!(bob.open(&sealed[..len]).is_err(), "{len} of {} bytes", sealed.len());
                assert!(bob.open(&sealed[sealed.len() - len..]).is_err(), "last {len} of {} bytes", sealed.len());
            }
            for more in 1..=32 {
                for longer in [
                    [&sealed[..], &vec![0; more]].concat(),
                    [&sealed[..], &sealed[sealed.len().saturating_sub(more)..]].concat(),
                    [&vec![0; more], &sealed[..]].concat(),
                ] {
                    assert!(bob.open(&longer).is_err(), "{more} bytes more");
                }
            }
            assert_eq!(bob.open(&sealed).as_ref(), Ok(&frame));
        }
    }

    #[test]
    fn a_frame_opens_once<A: Aead>() {
        let (mut alice, mut bob) = pair::<A>(ALICE);
        let sealed: Vec<_> = (0..3).map(|n| alice.seal(&frame(n)).expect("sealed")).collect();
        for n in [2, 0, 1] {
            assert_eq!(bob.open(&sealed[n]).as_ref(), Ok(&frame(n)));
            assert_eq!(bob.open(&sealed[n]), Err(OpenError::Replayed));
        }
    }

    #[test]
    fn the_window_ends_where_it_says<A: Aead>() {
        let (mut alice, mut bob) = pair::<A>(ALICE);
        let sealed: Vec<_> = (0..=WINDOW).map(|_| alice.seal(b"frame").expect("sealed")).collect();
        let newest = WINDOW as usize;
        assert!(bob.open(&sealed[newest]).is_ok());
        assert_eq!(bob.open(&sealed[0]), Err(OpenError::TooOld));
        for late in (1..newest).rev() {
            assert!(bob.open(&sealed[late]).is_ok(), "{late}");
        }
        for again in &sealed[1..] {
            assert_eq!(bob.open(again), Err(OpenError::Replayed));
        }
    }

    #[test]
    fn a_forged_counter_never_moves_the_window<A: Aead>() {
        let (mut alice, mut bob) = pair::<A>(ALICE);
        let sealed: Vec<_> = (0..WINDOW).map(|_| alice.seal(b"frame").expect("sealed")).collect();
        assert!(bob.open(&sealed[500]).is_ok());
        let (_, header_len) = Header::parse(&sealed[501]).expect("a header");
        let far = [501, 502, 1524, 1525, 5000, MAX_CTR, 1 << 63, u64::MAX - 1, u64::MAX];
        for ctr in far.into_iter().chain(600..700) {
            let forged = with_header(ALICE, ctr, &sealed[600][header_len..]);
            let expected = if ctr == 600 { Ok(b"frame".to_vec()) } else { Err(OpenError::Forged) };
            if ctr != 600 {
                assert_eq!(bob.open(&forged), expected, "counter {ctr}");
            }
            assert_eq!(bob.floor(ALICE), Some(501), "counter {ctr}");
        }
        for (n, sealed) in sealed.iter().enumerate() {
            assert_eq!(bob.open(sealed).is_ok(), n != 500, "frame {n}");
        }
    }

    #[test]
    fn honest_jumps_go_to_the_very_end<A: Aead>() {
        // Our sealer stops at 2^32; other peers of RFC 9605 may go on to the last counter.
        let base_key = random();
        let peer = FrameKey::<A>::derive(CipherSuite::default(), ALICE, base_key.expose());
        let seal = |ctr| {
            let mut sealed = with_header(ALICE, ctr, &[]);
            let (mut body, mut tag) = ([0; 5], [0; TAG_LEN]);
            peer.aead().seal(&peer.nonce_of(ctr), &sealed, b"frame", &mut body, &mut tag).expect("sealed");
            sealed.extend_from_slice(&body);
            sealed.extend_from_slice(&tag);
            sealed
        };
        let mut bob = opener::<A>(ALICE, &base_key);
        for ctr in [0, MAX_CTR, 1 << 63, u64::MAX - 1, u64::MAX, u64::MAX - WINDOW + 1] {
            assert!(bob.open(&seal(ctr)).is_ok(), "counter {ctr}");
            assert_eq!(bob.open(&seal(ctr)), Err(OpenError::Replayed), "counter {ctr}");
        }
        assert_eq!(bob.open(&seal(u64::MAX - WINDOW)), Err(OpenError::TooOld));
        assert_eq!(bob.floor(ALICE), Some(u64::MAX));
    }

    #[test]
    fn a_frame_of_no_known_key_is_named<A: Aead>() {
        let (mut alice, _) = pair::<A>(ALICE);
        let (_, mut bob) = pair::<A>(BOB);
        assert_eq!(bob.open(&alice.seal(b"frame").expect("sealed")), Err(OpenError::UnknownKey(ALICE)));
    }

    #[test]
    fn one_stream_is_not_another<A: Aead>() {
        let (mut alice, _) = pair::<A>(ALICE);
        let base_key = random();
        let mut eve = Sealer::<A>::with_backend(seal_key(BOB, &base_key));
        let mut bob = opener::<A>(BOB, &base_key);
        // Another key under Alice's KID, as a stream of another label or meeting would have.
        bob.insert(OpenKey { kid: ALICE, suite: CipherSuite::default(), base_key: random(), floor: 0 });

        let from_alice = alice.seal(b"frame").expect("sealed");
        let from_eve = eve.seal(b"frame").expect("sealed");
        let (_, len) = Header::parse(&from_alice).expect("a header");
        assert_eq!(bob.open(&from_alice), Err(OpenError::Forged));
        assert_eq!(bob.open(&with_header(BOB, 0, &from_alice[len..])), Err(OpenError::Forged));
        assert_eq!(bob.open(&with_header(ALICE, 0, &from_eve[len..])), Err(OpenError::Forged));
        assert!(bob.open(&from_eve).is_ok());
    }

    #[test]
    fn one_base_key_gives_each_kid_and_suite_its_own<A: Aead>() {
        let base_key = random();
        let salt = |suite, kid| FrameKey::<A>::derive(suite, kid, base_key.expose()).nonce_of(0);
        let (four, five) = (CipherSuite::Aes128GcmSha256_128, CipherSuite::Aes256GcmSha512_128);
        assert_ne!(salt(five, ALICE), salt(five, BOB));
        assert_ne!(salt(four, ALICE), salt(five, ALICE));

        let mut alice = Sealer::<A>::with_backend(seal_key(ALICE, &base_key));
        let sealed = alice.seal(b"frame").expect("sealed");
        let (_, len) = Header::parse(&sealed).expect("a header");
        let mut bob = opener::<A>(BOB, &base_key);
        assert_eq!(bob.open(&with_header(BOB, 0, &sealed[len..])), Err(OpenError::Forged));
        bob.insert(OpenKey { kid: ALICE, suite: CipherSuite::Aes128GcmSha256_128, base_key, floor: 0 });
        assert_eq!(bob.open(&sealed), Err(OpenError::Forged));
    }

    #[test]
    fn nothing_unauthenticated_is_left_in_the_output<A: Aead>() {
        let (mut alice, mut bob) = pair::<A>(ALICE);
        let frame = frame(99);
        let mut sealed = alice.seal(&frame).expect("sealed");
        *sealed.last_mut().expect("a tag") ^= 1;
        let mut out = vec![0xee; sealed.len()];
        assert_eq!(bob.open_into(&sealed, &mut out), Err(OpenError::Forged));
        assert_eq!(out[..frame.len()], vec![0; frame.len()]);
        assert!(out[frame.len()..].iter().all(|&byte| byte == 0xee));
    }

    #[test]
    fn small_outputs_cost_nothing<A: Aead>() {
        let (mut alice, mut bob) = pair::<A>(ALICE);
        for short in 0..5 + Sealer::OVERHEAD {
            assert_eq!(alice.seal_into(b"frame", &mut vec![0; short]), Err(SealError::OutputTooSmall));
        }
        assert_eq!(alice.ctr(), 0);
        let mut sealed = [0; 5 + Sealer::OVERHEAD];
        let len = alice.seal_into(b"frame", &mut sealed).expect("sealed");
        for short in 0..5 {
            assert_eq!(bob.open_into(&sealed[..len], &mut vec![0; short]), Err(OpenError::OutputTooSmall));
        }
        assert_eq!(bob.open_into(&sealed[..len], &mut [0; 5]), Ok(5));
    }

    #[test]
    fn the_counter_goes_on_over_a_change_of_key<A: Aead>() {
        let (mut alice, mut bob) = pair::<A>(ALICE);
        assert!(bob.open(&alice.seal(b"old").expect("sealed")).is_ok());
        let next = KeyId::new(ALICE.stream(), ALICE.index(), 4);
        let base_key = random();
        assert_eq!(alice.switch(seal_key(ALICE, &base_key)), Err(SealError::KeyUsed));
        assert_eq!((alice.kid(), alice.ctr()), (ALICE, 1));
        alice.switch(seal_key(next, &base_key)).expect("the next epoch");
        assert_eq!((alice.kid(), alice.ctr()), (next, 1));
        assert_eq!(alice.switch(seal_key(ALICE, &random())), Err(SealError::KeyUsed));

        let sealed = alice.seal(b"new").expect("sealed");
        assert_eq!(Header::parse(&sealed).map(|(header, _)| header), Some(Header { kid: next.into(), ctr: 1 }));
        assert_eq!(bob.open(&sealed), Err(OpenError::UnknownKey(next)));
        bob.insert(OpenKey { kid: next, suite: CipherSuite::default(), base_key, floor: 0 });
        assert_eq!(bob.open(&sealed).as_deref(), Ok(&b"new"[..]));
    }

    #[test]
    fn a_restarted_opener_accepts_nothing_below_its_floor<A: Aead>() {
        let base_key = random();
        let mut alice = Sealer::<A>::with_backend(seal_key(ALICE, &base_key));
        let mut bob = opener::<A>(ALICE, &base_key);
        let old: Vec<_> = (0..20).map(|_| alice.seal(b"old").expect("sealed")).collect();
        assert!(old.iter().all(|sealed| bob.open(sealed).is_ok()));
        let floor = bob.floor(ALICE).expect("a key");
        assert_eq!(floor, 20);

        let mut bob = Opener::<A>::with_backend();
        bob.insert(OpenKey { kid: ALICE, suite: CipherSuite::default(), base_key, floor });
        assert_eq!(bob.floor(ALICE), Some(20));
        assert!(old.iter().all(|sealed| bob.open(sealed) == Err(OpenError::TooOld)));
        assert!(bob.open(&alice.seal(b"new").expect("sealed")).is_ok());
    }

    #[test]
    fn the_same_key_again_keeps_its_window<A: Aead>() {
        let base_key = random();
        let mut alice = Sealer::<A>::with_backend(seal_key(ALICE, &base_key));
        let mut bob = opener::<A>(ALICE, &base_key);
        let sealed: Vec<_> = (0..10).map(|_| alice.seal(b"frame").expect("sealed")).collect();
        assert!(bob.open(&sealed[3]).is_ok());
        let again = |floor| OpenKey { kid: ALICE, suite: CipherSuite::default(), base_key: base_key.duplicate(), floor };
        bob.insert(again(2));
        assert_eq!(bob.open(&sealed[3]), Err(OpenError::Replayed));
        assert_eq!(bob.open(&sealed[1]), Err(OpenError::TooOld));
        bob.insert(again(0));
        assert_eq!(bob.open(&sealed[1]), Err(OpenError::TooOld));
        assert!(bob.open(&sealed[2]).is_ok());

        bob.insert(OpenKey { base_key: random(), ..again(0) });
        assert_eq!(bob.open(&sealed[4]), Err(OpenError::Forged));
        assert_eq!(bob.floor(ALICE), Some(0));
    }

    #[test]
    fn keys_go_when_told_and_others_stay<A: Aead>() {
        let mut bob = Opener::<A>::with_backend();
        let mut senders: Vec<_> = (0..5)
            .map(|index| {
                let (kid, base_key) = (KeyId::new(StreamId(1), index, 0), random());
                let sealer = Sealer::<A>::with_backend(seal_key(kid, &base_key));
                bob.insert(OpenKey { kid, suite: CipherSuite::default(), base_key, floor: 0 });
                sealer
            })
            .collect();
        bob.remove(senders[1].kid());
        bob.retain(|kid| kid.index() != 3);
        for (index, sender) in senders.iter_mut().enumerate() {
            let known = ![1, 3].contains(&index);
            assert_eq!(bob.knows(sender.kid()), known);
            assert_eq!(bob.open(&sender.seal(b"frame").expect("sealed")).is_ok(), known, "sender {index}");
        }
    }

    #[test]
    fn many_keys_push_out_the_oldest<A: Aead>() {
        let mut bob = Opener::<A>::with_backend();
        let base_key = random();
        let kid = |n: usize| KeyId::new(StreamId(n as u32), 1, 0);
        for n in 0..MAX_KEYS + 10 {
            let base_key = base_key.duplicate();
            bob.insert(OpenKey { kid: kid(n), suite: CipherSuite::default(), base_key, floor: 0 });
            assert!(bob.len() <= MAX_KEYS);
        }
        assert!((0..10).all(|n| !bob.knows(kid(n))));
        assert!((10..MAX_KEYS + 10).all(|n| bob.knows(kid(n))));
        let mut alice = Sealer::<A>::with_backend(seal_key(kid(MAX_KEYS), &base_key));
        assert!(bob.open(&alice.seal(b"frame").expect("sealed")).is_ok());
    }

    #[test]
    #[should_panic(expected = "nonce ledger")]
    fn the_ledger_sees_a_second_seal_with_one_nonce<A: Aead>() {
        let base_key = random();
        let mut one = Sealer::<A>::with_backend(seal_key(ALICE, &base_key));
        let mut two = Sealer::<A>::with_backend(seal_key(ALICE, &base_key));
        one.seal(b"frame").expect("sealed");
        let _ = two.seal(b"another");
    }
}

#[test]
fn the_counter_stops_for_good() {
    let base_key = random();
    let mut alice = Sealer::starting_at(seal_key(ALICE, &base_key), MAX_CTR - 3);
    let mut bob = opener::<aws_lc::AeadKey>(ALICE, &base_key);
    for left in (0..3).rev() {
        assert!(bob.open(&alice.seal(b"frame").expect("sealed")).is_ok());
        assert_eq!(alice.ctr(), MAX_CTR - left);
    }
    let mut out = [0xee; 5 + Sealer::OVERHEAD];
    assert_eq!(alice.seal_into(b"frame", &mut out), Err(SealError::Exhausted));
    assert_eq!(out, [0xee; 5 + Sealer::OVERHEAD]);
    alice.switch(seal_key(BOB, &random())).expect("another key");
    assert_eq!(alice.seal(b"frame"), Err(SealError::Exhausted));
}

#[test]
fn the_back_ends_open_each_other() {
    for suite in [CipherSuite::Aes128GcmSha256_128, CipherSuite::Aes256GcmSha512_128] {
        let (one, two) = (random(), random());
        let key = |key: &Secret<32>| OpenKey { kid: ALICE, suite, base_key: key.duplicate(), floor: 0 };
        let mut aws = Sealer::<aws_lc::AeadKey>::with_backend(SealKey::new(ALICE, suite, one.duplicate()));
        let mut rust =
            Sealer::<pure_rust::AeadKey>::with_backend(SealKey::new(ALICE, suite, two.duplicate()));
        let mut by_rust = Opener::<pure_rust::AeadKey>::with_backend();
        by_rust.insert(key(&one));
        let mut by_aws = Opener::<aws_lc::AeadKey>::with_backend();
        by_aws.insert(key(&two));
        for frame in (0..300).map(frame) {
            assert_eq!(by_rust.open(&aws.seal(&frame).expect("sealed")).as_ref(), Ok(&frame));
            assert_eq!(by_aws.open(&rust.seal(&frame).expect("sealed")).as_ref(), Ok(&frame));
        }
    }
}

#[test]
fn another_implementation_opens_our_frames_and_we_its() {
    use sframe::{
        CipherSuite as Theirs,
        frame::{EncryptedFrameView, MediaFrameView, MonotonicCounter},
        key::{DecryptionKey, EncryptionKey},
    };

    for (ours, theirs) in [
        (CipherSuite::Aes128GcmSha256_128, Theirs::AesGcm128Sha256),
        (CipherSuite::Aes256GcmSha512_128, Theirs::AesGcm256Sha512),
    ] {
        let (from_us, from_them) = (random(), random());
        let mut sealer = Sealer::new(SealKey::new(ALICE, ours, from_us.duplicate()));
        let key = DecryptionKey::derive_from(theirs, u64::from(ALICE), from_us.expose()).expect("their key");
        let their_key =
            EncryptionKey::derive_from(theirs, u64::from(BOB), from_them.expose()).expect("their key");
        let mut their_counter = MonotonicCounter::new(u64::MAX);
        let mut opener = Opener::new();
        opener.insert(OpenKey { kid: BOB, suite: ours, base_key: from_them, floor: 0 });

        for frame in (0..300).map(frame) {
            let sealed = sealer.seal(&frame).expect("sealed");
            let opened = EncryptedFrameView::try_new(&sealed).and_then(|view| view.decrypt(&key));
            assert_eq!(opened.expect("they open").payload(), frame);

            let view = MediaFrameView::try_new(&mut their_counter, &frame).expect("a counter");
            let sealed = view.encrypt(&their_key).expect("they seal");
            assert_eq!(opener.open(sealed.as_ref()).as_ref(), Ok(&frame));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the order and however often: each frame opens once, as long as it is in the window.
    #[test]
    fn any_delivery_opens_each_frame_once(order in prop::collection::vec(0usize..2200, 1..600)) {
        let (mut alice, mut bob) = pair::<aws_lc::AeadKey>(ALICE);
        let sealed: Vec<_> = (0..2200usize).map(|n| alice.seal(&n.to_be_bytes()).expect("sealed")).collect();
        let mut opened = [false; 2200];
        let mut newest = 0;
        for n in order {
            let expected = if n + WINDOW as usize <= newest {
                Err(OpenError::TooOld)
            } else if opened[n] {
                Err(OpenError::Replayed)
            } else {
                Ok(n.to_be_bytes().to_vec())
            };
            prop_assert_eq!(bob.open(&sealed[n]), expected);
            if n + WINDOW as usize > newest {
                opened[n] = true;
            }
            newest = newest.max(n);
        }
    }

    /// Nothing that Eve makes up opens, and nothing panics.
    #[test]
    fn no_made_up_bytes_open(mut bytes in prop::collection::vec(any::<u8>(), 0..200), as_alice in any::<bool>()) {
        let (_, mut bob) = pair::<aws_lc::AeadKey>(ALICE);
        if as_alice {
            let (_, len) = Header::parse(&bytes).unwrap_or((Header { kid: 0, ctr: 0 }, 0));
            bytes = with_header(ALICE, 0, &bytes[len..]);
        }
        prop_assert!(bob.open(&bytes).is_err());
        prop_assert_eq!(bob.floor(ALICE), Some(0));
    }
}

fn random() -> Secret<32> {
    Secret::random(&mut UnwrapErr(SysRng))
}

fn seal_key(kid: KeyId, base_key: &Secret<32>) -> SealKey {
    SealKey::new(kid, CipherSuite::default(), base_key.duplicate())
}

fn opener<A: Aead>(kid: KeyId, base_key: &Secret<32>) -> Opener<A> {
    let mut opener = Opener::with_backend();
    opener.insert(OpenKey { kid, suite: CipherSuite::default(), base_key: base_key.duplicate(), floor: 0 });
    opener
}

fn pair<A: Aead>(kid: KeyId) -> (Sealer<A>, Opener<A>) {
    let base_key = random();
    (Sealer::with_backend(seal_key(kid, &base_key)), opener(kid, &base_key))
}

/// A frame of `n` bytes.
fn frame(n: usize) -> Vec<u8> {
    (0..n).map(|i| ((i * 29) ^ n) as u8).collect()
}

fn with_header(kid: KeyId, ctr: u64, rest: &[u8]) -> Vec<u8> {
    let mut header = [0; Header::MAX_LEN];
    let len = Header { kid: kid.into(), ctr }.emit(&mut header);
    [&header[..len], rest].concat()
}

//! A process that forks while it seals. Alone in its process, since a fork takes one thread with it and every lock.

use meeting_protocol::{
    frame::{CipherSuite, KeyId, SealError, SealKey, Sealer},
    secret::Secret,
};
use secret_memory::testing::in_a_fork;

fn sealer(kid: u64) -> Sealer {
    let base_key = Secret::init_with(|key| key[..8].copy_from_slice(&kid.to_be_bytes()));
    Sealer::new(SealKey::new(KeyId::from(kid), CipherSuite::default(), base_key))
}

#[test]
fn a_fork_seals_under_no_key_of_its_parent() {
    let mut ours = sealer(0xf02c_0001);
    ours.seal(b"one").expect("sealed");
    assert!(in_a_fork(|| {
        let refused = ours.seal(b"two") == Err(SealError::Forked);
        // A stream of its own it may seal.
        refused && sealer(0xf02c_0002).seal(b"one").is_ok()
    }));
    ours.seal(b"two").expect("the parent goes on");
    assert_eq!(ours.ctr(), 2);
}

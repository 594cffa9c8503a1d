//! Whoever hands out other keys, or other people, shows in what people read aloud.

use proptest::prelude::*;

use super::{samples, *};
use crate::session::{group::Group, streams::Streams};

/// What somebody in between does to two people.
#[derive(Clone, Copy, Debug)]
enum Swap {
    /// One of them gets another key, or address, in which one bit differs.
    Device,
    Signer,
    Kem,
    Participant,
    /// They get each other's.
    Devices,
    Signers,
    Kems,
    /// They change places.
    People,
}

const SWAPS: [Swap; 8] = [
    Swap::Device,
    Swap::Signer,
    Swap::Kem,
    Swap::Participant,
    Swap::Devices,
    Swap::Signers,
    Swap::Kems,
    Swap::People,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whichever_key_or_person_is_exchanged_a_code_shows_it(
        seed in any::<u64>(),
        count in 2usize..6,
        one in any::<prop::sample::Index>(),
        apart in any::<prop::sample::Index>(),
        bit in 0usize..128,
        swap in prop::sample::select(SWAPS.to_vec()),
    ) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let people: Vec<Announce> = (0..count).map(|_| person(&mut rng)).collect();
        let one = one.index(count);
        let other = (one + 1 + apart.index(count - 1)) % count;
        let (byte, mask) = (bit / 8, 1 << (bit % 8));
        let mut swapped = people.clone();
        match swap {
            Swap::Device => swapped[one].device.0[byte] ^= mask,
            Swap::Signer => swapped[one].signer.0[byte] ^= mask,
            // From end to end of its 1,216 bytes.
            Swap::Kem => swapped[one].kem[byte * 81] ^= mask,
            Swap::Participant => swapped[one].participant.0[byte] ^= mask,
            Swap::Devices => (swapped[one].device, swapped[other].device) = (people[other].device, people[one].device),
            Swap::Signers => (swapped[one].signer, swapped[other].signer) = (people[other].signer, people[one].signer),
            Swap::Kems => {
                (swapped[one].kem, swapped[other].kem) = (people[other].kem.clone(), people[one].kem.clone());
            }
            Swap::People => swapped.swap(one, other),
        }
        let (before, after) = (group(&people), group(&swapped));
        prop_assert_ne!(before.roster_code(), after.roster_code());
        // The security code is the leader's alone.
        prop_assert_eq!(before.code != after.code, people[0] != swapped[0]);
    }
}

fn person(rng: &mut ChaCha20Rng) -> Announce {
    let mut bytes = || *Secret::<32>::random(rng).expose();
    Announce {
        participant: ParticipantId(*bytes().first_chunk().unwrap()),
        device: DevicePublic(bytes()),
        kem: bytes().repeat(38),
        signer: StayPublic(bytes()),
        ..samples::announce().unverified().clone()
    }
}

/// These people, of whom the first leads, some links after the last of them came.
fn group(people: &[Announce]) -> Group {
    let device = DeviceKey::from_seed(&secret(3));
    let signed: Vec<_> =
        people.iter().map(|announce| SignedAnnounce::new(announce.clone(), &device)).collect();
    let entries = people.iter().zip(&signed).zip(0..);
    let adds: Vec<Change> = entries
        .map(|((announce, signed), index)| Change::Add(Entry::new(index, announce, signed.hash(), true)))
        .collect();
    let leader = people[0].participant;
    let roster = |changes: &[Change]| Roster::before_genesis(leader).after(changes).unwrap();
    let link = |number, changes: &[Change], roster: &Roster| {
        let changes = changes.to_vec();
        Signed::new(
            Link { number, leader, changes, digest: roster.digest(), ..samples::link(vec![]).body },
            &signer(),
        )
    };
    let genesis = link(0, &adds[..1], &roster(&adds[..1]));
    let all = roster(&adds);
    // Its changes are none of them: the digest alone tells who is there.
    let head = link(8, &[], &all);
    let lineage = Lineage { genesis, creator: signed[0].clone(), steps: vec![] };
    let at = (head.clone(), BootTime(0));
    Group::new(all, lineage, &signed[0], head, at, Streams::default()).unwrap()
}

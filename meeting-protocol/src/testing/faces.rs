//! A leader with two faces: one identity and one genesis, and from there on two chains, each honest in itself.

use std::sync::Arc;

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Infallible, Rng, SeedableRng, TryCryptoRng, TryRng},
};

use super::Meeting;
use crate::{
    BootTime,
    identity::DeviceKey,
    link::MeetingLink,
    session::{Creating, Role, Session, Successors},
};

impl Meeting {
    /// A meeting whose leader has two faces, nodes 0 and 1; as long as the relay (`tamper`) keeps them apart, each
    /// leads a meeting of its own.
    pub fn two_faced(seed: u64, successors: Successors) -> Self {
        let mut meeting = Self::new(seed, Successors::Nobody);
        let device = meeting.nodes[0].device.clone();
        meeting.nodes.clear();
        meeting.log.clear();
        meeting.cells.clear();
        meeting.wire.clear();
        let (link, seed) = (meeting.link(), meeting.rng.next_u64());
        for (session, rng) in faces(&link, &device, "Alice", &successors, BootTime(0), seed) {
            meeting.add(session, device.clone(), rng, 0, 0);
        }
        meeting
    }
}

/// The same for a relay of a test's own: the link that both faces lead under, and the faces.
pub fn two_faces(
    relay: String,
    certificate: Option<[u8; 32]>,
    now: BootTime,
    seed: u64,
) -> (MeetingLink, [(Session, ChaCha20Rng); 2]) {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let device = super::device(&mut rng);
    let link = MeetingLink::new(relay, device.public().fingerprint(), certificate, &mut rng);
    let faces = faces(&link, &device, "Alice", &Successors::Nobody, now, rng.next_u64());
    (link, faces)
}

/// Two leaders of one identity, each with randomness of its own for all that follows.
///
/// # Panics
///
/// If the link names another creator.
fn faces(
    link: &MeetingLink,
    device: &Arc<DeviceKey>,
    name: &str,
    successors: &Successors,
    now: BootTime,
    seed: u64,
) -> [(Session, ChaCha20Rng); 2] {
    [1, 2].map(|face| {
        let creating = Creating {
            link: link.duplicate(),
            device: device.clone(),
            name: name.into(),
            role: Role::Participant,
            successors: successors.clone(),
        };
        let own = ChaCha20Rng::seed_from_u64(seed ^ face);
        let mut rng = Split { shared: ChaCha20Rng::seed_from_u64(seed), left: IDENTITY, own };
        let session = Session::create(creating, now, &mut rng).expect("the creator's own link");
        (session, rng.own)
    })
}

/// Gives both faces the same for a while, and each its own afterwards.
struct Split {
    shared: ChaCha20Rng,
    left: usize,
    own: ChaCha20Rng,
}

/// What makes an identity and a genesis: the KEM key, the participant, the stay key, the instance, the first key.
const IDENTITY: usize = 5;

impl TryRng for Split {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.own.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.own.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                self.shared.fill_bytes(bytes);
            }
            None => self.own.fill_bytes(bytes),
        }
        Ok(())
    }
}

impl TryCryptoRng for Split {}

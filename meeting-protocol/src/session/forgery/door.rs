//! Lies at the door: who wants in, who may, and who is.

use meeting_wire::{InstanceId, ParticipantId};
use rand_core::CryptoRng;

use super::{Lie, Seen};
use crate::{
    announce::{Announce, SignedAnnounce},
    crypto::sign::StayKey,
    identity::DeviceKey,
    secret::Secret,
    session::{
        claims::{Answer, Verdict},
        context::Me,
        group::Group,
        message::{Message, Reply},
        welcome::Welcome,
    },
};

/// A lie about places in the meeting.
pub(super) fn message(
    lie: Lie,
    victim: ParticipantId,
    seen: &Seen,
    (me, group): (&Me, &Group),
    rng: &mut dyn CryptoRng,
) -> Option<Message> {
    let instance = group.instance;
    Some(match lie {
        Lie::Announce => {
            let own_device = me.device.public();
            let device = group.roster.entry(victim).map(|entry| entry.device);
            let device = device.filter(|device| *device != own_device)?;
            let participant = participant(rng);
            let announce = Announce { device, participant, ..own(me, instance, group, seen) };
            Message::Announce(SignedAnnounce::new(announce, &me.device))
        }
        Lie::Twin => {
            // Its stay key is thrown away: nobody speaks under this id and is believed.
            let signer = StayKey::random(rng).public();
            let announce = Announce { participant: victim, signer, ..own(me, instance, group, seen) };
            Message::Announce(SignedAnnounce::new(announce, &me.device))
        }
        Lie::Ghost => {
            let device = DeviceKey::from_seed(&Secret::random(rng));
            let (signer, participant) = (StayKey::random(rng).public(), participant(rng));
            let name = "ghost".into();
            let own = own(me, instance, group, seen);
            let announce = Announce { device: device.public(), participant, signer, name, ..own };
            Message::Announce(SignedAnnounce::new(announce, &device))
        }
        Lie::Answer => {
            let (meeting, leader, announce) =
                (me.meeting, group.roster.header.leader, seen.announce.as_ref()?.hash());
            let verdict = Verdict::Refused;
            let answer = me.sign(Answer { meeting, instance, leader, to: victim, announce, verdict });
            Message::Answer(Box::new(Reply { answer, lineage: group.lineage.clone() }))
        }
        Lie::Welcome => {
            let welcome = Welcome {
                announce: seen.announce.as_ref()?.hash(),
                lineage: group.lineage.clone(),
                leader: group.leader_signed.clone()?,
                head: group.head().clone(),
                epoch_link: Some(group.epoch_link.clone()),
                header: group.roster.header.clone(),
                entries: group.roster.entries().cloned().collect(),
                signature: [0; 64],
            };
            Message::Welcome(Box::new(welcome.signed(&me.signer)))
        }
        Lie::Announces => {
            // The same announce under another signature, which its hash leaves out.
            let announce = seen.announce.as_ref()?.unverified().clone();
            Message::Announces(vec![SignedAnnounce::new(announce, &me.device)])
        }
        _ => return None,
    })
}

/// What we would announce now.
fn own(me: &Me, instance: InstanceId, group: &Group, seen: &Seen) -> Announce {
    let beat = seen.beat.as_ref().filter(|beat| beat.body.instance == instance).or(group.last_beat.as_ref());
    me.announce(instance, beat.map(|beat| beat.body.challenge)).unverified().clone()
}

fn participant(rng: &mut dyn CryptoRng) -> ParticipantId {
    let mut id = [0; 16];
    rng.fill_bytes(&mut id);
    ParticipantId(id)
}

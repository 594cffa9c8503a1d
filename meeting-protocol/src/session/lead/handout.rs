//! What a leader sends to one participant: pairings, wraps, welcomes, and to successors the announces of all.

use std::collections::HashSet;

use meeting_wire::ParticipantId;

use super::{ANNOUNCES_PER_POST, ANSWER, Lead, Peer};
use crate::{
    BootTime,
    announce::SignedAnnounce,
    crypto::{
        labels,
        wrap::{Pairing, PairingContext},
    },
    secret::Secret,
    session::{
        context::Cx,
        group::Group,
        message::{Message, Offer, Wrap},
        welcome::Welcome,
    },
    weakness::{self, Weakness},
};

impl Lead {
    /// Wraps a new key for everybody in the roster and nobody else.
    pub(super) fn hand_out(
        &mut self,
        epoch: u64,
        key: Secret<32>,
        admitted: &[ParticipantId],
        group: &mut Group,
        cx: &mut Cx<'_>,
    ) {
        let link = group.epochs.newest.link;
        // Newcomers first: their welcome must not come behind what others say in the new epoch.
        let mut order: Vec<ParticipantId> = admitted.to_vec();
        order.extend(group.roster.entries().map(|entry| entry.participant).filter(|p| !admitted.contains(p)));
        if weakness::is(Weakness::RecipientsUnchecked) {
            order = self.peers.keys().copied().collect();
        }
        let mut welcomes = 0;
        for participant in order {
            let Some(peer) = self.peers.get_mut(&participant) else { continue };
            let Ok(sealed) = peer.pairing.wrap(epoch, &link, &key) else { continue };
            let wrap = Wrap { to: participant, epoch, link, offer: peer.offer.clone(), sealed };
            peer.wrap = Some(wrap.clone());
            if admitted.contains(&participant) {
                welcomes += self.welcome(participant, group, cx);
            }
            group.tell(participant, &Message::Wrap(wrap), cx);
        }
        self.allowance.spend(welcomes, cx.now);
        group.install(epoch, link, key, cx);
    }

    /// Takes over everybody who is in, as a new leader.
    pub(in crate::session) fn adopt_peers(
        &mut self,
        announces: Vec<SignedAnnounce>,
        epoch: u64,
        group: &Group,
        cx: &mut Cx<'_>,
    ) -> HashSet<ParticipantId> {
        let present = group.roster.entries().filter(|entry| entry.present);
        present.for_each(|entry| self.admission.was_present(entry.device));
        for announce in announces {
            if let Some(peer) = self.pair(&announce, epoch, group, cx) {
                let participant = announce.unverified().participant;
                self.peers.insert(participant, peer);
                self.announces.insert(participant, announce);
            }
        }
        self.peers.keys().copied().collect()
    }

    pub(super) fn pair(
        &self,
        announce: &SignedAnnounce,
        start: u64,
        group: &Group,
        cx: &mut Cx<'_>,
    ) -> Option<Peer> {
        let context = PairingContext {
            meeting: cx.me.meeting,
            instance: group.instance,
            leader_announce: self.own.hash(),
            announce: announce.hash(),
            start,
            psk_generation: group.roster.header.psk_generation,
        };
        let (enc, pairing) =
            Pairing::offer(&announce.unverified().kem, cx.me.board.invite(), &context, cx.rng).ok()?;
        let signature = cx.me.signer.sign(labels::PAIRING, &context.signed_bytes(&enc));
        let offer = Some(Offer { start, enc, signature });
        let answered = BootTime(cx.now.0.saturating_sub(ANSWER.as_millis() as u64));
        Some(Peer { pairing, offer, wrap: None, seen: cx.now, answered, asked: None })
    }

    /// Gives the bytes of it.
    pub(super) fn welcome(&self, to: ParticipantId, group: &Group, cx: &mut Cx<'_>) -> usize {
        let Some(entry) = group.roster.entry(to) else { return 0 };
        let at_head = group.epochs.newest.link == group.head_hash();
        let welcome = Welcome {
            announce: entry.announce,
            lineage: group.lineage.clone(),
            leader: self.own.clone(),
            head: group.head().clone(),
            epoch_link: (!at_head).then(|| group.epoch_link.clone()),
            header: group.roster.header.clone(),
            entries: group.roster.entries().cloned().collect(),
            signature: [0; 64],
        };
        group.tell(to, &Message::Welcome(Box::new(welcome.signed(&cx.me.signer))), cx)
    }

    pub(super) fn inform_successors(
        &self,
        named: &[ParticipantId],
        new: &[ParticipantId],
        admitted: &[ParticipantId],
        group: &Group,
        cx: &mut Cx<'_>,
    ) {
        for successor in named {
            let wanted =
                |participant: &ParticipantId| new.contains(successor) || admitted.contains(participant);
            let announces: Vec<SignedAnnounce> = self
                .announces
                .iter()
                .filter(|(participant, _)| *participant != successor && wanted(participant))
                .map(|(_, announce)| announce.clone())
                .collect();
            for chunk in announces.chunks(ANNOUNCES_PER_POST) {
                group.tell(*successor, &Message::Announces(chunk.to_vec()), cx);
            }
        }
    }

    /// Gives the bytes of it.
    pub(super) fn send_wrap(&self, to: ParticipantId, group: &Group, cx: &mut Cx<'_>) -> usize {
        let wrap = self.peers.get(&to).and_then(|peer| peer.wrap.clone());
        wrap.map_or(0, |wrap| group.tell(to, &Message::Wrap(wrap), cx))
    }
}

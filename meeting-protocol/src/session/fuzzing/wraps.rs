//! Wraps of a leader that keeps no rules: sealed truly, with whatever contents.

use std::collections::BTreeMap;

use meeting_wire::{Encode, ParticipantId};
use rand_core::CryptoRng;

use super::super::{
    Counters, Place, Session,
    context::{Cx, Outbox},
    member::Duty,
    message::{Message, Offer, Wrap},
};
use crate::{
    BootTime,
    crypto::{
        sign::Hash,
        wrap::{Pairing, SEALED_LEN},
    },
    secret::Secret,
};

/// Both ends of a pairing whose chain key is known.
pub struct Ends {
    leader: Pairing,
    participant: Pairing,
}

impl Ends {
    /// Both begin with this chain key, which is that of epoch `start`.
    pub fn new(chain: [u8; 32], start: u64) -> Self {
        let end = || Pairing::known(secret(&chain), start);
        Self { leader: end(), participant: end() }
    }

    /// The leader's end: a key for an epoch and its link.
    pub fn wrap(&mut self, epoch: u64, link: &[u8; 32], key: &[u8; 32]) -> Option<[u8; SEALED_LEN]> {
        self.leader.wrap(epoch, link, &secret(key)).ok()
    }

    /// The participant's end.
    pub fn unwrap(&mut self, epoch: u64, link: &[u8; 32], sealed: &[u8; SEALED_LEN]) -> Option<[u8; 32]> {
        self.participant.unwrap(epoch, link, sealed).ok().map(|key| *key.expose())
    }
}

/// A leader's half of a pairing, of which it forgets nothing.
pub struct Paired {
    to: ParticipantId,
    offer: Offer,
    pairing: Pairing,
    sealed: BTreeMap<(u64, Hash), ([u8; 32], [u8; SEALED_LEN])>,
}

impl Paired {
    /// The epoch of its first chain key.
    pub fn start(&self) -> u64 {
        self.offer.start
    }

    /// A message that is a wrap of `key`. None for an epoch that the chain does not reach, and where it holds another key
    /// already: no two messages are sealed under one key.
    pub fn wrap(&mut self, epoch: u64, link: [u8; 32], key: &[u8; 32], offers: bool) -> Option<Vec<u8>> {
        let sealed = match self.sealed.get(&(epoch, link)) {
            Some((known, sealed)) => (known == key).then_some(*sealed)?,
            None => {
                let sealed = self.pairing.again(epoch, &link, &secret(key)).ok()?;
                self.sealed.insert((epoch, link), (*key, sealed));
                sealed
            }
        };
        let offer = offers.then(|| self.offer.clone());
        Some(Message::Wrap(Wrap { to: self.to, epoch, link, offer, sealed }).to_bytes())
    }
}

/// An epoch and the link that opened it.
pub type EpochName = (u64, [u8; 32]);

impl Session {
    /// A pairing with somebody who is in, offered and signed as a leader does. None if this session does not lead them.
    pub fn pair(&self, with: ParticipantId, start: u64, rng: &mut dyn CryptoRng) -> Option<Paired> {
        let Place::Member(member) = &self.place else { return None };
        let Duty::Lead(lead) = &member.duty else { return None };
        let (mut out, mut counters) = (Outbox::default(), Counters::default());
        let mut cx = Cx { me: &self.me, out: &mut out, counters: &mut counters, now: BootTime(0), rng };
        let (pairing, offer) = lead.offer(with, start, &member.group, &mut cx)?;
        Some(Paired { to: with, offer, pairing, sealed: BTreeMap::new() })
    }

    /// The newest epoch of the chain and the link that opened it. None without a place.
    pub fn newest(&self) -> Option<EpochName> {
        let Place::Member(member) = &self.place else { return None };
        let newest = &member.group.epochs.newest;
        Some((newest.epoch, newest.link))
    }

    /// The meeting keys it holds, each with its epoch and the link that opened it.
    pub fn meeting_keys(&self) -> Vec<(EpochName, [u8; 32])> {
        let Place::Member(member) = &self.place else { return Vec::new() };
        member.group.epochs.keys().map(|key| ((key.epoch, key.link), *key.key.expose())).collect()
    }
}

fn secret(bytes: &[u8; 32]) -> Secret<32> {
    Secret::init_with(|secret| *secret = *bytes)
}

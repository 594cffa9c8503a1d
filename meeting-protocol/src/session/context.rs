//! What every part of a session works with: who we are, the time, randomness, and where outputs go.

use std::{collections::VecDeque, sync::Arc};

use meeting_wire::{Encode, InstanceId, MAX_POST, MeetingId, ParticipantId, Slot};
use rand_core::CryptoRng;

use super::{Counters, Event, KeyChange, LeaveReason, Output, Role, message::Message};
use crate::{
    BootTime,
    announce::{Announce, SignedAnnounce, VERSION},
    board::Board,
    crypto::{
        sign::{Hash, Signed, SignedBody, StayKey},
        wrap::KEM_ID,
    },
    frame::CipherSuite,
    identity::{DeviceKey, Fingerprint},
};

/// Who we are in this stay.
pub(super) struct Me {
    pub meeting: MeetingId,
    pub creator: Fingerprint,
    pub board: Board,
    pub device: Arc<DeviceKey>,
    pub participant: ParticipantId,
    pub signer: StayKey,
    /// The public half of the stay's KEM key pair.
    pub kem: Vec<u8>,
    pub name: String,
    pub role: Role,
}

impl Me {
    /// An announce of this stay; every challenge makes another one.
    pub fn announce(&self, instance: InstanceId, challenge: Option<Hash>) -> SignedAnnounce {
        let announce = Announce {
            version: VERSION,
            meeting: self.meeting,
            instance,
            challenge,
            participant: self.participant,
            device: self.device.public(),
            kem: self.kem.clone(),
            signer: self.signer.public(),
            name: self.name.clone(),
            role: self.role,
            capabilities: 0,
            suites: vec![CipherSuite::Aes256GcmSha512_128.into(), CipherSuite::Aes128GcmSha256_128.into()],
            kem_id: KEM_ID,
        };
        SignedAnnounce::new(announce, &self.device)
    }

    /// Signs a claim of this stay.
    pub fn sign<T: SignedBody>(&self, body: T) -> Signed<T> {
        Signed::new(body, &self.signer)
    }
}

/// What the session wants from the world and has not been asked for yet.
#[derive(Default)]
pub(super) struct Outbox(VecDeque<Output>);

impl Outbox {
    pub fn pop(&mut self) -> Option<Output> {
        self.0.pop_front()
    }

    pub fn keys(&mut self, change: KeyChange) {
        self.0.push_back(Output::Keys(change));
    }

    pub fn push(&mut self, output: Output) {
        self.0.push_back(output);
    }

    pub fn event(&mut self, event: Event) {
        self.0.push_back(Output::Event(event));
    }
}

/// One call's view of the world.
pub(super) struct Cx<'a> {
    pub me: &'a Me,
    pub out: &'a mut Outbox,
    pub counters: &'a mut Counters,
    pub now: BootTime,
    pub rng: &'a mut dyn CryptoRng,
}

impl Cx<'_> {
    /// Seals a message and puts it on the board; gives the bytes of it.
    pub fn post(&mut self, slot: Slot, instance: InstanceId, message: &Message) -> usize {
        let body = self.me.board.seal(instance, &message.to_bytes(), self.rng);
        if body.len() > MAX_POST {
            // Only a welcome with a takeover by the votes of a thousand in it comes near: better silent than cut.
            self.counters.over_limit += 1;
            return 0;
        }
        let bytes = body.len();
        self.out.0.push_back(Output::Post { slot, body });
        bytes
    }

    /// Reports a peer that broke the protocol. Whoever finds it tells a person once of each: no number of reports of one
    /// keeps back a warning of another.
    pub fn misbehaviour(&mut self, text: String) {
        self.counters.misbehaviour += 1;
        self.out.event(Event::Misbehaviour(text));
    }

    /// Reports that somebody is gone.
    pub fn departed(&mut self, participant: ParticipantId, name: &str, reason: LeaveReason) {
        self.out.event(Event::Departed { participant, name: name.to_owned(), reason });
    }

    /// A number below `n`, as good as evenly drawn; 0 where there is nothing to choose.
    pub fn below(&mut self, n: usize) -> usize {
        if n < 2 {
            return 0;
        }
        let [a, b, c, d, ..] = self.random16();
        u32::from_be_bytes([a, b, c, d]) as usize % n
    }

    /// Sixteen random bytes.
    pub fn random16(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }
}

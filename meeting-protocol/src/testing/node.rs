//! One device: its session, its clock, and what its elements were told.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use meeting_wire::{ParticipantId, StreamId};
use rand_chacha::ChaCha20Rng;

use crate::{
    BootTime,
    beacon::Vouch,
    frame::KeyId,
    identity::DeviceKey,
    session::{Event, KeyChange, Session},
};

/// A key as an element got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its epoch.
    pub epoch: u64,
    /// Its id.
    pub kid: KeyId,
    /// The base key: tests may look.
    pub base_key: [u8; 32],
    /// The floor, for keys to open.
    pub floor: u64,
    /// The caps, for keys to open.
    pub caps: String,
    /// Asks for a keyframe, for keys to seal.
    pub keyframe: bool,
}

/// One device.
pub struct Node {
    /// Its session.
    pub session: Session,
    /// Its device key.
    pub device: Arc<DeviceKey>,
    /// What a person was told.
    pub events: Vec<Event>,
    /// The newest key of each own stream.
    pub seals: HashMap<StreamId, Key>,
    /// All keys to open that have not expired or closed.
    pub opens: HashMap<(ParticipantId, StreamId, u64), Key>,
    /// Until when elements seal, by the local clock.
    pub lease: BootTime,
    /// Retired: epochs below, and from when.
    pub retired: (u64, BootTime),
    /// Leases told, with the local time they were told at.
    pub leases: Vec<(BootTime, BootTime)>,
    /// Whether the relay can be reached.
    pub connected: bool,
    /// Every base key it ever got, with its epoch.
    pub ever: HashMap<[u8; 32], u64>,
    /// Beacons it made.
    pub beacons: Vec<Bytes>,
    /// Beacons of others that it accepted.
    pub vouched: Vec<(ParticipantId, Vouch)>,
    pub(super) rng: ChaCha20Rng,
    pub(super) offset: u64,
    pub(super) ppm: i64,
    pub(super) timeout: BootTime,
    pub(super) seen: Option<u64>,
    pub(super) next_stream: u32,
}

impl Node {
    pub(super) fn local(&self, now: u64) -> BootTime {
        let drift = now as i64 * self.ppm / 1_000_000;
        BootTime(self.offset + now.saturating_add_signed(drift))
    }

    /// The first global time at which the local clock has reached `local`.
    pub(super) fn global(&self, local: BootTime, now: u64) -> u64 {
        if local.0 == u64::MAX {
            return u64::MAX;
        }
        if local <= self.local(now) {
            return now;
        }
        let span = local.0.saturating_sub(self.offset) as i128;
        let mut at = (span * 1_000_000 / (1_000_000 + i128::from(self.ppm))) as u64;
        at = at.saturating_sub(2).max(now);
        while self.local(at) < local {
            at += 1;
        }
        at
    }

    /// Whether an element would seal this stream now, and with what.
    pub fn sealing(&self, stream: StreamId, local: BootTime) -> Option<&Key> {
        let key = self.seals.get(&stream)?;
        let retired = key.epoch < self.retired.0 && local >= self.retired.1;
        (local <= self.lease && !retired).then_some(key)
    }
}

impl Node {
    pub(super) fn apply(&mut self, change: KeyChange, now: BootTime) {
        match change {
            KeyChange::Seal { stream, epoch, kid, base_key, keyframe, .. } => {
                let old = self.seals.get(&stream).map_or(0, |key| key.epoch);
                assert!(epoch > old, "a stream's epochs only go forward");
                let base_key = *base_key.expose();
                self.ever.insert(base_key, epoch);
                self.seals
                    .insert(stream, Key { epoch, kid, base_key, floor: 0, caps: String::new(), keyframe });
            }
            KeyChange::Retire { before, at } => {
                let sooner = before == self.retired.0 && at < self.retired.1;
                assert!(before > self.retired.0 || sooner, "epochs retire once");
                self.retired = (before, at);
            }
            KeyChange::Open { from, stream, epoch, kid, base_key, floor, caps, .. } => {
                self.ever.insert(*base_key.expose(), epoch);
                let key = Key { epoch, kid, base_key: *base_key.expose(), floor, caps, keyframe: false };
                self.opens.insert((from, stream, epoch), key);
            }
            KeyChange::Close { from, stream } => {
                self.opens.retain(|(participant, number, _), _| (*participant, *number) != (from, stream));
            }
            KeyChange::Expire { before } => self.opens.retain(|(.., epoch), _| *epoch >= before),
            KeyChange::Lease { until } => {
                self.lease = until;
                self.leases.push((now, until));
                if self.leases.len() > 1000 {
                    self.leases.drain(..500);
                }
            }
        }
    }
}

//! A device's pipelines: sealing and opening with real keys, under the rules that the plugin's elements keep.

use std::collections::{BTreeMap, HashMap, HashSet};

use meeting_wire::{Envelope, Flags, ParticipantId, StreamId};

use crate::{
    BootTime,
    crypto::sign::Hash,
    frame::{CipherSuite, KeyId, OpenKey, Opener, Rules, SealKey, Sealer},
    secret::Secret,
    session::{KeyChange, inside::Size},
};

/// All elements of a device.
#[derive(Default)]
pub(super) struct Elements {
    rules: Rules,
    pub sealing: BTreeMap<StreamId, Sealing>,
    pub opening: BTreeMap<(ParticipantId, StreamId), Opening>,
}

/// One stream of ours.
pub(super) struct Sealing {
    sealer: Sealer,
    kid: KeyId,
    base_key: Secret<32>,
    pub epoch: u64,
    /// The link that opened it.
    pub link: Hash,
}

/// One stream of somebody else.
pub(super) struct Opening {
    opener: Opener,
    keys: HashMap<KeyId, (u64, Hash, Secret<32>)>,
    /// Frames that came through.
    pub seen: HashSet<u64>,
}

impl Elements {
    /// Takes in a change; `link` is the one that opened the change's epoch.
    pub fn apply(&mut self, change: KeyChange, link: Option<Hash>) {
        match change {
            KeyChange::Seal { stream, epoch, kid, suite, base_key, .. } => {
                let link = link.expect("a key to seal is of an epoch whose key is there");
                let key = SealKey::new(kid, suite, base_key.duplicate());
                match self.sealing.get_mut(&stream) {
                    Some(sealing) => {
                        assert!(epoch > sealing.epoch, "a stream's epochs only go forward");
                        sealing.sealer.switch(key).expect("each key is given once");
                        (sealing.epoch, sealing.link, sealing.kid) = (epoch, link, kid);
                        sealing.base_key = base_key;
                    }
                    None => {
                        let sealer = Sealer::new(key);
                        self.sealing.insert(stream, Sealing { sealer, kid, base_key, epoch, link });
                    }
                }
            }
            KeyChange::Retire { before, at } => self.rules.retire(before, at),
            KeyChange::Open { from, stream, epoch, kid, suite, base_key, floor, .. } => {
                let link = link.expect("a key to open is of an epoch whose key is there");
                let opening = self.opening.entry((from, stream)).or_insert_with(|| Opening {
                    opener: Opener::new(),
                    keys: HashMap::new(),
                    seen: HashSet::new(),
                });
                opening.keys.insert(kid, (epoch, link, base_key.duplicate()));
                opening.opener.insert(OpenKey { kid, suite, base_key, floor });
            }
            KeyChange::Close { from, stream } => {
                self.opening.remove(&(from, stream));
            }
            KeyChange::Expire { before } => {
                for opening in self.opening.values_mut() {
                    opening.keys.retain(|_, (epoch, ..)| *epoch >= before);
                    opening.opener.retain(|kid| opening.keys.contains_key(&kid));
                }
            }
            KeyChange::Lease { until } => self.rules.until = until,
        }
    }

    /// What others can fill here.
    pub fn sizes(&self) -> [Size; 1] {
        let keys = self.opening.values().map(|opening| opening.keys.len()).max();
        [("keys that open a stream", keys.unwrap_or_default(), KEYS)]
    }

    /// Seals a frame that holds this number, if the rules allow.
    pub fn seal(&mut self, stream: StreamId, number: u64, now: BootTime) -> Option<(Envelope, Hash, u64)> {
        let sealing = self.sealing.get_mut(&stream)?;
        if !self.rules.may_seal(sealing.epoch, now) {
            return None;
        }
        let sealed = sealing.sealer.seal(&number.to_be_bytes()).expect("far from any limit");
        Some((envelope(sealed, now.0), sealing.link, sealing.epoch))
    }

    /// Opens a frame: its number, and the key's epoch and its link.
    pub fn open(
        &mut self,
        from: ParticipantId,
        stream: StreamId,
        envelope: &Envelope,
        now: BootTime,
    ) -> Option<(u64, u64, Hash)> {
        if !self.rules.may_open(now) {
            return None;
        }
        let opening = self.opening.get_mut(&(from, stream))?;
        let frame = opening.opener.open(&envelope.sealed).ok()?;
        let number = u64::from_be_bytes(frame.try_into().ok()?);
        let (header, _) = crate::frame::Header::parse(&envelope.sealed)?;
        let (epoch, link, _) = opening.keys.get(&KeyId::from(header.kid))?;
        Some((number, *epoch, *link))
    }
}

impl Opening {
    /// Whether it has the key that these frames are sealed under.
    pub fn opens(&self, sealing: &Sealing) -> bool {
        self.keys.get(&sealing.kid).is_some_and(|(.., key)| key.ct_eq(sealing.base_key.expose()))
    }

    /// As a restarted element: the same keys, and floors that the agent knows.
    pub fn restart(&mut self, floor: impl Fn(KeyId) -> u64) {
        self.opener = Opener::new();
        for (kid, (_, _, base_key)) in &self.keys {
            self.opener.insert(OpenKey {
                kid: *kid,
                suite: CipherSuite::default(),
                base_key: base_key.duplicate(),
                floor: floor(*kid),
            });
        }
    }
}

/// Keys of one stream: the newest epoch's and those that are closing.
const KEYS: usize = 9;

/// A frame on its way.
pub(super) fn envelope(sealed: Vec<u8>, pts: u64) -> Envelope {
    Envelope {
        pts: Some(pts * 1_000_000),
        dts: None,
        duration: None,
        flags: Flags::default(),
        layer: 0,
        sealed: sealed.into(),
    }
}

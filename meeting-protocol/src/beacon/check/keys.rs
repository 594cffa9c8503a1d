//! The keys that frames of one stream may come under.

use std::time::Duration;

use super::key::Key;
use crate::{BootTime, frame::KeyId};

/// Those that have come here, those that were lately, and a few that frames or beacons named before they came.
#[derive(Debug, Default)]
pub(super) struct Keys(Vec<Key>);

impl Keys {
    pub fn iter(&self) -> std::slice::Iter<'_, Key> {
        self.0.iter()
    }

    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Key> {
        self.0.iter_mut()
    }

    /// A key has come.
    pub fn opened(&mut self, kid: KeyId, epoch: u64, now: BootTime) {
        // Its number comes again after 256 epochs.
        self.0.retain(|key| key.kid != kid || key.epoch.is_none_or(|old| old == epoch));
        match self.0.iter_mut().find(|key| key.kid == kid) {
            Some(key) => (key.epoch, key.over) = (Some(epoch), false),
            None => {
                if self.0.len() >= KEYS + EARLY {
                    self.0.remove(0);
                }
                let at = self.push(kid, now);
                self.0[at].epoch = Some(epoch);
            }
        }
    }

    /// Keys of epochs before this one are over.
    pub fn expire(&mut self, before: u64) {
        for key in self.0.iter_mut().filter(|key| key.epoch.is_some_and(|epoch| epoch < before)) {
            key.over = true;
        }
    }

    /// The key of a frame, which its sender may use before it has come here; none for one that is over, is somebody
    /// else's, or one too many. Who makes key ids up keeps nothing out that has come, and makes nothing forgotten.
    pub fn of_frame(&mut self, kid: KeyId, now: BootTime) -> Option<&mut Key> {
        let at = match self.0.iter().position(|key| key.kid == kid) {
            Some(at) if self.0[at].over => return None,
            Some(at) => at,
            None if self.0.iter().any(|key| key.epoch.is_some() && key.kid.index() != kid.index()) => {
                return None;
            }
            None if self.early() >= EARLY => return None,
            None => self.push(kid, now),
        };
        self.0[at].used = now;
        self.0.get_mut(at)
    }

    /// The key of a span: its sender's word makes room for it.
    pub fn of_beacon(&mut self, kid: KeyId, now: BootTime) -> &mut Key {
        let at = self.0.iter().position(|key| key.kid == kid).unwrap_or_else(|| {
            if self.early() >= EARLY {
                let made_up = |key: &Key| key.epoch.is_none() && key.covered.is_none();
                let early = |key: &Key| key.epoch.is_none();
                if let Some(at) = self.0.iter().position(made_up).or_else(|| self.0.iter().position(early)) {
                    self.0.remove(at);
                }
            }
            self.push(kid, now)
        });
        &mut self.0[at]
    }

    /// Forgets keys that are over and those that never came.
    pub fn let_go(&mut self, now: BootTime) {
        self.0.retain(|key| match key.epoch {
            Some(_) => !key.over || !key.is_settled(),
            None => now.since(key.used) < PATIENCE,
        });
    }

    /// Nobody waits for frames any more.
    pub fn let_go_of_held(&mut self) {
        self.0.iter_mut().for_each(|key| key.held.clear());
    }

    fn push(&mut self, kid: KeyId, now: BootTime) -> usize {
        self.0.push(Key::new(kid, now));
        self.0.len() - 1
    }

    fn early(&self) -> usize {
        self.0.iter().filter(|key| key.epoch.is_none()).count()
    }
}

/// Keys of one stream that have come: the epoch's, and those that are closing.
pub(super) const KEYS: usize = 16;
/// Keys that have not come yet.
pub(super) const EARLY: usize = 2;
/// How long what came under a key that never comes is remembered: elements wait less.
const PATIENCE: Duration = Duration::from_secs(2);

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

    /// A key has come. Gives whether frames that nobody has signed for are forgotten for it.
    pub fn opened(&mut self, kid: KeyId, epoch: u64, now: BootTime) -> bool {
        let gone = match self.0.iter().position(|key| key.kid == kid) {
            // Its number comes again after 256 epochs.
            Some(at) if self.0[at].epoch.is_some_and(|old| old != epoch) => Some(at),
            Some(at) if self.0[at].epoch.is_some() => None,
            _ if self.0.len() - self.early() < KEYS => None,
            _ => {
                let is_here = |key: &Key| key.epoch.is_some();
                let settled = self.0.iter().position(|key| is_here(key) && key.is_settled());
                settled.or_else(|| self.0.iter().position(is_here))
            }
        };
        let gone = gone.map(|at| self.0.remove(at));
        let at = self.0.iter().position(|key| key.kid == kid).unwrap_or_else(|| self.push(kid, now));
        (self.0[at].epoch, self.0[at].over) = (Some(epoch), false);
        gone.is_some_and(|key| !key.is_settled())
    }

    /// One above the newest counter that was signed for: counters go on from key to key.
    pub fn covered(&self) -> Option<u64> {
        self.0.iter().filter_map(|key| key.covered).max()
    }

    /// When those came that nobody has signed for and of which that does not show.
    pub fn unsigned(&self) -> impl Iterator<Item = BootTime> {
        self.0.iter().flat_map(Key::unsigned)
    }

    /// Notes frames whose beacon should have come after `due`; gives when the newest of them came.
    pub fn overdue(&mut self, due: Duration, now: BootTime) -> Option<BootTime> {
        // Elements have opened nothing without the key.
        let opened = self.0.iter_mut().filter(|key| key.epoch.is_some());
        opened.filter_map(|key| key.overdue(due, now)).max()
    }

    /// Forgets what went on above all that was signed for and came `due` ago; gives whether there was any.
    pub fn refuse(&mut self, due: Duration, now: BootTime) -> bool {
        let from = self.covered().unwrap_or_default();
        let refused = self.0.iter_mut().map(|key| key.refuse(from, |at| now.since(at) > due));
        refused.fold(false, |any, one| any | one)
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

#[cfg(test)]
mod tests {
    use super::*;
    use meeting_wire::StreamId;

    #[test]
    fn so_many_keys_are_kept_and_early_ones_have_room_beside_them() {
        let (mut keys, now) = (Keys::default(), BootTime(0));
        for epoch in 0..40 {
            keys.opened(KeyId::new(StreamId(1), 3, epoch), epoch, now);
            for ahead in 1..=3 {
                keys.of_beacon(KeyId::new(StreamId(1), 3, epoch + ahead), now);
            }
            assert!(keys.iter().len() <= KEYS + EARLY);
            assert!(keys.iter().any(|key| key.epoch == Some(epoch)));
        }
        assert_eq!((keys.iter().len(), keys.early()), (KEYS + EARLY, EARLY));
    }
}

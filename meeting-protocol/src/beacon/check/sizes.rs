//! What the simulator sees of a checker. Never part of what is shipped.

use super::{
    Checker,
    key::{HELD, HELD_BYTES, HOLES, Key, MEMORY},
    keys::{EARLY, KEYS},
    ranges,
};
use crate::session::inside::Size;

impl Checker {
    /// Every container that somebody outside can fill: of those of a kind the fullest.
    pub(crate) fn sizes(&self) -> [Size; 8] {
        let streams = || self.streams.values();
        let most = |len: &dyn Fn(&Key) -> usize| {
            streams().flat_map(|stream| stream.keys.iter()).map(len).max().unwrap_or_default()
        };
        let held = |key: &Key| key.held.values().map(Vec::len).sum::<usize>();
        let bytes =
            |key: &Key| key.held.values().flatten().map(|(_, held, _)| held.sealed.len()).sum::<usize>();
        let keys = streams().map(|stream| stream.keys.iter().len()).max().unwrap_or_default();
        let due = streams().map(|stream| stream.share.due.len()).max().unwrap_or_default();
        [
            ("keys of a stream", keys, KEYS + EARLY),
            ("frames known under a key", most(&|key| key.known.len()), MEMORY),
            ("frames that wait under a key", most(&held), HELD),
            ("their bytes", most(&bytes), HELD_BYTES),
            ("lost beacons of a key", most(&|key| key.holes.len()), HOLES),
            ("frames refused under a key", most(&|key| key.refused.len()), MEMORY),
            ("ranges that went on under a key", most(&|key| key.gone.len()), ranges::MOST),
            ("beacons to be judged", due, MEMORY),
        ]
    }
}

//! Which counters have been seen: a sliding window, as IPsec has it (RFC 6479).

use crate::weakness::{self, Weakness};

/// How many counters behind the newest are still accepted, each once. At 50 frames a second it is 20 s of
/// reordering; the window takes 128 bytes per key.
pub const WINDOW: u64 = 1024;

const WORDS: usize = (WINDOW / 64) as usize;

/// Why a counter is not acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Screened {
    /// It was accepted before.
    Replayed,
    /// It is below the floor or has left the window.
    TooOld,
}

/// The newest accepted counter and which of those behind it were accepted.
///
/// It holds the newest itself, not the next: `u64::MAX` is then a counter like any other, with no sum to overflow.
pub(super) struct Window {
    newest: Option<u64>,
    floor: u64,
    /// A ring of bits, counter modulo [`WINDOW`].
    seen: [u64; WORDS],
}

impl Window {
    /// A window that refuses all below `floor`.
    pub(super) fn new(floor: u64) -> Self {
        Self { newest: None, floor, seen: [0; WORDS] }
    }

    /// Refuses all below `floor` from now on; a lower floor than before changes nothing.
    pub(super) fn raise_floor(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
    }

    /// One above the newest accepted counter, or the given floor if that is higher.
    pub(super) fn floor(&self) -> u64 {
        self.newest.map_or(self.floor, |newest| newest.saturating_add(1).max(self.floor))
    }

    /// Whether a frame of this counter could be accepted. Changes nothing: the counter may be a lie.
    #[inline]
    pub(super) fn screen(&self, ctr: u64) -> Result<(), Screened> {
        if ctr < self.floor {
            return Err(Screened::TooOld);
        }
        let Some(newest) = self.newest else { return Ok(()) };
        if ctr > newest {
            return Ok(());
        }
        if newest - ctr >= WINDOW {
            return Err(Screened::TooOld);
        }
        let (word, bit) = place(ctr);
        if self.seen[word] & bit != 0 { Err(Screened::Replayed) } else { Ok(()) }
    }

    /// Notes an authentic counter that [`screen`](Self::screen) let pass.
    #[inline]
    pub(super) fn record(&mut self, ctr: u64) {
        if weakness::is(Weakness::ReplayWindowOff) {
            return;
        }
        match self.newest {
            Some(newest) if ctr <= newest => {}
            Some(newest) if ctr - newest < WINDOW => {
                // The places between belonged to counters that now leave the window.
                for passed in newest + 1..ctr {
                    let (word, bit) = place(passed);
                    self.seen[word] &= !bit;
                }
                self.newest = Some(ctr);
            }
            _ => {
                self.seen = [0; WORDS];
                self.newest = Some(ctr);
            }
        }
        let (word, bit) = place(ctr);
        self.seen[word] |= bit;
    }
}

#[inline]
fn place(ctr: u64) -> (usize, u64) {
    ((ctr / 64) as usize % WORDS, 1 << (ctr % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// All accepted counters, and the rule spelled out.
    #[derive(Default)]
    struct Model {
        accepted: BTreeSet<u64>,
        floor: u64,
    }

    impl Model {
        fn accept(&mut self, ctr: u64) -> Result<(), Screened> {
            let edge = self.accepted.last().map_or(0, |newest| newest.saturating_sub(WINDOW - 1));
            if ctr < self.floor || ctr < edge {
                return Err(Screened::TooOld);
            }
            if self.accepted.insert(ctr) { Ok(()) } else { Err(Screened::Replayed) }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Relative to the newest.
        Near(i64),
        Far(u64),
        Floor(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (-1100i64..1100).prop_map(Step::Near),
            8 => (-4i64..4).prop_map(Step::Near),
            2 => prop::sample::select(vec![-1025i64, -1024, -1023, 63, 64, 65, 1023, 1024, 1025]).prop_map(Step::Near),
            1 => prop_oneof![Just(u64::MAX), Just(u64::MAX - 1), Just(1 << 63), any::<u64>()].prop_map(Step::Far),
            1 => (0u64..5000).prop_map(Step::Floor),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn agrees_with_the_model(start in 0u64..5000, steps in prop::collection::vec(step(), 1..200)) {
            let mut window = Window::new(0);
            let mut model = Model::default();
            let mut last = start;
            for step in steps {
                match step {
                    Step::Near(by) => last = last.saturating_add_signed(by),
                    Step::Far(ctr) => last = ctr,
                    Step::Floor(floor) => {
                        window.raise_floor(floor);
                        model.floor = model.floor.max(floor);
                        continue;
                    }
                }
                let screened = window.screen(last);
                if screened.is_ok() {
                    window.record(last);
                }
                prop_assert_eq!(screened, model.accept(last), "counter {}", last);
                let newest = model.accepted.last().map_or(0, |newest| newest.saturating_add(1));
                prop_assert_eq!(window.floor(), newest.max(model.floor));
                last = model.accepted.last().copied().unwrap_or(last);
            }
        }
    }
}

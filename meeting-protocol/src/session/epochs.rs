//! Which epoch is newest, which keys are here, and when old ones end.

use std::{collections::VecDeque, time::Duration};

use super::{KeyChange, context::Cx, epoch_key::EpochKey};
use crate::{
    BootTime,
    crypto::sign::Hash,
    roster::{EpochOpening, Link},
    weakness::{self, Weakness},
};

/// How long an epoch may last by its leader's clock, 30 s of grace included.
pub const MAX_EPOCH: u64 = 150_000;
/// How long one may seal under the old key after the switch, where nobody left.
const GRACE: Duration = Duration::from_millis(500);
/// How long openers keep an old key after that: as long as its last frames may be on their way.
const CLOSING: Duration = Duration::from_secs(2);
/// Epochs that may be closing at one time; at one leave after another the oldest closes early.
const MAX_CLOSING: usize = 8;
/// How long a key may be on its way before the session says that it waits for it.
const MISSED: Duration = Duration::from_secs(1);
/// Commitments remembered; at one rotation a second more than two hours, at one in two minutes eleven days.
const MAX_COMMITMENTS: usize = 8192;

/// The epochs of an instance as one participant sees them.
pub(super) struct Epochs {
    /// The newest epoch of the chain.
    pub newest: Opened,
    /// The newest, and those that are closing.
    keys: VecDeque<EpochKey>,
    commitments: VecDeque<Hash>,
    /// The newest epoch that was signed by link or heartbeat, and when we first heard of it.
    retired_below: u64,
    /// When sealing under them ends.
    retires: BootTime,
    announced: BootTime,
    /// When the epochs below a number close; both grow.
    closing: VecDeque<(BootTime, u64)>,
    /// Epochs below have closed, whether their keys had come or not.
    closed_below: u64,
}

/// An epoch as its link opened it.
#[derive(Clone, Copy)]
pub(super) struct Opened {
    pub epoch: u64,
    /// Hash of the epoch link.
    pub link: Hash,
    pub commitment: Hash,
    /// Leader time of the link in ms.
    pub time: u64,
    /// Somebody came with it.
    pub adds: bool,
}

impl Opened {
    pub fn new(link: &Link, opening: EpochOpening) -> Self {
        Self {
            epoch: opening.epoch,
            link: link.hash(),
            commitment: opening.commitment,
            time: link.time,
            adds: link.adds(),
        }
    }
}

impl Epochs {
    pub fn new(newest: Opened, now: BootTime) -> Self {
        Self {
            newest,
            keys: VecDeque::new(),
            commitments: VecDeque::from([newest.commitment]),
            retired_below: newest.epoch,
            retires: now,
            announced: now,
            closing: VecDeque::new(),
            closed_below: 0,
        }
    }

    /// Whether this may be the next epoch.
    pub fn may_open(&self, opening: &EpochOpening) -> bool {
        let is_new = !self.commitments.contains(&opening.commitment);
        opening.epoch == self.newest.epoch + 1 && (is_new || weakness::is(Weakness::CommitmentRepeated))
    }

    /// The chain went on to a new epoch.
    pub fn open(&mut self, opened: Opened, removes: bool, cx: &mut Cx<'_>) {
        if self.commitments.len() >= MAX_COMMITMENTS {
            self.commitments.pop_front();
        }
        self.commitments.push_back(opened.commitment);
        // By a leader that overslept its end: it has been used for long enough.
        let is_old = opened.time.saturating_sub(self.newest.time) > MAX_EPOCH;
        self.newest = opened;
        self.retire(opened.epoch, removes || is_old, cx);
    }

    /// Somebody else leads from this epoch on: what the old leader closed was of its own chain.
    pub fn new_leader(&mut self, epoch: u64) {
        self.closed_below = self.closed_below.min(epoch);
    }

    /// Whether somebody spoke of a later epoch than the newest of the chain: elements seal under none before that.
    pub fn lacks_link(&self) -> bool {
        self.retired_below > self.newest.epoch
    }

    /// A newer epoch is known to be there, with or without its key.
    pub fn retire(&mut self, before: u64, at_once: bool, cx: &mut Cx<'_>) {
        if before <= self.retired_below {
            return;
        }
        self.retired_below = before;
        self.announced = cx.now;
        self.retires = if at_once { cx.now } else { cx.now + GRACE };
        let at = self.retires;
        cx.out.keys(KeyChange::Retire { before, at });
        // Sealing under all of them ends then, so that none closes later than the last.
        let closes = at + CLOSING;
        self.closing.iter_mut().for_each(|(at, _)| *at = closes.min(*at));
        self.closing.push_back((closes, before));
        if self.closing.len() > MAX_CLOSING {
            self.close_first(cx);
        }
    }

    /// The leader has signed a heartbeat in the newest epoch at this `time` of its own: where that is long after it opened
    /// the epoch, everybody else has left the one before, and we learn of it late.
    pub fn beats(&mut self, time: u64, cx: &mut Cx<'_>) {
        if time >= self.newest.time + GRACE.as_millis() as u64 && cx.now < self.retires {
            self.retires = cx.now;
            cx.out.keys(KeyChange::Retire { before: self.retired_below, at: cx.now });
        }
    }

    /// Whether a key of this epoch comes too late: a newer one that nobody shows us may be there because somebody was
    /// removed who has it.
    pub fn is_closed(&self, epoch: u64) -> bool {
        epoch < self.closed_below
    }

    /// The key of the newest epoch, or of one that is closing, came.
    pub fn install(&mut self, key: EpochKey) {
        self.keys.push_back(key);
        while self.keys.len() > MAX_CLOSING + 1 {
            self.keys.pop_front();
        }
    }

    /// The key of an epoch.
    pub fn key(&self, epoch: u64) -> Option<&EpochKey> {
        self.keys.iter().find(|key| key.epoch == epoch)
    }

    /// The key of the newest epoch.
    pub fn newest_key(&self) -> Option<&EpochKey> {
        self.key(self.newest.epoch)
    }

    /// The key to seal under: of the newest epoch, unless we know of a newer one.
    pub fn sealing_key(&self) -> Option<&EpochKey> {
        self.newest_key().filter(|key| key.epoch >= self.retired_below)
    }

    /// Whether the key of the newest epoch anybody spoke of is missing for so long that a person should know.
    pub fn lacks_key(&self, now: BootTime) -> bool {
        self.key(self.retired_below).is_none() && now.since(self.announced) >= MISSED
    }

    /// The newest epoch there is a key of.
    pub fn newest_with_key(&self) -> Option<u64> {
        self.keys.back().map(|key| key.epoch)
    }

    /// All keys there are.
    #[cfg(feature = "testing")]
    pub fn keys(&self) -> impl Iterator<Item = &EpochKey> {
        self.keys.iter()
    }

    /// The newest epoch anybody entitled spoke of.
    #[cfg(feature = "simulator")]
    pub fn newest_spoken(&self) -> u64 {
        self.retired_below
    }

    /// What others can fill here.
    #[cfg(feature = "simulator")]
    pub fn size(&self) -> super::inside::Size {
        ("commitments", self.commitments.len(), MAX_COMMITMENTS)
    }

    /// Lets old keys go when their time has come.
    pub fn tick(&mut self, cx: &mut Cx<'_>) {
        while self.closing.front().is_some_and(|(at, _)| cx.now >= *at) {
            self.close_first(cx);
        }
    }

    fn close_first(&mut self, cx: &mut Cx<'_>) {
        if let Some((_, before)) = self.closing.pop_front() {
            self.keys.retain(|key| key.epoch >= before);
            self.closed_below = before;
            cx.out.keys(KeyChange::Expire { before });
        }
    }

    /// When to tick.
    pub fn deadline(&self, now: BootTime) -> Option<BootTime> {
        let missed = (self.key(self.retired_below).is_none()).then_some(self.announced + MISSED);
        let closes = self.closing.front().map(|(at, _)| *at);
        missed.filter(|at| *at > now).into_iter().chain(closes).min()
    }
}

//! One stream: its keys, and what a person is to be told of it.

use std::{collections::VecDeque, time::Duration};

use meeting_wire::{Envelope, StreamId};

use super::{
    Finding, LATE, NOTICE, Trust, What,
    key::{Known, MEMORY, Word},
    keys::Keys,
};
use crate::{
    BootTime,
    beacon::{FrameDigest, Span},
    frame::KeyId,
};

#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Since when frames are asked for; none while they are not.
    pub watched: Option<BootTime>,
    /// Whether a beacon has spoken of it since then.
    pub named: bool,
    pub keys: Keys,
    pub has_ended: bool,
    /// When the way its frames came by broke last.
    pub cut: Option<BootTime>,
    pub trust: Trust,
    /// Frames wait for their beacon until then.
    pub guard: Option<BootTime>,
    guards: u32,
    /// What nobody has signed for shows until then.
    doubt: Option<BootTime>,
    doubts: u32,
    /// Whether [`What::CutOff`] was said since its sender signed last.
    excused: bool,
    pub late: bool,
    pub withheld: bool,
    pub silent: bool,
    pub share: Share,
    pub forged: u64,
}

/// How much of what was signed for has come, looked at [`NOTICE`] later.
#[derive(Debug, Default)]
pub(super) struct Share {
    pub(super) due: VecDeque<(BootTime, KeyId, u64, u64)>,
    started: bool,
    sent: u32,
    missing: u32,
}

impl Stream {
    pub fn is_settled(&self) -> bool {
        self.keys.iter().all(|key| key.is_settled())
    }

    /// Whether no beacon has spoken of it yet.
    pub fn is_unused(&self) -> bool {
        !self.has_ended && self.keys.covered().is_none()
    }

    /// Takes in what one beacon says of it, and that what came `due` ago is not in it, if that says anything.
    pub fn signed(
        &mut self,
        spans: &[&Span],
        due: Option<Duration>,
        now: BootTime,
        mut release: impl FnMut(Envelope),
    ) -> Word {
        let mut word = Word::default();
        for span in spans {
            word = word.or(self.keys.of_beacon(span.kid, now).signed(span, &mut release));
            self.share.sent(span, now);
        }
        word.forged |= due.is_some_and(|due| self.keys.refuse(due, now));
        self.named = true;
        word
    }

    /// What a beacon says of the frames that came.
    pub fn hear(&mut self, word: Word, id: StreamId, now: BootTime, findings: &mut Vec<Finding>) {
        if word.unknown {
            self.doubt(id, now, findings);
        }
        if word.forged || word.refused {
            return self.forge(id, word.forged, now, findings);
        }
        self.excused &= word.unknown;
        if self.guard.is_none() && self.doubt.is_none_or(|until| until <= now) {
            self.doubt = None;
            self.become_trusted(Trust::Vouched, id, findings);
        }
    }

    /// How late a beacon that signs for frames of it is, in ms.
    pub fn came_late(&mut self, late: u64, id: StreamId, findings: &mut Vec<Finding>) {
        if late > LATE.as_millis() as u64 && !std::mem::replace(&mut self.late, true) {
            findings.push(Finding { stream: id, what: What::Late(late) });
        }
        self.late &= late * 2 > LATE.as_millis() as u64;
    }

    /// Looks for frames whose beacon should have come; gives what that looks like: a connection that broke or a sender who
    /// is gone took it along, or somebody speaks as their sender.
    pub fn overdue(&mut self, last_beacon: Option<BootTime>, now: BootTime) -> Option<What> {
        let newest = self.keys.overdue(NOTICE - LOOK, now)?;
        let last = self.keys.unsigned().fold(newest, BootTime::max);
        // A beacon that comes behind them speaks of them, or its sender is there and does not.
        let quiet = now.since(last) >= QUIET && last_beacon.is_none_or(|beacon| beacon <= last + BEHIND);
        let cut = if quiet || self.has_ended { Some(now) } else { self.cut.filter(|cut| newest <= *cut) };
        // What came until then is told at once.
        Some(cut.map_or(What::Unverified, |cut| {
            self.keys.overdue(now.since(cut), now);
            What::CutOff
        }))
    }

    /// A frame is not its sender's; whether it had gone on.
    pub fn forge(&mut self, id: StreamId, had_gone_on: bool, now: BootTime, findings: &mut Vec<Finding>) {
        self.forged += 1;
        if self.guard.is_none() {
            findings.push(Finding { stream: id, what: What::Forged });
            self.guards = (self.guards + 1).min(5);
        } else if had_gone_on {
            findings.push(Finding { stream: id, what: What::ForgedBefore });
        }
        self.trust = Trust::Forged;
        // Longer each time: who did it once may wait for the guard to end.
        self.guard = Some(now + GUARD * (1 << (self.guards - 1)));
    }

    /// The last frames that went on are not signed for. A relay and a member who make it look so have one sentence only.
    pub fn cut_off(&mut self, id: StreamId, now: BootTime, findings: &mut Vec<Finding>) {
        let trusted = matches!(self.trust, Trust::Waiting | Trust::Vouched);
        if !trusted || std::mem::replace(&mut self.excused, true) {
            return self.doubt(id, now, findings);
        }
        self.trust = Trust::Waiting;
        findings.push(Finding { stream: id, what: What::CutOff });
    }

    /// Nobody has signed for a frame that went on.
    pub fn doubt(&mut self, id: StreamId, now: BootTime, findings: &mut Vec<Finding>) {
        if self.trust != Trust::Unverified {
            self.doubts = (self.doubts + 1).min(5);
        }
        self.become_trusted(Trust::Unverified, id, findings);
        // Longer each time: a person is not told over and over.
        self.doubt = Some(now + NOTICE * (1 << (self.doubts.max(1) - 1)));
    }

    fn become_trusted(&mut self, trust: Trust, id: StreamId, findings: &mut Vec<Finding>) {
        let before = std::mem::replace(&mut self.trust, trust);
        let what = match trust {
            _ if before == trust => return,
            Trust::Vouched => What::Vouched,
            _ => What::Unverified,
        };
        findings.push(Finding { stream: id, what });
    }

    pub fn withheld(&mut self, now: BootTime) -> bool {
        while let Some((_, kid, from, to)) =
            self.share.due.front().copied().filter(|due| now.since(due.0) >= NOTICE)
        {
            self.share.due.pop_front();
            let Some(key) = self.keys.iter().find(|key| key.kid == kid) else { continue };
            for known in key.known.range(from..to) {
                if let Known::Signed { digest, seen } = known.1
                    && *digest != FrameDigest::NONE
                {
                    self.share.sent += 1;
                    self.share.missing += u32::from(!seen);
                }
            }
        }
        let Share { sent, missing, .. } = self.share;
        if sent < JUDGED {
            return self.withheld;
        }
        (self.share.sent, self.share.missing) = (0, 0);
        missing * 2 > sent
    }
}

impl Share {
    fn sent(&mut self, span: &Span, now: BootTime) {
        // The first beacon also speaks of frames from before we asked for any.
        let says_something = !span.frames.is_empty();
        if says_something && std::mem::replace(&mut self.started, true) && self.due.len() < MEMORY {
            self.due.push_back((now, span.kid, span.first, span.end()));
        }
    }
}

/// Between two calls of [`Checker::tick`](super::Checker::tick), at most.
pub const LOOK: Duration = Duration::from_millis(500);
/// After so long without a frame there are no more for now.
const QUIET: Duration = Duration::from_secs(1);
/// How long after a frame a beacon may come that left before it: they are made each 450 ms.
const BEHIND: Duration = Duration::from_millis(500);
/// How long frames wait for their beacon after a forgery; doubled each time, up to 16 times as long.
const GUARD: Duration = Duration::from_secs(10);
/// Frames after which the share that came is looked at.
const JUDGED: u32 = 60;

//! One device: key, clock, path, and the stay it is in.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::Arc,
};

use meeting_wire::{ParticipantId, StreamId};
use rand_chacha::ChaCha20Rng;

use super::{elements::Elements, weather::Path};
use crate::{
    BootTime,
    beacon::{Checker, Sent},
    crypto::sign::Hash,
    frame::KeyId,
    identity::DeviceKey,
    session::Session,
};

/// A device, over all its stays.
pub(super) struct Device {
    pub name: String,
    pub key: Arc<DeviceKey>,
    pub rng: ChaCha20Rng,
    pub path: Path,
    offset: u64,
    ppm: i64,
    /// When its clock stood still.
    stood: Vec<Range<u64>>,
    /// None before the first stay and between two.
    pub session: Option<Session>,
    /// Eve's stay before, with all that she had in it.
    pub past: Option<Session>,
    pub elements: Elements,
    pub sent: Sent,
    pub checkers: HashMap<ParticipantId, Checker>,
    /// When anything was last said against a stream.
    pub told: BTreeMap<(ParticipantId, StreamId), u64>,
    /// The number of its connection, 0 without one.
    pub line: u64,
    /// Until when nothing gets through, though nobody knows.
    pub cut: u64,
    /// Until when it sleeps.
    pub asleep: u64,
    /// The newest post of the log it has seen.
    pub seen: Option<u64>,
    pub timeout: BootTime,
    /// Since when each epoch is known to be there, and whether it removed somebody.
    pub learned: Vec<(u64, BootTime)>,
    /// When the leader's newest word that it has heard was signed.
    pub proved: Option<u64>,
    /// Since when, by its own clock, the leader's clock is measured.
    pub anchor: BootTime,
    /// How late the first word of the leader's came that it took after its clock had stood still since then.
    pub late: Option<u64>,
    /// Out of its own or the leader's will: it does not come back.
    pub gone: bool,
    /// Removed by a leader: it is not to come back.
    pub refused: bool,
    /// Where it stood when it was last looked at.
    pub head: Option<Hash>,
    /// Who led when it was last looked at.
    pub leader: Option<ParticipantId>,
    pub evil: bool,
    /// Its pipelines run since its first stay.
    pub begun: bool,
    pub next_stream: u32,
    /// Keys of others that it was ever given.
    pub hoard: Vec<Stolen>,
    /// When its stay began.
    pub entered: u64,
    /// When its pipelines last ran: asleep, they do not.
    pub awake_since: u64,
    pub down: u64,
    pub up: u64,
}

/// Somebody else's key.
pub(super) struct Stolen {
    pub from: ParticipantId,
    pub stream: StreamId,
    pub kid: KeyId,
    pub base_key: [u8; 32],
    pub link: Hash,
}

impl Device {
    pub fn new(
        name: String,
        key: Arc<DeviceKey>,
        path: Path,
        (offset, ppm): (u64, i64),
        rng: ChaCha20Rng,
    ) -> Self {
        Self {
            name,
            key,
            rng,
            path,
            offset,
            ppm,
            stood: Vec::new(),
            session: None,
            past: None,
            elements: Elements::default(),
            sent: Sent::default(),
            checkers: HashMap::new(),
            told: BTreeMap::new(),
            line: 0,
            cut: 0,
            asleep: 0,
            seen: None,
            timeout: BootTime(u64::MAX),
            learned: Vec::new(),
            proved: None,
            anchor: BootTime(0),
            late: None,
            gone: false,
            refused: false,
            head: None,
            leader: None,
            evil: false,
            begun: false,
            next_stream: 1,
            hoard: Vec::new(),
            entered: 0,
            awake_since: 0,
            down: 0,
            up: 0,
        }
    }

    /// The local clock.
    pub fn local(&self, now: u64) -> BootTime {
        let gone = now - self.stood_within(0, now);
        BootTime((self.offset + gone).saturating_add_signed(gone as i64 * self.ppm / 1_000_000))
    }

    /// The first moment at which the local clock shows this.
    pub fn global(&self, local: BootTime, now: u64) -> u64 {
        if local.0 == u64::MAX {
            return u64::MAX;
        }
        if local <= self.local(now) {
            return now;
        }
        let span = local.0.saturating_sub(self.offset) as i128;
        let gone = (span * 1_000_000 / i128::from(1_000_000 + self.ppm)) as u64;
        let mut at = (gone + self.stood_within(0, u64::MAX)).saturating_sub(2).max(now);
        while self.local(at) < local {
            at += 1;
        }
        at
    }

    /// Nothing runs until then, and the clock does not go on either: a virtual machine was held.
    pub fn stand_still(&mut self, now: u64, until: u64) {
        (self.asleep, self.awake_since) = (until, now);
        self.stood.push(now..until);
    }

    /// It is awake from now on, whatever was to come.
    pub fn go_on(&mut self, now: u64) {
        self.asleep = now;
        if let Some(last) = self.stood.last_mut() {
            last.end = last.end.min(now);
        }
    }

    /// For how long its clock has stood still since then.
    pub fn stood_since(&self, then: u64) -> u64 {
        self.stood_within(then, u64::MAX)
    }

    fn stood_within(&self, from: u64, to: u64) -> u64 {
        self.stood.iter().map(|stood| stood.end.min(to).saturating_sub(stood.start.max(from))).sum()
    }

    /// It goes by another word of the leader's, which was signed at `proved`, and measures the leader's clock since `anchor`.
    pub fn hears(&mut self, now: u64, proved: Option<u64>, anchor: BootTime) {
        if std::mem::replace(&mut self.anchor, anchor) != anchor {
            self.late = None;
        }
        if proved > self.proved {
            self.proved = proved;
            let stood = self.stood_since_anchor() > 0;
            self.late = self.late.or_else(|| proved.filter(|_| stood).map(|proved| now - proved));
        }
    }

    /// By how much the leader's word may be older than it can know: its clock has stood still since that was signed, or before,
    /// and then the first word came late.
    pub fn unknown(&self) -> u64 {
        let late = self.late.map_or(0, |late| late.min(self.stood_since_anchor()));
        self.stood_since(self.proved.unwrap_or(0)) + late
    }

    fn stood_since_anchor(&self) -> u64 {
        let first = self.stood.iter().find(|stood| self.local(stood.start) >= self.anchor);
        first.map_or(0, |first| self.stood_since(first.start))
    }

    /// A stay begins.
    pub fn enter(&mut self, session: Session, now: u64) {
        self.end();
        self.session = Some(session);
        self.elements = Elements::default();
        self.sent = Sent::default();
        self.checkers.clear();
        self.told.clear();
        self.seen = None;
        self.learned.clear();
        (self.proved, self.late) = (None, None);
        self.head = None;
        self.next_stream = 1;
        self.entered = now;
        self.awake_since = now;
    }

    /// A stay ends; Eve keeps what she had in it. Gives whether there was one.
    pub fn end(&mut self) -> bool {
        let Some(session) = self.session.take() else { return false };
        if self.evil && session.liar().is_some() {
            self.past = Some(session);
        }
        true
    }

    /// The stay to lie in, this one or the one before; and whether it is over.
    pub fn lies_in(&self, before: bool) -> Option<(&Session, bool)> {
        let now = self.session.as_ref().and_then(|session| Some((session, session.liar()?)));
        let past = self.past.as_ref().map(|session| (session, true));
        if before { past.or(now) } else { now.or(past) }
    }

    /// Who it is in this stay.
    pub fn me(&self) -> Option<ParticipantId> {
        self.session.as_ref().map(Session::me)
    }

    pub fn leads(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.state().leading)
    }

    /// How much both clocks may have drifted apart since they were compared, in ms.
    pub fn drift(&self, now: u64) -> u64 {
        10 + self.local(now).since(self.anchor).as_millis() as u64 / 900
    }
}

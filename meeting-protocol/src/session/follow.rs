//! A follower: checks every word of the leader against the chain, opens wraps, and measures the leader's age.

mod chain;
mod wrap;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use meeting_wire::{Encode, ParticipantId};

use super::{
    EndReason,
    claims::{Ask, Heartbeat, Over, Pulse, SilenceVote},
    context::Cx,
    epochs::MAX_EPOCH,
    freshness::Freshness,
    group::Group,
    message::{Message, ProvenPulse, Wrap},
};
use crate::{
    BootTime,
    announce::SignedAnnounce,
    crypto::{
        sign::{Hash, Signed},
        wrap::{KemSecret, Pairing},
    },
    evidence::Word,
    roster::SignedLink,
    weakness::{self, Weakness},
};

/// How often a participant shows to be there.
const PULSE: Duration = Duration::from_secs(30);
/// How long before a heartbeat a pulse leaves, if heartbeats keep their step: what it waits there counts as if it were the
/// leader's age.
const BEFORE_BEAT: Duration = Duration::from_millis(300);
/// How soon a pulse that nobody returned is sent again: before the first echo, and later.
const PULSE_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3));
/// How long a stale session keeps its state.
const KEEP: Duration = Duration::from_secs(120);
/// How long a key may be missing before it is asked for, and the pause after each ask: doubled up to 8 s.
const ASK_AFTER: Duration = Duration::from_millis(250);
const MAX_ASK_PAUSE: Duration = Duration::from_secs(8);
/// Heartbeats of which the challenges are kept.
const MAX_CHALLENGES: usize = 16;
/// Between two answers of ours.
const ANSWER: Duration = Duration::from_millis(200);

/// A follower's own state.
pub(super) struct Follow {
    /// Kept only while a successor may have to pair with us.
    pub kem: Option<KemSecret>,
    pub pairing: Option<Pairing>,
    pub fresh: Freshness,
    /// Counter, hash and leader time of the newest heartbeat.
    pub last: Option<(u64, Hash, u64)>,
    /// Of the leader's newest heartbeats: what another leader may answer.
    pub challenges: VecDeque<Hash>,
    next_pulse: BootTime,
    /// The highest link number anybody spoke of.
    seen_head: u64,
    /// When to ask for what is missing.
    next_ask: Option<BootTime>,
    ask_pause: Duration,
    /// When we last answered somebody.
    answered: Option<BootTime>,
    /// Whom to ask, if not the leader.
    ask_whom: Option<ParticipantId>,
    /// A wrap that came before its link.
    held_wrap: Option<Wrap>,
    stale_since: Option<BootTime>,
    /// The announce we were let in by.
    pub own: Option<SignedAnnounce>,
    /// For a successor: what it needs to pair with everybody.
    pub announces: HashMap<ParticipantId, SignedAnnounce>,
    /// For a successor: who else finds the leader silent.
    pub votes: BTreeMap<ParticipantId, Signed<SilenceVote>>,
    pub next_vote: BootTime,
    /// A takeover that came while our own last heartbeat was too young.
    pub early_takeover: Option<SignedLink>,
    /// The leader leaves its place to us.
    pub called: Option<Signed<super::Resignation>>,
}

impl Follow {
    pub fn new(kem: KemSecret, own: Option<SignedAnnounce>, now: BootTime) -> Self {
        Self {
            kem: Some(kem),
            pairing: None,
            fresh: Freshness::new(now),
            last: None,
            challenges: VecDeque::new(),
            next_pulse: now,
            seen_head: 0,
            next_ask: Some(now + Duration::from_secs(1)),
            ask_pause: ASK_AFTER,
            answered: None,
            ask_whom: None,
            held_wrap: None,
            stale_since: None,
            own,
            announces: HashMap::new(),
            votes: BTreeMap::new(),
            next_vote: now,
            early_takeover: None,
            called: None,
        }
    }

    pub fn on_heartbeat(&mut self, signed: &Signed<Heartbeat>, group: &mut Group, cx: &mut Cx<'_>) {
        let heartbeat = &signed.body;
        if heartbeat.leader != group.roster.header.leader {
            // A new leader whose link we miss, or an old one: the chain decides, so a named successor is asked for it.
            cx.counters.unauthorised += 1;
            let named = group.roster.header.successors.iter().find(|s| s.participant == heartbeat.leader);
            if heartbeat.head != group.head_hash()
                && named.is_some_and(|successor| signed.is_by(&successor.signer))
            {
                self.seen_head = self.seen_head.max(group.head().body.number + 1);
                self.ask_whom = Some(heartbeat.leader);
                self.ask_soon(cx.now);
            }
            return;
        }
        let signer = group.roster.leader_signer();
        let here = heartbeat.meeting == cx.me.meeting && heartbeat.instance == group.instance;
        let by_leader =
            signer.is_some_and(|signer| signed.is_by(&signer)) || weakness::is(Weakness::HeartbeatUnsigned);
        if !here || !by_leader {
            cx.counters.forged += 1;
            return;
        }
        if group.convict(Word::Heartbeat(signed.clone()), cx) {
            return;
        }
        let hash = heartbeat.hash();
        if let Some((counter, _, time)) = self.last {
            if heartbeat.counter <= counter {
                cx.counters.stale += 1;
                return;
            }
            if heartbeat.time < time {
                self.caught("signed heartbeats whose time goes back", group, cx);
                return;
            }
        }
        let other = |known: Option<Hash>, said: Hash| known.is_some_and(|known| known != said);
        if other(group.link(heartbeat.head_number).map(|(known, _)| *known), heartbeat.head)
            || other(group.opened(heartbeat.epoch), heartbeat.epoch_link)
        {
            // Of an earlier leader's part of the chain.
            self.caught("signed a heartbeat for another chain than ours", group, cx);
            return;
        }
        if heartbeat.epoch == group.epochs.newest.epoch
            && heartbeat.time.saturating_sub(group.epochs.newest.time) > MAX_EPOCH
            && !weakness::is(Weakness::RotationUnchecked)
        {
            self.caught("did not rotate the key for two and a half minutes", group, cx);
            return;
        }
        if self.held_wrap.as_ref().is_some_and(|wrap| wrap.epoch > heartbeat.epoch) {
            // Nobody opened that epoch; if its wrap was only quicker than this heartbeat, it is asked for.
            self.held_wrap = None;
        }
        self.last = Some((heartbeat.counter, hash, heartbeat.time));
        group.last_beat = Some(signed.clone());
        if self.challenges.len() >= MAX_CHALLENGES {
            self.challenges.pop_front();
        }
        self.challenges.push_back(heartbeat.challenge);
        if self.fresh.heard(heartbeat.time, &heartbeat.echoes, cx.now) {
            // A heartbeat has just come, and another one comes in half a minute.
            self.next_pulse = cx.now + PULSE.saturating_sub(BEFORE_BEAT);
        }
        self.votes.clear();
        self.early_takeover = None;
        if heartbeat.epoch > group.epochs.newest.epoch {
            // The link is late or withheld, and it may have removed somebody: at once.
            group.epochs.retire(heartbeat.epoch, true, cx);
        } else {
            group.epochs.beats(heartbeat.time, cx);
        }
        self.seen_head = heartbeat.head_number;
        if heartbeat.head_number > group.head().body.number {
            self.ask_soon(cx.now);
        }
    }

    pub fn on_over(&mut self, over: &Signed<Over>, group: &mut Group, cx: &mut Cx<'_>) {
        let by_leader = over.body.leader == group.roster.header.leader
            && over.body.instance == group.instance
            && over.body.meeting == cx.me.meeting
            && (group.roster.leader_signer().is_some_and(|signer| over.is_by(&signer))
                || weakness::is(Weakness::OverUnsigned));
        if by_leader {
            group.ending = Some(EndReason::LeaderLeft);
        } else {
            cx.counters.forged += 1;
        }
    }

    /// Somebody, most likely a successor that collects votes, misses links.
    pub fn on_ask(&mut self, signed: &Signed<Ask>, group: &Group, cx: &mut Cx<'_>) {
        let ask = &signed.body;
        let due = self.answered.is_none_or(|at| cx.now.since(at) >= ANSWER);
        if due
            && group.roster.rank(ask.participant).is_some()
            && ask.is_here(cx.me.meeting, group.instance)
            && group.roster.entry(ask.participant).is_some_and(|entry| signed.is_by(&entry.signer))
            && let Some(links) = group.links_after(&ask.head)
            && !links.is_empty()
        {
            self.answered = Some(cx.now);
            group.tell(ask.participant, &Message::Links(links), cx);
        }
    }

    /// The board may have lost what we said.
    pub fn connected(&mut self, group: &mut Group, cx: &mut Cx<'_>) {
        group.restate(cx);
        self.pulse(group, cx);
        if group.epochs.newest_key().is_none() {
            self.ask_soon(cx.now);
        }
    }

    pub fn tick(&mut self, group: &mut Group, cx: &mut Cx<'_>) {
        if self.next_pulse <= cx.now {
            self.pulse(group, cx);
        }
        if self.next_ask.is_some_and(|at| at <= cx.now) {
            self.ask(group, cx);
        }
        self.watch(cx);
        group.tick_head(self.fresh.is_fresh(cx.now), cx);
        if self.stale_since.is_some_and(|since| cx.now.since(since) >= KEEP) {
            group.ending = Some(EndReason::Stale);
        }
    }

    /// Notes when the leader's word ran out.
    fn watch(&mut self, cx: &Cx<'_>) {
        if self.fresh.is_fresh(cx.now) {
            self.stale_since = None;
        } else if self.stale_since.is_none() {
            self.stale_since = Some(cx.now);
            self.next_pulse = self.next_pulse.min(cx.now + PULSE_RETRY.0);
        }
    }

    pub fn deadline(&self) -> BootTime {
        let fresh = self.fresh.deadline().map(|deadline| deadline + Duration::from_millis(1));
        let stale = self.stale_since.map(|since| since + KEEP);
        let freshness = if self.stale_since.is_some() { stale } else { fresh };
        [Some(self.next_pulse), self.next_ask, freshness]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.next_pulse)
    }

    /// Somebody else leads now: pair anew, and believe its clock only after its own echo.
    pub fn new_leader(&mut self, budget_ends: bool, now: BootTime) {
        self.pairing = None;
        self.fresh.new_leader(budget_ends, now);
        self.last = None;
        self.challenges.clear();
        self.next_pulse = now + PULSE_RETRY.0;
        self.votes.clear();
        self.early_takeover = None;
        self.called = None;
    }

    fn pulse(&mut self, group: &mut Group, cx: &mut Cx<'_>) {
        let eager = !self.fresh.anchored() || !self.fresh.is_fresh(cx.now);
        self.next_pulse = cx.now + if eager { PULSE_RETRY.0 } else { PULSE_RETRY.1 };
        let Some(pairing) = &self.pairing else { return };
        let pulse = Pulse {
            meeting: cx.me.meeting,
            instance: group.instance,
            participant: cx.me.participant,
            nonce: cx.random16(),
            head: group.head_hash(),
            epoch_link: group.epochs.newest.link,
            heard: self.last.map_or(0, |(.., time)| time),
        };
        self.fresh.sent(pulse.nonce, cx.now);
        let mac = pairing.prove(&pulse.to_bytes());
        let message = Message::Pulse(ProvenPulse { pulse: cx.me.sign(pulse), mac });
        group.tell(group.roster.header.leader, &message, cx);
    }

    pub fn ask_soon(&mut self, now: BootTime) {
        // An ask that is planned already, perhaps after a pause, stands.
        self.next_ask.get_or_insert(now + ASK_AFTER);
    }

    fn ask(&mut self, group: &mut Group, cx: &mut Cx<'_>) {
        // Asked again until nothing is missing; a link or wrap that comes resets the pause.
        self.ask_pause = (self.ask_pause * 2).min(MAX_ASK_PAUSE);
        let missing = group.epochs.newest_key().is_none() || self.held_wrap.is_some() || self.behind(group);
        self.next_ask = missing.then(|| cx.now + self.ask_pause);
        if missing {
            let whom = self.ask_whom.take().unwrap_or(group.roster.header.leader);
            group.ask(whom, cx);
        }
    }

    /// What others can fill here.
    #[cfg(feature = "simulator")]
    pub fn sizes(&self) -> [super::inside::Size; 4] {
        use crate::roster::MAX_ENTRIES;
        [
            ("announces", self.announces.len(), MAX_ENTRIES),
            ("votes", self.votes.len(), MAX_ENTRIES),
            ("challenges heard", self.challenges.len(), MAX_CHALLENGES),
            self.fresh.size(),
        ]
    }

    fn behind(&self, group: &Group) -> bool {
        self.seen_head > group.head().body.number
    }

    /// Until when elements may seal and open.
    pub fn lease(&self) -> Option<BootTime> {
        self.fresh.deadline()
    }
}

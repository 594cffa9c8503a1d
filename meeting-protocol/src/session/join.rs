//! From a meeting link to a place in the roster.

use std::{collections::VecDeque, time::Duration};

use meeting_wire::{InstanceId, ParticipantId, Slot};

use super::{
    Command, CommandError, EndReason, Event, WaitReason,
    claims::{Heartbeat, Verdict},
    context::Cx,
    follow::Follow,
    group::Group,
    lineage::Lineage,
    message::{Message, Reply},
    streams::Streams,
    welcome::{Welcome, as_announced},
};
use crate::{
    BootTime,
    crypto::{sign::Hash, wrap::KemSecret},
    weakness::{self, Weakness},
};

/// How long an announce may go unanswered.
const RETRY: Duration = Duration::from_secs(2);
/// How often somebody who waits for approval shows to be still there.
const RENEW: Duration = Duration::from_secs(20);
/// How long nobody may answer at all.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a leader's user may think.
const APPROVAL_PATIENCE: Duration = Duration::from_secs(30 * 60);
/// How long after the first announce only a leader that the link vouches for may welcome us: whoever holds the link
/// can be quick to pretend.
const PREFER: Duration = Duration::from_secs(3);
/// Leaders, true or pretended, that are asked in turn: more than connections that somebody opens in a moment.
const MAX_SOURCES: usize = 256;
/// Between two announces, whoever they are for: what others post is no reason to post as much ourselves.
const PACE: Duration = Duration::from_millis(250);
/// Announces to one leader of which an answer counts: one in two seconds, for longer than who is let in is missed after.
const MAX_SENT: usize = 48;

/// A joining session.
pub(super) struct Join {
    pub kem: KemSecret,
    pub streams: Streams,
    sources: Vec<Source>,
    /// When the next announce may leave.
    next: BootTime,
    wait: WaitReason,
    /// When this phase of waiting began.
    since: BootTime,
    /// When the leader last answered.
    answered: BootTime,
    /// When the first announce went out.
    asked: Option<BootTime>,
    /// A leader that the link vouches for has answered: no other one is believed any more.
    pub vouched: bool,
    /// It has turned us away.
    refusal: Option<Refusal>,
    pub ending: Option<EndReason>,
    /// Heartbeats heard so far.
    pub heartbeats: u64,
}

/// Somebody who says to lead the meeting. Whether that is true shows with the welcome.
struct Source {
    instance: InstanceId,
    leader: ParticipantId,
    challenge: Hash,
    announced: Option<(BootTime, Hash)>,
    /// Our announces to it. They are kept for as long as it is.
    sent: VecDeque<Sent>,
    /// It has answered, and the link vouches for it.
    vouched: bool,
}

/// The word of a leader that turns us away. Whoever led once can say it for ever: those who lead too have a moment to
/// answer.
struct Refusal {
    reason: EndReason,
    /// Of who said it.
    lineage: Lineage,
    /// When it counts.
    until: BootTime,
}

impl Refusal {
    /// Whether who said it leads, and another one of this chain no more (3.8).
    fn is_before(&self, other: &Lineage) -> bool {
        self.lineage.before(other).is_some()
    }
}

/// An announce of ours, which a welcome may answer.
struct Sent {
    announce: Hash,
    challenge: Hash,
    /// When it left for the first time.
    at: BootTime,
}

impl Source {
    /// When an announce is due; none while its newest challenge is answered.
    fn due(&self, pause: Duration) -> Option<BootTime> {
        match self.announced {
            None => Some(BootTime(0)),
            Some((_, answered)) if answered == self.challenge => None,
            Some((at, _)) => Some(at + pause),
        }
    }

    /// An announce that left now. The first time it left is what counts (3.6), however often it is sent again.
    fn announces(&mut self, announce: Hash, now: BootTime) {
        self.announced = Some((now, self.challenge));
        if !self.sent.iter().any(|sent| sent.announce == announce) {
            if self.sent.len() >= MAX_SENT {
                self.sent.pop_front();
            }
            self.sent.push_back(Sent { announce, challenge: self.challenge, at: now });
        }
    }
}

impl Join {
    pub fn new(kem: KemSecret, now: BootTime) -> Self {
        Self {
            kem,
            streams: Streams::default(),
            sources: Vec::new(),
            next: now,
            wait: WaitReason::Leader,
            since: now,
            answered: now,
            asked: None,
            vouched: false,
            refusal: None,
            ending: None,
            heartbeats: 0,
        }
    }

    /// What is waited for.
    pub fn wait(&self) -> WaitReason {
        self.wait
    }

    /// Somebody says to lead. Each participant leads one instance: it was drawn with the stay.
    pub fn on_heartbeat(&mut self, heartbeat: &Heartbeat, cx: &mut Cx<'_>) {
        if heartbeat.meeting != cx.me.meeting {
            return;
        }
        self.heartbeats += 1;
        let (instance, leader, challenge) = (heartbeat.instance, heartbeat.leader, heartbeat.challenge);
        match self.sources.iter_mut().find(|source| source.leader == leader) {
            Some(source) if source.instance == instance => source.challenge = challenge,
            Some(_) => cx.counters.stale += 1,
            None => {
                self.make_room(cx);
                let (announced, sent, vouched) = (None, VecDeque::new(), false);
                self.sources.push(Source { instance, leader, challenge, announced, sent, vouched });
            }
        }
        self.announce(cx);
    }

    /// One goes, if there are too many: any of them, so that nobody can choose which.
    fn make_room(&mut self, cx: &mut Cx<'_>) {
        if self.sources.len() >= MAX_SOURCES {
            let others: Vec<usize> = (0..self.sources.len()).filter(|i| !self.sources[*i].vouched).collect();
            let drawn = cx.below(others.len());
            if let Some(source) = others.get(drawn) {
                self.sources.swap_remove(*source);
            }
        }
    }

    /// Announces to one of the leaders that are due and have a challenge we have not answered yet: to the one that the
    /// link vouches for, or to any, so that however many pretend to lead the true one has its turn.
    pub fn announce(&mut self, cx: &mut Cx<'_>) {
        if cx.now < self.next {
            return;
        }
        let pause = self.pause();
        let is_due = |source: &Source| source.due(pause).is_some_and(|at| at <= cx.now);
        let due: Vec<usize> = (0..self.sources.len()).filter(|i| is_due(&self.sources[*i])).collect();
        let drawn = cx.below(due.len());
        let vouched = due.iter().find(|i| self.sources[**i].vouched);
        let Some(chosen) = vouched.or_else(|| due.get(drawn)) else { return };
        let source = &mut self.sources[*chosen];
        self.next = cx.now + PACE;
        self.asked.get_or_insert(cx.now);
        let announce = cx.me.announce(source.instance, Some(source.challenge));
        source.announces(announce.hash(), cx.now);
        cx.post(Slot::Log, source.instance, &Message::Announce(announce));
        if self.wait == WaitReason::Leader {
            self.wait = WaitReason::Answer;
            self.since = cx.now;
        }
    }

    /// How long an announce may go unanswered now.
    fn pause(&self) -> Duration {
        if self.wait == WaitReason::Approval { RENEW } else { RETRY }
    }

    /// An announce that went to a leader of this instance, by its hash.
    fn sent(&self, announce: Hash, instance: InstanceId) -> Option<&Sent> {
        let sources = self.sources.iter().filter(|source| source.instance == instance);
        sources.flat_map(|source| &source.sent).find(|sent| sent.announce == announce)
    }

    /// The connection is new: the board may have lost the announce.
    pub fn connected(&mut self, cx: &mut Cx<'_>) {
        self.sources.iter_mut().for_each(|source| source.announced = None);
        self.announce(cx);
    }

    /// The leader's word on one of our announces. It counts only if the chain from the creator our link names leads
    /// to who signed it: nobody else can turn us away.
    pub fn on_answer(&mut self, reply: &Reply, cx: &mut Cx<'_>) {
        let answer = &reply.answer.body;
        let instance = answer.instance;
        if answer.to != cx.me.participant || self.sent(answer.announce, instance).is_none() {
            cx.counters.stale += 1;
            return;
        }
        // Before the signatures of the chain, of which a stranger's may have hundreds.
        if !reply.lineage.is_of(cx.me.creator) {
            cx.counters.unauthorised += 1;
            return;
        }
        let leader = reply.lineage.leader((cx.me.meeting, instance));
        let by_leader = leader.is_some_and(|(leader, signer)| {
            answer.leader == leader
                && answer.meeting == cx.me.meeting
                && (reply.answer.is_by(&signer) || weakness::is(Weakness::AnswerUnsigned))
        });
        if !by_leader {
            cx.counters.forged += 1;
            return;
        }
        let refuses = matches!(answer.verdict, Verdict::Locked | Verdict::Refused);
        if refuses && is_creator(cx) && !reply.lineage.steps.is_empty() {
            // Whoever has led once would keep the one out who made the link.
            cx.counters.unauthorised += 1;
            return;
        }
        if self.refusal.as_ref().is_some_and(|refusal| refusal.is_before(&reply.lineage)) {
            cx.counters.stale += 1;
            return;
        }
        for source in &mut self.sources {
            source.vouched |= (source.instance, source.leader) == (instance, answer.leader);
        }
        self.vouched = true;
        self.answered = cx.now;
        let refusal = self.refusal.take();
        match answer.verdict {
            Verdict::Waiting => {
                if self.wait != WaitReason::Approval {
                    self.wait = WaitReason::Approval;
                    self.since = cx.now;
                }
            }
            Verdict::Renew => {
                self.sources.retain(|source| source.instance == instance || source.announced.is_none());
                for source in self.sources.iter_mut().filter(|source| source.instance == instance) {
                    // At once if there is a newer challenge, else with the next heartbeat.
                    source.announced = source.announced.map(|(_, challenge)| (BootTime(0), challenge));
                }
                self.announce(cx);
            }
            Verdict::Locked | Verdict::Refused => self.refused(reply, refusal, cx.now),
        }
    }

    /// We are turned away, at once if nobody else says to lead.
    fn refused(&mut self, reply: &Reply, before: Option<Refusal>, now: BootTime) {
        let answer = &reply.answer.body;
        self.sources.retain(|source| (source.instance, source.leader) != (answer.instance, answer.leader));
        let pause = if self.sources.is_empty() { Duration::ZERO } else { PREFER };
        let until = before.map_or(now + pause, |refusal| refusal.until);
        let reason = if answer.verdict == Verdict::Locked { EndReason::Locked } else { EndReason::Refused };
        self.refusal = Some(Refusal { reason, lineage: reply.lineage.clone(), until });
    }

    /// Whether this welcome is for one of our announces and holds; then the group to be in.
    pub fn on_welcome(&mut self, welcome: Welcome, cx: &mut Cx<'_>) -> Option<Group> {
        let instance = welcome.head.body.instance;
        let Some(sent) = self.sent(welcome.announce, instance) else {
            cx.counters.stale += 1;
            return None;
        };
        let early = self.asked.is_none_or(|at| cx.now.since(at) < PREFER);
        // Who made the link leads by it, or follows whom it has named.
        if (early || self.vouched || is_creator(cx)) && !welcome.lineage.is_of(cx.me.creator) {
            cx.counters.unauthorised += 1;
            return None;
        }
        if self.refusal.as_ref().is_some_and(|refusal| refusal.is_before(&welcome.lineage)) {
            cx.counters.stale += 1;
            return None;
        }
        let own = cx.me.announce(instance, Some(sent.challenge));
        let roster = welcome.roster((cx.me.meeting, instance)).filter(|roster| {
            roster.entry(cx.me.participant).is_some_and(|entry| *entry == as_announced(entry, &own))
        });
        let Some(roster) = roster else {
            cx.counters.forged += 1;
            return None;
        };
        let epoch_link = welcome.epoch_link().clone();
        let streams = std::mem::take(&mut self.streams);
        let group = Group::new(
            roster,
            welcome.lineage,
            &welcome.leader,
            welcome.head,
            (epoch_link, cx.now),
            streams,
        )?;
        cx.out.event(Event::Code(group.code));
        Some(group)
    }

    /// Becomes a follower.
    pub fn into_follow(self, group: &Group, cx: &Cx<'_>) -> Follow {
        let accepted = group.roster.entry(cx.me.participant).map(|entry| entry.announce);
        let sent = accepted.and_then(|announce| self.sent(announce, group.instance));
        let sent = sent.map(|sent| (cx.me.announce(group.instance, Some(sent.challenge)), sent.at));
        let (own, at) = sent.unzip();
        let mut follow = Follow::new(self.kem, own, cx.now);
        if let Some(at) = at {
            let announced = if weakness::is(Weakness::FreshFromWelcome) { cx.now } else { at };
            follow.fresh.taken_in(announced, group.head().body.time, cx.now);
        }
        follow
    }

    pub fn command(&mut self, command: Command, cx: &mut Cx<'_>) -> Result<(), CommandError> {
        match command {
            Command::Leave => self.ending = Some(EndReason::Left),
            Command::OpenStream(wish) => {
                let half = cx.random16();
                self.streams.open(wish, half)?;
            }
            Command::StreamCaps { stream, caps } => _ = self.streams.set_caps(stream, caps)?,
            Command::CloseStream(stream) => self.streams.close(stream, None, cx)?,
            Command::Floor { from, kid, floor } => self.streams.floor(from, kid, floor),
            _ => return Err(CommandError::NotLeader),
        }
        Ok(())
    }

    pub fn tick(&mut self, cx: &mut Cx<'_>) {
        if let Some(refusal) = self.refusal.take_if(|refusal| cx.now >= refusal.until) {
            self.ending = Some(refusal.reason);
        } else if cx.now >= self.patience() {
            self.ending = Some(EndReason::Refused);
        } else {
            self.announce(cx);
        }
    }

    /// What others can fill here.
    #[cfg(feature = "simulator")]
    pub fn sizes(&self) -> Vec<super::inside::Size> {
        let sent = self.sources.iter().map(|source| source.sent.len()).max();
        vec![("sources", self.sources.len(), MAX_SOURCES), ("sent", sent.unwrap_or(0), MAX_SENT)]
    }

    /// When to look again.
    pub fn deadline(&self) -> BootTime {
        let due = self.sources.iter().filter_map(|source| source.due(self.pause())).min();
        let due = due.map(|at| at.max(self.next));
        let until = self.refusal.as_ref().map(|refusal| refusal.until);
        due.into_iter().chain(until).fold(self.patience(), BootTime::min)
    }

    /// How long we ask.
    fn patience(&self) -> BootTime {
        match self.wait {
            // A leader that has let us in, and missed us since, answers no more.
            WaitReason::Approval => (self.since + APPROVAL_PATIENCE).min(self.answered + PATIENCE),
            _ => self.since + PATIENCE,
        }
    }
}

/// Whether this is the device that made the link.
fn is_creator(cx: &Cx<'_>) -> bool {
    cx.me.device.public().fingerprint() == cx.me.creator
}

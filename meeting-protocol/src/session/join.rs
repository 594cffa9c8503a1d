//! From a meeting link to a place in the roster.

use std::{collections::VecDeque, time::Duration};

use meeting_wire::{InstanceId, ParticipantId, Slot};

use super::{
    Command, CommandError, EndReason, Event, WaitReason,
    claims::{Heartbeat, Verdict},
    context::Cx,
    follow::Follow,
    group::Group,
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
/// Leaders, true or pretended, that are asked in turn.
const MAX_SOURCES: usize = 8;
/// Announces of which an answer counts.
const MAX_SENT: usize = 32;

/// A joining session.
pub(super) struct Join {
    pub kem: KemSecret,
    pub streams: Streams,
    sources: VecDeque<Source>,
    sent: VecDeque<Sent>,
    wait: WaitReason,
    /// When this phase of waiting began.
    since: BootTime,
    /// When the leader last answered.
    answered: BootTime,
    /// When the first announce went out.
    asked: Option<BootTime>,
    /// A leader that the link vouches for has answered: no other one is believed any more.
    vouched: bool,
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
}

/// An announce of ours, which a welcome may answer.
struct Sent {
    announce: Hash,
    instance: InstanceId,
    challenge: Hash,
    /// When it left for the first time.
    at: BootTime,
}

impl Join {
    pub fn new(kem: KemSecret, now: BootTime) -> Self {
        Self {
            kem,
            streams: Streams::default(),
            sources: VecDeque::new(),
            sent: VecDeque::new(),
            wait: WaitReason::Leader,
            since: now,
            answered: now,
            asked: None,
            vouched: false,
            ending: None,
            heartbeats: 0,
        }
    }

    /// What is waited for.
    pub fn wait(&self) -> WaitReason {
        self.wait
    }

    pub fn on_heartbeat(&mut self, heartbeat: &Heartbeat, cx: &mut Cx<'_>) {
        if heartbeat.meeting != cx.me.meeting {
            return;
        }
        self.heartbeats += 1;
        let key = (heartbeat.instance, heartbeat.leader);
        match self.sources.iter_mut().find(|source| (source.instance, source.leader) == key) {
            Some(source) => source.challenge = heartbeat.challenge,
            None => {
                if self.sources.len() >= MAX_SOURCES {
                    self.sources.pop_front();
                }
                let (instance, leader) = key;
                self.sources.push_back(Source {
                    instance,
                    leader,
                    challenge: heartbeat.challenge,
                    announced: None,
                });
            }
        }
        self.announce(cx);
    }

    /// Announces to every leader that is due and has a challenge we have not answered yet.
    pub fn announce(&mut self, cx: &mut Cx<'_>) {
        let pause = if self.wait == WaitReason::Approval { RENEW } else { RETRY };
        for source in &mut self.sources {
            let due = source
                .announced
                .is_none_or(|(at, answered)| cx.now.since(at) >= pause && answered != source.challenge);
            if !due {
                continue;
            }
            self.asked.get_or_insert(cx.now);
            source.announced = Some((cx.now, source.challenge));
            let announce = cx.me.announce(source.instance, Some(source.challenge));
            let hash = announce.hash();
            // The first time it left is what counts (3.6), however often it is sent again.
            if !self.sent.iter().any(|sent| sent.announce == hash) {
                if self.sent.len() >= MAX_SENT {
                    self.sent.pop_front();
                }
                let (instance, challenge) = (source.instance, source.challenge);
                self.sent.push_back(Sent { announce: hash, instance, challenge, at: cx.now });
            }
            cx.post(Slot::Log, source.instance, &Message::Announce(announce));
            if self.wait == WaitReason::Leader {
                self.wait = WaitReason::Answer;
                self.since = cx.now;
            }
        }
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
        if answer.to != cx.me.participant
            || !self.sent.iter().any(|sent| (sent.announce, sent.instance) == (answer.announce, instance))
        {
            cx.counters.stale += 1;
            return;
        }
        let leader = reply.lineage.leader((cx.me.meeting, instance));
        let by_leader = leader.is_some_and(|(leader, signer)| {
            answer.leader == leader && answer.meeting == cx.me.meeting && reply.answer.is_by(&signer)
        });
        if !by_leader {
            cx.counters.forged += 1;
            return;
        }
        if !reply.lineage.is_of(cx.me.creator) {
            cx.counters.unauthorised += 1;
            return;
        }
        self.vouched = true;
        self.answered = cx.now;
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
            Verdict::Locked => self.ending = Some(EndReason::Locked),
            Verdict::Refused => self.ending = Some(EndReason::Refused),
        }
    }

    /// Whether this welcome is for one of our announces and holds; then the group to be in.
    pub fn on_welcome(&mut self, welcome: Welcome, cx: &mut Cx<'_>) -> Option<Group> {
        let instance = welcome.head.body.instance;
        let Some(sent) =
            self.sent.iter().find(|sent| (sent.announce, sent.instance) == (welcome.announce, instance))
        else {
            cx.counters.stale += 1;
            return None;
        };
        let own = cx.me.announce(instance, Some(sent.challenge));
        let roster = welcome.roster((cx.me.meeting, instance)).filter(|roster| {
            roster.entry(cx.me.participant).is_some_and(|entry| *entry == as_announced(entry, &own))
        });
        let Some(roster) = roster else {
            cx.counters.forged += 1;
            return None;
        };
        let early = self.asked.is_none_or(|at| cx.now.since(at) < PREFER);
        if (early || self.vouched) && !welcome.lineage.is_of(cx.me.creator) {
            cx.counters.unauthorised += 1;
            return None;
        }
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
        let sent = self.sent.iter().find(|sent| Some(sent.announce) == accepted);
        let own = sent.map(|sent| cx.me.announce(sent.instance, Some(sent.challenge)));
        let mut follow = Follow::new(self.kem, own, cx.now);
        if let Some(sent) = sent {
            let announced = if weakness::is(Weakness::FreshFromWelcome) { cx.now } else { sent.at };
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
            Command::StreamCaps { stream, caps } => self.streams.set_caps(stream, caps)?,
            Command::CloseStream(stream) => self.streams.close(stream, None, cx)?,
            Command::Floor { from, kid, floor } => self.streams.floor(from, kid, floor),
            _ => return Err(CommandError::NotLeader),
        }
        Ok(())
    }

    pub fn tick(&mut self, cx: &mut Cx<'_>) {
        if cx.now >= self.deadline() {
            self.ending = Some(EndReason::Refused);
        } else {
            self.announce(cx);
        }
    }

    /// What others can fill here.
    #[cfg(feature = "simulator")]
    pub fn sizes(&self) -> Vec<super::inside::Size> {
        vec![("sources", self.sources.len(), MAX_SOURCES), ("sent", self.sent.len(), MAX_SENT)]
    }

    pub fn deadline(&self) -> BootTime {
        match self.wait {
            // A leader that has let us in, and missed us since, answers no more.
            WaitReason::Approval => (self.since + APPROVAL_PATIENCE).min(self.answered + PATIENCE),
            _ => self.since + PATIENCE,
        }
    }
}

//! Somebody in a meeting: the group, and the duty to lead or to follow.

use meeting_wire::{InstanceId, ParticipantId};

use super::{
    Command, CommandError, EndReason, Event, LeaveReason, Person, Phase, State, Successors, WaitReason,
    claims::{Leave, Over},
    context::{Cx, Me},
    epoch_key::EpochKey,
    follow::Follow,
    freshness::LIMIT,
    group::Group,
    lead::Lead,
    lineage::Lineage,
    message::Message,
    streams::Streams,
    succession,
    vouching::Vouching,
    witness::Sight,
};
use crate::{
    BootTime,
    beacon::SignedBeacon,
    crypto::sign::Signed,
    evidence::Word,
    roster::{Change, Entry, EpochOpening, Link, Roster, SignedLink},
    secret::Secret,
    security_code::SecurityCode,
    weakness::{self, Weakness},
};

/// A membership.
pub(super) struct Member {
    pub(super) group: Group,
    pub(super) duty: Duty,
    verified: Option<bool>,
}

pub(super) enum Duty {
    Lead(Box<Lead>),
    Follow(Box<Follow>),
}

impl Duty {
    /// The leader's time as we reckon it.
    fn leader_time(&self, now: BootTime) -> Option<u64> {
        match self {
            Duty::Lead(lead) => Some(lead.time(now)),
            Duty::Follow(follow) => follow.fresh.leader_time(now),
        }
    }
}

impl Member {
    /// Opens an instance: genesis, with the first epoch.
    pub fn create(policy: Successors, cx: &mut Cx<'_>) -> Option<Self> {
        let instance = InstanceId(cx.random16());
        let own = cx.me.announce(instance, None);
        let entry = Entry::new(0, own.unverified(), own.hash(), true);
        let limit = match policy {
            Successors::Nobody => 0,
            Successors::FirstPresent(n) => n.min(crate::roster::MAX_SUCCESSORS as u8),
        };
        let changes = vec![Change::Add(entry), Change::Succession { limit, order: Vec::new() }];
        let roster = Roster::before_genesis(cx.me.participant).after(&changes).ok()?;
        let key = Secret::random(cx.rng);
        let lead = Lead::new(own.clone(), policy, cx.now);
        let commitment = EpochKey::commitment(&key, cx.me.meeting, instance, 1);
        let genesis: SignedLink = cx.me.sign(Link {
            meeting: cx.me.meeting,
            instance,
            number: 0,
            previous: [0; 32],
            leader: cx.me.participant,
            changes,
            digest: roster.digest(),
            time: lead.time(cx.now),
            opening: Some(EpochOpening { epoch: 1, commitment }),
        });
        let lineage = Lineage { genesis: genesis.clone(), creator: own.clone(), steps: Vec::new() };
        let mut group = Group::new(
            roster,
            lineage,
            &own,
            genesis.clone(),
            (genesis.clone(), cx.now),
            Streams::default(),
        )?;
        cx.out.event(Event::Code(group.code));
        group.tell_all(&Message::Link(genesis.clone()), cx);
        group.install(1, genesis.body.hash(), key, cx);
        Some(Self { group, duty: Duty::Lead(Box::new(lead)), verified: None })
    }

    /// Follows the leader of a group.
    pub fn follow(group: Group, follow: Follow) -> Self {
        Self { group, duty: Duty::Follow(Box::new(follow)), verified: None }
    }

    pub fn on_message(&mut self, instance: InstanceId, message: Message, cx: &mut Cx<'_>) {
        let group = &mut self.group;
        if instance != group.instance {
            cx.counters.stale += 1;
            return;
        }
        match (message, &mut self.duty) {
            (Message::Statement(statement), _) => group.on_statement(statement, cx),
            (Message::Head(head), _) => group.on_head(&head, cx),
            (Message::Show(show), _) => group.on_show(&show, cx),
            (Message::Link(link), Duty::Follow(follow)) => follow.on_link(link, group, cx),
            (Message::Links(links), Duty::Follow(follow)) => {
                for link in links {
                    if group.ending.is_none() {
                        follow.on_link(link.clone(), group, cx);
                        if group.ending == Some(EndReason::LeaderMisbehaved) {
                            // It came to us alone: who sees our chain is to see this too.
                            group.tell_all(&Message::Link(link), cx);
                        }
                    }
                }
            }
            (Message::Heartbeat(heartbeat), Duty::Follow(follow)) => {
                follow.on_heartbeat(&heartbeat, group, cx)
            }
            (Message::Heartbeat(heartbeat), Duty::Lead(lead)) => lead.on_heartbeat(&heartbeat, group, cx),
            (Message::Branch(branch), Duty::Lead(lead)) => lead.on_branch(branch, group, cx),
            (Message::Branch(branch), Duty::Follow(follow)) => follow.on_branch(&branch, group, cx),
            (Message::Wrap(wrap), Duty::Follow(follow)) => follow.on_wrap(wrap, group, cx),
            (Message::Welcome(welcome), Duty::Follow(follow)) => follow.on_welcome(*welcome, group, cx),
            (Message::Announce(announce), Duty::Lead(lead)) => lead.on_announce(announce, group, cx),
            (Message::Announce(announce), Duty::Follow(_)) => group.on_announce(announce),
            (Message::Pulse(pulse), Duty::Lead(lead)) => lead.on_pulse(&pulse, group, cx),
            (Message::Ask(ask), Duty::Lead(lead)) => lead.on_ask(&ask, group, cx),
            (Message::Ask(ask), Duty::Follow(follow)) => follow.on_ask(&ask, group, cx),
            (Message::Leave(leave), duty) => on_leave(&leave, duty, group, cx),
            (Message::Over(over), Duty::Follow(follow)) => follow.on_over(&over, group, cx),
            (Message::Resign(resign), Duty::Follow(follow)) => follow.on_resign(resign, group, cx),
            (Message::Vote(vote), Duty::Follow(follow)) => follow.on_vote(vote, group, cx),
            (Message::Announces(announces), Duty::Follow(follow)) => follow.on_announces(announces, group),
            // Announces and the like pass everybody by; only those they are for act on them.
            _ => {}
        }
    }

    pub fn command(&mut self, command: Command, cx: &mut Cx<'_>) -> Result<(), CommandError> {
        let group = &mut self.group;
        match command {
            Command::Leave => {
                self.leave(cx);
                return Ok(());
            }
            Command::OpenStream(wish) => return group.open_stream(wish, cx),
            Command::StreamCaps { stream, caps } => return group.stream_caps(stream, caps, cx),
            Command::CloseStream(stream) => return group.close_stream(stream, cx),
            Command::Beacon(spans) => {
                let time = self.duty.leader_time(cx.now);
                group.vouching.beacon(spans, time, &group.epochs.newest, group.instance, cx);
                return Ok(());
            }
            Command::Floor { from, kid, floor } => {
                group.streams.floor(from, kid, floor);
                return Ok(());
            }
            _ => {}
        }
        let Duty::Lead(lead) = &mut self.duty else { return Err(CommandError::NotLeader) };
        match command {
            Command::Remove(participant) if participant == cx.me.participant => {
                return Err(CommandError::Leader);
            }
            Command::Remove(participant) => {
                group.roster.entry(participant).ok_or(CommandError::NobodyThere)?;
                if !lead.remove(participant, LeaveReason::Removed, group, cx) {
                    return Err(CommandError::Full);
                }
            }
            Command::Rotate => lead.rotate(group, cx),
            Command::Lock(locked) if locked != group.roster.header.locked => {
                lead.commit(vec![Change::Lock(locked)], Vec::new(), false, group, cx);
            }
            Command::Approve(participant) => lead.admission.approve(participant, group, cx)?,
            Command::Successors(policy) => {
                lead.policy = policy;
                lead.commit(Vec::new(), Vec::new(), false, group, cx);
            }
            _ => {}
        }
        Ok(())
    }

    /// A beacon, whoever it is from.
    pub fn on_beacon(
        &mut self,
        instance: InstanceId,
        from: ParticipantId,
        beacon: SignedBeacon,
        cx: &mut Cx<'_>,
    ) {
        let group = &mut self.group;
        let (time, newest) = (self.duty.leader_time(cx.now), group.epochs.newest);
        let entry =
            group.roster.entry(from).filter(|_| instance == group.instance && from != cx.me.participant);
        let Some(entry) = entry else {
            cx.counters.unauthorised += 1;
            return;
        };
        let sight = Sight { who: from, head: None, epoch: (beacon.body.epoch, beacon.body.link) };
        if group.vouching.is_new(&beacon, entry, instance, cx)
            && !group.differs(&sight, || Word::Beacon(beacon.clone()), cx)
        {
            Vouching::hand_on(from, beacon, time, &newest, cx);
        }
    }

    fn leave(&mut self, cx: &mut Cx<'_>) {
        let group = &mut self.group;
        match &self.duty {
            Duty::Lead(_) => {
                if !succession::resign(group, cx) {
                    let over =
                        Over { meeting: cx.me.meeting, instance: group.instance, leader: cx.me.participant };
                    group.tell_all(&Message::Over(cx.me.sign(over)), cx);
                }
            }
            Duty::Follow(_) => {
                let leave = Leave {
                    meeting: cx.me.meeting,
                    instance: group.instance,
                    participant: cx.me.participant,
                };
                group.tell_all(&Message::Leave(cx.me.sign(leave)), cx);
            }
        }
        group.ending = Some(EndReason::Left);
    }

    pub fn connected(&mut self, cx: &mut Cx<'_>) {
        match &mut self.duty {
            Duty::Lead(lead) => lead.connected(&mut self.group, cx),
            Duty::Follow(follow) => follow.connected(&mut self.group, cx),
        }
    }

    pub fn disconnected(&mut self, now: BootTime) {
        if let Duty::Lead(lead) = &mut self.duty {
            lead.disconnected(now);
        }
    }

    pub fn tick(&mut self, cx: &mut Cx<'_>) {
        if self.verified.is_none() {
            self.verified = Some(self.group.lineage.is_of(cx.me.creator));
        }
        let group = &mut self.group;
        if group.ending.is_some() {
            return;
        }
        group.epochs.tick(cx);
        match &mut self.duty {
            Duty::Lead(lead) => lead.tick(group, cx),
            Duty::Follow(follow) => {
                follow.tick(group, cx);
                if let Some(mut lead) = follow.tick_succession(group, cx) {
                    lead.tick(group, cx);
                    self.duty = Duty::Lead(Box::new(lead));
                }
            }
        }
    }

    #[cfg(any(test, feature = "testing"))]
    pub fn group(&self) -> &Group {
        &self.group
    }

    #[cfg(test)]
    pub fn group_mut(&mut self) -> &mut Group {
        &mut self.group
    }

    /// A MAC under the proof key that we share with the leader.
    #[cfg(feature = "simulator")]
    pub fn prove(&self, bytes: &[u8]) -> Option<[u8; 32]> {
        match &self.duty {
            Duty::Follow(follow) => Some(follow.pairing.as_ref()?.prove(bytes)),
            Duty::Lead(_) => None,
        }
    }

    /// What the leader shares with a participant, to misuse it.
    #[cfg(test)]
    pub fn lead_pairing(&mut self, participant: ParticipantId) -> &mut crate::crypto::wrap::Pairing {
        match &mut self.duty {
            Duty::Lead(lead) => lead.pairing(participant),
            Duty::Follow(_) => unreachable!("a test of leaders"),
        }
    }

    /// Ends all streams of others, for the elements.
    pub fn close(&mut self, cx: &mut Cx<'_>) {
        self.group.streams.all_gone(cx);
    }

    pub fn ending(&self) -> Option<EndReason> {
        self.group.ending
    }

    /// Phase and lease.
    pub fn phase(&self, now: BootTime) -> (Phase, BootTime) {
        match &self.duty {
            Duty::Lead(lead) => (Phase::Live, lead.ticked + LIMIT),
            Duty::Follow(follow) => match follow.lease() {
                None => (Phase::Joining(WaitReason::Key), BootTime(0)),
                Some(until) if now <= until && self.group.epochs.lacks_key(now) => {
                    (Phase::Joining(WaitReason::Key), until)
                }
                Some(until) if now <= until => (Phase::Live, until),
                Some(until) => (Phase::Stale, until),
            },
        }
    }

    pub fn deadline(&self, now: BootTime) -> BootTime {
        let duty = match &self.duty {
            Duty::Lead(lead) => lead.deadline(),
            Duty::Follow(follow) => {
                let succession = follow.succession_deadline(&self.group);
                let head = self.group.witness.deadline();
                [succession, head].into_iter().flatten().fold(follow.deadline(), BootTime::min)
            }
        };
        self.group.epochs.deadline(now).map_or(duty, |at| at.min(duty))
    }

    pub fn roster_code(&self) -> SecurityCode {
        self.group.roster_code()
    }

    pub fn describe(&self, me: &Me, state: &mut State) {
        let header = &self.group.roster.header;
        let person = |entry: &Entry| Person {
            participant: entry.participant,
            index: entry.index,
            name: entry.name.clone(),
            role: entry.role,
            device: entry.device.fingerprint(),
            present: entry.present,
            leader: entry.participant == header.leader,
            successor: self.group.roster.rank(entry.participant).map(|rank| rank as u8 + 1),
            me: entry.participant == me.participant,
            forked: self.group.witness.doubts(entry.participant),
        };
        state.leading = matches!(self.duty, Duty::Lead(_));
        state.leader_verified = self.verified.unwrap_or(false);
        state.epoch = self.group.epochs.newest_with_key();
        state.code = Some(self.group.code);
        state.locked = header.locked;
        state.roster = self.group.roster.entries().map(person).collect();
        state.streams = self.group.streams.infos();
        if let Duty::Lead(lead) = &self.duty {
            state.waiting = lead.admission.waiting();
        }
    }
}

fn on_leave(leave: &Signed<Leave>, duty: &mut Duty, group: &mut Group, cx: &mut Cx<'_>) {
    let Some(entry) = group.roster.entry(leave.body.participant) else { return };
    let body = &leave.body;
    let signed = leave.is_by(&entry.signer) || weakness::is(Weakness::LeaveUnsigned);
    if body.meeting != cx.me.meeting || body.instance != group.instance || !signed {
        cx.counters.forged += 1;
        return;
    }
    group.streams.leaves(body.participant, cx);
    if let Duty::Lead(lead) = duty {
        lead.on_leave(body);
    }
}

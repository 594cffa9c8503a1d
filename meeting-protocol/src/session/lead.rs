//! A leader: makes keys, lets people in and out, and beats.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use meeting_wire::{Encode, ParticipantId, Slot};

use super::{
    EndReason, LeaveReason, Successors,
    admission::Admission,
    claims::{Heartbeat, Leave, MAX_ECHOES, Nonce},
    context::Cx,
    group::Group,
    message::{Ask, Message, Offer, ProvenPulse, Wrap},
    statement::EpochKey,
    succession,
    welcome::Welcome,
};
use crate::{
    BootTime,
    announce::SignedAnnounce,
    crypto::{
        labels,
        sign::Hash,
        wrap::{Pairing, PairingContext},
    },
    roster::{Change, Entry, EpochOpening, Link, MAX_SUCCESSORS, Removal, Roster, SignedLink, Successor},
    secret::Secret,
    session::Role,
};

/// Between two heartbeats.
const BEAT: Duration = Duration::from_secs(2);
/// Between a first pulse and the heartbeat that returns it.
const EARLY_BEAT: Duration = Duration::from_millis(50);
/// How long a challenge is good for, from the heartbeat that carries it.
pub(super) const CHALLENGE: Duration = Duration::from_secs(30);
/// How long a key lasts.
const ROTATE: Duration = Duration::from_secs(120);
/// Joins within this time share a rotation.
const COALESCE: Duration = Duration::from_secs(1);
/// After so long without a pulse somebody is gone.
const MISSING: Duration = Duration::from_secs(90);
/// Between two answers to one participant.
const ANSWER: Duration = Duration::from_millis(200);

/// A leader's own state.
pub(super) struct Lead {
    /// Leader time counts from here, so that nobody learns how long this machine has been up.
    since: BootTime,
    counter: u64,
    last: Hash,
    next_beat: BootTime,
    challenges: VecDeque<(Hash, BootTime)>,
    echoes: Vec<Nonce>,
    peers: HashMap<ParticipantId, Peer>,
    /// Accepted announces of those who are in, for successors and welcomes.
    pub announces: HashMap<ParticipantId, SignedAnnounce>,
    pub own: SignedAnnounce,
    pub admission: Admission,
    next_join: BootTime,
    /// Proved, but no link says so yet.
    proved: Vec<ParticipantId>,
    next_rotation: BootTime,
    pub policy: Successors,
    /// When the lease was last renewed.
    pub ticked: BootTime,
    /// Rosters before the newest links, by the hash of the head they belong to.
    past: VecDeque<(Hash, Roster)>,
}

/// What a leader keeps for one participant.
struct Peer {
    pairing: Pairing,
    /// Sent along until the participant has proved to have it.
    offer: Option<Offer>,
    /// Of the newest epoch, for sending again byte for byte.
    wrap: Option<Wrap>,
    seen: BootTime,
    answered: Option<BootTime>,
}

impl Lead {
    pub fn new(own: SignedAnnounce, policy: Successors, now: BootTime) -> Self {
        Self {
            since: now,
            counter: 0,
            last: [0; 32],
            next_beat: now,
            challenges: VecDeque::new(),
            echoes: Vec::new(),
            peers: HashMap::new(),
            announces: HashMap::new(),
            own,
            admission: Admission::default(),
            next_join: now,
            proved: Vec::new(),
            next_rotation: now + ROTATE,
            policy,
            ticked: now,
            past: VecDeque::new(),
        }
    }

    /// The leader's clock; never 0, so that it grows from anything.
    pub fn time(&self, now: BootTime) -> u64 {
        now.since(self.since).as_millis() as u64 + 1
    }

    /// Changes the roster, with a new key if `rotate`, and tells everybody. Newcomers come as announces.
    pub fn commit(
        &mut self,
        mut changes: Vec<Change>,
        newcomers: Vec<SignedAnnounce>,
        rotate: bool,
        group: &mut Group,
        cx: &mut Cx<'_>,
    ) -> bool {
        let Ok(mut roster) = group.roster.after(&changes) else { return false };
        let epoch = group.epochs.newest.epoch + 1;
        let rotate = rotate || !newcomers.is_empty();
        let mut admitted = Vec::new();
        for announce in newcomers {
            let (hash, body) = (announce.hash(), announce.unverified().clone());
            let entry = Entry::new(roster.header.next_index, &body, hash, false);
            let participant = entry.participant;
            let mut added = Vec::new();
            if let Some(old) = roster.device(entry.device) {
                added.push(Change::Remove(Removal {
                    participant: old.participant,
                    reason: LeaveReason::Replaced,
                }));
            }
            added.push(Change::Add(entry));
            let Ok(after) = roster.after(&added) else { continue };
            let Some(peer) = self.pair(&announce, epoch, group, cx) else { continue };
            self.peers.insert(participant, peer);
            self.announces.insert(participant, announce);
            changes.extend(added);
            roster = after;
            admitted.push(participant);
        }
        let order = self.order(&roster);
        let limit = self.limit();
        let succession = limit != roster.header.successor_limit || order != roster.header.successors;
        let named: Vec<ParticipantId> = order.iter().map(|successor| successor.participant).collect();
        let new_successors: Vec<ParticipantId> =
            named.iter().copied().filter(|participant| group.roster.rank(*participant).is_none()).collect();
        if succession {
            let change = Change::Succession { limit, order };
            let Ok(after) = roster.after(std::slice::from_ref(&change)) else { return false };
            changes.push(change);
            roster = after;
        }
        if changes.is_empty() && !rotate {
            return false;
        }
        let key = rotate.then(|| Secret::<32>::random(cx.rng));
        let opening = key.as_ref().map(|key| EpochOpening {
            epoch,
            commitment: EpochKey::commitment(key, cx.me.meeting, group.instance, epoch),
        });
        let link = cx.me.sign(Link {
            meeting: cx.me.meeting,
            instance: group.instance,
            number: group.head().body.number + 1,
            previous: group.head_hash(),
            leader: cx.me.participant,
            changes,
            digest: roster.digest(),
            time: self.time(cx.now),
            opening,
        });
        if self.limit() > 0 {
            if self.past.len() >= MAX_PAST {
                self.past.pop_front();
            }
            self.past.push_back((group.head_hash(), group.roster.clone()));
        }
        group.adopt(link.clone(), roster, cx);
        group.tell_all(&Message::Link(link), cx);
        self.peers.retain(|participant, _| group.roster.entry(*participant).is_some());
        self.announces.retain(|participant, _| group.roster.entry(*participant).is_some());
        self.proved.retain(|participant| group.roster.entry(*participant).is_some());
        if let Some(key) = key {
            self.next_rotation = cx.now + ROTATE;
            self.hand_out(epoch, key, &admitted, group, cx);
        }
        self.inform_successors(&named, &new_successors, &admitted, group, cx);
        true
    }

    /// Wraps a new key for everybody in the roster and nobody else.
    fn hand_out(
        &mut self,
        epoch: u64,
        key: Secret<32>,
        admitted: &[ParticipantId],
        group: &mut Group,
        cx: &mut Cx<'_>,
    ) {
        let link = group.epochs.newest.link;
        // Newcomers first: their welcome must not come behind what others say in the new epoch.
        let mut order: Vec<ParticipantId> = admitted.to_vec();
        order.extend(group.roster.entries().map(|entry| entry.participant).filter(|p| !admitted.contains(p)));
        for participant in order {
            let Some(peer) = self.peers.get_mut(&participant) else { continue };
            let Ok(sealed) = peer.pairing.wrap(epoch, &link, &key) else { continue };
            let wrap = Wrap { to: participant, epoch, link, offer: peer.offer.clone(), sealed };
            peer.wrap = Some(wrap.clone());
            if admitted.contains(&participant) {
                self.welcome(participant, group, cx);
            }
            group.tell(participant, &Message::Wrap(wrap), cx);
        }
        group.install(epoch, link, key, cx);
    }

    /// Takes over everybody who is in, as a new leader.
    pub fn adopt_peers(
        &mut self,
        announces: Vec<SignedAnnounce>,
        epoch: u64,
        group: &Group,
        cx: &mut Cx<'_>,
    ) -> HashSet<ParticipantId> {
        for announce in announces {
            if let Some(peer) = self.pair(&announce, epoch, group, cx) {
                let participant = announce.unverified().participant;
                self.peers.insert(participant, peer);
                self.announces.insert(participant, announce);
            }
        }
        self.peers.keys().copied().collect()
    }

    fn pair(&self, announce: &SignedAnnounce, start: u64, group: &Group, cx: &mut Cx<'_>) -> Option<Peer> {
        let context = PairingContext {
            meeting: cx.me.meeting,
            instance: group.instance,
            leader_announce: self.own.hash(),
            announce: announce.hash(),
            start,
            psk_generation: group.roster.header.psk_generation,
        };
        let (enc, pairing) =
            Pairing::offer(&announce.unverified().kem, cx.me.board.invite(), &context, cx.rng).ok()?;
        let signature = cx.me.signer.sign(labels::PAIRING, &context.signed_bytes(&enc));
        let offer = Some(Offer { start, enc, signature });
        Some(Peer { pairing, offer, wrap: None, seen: cx.now, answered: None })
    }

    fn welcome(&self, to: ParticipantId, group: &Group, cx: &mut Cx<'_>) {
        let Some(entry) = group.roster.entry(to) else { return };
        let at_head = group.epochs.newest.link == group.head_hash();
        let welcome = Welcome {
            announce: entry.announce,
            lineage: group.lineage.clone(),
            leader: self.own.clone(),
            head: group.head().clone(),
            epoch_link: (!at_head).then(|| group.epoch_link.clone()),
            header: group.roster.header.clone(),
            entries: group.roster.entries().cloned().collect(),
        };
        group.tell(to, &Message::Welcome(Box::new(welcome)), cx);
    }

    fn inform_successors(
        &self,
        named: &[ParticipantId],
        new: &[ParticipantId],
        admitted: &[ParticipantId],
        group: &Group,
        cx: &mut Cx<'_>,
    ) {
        for successor in named {
            let wanted =
                |participant: &ParticipantId| new.contains(successor) || admitted.contains(participant);
            let announces: Vec<SignedAnnounce> = self
                .announces
                .iter()
                .filter(|(participant, _)| *participant != successor && wanted(participant))
                .map(|(_, announce)| announce.clone())
                .collect();
            for chunk in announces.chunks(ANNOUNCES_PER_POST) {
                group.tell(*successor, &Message::Announces(chunk.to_vec()), cx);
            }
        }
    }

    fn limit(&self) -> u8 {
        match self.policy {
            Successors::Nobody => 0,
            Successors::FirstPresent(n) => n.min(MAX_SUCCESSORS as u8),
        }
    }

    /// Who is to take over: the first who proved to be present, no recorders and no bots.
    fn order(&self, roster: &Roster) -> Vec<Successor> {
        roster
            .entries()
            .filter(|entry| entry.present && entry.participant != roster.header.leader)
            .filter(|entry| !matches!(entry.role, Role::Recorder | Role::Bot))
            .take(self.limit().into())
            .map(|entry| Successor { participant: entry.participant, signer: entry.signer })
            .collect()
    }

    pub fn on_announce(&mut self, announce: SignedAnnounce, group: &mut Group, cx: &mut Cx<'_>) {
        self.challenges.retain(|(_, issued)| cx.now.since(*issued) <= CHALLENGE);
        let fresh = announce
            .unverified()
            .challenge
            .is_some_and(|challenge| self.challenges.iter().any(|(c, _)| *c == challenge));
        if !fresh
            || announce.unverified().instance != group.instance
            || announce.unverified().meeting != cx.me.meeting
        {
            cx.counters.stale += 1;
            return;
        }
        let participant = announce.unverified().participant;
        if let Some(entry) = group.roster.entry(participant) {
            // They ask again because they missed the answer; whoever is proved to be in does not ask.
            let missed = !entry.present && entry.signer == announce.unverified().signer;
            if missed && self.may_answer(participant, cx.now) {
                self.welcome(participant, group, cx);
                self.send_wrap(participant, group, cx);
            }
            return;
        }
        self.admission.on_announce(announce, group, cx);
    }

    pub fn on_pulse(&mut self, proven: &ProvenPulse, group: &mut Group, cx: &mut Cx<'_>) {
        let pulse = &proven.pulse.body;
        let entry = group.roster.entry(pulse.participant);
        let peer = self.peers.get_mut(&pulse.participant);
        let (Some(entry), Some(peer)) = (entry, peer) else {
            cx.counters.unauthorised += 1;
            return;
        };
        let proved = pulse.meeting == cx.me.meeting
            && pulse.instance == group.instance
            && peer.pairing.proves(&pulse.to_bytes(), &proven.mac)
            && proven.pulse.is_by(&entry.signer);
        if !proved {
            cx.counters.forged += 1;
            return;
        }
        if group.knows(&pulse.epoch_link) == Some(false) || group.knows(&pulse.head) == Some(false) {
            let text =
                format!("{} signs a pulse for another chain than ours: the meeting is forked", entry.name);
            cx.misbehaviour(text);
            return;
        }
        if self.echoes.contains(&pulse.nonce) {
            cx.counters.stale += 1;
            return;
        }
        peer.seen = cx.now;
        let waits = peer.offer.take().is_some();
        if let Some(wrap) = &mut peer.wrap {
            wrap.offer = None;
        }
        if self.echoes.len() < MAX_ECHOES {
            self.echoes.push(pulse.nonce);
        }
        if waits {
            self.next_beat = self.next_beat.min(cx.now + EARLY_BEAT);
        }
        if !entry.present && !self.proved.contains(&pulse.participant) {
            self.proved.push(pulse.participant);
        }
    }

    pub fn on_ask(&mut self, ask: &Ask, group: &mut Group, cx: &mut Cx<'_>) {
        if group.roster.entry(ask.participant).is_none() || !self.may_answer(ask.participant, cx.now) {
            cx.counters.unauthorised += 1;
            return;
        }
        if ask.head != group.head_hash() {
            match group.links_after(&ask.head) {
                Some(links) => {
                    for chunk in links.chunks(LINKS_PER_POST) {
                        group.tell(ask.participant, &Message::Links(chunk.to_vec()), cx);
                    }
                }
                None => self.welcome(ask.participant, group, cx),
            }
        }
        if ask.epoch < group.epochs.newest.epoch {
            self.send_wrap(ask.participant, group, cx);
        }
    }

    pub fn on_leave(&mut self, leave: &Leave, group: &mut Group, cx: &mut Cx<'_>) {
        self.remove(leave.participant, LeaveReason::Left, group, cx);
    }

    /// Somebody is out from the next link on, which opens a new epoch at once.
    pub fn remove(
        &mut self,
        participant: ParticipantId,
        reason: LeaveReason,
        group: &mut Group,
        cx: &mut Cx<'_>,
    ) -> bool {
        let change = Change::Remove(Removal { participant, reason });
        self.commit(vec![change], Vec::new(), true, group, cx)
    }

    fn may_answer(&mut self, participant: ParticipantId, now: BootTime) -> bool {
        self.peers.get_mut(&participant).is_some_and(|peer| {
            let due = peer.answered.is_none_or(|at| now.since(at) >= ANSWER);
            if due {
                peer.answered = Some(now);
            }
            due
        })
    }

    fn send_wrap(&self, to: ParticipantId, group: &Group, cx: &mut Cx<'_>) {
        if let Some(wrap) = self.peers.get(&to).and_then(|peer| peer.wrap.clone()) {
            group.tell(to, &Message::Wrap(wrap), cx);
        }
    }

    pub fn connected(&mut self, group: &mut Group, cx: &mut Cx<'_>) {
        // While nobody could reach us, nobody was missing; but they have not for ever.
        for peer in self.peers.values_mut() {
            peer.seen =
                peer.seen.max(BootTime(cx.now.0.saturating_sub((MISSING - BEAT * 15).as_millis() as u64)));
        }
        group.tell_all(&Message::Link(group.head().clone()), cx);
        group.restate(cx);
        self.next_beat = cx.now;
    }

    pub fn tick(&mut self, group: &mut Group, cx: &mut Cx<'_>) {
        self.admission.tick(cx.now);
        let missing: Vec<Change> = self
            .peers
            .iter()
            .filter(|(_, peer)| cx.now.since(peer.seen) >= MISSING)
            .map(|(participant, _)| {
                Change::Remove(Removal { participant: *participant, reason: LeaveReason::Missing })
            })
            .collect();
        if !missing.is_empty() {
            self.commit(missing, Vec::new(), true, group, cx);
        }
        if self.admission.is_due() && self.next_join <= cx.now {
            self.next_join = cx.now + COALESCE;
            let newcomers = self.admission.take(&group.roster);
            self.commit(Vec::new(), newcomers, false, group, cx);
        }
        if self.next_rotation <= cx.now {
            self.rotate(group, cx);
        }
        if self.next_beat <= cx.now {
            self.beat(group, cx);
        }
    }

    /// A new key for the same people.
    pub fn rotate(&mut self, group: &mut Group, cx: &mut Cx<'_>) {
        self.commit(Vec::new(), Vec::new(), true, group, cx);
    }

    fn beat(&mut self, group: &mut Group, cx: &mut Cx<'_>) {
        self.next_beat = cx.now + BEAT;
        self.ticked = cx.now;
        if !self.proved.is_empty() {
            let proved = std::mem::take(&mut self.proved);
            self.commit(proved.into_iter().map(Change::Present).collect(), Vec::new(), false, group, cx);
        }
        let challenge = *Secret::<32>::random(cx.rng).expose();
        self.challenges.retain(|(_, issued)| cx.now.since(*issued) <= CHALLENGE);
        if self.challenges.len() >= MAX_CHALLENGES {
            self.challenges.pop_front();
        }
        self.challenges.push_back((challenge, cx.now));
        self.counter += 1;
        let heartbeat = Heartbeat {
            meeting: cx.me.meeting,
            instance: group.instance,
            leader: cx.me.participant,
            counter: self.counter,
            head_number: group.head().body.number,
            head: group.head_hash(),
            epoch: group.epochs.newest.epoch,
            epoch_link: group.epochs.newest.link,
            challenge,
            time: self.time(cx.now),
            previous: self.last,
            echoes: std::mem::take(&mut self.echoes),
        };
        self.last = heartbeat.hash();
        cx.post(Slot::Cell, group.instance, &Message::Heartbeat(cx.me.sign(heartbeat)));
    }

    #[cfg(test)]
    pub fn pairing(&mut self, participant: ParticipantId) -> &mut Pairing {
        &mut self.peers.get_mut(&participant).expect("somebody in the meeting").pairing
    }

    pub fn deadline(&self) -> BootTime {
        let join = self.admission.is_due().then_some(self.next_join);
        let missing = self.peers.values().map(|peer| peer.seen + MISSING).min();
        [Some(self.next_beat), Some(self.next_rotation), join, missing]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.next_beat)
    }

    /// A link that is not ours claims the place after one of ours.
    pub fn on_link(&mut self, link: &SignedLink, group: &mut Group, cx: &mut Cx<'_>) {
        if link.body.leader == cx.me.participant {
            return;
        }
        // In a meeting cut in two we may have gone on meanwhile: what counts is the roster the successor had.
        let at_head = (group.head_hash(), &group.roster);
        let past = self.past.iter().map(|(head, roster)| (*head, roster));
        let valid = past
            .chain([at_head])
            .any(|before| succession::is_valid_takeover(link, before, group.instance, cx));
        if valid {
            group.ending = Some(EndReason::Branch);
        } else {
            cx.counters.unauthorised += 1;
        }
    }

    /// Somebody else beats in this instance: the leader we took over from, who has not heard of it.
    pub fn on_heartbeat(&mut self, heartbeat: &Heartbeat, group: &Group, cx: &mut Cx<'_>) {
        let step = group.lineage.steps.last().filter(|step| step.last.body.leader == heartbeat.leader);
        if let Some(step) = step {
            group.tell(heartbeat.leader, &Message::Link(step.takeover.clone()), cx);
        }
    }
}

/// Announces of 1.5 KB that one post carries.
const ANNOUNCES_PER_POST: usize = 128;
/// Rosters that are kept for a takeover from the past.
const MAX_PAST: usize = 16;
/// Links that one post carries.
const LINKS_PER_POST: usize = 16;
/// Challenges that are good at one time: one each two seconds, and early ones.
const MAX_CHALLENGES: usize = 256;

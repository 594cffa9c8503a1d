//! A leader: makes keys, lets people in and out, and beats.

pub(super) mod answers;
mod beat;
mod handout;
mod requests;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    iter,
    time::Duration,
};

use meeting_wire::{Encode, ParticipantId};

use self::answers::{Allowance, Missed};
use super::{
    LeaveReason, Successors,
    admission::{Admission, NEWCOMERS},
    branch::Rivals,
    claims::Nonce,
    context::Cx,
    epoch_key::EpochKey,
    freshness::LIMIT,
    group::Group,
    message::{Message, Offer, Wrap},
    succession::majority,
    welcome,
};
use crate::{
    BootTime,
    announce::SignedAnnounce,
    crypto::{
        sign::{Hash, StayPublic},
        wrap::Pairing,
    },
    roster::{Change, Entry, EpochOpening, MAX_SUCCESSORS, Removal, Roster, Successor},
    secret::Secret,
    session::Role,
    weakness::{self, Weakness},
};

/// Between two heartbeats.
pub const BEAT: Duration = Duration::from_secs(2);
/// Between a first pulse and the heartbeat that returns it.
const EARLY_BEAT: Duration = Duration::from_millis(50);
/// How long a challenge is good for, from the heartbeat that carries it.
pub(super) const CHALLENGE: Duration = Duration::from_secs(30);
/// How long a key lasts.
const ROTATE: Duration = Duration::from_secs(120);
/// Joins within this time share a rotation.
const COALESCE: Duration = Duration::from_secs(1);
/// Leaves within this time share one too; the first has its own at once.
const COALESCE_LEAVES: Duration = Duration::from_millis(500);
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
    pub(super) challenges: VecDeque<(Hash, BootTime)>,
    /// Of each who pulsed since the last beat the newest nonce, so that nobody crowds out the others'.
    echoes: BTreeMap<ParticipantId, Nonce>,
    peers: BTreeMap<ParticipantId, Peer>,
    /// Accepted announces of those who are in, for successors and welcomes.
    pub announces: HashMap<ParticipantId, SignedAnnounce>,
    pub own: SignedAnnounce,
    pub admission: Admission,
    next_join: BootTime,
    /// Said that they leave, and no link says so yet.
    leaving: Vec<ParticipantId>,
    next_leave: BootTime,
    /// Proved, but no link says so yet.
    proved: Vec<ParticipantId>,
    next_rotation: BootTime,
    pub policy: Successors,
    /// When the lease was last renewed.
    pub ticked: BootTime,
    /// Who went last and may not know yet: their key, the link they went with, and when we last told them.
    gone: VecDeque<Gone>,
    /// Since when nobody can reach us.
    cut_off: Option<BootTime>,
    pub(super) rivals: Rivals,
    /// For welcomes and links.
    allowance: Allowance,
}

/// Somebody who is out.
struct Gone {
    participant: ParticipantId,
    signer: StayPublic,
    /// The number of the link that said so.
    link: u64,
    told: Option<BootTime>,
}

/// What a leader keeps for one participant.
struct Peer {
    pairing: Pairing,
    /// Sent along until the participant has proved to have it.
    offer: Option<Offer>,
    /// Of the newest epoch, for sending again byte for byte.
    wrap: Option<Wrap>,
    seen: BootTime,
    /// When they were last answered; at first as long ago as it takes to be answered again.
    answered: BootTime,
    /// Until it is answered.
    asked: Option<Missed>,
}

/// A link that is being made.
struct Draft {
    changes: Vec<Change>,
    /// The list after them.
    roster: Roster,
    /// Who comes in by it.
    admitted: Vec<ParticipantId>,
}

impl Lead {
    pub fn new(own: SignedAnnounce, policy: Successors, now: BootTime) -> Self {
        Self {
            since: now,
            counter: 0,
            last: [0; 32],
            next_beat: now,
            challenges: VecDeque::new(),
            echoes: BTreeMap::new(),
            peers: BTreeMap::new(),
            announces: HashMap::new(),
            own,
            admission: Admission::default(),
            next_join: now,
            leaving: Vec::new(),
            next_leave: now,
            proved: Vec::new(),
            next_rotation: now + ROTATE,
            policy,
            ticked: now,
            gone: VecDeque::new(),
            cut_off: None,
            rivals: Rivals::default(),
            allowance: Allowance::default(),
        }
    }

    /// The leader's clock; never 0, so that it grows from anything.
    pub fn time(&self, now: BootTime) -> u64 {
        now.since(self.since).as_millis() as u64 + 1
    }

    /// Changes the roster, with a new key if `rotate`, and tells everybody. Newcomers come as announces.
    pub fn commit(
        &mut self,
        changes: Vec<Change>,
        newcomers: Vec<SignedAnnounce>,
        rotate: bool,
        group: &mut Group,
        cx: &mut Cx<'_>,
    ) -> bool {
        let Ok(roster) = group.roster.after(&changes) else { return false };
        let epoch = group.epochs.newest.epoch + 1;
        let mut draft = Draft { changes, roster, admitted: Vec::new() };
        for announce in newcomers {
            self.admit(announce, epoch, &mut draft, group, cx);
        }
        // Whoever comes or goes opens an epoch.
        let moves = |change: &Change| matches!(change, Change::Add(_) | Change::Remove(_));
        let rotate = rotate || draft.changes.iter().any(moves);
        let Some(named) = self.name_successors(&mut draft, group) else { return false };
        let is_new = |participant: &ParticipantId| group.roster.rank(*participant).is_none();
        let new_successors: Vec<ParticipantId> = named.iter().copied().filter(is_new).collect();
        let Draft { changes, roster, admitted } = draft;
        if changes.is_empty() && !rotate {
            return false;
        }
        let key = rotate.then(|| Secret::<32>::random(cx.rng));
        let opening = key.as_ref().map(|key| EpochOpening {
            epoch,
            commitment: EpochKey::commitment(key, cx.me.meeting, group.instance, epoch),
        });
        // who is in stays the same where only the key changes
        let digest = if changes.is_empty() { group.head().body.digest } else { roster.digest() };
        let link = group.next_link(cx.me.participant, (changes, digest), opening, self.time(cx.now));
        let link = cx.me.sign(link);
        self.let_go(link.body.number, &roster, group);
        group.adopt(link.clone(), roster, cx);
        group.tell_all(&Message::Link(link), cx);
        if let Some(key) = key {
            self.next_rotation = cx.now + ROTATE;
            self.hand_out(epoch, key, &admitted, group, cx);
        }
        self.inform_successors(&named, &new_successors, &admitted, group, cx);
        true
    }

    /// Lets somebody in with the link that is being drafted, in the place of whoever came by the same device, and pairs with them.
    fn admit(
        &mut self,
        announce: SignedAnnounce,
        epoch: u64,
        draft: &mut Draft,
        group: &Group,
        cx: &mut Cx<'_>,
    ) {
        let newcomer =
            Entry::new(draft.roster.header.next_index, announce.unverified(), announce.hash(), false);
        let old = draft.roster.device(newcomer.device);
        let replaced = old.map(|old| {
            Change::Remove(Removal { participant: old.participant, reason: LeaveReason::Replaced })
        });
        let added: Vec<Change> = replaced.into_iter().chain([Change::Add(newcomer.clone())]).collect();
        let Ok(roster) = draft.roster.after(&added) else { return };
        let Some(peer) = self.pair(&announce, epoch, group, cx) else { return };
        let participant = newcomer.participant;
        self.peers.insert(participant, peer);
        self.admission.let_in(&newcomer, cx.now);
        self.announces.insert(participant, announce);
        draft.changes.extend(added);
        draft.roster = roster;
        draft.admitted.push(participant);
    }

    /// Says in the link who is to take over, if that changes. Gives their order; none if the list refuses it.
    fn name_successors(&self, draft: &mut Draft, group: &Group) -> Option<Vec<ParticipantId>> {
        let may_be_succeeded = self.may_be_succeeded(&draft.changes, &draft.roster, group);
        let order = if may_be_succeeded { self.order(&draft.roster) } else { Vec::new() };
        let named = order.iter().map(|successor| successor.participant).collect();
        let (limit, header) = (self.limit(), &draft.roster.header);
        if limit != header.successor_limit || order != header.successors {
            let change = Change::Succession { limit, order };
            draft.roster = draft.roster.after(std::slice::from_ref(&change)).ok()?;
            draft.changes.push(change);
        }
        Some(named)
    }

    /// Forgets whoever is not in the next roster, and remembers that the link of this number said so.
    fn let_go(&mut self, link: u64, next: &Roster, group: &Group) {
        let stays: HashSet<ParticipantId> = next.entries().map(|entry| entry.participant).collect();
        for entry in group.roster.entries().filter(|entry| !stays.contains(&entry.participant)) {
            if self.gone.len() >= MAX_GONE {
                self.gone.pop_front();
            }
            let (participant, signer) = (entry.participant, entry.signer);
            self.gone.push_back(Gone { participant, signer, link, told: None });
        }
        self.peers.retain(|participant, _| {
            weakness::is(Weakness::RecipientsUnchecked) || stays.contains(participant)
        });
        self.announces.retain(|participant, _| stays.contains(participant));
        self.echoes.retain(|participant, _| stays.contains(participant));
        self.proved.retain(|participant| stays.contains(participant));
        self.leaving.retain(|participant| stays.contains(participant));
    }

    fn limit(&self) -> u8 {
        match self.policy {
            Successors::Nobody => 0,
            Successors::FirstPresent(n) => n.min(MAX_SUCCESSORS as u8),
        }
    }

    /// Whether another change of leader, after a link of these changes, can still be shown to newcomers.
    fn may_be_succeeded(&self, changes: &[Change], roster: &Roster, group: &Group) -> bool {
        if self.limit() == 0 {
            return false;
        }
        let link =
            |changes: &[Change]| LINK + changes.iter().map(|change| change.to_bytes().len()).sum::<usize>();
        // The takeover that this link is stands in no chain yet.
        let ours = changes.iter().any(|change| matches!(change, Change::Takeover(_)));
        let ours =
            ours.then(|| link(&group.head().body.changes) + group.roster.to_bytes().len() + link(changes));
        let (people, entries) = (roster.entries().len(), roster.to_bytes().len());
        let votes = VOTE * majority(roster.present().count());
        let next = link(changes) + entries + LINK + votes + REMOVAL * people;
        let (steps, bytes) = (1 + usize::from(ours.is_some()), next + ours.unwrap_or(0));
        group.lineage.fits(steps, bytes)
            && welcome::is_a_post(group.lineage.to_bytes().len() + bytes, entries)
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

    /// The keys of whoever is in under this id, or was with a leader of our chain, or went of late. One, but where
    /// somebody came in under an id of long ago.
    pub fn signers(&self, participant: ParticipantId, group: &Group) -> Vec<StayPublic> {
        let earlier = group.lineage.steps.iter().map(|step| &step.roster);
        let entries = iter::once(&group.roster).chain(earlier).filter_map(|roster| roster.entry(participant));
        let gone = self.gone.iter().filter(|gone| gone.participant == participant).map(|gone| gone.signer);
        let mut signers: Vec<StayPublic> = Vec::new();
        for signer in entries.map(|entry| entry.signer).chain(gone) {
            if !signers.contains(&signer) {
                signers.push(signer);
            }
        }
        signers
    }

    pub fn connected(&mut self, group: &mut Group, cx: &mut Cx<'_>) {
        // While nobody could reach us, nobody was missing; how often the relay cuts us off gives nobody more.
        let outage = self.cut_off.take().map_or(Duration::ZERO, |at| cx.now.since(at));
        for peer in self.peers.values_mut() {
            peer.seen = (peer.seen + outage).min(cx.now);
        }
        group.tell_all(&Message::Link(group.head().clone()), cx);
        group.restate(cx);
        self.next_beat = cx.now;
    }

    pub fn disconnected(&mut self, now: BootTime) {
        self.cut_off.get_or_insert(now);
    }

    /// When somebody was last seen: while we are cut off nobody's time runs.
    fn missing_at(&self, peer: &Peer) -> Option<BootTime> {
        self.cut_off.is_none().then_some(peer.seen + MISSING)
    }

    pub fn tick(&mut self, group: &mut Group, cx: &mut Cx<'_>) {
        self.admission.tick(cx.now);
        let missing: Vec<Change> = self
            .peers
            .iter()
            .filter(|(_, peer)| self.missing_at(peer).is_some_and(|at| at <= cx.now))
            .map(|(participant, _)| {
                Change::Remove(Removal { participant: *participant, reason: LeaveReason::Missing })
            })
            .collect();
        if !missing.is_empty() {
            self.commit(missing, Vec::new(), true, group, cx);
        }
        if !self.leaving.is_empty() && self.next_leave <= cx.now {
            self.next_leave = cx.now + COALESCE_LEAVES;
            let changes = std::mem::take(&mut self.leaving)
                .into_iter()
                .map(|participant| Change::Remove(Removal { participant, reason: LeaveReason::Left }))
                .collect();
            self.commit(changes, Vec::new(), true, group, cx);
        }
        if self.admission.is_due() && self.next_join <= cx.now {
            self.next_join = cx.now + COALESCE;
            self.let_in(group, cx);
        }
        if self.next_rotation <= cx.now {
            self.rotate(group, cx);
        }
        if self.next_beat <= cx.now {
            self.beat(group, cx);
        }
        self.answer(group, cx);
    }

    /// Lets in some of those who are at the door.
    fn let_in(&mut self, group: &mut Group, cx: &mut Cx<'_>) {
        let is_unproved = |entry: &&Entry| !entry.present && !self.proved.contains(&entry.participant);
        let unproved: Vec<Entry> = group.roster.entries().filter(is_unproved).cloned().collect();
        // What they were let in for has run out: those who wait come first.
        let is_late = |entry: &&Entry| {
            let peer = self.peers.get(&entry.participant).filter(|_| unproved.len() >= NEWCOMERS);
            peer.is_some_and(|peer| cx.now.since(peer.seen) >= LIMIT)
        };
        let late: Vec<Entry> = unproved.iter().filter(is_late).cloned().collect();
        let stay = unproved.len() - late.len();
        let room = NEWCOMERS.saturating_sub(stay).min(self.newcomers(group, cx.now));
        let is_fresh = |announce: &SignedAnnounce| given(&self.challenges, announce, cx.now).is_some();
        let newcomers = self.admission.take(room, group, is_fresh, cx.now);
        let goes = |Entry { participant, .. }: &Entry| {
            Change::Remove(Removal { participant: *participant, reason: LeaveReason::Missing })
        };
        let changes = late.iter().map(goes).collect();
        if !newcomers.is_empty() && self.commit(changes, newcomers, false, group, cx) {
            late.iter().for_each(|entry| self.admission.made_room(entry, cx.now));
        }
    }

    /// A new key for the same people.
    pub fn rotate(&mut self, group: &mut Group, cx: &mut Cx<'_>) {
        self.commit(Vec::new(), Vec::new(), true, group, cx);
    }

    #[cfg(any(test, feature = "simulator"))]
    pub fn pairing(&mut self, participant: ParticipantId) -> &mut Pairing {
        &mut self.peers.get_mut(&participant).expect("somebody in the meeting").pairing
    }

    /// The key stays, until somebody comes or goes.
    #[cfg(feature = "simulator")]
    pub fn keep_key(&mut self) {
        self.next_rotation = BootTime(u64::MAX);
    }

    /// A pairing with a participant and the offer of it, to misuse them.
    #[cfg(feature = "testing")]
    pub fn offer(
        &self,
        participant: ParticipantId,
        start: u64,
        group: &Group,
        cx: &mut Cx<'_>,
    ) -> Option<(Pairing, Offer)> {
        let peer = self.pair(self.announces.get(&participant)?, start, group, cx)?;
        Some((peer.pairing, peer.offer?))
    }

    /// What others can fill here.
    #[cfg(feature = "simulator")]
    pub fn sizes(&self) -> Vec<super::inside::Size> {
        use crate::roster::MAX_ENTRIES;
        let mut sizes = vec![
            ("challenges", self.challenges.len(), MAX_CHALLENGES),
            ("echoes", self.echoes.len(), super::claims::MAX_ECHOES),
            ("peers", self.peers.len(), MAX_ENTRIES),
            ("announces", self.announces.len(), MAX_ENTRIES),
            ("proved", self.proved.len(), MAX_ENTRIES),
            ("leaving", self.leaving.len(), MAX_ENTRIES),
            ("gone", self.gone.len(), MAX_GONE),
            self.rivals.size(),
        ];
        sizes.extend(self.admission.sizes());
        sizes
    }

    pub fn deadline(&self) -> BootTime {
        let join = self.admission.is_due().then_some(self.next_join);
        let leave = (!self.leaving.is_empty()).then_some(self.next_leave);
        let missing = self.peers.values().filter_map(|peer| self.missing_at(peer)).min();
        [Some(self.next_beat), Some(self.next_rotation), join, leave, missing, self.next_answer()]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.next_beat)
    }
}

/// When the challenge was given that an announce answers; none if it is good no more.
fn given(
    challenges: &VecDeque<(Hash, BootTime)>,
    announce: &SignedAnnounce,
    now: BootTime,
) -> Option<BootTime> {
    let answered = announce.unverified().challenge;
    let is_good =
        |(known, given): &&(Hash, BootTime)| Some(*known) == answered && now.since(*given) <= CHALLENGE;
    let given = challenges.iter().find(is_good).map(|(_, given)| *given);
    given.or(weakness::is(Weakness::ChallengeUnchecked).then_some(now))
}

/// Announces of 1.5 KB that one post carries.
const ANNOUNCES_PER_POST: usize = 128;
/// The most bytes of a link without its changes but with a resignation and the names of successors, of a vote and of a
/// removal in it.
const LINK: usize = 1024;
const VOTE: usize = 192;
const REMOVAL: usize = 18;
/// People who went and are told so when they ask.
const MAX_GONE: usize = 64;
/// Links that one post carries.
const LINKS_PER_POST: usize = 16;
/// Challenges that are good at one time: one each two seconds, and early ones.
const MAX_CHALLENGES: usize = 256;

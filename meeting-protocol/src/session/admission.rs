//! The leader's door: who comes in at once, who waits for a person's word, who stays out.

mod turns;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use meeting_wire::{Encode, ParticipantId};

use self::turns::Turns;
use super::{
    Approval, CommandError, Event,
    claims::{Answer, Verdict},
    context::Cx,
    group::Group,
    lead::CHALLENGE,
    message::{Message, Reply},
    welcome,
};
use crate::{
    BootTime,
    announce::{Announce, SignedAnnounce},
    crypto::sign::Hash,
    identity::DevicePublic,
    roster::{Entry, MAX_ENTRIES},
    weakness::{self, Weakness},
};

/// People who are in and have not proved to be here, at most: whoever comes beyond waits in the queue. No more come in with
/// one link.
pub(super) const NEWCOMERS: usize = 64;
/// People who wait at most.
const MAX_WAITING: usize = 64;
/// How long somebody waits without a sign.
const WAIT: Duration = Duration::from_secs(60);
/// How long an approval is good for: the device has to announce itself anew meanwhile.
const APPROVED: Duration = Duration::from_secs(60);
/// Stays accepted in one instance at most; as many as indices.
const MAX_ACCEPTED: usize = 1 << 16;

/// Answers in one second at most, and their bytes: each carries the chain of leaders with all its votes.
const MAX_ANSWERS: usize = 32;
const ANSWER_BYTES: usize = 1 << 18;

/// Who is at the door.
#[derive(Default)]
pub(super) struct Admission {
    /// In the order in which they came.
    queue: Vec<SignedAnnounce>,
    waiting: BTreeMap<ParticipantId, Waiting>,
    approved: HashMap<DevicePublic, Approved>,
    /// A stay that was let in once never is again, by whichever of its announces.
    accepted: HashSet<Stay>,
    /// But those that made room before they were seen, and when: by a challenge of later they may come again.
    unseen: HashMap<Stay, BootTime>,
    turns: Turns,
    /// When this second of answers began, and how many it has seen.
    answers: (BootTime, usize),
}

/// A device in one of its stays.
type Stay = (DevicePublic, ParticipantId);

/// Somebody whom the leader's user has let in: their place stays theirs until their device has announced itself anew.
struct Approved {
    participant: ParticipantId,
    until: BootTime,
}

struct Waiting {
    announce: SignedAnnounce,
    seen: BootTime,
}

impl Admission {
    /// An announce from somebody who is not in, with a fresh challenge and the time this was given.
    pub fn on_announce(&mut self, signed: SignedAnnounce, given: BootTime, group: &Group, cx: &mut Cx<'_>) {
        let hash = signed.hash();
        let stay = (signed.unverified().device, signed.unverified().participant);
        let was_in = self.accepted.contains(&stay) || self.unseen.get(&stay).is_some_and(|at| given <= *at);
        if was_in && !weakness::is(Weakness::StayRepeated) {
            cx.counters.stale += 1;
            return;
        }
        let Some(announce) = signed.verified() else {
            cx.counters.forged += 1;
            return;
        };
        let (participant, device) = (announce.participant, announce.device);
        let taken = |other: &SignedAnnounce| {
            let other = other.unverified();
            other.participant == participant && other.device != device
        };
        let kept = |(other, approved): (&DevicePublic, &Approved)| {
            approved.participant == participant && *other != device && cx.now <= approved.until
        };
        if self.waiting.values().any(|waiting| taken(&waiting.announce))
            || self.queue.iter().any(taken)
            || self.approved.iter().any(kept)
        {
            // The address is somebody else's: an approval must reach the device that the user was shown.
            cx.counters.unauthorised += 1;
            return;
        }
        if let Some(verdict) = self.verdict(announce, group, cx) {
            if verdict == Verdict::Waiting {
                let is_same = |waiting: &Waiting| waiting.announce.unverified().device == device;
                let first = !self.waiting.values().any(is_same);
                if first && self.waiting.len() >= MAX_WAITING {
                    cx.counters.over_limit += 1;
                    return;
                }
                if first {
                    cx.out.event(Event::WantsIn(approval(announce)));
                }
                // One line for each device, however often it starts anew.
                self.waiting.retain(|_, waiting| !is_same(waiting));
                self.waiting.insert(participant, Waiting { announce: signed, seen: cx.now });
            }
            self.tell(participant, hash, verdict, group, cx);
            return;
        }
        self.waiting.remove(&participant);
        self.enqueue(signed, cx);
    }

    fn verdict(&self, announce: &Announce, group: &Group, cx: &Cx<'_>) -> Option<Verdict> {
        let header = &group.roster.header;
        let device = announce.device;
        let is_in = group.roster.device(device).is_some();
        let full = group.roster.entries().len() >= MAX_ENTRIES || !self.can_welcome_one_more(group);
        if header.removed.contains(&device) || device == cx.me.device.public() {
            Some(Verdict::Refused)
        } else if header.locked && !is_in {
            Some(Verdict::Locked)
        } else if full && !is_in || !self.turns.has_index(device, header.next_index) {
            Some(Verdict::Refused)
        } else if self.needs_approval(device, group, cx.now) {
            Some(Verdict::Waiting)
        } else {
            None
        }
    }

    /// Whether somebody was removed, who may have made this device up, and the leader's user has not let it in.
    fn needs_approval(&self, device: DevicePublic, group: &Group, now: BootTime) -> bool {
        let approved = self.approved.get(&device).is_some_and(|approved| now <= approved.until);
        group.roster.header.spent && !group.known.contains(&device) && !approved
    }

    fn can_welcome_one_more(&self, group: &Group) -> bool {
        let newcomers = (self.queue.len() + 1).min(NEWCOMERS);
        let entries = group.roster.to_bytes().len() + newcomers * welcome::MAX_ENTRY;
        welcome::is_a_post(group.lineage.to_bytes().len(), entries)
    }

    fn enqueue(&mut self, signed: SignedAnnounce, cx: &mut Cx<'_>) {
        let device = signed.unverified().device;
        // However often somebody asks again, their place is the same.
        if let Some(place) = self.queue.iter_mut().find(|queued| queued.unverified().device == device) {
            *place = signed;
            return;
        }
        if self.queue.len() >= MAX_ENTRIES || self.accepted.len() >= MAX_ACCEPTED {
            cx.counters.over_limit += 1;
            return;
        }
        self.queue.push(signed);
    }

    /// The leader's user lets somebody in.
    pub fn approve(
        &mut self,
        participant: ParticipantId,
        group: &Group,
        cx: &mut Cx<'_>,
    ) -> Result<(), CommandError> {
        let waiting = self.waiting.remove(&participant).ok_or(CommandError::NobodyThere)?;
        let approved = Approved { participant, until: cx.now + APPROVED };
        self.approved.insert(waiting.announce.unverified().device, approved);
        if cx.now.since(waiting.seen) < CHALLENGE / 2 {
            self.enqueue(waiting.announce, cx);
        } else {
            self.tell(participant, waiting.announce.hash(), Verdict::Renew, group, cx);
        }
        Ok(())
    }

    /// Tells somebody, under our signature and with our right to it, what becomes of an announce.
    fn tell(&mut self, to: ParticipantId, announce: Hash, verdict: Verdict, group: &Group, cx: &mut Cx<'_>) {
        if cx.now.since(self.answers.0) >= Duration::from_secs(1) {
            self.answers = (cx.now, 0);
        }
        self.answers.1 += 1;
        if self.answers.1 > answers_a_second(group.lineage.to_bytes().len()) {
            cx.counters.over_limit += 1;
            return;
        }
        let (meeting, instance, leader) = (cx.me.meeting, group.instance, cx.me.participant);
        let answer = cx.me.sign(Answer { meeting, instance, leader, to, announce, verdict });
        group.tell(to, &Message::Answer(Box::new(Reply { answer, lineage: group.lineage.clone() })), cx);
    }

    /// Whether somebody is to be let in.
    pub fn is_due(&self) -> bool {
        !self.queue.is_empty()
    }

    /// This stay is in.
    pub fn let_in(&mut self, entry: &Entry, now: BootTime) {
        self.accepted.insert((entry.device, entry.participant));
        self.turns.took(entry.device, entry.index, now);
    }

    /// This stay made room for others before it was seen, as who was let in and heard nothing of it would.
    pub fn made_room(&mut self, entry: &Entry, now: BootTime) {
        let stay = (entry.device, entry.participant);
        self.accepted.remove(&stay);
        self.unseen.insert(stay, now);
    }

    /// This device has proved to be here.
    pub fn was_present(&mut self, device: DevicePublic) {
        self.turns.was_present(device);
    }

    /// Those who are to be let in with the next link, this many at most. Whose challenge is over meanwhile asks no more.
    pub fn take(
        &mut self,
        mut many: usize,
        group: &Group,
        is_fresh: impl Fn(&SignedAnnounce) -> bool,
        now: BootTime,
    ) -> Vec<SignedAnnounce> {
        let (mut queue, roster) = (std::mem::take(&mut self.queue), &group.roster);
        // The roster may have changed since they asked.
        queue.retain(|announce| {
            let device = announce.unverified().device;
            is_fresh(announce)
                && !roster.header.removed.contains(&device)
                && (!roster.header.locked || roster.device(device).is_some())
                && self.turns.has_index(device, roster.header.next_index)
                && !self.needs_approval(device, group, now)
        });
        let is_next = |announce: &SignedAnnounce| {
            let next = many > 0 && self.turns.is_due(announce.unverified().device, now);
            many -= usize::from(next);
            next
        };
        let (next, later) = queue.into_iter().partition(is_next);
        self.queue = later;
        next
    }

    /// Who waits for the leader's user.
    pub fn waiting(&self) -> Vec<Approval> {
        self.waiting.values().map(|waiting| approval(waiting.announce.unverified())).collect()
    }

    /// What others can fill here; only the user approves.
    #[cfg(feature = "simulator")]
    pub fn sizes(&self) -> Vec<super::inside::Size> {
        let mut sizes = vec![
            ("queue", self.queue.len(), MAX_ENTRIES),
            ("waiting", self.waiting.len(), MAX_WAITING),
            ("approved", self.approved.len(), MAX_ENTRIES),
            ("accepted", self.accepted.len(), MAX_ACCEPTED),
            // As many as one link lets in, one a second.
            ("unseen", self.unseen.len(), NEWCOMERS * (CHALLENGE.as_secs() as usize + 1)),
        ];
        sizes.extend(self.turns.sizes());
        sizes
    }

    pub fn tick(&mut self, now: BootTime) {
        self.waiting.retain(|_, waiting| now.since(waiting.seen) < WAIT);
        self.turns.tick(now);
        self.approved.retain(|_, approved| now <= approved.until);
        // All challenges that are good are of later then.
        self.unseen.retain(|_, at| now.since(*at) <= CHALLENGE);
    }
}

/// Answers in one second at most, with a chain of so many bytes: one at least, or nobody would ever be told.
pub(super) fn answers_a_second(chain: usize) -> usize {
    (ANSWER_BYTES / chain).clamp(1, MAX_ANSWERS)
}

fn approval(announce: &Announce) -> Approval {
    Approval {
        participant: announce.participant,
        name: announce.name.clone(),
        device: announce.device.fingerprint(),
        role: announce.role,
    }
}

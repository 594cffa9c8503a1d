//! What others sign of the chain they see, compared with ours: a leader who shows two chains is caught as soon as any word
//! of one side reaches the other (PROTOCOL.md 3.13).
//!
//! A member's word alone ends nothing: it is told by name, and the member is asked for what its leader has signed. That
//! convicts, whoever brings it.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use meeting_wire::{ParticipantId, Slot};

use super::{
    EndReason, Event,
    claims::{Head, Show},
    context::Cx,
    group::Group,
    message::Message,
    statement::Statement,
};
use crate::{
    BootTime,
    crypto::sign::{Hash, Signed},
    evidence::{Evidence, Fact, Word, contradiction_of},
    roster::{Link, SignedLink},
};

/// Between two heads of one member, in a small meeting.
const HEADS: Duration = Duration::from_secs(10);
/// In a large one each member's share of the time, so that 20 heads a second come from all together.
const SHARE: Duration = Duration::from_millis(50);
/// Between two questions to one member.
const QUESTION: Duration = Duration::from_secs(2);
/// Between two questions at all: to members, and to strangers, who may be anybody with the link.
const QUESTIONS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(1)];
/// Between two answers.
const ANSWERS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// What somebody signs of the chain.
pub(super) struct Sight {
    pub who: ParticipantId,
    /// Number and hash of the newest link, where it is said.
    pub head: Option<(u64, Hash)>,
    /// An epoch and the hash of the link that opened it.
    pub epoch: (u64, Hash),
}

/// How it fits to ours.
#[derive(Clone, Copy, PartialEq, Eq)]
enum View {
    Fits,
    /// It speaks of what we have not seen.
    Ahead,
    /// One number, two links.
    Differs,
}

/// What is remembered of it.
#[derive(Default)]
pub(super) struct Witness {
    next_head: Option<BootTime>,
    /// Who has signed for another chain than ours.
    doubted: HashSet<ParticipantId>,
    /// Who has stated a stream against the rules.
    misstated: HashSet<ParticipantId>,
    asked: HashMap<ParticipantId, BootTime>,
    /// For members and for strangers.
    next_question: [BootTime; 2],
    next_answer: [BootTime; 2],
}

impl Witness {
    /// Whether somebody has signed for another chain than ours.
    pub fn doubts(&self, who: ParticipantId) -> bool {
        self.doubted.contains(&who)
    }

    /// Somebody is gone.
    pub fn gone(&mut self, who: ParticipantId) {
        self.doubted.remove(&who);
        self.misstated.remove(&who);
    }

    /// When our next head is due.
    pub fn deadline(&self) -> Option<BootTime> {
        self.next_head
    }

    fn may_ask(&mut self, whom: ParticipantId, class: usize, now: BootTime) -> bool {
        self.asked.retain(|_, at| now.since(*at) < QUESTION);
        // So many at most are asked in that time, so the list has an end.
        let due = self.next_question[class] <= now && !self.asked.contains_key(&whom);
        if due {
            self.next_question[class] = now + QUESTIONS[class];
            self.asked.insert(whom, now);
        }
        due
    }
}

impl Group {
    /// Says to everybody where we stand, when it is time; not while we do not know ourselves.
    pub fn tick_head(&mut self, fresh: bool, cx: &mut Cx<'_>) {
        let pause = HEADS.max(SHARE * self.roster.entries().len() as u32);
        let Some(due) = self.witness.next_head else {
            // Not all at once after a change that all saw.
            let [share, ..] = cx.random16();
            self.witness.next_head = Some(cx.now + pause * u32::from(share) / 256);
            return;
        };
        if due > cx.now {
            return;
        }
        self.witness.next_head = Some(cx.now + pause);
        if fresh {
            let head = Head {
                meeting: cx.me.meeting,
                instance: self.instance,
                participant: cx.me.participant,
                number: self.head().body.number,
                head: self.head_hash(),
                epoch: self.epochs.newest.epoch,
                epoch_link: self.epochs.newest.link,
            };
            cx.post(Slot::Cell, self.instance, &Message::Head(cx.me.sign(head)));
        }
    }

    /// Somebody says where they stand.
    pub fn on_head(&mut self, head: &Signed<Head>, cx: &mut Cx<'_>) {
        let body = &head.body;
        if (body.meeting, body.instance) != (cx.me.meeting, self.instance) {
            cx.counters.forged += 1;
            return;
        }
        let sight = Sight {
            who: body.participant,
            head: Some((body.number, body.head)),
            epoch: (body.epoch, body.epoch_link),
        };
        // Who agrees tells nothing new, so that most signatures need not be looked at.
        if sight.who == cx.me.participant || self.view(&sight) == View::Fits {
            return;
        }
        if self.roster.entry(sight.who).is_some_and(|entry| !head.is_by(&entry.signer)) {
            cx.counters.forged += 1;
            return;
        }
        self.weigh(&sight, cx);
    }

    /// Whether a statement, whose signature holds, is for another chain than ours.
    pub fn is_forked(&mut self, statement: &Signed<Statement>, cx: &mut Cx<'_>) -> bool {
        let said = &statement.body;
        let sight = Sight { who: said.participant, head: None, epoch: (said.epoch, said.link) };
        self.differs(&sight, || Word::Statement(statement.clone()), cx)
    }

    /// Whether what somebody signed is for another chain than ours: then it is told and looked into. The leader's own
    /// word is proof.
    pub fn differs(&mut self, sight: &Sight, word: impl FnOnce() -> Word, cx: &mut Cx<'_>) -> bool {
        let differs = self.view(sight) == View::Differs;
        let convicted = differs && sight.who == self.roster.header.leader && self.convict(word(), cx);
        if !convicted {
            self.weigh(sight, cx);
        }
        differs
    }

    /// Somebody wants to see what our leader has signed: they stand elsewhere.
    pub fn on_show(&mut self, show: &Signed<Show>, cx: &mut Cx<'_>) {
        let body = &show.body;
        let entry = self.roster.entry(body.participant);
        let here = (body.meeting, body.instance) == (cx.me.meeting, self.instance);
        if !here || entry.is_some_and(|entry| !show.is_by(&entry.signer)) {
            cx.counters.forged += 1;
            return;
        }
        // Whom another chain let in we do not know. What we show everybody with the link can read anyway.
        let class = usize::from(entry.is_none());
        if self.witness.next_answer[class] > cx.now {
            cx.counters.over_limit += 1;
            return;
        }
        self.witness.next_answer[class] = cx.now + ANSWERS[class];
        // A newcomer has not got the link asked for: its first names the one before.
        let first =
            self.kept().filter(|link| link.body.number >= body.number).min_by_key(|link| link.body.number);
        let opens = |link: &&SignedLink| link.body.opening.is_some_and(|opening| opening.epoch == body.epoch);
        let opened = self.kept().find(opens).filter(|link| Some(*link) != first);
        let shown: Vec<SignedLink> = first.into_iter().chain(opened).cloned().collect();
        for link in shown {
            self.tell(body.participant, &Message::Links(vec![link]), cx);
        }
    }

    /// Ends the meeting if this word is the leader's and contradicts another one of the leader's that we have.
    pub fn convict(&mut self, word: Word, cx: &mut Cx<'_>) -> bool {
        let leader = self.roster.header.leader;
        let Some(signer) = self.roster.leader_signer().filter(|_| leader != cx.me.participant) else {
            return false;
        };
        let Some((ours, fault)) = self.against(&word) else { return false };
        if !word.is_by((leader, &signer), (cx.me.meeting, self.instance)) {
            return false;
        }
        self.caught(leader, &fault.to_string(), cx);
        if let Word::Link(link) = &ours {
            // Who showed us theirs is to see ours: we answer no more.
            for who in std::mem::take(&mut self.witness.asked).into_keys() {
                self.tell(who, &Message::Links(vec![link.clone()]), cx);
            }
        }
        let announce = self.leader_signed.clone().filter(|_| !self.lineage.steps.is_empty());
        match Evidence::new(self.lineage.clone(), announce, [ours, word]) {
            Ok(evidence) => cx.out.event(Event::Evidence(Box::new(evidence))),
            Err(error) => cx.misbehaviour(format!("the proof of it cannot be kept: {error}")),
        }
        true
    }

    /// Who leads, or takes the lead over, broke the protocol: nothing of it counts any more.
    pub fn caught(&mut self, who: ParticipantId, what: &str, cx: &mut Cx<'_>) {
        let name = self.roster.entry(who).map_or("the leader", |entry| &entry.name).to_owned();
        cx.misbehaviour(format!("{name}, who leads, {what}"));
        self.ending = Some(EndReason::LeaderMisbehaved);
    }

    /// A word of the leader's that we have and that this one contradicts.
    fn against(&self, word: &Word) -> Option<(Word, crate::evidence::Fault)> {
        let facts = word.facts();
        let near = |link: &Link| {
            link.leader == self.roster.header.leader
                && facts.iter().any(|(fact, _)| match *fact {
                    Fact::Link(number) => link.number == number || link.number == number + 1,
                    Fact::Epoch(epoch) => link.opening.is_some_and(|opening| opening.epoch == epoch),
                    Fact::Beat(_) => false,
                })
        };
        let links = self.kept().filter(|link| near(&link.body)).cloned().map(Word::Link);
        let beats = self.last_beat.iter().cloned().map(Word::Heartbeat);
        links.chain(beats).find_map(|ours| contradiction_of(&ours, word).map(|fault| (ours, fault)))
    }

    /// Somebody in the roster has signed for another chain than ours: told once. Gives whether it is news.
    pub fn doubt(&mut self, who: ParticipantId, cx: &mut Cx<'_>) -> bool {
        let Some(entry) = self.roster.entry(who) else { return false };
        let news = self.witness.doubted.insert(who);
        if news {
            let name = &entry.name;
            cx.misbehaviour(format!(
                "{name} signs for another chain than ours: the meeting is forked, or that device lies"
            ));
        }
        news
    }

    /// Somebody in the roster has stated a stream against the rules: told once.
    pub fn misstates(&mut self, who: ParticipantId, cx: &mut Cx<'_>) {
        let Some(entry) = self.roster.entry(who) else { return };
        if self.witness.misstated.insert(who) {
            let name = &entry.name;
            cx.misbehaviour(format!("{name} states a stream under another's key id or as another stream"));
        }
    }

    fn weigh(&mut self, sight: &Sight, cx: &mut Cx<'_>) {
        let view = self.view(sight);
        if view == View::Fits {
            return;
        }
        if view == View::Differs && self.doubt(sight.who, cx) {
            // The other side may not know yet.
            self.witness.next_head = Some(cx.now);
        }
        self.question(sight, cx);
    }

    /// Asks whoever stands elsewhere for what its leader has signed. A leader knows what it has signed itself.
    fn question(&mut self, sight: &Sight, cx: &mut Cx<'_>) {
        let class = usize::from(self.roster.entry(sight.who).is_none());
        if self.roster.header.leader == cx.me.participant || !self.witness.may_ask(sight.who, class, cx.now) {
            return;
        }
        let ours = self.head().body.number;
        let show = Show {
            meeting: cx.me.meeting,
            instance: self.instance,
            participant: cx.me.participant,
            number: sight.head.map_or(ours, |(number, _)| number.min(ours)),
            epoch: sight.epoch.0.min(self.epochs.newest.epoch),
        };
        self.tell(sight.who, &Message::Show(cx.me.sign(show)), cx);
    }

    fn view(&self, sight: &Sight) -> View {
        let head = sight.head.map_or(View::Fits, |(number, hash)| match self.link(number) {
            Some((known, _)) if *known == hash => View::Fits,
            Some(_) => View::Differs,
            None if number > self.head().body.number => View::Ahead,
            None => View::Fits,
        });
        let (epoch, hash) = sight.epoch;
        let opened = match self.opened(epoch) {
            Some(known) if known == hash => View::Fits,
            Some(_) => View::Differs,
            None if epoch > self.epochs.newest.epoch => View::Ahead,
            None => View::Fits,
        };
        match (head, opened) {
            (View::Differs, _) | (_, View::Differs) => View::Differs,
            (View::Ahead, _) | (_, View::Ahead) => View::Ahead,
            _ => View::Fits,
        }
    }
}

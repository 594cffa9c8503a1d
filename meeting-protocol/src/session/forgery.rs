//! What a member or a leader with a modified program can say: everything its keys allow, in anybody's name.

mod door;
mod leader;

use bytes::Bytes;
use meeting_wire::{Encode, Kind, ParticipantId, StreamId};
use rand_core::CryptoRng;

use super::{
    LeaveReason, Place, Session,
    claims::{Ask, Head, Heartbeat, Leads, Leave, Over, Pulse, Resignation, Show, SilenceVote},
    epochs::Opened,
    group::Group,
    lineage::Step,
    member::{Duty, Member},
    message::{Branch, Message, ProvenPulse, Wrap},
    statement::{Said, Statement, StreamFacts},
};
use crate::{
    announce::SignedAnnounce,
    beacon::{Beacon, Context, SignedBeacon, Span},
    crypto::sign::{Hash, Signed, SignedBody},
    frame::{CipherSuite, KeyId},
    roster::{Change, EpochOpening, Link, Removal, Takeover},
};

/// A lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// A stream in the victim's name.
    Statement,
    /// A stream of ours under the victim's index.
    Index,
    /// A heartbeat in the leader's name.
    Heartbeat,
    /// A link in the leader's name that removes the victim.
    Link,
    /// The same in our own name.
    OwnLink,
    /// A takeover with no vote but our own.
    Takeover,
    /// The same with a vote in everybody's name.
    Majority,
    /// The leader hands over to whom it named first.
    Resignation,
    /// It does, and we take over by that.
    Handover,
    /// The victim leaves.
    Leave,
    /// The leader ends the meeting.
    Over,
    /// The victim's pulse.
    Pulse,
    /// The victim's question.
    Ask,
    /// The victim finds the leader silent.
    Vote,
    /// A wrap for the victim that holds nothing.
    Wrap,
    /// That takeover as the chain of leaders of another branch.
    Branch,
    /// The victim's device wants in, in a stay of ours.
    Announce,
    /// Our device wants in under the victim's id.
    Twin,
    /// A device that we make up wants in: it may, and is never seen.
    Ghost,
    /// The victim is refused.
    Answer,
    /// The victim is let in, with true parts of what leaders signed.
    Welcome,
    /// We stand at a link that there is none of.
    Head,
    /// A question for the beginning of the chain, which we know.
    Show,
    /// That removal as the answer to a question, behind a true link.
    Links,
    /// The victim's announce under our signature, for successors.
    Announces,
}

/// What stands on the board for everybody who holds the link.
#[derive(Default)]
pub(crate) struct Seen {
    /// The victim's newest announce.
    pub announce: Option<SignedAnnounce>,
    /// The newest heartbeat.
    pub beat: Option<Signed<Heartbeat>>,
}

impl Lie {
    /// All.
    pub const ALL: [Self; 25] = [
        Self::Statement,
        Self::Index,
        Self::Heartbeat,
        Self::Link,
        Self::OwnLink,
        Self::Takeover,
        Self::Majority,
        Self::Resignation,
        Self::Handover,
        Self::Leave,
        Self::Over,
        Self::Pulse,
        Self::Ask,
        Self::Vote,
        Self::Wrap,
        Self::Branch,
        Self::Announce,
        Self::Twin,
        Self::Ghost,
        Self::Answer,
        Self::Welcome,
        Self::Head,
        Self::Show,
        Self::Links,
        Self::Announces,
    ];
}

/// What a session that is over leaves to a modified program: everything it had.
#[derive(Default)]
pub(super) struct Past {
    kept: bool,
    member: Option<Box<Member>>,
}

impl Past {
    /// Takes the place that the session loses.
    pub fn keep(&mut self, place: &mut Place) {
        if self.kept
            && let Place::Member(member) = std::mem::replace(place, Place::Ended)
        {
            self.member = Some(member);
        }
    }
}

impl Session {
    /// From now on what it has when it ends stays, for lies.
    pub(crate) fn keep_past(&mut self) {
        self.past.kept = true;
    }

    /// The membership that it has, or had when it ended. Not as a leader: what one can do is tried elsewhere.
    fn stands(&self) -> Option<&Member> {
        let member = match &self.place {
            Place::Member(member) => member,
            Place::Ended => self.past.member.as_ref()?,
            Place::Joining(_) => return None,
        };
        matches!(member.duty, Duty::Follow(_)).then_some(member)
    }

    /// Whether it can lie, and whether it is over.
    pub(crate) fn liar(&self) -> Option<bool> {
        self.stands().map(|_| matches!(self.place, Place::Ended))
    }

    /// A post that says this of the victim, sealed as every member can. None without a place, now or before.
    pub(crate) fn lie(
        &self,
        lie: Lie,
        victim: ParticipantId,
        seen: &Seen,
        rng: &mut dyn CryptoRng,
    ) -> Option<Bytes> {
        let member = self.stands()?;
        let group = &member.group;
        let message = self
            .message(lie, victim, member)
            .or_else(|| door::message(lie, victim, seen, (&self.me, group), rng))?;
        Some(self.me.board.seal(group.instance, &message.to_bytes(), rng))
    }

    /// A beacon of this number for these frames, as if it were the victim's.
    pub(crate) fn false_beacon(
        &self,
        victim: ParticipantId,
        number: u64,
        spans: Vec<Span>,
        rng: &mut dyn CryptoRng,
    ) -> Option<Bytes> {
        let member = self.stands()?;
        let Opened { epoch, link, .. } = member.group.epochs.newest;
        let body = Beacon { number, epoch, link, time: 1, spans };
        let (meeting, instance) = (&self.me.meeting.0, &member.group.instance.0);
        let context = Context { meeting, instance, sender: &victim.0 };
        let beacon = SignedBeacon::new(body, &context, &self.me.signer);
        let message = Message::Beacon(beacon).to_bytes();
        Some(self.me.board.seal(member.group.instance, &message, rng))
    }

    /// The same post or beacon with another last byte in it.
    pub(crate) fn spoilt(&self, post: &[u8], rng: &mut dyn CryptoRng) -> Option<Bytes> {
        let (instance, mut message) = self.me.board.open(post)?;
        *message.last_mut()? ^= 1;
        Some(self.me.board.seal(instance, &message, rng))
    }

    /// A head that differs from ours, as if it were the victim's.
    pub(crate) fn false_head(&self, victim: ParticipantId, rng: &mut dyn CryptoRng) -> Option<Bytes> {
        let Place::Member(member) = &self.place else { return None };
        let Opened { epoch, link, .. } = member.group.epochs.newest;
        let head = Head {
            meeting: self.me.meeting,
            instance: member.group.instance,
            participant: victim,
            number: member.group.head().body.number,
            head: [1; 32],
            epoch,
            epoch_link: link,
        };
        self.seal(&Message::Head(self.me.sign(head)), rng)
    }

    fn message(&self, lie: Lie, victim: ParticipantId, member: &Member) -> Option<Message> {
        let (group, me) = (&member.group, &self.me);
        let (meeting, instance, own) = (me.meeting, group.instance, me.participant);
        let (leader, head) = (group.roster.header.leader, group.head_hash());
        let number = group.head().body.number;
        let newest = group.epochs.newest;
        let vote = |participant| SilenceVote {
            meeting,
            instance,
            participant,
            leader,
            head_number: number,
            head,
            heartbeat: 1 << 40,
        };
        let resignation = |successor| me.sign(Resignation { meeting, instance, leader, head, successor });
        Some(match lie {
            Lie::Statement => self.statement(victim, group.roster.entry(victim)?.index, group)?,
            Lie::Index => self.statement(own, group.roster.entry(victim)?.index, group)?,
            Lie::Heartbeat => Message::Heartbeat(me.sign(Heartbeat {
                meeting,
                instance,
                leader,
                counter: 1 << 40,
                head_number: number,
                head,
                epoch: newest.epoch,
                epoch_link: newest.link,
                challenge: [1; 32],
                time: 1 << 40,
                previous: [0; 32],
                echoes: Vec::new(),
            })),
            Lie::Link => Message::Link(me.sign(removal(victim, leader, group)?)),
            Lie::OwnLink => Message::Link(me.sign(removal(victim, own, group)?)),
            Lie::Takeover => Message::Link(self.takeover(vec![me.sign(vote(own))], None, group)?),
            Lie::Majority => {
                let people = group.roster.present().map(|entry| entry.participant);
                let votes = people.filter(|person| *person != leader).map(|person| me.sign(vote(person)));
                Message::Link(self.takeover(votes.collect(), None, group)?)
            }
            Lie::Branch => {
                let takeover = self.takeover(vec![me.sign(vote(own))], None, group)?;
                let mut lineage = group.lineage.clone();
                lineage.steps.push(Step {
                    last: group.head().clone(),
                    roster: group.roster.clone(),
                    takeover,
                });
                let challenge = group.last_beat.as_ref().map_or([1; 32], |beat| beat.body.challenge);
                let word = me.sign(Leads { meeting, instance, leader: own, challenge });
                Message::Branch(Box::new(Branch { word, lineage }))
            }
            Lie::Resignation => {
                let first = group.roster.header.successors.first();
                Message::Resign(resignation(first.map_or(own, |first| first.participant)))
            }
            Lie::Handover => Message::Link(self.takeover(Vec::new(), Some(resignation(own)), group)?),
            Lie::Leave => Message::Leave(me.sign(Leave { meeting, instance, participant: victim })),
            Lie::Over => Message::Over(me.sign(Over { meeting, instance, leader })),
            Lie::Pulse => {
                let pulse = Pulse {
                    meeting,
                    instance,
                    participant: victim,
                    nonce: [1; 16],
                    head,
                    epoch_link: newest.link,
                    heard: 1 << 40,
                };
                Message::Pulse(ProvenPulse { mac: member.prove(&pulse.to_bytes())?, pulse: me.sign(pulse) })
            }
            Lie::Ask => Message::Ask(me.sign(Ask { meeting, instance, participant: victim, head, epoch: 0 })),
            Lie::Vote => Message::Vote(me.sign(vote(victim))),
            Lie::Wrap => Message::Wrap(Wrap {
                to: victim,
                epoch: newest.epoch,
                link: newest.link,
                offer: None,
                sealed: [7; 48],
            }),
            Lie::Head => Message::Head(me.sign(Head {
                meeting,
                instance,
                participant: own,
                number,
                head: [5; 32],
                epoch: newest.epoch,
                epoch_link: newest.link,
            })),
            Lie::Show => {
                Message::Show(me.sign(Show { meeting, instance, participant: own, number: 0, epoch: 0 }))
            }
            Lie::Links => {
                let removal = me.sign(removal(victim, leader, group)?);
                Message::Links(vec![group.head().clone(), removal])
            }
            // Those at the door.
            _ => return None,
        })
    }

    /// A takeover of ours on these grounds.
    fn takeover(
        &self,
        votes: Vec<Signed<SilenceVote>>,
        resignation: Option<Signed<Resignation>>,
        group: &Group,
    ) -> Option<Signed<Link>> {
        let (own, old) = (self.me.participant, group.roster.header.leader);
        let takeover = Takeover { leader: own, votes, resignation };
        let removal = Removal { participant: old, reason: LeaveReason::Missing };
        let changes = vec![Change::Takeover(takeover), Change::Remove(removal)];
        Some(self.sign(next(own, changes, Some([3; 32]), group)?))
    }

    /// A stream that nobody opened: its frames would be ours.
    fn statement(&self, participant: ParticipantId, index: u16, group: &Group) -> Option<Message> {
        let key = group.epochs.newest_key()?;
        let announce = group.roster.entry(participant)?.announce;
        let stream = StreamId(7_777);
        let facts = StreamFacts {
            stream,
            kind: Kind::Video,
            track: "forged".into(),
            caps: String::new(),
            instance: [7; 16],
            kid: KeyId::new(stream, index, key.epoch),
            suite: CipherSuite::default(),
        };
        let head = Statement {
            meeting: self.me.meeting,
            instance: group.instance,
            participant,
            epoch: key.epoch,
            link: key.link,
            counter: 1 << 40,
            sealed: Vec::new(),
        };
        // Sealed as its receivers will open it: under the index that their roster has.
        let index = group.roster.entry(participant)?.index;
        Some(Message::Statement(Statement::seal(
            head,
            &Said::Open(facts),
            key,
            (index, &announce),
            &self.me.signer,
        )))
    }

    fn sign<T: SignedBody>(&self, body: T) -> Signed<T> {
        self.me.sign(body)
    }
}

fn removal(victim: ParticipantId, leader: ParticipantId, group: &Group) -> Option<Link> {
    let changes = vec![Change::Remove(Removal { participant: victim, reason: LeaveReason::Removed })];
    next(leader, changes, Some([2; 32]), group)
}

/// The link after the head.
fn next(
    leader: ParticipantId,
    changes: Vec<Change>,
    commitment: Option<Hash>,
    group: &Group,
) -> Option<Link> {
    let digest = group.roster.after(&changes).ok()?.digest();
    let epoch = group.epochs.newest.epoch + 1;
    let opening = commitment.map(|commitment| EpochOpening { epoch, commitment });
    Some(group.next_link(leader, (changes, digest), opening, group.head().body.time + 1))
}

//! One participant's view of one meeting, without sockets, clock or threads.
//!
//! ```text
//! +--------------------------------------------------------------------------------------+
//! | Feed one input with `handle`, then drain `poll_output` until it gives `Timeout`.      |
//! | Then wait for whichever comes first: the next input, or that time (feed `Timeout`).   |
//! +--------------------------------------------------------------------------------------+
//!
//!   join --> follow <--> group <--> lead <-- admission
//!              |  ^                  ^
//!              v  freshness          |
//!            succession -------------'
//! ```
//!
//! Time and randomness are arguments, so a two-minute rotation tests in a microsecond and a failing run replays.
//! `group` is what leader and followers share: roster, chain, `lineage`, `epochs`, `streams`, `vouching`, `witness`. In `branch`
//! two who lead meet. What people sign is in `claims`, `statement` and `vouching`; `message` has the bytes of all of it, `epoch_key`
//! what is derived from a meeting key.

mod admission;
mod branch;
pub(crate) mod claims;
mod context;
mod epoch_key;
mod epochs;
mod error;
mod follow;
#[cfg(feature = "simulator")]
pub(crate) mod forgery;
pub(crate) mod freshness;
#[cfg(feature = "testing")]
pub mod fuzzing;
mod group;
mod input;
#[cfg(feature = "simulator")]
pub(crate) mod inside;
mod join;
pub(crate) mod lead;
pub(crate) mod lineage;
mod member;
pub(crate) mod message;
mod output;
pub(crate) mod statement;
mod streams;
pub(crate) mod succession;
#[cfg(test)]
mod tests;
mod vouching;
mod welcome;
mod witness;

pub use claims::{Resignation, SilenceVote};
pub use error::{CommandError, Counters, CreateError};
pub use input::{Command, Creating, Input, Joining, OpenStream, Role, Successors};
pub use output::{
    Approval, EndReason, Event, KeyChange, LeaveReason, Output, Person, Phase, State, StreamInfo, WaitReason,
};

use meeting_wire::{Decode, MeetingId, ParticipantId, Post};
use rand_core::CryptoRng;

use self::{
    context::{Cx, Me, Outbox},
    join::Join,
    member::Member,
    message::Message,
};
use crate::{
    BootTime,
    announce::clean_name,
    board::Board,
    crypto::{sign::StayKey, wrap::KemSecret},
    identity::DeviceKey,
    link::MeetingLink,
    security_code::SecurityCode,
};

/// One stay in one meeting.
pub struct Session {
    me: Me,
    place: Place,
    out: Outbox,
    counters: Counters,
    phase: Phase,
    lease: BootTime,
    timeout: BootTime,
    /// Kept for who lies on when it is over.
    #[cfg(feature = "simulator")]
    past: forgery::Past,
}

enum Place {
    Joining(Box<Join>),
    Member(Box<Member>),
    Ended,
}

impl Session {
    /// Opens a new instance of the meeting and leads it.
    ///
    /// # Errors
    ///
    /// [`CreateError::NotCreator`] if the link names another device.
    pub fn create(creating: Creating, now: BootTime, rng: &mut dyn CryptoRng) -> Result<Self, CreateError> {
        let Creating { link, device, name, role, successors } = creating;
        if device.public().fingerprint() != link.creator {
            return Err(CreateError::NotCreator);
        }
        let (me, _) = me(link, device, &name, role, rng);
        let (mut out, mut counters) = (Outbox::default(), Counters::default());
        let mut cx = Cx { me: &me, out: &mut out, counters: &mut counters, now, rng };
        let member = Member::create(successors, &mut cx).ok_or(CreateError::NotCreator)?;
        let place = Place::Member(Box::new(member));
        let phase = Phase::Joining(WaitReason::Key);
        let mut session = Self {
            me,
            place,
            out,
            counters,
            phase,
            lease: BootTime(0),
            timeout: now,
            #[cfg(feature = "simulator")]
            past: forgery::Past::default(),
        };
        session.settle(now, rng);
        Ok(session)
    }

    /// Asks for a place.
    pub fn join(joining: Joining, now: BootTime, rng: &mut dyn CryptoRng) -> Self {
        let Joining { link, device, name, role } = joining;
        let (me, kem) = me(link, device, &name, role, rng);
        Self {
            me,
            place: Place::Joining(Box::new(Join::new(kem, now))),
            out: Outbox::default(),
            counters: Counters::default(),
            phase: Phase::Joining(WaitReason::Leader),
            lease: BootTime(0),
            timeout: now,
            #[cfg(feature = "simulator")]
            past: forgery::Past::default(),
        }
    }

    /// Takes one input in. Bad posts are no errors: they are counted, and told as events where they show bad faith.
    ///
    /// # Errors
    ///
    /// Why a command was refused, for a person.
    pub fn handle(
        &mut self,
        input: Input,
        now: BootTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), CommandError> {
        let mut result = Ok(());
        let mut cx = Cx { me: &self.me, out: &mut self.out, counters: &mut self.counters, now, rng };
        match input {
            Input::Post(post) => {
                if let Some(member) = on_post(&mut self.place, &post, &mut cx) {
                    self.place = Place::Member(Box::new(member));
                }
            }
            Input::Beacon { from, body } => on_beacon(&mut self.place, from, &body, &mut cx),
            Input::Command(command) => {
                result = match &mut self.place {
                    Place::Joining(join) => join.command(command, &mut cx),
                    Place::Member(member) => member.command(command, &mut cx),
                    Place::Ended => Err(CommandError::Ended),
                };
            }
            Input::Connected => match &mut self.place {
                Place::Joining(join) => join.connected(&mut cx),
                Place::Member(member) => member.connected(&mut cx),
                Place::Ended => {}
            },
            Input::Disconnected => {
                if let Place::Member(member) = &mut self.place {
                    member.disconnected(now);
                }
            }
            Input::Timeout => {}
        }
        self.settle(now, rng);
        result
    }

    /// The next thing the session wants; [`Output::Timeout`] when there is nothing more.
    pub fn poll_output(&mut self) -> Output {
        self.out.pop().unwrap_or(Output::Timeout(self.timeout))
    }

    /// A glance.
    pub fn state(&self) -> State {
        let mut state = State {
            phase: self.phase,
            me: self.me.participant,
            leading: false,
            leader_verified: false,
            epoch: None,
            code: None,
            locked: false,
            roster: Vec::new(),
            waiting: Vec::new(),
            streams: Vec::new(),
            lease: self.lease,
        };
        if let Place::Member(member) = &self.place {
            member.describe(&self.me, &mut state);
        }
        state
    }

    /// Own address.
    pub fn me(&self) -> ParticipantId {
        self.me.participant
    }

    /// Which meeting.
    pub fn meeting(&self) -> MeetingId {
        self.me.meeting
    }

    /// What was refused, by reason.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How many heartbeats have come while this session asks for a place: a sign that somebody leads, or says so.
    pub fn heartbeats(&self) -> u64 {
        match &self.place {
            Place::Joining(join) => join.heartbeats,
            _ => 0,
        }
    }

    /// Whether a leader that the link vouches for has answered while this session asks for a place.
    pub fn is_vouched(&self) -> bool {
        matches!(&self.place, Place::Joining(join) if join.vouched)
    }

    /// A second code, over the roster as this device sees it: equal on two devices only if they see the same people
    /// at the same link. Slow, so only on demand. None before there is a roster.
    pub fn roster_code(&self) -> Option<SecurityCode> {
        match &self.place {
            Place::Member(member) => Some(member.roster_code()),
            _ => None,
        }
    }

    /// Lets time do its work, and tells what became of phase and lease.
    fn settle(&mut self, now: BootTime, rng: &mut dyn CryptoRng) {
        let mut cx = Cx { me: &self.me, out: &mut self.out, counters: &mut self.counters, now, rng };
        let ending = match &mut self.place {
            Place::Joining(join) => {
                join.tick(&mut cx);
                join.ending
            }
            Place::Member(member) => {
                member.tick(&mut cx);
                member.ending()
            }
            Place::Ended => None,
        };
        if let (Some(_), Place::Member(member)) = (ending, &mut self.place) {
            member.close(&mut cx);
        }
        let (phase, lease) = match (&self.place, ending) {
            (_, Some(reason)) => (Phase::Ended(reason), now),
            (Place::Ended, None) => (self.phase, self.lease),
            (Place::Joining(join), None) => (Phase::Joining(join.wait()), BootTime(0)),
            (Place::Member(member), None) => member.phase(now),
        };
        if ending.is_some() {
            #[cfg(feature = "simulator")]
            self.past.keep(&mut self.place);
            self.place = Place::Ended;
        }
        // A lease that has run out by itself needs no word; one that ends early does.
        if lease != self.lease && (lease > now || self.lease > lease) {
            self.lease = lease;
            self.out.keys(KeyChange::Lease { until: lease });
        }
        if phase != self.phase {
            if phase == Phase::Stale {
                self.out.keys(KeyChange::Lease { until: lease });
            }
            self.phase = phase;
            self.out.event(Event::Phase(phase));
        }
        self.timeout = match &self.place {
            Place::Joining(join) => join.deadline(),
            Place::Member(member) => member.deadline(now),
            Place::Ended => BootTime(u64::MAX),
        };
    }
}

/// Opens a post and hands it to where it belongs. Gives the membership if it was the welcome.
fn on_post(place: &mut Place, post: &Post, cx: &mut Cx<'_>) -> Option<Member> {
    if matches!(place, Place::Ended) || post.from == cx.me.participant {
        return None;
    }
    let Some((instance, message)) = cx.me.board.open(&post.body) else {
        cx.counters.sealed += 1;
        return None;
    };
    let Ok(message) = Message::from_bytes(&message) else {
        cx.counters.malformed += 1;
        return None;
    };
    // A stay asks for its own place: whoever has seen somebody's id could take it before them.
    if let Message::Announce(announce) = &message
        && announce.unverified().participant != post.from
    {
        cx.counters.unauthorised += 1;
        return None;
    }
    match place {
        Place::Joining(join) => match message {
            // The relay lets nobody post in another's name, so that nobody spoils the challenges of who does lead.
            Message::Heartbeat(heartbeat)
                if (heartbeat.body.instance, heartbeat.body.leader) == (instance, post.from) =>
            {
                join.on_heartbeat(&heartbeat.body, cx);
                None
            }
            Message::Answer(reply) => {
                join.on_answer(&reply, cx);
                None
            }
            Message::Welcome(welcome) => {
                let group = join.on_welcome(*welcome, cx)?;
                let Place::Joining(join) = std::mem::replace(place, Place::Ended) else { return None };
                let follow = join.into_follow(&group, cx);
                Some(Member::follow(group, follow))
            }
            _ => None,
        },
        Place::Member(member) => {
            member.on_message(instance, message, cx);
            None
        }
        Place::Ended => None,
    }
}

/// Opens a beacon, which came beside the media, for a member.
fn on_beacon(place: &mut Place, from: ParticipantId, body: &[u8], cx: &mut Cx<'_>) {
    let Place::Member(member) = place else { return };
    match cx.me.board.open(body).map(|(instance, message)| (instance, Message::from_bytes(&message))) {
        Some((instance, Ok(Message::Beacon(beacon)))) => member.on_beacon(instance, from, beacon, cx),
        Some(_) => cx.counters.malformed += 1,
        None => cx.counters.sealed += 1,
    }
}

fn me(
    link: MeetingLink,
    device: std::sync::Arc<DeviceKey>,
    name: &str,
    role: Role,
    rng: &mut dyn CryptoRng,
) -> (Me, KemSecret) {
    let (kem, kem_public) = KemSecret::random(rng);
    let mut participant = [0; 16];
    rng.fill_bytes(&mut participant);
    let me = Me {
        meeting: link.meeting,
        creator: link.creator,
        board: Board::new(link.secret, link.meeting),
        device,
        participant: ParticipantId(participant),
        signer: StayKey::random(rng),
        kem: kem_public,
        name: clean_name(name),
        role,
    };
    (me, kem)
}

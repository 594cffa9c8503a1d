//! The only place that feeds a [`Session`] and drains it.

mod asks;
mod outputs;
mod seek;
mod vouching;
mod wishes;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use meeting_protocol::{
    BootTime,
    session::{Command, Creating, EndReason, Input, Joining, Output, Phase, Session, State, WaitReason},
};
use meeting_wire::{Admission, Claim, FromRelay, NEWCOMER, ParticipantId, Slot, StreamId, ToRelay};
use rand_core::Rng as _;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tracing::{info, warn};

use self::{
    asks::Asks,
    seek::{FIND_LEADER, Seek},
};
use super::{Glance, Plan, Start, ToMeeting};
use crate::{
    clock,
    counters::Counters,
    error::AgentError,
    glance,
    keyholders::KeyHolders,
    relay_link::{Hail, LinkEvent, Media, RelayLink},
};

/// One meeting's loop and all it decides over.
pub struct Driver {
    plan: Plan,
    media: Media,
    counters: Arc<Counters>,
    wishes: mpsc::Receiver<ToMeeting>,
    own: mpsc::WeakSender<ToMeeting>,
    seen: watch::Sender<Glance>,

    session: Session,
    link: Option<RelayLink>,
    asks: Asks,
    /// How this stay calls the relay.
    hail: Hail,
    holders: KeyHolders,
    /// Streams on their way out: [`ToMeeting::Drained`] is the end of each.
    closing: JoinSet<()>,
    names: HashMap<ParticipantId, String>,
    asked: HashMap<(ParticipantId, StreamId), BootTime>,
    /// Beacons of others, as they came.
    beacons: mpsc::Receiver<(ParticipantId, Bytes)>,
    /// When we last signed for what we had sent.
    vouched: BootTime,
    /// When we last signed for what we send.
    signed: BootTime,
    /// Streams of which a person was told something bad last.
    doubted: BTreeSet<(ParticipantId, StreamId)>,
    events: VecDeque<String>,
    epochs: u64,
    /// The security code that the user has compared with the leader's; another one is not covered by it.
    compared: Option<String>,
    connected: bool,
    /// Why there is no relay connection, or why there will be none.
    down: Option<String>,
    refused: bool,
    next: BootTime,
    /// A new stay begins then.
    rejoin: Option<BootTime>,
    /// A new link is tried then, where none could be made.
    redial: Option<BootTime>,
    /// Whether a creator looks for somebody who leads already.
    seeking: bool,
    /// Until when it looks; only while connected.
    create: Option<Seek>,
}

impl Driver {
    /// Begins a stay.
    pub fn new(
        plan: Plan,
        start: Start,
        (media, beacons): (Media, mpsc::Receiver<(ParticipantId, Bytes)>),
        counters: Arc<Counters>,
        wishes: mpsc::Receiver<ToMeeting>,
        own: mpsc::WeakSender<ToMeeting>,
        seen: watch::Sender<Glance>,
    ) -> Result<Self, AgentError> {
        let (session, link, hail) = begin(&plan, start, &media)?;
        let now = clock::now();
        let seeking = start == Start::Join && plan.creator.is_some();
        Ok(Self {
            plan,
            media,
            counters,
            wishes,
            own,
            seen,
            session,
            link: Some(link),
            asks: Asks::new(Instant::now()),
            hail,
            holders: KeyHolders::default(),
            closing: JoinSet::new(),
            names: HashMap::new(),
            asked: HashMap::new(),
            beacons,
            vouched: now,
            signed: now,
            doubted: BTreeSet::new(),
            events: VecDeque::new(),
            epochs: 0,
            compared: None,
            connected: false,
            down: None,
            refused: false,
            next: now,
            rejoin: None,
            redial: None,
            seeking,
            create: None,
        })
    }

    /// Runs until the user leaves.
    pub async fn run(mut self) {
        self.drain();
        self.show();
        loop {
            let mut wait = self.wait();
            if wait.is_zero() {
                // However much comes in, time goes on.
                self.tick();
                wait = self.wait().max(Duration::from_millis(1));
            }
            tokio::select! {
                wish = self.wishes.recv() => match wish {
                    None => return,
                    Some(ToMeeting::Leave(done)) => {
                        self.leave().await;
                        let _ = done.send(());
                        return;
                    }
                    Some(wish) => self.wish(wish),
                },
                event = next(&mut self.link) => self.link_event(event),
                Some((from, body)) = self.beacons.recv() => self.beacon(from, body),
                () = tokio::time::sleep(wait) => self.tick(),
            }
        }
    }

    /// Until the next thing is due; at most a second, because the timer stops while the machine sleeps.
    fn wait(&self) -> Duration {
        let create = self.create.map(|seek| seek.until());
        let due = [Some(self.next), self.rejoin, self.redial, create, self.vouching_due()];
        let due = due.into_iter().flatten().min();
        let most = if self.asks.waits() { Duration::from_millis(50) } else { Duration::from_secs(1) };
        due.unwrap_or_default().since(clock::now()).min(most)
    }

    fn tick(&mut self) {
        let now = clock::now();
        if self.rejoin.is_some_and(|at| at <= now) {
            self.restart(Start::Join);
        } else if self.create.is_some_and(|seek| seek.until() <= now) {
            self.create = None;
            // who waits for an answer has seen the last heartbeat of a leader that may be long gone
            let phase = self.session.state().phase;
            if matches!(phase, Phase::Joining(WaitReason::Leader | WaitReason::Answer)) {
                info!(meeting = %self.plan.link.meeting, "nobody leads: leading");
                self.restart(Start::Create);
            }
        }
        if self.redial.is_some_and(|at| at <= now) {
            self.relink();
        }
        if self.vouching_due().is_some_and(|at| at <= now) {
            self.vouch();
        }
        if self.next <= now {
            let _ = self.feed(Input::Timeout);
            self.drain();
        }
        self.send([]);
    }

    fn feed(&mut self, input: Input) -> Result<(), String> {
        let mut rng = clock::rng().map_err(|error| error.to_string())?;
        self.session.handle(input, clock::now(), &mut rng).map_err(|error| error.to_string())
    }

    fn command(&mut self, command: Command) -> Result<(), String> {
        self.feed(Input::Command(command))
    }

    /// Takes everything the session wants to the one it is for.
    fn drain(&mut self) {
        let mut changed = false;
        loop {
            match self.session.poll_output() {
                Output::Timeout(at) => {
                    self.next = at;
                    break;
                }
                Output::Post { slot, body } => self.send([ToRelay::Post { slot, body }]),
                Output::Keys(change) => {
                    changed = true;
                    self.keys(change);
                }
                Output::Beacon(body) => self.media.publisher.beacon(body),
                Output::Vouched { from, vouch } => {
                    let outcome = self.media.watching.vouched(from, &vouch);
                    self.found(outcome);
                }
                Output::Event(event) => {
                    changed = true;
                    self.event(event);
                }
            }
        }
        if changed {
            self.show();
        }
    }

    /// Tells elements and waiting commands where the meeting stands.
    fn show(&mut self) {
        let state = self.session.state();
        self.names = state.roster.iter().map(|person| (person.participant, person.name.clone())).collect();
        let (phase, detail) = self.standing(&state);
        let mut shown = glance::for_elements(&state, &detail);
        shown.phase = phase.into();
        shown.verified = self.verified(&shown.security_code);
        self.holders.state(shown);
        self.seen.send_if_modified(|seen| {
            let now = Glance { phase, detail };
            let differs = *seen != now;
            if differs && seen.phase != phase {
                info!(meeting = %self.plan.link.meeting, phase, "the meeting's phase");
            }
            *seen = now;
            differs
        });
    }

    /// Whether the user has compared this very code with the leader's.
    fn verified(&self, code: &str) -> bool {
        self.compared.as_deref() == Some(code)
    }

    fn standing(&self, state: &State) -> (&'static str, String) {
        let phase = if self.refused { "ended" } else { glance::phase(state.phase) };
        let detail = match (&self.down, state.phase) {
            (Some(down), _) if self.refused => down.clone(),
            (_, Phase::Ended(EndReason::Branch | EndReason::Stale)) if self.rejoin.is_some() => {
                "asking for a place again".into()
            }
            (_, Phase::Ended(reason)) => glance::detail(Phase::Ended(reason)).into(),
            (Some(down), _) => format!("{down}{TRYING}"),
            (None, _) if !self.connected => "calling the relay".into(),
            (None, phase) => glance::detail(phase).into(),
        };
        // a stay that is followed by another is not the end
        if self.rejoin.is_some() { ("joining", detail) } else { (phase, detail) }
    }

    fn send(&mut self, messages: impl IntoIterator<Item = ToRelay>) {
        // the session posts again what still counts when it hears `Connected`
        if !self.connected {
            return;
        }
        let Some(link) = &self.link else { return };
        for message in self.asks.pass(messages, Instant::now()) {
            if let Err(mpsc::error::TrySendError::Full(_)) = link.out.try_send(message) {
                warn!(meeting = %self.plan.link.meeting, "the relay does not keep up: calling it anew");
                return self.relink();
            }
        }
    }

    /// A new connection for the same stay.
    fn relink(&mut self) {
        (self.link, self.redial) = (None, None);
        self.disconnected();
        match RelayLink::start(self.hail.clone(), self.media.clone()) {
            Ok(link) => self.link = Some(link),
            Err(error) => {
                (self.down, self.redial) = (Some(error.to_string()), Some(clock::now() + REDIAL));
                self.show();
            }
        }
    }

    fn disconnected(&mut self) {
        self.create = None;
        self.asks = Asks::new(Instant::now());
        self.media.watching.disconnected();
        if std::mem::take(&mut self.connected) {
            let _ = self.feed(Input::Disconnected);
        }
    }

    fn link_event(&mut self, event: Option<LinkEvent>) {
        match event {
            None => self.link = None,
            Some(LinkEvent::Up) => {
                (self.connected, self.down) = (true, None);
                self.create = self.seeking.then(|| Seek::new(clock::now()));
                let streams = self.media.publisher.streams();
                self.send(streams.into_iter().map(|(stream, kind)| ToRelay::Publish { stream, kind }));
                let _ = self.feed(Input::Connected);
            }
            Some(LinkEvent::Down(reason)) => {
                self.down = Some(reason);
                self.disconnected();
            }
            Some(LinkEvent::Refused(refusal)) => {
                (self.down, self.refused) = (Some(refusal.to_string()), true);
                self.disconnected();
            }
            Some(LinkEvent::Message(message)) => return self.message(message),
        }
        self.drain();
        self.show();
    }

    fn message(&mut self, message: FromRelay) {
        match message {
            FromRelay::Post(post) => {
                let heard = self.session.heartbeats();
                let read = (post.slot == Slot::Log).then_some(post.seq);
                let _ = self.feed(Input::Post(post));
                if let Some(read) = read {
                    self.hail.since.store(read, Ordering::Relaxed);
                }
                if let Some(seek) = &mut self.create
                    && self.session.heartbeats() > heard
                {
                    seek.heard(self.session.is_vouched(), clock::now());
                }
                self.drain();
            }
            FromRelay::Published { from, stream, kind, route } => {
                let messages = self.media.watching.offered(route, (from, stream), kind);
                self.send(messages);
            }
            FromRelay::Unpublished { route } => {
                self.asks.gone(route);
                let messages = self.media.watching.withdrawn(route);
                self.send(messages);
            }
            FromRelay::KeyframeWanted { stream } => self.media.publisher.keyframe_wanted(stream),
            // who is gone is the leader's to say; the relay's word is not even a hint worth acting on
            _ => {}
        }
    }

    /// A new stay in the same meeting.
    fn restart(&mut self, start: Start) {
        (self.rejoin, self.redial, self.create, self.link) = (None, None, None, None);
        self.asks = Asks::new(Instant::now());
        (self.connected, self.down, self.refused) = (false, None, false);
        self.media.watching.all_ended();
        for (stream, _) in self.media.publisher.streams() {
            // a new stay numbers its streams anew: nothing of the old one may go on
            drop(self.media.publisher.close(stream));
        }
        self.media.publisher.forget_sent();
        self.holders.dismiss();
        self.asked.clear();
        self.doubted.clear();
        match begin(&self.plan, start, &self.media) {
            Ok((session, link, hail)) => {
                (self.session, self.link, self.hail) = (session, Some(link), hail);
                self.seeking = start == Start::Join && self.plan.creator.is_some();
            }
            Err(error) => {
                warn!(meeting = %self.plan.link.meeting, %error, "cannot begin a new stay");
                self.rejoin = Some(clock::now() + FIND_LEADER);
            }
        }
        self.drain();
        self.show();
    }

    async fn leave(&mut self) {
        self.last_word().await;
        let _ = self.command(Command::Leave);
        self.drain();
        if let Some(link) = self.link.take() {
            link.goodbye().await;
        }
    }
}

/// What the link says next; never, where there is none.
async fn next(link: &mut Option<RelayLink>) -> Option<LinkEvent> {
    match link {
        Some(link) => link.events.recv().await,
        None => std::future::pending().await,
    }
}

fn begin(plan: &Plan, start: Start, media: &Media) -> Result<(Session, RelayLink, Hail), AgentError> {
    let mut rng = clock::rng()?;
    let (link, device, name, role) =
        (plan.link.duplicate(), plan.device.clone(), plan.name.clone(), plan.role);
    let session = match (start, &plan.creator) {
        (Start::Create, Some(creator)) => {
            let creating = Creating { link, device, name, role, successors: creator.successors.clone() };
            Session::create(creating, clock::now(), &mut rng)
                .map_err(|error| AgentError::Session(error.to_string()))?
        }
        _ => Session::join(Joining { link, device, name, role }, clock::now(), &mut rng),
    };
    let mut claim = [0; 16];
    rng.fill_bytes(&mut claim);
    let hail = Hail {
        relay: plan.link.relay.clone(),
        certificate: plan.link.relay_certificate,
        meeting: session.meeting(),
        participant: session.me(),
        claim: Claim(claim),
        admission: match &plan.creator {
            Some(creator) => Admission::Create { token: creator.token.clone() },
            None => Admission::Join,
        },
        since: Arc::new(AtomicU64::new(NEWCOMER)),
    };
    let relay = RelayLink::start(hail.clone(), media.clone())?;
    Ok((session, relay, hail))
}

/// Until a link is tried again that could not be made: for want of file descriptors, say.
const REDIAL: Duration = Duration::from_secs(1);
/// Ends the detail of a meeting without a relay connection.
pub const TRYING: &str = "; trying again";

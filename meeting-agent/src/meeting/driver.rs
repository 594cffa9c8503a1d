//! The only place that feeds a [`Session`] and drains it.

use std::{collections::HashMap, collections::VecDeque, sync::Arc, time::Duration};

use meeting_protocol::{
    BootTime,
    local::{FromAgent, ToAgent},
    session::{
        Command, Creating, EndReason, Event, Input, Joining, KeyChange, OpenStream, Output, Phase, Session,
        State, WaitReason,
    },
};
use meeting_wire::{Admission, Claim, FromRelay, ParticipantId, StreamId, ToRelay};
use rand_core::Rng as _;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::{Glance, Plan, Start, ToMeeting, UserCommand, people};
use crate::{
    clock,
    control::{Status, Stream},
    counters::Counters,
    error::AgentError,
    glance,
    keyholders::{KeyHolders, OpenKey, Own},
    relay_link::{Hail, LinkEvent, Media, RelayLink},
    watch::Stated,
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
    claim: Claim,
    holders: KeyHolders,
    names: HashMap<ParticipantId, String>,
    asked: HashMap<(ParticipantId, StreamId), BootTime>,
    events: VecDeque<String>,
    epochs: u64,
    connected: bool,
    /// Why there is no relay connection, or why there will be none.
    down: Option<String>,
    refused: bool,
    next: BootTime,
    /// A new stay begins then.
    rejoin: Option<BootTime>,
    /// A creator that has found no leader by then leads.
    create: Option<BootTime>,
}

impl Driver {
    /// Begins a stay.
    pub fn new(
        plan: Plan,
        start: Start,
        media: Media,
        counters: Arc<Counters>,
        wishes: mpsc::Receiver<ToMeeting>,
        own: mpsc::WeakSender<ToMeeting>,
        seen: watch::Sender<Glance>,
    ) -> Result<Self, AgentError> {
        let (session, link, claim) = begin(&plan, start, &media)?;
        let now = clock::now();
        let create = (start == Start::Join && plan.creator.is_some()).then(|| now + FIND_LEADER);
        Ok(Self {
            plan,
            media,
            counters,
            wishes,
            own,
            seen,
            session,
            link: Some(link),
            claim,
            holders: KeyHolders::default(),
            names: HashMap::new(),
            asked: HashMap::new(),
            events: VecDeque::new(),
            epochs: 0,
            connected: false,
            down: None,
            refused: false,
            next: now,
            rejoin: None,
            create,
        })
    }

    /// Runs until the user leaves.
    pub async fn run(mut self) {
        self.drain();
        loop {
            let wait = self.wait();
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
                () = tokio::time::sleep(wait) => self.tick(),
            }
        }
    }

    /// Until the next thing is due; at most a second, because the timer stops while the machine sleeps.
    fn wait(&self) -> Duration {
        let due = [Some(self.next), self.rejoin, self.create].into_iter().flatten().min();
        due.unwrap_or_default().since(clock::now()).clamp(Duration::from_millis(1), Duration::from_secs(1))
    }

    fn tick(&mut self) {
        let now = clock::now();
        if self.rejoin.is_some_and(|at| at <= now) {
            self.restart(Start::Join);
        } else if self.create.is_some_and(|at| at <= now) {
            self.create = None;
            if self.session.state().phase == Phase::Joining(WaitReason::Leader) {
                self.restart(Start::Create);
            }
        }
        if self.next <= now {
            let _ = self.feed(Input::Timeout);
            self.drain();
        }
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

    fn standing(&self, state: &State) -> (&'static str, String) {
        let phase = if self.refused { "ended" } else { glance::phase(state.phase) };
        let detail = match (&self.down, state.phase) {
            (Some(down), _) if self.refused => down.clone(),
            (_, Phase::Ended(EndReason::Branch | EndReason::Stale)) if self.rejoin.is_some() => {
                "asking for a place again".into()
            }
            (Some(down), Phase::Joining(_) | Phase::Stale) => format!("{down}; trying again"),
            (_, phase) => glance::detail(phase).into(),
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
        for message in messages {
            if let Err(mpsc::error::TrySendError::Full(_)) = link.out.try_send(message) {
                warn!(meeting = %self.plan.link.meeting, "the relay does not keep up: calling it anew");
                return self.relink();
            }
        }
    }

    /// A new connection for the same stay.
    fn relink(&mut self) {
        self.link = None;
        self.disconnected();
        let hail = hail(&self.plan, &self.session, self.claim);
        match RelayLink::start(hail, self.media.clone()) {
            Ok(link) => self.link = Some(link),
            Err(error) => self.down = Some(error.to_string()),
        }
    }

    fn disconnected(&mut self) {
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
                let _ = self.feed(Input::Post(post));
                self.drain();
            }
            FromRelay::Published { from, stream, kind, route } => {
                let messages = self.media.watching.offered(route, (from, stream), kind);
                self.send(messages);
            }
            FromRelay::Unpublished { route } => {
                let messages = self.media.watching.withdrawn(route);
                self.send(messages);
            }
            FromRelay::KeyframeWanted { stream } => self.media.publisher.keyframe_wanted(stream),
            // who is gone is the leader's to say; the relay's word is not even a hint worth acting on
            _ => {}
        }
    }

    fn keys(&mut self, change: KeyChange) {
        match change {
            KeyChange::Seal { stream, epoch, kid, suite, base_key, keyframe } => {
                let suite = suite as u16;
                self.holders
                    .seal(stream, &FromAgent::SealKey { stream, epoch, kid, suite, base_key, keyframe });
            }
            KeyChange::Retire { before, at } => self.holders.retire(before, at),
            KeyChange::Open { from, stream, track, kind, caps, epoch, kid, suite, base_key, floor } => {
                let name = self.name(from);
                let stated = Stated { name: name.clone(), track: track.clone(), kind, caps };
                let suite = suite as u16;
                self.holders.open(from, stream, OpenKey { name, track, epoch, kid, suite, base_key, floor });
                let messages = self.media.watching.stated((from, stream), stated);
                self.send(messages);
            }
            KeyChange::Close { from, stream } => {
                self.holders.close(from, stream);
                let messages = self.media.watching.ended((from, stream));
                self.send(messages);
            }
            KeyChange::Expire { before } => self.holders.expire(before),
            KeyChange::Lease { until } => self.holders.lease(until),
        }
    }

    fn name(&mut self, participant: ParticipantId) -> String {
        if !self.names.contains_key(&participant) {
            let roster = self.session.state().roster;
            self.names = roster.into_iter().map(|person| (person.participant, person.name)).collect();
        }
        self.names.get(&participant).cloned().unwrap_or_default()
    }

    fn event(&mut self, event: Event) {
        let meeting = self.plan.link.meeting;
        match &event {
            Event::Phase(Phase::Ended(reason)) => self.ended(*reason),
            Event::Phase(Phase::Live) => self.create = None,
            Event::Epoch(epoch) => {
                self.epochs += 1;
                info!(%meeting, epoch, "a new key is in use");
            }
            Event::LeaderChanged { participant, .. } => info!(%meeting, %participant, "somebody else leads"),
            Event::Misbehaviour(_) => {
                warn!(%meeting, "a peer broke the protocol: `meeting-agent status` says who")
            }
            _ => {}
        }
        if let Some(sentence) = glance::event(&event) {
            if self.events.len() >= EVENTS {
                self.events.pop_front();
            }
            self.events.push_back(sentence);
        }
    }

    fn ended(&mut self, reason: EndReason) {
        info!(meeting = %self.plan.link.meeting, ?reason, "out of the meeting");
        if matches!(reason, EndReason::Branch | EndReason::Stale) {
            self.rejoin = Some(clock::now() + REJOIN + Duration::from_millis(clock::jitter(1_000)));
            return;
        }
        // out for good: say goodbye to the relay, and let elements hear why before they are dismissed
        if let Some(link) = self.link.take() {
            tokio::spawn(link.goodbye());
        }
        self.connected = false;
        self.down = None;
        self.media.watching.all_ended();
    }

    /// A new stay in the same meeting.
    fn restart(&mut self, start: Start) {
        (self.rejoin, self.create, self.link) = (None, None, None);
        (self.connected, self.down, self.refused) = (false, None, false);
        self.media.watching.all_ended();
        for (stream, _) in self.media.publisher.streams() {
            // a new stay numbers its streams anew: nothing of the old one may go on
            drop(self.media.publisher.close(stream));
        }
        self.holders.dismiss();
        self.asked.clear();
        match begin(&self.plan, start, &self.media) {
            Ok((session, link, claim)) => {
                (self.session, self.link, self.claim) = (session, Some(link), claim);
                if start == Start::Join && self.plan.creator.is_some() {
                    self.create = Some(clock::now() + FIND_LEADER);
                }
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
        let _ = self.command(Command::Leave);
        self.drain();
        if let Some(link) = self.link.take() {
            link.goodbye().await;
        }
    }

    fn wish(&mut self, wish: ToMeeting) {
        match wish {
            ToMeeting::User(command, answer) => {
                let outcome = self.user(command);
                self.drain();
                self.show();
                let _ = answer.send(outcome);
            }
            ToMeeting::Look(answer) => {
                let _ = answer.send(self.status());
            }
            ToMeeting::Leave(done) => drop(done),
            ToMeeting::Keys(id, out) => self.holders.add(id, out),
            ToMeeting::Said(id, message) => self.said(id, message),
            ToMeeting::KeysGone(id) => {
                for stream in self.holders.remove(id) {
                    self.close_stream(stream);
                }
            }
            ToMeeting::Watch(id, watcher) => {
                let messages = self.media.watching.add(id, watcher);
                self.send(messages);
            }
            ToMeeting::WatchGone(id) => {
                let messages = self.media.watching.remove(id);
                self.send(messages);
            }
            ToMeeting::Keyframe(from, stream) => self.ask_for_keyframe(from, stream),
            ToMeeting::Drained(stream) => {
                self.send([ToRelay::Unpublish { stream }]);
                let _ = self.command(Command::CloseStream(stream));
                self.drain();
            }
        }
    }

    fn user(&mut self, command: UserCommand) -> Result<String, String> {
        let state = self.session.state();
        let people = state.roster.iter().map(|person| (person.participant, &*person.name));
        match command {
            UserCommand::Remove(who) => {
                let person =
                    people::find(&who, people, "is in the meeting: `meeting-agent roster` lists who is")?;
                self.command(Command::Remove(person))?;
                Ok("removed; a new key is being made".into())
            }
            UserCommand::Rotate => self.command(Command::Rotate).map(|()| "a new key is being made".into()),
            UserCommand::Lock(locked) => {
                self.command(Command::Lock(locked))?;
                let text = if locked { "locked: nobody new gets in" } else { "open to new people again" };
                Ok(text.into())
            }
            UserCommand::Approve(who) => {
                let waiting = state.waiting.iter().map(|approval| (approval.participant, &*approval.name));
                let person = people::find(&who, waiting, "waits: `meeting-agent status` lists who does")?;
                self.command(Command::Approve(person)).map(|()| "let in".into())
            }
        }
    }

    fn said(&mut self, id: u64, message: ToAgent) {
        match message {
            ToAgent::OpenStream { request, kind, track, caps, random } => {
                let opened = self.holders.label(kind, &track).and_then(|track| {
                    let stream = self.holders.next_stream();
                    let open = OpenStream { stream, kind, track: track.clone(), caps, random };
                    self.command(Command::OpenStream(open)).map(|()| (stream, track))
                });
                let answer = match opened {
                    Ok((stream, track)) if self.holders.contains(id) => {
                        self.holders.opened(stream, Own { holder: id, track: track.clone(), kind });
                        self.media.publisher.open(stream, kind);
                        self.send([ToRelay::Publish { stream, kind }]);
                        FromAgent::StreamOpened { request, stream, track }
                    }
                    Ok((stream, _)) => {
                        let _ = self.command(Command::CloseStream(stream));
                        return self.drain();
                    }
                    Err(text) => FromAgent::StreamRefused { request, text },
                };
                self.holders.tell(id, &answer);
            }
            ToAgent::StreamCaps { stream, caps } if self.holders.owns(id, stream) => {
                let _ = self.command(Command::StreamCaps { stream, caps });
            }
            ToAgent::CloseStream { stream } if self.holders.owns(id, stream) => self.close_stream(stream),
            ToAgent::WantOpenKeys => self.holders.want_open_keys(id),
            ToAgent::Floor { from, kid, floor } => {
                self.holders.floor(from, kid, floor);
                let _ = self.command(Command::Floor { from, kid, floor });
            }
            // for a stream that is not this connection's, or of another purpose: nothing to do
            _ => {}
        }
        self.drain();
    }

    /// Ends a stream once its last frames, which come by another connection, are with the relay.
    fn close_stream(&mut self, stream: StreamId) {
        self.holders.closed(stream);
        let (publisher, own) = (self.media.publisher.clone(), self.own.clone());
        tokio::spawn(async move {
            tokio::time::sleep(LAST_FRAMES).await;
            publisher.close(stream).await;
            if let Some(own) = own.upgrade() {
                let _ = own.send(ToMeeting::Drained(stream)).await;
            }
        });
    }

    fn ask_for_keyframe(&mut self, from: ParticipantId, stream: StreamId) {
        let now = clock::now();
        self.asked.retain(|_, asked| now.since(*asked) < KEYFRAME_EVERY);
        let Some(route) = self.media.watching.route((from, stream)) else { return };
        if self.asked.insert((from, stream), now).is_none() {
            self.send([ToRelay::KeyframeRequest { route }]);
        }
    }

    fn status(&self) -> Status {
        let state = self.session.state();
        let (phase, detail) = self.standing(&state);
        let (frames_out, frames_in, dropped_by) = self.counters.read();
        let mut status = Status {
            meeting: self.plan.link.meeting.to_string(),
            phase: phase.into(),
            detail,
            connected: self.connected,
            epochs: self.epochs,
            frames_out,
            frames_in,
            dropped: dropped_by.values().sum(),
            dropped_by,
            events: self.events.iter().cloned().collect(),
            ..glance::status(&state)
        };
        status.streams.extend(self.holders.streams().map(|(stream, own)| Stream {
            from: state.me.to_string(),
            name: crate::show::harmless(&self.plan.name),
            track: crate::show::harmless(&own.track),
            kind: glance::kind(own.kind).into(),
            stream: stream.0,
            me: true,
        }));
        status
    }
}

/// What the link says next; never, where there is none.
async fn next(link: &mut Option<RelayLink>) -> Option<LinkEvent> {
    match link {
        Some(link) => link.events.recv().await,
        None => std::future::pending().await,
    }
}

fn begin(plan: &Plan, start: Start, media: &Media) -> Result<(Session, RelayLink, Claim), AgentError> {
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
    let claim = Claim(claim);
    let relay = RelayLink::start(hail(plan, &session, claim), media.clone())?;
    Ok((session, relay, claim))
}

fn hail(plan: &Plan, session: &Session, claim: Claim) -> Hail {
    Hail {
        relay: plan.link.relay.clone(),
        certificate: plan.link.relay_certificate,
        meeting: session.meeting(),
        participant: session.me(),
        claim,
        admission: match &plan.creator {
            Some(creator) => Admission::Create { token: creator.token.clone() },
            None => Admission::Join,
        },
    }
}

/// How long a creator looks for a leader before it leads: two heartbeats and a bad path.
const FIND_LEADER: Duration = Duration::from_secs(5);
/// Between the end of a stay and the next: branches must not rejoin in step.
const REJOIN: Duration = Duration::from_millis(500);
/// Frames may still be on their way from the element that closed the stream.
const LAST_FRAMES: Duration = Duration::from_millis(200);
/// Keyframe requests for one stream go out at most twice a second.
const KEYFRAME_EVERY: Duration = Duration::from_millis(500);
/// What `status` remembers.
const EVENTS: usize = 50;

//! Posts: what members say, and the same with another last byte, sealed anew as everybody can who holds the link. That byte is
//! of a signature, of a MAC, or of what a wrap seals.

use std::time::Duration;

use bytes::Bytes;
use meeting_protocol::{
    BootTime,
    session::{Command, Counters, Input, Joining, Output, Role, Session, Successors},
    testing::{Fate, Meeting},
};
use meeting_wire::{ParticipantId, Post, Slot};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use super::{
    ALICE,
    Arrives::{self, *},
    BOB, CAROL, altered, measured,
};

/// Who takes over where Alice is not heard, and people enough for many votes.
const CROWD: usize = 24;

/// What each of `n` costs, in ns.
pub fn cost(what: Arrives, n: usize) -> f64 {
    let total = match what {
        Statement | FalseStatement => {
            let mut scene = Scene::new();
            let camera = scene.meeting.stream(ALICE, "camera");
            let bodies = scene.several(n, |scene, n| {
                let caps = format!("video/x-h264,n={n}");
                scene.says(ALICE, Input::Command(Command::StreamCaps { stream: camera, caps }), Slot::Log)
            });
            scene.hears(BOB, what, bodies)
        }
        Heartbeat | FalseHeartbeat => {
            let mut scene = Scene::new();
            let bodies = scene.several(n, |scene, _| {
                scene.waits(ALICE, 2_000);
                scene.says(ALICE, Input::Timeout, Slot::Cell)
            });
            scene.hears(BOB, what, bodies)
        }
        Pulse | FalsePulse => {
            let mut scene = Scene::new();
            let alice = Slot::Direct(scene.id(ALICE));
            // Who has not heard the leader for eight seconds pulses each second.
            scene.waits(BOB, 9_000);
            scene.feed(BOB, Input::Timeout);
            let bodies = scene.several(n, |scene, _| {
                scene.waits(BOB, 1_000);
                scene.says(BOB, Input::Timeout, alice)
            });
            scene.hears(ALICE, what, bodies)
        }
        Head | FalseHead => {
            let mut scene = Scene::new();
            scene.lasts(Duration::from_secs(10) * (n as u32 + 2));
            let carol = scene.id(CAROL);
            let said = scene.meeting.recorded.iter().rev();
            let heads = said.filter(|post| (post.from, post.slot) == (carol, Slot::Cell)).take(n);
            let mut bodies: Vec<Bytes> = heads.map(|post| post.body.clone()).collect();
            if what == FalseHead {
                bodies.fill_with(|| scene.meeting.false_head(ALICE, CAROL).expect("a post"));
            }
            scene.hears(BOB, what, bodies)
        }
        Announce | FalseAnnounce | LateAnnounce | Passing | Noise => announces(what, n),
        Wrap | FalseWrap => wraps(what, n),
        Welcome | FalseWelcome => welcomes(what, n),
        _ => branches(what, n),
    };
    total / n as f64
}

/// Of devices that come one after another, at the leader and at somebody whom they do not concern.
fn announces(what: Arrives, n: usize) -> f64 {
    let mut scene = Scene::new();
    let alice = scene.id(ALICE);
    let is_beat = |post: &&Post| (post.from, post.slot) == (alice, Slot::Cell);
    let beat = scene.meeting.recorded.iter().rfind(is_beat).expect("a heartbeat").clone();
    let mut bodies = Vec::new();
    let mut posters = Vec::new();
    for _ in 0..n {
        let (link, device) = (scene.meeting.link(), scene.meeting.device());
        let joining = Joining { link, device, name: "Eve".into(), role: Role::Participant };
        let mut eve = Session::join(joining, scene.now[BOB], &mut scene.rng);
        let said = said(&mut eve, Input::Post(beat.clone()), scene.now[BOB], &mut scene.rng);
        posters.push(eve.me());
        bodies.push(to(&said, Slot::Log));
    }
    let hearer = if matches!(what, Passing | Noise) { BOB } else { ALICE };
    match what {
        Noise => bodies = bodies.iter().map(altered).collect(),
        LateAnnounce => scene.waits(ALICE, 31_000),
        FalseAnnounce => scene.spoil(&mut bodies),
        _ => {}
    }
    scene.hands(hearer, what, posters.into_iter().zip(bodies).collect())
}

/// Each of its own epoch, of which Bob has the link.
fn wraps(what: Arrives, n: usize) -> f64 {
    let mut scene = Scene::new();
    let bob = Slot::Direct(scene.id(BOB));
    let mut total = 0.0;
    for _ in 0..n {
        let said = scene.feed(ALICE, Input::Command(Command::Rotate));
        let link = scene.post(scene.id(ALICE), to(&said, Slot::Log));
        let wrap = to(&said, bob);
        scene.feed(BOB, Input::Post(link));
        total += scene.hears(BOB, what, vec![wrap.clone()]);
        if what == FalseWrap {
            let wrap = scene.post(scene.id(ALICE), wrap);
            scene.feed(BOB, Input::Post(wrap));
        }
    }
    total
}

/// For somebody who waits for one.
fn welcomes(what: Arrives, n: usize) -> f64 {
    let mut scene = Scene::new();
    let newcomer = scene.meeting.nodes.len();
    scene.meeting.tamper = Some(Box::new(move |_, _, to, post| match post.slot {
        Slot::Direct(_) if to == newcomer => Fate::Drop,
        _ => Fate::Deliver,
    }));
    scene.meeting.join("Eve");
    scene.lasts(Duration::from_secs(3));
    let eve = Slot::Direct(scene.id(newcomer));
    let said = scene.meeting.recorded.iter().filter(|post| post.slot == eve);
    // What else goes to her is a wrap.
    let welcome = said.max_by_key(|post| post.body.len()).expect("a welcome").body.clone();
    scene.hears(newcomer, what, vec![welcome; n])
}

/// By who took over while Alice was cut off, with the votes of a crowd, for Alice, who still leads.
fn branches(what: Arrives, n: usize) -> f64 {
    let mut scene = Scene::of(CROWD, Successors::FirstPresent(1));
    let healed = scene.meeting.now + 20_000;
    scene.meeting.tamper = Some(Box::new(move |now, from, to, _| match (from, to) {
        (_, ALICE) => Fate::Drop,
        (ALICE, _) if now < healed => Fate::Drop,
        _ => Fate::Deliver,
    }));
    let (alice, bob) = (Slot::Direct(scene.id(ALICE)), scene.id(BOB));
    let before = scene.meeting.recorded.len();
    let branch = |meeting: &Meeting| {
        let said = meeting.recorded[before..].iter();
        let branch = |post: &&Post| (post.from, post.slot) == (bob, alice) && post.body.len() > 100 * CROWD;
        said.filter(branch).map(|post| post.body.clone()).next_back()
    };
    scene.meeting.run_until(Duration::from_secs(60), |meeting| branch(meeting).is_some());
    let branch = branch(&scene.meeting).expect("a branch");
    scene.lasts(Duration::ZERO);
    scene.hears(ALICE, what, vec![branch; n])
}

/// People in a meeting, whose sessions are handed posts past its relay.
struct Scene {
    meeting: Meeting,
    rng: ChaCha20Rng,
    now: Vec<BootTime>,
    seq: u64,
}

impl Scene {
    fn new() -> Self {
        Self::of(3, Successors::Nobody)
    }

    fn of(people: usize, successors: Successors) -> Self {
        let meeting = Meeting::of(people, 1, successors);
        let mut scene = Self { meeting, rng: ChaCha20Rng::seed_from_u64(1), now: Vec::new(), seq: 1 << 32 };
        scene.lasts(Duration::ZERO);
        scene
    }

    fn id(&self, node: usize) -> ParticipantId {
        self.meeting.nodes[node].session.me()
    }

    /// The meeting goes on for so long.
    fn lasts(&mut self, span: Duration) {
        self.meeting.run(span);
        self.now = (0..self.meeting.nodes.len()).map(|node| self.meeting.local(node)).collect();
    }

    /// Time passes for one of them.
    fn waits(&mut self, node: usize, milliseconds: u64) {
        self.now[node] = self.now[node] + Duration::from_millis(milliseconds);
    }

    fn several(&mut self, n: usize, mut one: impl FnMut(&mut Self, usize) -> Bytes) -> Vec<Bytes> {
        (0..n).map(|n| one(self, n)).collect()
    }

    /// What somebody says to this.
    fn feed(&mut self, node: usize, input: Input) -> Vec<(Slot, Bytes)> {
        said(&mut self.meeting.nodes[node].session, input, self.now[node], &mut self.rng)
    }

    /// The first of it that goes there.
    fn says(&mut self, node: usize, input: Input, slot: Slot) -> Bytes {
        to(&self.feed(node, input), slot)
    }

    fn post(&mut self, from: ParticipantId, body: Bytes) -> Post {
        self.seq += 1;
        Post { seq: self.seq, from, slot: Slot::Log, body }
    }

    /// What it costs somebody to hear these, or what is false of them, in ns.
    fn hears(&mut self, node: usize, what: Arrives, mut bodies: Vec<Bytes>) -> f64 {
        if what.is_refused() && what != FalseHead {
            self.spoil(&mut bodies);
        }
        // Nobody hears what comes from itself.
        let from = self.id(if node == ALICE { CAROL } else { ALICE });
        self.hands(node, what, bodies.into_iter().map(|body| (from, body)).collect())
    }

    fn spoil(&mut self, bodies: &mut [Bytes]) {
        for body in bodies {
            *body = self.meeting.spoilt(CAROL, body).expect("a post");
        }
    }

    fn hands(&mut self, node: usize, what: Arrives, said: Vec<(ParticipantId, Bytes)>) -> f64 {
        let posts: Vec<Post> = said.into_iter().map(|(from, body)| self.post(from, body)).collect();
        let Self { meeting, rng, now, .. } = self;
        let session = &mut meeting.nodes[node].session;
        let before = refused(session.counters());
        let cost = measured(&mut || {
            for post in &posts {
                drain(session, Input::Post(post.clone()), now[node], rng, |_| {});
            }
        });
        let expected = if what.is_refused() { posts.len() as u64 } else { 0 };
        assert_eq!(refused(session.counters()) - before, expected, "{what:?}: {:?}", session.counters());
        cost
    }
}

fn refused(of: Counters) -> u64 {
    of.sealed + of.malformed + of.forged + of.stale + of.unauthorised + of.over_limit + of.misbehaviour
}

/// What a session says to this.
fn said(session: &mut Session, input: Input, now: BootTime, rng: &mut ChaCha20Rng) -> Vec<(Slot, Bytes)> {
    let mut said = Vec::new();
    drain(session, input, now, rng, |output| {
        if let Output::Post { slot, body } = output {
            said.push((slot, body));
        }
    });
    said
}

fn to(said: &[(Slot, Bytes)], wanted: Slot) -> Bytes {
    let (_, body) = said.iter().find(|(slot, _)| *slot == wanted).expect("a post");
    body.clone()
}

fn drain(
    session: &mut Session,
    input: Input,
    now: BootTime,
    rng: &mut ChaCha20Rng,
    mut each: impl FnMut(Output),
) {
    session.handle(input, now, rng).expect("taken");
    loop {
        match session.poll_output() {
            Output::Timeout(_) => return,
            output => each(output),
        }
    }
}

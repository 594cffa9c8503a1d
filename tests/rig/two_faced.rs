//! A leader who shows every other person another chain, and the relay that helps: real agents see two meetings in one.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;
use bytes::Bytes;
use meeting_protocol::{
    BootTime,
    link::MeetingLink,
    session::{Input, Output, Session},
    testing::{FaceRng, two_faces},
};
use meeting_wire::{Decode, Encode, FromRelay, ParticipantId, Post, Slot, ToRelay, VERSION, message_len};
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use tokio::{runtime::Runtime, sync::mpsc};

use crate::evil;

/// A running one.
pub struct TwoFaced {
    link: String,
    inside: Arc<Mutex<Inside>>,
    _runtime: Runtime,
}

struct Inside {
    start: Instant,
    faces: [Face; 2],
    people: Vec<Person>,
    /// Whether what people say gets from one side to the other.
    meet: bool,
    seq: u64,
}

struct Face {
    session: Session,
    rng: FaceRng,
    timeout: BootTime,
}

struct Person {
    id: ParticipantId,
    side: usize,
    out: mpsc::UnboundedSender<FromRelay>,
}

impl TwoFaced {
    /// Opens a meeting; whoever joins by its link sees the one face or the other in turn.
    pub fn open(seed: u64) -> Result<Self> {
        let runtime = Runtime::new()?;
        let _guard = runtime.enter();
        let (server, certificate) = evil::server()?;
        let endpoint = Endpoint::server(server, (Ipv4Addr::LOCALHOST, 0).into())?;
        let address: SocketAddr = endpoint.local_addr()?;
        let now = BootTime(1_000);
        let (link, faces): (MeetingLink, _) = two_faces(address.to_string(), Some(certificate), now, seed);
        let faces = faces.map(|(session, rng)| Face { session, rng, timeout: now });
        let start = Instant::now();
        let inside = Inside { start, faces, people: Vec::new(), meet: false, seq: 0 };
        let inside = Arc::new(Mutex::new(inside));
        let (shared, clock) = (inside.clone(), inside.clone());
        runtime.spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let Ok(agent) = incoming.await else { continue };
                tokio::spawn(serve(agent, shared.clone()));
            }
        });
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                lock(&clock).tick();
            }
        });
        drop(_guard);
        Ok(Self { link: link.reveal().to_string(), inside, _runtime: runtime })
    }

    /// For those who are to be deceived.
    pub fn link(&self) -> &str {
        &self.link
    }

    /// From now on people of both sides hear each other, and still the leader's one face only.
    pub fn let_people_meet(&self) {
        lock(&self.inside).meet = true;
    }
}

impl Inside {
    fn now(&self) -> BootTime {
        BootTime(1_000 + self.start.elapsed().as_millis() as u64)
    }

    fn tick(&mut self) {
        for side in 0..2 {
            if self.faces[side].timeout <= self.now() {
                self.lead(side, Input::Timeout);
            }
        }
    }

    /// Feeds one face, and posts what it says to its side.
    fn lead(&mut self, side: usize, input: Input) {
        let now = self.now();
        let Face { session, rng, timeout } = &mut self.faces[side];
        let _ = session.handle(input, now, rng);
        let mut posts = Vec::new();
        loop {
            match session.poll_output() {
                Output::Post { slot, body } => posts.push((slot, body)),
                Output::Timeout(at) => break *timeout = at,
                _ => {}
            }
        }
        let from = session.me();
        for (slot, body) in posts {
            self.deliver(from, slot, &body, |person| person.side == side);
        }
    }

    fn said(&mut self, from: ParticipantId, side: usize, slot: Slot, body: Bytes) {
        let meet = self.meet;
        let post = self.deliver(from, slot, &body, |person| person.side == side || meet);
        if matches!(slot, Slot::Log | Slot::Cell) || slot == Slot::Direct(self.faces[side].session.me()) {
            self.lead(side, Input::Post(post));
        }
    }

    fn deliver(
        &mut self,
        from: ParticipantId,
        slot: Slot,
        body: &Bytes,
        to: impl Fn(&Person) -> bool,
    ) -> Post {
        self.seq += 1;
        let post = Post { seq: self.seq, from, slot, body: body.clone() };
        for person in self.people.iter().filter(|person| person.id != from && to(person)) {
            if !matches!(slot, Slot::Direct(whom) if whom != person.id) {
                let _ = person.out.send(FromRelay::Post(post.clone()));
            }
        }
        post
    }
}

async fn serve(agent: Connection, inside: Arc<Mutex<Inside>>) -> Result<()> {
    let (send, mut recv) = agent.accept_bi().await?;
    let ToRelay::Hello { participant, .. } = hear(&mut recv).await? else { anyhow::bail!("no hello") };
    let (out, to_send) = mpsc::unbounded_channel();
    out.send(FromRelay::Welcome { version: VERSION, max_participants: 1_000, max_publish_mbit: 100 })?;
    let side = {
        let mut inside = lock(&inside);
        let known = inside.people.iter().find(|person| person.id == participant).map(|person| person.side);
        let side = known.unwrap_or(inside.people.len() % 2);
        inside.people.retain(|person| person.id != participant);
        inside.people.push(Person { id: participant, side, out });
        inside.lead(side, Input::Connected);
        side
    };
    tokio::spawn(say(send, to_send));
    loop {
        if let ToRelay::Post { slot, body } = hear(&mut recv).await? {
            lock(&inside).said(participant, side, slot, body);
        }
    }
}

async fn hear(from: &mut RecvStream) -> Result<ToRelay> {
    let mut len = [0; 4];
    from.read_exact(&mut len).await?;
    let mut message = vec![0; message_len(len)?];
    from.read_exact(&mut message).await?;
    Ok(ToRelay::from_bytes(&message)?)
}

async fn say(mut to: SendStream, mut messages: mpsc::UnboundedReceiver<FromRelay>) -> Result<()> {
    while let Some(message) = messages.recv().await {
        let bytes = message.to_bytes();
        to.write_all(&(bytes.len() as u32).to_be_bytes()).await?;
        to.write_all(&bytes).await?;
    }
    Ok(())
}

fn lock(inside: &Mutex<Inside>) -> MutexGuard<'_, Inside> {
    inside.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Whole meetings in virtual time: sessions around a relay that does as it is told, good or bad.
//!
//! ```text
//!  Meeting { now } -- wire: posts on their way, by time --> Node { session, clock, what its elements were told }
//!     ^                                                        |
//!     '------- relay: log, cells, `tamper` decides <-----------'
//! ```
//!
//! Everything is drawn from one seed, so a failing run replays.

mod audit;
mod faces;
pub mod limits;
mod node;
mod relay;
#[cfg(feature = "simulator")]
pub mod simulator;
mod view;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use meeting_wire::{Kind, MeetingId, ParticipantId, Post, Slot, StreamId};
use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};

pub use faces::two_faces;
pub use node::{Key, Node};
pub use rand_chacha::ChaCha20Rng as FaceRng;

use self::audit::Audit;
use crate::{
    BootTime,
    identity::DeviceKey,
    link::MeetingLink,
    secret::Secret,
    session::{Command, CommandError, Creating, Input, Joining, OpenStream, Role, Session, Successors},
};

/// What the relay does with one post on its way to one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Hands it on after the usual delay.
    Deliver,
    /// Hands it on later by this many ms.
    Delay(u64),
    /// Keeps it.
    Drop,
}

/// Decides over each post: global time in ms, the sender's and the receiver's node number, the post.
pub type Tamper = Box<dyn FnMut(u64, usize, usize, &Post) -> Fate>;

/// A meeting and its relay.
pub struct Meeting {
    /// Virtual time in ms.
    pub now: u64,
    /// Everybody, in order of appearance.
    pub nodes: Vec<Node>,
    /// How long a post takes, in ms.
    pub latency: u64,
    /// The relay's will; none delivers everything.
    pub tamper: Option<Tamper>,
    /// Everything that was ever posted, with the node it came from.
    pub posts: Vec<(u64, usize, Slot, usize)>,
    /// Keep every post for replays.
    pub recorded: Vec<Post>,
    audit: Audit,
    link: MeetingLink,
    rng: ChaCha20Rng,
    log: Vec<Post>,
    seq: u64,
    cells: BTreeMap<ParticipantId, Post>,
    wire: BTreeMap<(u64, u64), (usize, Post)>,
    wired: u64,
}

impl Meeting {
    /// A meeting of `n` in which everybody is present.
    ///
    /// # Panics
    ///
    /// If they do not come together within 20 s.
    pub fn of(n: usize, seed: u64, successors: Successors) -> Self {
        let mut meeting = Self::new(seed, successors);
        let all: Vec<usize> = (0..n).collect();
        for i in 1..n {
            meeting.join(["Alice", "Bob", "Carol"].get(i).copied().unwrap_or("Bob"));
        }
        meeting.run_until(Duration::from_secs(20), |meeting| meeting.together(&all));
        meeting
    }

    /// Another device opens an instance of its own under the same secret, as whoever holds the link can.
    pub fn pretend(&mut self, name: &str) -> usize {
        let device = device(&mut self.rng);
        let mut link = self.link.duplicate();
        link.creator = device.public().fingerprint();
        self.open(link, name, device, Successors::Nobody, 0, 0);
        self.nodes.len() - 1
    }

    /// Checks every epoch that was ever opened.
    ///
    /// # Panics
    ///
    /// If a key was wrapped for anybody but those its link's roster names, or somebody got a stream key of an epoch
    /// whose roster does not name them, or somebody signed two ways for one thing.
    pub fn audit(&self) {
        self.audit.recipients();
        self.audit.innocence();
        for (number, node) in self.nodes.iter().enumerate() {
            for (key, epoch) in &node.ever {
                assert!(
                    self.audit.names(*epoch, node.session.me()),
                    "node {number} got a key of epoch {epoch}"
                );
                // Keys of epochs this node was not in are not among those it got, whatever it calls them.
                for other in &self.nodes {
                    let theirs = other.ever.get(key);
                    assert!(
                        theirs.is_none_or(|theirs| theirs == epoch),
                        "one key in epochs {epoch} and {theirs:?}"
                    );
                }
            }
        }
    }

    /// A meeting of which the first node is the leader.
    pub fn new(seed: u64, successors: Successors) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let device = device(&mut rng);
        let link = MeetingLink::new("relay.example".into(), device.public().fingerprint(), None, &mut rng);
        let mut meeting = Self {
            audit: Audit::new(&link),
            now: 0,
            nodes: Vec::new(),
            latency: 20,
            tamper: None,
            posts: Vec::new(),
            recorded: Vec::new(),
            link,
            rng,
            log: Vec::new(),
            seq: 0,
            cells: BTreeMap::new(),
            wire: BTreeMap::new(),
            wired: 0,
        };
        let link = meeting.link.duplicate();
        meeting.open(link, "Alice", device, successors, 0, 0);
        meeting
    }

    /// As [`new`](Self::new), with a leader's clock that starts at `offset` ms and runs fast by `ppm`.
    pub fn with_clock(seed: u64, successors: Successors, offset: u64, ppm: i64) -> Self {
        let mut meeting = Self::new(seed, successors);
        let device = meeting.nodes[0].device.clone();
        meeting.nodes.clear();
        meeting.log.clear();
        meeting.cells.clear();
        meeting.wire.clear();
        let link = meeting.link.duplicate();
        meeting.open(link, "Alice", device, Successors::Nobody, offset, ppm);
        meeting
    }

    fn open(
        &mut self,
        link: MeetingLink,
        name: &str,
        device: Arc<DeviceKey>,
        successors: Successors,
        offset: u64,
        ppm: i64,
    ) {
        let mut rng = ChaCha20Rng::seed_from_u64(self.rng.next_u64());
        let creating =
            Creating { link, device: device.clone(), name: name.into(), role: Role::Participant, successors };
        let start = BootTime(offset + self.now);
        let session = Session::create(creating, start, &mut rng).expect("the creator's own link");
        self.add(session, device, rng, offset, ppm);
    }

    /// A device with a key of its own that asks for a place; gives its number.
    pub fn join(&mut self, name: &str) -> usize {
        let device = device(&mut self.rng);
        self.join_as(name, device, Role::Participant, 7_000, 0)
    }

    /// As [`join`](Self::join), with a device key and a clock.
    pub fn join_as(
        &mut self,
        name: &str,
        device: Arc<DeviceKey>,
        role: Role,
        offset: u64,
        ppm: i64,
    ) -> usize {
        let link = self.link.duplicate();
        self.join_by(link, name, device, role, offset, ppm)
    }

    /// As [`join_as`](Self::join_as), by another link.
    pub fn join_by(
        &mut self,
        link: MeetingLink,
        name: &str,
        device: Arc<DeviceKey>,
        role: Role,
        offset: u64,
        ppm: i64,
    ) -> usize {
        let mut rng = ChaCha20Rng::seed_from_u64(self.rng.next_u64());
        let joining = Joining { link, device: device.clone(), name: name.into(), role };
        let local = BootTime(offset + self.now.saturating_add_signed(self.now as i64 * ppm / 1_000_000));
        let session = Session::join(joining, local, &mut rng);
        self.add(session, device, rng, offset, ppm)
    }

    fn add(
        &mut self,
        session: Session,
        device: Arc<DeviceKey>,
        rng: ChaCha20Rng,
        offset: u64,
        ppm: i64,
    ) -> usize {
        let number = self.nodes.len();
        self.nodes.push(Node {
            session,
            device,
            events: Vec::new(),
            seals: HashMap::new(),
            opens: HashMap::new(),
            lease: BootTime(0),
            retired: (0, BootTime(0)),
            leases: Vec::new(),
            connected: false,
            rng,
            offset,
            ppm,
            timeout: BootTime(u64::MAX),
            seen: None,
            next_stream: 0,
            ever: HashMap::new(),
            beacons: Vec::new(),
            vouched: Vec::new(),
        });
        self.drain(number);
        self.connect(number);
        number
    }

    /// The link everybody joins by.
    pub fn link(&self) -> MeetingLink {
        self.link.duplicate()
    }

    /// The meeting's id.
    pub fn id(&self) -> MeetingId {
        self.link.meeting
    }

    /// Draws a device key.
    pub fn device(&mut self) -> Arc<DeviceKey> {
        device(&mut self.rng)
    }

    /// A command at a node.
    pub fn command(&mut self, node: usize, command: Command) -> Result<(), CommandError> {
        let now = self.nodes[node].local(self.now);
        let Node { session, rng, .. } = &mut self.nodes[node];
        let result = session.handle(Input::Command(command), now, rng);
        self.drain(node);
        result
    }

    /// Hands a node somebody's beacon, as the relay would, in the name of `from`.
    pub fn hand_beacon(&mut self, node: usize, from: ParticipantId, body: Bytes) {
        self.feed(node, Input::Beacon { from, body });
    }

    /// The same post or beacon with another last byte in it, as everybody who holds the link can make it.
    #[cfg(feature = "simulator")]
    pub fn spoilt(&mut self, liar: usize, post: &[u8]) -> Option<Bytes> {
        let Node { session, rng, .. } = &mut self.nodes[liar];
        session.spoilt(post, rng)
    }

    /// What a member with a program of its own says of another: that it sees another chain.
    #[cfg(feature = "simulator")]
    pub fn false_head(&mut self, liar: usize, victim: usize) -> Option<Bytes> {
        let victim = self.nodes[victim].session.me();
        let Node { session, rng, .. } = &mut self.nodes[liar];
        session.false_head(victim, rng)
    }

    /// Opens a stream at a node.
    pub fn stream(&mut self, node: usize, track: &str) -> StreamId {
        let stream = StreamId(self.nodes[node].next_stream);
        self.nodes[node].next_stream += 1;
        let mut random = [0; 16];
        self.rng.fill_bytes(&mut random);
        let wish = OpenStream {
            stream,
            kind: Kind::Video,
            track: track.into(),
            caps: "video/x-h264".into(),
            random,
        };
        self.command(node, Command::OpenStream(wish)).expect("a new stream");
        stream
    }
}

fn device(rng: &mut ChaCha20Rng) -> Arc<DeviceKey> {
    Arc::new(DeviceKey::from_seed(&Secret::random(rng)))
}

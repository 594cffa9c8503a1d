//! An agent that speaks `meeting_protocol::local` and does what a test wants: every frame published comes back to
//! those who watch, as if Alice were alone with her echo.

#![allow(dead_code, clippy::unwrap_used)]

use std::{
    io::{Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use meeting_protocol::{
    BootTime,
    frame::KeyId,
    local::{self, FromAgent, MeetingState, Purpose, ToAgent},
    secret::Secret,
};
use meeting_wire::{Decode, Kind, MeetingId, ParticipantId, StreamId};

use crate::support::PATIENCE;

pub const MEETING: MeetingId = MeetingId([7; 16]);
pub const ALICE: ParticipantId = ParticipantId([0xa1; 16]);

pub struct FakeAgent {
    pub path: PathBuf,
    _folder: tempfile::TempDir,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    salt: [u8; 16],
    serial: u64,
    refuse: Option<String>,
    /// Whether meetings give keys.
    granted: bool,
    epoch: u64,
    streams: Vec<Stream>,
    next_stream: u32,
    wants_open: bool,
    /// Reads nothing of what is published.
    stands_still: bool,
    conns: Vec<(Purpose, UnixStream)>,
    heard: Vec<ToAgent>,
}

struct Stream {
    id: StreamId,
    kind: Kind,
    track: String,
    caps: String,
}

impl FakeAgent {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let path = folder.path().join("agent.sock");
        let state = State { salt: gste2ee::random::bytes(), granted: true, epoch: 1, ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let agent = Self { path, _folder: folder, shared };
        agent.listen();
        agent
    }

    /// As the elements' `agent` property takes it.
    pub fn socket(&self) -> &str {
        self.path.to_str().unwrap()
    }

    pub fn refuse(&self, text: &str) {
        self.shared.state.lock().unwrap().refuse = Some(text.to_owned());
    }

    pub fn withhold_keys(&self) {
        self.shared.state.lock().unwrap().granted = false;
    }

    pub fn grant_keys(&self) {
        let mut state = self.shared.state.lock().unwrap();
        state.granted = true;
        let ids: Vec<_> = state.streams.iter().map(|stream| stream.id).collect();
        ids.into_iter().for_each(|id| state.give_key(id));
        state.tell_keys(&FromAgent::Lease { until: BootTime(u64::MAX) });
    }

    /// A new epoch with new keys.
    pub fn rotate(&self) {
        let mut state = self.shared.state.lock().unwrap();
        state.epoch += 1;
        let ids: Vec<_> = state.streams.iter().map(|stream| stream.id).collect();
        ids.into_iter().for_each(|id| state.give_key(id));
    }

    /// Says something to whoever asked for keys.
    pub fn tell_keys(&self, message: FromAgent) {
        self.shared.state.lock().unwrap().tell_keys(&message);
    }

    /// Says something to whoever publishes.
    pub fn tell_publishers(&self, message: FromAgent) {
        self.shared.state.lock().unwrap().tell(|p| matches!(p, Purpose::Publish { .. }), &message);
    }

    /// Says something to whoever watches.
    pub fn tell_watchers(&self, message: FromAgent) {
        self.shared.state.lock().unwrap().tell(|p| matches!(p, Purpose::Watch { .. }), &message);
    }

    /// Waits for a message and forgets all that came before it.
    pub fn hears(&self, what: &str, wanted: impl Fn(&ToAgent) -> bool) -> ToAgent {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.shared.state.lock().unwrap();
        loop {
            if let Some(place) = state.heard.iter().position(&wanted) {
                return state.heard.drain(..=place).next_back().unwrap();
            }
            let left = deadline.checked_duration_since(Instant::now());
            let Some(left) = left else {
                drop(state);
                panic!("the agent did not hear {what}");
            };
            state = self.shared.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Whether there was such a message since.
    pub fn has_heard(&self, wanted: impl Fn(&ToAgent) -> bool) -> bool {
        self.shared.state.lock().unwrap().heard.iter().any(wanted)
    }

    /// Reads nothing of what is published, or goes on with it.
    pub fn stand_still(&self, still: bool) {
        self.shared.state.lock().unwrap().stands_still = still;
        self.shared.changed.notify_all();
    }

    /// How many frames it has read.
    pub fn frames(&self) -> usize {
        let state = self.shared.state.lock().unwrap();
        state.heard.iter().filter(|message| matches!(message, ToAgent::Frame { .. })).count()
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.shared.state.lock().unwrap().conns.len()
    }

    /// Dies: no socket, no connections, no memory of streams.
    pub fn die(&self) {
        self.shared.state.lock().unwrap().serial += 1;
        self.shared.changed.notify_all();
        // Wakes the listener's thread, which sees that its time is over.
        let _ = UnixStream::connect(&self.path);
        let _ = std::fs::remove_file(&self.path);
        let mut state = self.shared.state.lock().unwrap();
        state.wants_open = false;
        state.streams.clear();
        state.heard.clear();
        for (_, socket) in state.conns.drain(..) {
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Comes back on the same socket.
    pub fn listen(&self) {
        let _ = std::fs::remove_file(&self.path);
        let listener = UnixListener::bind(&self.path).unwrap();
        let shared = self.shared.clone();
        let serial = shared.state.lock().unwrap().serial;
        thread::spawn(move || {
            for socket in listener.incoming() {
                let Ok(socket) = socket else { break };
                if shared.state.lock().unwrap().serial != serial {
                    break;
                }
                let shared = shared.clone();
                thread::spawn(move || shared.serve(socket, serial));
            }
        });
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.die();
    }
}

impl Shared {
    fn serve(&self, mut socket: UnixStream, serial: u64) {
        let Some(ToAgent::Hello { purpose, .. }) = read(&mut socket) else { return };
        {
            let mut state = self.state.lock().unwrap();
            if state.serial != serial {
                return;
            }
            if let Some(text) = state.refuse.clone() {
                let _ = socket.write_all(&local::packed(&FromAgent::Refused { text }));
                return;
            }
            let welcome = FromAgent::Welcome { version: local::VERSION, meeting: MEETING };
            // Who has waited for too long is gone again.
            if socket.write_all(&local::packed(&welcome)).is_err() {
                return;
            }
            state.conns.push((purpose.clone(), socket.try_clone().unwrap()));
            state.greet(&purpose);
        }
        self.changed.notify_all();
        let publishes = matches!(purpose, Purpose::Publish { .. });
        while let Some(message) = read(&mut socket) {
            let waits = |state: &mut State| publishes && state.stands_still && state.serial == serial;
            let mut state = self.changed.wait_while(self.state.lock().unwrap(), waits).unwrap();
            if state.serial != serial {
                return;
            }
            state.answer(&message);
            state.heard.push(message);
            drop(state);
            self.changed.notify_all();
        }
        let mut state = self.state.lock().unwrap();
        state.conns.retain(|(_, conn)| !same(conn, &socket));
        drop(state);
        self.changed.notify_all();
    }
}

impl State {
    fn greet(&mut self, purpose: &Purpose) {
        match purpose {
            Purpose::Keys { .. } => {
                let phase = if self.granted { "live" } else { "joining" };
                self.tell_keys(&FromAgent::State(MeetingState {
                    phase: phase.into(),
                    detail: "a meeting for tests".into(),
                    security_code: "12345 67890".into(),
                    epoch: self.epoch,
                    participants: 2,
                    leader_verified: true,
                    verified: false,
                }));
                if self.granted {
                    self.tell_keys(&FromAgent::Lease { until: BootTime(u64::MAX) });
                }
            }
            Purpose::Watch { .. } | Purpose::Tracks { .. } => {
                let tracks: Vec<_> = self.streams.iter().map(Stream::announce).collect();
                tracks.iter().for_each(|track| self.tell(is_told_tracks, track));
                self.tell(|p| matches!(p, Purpose::Tracks { .. }), &FromAgent::Named);
            }
            _ => {}
        }
    }

    fn answer(&mut self, message: &ToAgent) {
        match message {
            ToAgent::OpenStream { request, kind, track, caps, .. } => {
                self.next_stream += 1;
                let id = StreamId(self.next_stream);
                let track = if track.is_empty() { format!("{kind:?}").to_lowercase() } else { track.clone() };
                let stream = Stream { id, kind: *kind, track: track.clone(), caps: caps.clone() };
                let announce = stream.announce();
                self.streams.push(stream);
                self.tell_keys(&FromAgent::StreamOpened { request: *request, stream: id, track });
                if self.granted {
                    self.give_key(id);
                }
                self.tell(is_told_tracks, &announce);
            }
            ToAgent::StreamCaps { stream, caps } => {
                let found = self.streams.iter_mut().find(|known| known.id == *stream).unwrap();
                found.caps = caps.clone();
                let announce = found.announce();
                self.tell(is_told_tracks, &announce);
            }
            ToAgent::CloseStream { stream } => {
                self.streams.retain(|known| known.id != *stream);
                let gone = FromAgent::TrackGone { from: ALICE, stream: *stream };
                self.tell(is_told_tracks, &gone);
            }
            ToAgent::WantOpenKeys => {
                self.wants_open = true;
                let ids: Vec<_> = self.streams.iter().map(|stream| stream.id).collect();
                for id in ids {
                    let key = self.open_key(id);
                    self.tell_keys(&key);
                }
            }
            ToAgent::Frame { stream, envelope } => {
                let frame = FromAgent::Frame { from: ALICE, stream: *stream, envelope: envelope.clone() };
                self.tell(|p| matches!(p, Purpose::Watch { .. }), &frame);
            }
            _ => {}
        }
    }

    fn give_key(&mut self, stream: StreamId) {
        if self.wants_open {
            let key = self.open_key(stream);
            self.tell_keys(&key);
        }
        let key = FromAgent::SealKey {
            stream,
            epoch: self.epoch,
            kid: KeyId::new(stream, 1, self.epoch),
            suite: 5,
            base_key: base_key(self.salt, stream, self.epoch),
            keyframe: false,
        };
        self.tell_keys(&key);
    }

    fn open_key(&self, id: StreamId) -> FromAgent {
        let stream = self.streams.iter().find(|stream| stream.id == id).unwrap();
        FromAgent::OpenKey {
            from: ALICE,
            name: "Alice".into(),
            stream: id,
            track: stream.track.clone(),
            caps: stream.caps.clone(),
            epoch: self.epoch,
            kid: KeyId::new(id, 1, self.epoch),
            suite: 5,
            base_key: base_key(self.salt, id, self.epoch),
            floor: 0,
        }
    }

    fn tell_keys(&mut self, message: &FromAgent) {
        self.tell(|purpose| matches!(purpose, Purpose::Keys { .. }), message);
    }

    fn tell(&mut self, whom: impl Fn(&Purpose) -> bool, message: &FromAgent) {
        let bytes = local::packed(message);
        self.conns.retain_mut(|(purpose, socket)| !whom(purpose) || socket.write_all(&bytes).is_ok());
    }
}

impl Stream {
    fn announce(&self) -> FromAgent {
        FromAgent::Track {
            from: ALICE,
            name: "Alice".into(),
            stream: self.id,
            track: self.track.clone(),
            kind: self.kind,
            caps: self.caps.clone(),
        }
    }
}

fn is_told_tracks(purpose: &Purpose) -> bool {
    matches!(purpose, Purpose::Watch { .. } | Purpose::Tracks { .. })
}

/// Each agent of a test process has keys of its own, or the nonce ledger would take two of them for one.
fn base_key(salt: [u8; 16], stream: StreamId, epoch: u64) -> Secret<32> {
    Secret::init_with(|key| {
        key[..4].copy_from_slice(&stream.0.to_be_bytes());
        key[4..12].copy_from_slice(&epoch.to_be_bytes());
        key[12..28].copy_from_slice(&salt);
    })
}

fn same(one: &UnixStream, other: &UnixStream) -> bool {
    // Clones of one socket have one inode.
    let inode = |socket: &UnixStream| {
        let fd = std::os::fd::AsRawFd::as_raw_fd(socket);
        std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()
    };
    inode(one) == inode(other)
}

fn read(socket: &mut UnixStream) -> Option<ToAgent> {
    let mut len = [0; 4];
    socket.read_exact(&mut len).ok()?;
    let mut body = vec![0; local::message_len(len).ok()?];
    socket.read_exact(&mut body).ok()?;
    ToAgent::from_bytes(&body).ok()
}

pub const SOON: Duration = Duration::from_secs(2);

//! Publishers and receivers of one contestant. The same bytes go to all of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use meeting_wire::{
    Admission, AudioDatagram, Encode, Envelope, Flags, FromRelay, GroupHeader, Kind, ParticipantId, Record,
    Route, StreamId, ToRelay,
};
use quinn::{Connection, TransportConfig, VarInt};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, sleep_until};

use crate::common::{Agent, connect, hello};
use crate::server::{Contestant, Server};

/// Bytes of a UDP packet, as many as quinn starts with.
pub const PACKET: usize = 1_200;

/// All who take part.
pub struct Crowd {
    publishers: Vec<Publisher>,
    got: Arc<Got>,
    group: u64,
    /// Their control streams stay open.
    agents: Vec<Agent>,
}

#[derive(Default)]
struct Got {
    bytes: AtomicU64,
    datagrams: AtomicU64,
}

enum Publisher {
    Quic(Connection),
    Udp(UdpSocket, SocketAddr),
}

impl Crowd {
    /// Connects them: three publishers, of which the first has a camera, and all others receive.
    pub async fn gather(server: &Server, receivers: usize) -> Self {
        let got: Arc<Got> = Arc::default();
        let mut crowd = Self { publishers: Vec::new(), got, group: 0, agents: Vec::new() };
        match server.contestant {
            Contestant::Relay => crowd.meet(server, receivers).await,
            Contestant::Quinn => crowd.connect(server, receivers).await,
            Contestant::Udp | Contestant::UdpSegments => crowd.listen(server, receivers).await,
        }
        crowd
    }

    async fn meet(&mut self, server: &Server, receivers: usize) {
        for n in 0..SPEAKERS + receivers {
            let create = Admission::Create { token: String::new() };
            let admission = if n == 0 { create } else { Admission::Join };
            let connection = connect(server.address, server.certificate.clone(), transport()).await;
            let (mut agent, answer) =
                Agent::greet(connection.clone(), hello(participant(n), admission)).await;
            assert!(matches!(answer, FromRelay::Welcome { .. }), "{answer:?}");
            if n < SPEAKERS {
                if n == 0 {
                    agent.say(ToRelay::Publish { stream: CAMERA, kind: Kind::Video }).await;
                }
                agent.say(ToRelay::Publish { stream: VOICE, kind: Kind::Audio }).await;
                self.publishers.push(Publisher::Quic(connection));
                self.agents.push(agent);
                continue;
            }
            let mut streams = 0;
            while streams < SPEAKERS + 1 {
                if let FromRelay::Published { route, .. } = agent.hear().await {
                    streams += 1;
                    agent.say(ToRelay::Subscribe { route }).await;
                }
            }
            tokio::spawn(receive(connection, self.got.clone()));
            self.agents.push(agent);
        }
    }

    async fn connect(&mut self, server: &Server, receivers: usize) {
        for n in 0..SPEAKERS + receivers {
            let connection = connect(server.address, server.certificate.clone(), transport()).await;
            if n < SPEAKERS {
                self.publishers.push(Publisher::Quic(connection));
            } else {
                tokio::spawn(receive(connection, self.got.clone()));
            }
        }
    }

    async fn listen(&mut self, server: &Server, receivers: usize) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        self.publishers.push(Publisher::Udp(socket, server.address));
        for _ in 0..receivers {
            let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
            socket.connect(server.address).await.expect("an address");
            socket.send(&[]).await.expect("sent");
            socket.recv(&mut [0; PACKET]).await.expect("an answer");
            let got = self.got.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 2 * PACKET];
                while let Ok(len) = socket.recv(&mut buffer).await {
                    got.bytes.fetch_add(len as u64, Ordering::Relaxed);
                }
            });
        }
    }

    /// The camera's film for so long, a second per group; how many bytes reached the receivers.
    pub async fn film(&mut self, time: Duration) -> u64 {
        let before = self.got.bytes.load(Ordering::Relaxed);
        let start = Instant::now();
        for second in 0..time.as_secs() {
            self.group += 1;
            let header = GroupHeader { route: Route(CAMERA.0), group: self.group, layer: 0 };
            let mut stream = match &self.publishers[0] {
                Publisher::Quic(connection) => Some(connection.open_uni().await.expect("allowed")),
                Publisher::Udp(..) => None,
            };
            if let Some(stream) = &mut stream {
                stream.write_all(&header.to_bytes()).await.expect("sent");
            }
            for n in 0..FRAMES {
                sleep_until(start + Duration::from_secs(second) + Duration::from_secs(1) * n / FRAMES).await;
                let frame = Record::frame(&envelope(if n == 0 { KEYFRAME } else { FRAME })).to_bytes();
                match (&mut stream, &self.publishers[0]) {
                    (Some(stream), _) => stream.write_all(&frame).await.expect("sent"),
                    (None, Publisher::Udp(socket, server)) => {
                        for packet in frame.chunks(PACKET) {
                            socket.send_to(packet, server).await.expect("sent");
                        }
                    }
                    _ => unreachable!("a stream for each connection"),
                }
            }
        }
        self.hush(&self.got.bytes).await - before
    }

    /// Three voices for so long, 50 frames a second each; how many datagrams reached the receivers.
    pub async fn speak(&mut self, time: Duration) -> u64 {
        let before = self.got.datagrams.load(Ordering::Relaxed);
        let start = Instant::now();
        let datagram: Bytes =
            AudioDatagram { route: Route(VOICE.0), envelope: envelope(VOICE_FRAME) }.to_bytes().into();
        // Voices are not in step: each has its own 6 ms.
        for frame in 0..time.as_millis() as u32 / 20 {
            for (n, publisher) in self.publishers.iter().enumerate() {
                sleep_until(start + Duration::from_millis(20) * frame + Duration::from_millis(6) * n as u32)
                    .await;
                if let Publisher::Quic(connection) = publisher {
                    connection.send_datagram(datagram.clone()).expect("small enough");
                }
            }
        }
        self.hush(&self.got.datagrams).await - before
    }

    /// Waits until nothing more arrives.
    async fn hush(&self, count: &AtomicU64) -> u64 {
        let mut last = count.load(Ordering::Relaxed);
        for _ in 0..50 {
            sleep(Duration::from_millis(200)).await;
            let now = count.load(Ordering::Relaxed);
            if now == last {
                break;
            }
            last = now;
        }
        last
    }
}

async fn receive(connection: Connection, got: Arc<Got>) {
    loop {
        tokio::select! {
            stream = connection.accept_uni() => {
                let Ok(mut stream) = stream else { return };
                let got = got.clone();
                tokio::spawn(async move {
                    while let Ok(Some(chunk)) = stream.read_chunk(usize::MAX, true).await {
                        got.bytes.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
                    }
                });
            }
            datagram = connection.read_datagram() => {
                if datagram.is_err() {
                    return;
                }
                got.datagrams.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    // Contestants wait for their turns in silence.
    transport.max_idle_timeout(None).max_concurrent_uni_streams(VarInt::from_u32(1024));
    transport.keep_alive_interval(Some(Duration::from_secs(8)));
    transport
}

fn participant(n: usize) -> ParticipantId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(n as u64).to_be_bytes());
    ParticipantId(id)
}

fn envelope(len: usize) -> Envelope {
    let sealed = Bytes::from(vec![0x5a; len]);
    Envelope { pts: Some(0), dts: None, duration: None, flags: Flags(0), layer: 0, sealed }
}

const CAMERA: StreamId = StreamId(1);
const VOICE: StreamId = StreamId(2);
const SPEAKERS: usize = 3;
/// 2 Mbit/s: a picture that stands alone, and 29 that do not.
const FRAMES: u32 = 30;
const KEYFRAME: usize = 40_000;
const FRAME: usize = 7_240;
/// Opus at 48 kbit/s.
const VOICE_FRAME: usize = 120;

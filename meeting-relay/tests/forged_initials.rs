//! First packets that nobody stands behind: the relay answers with three times their bytes (RFC 9000, 8) and one packet at
//! most, so that it is no weapon against whoever they name as their sender, and honest agents get in meanwhile.

#[allow(dead_code)]
mod common;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use common::*;
use meeting_relay::limits;
use quinn::{Endpoint, TransportConfig};

/// First flights of a real client: more than the relay takes in without asking whether the address is made up.
const REPLAYED: usize = limits::LOBBY / 4;
/// Packets that only look like a first one.
const MADE_UP: usize = 3_000;
/// quinn sends a whole packet where any of what it may send is left, and knows no larger one by then.
const PACKET: usize = 1_200;
/// Packets between two honest agents, as many as the relay's socket holds.
const BURST: usize = 50;

#[tokio::test]
async fn forged_first_packets_are_answered_with_three_times_their_bytes_and_one_packet_at_most() {
    let rig = Rig::start();
    let _alice = rig.create(ALICE).await;
    // Each flight from an address of its own, twice, and all that is made up from one.
    let flights = flights(&rig).await;
    let mut forgers: Vec<_> = (0..=flights.len()).map(|_| Forger::new(rig.address)).collect();
    let replayed = flights
        .iter()
        .enumerate()
        .flat_map(|(n, flight)| flight.iter().chain(flight).map(move |p| (n, p.clone())));
    let mut random = Random(1);
    let made_up = (0..MADE_UP).map(|n| (flights.len(), random.initial(n)));
    let packets: Vec<_> = replayed.chain(made_up).collect();
    for burst in packets.chunks(BURST) {
        for (forger, packet) in burst {
            forgers[*forger].send(packet);
        }
        drop(rig.join(BOB).await);
    }
    // Until the relay has given up on all of them; its last word is in the sockets when it has stopped.
    let ends = tokio::time::Instant::now() + limits::HELLO;
    while tokio::time::Instant::now() < ends {
        drop(rig.join(BOB).await);
    }
    rig.stop().await;
    forgers.iter_mut().for_each(Forger::hear);
    let sum = |of: fn(&Forger) -> usize| forgers.iter().map(of).sum::<usize>();
    println!(
        "{} forged packets, {} bytes: {} bytes came back",
        packets.len(),
        sum(|f| f.sent),
        sum(|f| f.heard)
    );
    assert!(forgers.iter().any(|forger| forger.heard > forger.sent), "some were taken for a client");
    for forger in &forgers {
        assert!(forger.heard < 3 * forger.sent + PACKET, "{} bytes for {}", forger.heard, forger.sent);
    }
}

/// What a real client sends first, of as many connections: it is caught on the way and never answered.
async fn flights(rig: &Rig) -> Vec<Vec<Vec<u8>>> {
    let trap = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
    let address = trap.local_addr().expect("bound");
    let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("a socket");
    let config = client(rig.certificate.clone(), TransportConfig::default());
    let (mut calling, mut flights) = (Vec::new(), HashMap::<Vec<u8>, Vec<Vec<u8>>>::new());
    while flights.len() < REPLAYED {
        if calling.len() == flights.len() {
            let connecting = endpoint.connect_with(config.clone(), address, "localhost");
            calling.push(connecting.expect("valid settings"));
        }
        let mut packet = vec![0; 2_048];
        let len = soon(trap.recv(&mut packet)).await.expect("a packet");
        packet.truncate(len);
        // A long header: flags, version, and the connection id that the client made up for the relay.
        let id = packet[6..6 + usize::from(packet[5])].to_vec();
        flights.entry(id).or_default().push(packet);
    }
    flights.into_values().collect()
}

/// Somebody who sends from an address that may be another's, and counts.
struct Forger {
    socket: UdpSocket,
    sent: usize,
    heard: usize,
}

impl Forger {
    fn new(relay: SocketAddr) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        socket.connect(relay).expect("an address");
        socket.set_nonblocking(true).expect("a socket");
        Self { socket, sent: 0, heard: 0 }
    }

    fn send(&mut self, packet: &[u8]) {
        self.sent += self.socket.send(packet).expect("sent");
        self.hear();
    }

    /// Counts what has come.
    fn hear(&mut self) {
        let mut packet = [0; 2_048];
        while let Ok(len) = self.socket.recv(&mut packet) {
            self.heard += len;
        }
    }
}

/// The same bytes in each run (xorshift64).
struct Random(u64);

impl Random {
    fn byte(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u8
    }

    /// A packet with the long header of an Initial, of version 1 or none that there is, long enough to be taken for one or
    /// not, and no sense in it.
    fn initial(&mut self, n: usize) -> Vec<u8> {
        let version = if n.is_multiple_of(4) { [0x1a; 4] } else { [0, 0, 0, 1] };
        let len = if n.is_multiple_of(3) { 60 + usize::from(self.byte()) } else { 1_200 };
        let mut packet = [&[0xc0 | self.byte() & 0x0f][..], &version].concat();
        for _ in 0..2 {
            // A connection id.
            packet.push(8);
            packet.extend((0..8).map(|_| self.byte()));
        }
        // No token, and the rest is the payload.
        let rest = (len - packet.len() - 3) as u16;
        packet.push(0);
        packet.extend((0x4000 | rest).to_be_bytes());
        packet.extend((0..rest).map(|_| self.byte()));
        packet
    }
}

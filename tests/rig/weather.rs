//! A bad network between one agent and a relay: UDP packets take their time, overtake each other and get lost.
//!
//! It is a program in between, on loopback, and needs no rights and no kernel module: QUIC sees no difference to a long
//! way with that much loss, and the chances are the same each time. (`tc netem` in a network namespace would do
//! the same, where a kernel has it.)

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use meeting_protocol::link::MeetingLink;

/// What becomes of packets, in each direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// The share that is lost.
    pub loss: f64,
    /// How long each takes at least.
    pub one_way: Duration,
    /// How much longer it may take: within that, packets overtake each other.
    pub jitter: Duration,
    /// The bytes of the longest packet that is not lost; nobody is told of the others.
    pub longest: Option<usize>,
}

impl Weather {
    /// A long way in good weather.
    pub fn far(one_way: Duration) -> Self {
        Self { one_way, ..Self::default() }
    }
}

/// A way for one client, open until it is dropped.
pub struct Way {
    /// Where the client connects to.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    weather: Mutex<Weather>,
    carried: AtomicU64,
    lost: AtomicU64,
    stop: AtomicBool,
}

impl Way {
    /// To `relay`; one seed, one fate for each packet.
    pub fn start(relay: SocketAddr, weather: Weather, seed: u64) -> Result<Self> {
        let near = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
        let far = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
        far.connect(relay)?;
        for socket in [&near, &far] {
            socket.set_read_timeout(Some(LOOK))?;
        }
        let address = near.local_addr()?;
        let shared = Arc::new(Shared { weather: Mutex::new(weather), ..Shared::default() });
        let client = Arc::new(Mutex::new(None));
        let known = client.clone();
        carry(near.clone(), shared.clone(), Chance::new(seed), {
            let far = far.clone();
            move |packet, from| {
                *known.lock().unwrap_or_else(PoisonError::into_inner) = Some(from);
                let _ = far.send(packet);
            }
        });
        carry(far, shared.clone(), Chance::new(!seed), move |packet, _| {
            let client: Option<SocketAddr> = *client.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = client.map(|client| near.send_to(packet, client));
        });
        Ok(Self { address, shared })
    }

    /// Other weather for packets that come from now on.
    pub fn turn(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }

    /// The link for whoever is to come by here.
    pub fn bend(&self, link: &str) -> Result<String> {
        let mut link = MeetingLink::parse(link.trim())?;
        link.relay = self.address.to_string();
        Ok(link.reveal().to_string())
    }

    /// How many packets were carried and how many were lost, both ways together.
    pub fn packets(&self) -> (u64, u64) {
        (self.shared.carried.load(Ordering::Relaxed), self.shared.lost.load(Ordering::Relaxed))
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// A packet on its way; the number keeps those of one moment in order.
type Due = (Instant, u64, Vec<u8>, SocketAddr);

/// One direction: a thread that decides on each packet as it comes, and one that hands it on when it is due.
fn carry(
    from: Arc<UdpSocket>,
    shared: Arc<Shared>,
    chance: Chance,
    hand_on: impl Fn(&[u8], SocketAddr) + Send + 'static,
) {
    let (noted, due) = sync_channel(ON_THE_WAY);
    thread::spawn(move || take(&from, &shared, chance, &noted));
    thread::spawn(move || deliver(&due, hand_on));
}

fn take(from: &UdpSocket, shared: &Shared, mut chance: Chance, noted: &SyncSender<Due>) {
    let (mut packet, mut number) = ([0; 65_536], 0);
    while !shared.stop.load(Ordering::Relaxed) {
        let Ok((len, sender)) = from.recv_from(&mut packet) else { continue };
        let weather = *shared.weather.lock().unwrap_or_else(PoisonError::into_inner);
        number += 1;
        let at = Instant::now() + weather.one_way + weather.jitter.mul_f64(chance.share());
        let too_long = weather.longest.is_some_and(|longest| len > longest);
        let lost = chance.share() < weather.loss || too_long;
        // A full way loses packets, as any does.
        let lost = lost || noted.try_send((at, number, packet[..len].to_vec(), sender)).is_err();
        let count = if lost { &shared.lost } else { &shared.carried };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

fn deliver(due: &Receiver<Due>, hand_on: impl Fn(&[u8], SocketAddr)) {
    let mut waiting = BinaryHeap::new();
    loop {
        let next = waiting
            .peek()
            .map_or(LOOK, |Reverse((at, ..)): &Reverse<Due>| at.saturating_duration_since(Instant::now()));
        match due.recv_timeout(next) {
            Ok(packet) => waiting.push(Reverse(packet)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while waiting.peek().is_some_and(|Reverse((at, ..))| *at <= Instant::now()) {
            if let Some(Reverse((_, _, packet, sender))) = waiting.pop() {
                hand_on(&packet, sender);
            }
        }
    }
}

/// The same chances each time (xorshift).
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        // Not 0, which stays so, and far from the next seed's.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// How often a thread looks whether it has to stop.
const LOOK: Duration = Duration::from_millis(100);
/// Packets of one direction at one time.
const ON_THE_WAY: usize = 4_096;

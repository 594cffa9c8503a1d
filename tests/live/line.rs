//! A way between one agent and a relay on which packets take their time, each another, and none is lost or overtaken: the
//! jitter of a queue, where that of [`rig::Way`] has packets overtake each other.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use meeting_protocol::link::MeetingLink;

/// What every packet takes, and what it may take longer.
const WAY: Duration = Duration::from_millis(10);
pub const JITTER: Duration = Duration::from_millis(50);

/// A way for one client, open until it is dropped.
pub struct Line {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Line {
    /// To `relay`; one seed, the same times again.
    pub fn start(relay: SocketAddr, seed: u64) -> Result<Self> {
        let near = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
        let far = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
        far.connect(relay)?;
        for socket in [&near, &far] {
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        }
        let line = Self { address: near.local_addr()?, stop: Arc::default() };
        let client = Arc::new(Mutex::new(None));
        let known = client.clone();
        let there = far.clone();
        carry(near.clone(), line.stop.clone(), Chance(seed | 1), move |packet, from| {
            *known.lock().unwrap_or_else(PoisonError::into_inner) = Some(from);
            let _ = there.send(packet);
        });
        carry(far, line.stop.clone(), Chance(!seed | 1), move |packet, _| {
            let client: Option<SocketAddr> = *client.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = client.map(|client| near.send_to(packet, client));
        });
        Ok(line)
    }

    /// The link for whoever is to come by here.
    pub fn bend(&self, link: &str) -> Result<String> {
        let mut link = MeetingLink::parse(link.trim())?;
        link.relay = self.address.to_string();
        Ok(link.reveal().to_string())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One direction: a thread that decides when each packet is due, and one that hands it on then.
fn carry(
    from: Arc<UdpSocket>,
    stop: Arc<AtomicBool>,
    mut chance: Chance,
    hand_on: impl Fn(&[u8], SocketAddr) + Send + 'static,
) {
    let (noted, due) = mpsc::sync_channel::<(Instant, Vec<u8>, SocketAddr)>(4_096);
    thread::spawn(move || {
        let mut packet = [0; 65_536];
        while !stop.load(Ordering::Relaxed) {
            if let Ok((len, sender)) = from.recv_from(&mut packet) {
                let at = Instant::now() + WAY + JITTER.mul_f64(chance.share());
                let _ = noted.try_send((at, packet[..len].to_vec(), sender));
            }
        }
    });
    thread::spawn(move || {
        while let Ok((at, packet, sender)) = due.recv() {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            hand_on(&packet, sender);
        }
    });
}

/// The same chances each time (xorshift).
struct Chance(u64);

impl Chance {
    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

//! A UDP proxy in front of a relay that keeps what passes, the bytes anybody on the way can see, and can change the
//! address its client seems to have.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Result;
use meeting_protocol::link::MeetingLink;

/// How often a thread looks whether it has to stop, or has another socket.
const LOOK: Duration = Duration::from_millis(20);

/// The most bytes kept.
const KEEP: usize = 8 * 1024 * 1024;

/// A running proxy for one client.
pub struct Proxy {
    /// Where the client connects to.
    pub address: SocketAddr,
    relay: SocketAddr,
    far: Arc<Mutex<Arc<UdpSocket>>>,
    seen: Arc<Mutex<Vec<u8>>>,
    stop: Arc<AtomicBool>,
}

impl Proxy {
    /// Starts one in front of `relay`.
    pub fn start(relay: SocketAddr) -> Result<Self> {
        let near = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
        near.set_read_timeout(Some(LOOK))?;
        let far = Arc::new(Mutex::new(far_socket(relay)?));
        let address = near.local_addr()?;
        let (seen, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let client = Arc::new(Mutex::new(None));
        let (up, down) = (Arc::clone(&client), client);
        let (near_in, out) = (Arc::clone(&near), Arc::clone(&far));
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            let mut packet = [0; 65_536];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((len, from)) = near_in.recv_from(&mut packet) {
                    *up.lock().expect("no panic under the lock") = Some(from);
                    let _ = now(&out).send(&packet[..len]);
                }
            }
        });
        let (kept, stopped, back) = (Arc::clone(&seen), Arc::clone(&stop), Arc::clone(&far));
        thread::spawn(move || {
            let mut packet = [0; 65_536];
            while !stopped.load(Ordering::Relaxed) {
                let Ok(len) = now(&back).recv(&mut packet) else { continue };
                let mut kept = kept.lock().expect("no panic under the lock");
                if kept.len() + len <= KEEP {
                    kept.extend_from_slice(&packet[..len]);
                }
                let client: Option<SocketAddr> = *down.lock().expect("no panic under the lock");
                if let Some(client) = client {
                    let _ = near.send_to(&packet[..len], client);
                }
            }
        });
        Ok(Self { address, relay, far, seen, stop })
    }

    /// The link for whoever is to come by here.
    pub fn bend(&self, link: &str) -> Result<String> {
        let mut link = MeetingLink::parse(link.trim())?;
        link.relay = self.address.to_string();
        Ok(link.reveal().to_string())
    }

    /// From now on the client speaks from another port, as after a new lease of its network's router; what is still
    /// sent to the old one is lost.
    pub fn rebind(&self) -> Result<()> {
        *self.far.lock().expect("no panic under the lock") = far_socket(self.relay)?;
        Ok(())
    }

    /// What came from the relay, at most 8 MiB of it.
    pub fn seen(&self) -> Vec<u8> {
        self.seen.lock().expect("no panic under the lock").clone()
    }
}

fn far_socket(relay: SocketAddr) -> Result<Arc<UdpSocket>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(relay)?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(Arc::new(socket))
}

fn now(far: &Mutex<Arc<UdpSocket>>) -> Arc<UdpSocket> {
    Arc::clone(&far.lock().expect("no panic under the lock"))
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

//! A UDP proxy in front of a relay that keeps what passes: the bytes anybody on the way can see.

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

/// The most bytes kept.
const KEEP: usize = 8 * 1024 * 1024;

/// A running proxy for one client.
pub struct Proxy {
    /// Where the client connects to.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<u8>>>,
    stop: Arc<AtomicBool>,
}

impl Proxy {
    /// Starts one in front of `relay`.
    pub fn start(relay: SocketAddr) -> Result<Self> {
        let near = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
        let far = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
        far.connect(relay)?;
        for socket in [&near, &far] {
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        }
        let address = near.local_addr()?;
        let (seen, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let client = Arc::new(Mutex::new(None));
        let (up, down) = (Arc::clone(&client), client);
        let (near_in, far_out) = (Arc::clone(&near), Arc::clone(&far));
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            let mut packet = [0; 65_536];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((len, from)) = near_in.recv_from(&mut packet) {
                    *up.lock().expect("no panic under the lock") = Some(from);
                    let _ = far_out.send(&packet[..len]);
                }
            }
        });
        let (kept, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        thread::spawn(move || {
            let mut packet = [0; 65_536];
            while !stopped.load(Ordering::Relaxed) {
                let Ok(len) = far.recv(&mut packet) else { continue };
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
        Ok(Self { address, seen, stop })
    }

    /// What came from the relay, at most 8 MiB of it.
    pub fn seen(&self) -> Vec<u8> {
        self.seen.lock().expect("no panic under the lock").clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

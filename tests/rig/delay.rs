//! A long way between one agent and a relay: every UDP packet takes its time, none is lost or overtaken.

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

/// A way for one client, open until it is dropped.
pub struct DelayLine {
    /// Where the client connects to.
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl DelayLine {
    /// To `relay`, `one_way` long in each direction.
    pub fn start(relay: SocketAddr, one_way: Duration) -> Result<Self> {
        let near = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
        let far = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
        far.connect(relay)?;
        for socket in [&near, &far] {
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        }
        let (address, stop) = (near.local_addr()?, Arc::new(AtomicBool::new(false)));
        let client = Arc::new(Mutex::new(None));
        let known = client.clone();
        carry(near.clone(), stop.clone(), one_way, {
            let far = far.clone();
            move |packet, from| {
                *known.lock().unwrap_or_else(PoisonError::into_inner) = Some(from);
                let _ = far.send(packet);
            }
        });
        carry(far, stop.clone(), one_way, move |packet, _| {
            let client: Option<SocketAddr> = *client.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = client.map(|client| near.send_to(packet, client));
        });
        Ok(Self { address, stop })
    }
}

impl Drop for DelayLine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One direction: a thread that notes when each packet came, and one that hands it on when it is due.
fn carry(
    from: Arc<UdpSocket>,
    stop: Arc<AtomicBool>,
    one_way: Duration,
    hand_on: impl Fn(&[u8], SocketAddr) + Send + 'static,
) {
    let (noted, due) = mpsc::sync_channel::<(Instant, Vec<u8>, SocketAddr)>(ON_THE_WAY);
    thread::spawn(move || {
        let mut packet = [0; 65_536];
        while !stop.load(Ordering::Relaxed) {
            if let Ok((len, sender)) = from.recv_from(&mut packet) {
                // a full way loses packets, as any does
                let _ = noted.try_send((Instant::now() + one_way, packet[..len].to_vec(), sender));
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

/// Packets of one direction at one time.
const ON_THE_WAY: usize = 4_096;

//! A path that takes little towards an agent.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Where an agent reaches the relay at this address by a path with so many bytes a second to the agent: it keeps some
/// packets, of the size that every path takes, and drops what comes beyond them.
pub async fn path(relay: SocketAddr, per_second: u64) -> SocketAddr {
    let (near, far) = (socket().await, socket().await);
    far.connect(relay).await.expect("loopback");
    let address = near.local_addr().expect("bound");
    let (queue, mut queued) = mpsc::channel::<Vec<u8>>(24);
    let up = {
        let (near, far) = (near.clone(), far.clone());
        tokio::spawn(async move {
            let mut packet = [0; 2048];
            while let Ok((len, agent)) = near.recv_from(&mut packet).await {
                // An agent has one address here; this also says where to.
                let _ = near.connect(agent).await;
                let _ = far.send(&packet[..len]).await;
            }
        })
    };
    tokio::spawn(async move {
        let mut packet = [0; 2048];
        while let Ok(len) = far.recv(&mut packet).await {
            if len <= LARGEST {
                let _ = queue.try_send(packet[..len].to_vec());
            }
        }
        up.abort();
    });
    tokio::spawn(async move {
        let mut free = Instant::now();
        while let Some(packet) = queued.recv().await {
            let _ = near.send(&packet).await;
            free = free.max(Instant::now())
                + Duration::from_micros(packet.len() as u64 * 1_000_000 / per_second);
            sleep_until(free).await;
        }
    });
    address
}

const LARGEST: usize = 1_200;

async fn socket() -> Arc<UdpSocket> {
    Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket"))
}

//! The named peers: bare quinn and bare UDP. Each prints its address and forwards until it is killed.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use meeting_wire::{GroupHeader, Record};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, RecvStream};
use quinn_udp::{Transmit, UdpSocketState};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::mpsc;

/// The simplest fan-out on quinn with its own settings, on one thread, which costs it least: a task writes each group
/// to a stream per receiver, frame by frame as they come, and each datagram goes to everybody. Whoever says something
/// is a publisher, all others receive.
pub fn quinn(state: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let endpoint = Endpoint::server(server_config(state), ([127, 0, 0, 1], 0).into()).expect("a socket");
        println!("{}", endpoint.local_addr().expect("an address"));
        let receivers: Arc<Mutex<Vec<Connection>>> = Arc::default();
        while let Some(incoming) = endpoint.accept().await {
            let Ok(connection) = incoming.await else { continue };
            receivers.lock().expect("no panic").push(connection.clone());
            tokio::spawn(serve(connection, receivers.clone()));
        }
    });
}

async fn serve(connection: Connection, receivers: Arc<Mutex<Vec<Connection>>>) {
    let others = || -> Vec<Connection> {
        let all = receivers.lock().expect("no panic");
        all.iter().filter(|other| other.stable_id() != connection.stable_id()).cloned().collect()
    };
    loop {
        tokio::select! {
            group = connection.accept_uni() => match group {
                Ok(group) => drop(tokio::spawn(fan_out(group, others()))),
                Err(_) => return,
            },
            datagram = connection.read_datagram() => {
                let Ok(datagram) = datagram else { return };
                for receiver in others() {
                    let _ = receiver.send_datagram(datagram.clone());
                }
            }
        }
    }
}

async fn fan_out(mut group: RecvStream, receivers: Vec<Connection>) {
    let lane = |receiver: Connection| {
        let (lane, mut frames) = mpsc::unbounded_channel::<Bytes>();
        tokio::spawn(async move {
            let Ok(mut stream) = receiver.open_uni().await else { return };
            while let Some(frame) = frames.recv().await {
                if stream.write_chunk(frame).await.is_err() {
                    return;
                }
            }
        });
        lane
    };
    let lanes: Vec<_> = receivers.into_iter().map(lane).collect();
    let mut header = vec![0; GroupHeader::LEN];
    let mut whole = group.read_exact(&mut header).await.is_ok();
    let mut bytes = header;
    while whole {
        for lane in &lanes {
            let _ = lane.send(Bytes::copy_from_slice(&bytes));
        }
        let mut head = [0; Record::HEAD];
        whole = group.read_exact(&mut head).await.is_ok();
        let Ok((_, len)) = Record::head(head) else { return };
        bytes = [&head[..], &vec![0; len]].concat();
        whole = whole && group.read_exact(&mut bytes[Record::HEAD..]).await.is_ok();
    }
}

fn server_config(state: &Path) -> quinn::ServerConfig {
    let certificate = CertificateDer::from_pem_file(state.join("certificate.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(state.join("key.pem")).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("they fit");
    tls.alpn_protocols = vec![meeting_wire::ALPN.to_vec()];
    quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).expect("TLS 1.3")))
}

/// Forwards a publisher's packets to all who said hello with an empty one. With `segments` those that came together
/// leave in one system call per receiver.
pub fn udp(segments: bool) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    println!("{}", socket.local_addr().expect("an address"));
    let state = UdpSocketState::new((&socket).into()).expect("a socket");
    socket.set_nonblocking(false).expect("a socket");
    let mut receivers: Vec<SocketAddr> = Vec::new();
    let mut buffer = [0; 2048];
    let mut frame = Vec::new();
    loop {
        let (len, from) = socket.recv_from(&mut buffer).expect("a packet");
        if len == 0 {
            receivers.push(from);
            let _ = socket.send_to(&[], from);
            continue;
        }
        if !segments {
            for receiver in &receivers {
                let _ = socket.send_to(&buffer[..len], receiver);
            }
            continue;
        }
        frame.extend_from_slice(&buffer[..len]);
        // A short packet ends a frame, and 64 KiB or 64 packets are the most that one call takes.
        if len < super::crowd::PACKET || frame.len() >= 40 * super::crowd::PACKET {
            for receiver in &receivers {
                let transmit = Transmit {
                    destination: *receiver,
                    ecn: None,
                    contents: &frame,
                    segment_size: Some(super::crowd::PACKET),
                    src_ip: None,
                };
                let _ = state.send((&socket).into(), &transmit);
            }
            frame.clear();
        }
    }
}

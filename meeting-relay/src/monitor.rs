//! Counters and health over HTTP/1.0, for a Prometheus or a supervisor on this machine.
//!
//! Two paths, each with an answer that needs nothing of the request but its first line: a server of its own would be
//! more code than this, and more ways in.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::counters::sample;
use crate::error::Error;
use crate::session::House;

/// A monitor that listens, and does not answer yet.
#[derive(Debug)]
pub struct Monitor {
    listener: TcpListener,
    address: SocketAddr,
}

/// A monitor that answers until it is dropped.
#[derive(Debug)]
pub struct Serving(JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Takes the address, so that one in use is an error at the start.
pub fn listen(address: SocketAddr) -> Result<StdListener, Error> {
    StdListener::bind(address).map_err(|error| Error::Monitor { address, error })
}

impl Monitor {
    /// On an open socket. Needs a tokio runtime around it.
    pub fn on(listener: StdListener) -> Result<Self, Error> {
        let on = || -> io::Result<Self> {
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Self { listener: TcpListener::from_std(listener)?, address })
        };
        on().map_err(Error::io("preparing the monitor's socket"))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers from now on.
    pub fn serve(self, house: Arc<House>, certificate_ends: Arc<AtomicU64>) -> Serving {
        Serving(tokio::spawn(async move {
            let places = Arc::new(Semaphore::new(MAX_CLIENTS));
            loop {
                let Ok((stream, _)) = self.listener.accept().await else {
                    // Out of file descriptors, most likely: others may give some back.
                    tokio::time::sleep(PATIENCE).await;
                    continue;
                };
                // Those above the limit are hung up on.
                let Ok(place) = places.clone().try_acquire_owned() else { continue };
                let (house, ends) = (house.clone(), certificate_ends.load(Ordering::Relaxed));
                tokio::spawn(async move {
                    let answer = |line: &str| answer(line, &house, ends);
                    // A client that is slow or gone is its own fault, and nobody's loss.
                    let _ = timeout(PATIENCE, converse(stream, answer)).await;
                    drop(place);
                });
            }
        }))
    }
}

/// Asks the relay whose monitor is at `address`, and gives its answer.
///
/// # Errors
///
/// If nobody answers there within 2 s, or says anything but that all is well.
pub async fn check(address: SocketAddr) -> Result<String, Error> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await?;
        let mut text = String::new();
        stream.take(MAX_REQUEST as u64).read_to_string(&mut text).await?;
        Ok::<_, io::Error>(text)
    };
    let asking = || Error::io(format!("asking the relay's monitor at {address}: is the relay running?"));
    let text = timeout(PATIENCE, ask)
        .await
        .map_err(|_| asking()(io::ErrorKind::TimedOut.into()))?
        .map_err(asking())?;
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.trim().to_owned()),
        _ => Err(asking()(io::Error::other("it gave another answer"))),
    }
}

async fn converse(mut stream: TcpStream, answer: impl Fn(&str) -> String) -> io::Result<()> {
    let (mut request, mut len) = ([0; MAX_REQUEST], 0);
    // To the end of the head: hanging up on a client that still writes could lose it the answer.
    while !request[..len].windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut request[len..]).await? {
            0 => break,
            n => len += n,
        }
    }
    let first = request[..len].split(|byte| *byte == b'\r').next().unwrap_or_default();
    stream.write_all(answer(&String::from_utf8_lossy(first)).as_bytes()).await?;
    stream.shutdown().await
}

fn answer(line: &str, house: &House, certificate_ends: u64) -> String {
    let mut words = line.split(' ');
    let (status, body) = match (words.next(), words.next()) {
        (Some("GET"), Some("/metrics")) => {
            let mut text = house.counters.to_prometheus();
            for (name, help, value) in [
                ("meetings", "Meetings that are kept now.", house.meetings.count() as u64),
                ("members", "Connections that said hello and are there now.", house.members() as u64),
                (
                    "memory_bytes",
                    "What is kept for others, of max_memory_mb.",
                    house.meetings.memory().used() as u64,
                ),
                (
                    "certificate_expiry_timestamp_seconds",
                    "When the certificate ends, in seconds since 1970; 0 if it does not say.",
                    certificate_ends,
                ),
            ] {
                sample(&mut text, name, "gauge", help, value);
            }
            ("200 OK", text)
        }
        (Some("GET"), Some("/healthz")) => ("200 OK", "ok\n".into()),
        (Some("GET"), _) => ("404 Not Found", "there are /metrics and /healthz\n".into()),
        _ => ("405 Method Not Allowed", "only GET\n".into()),
    };
    let len = body.len();
    format!(
        "HTTP/1.0 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {len}\r\n\
         Connection: close\r\n\r\n{body}"
    )
}

/// A scrape sends a few hundred bytes.
const MAX_REQUEST: usize = 4_096;
/// A Prometheus and a supervisor, a few times over.
const MAX_CLIENTS: usize = 16;
/// How long a client may take for all it has to say.
const PATIENCE: Duration = Duration::from_secs(2);

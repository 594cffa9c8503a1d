//! Counters and health, as a Prometheus and a supervisor see them.

use std::net::SocketAddr;
use std::time::Duration;

use meeting_relay::{Config, Error, Relay, check_health};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

fn config(state: &tempfile::TempDir, monitor: &str) -> Config {
    Config { monitor: Some(monitor.parse().expect("an address")), ..Config::development(state.path()) }
}

async fn ask(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("listens");
    // It may hang up before everything is written.
    let _ = stream.write_all(request).await;
    let mut text = Vec::new();
    let _ = timeout(Duration::from_secs(10), stream.read_to_end(&mut text)).await.expect("an end");
    String::from_utf8(text).expect("UTF-8")
}

#[tokio::test]
async fn counts_and_health_are_served_and_nothing_else() {
    let state = tempfile::tempdir().expect("a directory");
    let relay = Relay::bind(config(&state, "127.0.0.1:0")).expect("free");
    let (address, counters) = (relay.monitor_addr().expect("a monitor"), relay.counters());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(relay.run(async { drop(stopped.await) }));

    counters.frames_out.add(7);
    let text = ask(address, b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.0 200 OK\r\n"), "{text}");
    assert!(
        text.contains("# TYPE meeting_relay_frames_out_total counter\nmeeting_relay_frames_out_total 7\n")
    );
    assert!(text.contains("\nmeeting_relay_meetings 0\n"), "{text}");
    let body = text.split_once("\r\n\r\n").expect("a body").1;
    assert!(body.contains("\nmeeting_relay_certificate_expiry_timestamp_seconds 6"), "the year 4096: {body}");
    keeps_to_conventions(body);
    assert_eq!(check_health(address).await.expect("well"), "ok");

    for (request, status) in [
        (&b"GET /secrets HTTP/1.1\r\n\r\n"[..], "404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
        (b"\xff\xfe\r\n\r\n", "405"),
        (b"GET /healthz HTTP/1.0\n", ""),
        (&[b'x'; 10_000], ""),
    ] {
        let text = ask(address, request).await;
        let said = text.split(' ').nth(1).unwrap_or_default();
        assert!(status.is_empty() || said == status, "{text}");
    }
    // Clients that say nothing cost others at most a moment.
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(address).await.expect("listens"));
    }
    let served = async {
        while check_health(address).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), served).await.expect("served again once they have had their time");

    drop(stop);
    running.await.expect("no panic").expect("a clean end");
    let error = check_health(address).await.expect_err("it has ended").to_string();
    assert!(error.contains("is the relay running"), "{error}");
}

/// Each metric is explained and typed before its one sample; counters end in `_total` with the unit before it, and
/// nothing has a label that could name anybody.
fn keeps_to_conventions(body: &str) {
    let lines: Vec<&str> = body.lines().collect();
    assert!(body.ends_with('\n') && lines.len().is_multiple_of(3), "{body}");
    let mut names = std::collections::HashSet::new();
    for metric in lines.chunks(3) {
        let (name, value) = metric[2].split_once(' ').expect("a sample");
        let help = metric[0].strip_prefix(&format!("# HELP {name} ")).expect(metric[0]);
        let kind = metric[1].strip_prefix(&format!("# TYPE {name} ")).expect(metric[1]);
        assert!(help.ends_with('.') && !help.contains('\\'), "{help}");
        assert!(name.starts_with("meeting_relay_") && names.insert(name), "{name}");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        assert!(!name.contains("bytes") || name.trim_end_matches("_total").ends_with("_bytes"), "{name}");
        assert!(value.parse::<u64>().is_ok(), "{value}");
    }
}

#[tokio::test]
async fn a_client_that_sends_a_byte_a_second_is_hung_up_on() {
    let state = tempfile::tempdir().expect("a directory");
    let relay = Relay::bind(config(&state, "127.0.0.1:0")).expect("free");
    let address = relay.monitor_addr().expect("a monitor");
    let running = tokio::spawn(relay.run(std::future::pending()));
    let mut slow = TcpStream::connect(address).await.expect("listens");
    // The answer never comes, so what ends this is the hang-up; 60 bytes would take a minute.
    let trickle = async {
        for byte in b"GET /metrics HTTP/1.1\r\nx: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx".chunks(1) {
            if slow.write_all(byte).await.is_err() {
                return true;
            }
            let mut answer = [0; 16];
            if let Ok(read) = timeout(Duration::from_millis(1_000), slow.read(&mut answer)).await {
                return !matches!(read, Ok(1..));
            }
        }
        false
    };
    assert!(trickle.await, "hung up on");
    assert_eq!(check_health(address).await.expect("well"), "ok");
    running.abort();
}

#[tokio::test]
async fn a_monitor_for_the_world_or_on_a_taken_port_is_refused() {
    let state = tempfile::tempdir().expect("a directory");
    let error = Relay::bind(config(&state, "0.0.0.0:0")).expect_err("no password").to_string();
    assert!(error.contains("loopback"), "{error}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let error = Relay::bind(config(&state, &address)).expect_err("taken");
    assert!(matches!(error, Error::Monitor { .. }) && error.to_string().contains("--monitor"), "{error}");
}

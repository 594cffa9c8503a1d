//! What fan-out costs the relay, beside the least that quinn and UDP need for the same bytes.
//!
//! `cargo bench -p meeting-relay` prints one table. One publisher sends 2 Mbit/s of video to 50 and to 200 receivers,
//! and three voices speak to 200. Each contestant is a process of its own, and only that process's CPU time and memory
//! are counted; publishers and receivers live in this one. The contestants take turns, so that a slow moment of the
//! machine hits them alike. What counts is the ratio to bare quinn in the same run.

#![allow(missing_docs)]

#[allow(dead_code)]
#[path = "../../tests/common/mod.rs"]
mod common;
mod crowd;
mod peers;
mod server;

use std::time::Duration;

use crowd::Crowd;
use server::{Contestant, Server};

const CONTESTANTS: [Contestant; 4] =
    [Contestant::Relay, Contestant::Quinn, Contestant::Udp, Contestant::UdpSegments];
/// Bare quinn's place in [`CONTESTANTS`].
const BASE: usize = 1;
const TURN: Duration = Duration::from_secs(3);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(state) = args.first().and_then(|arg| arg.strip_prefix("quinn=")) {
        return peers::quinn(state.as_ref());
    }
    match args.first().map(String::as_str) {
        Some("udp") => return peers::udp(false),
        Some("udp-segments") => return peers::udp(true),
        _ if !args.iter().any(|arg| arg == "--bench") => return,
        _ => {}
    }
    let rounds = args.iter().find_map(|arg| arg.strip_prefix("rounds=")?.parse().ok()).unwrap_or(7);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        println!("CPU seconds per forwarded GB and memory per receiver (times bare quinn), medians of {rounds} interleaved rounds");
        println!("{:>22}{}", "", CONTESTANTS.map(|contestant| format!("{:>16}", contestant.name())).concat());
        for receivers in [50, 200] {
            video(receivers, rounds).await;
        }
        voices(200, rounds).await;
    });
}

async fn video(receivers: usize, rounds: usize) {
    let mut crowds = Vec::new();
    let mut servers = Vec::new();
    for contestant in CONTESTANTS {
        let server = Server::start(contestant);
        let before = server.memory();
        let mut crowd = Crowd::gather(&server, receivers).await;
        crowd.film(Duration::from_secs(1)).await;
        crowds.push(crowd);
        servers.push((server, before));
    }
    let mut cost = vec![Vec::new(); CONTESTANTS.len()];
    for round in 0..rounds {
        for n in 0..CONTESTANTS.len() {
            let n = (n + round) % CONTESTANTS.len();
            let before = servers[n].0.cpu();
            let bytes = crowds[n].film(TURN).await;
            cost[n].push((servers[n].0.cpu() - before) / bytes as f64 * 1e9);
        }
    }
    row(&format!("{receivers} x 2 Mbit/s, s/GB"), &cost, "1.1");
    let memory: Vec<_> = servers
        .iter()
        .map(|(server, before)| {
            vec![server.memory().saturating_sub(*before) as f64 / receivers as f64 / 1024.0]
        })
        .collect();
    row("memory, KiB each", &memory, "");
}

async fn voices(receivers: usize, rounds: usize) {
    let contestants = &CONTESTANTS[..=BASE];
    let mut crowds = Vec::new();
    let mut servers = Vec::new();
    for contestant in contestants {
        let server = Server::start(*contestant);
        crowds.push(Crowd::gather(&server, receivers).await);
        servers.push(server);
    }
    let mut cost = vec![Vec::new(); contestants.len()];
    for round in 0..rounds {
        for n in 0..contestants.len() {
            let n = (n + round) % contestants.len();
            let before = servers[n].cpu();
            let datagrams = crowds[n].speak(TURN).await;
            cost[n].push((servers[n].cpu() - before) / datagrams as f64 * 1e6);
        }
    }
    row("3 voices x 200, µs each", &cost, "");
}

/// A row of the table here, and the line that `./benches` makes its own of.
fn row(what: &str, measured: &[Vec<f64>], aim: &str) {
    let base = median(&measured[BASE]);
    let ours = median(&measured[0]);
    println!(
        "figure: relay: {what} | {ours:.2} | bare quinn | {base:.2} | {:.2} | {aim} | CPU or memory of the process",
        ours / base
    );
    let cells = measured.iter().map(|values| {
        let value = median(values);
        format!("{:>16}", format!("{value:.2} ({:.2})", value / base))
    });
    println!("{what:>22}{}", cells.collect::<String>());
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

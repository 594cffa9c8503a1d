//! Thousands who connect and say nothing: the relay stays small, and honest agents get in.

#[allow(dead_code)]
mod common;

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use common::program::Program;
use common::*;
use meeting_relay::{close_code, limits};
use meeting_wire::{Refusal, Slot};
use quinn::{Connection, ConnectionError, TransportConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// `crowd` connections that say nothing, from as many sockets, and honest agents in between.
async fn silence(crowd: usize) {
    let folder = tempfile::tempdir().expect("a directory");
    let relay = Program::start(folder.path(), &["--stats", "stats"]).await;
    let mut alice = relay.agent(ALICE).await;
    let before = relay.memory();
    let mut silent: VecDeque<(Instant, Connection)> = VecDeque::new();
    let (mut most, mut busy, mut soon_after) = (0, 0, 0);
    for n in 1..=crowd {
        let begun = Instant::now();
        silent.push_back((begun, relay.connect(&relay.certificate).await));
        if n % 200 == 0 {
            // Bob comes, and comes again in place of himself.
            let mut bob = relay.agent(BOB).await;
            alice.post(Slot::Direct(BOB), b"hello").await;
            assert_eq!(&bob.hear_post().await.body[..], b"hello");
            most = relay.memory().max(most);
        }
        // Those before the last that have a place had to go: for another, or, on a slow machine, for their silence.
        if silent.len() > limits::LOBBY_OF_NETWORK {
            let (begun, first) = silent.pop_front().expect("many");
            soon_after += usize::from(begun.elapsed() < limits::HELLO / 2);
            let code = match soon(first.closed()).await {
                ConnectionError::ApplicationClosed(close) => close.error_code.into_inner() as u32,
                other => panic!("closed by the relay expected: {other}"),
            };
            assert!([Refusal::Busy, Refusal::Protocol].map(close_code).contains(&code), "{code}");
            busy += usize::from(code == close_code(Refusal::Busy));
        }
    }
    let grown = most.saturating_sub(before);
    println!("{crowd} silent connections: {busy} made room for others, {grown} KiB more at most");
    // On a machine on which as many take longer to come, all may have had to go for their silence.
    assert!(busy > 0 || soon_after == 0, "256 newcomers came within 2.5 s, and nobody made room for them");
    assert!(grown < 64 * 1024, "{grown} KiB");
}

#[tokio::test]
async fn datagrams_before_a_hello_end_who_sends_them() {
    let folder = tempfile::tempdir().expect("a directory");
    let relay = Program::start(folder.path(), &[]).await;
    let _alice = relay.agent(ALICE).await;
    let certificate = CertificateDer::from_pem_file(&relay.certificate).expect("a certificate");
    let before = relay.memory();
    let (mut strangers, mut most) = (Vec::new(), 0);
    for _ in 0..20 {
        let mut padded = TransportConfig::default();
        padded.pad_to_mtu(true);
        let stranger = connect(relay.address(), certificate.clone(), padded).await;
        let sent = stranger.datagram_send_buffer_space();
        for _ in 0..2_000 {
            if stranger.send_datagram(Bytes::from_static(&[0])).is_err() {
                break;
            }
            // A packet for each: whoever keeps one byte of it keeps it all.
            while stranger.datagram_send_buffer_space() < sent && stranger.close_reason().is_none() {
                tokio::task::yield_now().await;
            }
        }
        strangers.push(stranger);
        most = relay.memory().max(most);
    }
    let grown = most.saturating_sub(before);
    println!("20 strangers who send datagrams: {grown} KiB more at most");
    for stranger in strangers {
        let ConnectionError::ApplicationClosed(close) = soon(stranger.closed()).await else {
            panic!("closed by the relay expected");
        };
        assert_eq!(&close.reason[..], b"a datagram before the hello");
    }
    assert!(grown < 16 * 1024, "{grown} KiB");
}

#[tokio::test]
async fn six_hundred_who_say_nothing_keep_nobody_out() {
    silence(600).await;
}

#[tokio::test]
#[ignore = "takes minutes: cargo test -p meeting-relay --test silence -- --ignored"]
async fn ten_thousand_who_say_nothing_keep_nobody_out() {
    silence(10_000).await;
}

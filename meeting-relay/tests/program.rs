//! The relay as people run it every day: signals, certificates, logs.

#[allow(dead_code)]
mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use common::program::{Program, certificate, command};
use common::*;
use meeting_relay::SHUTDOWN;
use meeting_wire::{FromRelay, Kind, Slot, StreamId};
use nix::sys::signal::Signal;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn copy(from: &[impl AsRef<Path>; 2], to: &[impl AsRef<Path>; 2]) {
    for (from, to) in from.iter().zip(to) {
        fs::copy(from, to).expect("copied");
    }
}

#[tokio::test]
async fn sigterm_tells_the_agents_and_ends_well_and_soon() {
    let folder = folder();
    let mut relay = Program::start(folder.path(), &["--stats", "stats"]).await;
    let alice = relay.agent(ALICE).await;
    let bob = relay.agent(BOB).await;
    // One who acknowledges nothing any more cannot hold it up.
    let gone = relay.agent(EVE).await;
    drop(gone);
    let asked = Instant::now();
    relay.signal(Signal::SIGTERM);
    for agent in [&alice, &bob] {
        assert_eq!(agent.closed().await, (SHUTDOWN, "the relay is shutting down".into()));
    }
    assert!(relay.ended().await.success());
    // 2 s for the news, and a slow machine.
    assert!(asked.elapsed() < Duration::from_secs(30));
    assert!(fs::read_to_string(folder.path().join("stats")).expect("written").contains("connections 3\n"));
}

#[tokio::test]
async fn the_service_manager_is_told_when_it_is_ready() {
    let folder = folder();
    let socket = tokio::net::UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
    let mut command = command(&[]);
    command.env("NOTIFY_SOCKET", folder.path().join("notify"));
    let _relay = Program::start_as(command, folder.path(), &[]).await;
    let mut said = [0; 64];
    let len = soon(socket.recv(&mut said)).await.expect("a message");
    assert_eq!(&said[..len], b"READY=1\n");
}

#[tokio::test]
async fn sighup_brings_a_new_certificate_to_new_connections_and_a_broken_one_changes_nothing() {
    let folder = folder();
    let path = folder.path();
    let first = certificate(path, "first", (-1, 365));
    let second = certificate(path, "second", (-1, 365));
    let used = [path.join("used.pem"), path.join("used.key")];
    copy(&first, &used);
    let mut relay = Program::start(path, &["--certificate", "used.pem", "--key", "used.key"]).await;
    relay.certificate = first[0].clone();
    let hash = relay.ready().1;
    let mut alice = relay.agent(ALICE).await;

    fs::write(&used[0], "-----BEGIN CERTIFICATE-----\nbroken").expect("written");
    relay.signal(Signal::SIGHUP);
    relay.logs("the new certificate is not used, the old one stays: ").await;
    assert!(relay.log().contains("used.pem"), "{}", relay.log());
    relay.connect(&first[0]).await;

    copy(&[&second[0], &first[1]], &used);
    relay.signal(Signal::SIGHUP);
    relay.logs("the key is of another certificate").await;
    relay.connect(&first[0]).await;
    assert_eq!(relay.ready().1, hash);

    copy(&second, &used);
    relay.signal(Signal::SIGHUP);
    relay.logs("a new certificate is in use").await;
    relay.certificate = second[0].clone();
    let mut bob = relay.agent(BOB).await;
    alice.post(Slot::Direct(BOB), b"still here").await;
    assert_eq!(&bob.hear_post().await.body[..], b"still here");
    assert_ne!(relay.ready().1, hash, "links made from now on name the new one");
}

#[tokio::test]
async fn a_certificate_that_changes_on_disk_is_taken_without_being_told() {
    let folder = folder();
    let path = folder.path();
    let second = certificate(path, "second", (-1, 365));
    let relay = Program::start(path, &[]).await;
    let first = path.join("first.pem");
    fs::copy(&relay.certificate, &first).expect("copied");
    fs::remove_file(&relay.certificate).expect("removed");
    relay.logs("the new certificate is not used, the old one stays: state/certificate.pem").await;
    relay.connect(&first).await;
    copy(&second, &[path.join("state/certificate.pem"), path.join("state/key.pem")]);
    relay.logs("a new certificate is in use").await;
    relay.connect(&second[0]).await;
}

#[tokio::test]
async fn an_expired_certificate_is_warned_about_and_so_is_one_that_soon_will_be() {
    for (days, warning) in [
        ((-400, -1), Some("has expired")),
        ((-400, 3), Some("is about to expire")),
        ((1, 90), Some("is not valid yet")),
        ((-1, 90), None),
    ] {
        let folder = folder();
        certificate(folder.path(), "used", days);
        let args = ["--certificate", "used.pem", "--key", "used.key", "--stats", "stats"];
        let relay = Program::start(folder.path(), &args).await;
        match warning {
            Some(warning) => relay.logs(warning).await,
            None => {
                // The counters are written in the same breath.
                soon(async {
                    while !folder.path().join("stats").exists() {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                })
                .await;
                assert!(!relay.log().contains("certificate is") && !relay.log().contains("expired"));
            }
        }
    }
}

#[tokio::test]
async fn a_json_log_is_one_object_a_line_and_names_nobody() {
    let folder = folder();
    let mut relay = Program::start(folder.path(), &["--log", "json"]).await;
    let mut alice = relay.agent(ALICE).await;
    let mut bob = relay.agent(BOB).await;
    alice.publish_to(&mut bob, StreamId(3), Kind::Video).await;
    let mut eve = relay.agent(EVE).await;
    let addresses = [&alice, &bob, &eve]
        .map(|agent| agent.connection.local_ip().map_or(String::new(), |ip| ip.to_string()));
    eve.send.write_all(&[0, 0, 0, 1, 99]).await.expect("sent");
    eve.closed().await;
    assert_eq!(bob.hear().await, FromRelay::Gone { participant: EVE });
    relay.signal(Signal::SIGTERM);
    relay.ended().await;

    let log = relay.log();
    let shown = relay.ready().0;
    assert!(log.lines().count() >= 4, "{log}");
    for line in log.lines() {
        let object: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(object["level"].is_string() && object["message"].is_string(), "{line}");
        // Its own address is the operator's; an agent's port, id or meeting is nobody's business.
        let line = line.replace(&shown, "");
        for id in [ALICE.0, EVE.0, MEETING.0] {
            assert!(!line.contains(&hex::encode(id)), "{line}");
        }
        assert!(addresses.iter().all(|address| address.is_empty() || !line.contains(address)), "{line}");
        assert!(!line.contains("127.0.0.1:"), "{line}");
    }
    assert!(log.contains("ended a connection for what it sent"), "{log}");
}

#[tokio::test]
async fn behind_nat_the_ready_file_and_the_certificate_name_the_public_address() {
    let folder = folder();
    let relay = Program::start(folder.path(), &["--public-address", "relay.example:443"]).await;
    assert_eq!(relay.ready().0, "relay.example:443");
    let pem = fs::read(&relay.certificate).expect("made");
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).expect("PEM");
    let certificate = pem.parse_x509().expect("a certificate");
    let names = format!("{:?}", certificate.subject_alternative_name().expect("names").expect("some").value);
    assert!(names.contains("relay.example") && names.contains("localhost"), "{names}");
}

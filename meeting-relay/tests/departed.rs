//! Who has left is let go of, whatever stays open behind it.

#[allow(dead_code)]
mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::program::Program;
use common::*;
use meeting_relay::limits;
use meeting_wire::{
    Admission, Encode, FromRelay, Kind, ParticipantId, RecordKind, Refusal, Route, Slot, StreamId, ToRelay,
};

const CHAT: StreamId = StreamId(4);
/// Fewer than come in all.
const PLACES: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_leaves_is_let_go_of_while_nothing_comes_of_a_group() {
    let folder = tempfile::tempdir().expect("a directory");
    fs::write(folder.path().join("relay.toml"), format!("[meetings]\nmax_connections = {PLACES}\n"))
        .expect("written");
    let relay = Program::start(folder.path(), &["--config", "relay.toml"]).await;
    let mut alice = relay.agent(ALICE).await;
    alice.say(ToRelay::Publish { stream: CHAT, kind: Kind::Data }).await;

    let (mut open, mut at_first, mut refused) = (Vec::new(), 0, 0);
    let mut begun: Vec<Instant> = Vec::new();
    for round in 0..60 {
        let mut visitors = Vec::new();
        for n in 0..5 {
            visitors.push(soon(visit(&relay, ParticipantId([100 + n; 16]), &mut refused)).await);
            // Whoever got a group is held by it for so long at least, however slow the machine is; Alice has a place too.
            let held = 5 * begun.iter().filter(|begun| begun.elapsed() < limits::SETTLES).count();
            assert!(
                visitors.len() + held < PLACES,
                "a place was given away while what its memory is for is there"
            );
        }
        begun.push(Instant::now());
        let mut group = alice.open_group(CHAT, round, 0).await;
        group.write_all(&record(RecordKind::Frame, 1, 100).to_bytes()).await.expect("sent");
        open.push(group);
        for mut visitor in visitors {
            soon(visitor.connection.accept_uni()).await.expect("the group");
            visitor.say(ToRelay::Goodbye).await;
            // What nobody will read.
            if let Ok(mut send) = visitor.connection.open_uni().await {
                let _ = send.write_all(&[0; 60_000]).await;
            }
            visitor.connection.closed().await;
        }
        if round == 15 {
            at_first = relay.memory();
        }
    }
    let grown = relay.memory().saturating_sub(at_first);
    println!("220 who came and went: {grown} KiB more, {refused} had to wait for a place");
    assert!(grown < 8 * 1024, "{grown} KiB");
}

/// Somebody who subscribes to what Alice says, as soon as there is a place.
async fn visit(relay: &Program, me: ParticipantId, refused: &mut usize) -> Agent {
    let mut visitor = loop {
        let connection = relay.connect(&relay.certificate).await;
        match Agent::greet(connection, hello(me, Admission::Join)).await {
            (visitor, FromRelay::Welcome { .. }) => break visitor,
            (_, FromRelay::Refused(Refusal::Busy)) => {
                *refused += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            (_, other) => panic!("{other:?}"),
        }
    };
    let route: Route = loop {
        if let FromRelay::Published { route, .. } = visitor.hear().await {
            break route;
        }
    };
    visitor.say(ToRelay::Subscribe { route }).await;
    visitor.post(Slot::Direct(me), b"subscribed").await;
    while !matches!(visitor.hear().await, FromRelay::Post(_)) {}
    visitor
}

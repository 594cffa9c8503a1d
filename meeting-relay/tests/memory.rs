//! Short of memory: whoever is new is refused in words, what runs goes on, and nothing ends the relay.

#[allow(dead_code)]
mod common;

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use common::program::{Program, command};
use common::*;
use meeting_wire::{
    Admission, AudioDatagram, Encode, Envelope, Flags, FromRelay, Kind, MeetingId, ParticipantId, Record,
    RecordKind, Refusal, Route, Slot, StreamId, ToRelay,
};
use quinn::{Connection, Endpoint, TransportConfig, VarInt};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// MiB in the settings, and what `meeting-relay --help` says that they mean for the process.
const KEPT: usize = 128;
const PROCESS: usize = KEPT * 3 / 2 + 128;

/// Each of these tests is a load for a whole machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_short_of_memory_refuses_newcomers_and_its_meetings_go_on() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let folder = tempfile::tempdir().expect("a directory");
    fs::write(folder.path().join("relay.toml"), format!("[meetings]\nmax_memory_mb = {KEPT}\n"))
        .expect("written");
    let limit = format!("--as={}", PROCESS * 1024 * 1024);
    let args = ["--config", "relay.toml", "--stats", "stats"];
    let mut relay = Program::start_as(command(&["prlimit", &limit]), folder.path(), &args).await;
    let mut pair = Pair::meet(relay.agent(ALICE).await, relay.agent(BOB).await).await;
    pair.fill_the_board().await;
    pair.talk().await;
    let at_rest = relay.memory();

    // Strangers: what they send before a hello waits, and is little.
    let hordes: Vec<Horde> = (2..6).map(|n| Horde::new(&relay, n)).collect();
    let mut strangers = Vec::new();
    for n in 0..600 {
        let connection = hordes[n % hordes.len()].connect().await;
        for _ in 0..4 {
            if let Ok(mut stream) = connection.open_uni().await {
                tokio::spawn(async move { stream.write_all(&[0; 256 * 1024]).await });
            }
        }
        strangers.push(connection);
    }
    pair.talk().await;
    println!("600 strangers: {} MiB", relay.memory() / 1024);
    strangers.iter().for_each(|stranger| stranger.close(VarInt::from_u32(0), b""));
    drop(strangers);

    // Newcomers, who are members soon, in meetings of their own; until somebody is told that the relay is full.
    let mut members = Vec::new();
    let refused = loop {
        let n = members.len();
        assert!(n < 4 * KEPT, "{n} members of 256 KiB each in three quarters of {KEPT} MiB");
        match join(&hordes[n % hordes.len()], n).await {
            Ok(member) => members.push(member),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!(refused, Refusal::Busy);
    relay.logs("memory is short (max_memory_mb = 128): newcomers are refused, meetings go on").await;
    println!("{} members: {} MiB", members.len(), relay.memory() / 1024);
    pair.talk().await;

    // Members who send as much as they may to others who do not listen, until there is no room for it.
    let mut flooding = JoinSet::new();
    for (n, member) in members.into_iter().enumerate() {
        flooding.spawn(flood(member, n));
    }
    let flooded = async {
        while relay.counter("short_of_memory") < 20 {
            pair.talk().await;
        }
    };
    timeout(Duration::from_secs(180), flooded).await.expect("more than there is room for");
    for _ in 0..5 {
        pair.talk().await;
    }
    // Who comes over another network is no newcomer.
    pair.bob.connection.close(VarInt::from_u32(0), b"");
    pair.welcome_back(relay.agent(BOB).await).await;
    for _ in 0..5 {
        pair.talk().await;
    }
    assert_eq!(relay.child.try_wait().expect("a child"), None, "it runs: {}", relay.log());
    println!("the flood: {} MiB, {} at rest", relay.memory() / 1024, at_rest / 1024);
    drop(flooding);
    drop(hordes);

    // And when they have gone, whoever is new comes in.
    let mut carol = soon(async {
        loop {
            let connection = relay.connect(&relay.certificate).await;
            let (agent, answer) = Agent::greet(connection, hello(CAROL, Admission::Join)).await;
            match answer {
                FromRelay::Welcome { .. } => break agent,
                FromRelay::Refused(Refusal::Busy) => tokio::time::sleep(Duration::from_millis(100)).await,
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
    carol.post(Slot::Direct(ALICE), b"at last").await;
    assert_eq!(relay.log().matches("memory is short").count(), 1, "it is said once: {}", relay.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_claimed_and_not_sent_takes_no_memory() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let rig = Rig::with(|config| config.meetings.max_memory_mb = KEPT);
    let mut pair = Pair::meet(rig.create(ALICE).await, rig.join(BOB).await).await;
    pair.talk().await;

    let whole = record(RecordKind::Frame, 1, 10).to_bytes();
    let claimed_record = [&[0][..], &(Record::MAX as u32).to_be_bytes()].concat();
    let claimed_message = (meeting_wire::MAX_CONTROL as u32).to_be_bytes();
    let mut claimants = Vec::new();
    for n in 0..40 {
        let me = ParticipantId([100 + n; 16]);
        let mut agent = rig.join(me).await;
        // What is whole and stands before a claim says that the relay has come so far.
        let mut group = agent.open_group(StreamId(1), 0, 0).await;
        group.write_all(&[&whole[..], &claimed_record].concat()).await.expect("sent");
        agent.post(Slot::Direct(me), b"whole").await;
        agent.send.write_all(&claimed_message).await.expect("sent");
        while !matches!(agent.hear().await, FromRelay::Post(post) if post.from == me) {}
        claimants.push((agent, group));
    }
    counted(&rig.counters.frames_unrouted, claimants.len() as u64).await;
    for _ in 0..3 {
        pair.talk().await;
    }
    assert_eq!(rig.counters.short_of_memory.value(), 0, "640 MiB are claimed, and none is there");
    drop(claimants);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_meeting_goes_on_while_others_fill_all_memory() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let rig = Rig::with(|config| config.meetings.max_memory_mb = KEPT);
    let mut pair = Pair::meet(rig.create(ALICE).await, rig.join(BOB).await).await;
    pair.fill_the_board().await;

    let filling = fill_all_memory(&rig).await;
    for n in 0..3 {
        // More than the next small thing would leave.
        pair.alice.say(ToRelay::Post { slot: Slot::Direct(BOB), body: vec![n; 100_000].into() }).await;
        while !matches!(pair.bob.hear().await, FromRelay::Post(post) if post.body[..] == [n; 100_000]) {}
        pair.talk().await;
    }
    drop(filling);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cells_of_hundreds_give_way_to_what_is_said_now() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let rig = Rig::with(|config| config.meetings.max_memory_mb = KEPT);
    let mut pair = Pair::meet(rig.create(ALICE).await, rig.join(BOB).await).await;
    for n in 0..600 {
        let me = visitor(n);
        let mut agent = rig.join(me).await;
        agent.post(Slot::Cell, &[7; 500]).await;
        agent.post(Slot::Direct(me), b"written").await;
        while !matches!(agent.hear().await, FromRelay::Post(post) if post.from == me && post.slot != Slot::Cell)
        {
        }
        // Not a goodbye, which would take the cell along.
        agent.connection.close(VarInt::from_u32(0), b"");
    }
    let filling = fill_all_memory(&rig).await;
    pair.alice.say(ToRelay::Post { slot: Slot::Direct(BOB), body: vec![1; 100_000].into() }).await;
    while !matches!(pair.bob.hear().await, FromRelay::Post(post) if post.body[..] == [1; 100_000]) {}
    pair.alice.post(Slot::Cell, b"newest").await;
    pair.talk().await;

    let mut bob = rig.join(BOB).await;
    while !matches!(bob.hear().await, FromRelay::Post(post) if post.from == ALICE && post.body[..] == *b"newest")
    {
    }
    drop(filling);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_one_meeting_leaves_room_for_others() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let rig = Rig::with(|config| config.meetings.max_memory_mb = KEPT);
    let mut publishers = vec![rig.create(ALICE).await];
    for other in [BOB, CAROL, EVE] {
        publishers.push(rig.join(other).await);
    }
    for publisher in &mut publishers {
        publisher.say(ToRelay::Publish { stream: StreamId(1), kind: Kind::Data }).await;
    }
    let mut subscribers = Vec::new();
    for n in 0..24 {
        let mut deaf = TransportConfig::default();
        deaf.max_concurrent_uni_streams(VarInt::from_u32(0));
        let mut agent = rig.join_over(visitor(n), deaf).await;
        for _ in 0..publishers.len() {
            let FromRelay::Published { route, .. } = agent.hear().await else { panic!("a stream expected") };
            agent.say(ToRelay::Subscribe { route }).await;
        }
        agent.post(Slot::Direct(visitor(n)), b"subscribed").await;
        agent.hear_post().await;
        subscribers.push(agent);
    }
    let empty = Record { kind: RecordKind::Other(1), body: Bytes::new() };
    for group in 0..256 {
        for publisher in &publishers {
            publisher.send_group(StreamId(1), group, 0, &vec![empty.clone(); 16]).await;
        }
    }
    counted(&rig.counters.frames_in, 4 * 256 * 16).await;
    let mut elsewhere = hello(ALICE, Admission::Create { token: String::new() });
    if let ToRelay::Hello { meeting, .. } = &mut elsewhere {
        *meeting = MeetingId([2; 16]);
    }
    let (_alice, answer) = rig.hello(elsewhere, TransportConfig::default()).await;
    assert!(matches!(answer, FromRelay::Welcome { .. }), "{answer:?}");
    drop(subscribers);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_windows_of_publishers_keep_nobody_out() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let rig = Rig::with(|config| config.meetings.max_memory_mb = KEPT);
    let mut pair = Pair::meet(rig.create(ALICE).await, rig.join(BOB).await).await;
    let mut publishers = Vec::new();
    for n in 0..60 {
        let me = ParticipantId([100 + n; 16]);
        let mut agent = rig.join(me).await;
        agent.say(ToRelay::Publish { stream: StreamId(1), kind: Kind::Video }).await;
        agent.post(Slot::Direct(me), b"published").await;
        while !matches!(agent.hear().await, FromRelay::Post(post) if post.from == me) {}
        publishers.push(agent);
    }
    rig.join(CAROL).await;
    pair.talk().await;
    assert_eq!(rig.counters.short_of_memory.value(), 0);
    drop(publishers);
    rig.stop().await;
}

/// Alice, who talks, and Bob, who hears her.
struct Pair {
    alice: Agent,
    bob: Agent,
    said: u64,
}

impl Pair {
    async fn meet(mut alice: Agent, mut bob: Agent) -> Self {
        let route = alice.publish_to(&mut bob, StreamId(1), Kind::Audio).await;
        bob.subscribe(BOB, route).await;
        let picture = alice.publish_to(&mut bob, StreamId(2), Kind::Video).await;
        bob.subscribe(BOB, picture).await;
        Self { alice, bob, said: 0 }
    }

    /// As a meeting of some age: more on the log than a meeting has for itself.
    async fn fill_the_board(&mut self) {
        for _ in 0..300 {
            for agent in [&mut self.alice, &mut self.bob] {
                let body = Bytes::from_static(&[7; 1_000]);
                agent.say(ToRelay::Post { slot: Slot::Log, body }).await;
            }
        }
        for agent in [&mut self.alice, &mut self.bob] {
            let mut heard = 0;
            while heard < 600 {
                heard += usize::from(matches!(agent.hear().await, FromRelay::Post(_)));
            }
        }
    }

    /// Bob, over another connection.
    async fn welcome_back(&mut self, mut bob: Agent) {
        let mut routes = Vec::new();
        while routes.len() < 2 {
            if let FromRelay::Published { route, .. } = bob.hear().await {
                routes.push(route);
            }
        }
        for route in routes {
            bob.subscribe(BOB, route).await;
        }
        self.bob = bob;
    }

    /// A word, a sound and a picture, each from her to him.
    async fn talk(&mut self) {
        self.said += 1;
        self.alice.post(Slot::Direct(BOB), b"words").await;
        while !matches!(self.bob.hear().await, FromRelay::Post(post) if post.from == ALICE) {}
        let envelope = Envelope {
            pts: Some(self.said),
            dts: None,
            duration: None,
            flags: Flags(0),
            layer: 0,
            sealed: vec![9; 80].into(),
        };
        let sound = Bytes::from(AudioDatagram { route: Route(1), envelope }.to_bytes());
        // Sound may be lost; not all of it.
        soon(async {
            loop {
                self.alice.connection.send_datagram(sound.clone()).expect("connected");
                let heard = timeout(Duration::from_secs(2), self.bob.connection.read_datagram()).await;
                if let Ok(heard) = heard {
                    heard.expect("connected");
                    break;
                }
            }
        })
        .await;
        // So may pictures, on a busy machine.
        soon(async {
            for group in 0.. {
                let picture = record(RecordKind::Frame, 1, 100_000);
                self.alice.send_group(StreamId(2), self.said * 1_000 + group, 0, &[picture]).await;
                let seen = timeout(Duration::from_secs(2), self.bob.next_group()).await;
                if seen.is_ok_and(|(_, group)| group.is_ok()) {
                    break;
                }
            }
        })
        .await;
    }
}

/// Connections from one address, over one socket.
struct Horde {
    endpoint: Endpoint,
    relay: std::net::SocketAddr,
}

impl Horde {
    fn new(relay: &Program, n: u8) -> Self {
        let certificate = CertificateDer::from_pem_file(&relay.certificate).expect("a certificate");
        let mut transport = TransportConfig::default();
        transport.max_concurrent_uni_streams(VarInt::from_u32(1_000));
        let mut endpoint = Endpoint::client((Ipv4Addr::new(127, 0, 0, n), 0).into()).expect("a socket");
        endpoint.set_default_client_config(client(certificate, transport));
        Self { endpoint, relay: relay.address() }
    }

    async fn connect(&self) -> Connection {
        let connecting = self.endpoint.connect(self.relay, "localhost").expect("valid settings");
        soon(connecting).await.expect("connected")
    }
}

fn visitor(n: usize) -> ParticipantId {
    let mut id = [0x77; 16];
    id[..8].copy_from_slice(&(n as u64).to_be_bytes());
    ParticipantId(id)
}

async fn join(horde: &Horde, n: usize) -> Result<Agent, Refusal> {
    let mut hello = hello(visitor(n), Admission::Create { token: String::new() });
    if let ToRelay::Hello { meeting, .. } = &mut hello {
        *meeting = MeetingId([100 + (n / 100) as u8; 16]);
    }
    match Agent::greet(horde.connect().await, hello).await {
        (agent, FromRelay::Welcome { .. }) => Ok(agent),
        (_, FromRelay::Refused(refusal)) => Err(refusal),
        (_, other) => panic!("{other:?}"),
    }
}

/// Other meetings, until nothing is left but what each has for itself.
async fn fill_all_memory(rig: &Rig) -> JoinSet<()> {
    let mut filling = JoinSet::new();
    let mut agents = Vec::new();
    for n in 0..16 {
        let mut hello = hello(EVE, Admission::Create { token: String::new() });
        if let ToRelay::Hello { meeting, .. } = &mut hello {
            *meeting = MeetingId([100 + n; 16]);
        }
        let (agent, answer) = rig.hello(hello, TransportConfig::default()).await;
        assert!(matches!(answer, FromRelay::Welcome { .. }), "{answer:?}");
        agents.push(agent);
    }
    // Once they fill it nobody new gets in.
    agents.into_iter().for_each(|agent| drop(filling.spawn(fill(agent))));
    counted(&rig.counters.short_of_memory, 100).await;
    filling
}

/// Pictures that are never whole, as many as are allowed.
async fn fill(agent: Agent) {
    let record = record(RecordKind::Frame, 1, 80_000).to_bytes();
    let unfinished = &record[..record.len() - 1];
    let mut groups = Vec::new();
    while let Ok(mut send) = agent.connection.open_uni().await {
        let header = meeting_wire::GroupHeader { route: Route(1), group: 0, layer: 0 };
        let bytes = [&header.to_bytes()[..], unfinished].concat();
        if send.write_all(&bytes).await.is_ok() {
            groups.push(send);
        }
    }
}

/// Posts for all and large pictures that are never whole, from somebody who reads nothing of what the others send.
async fn flood(mut agent: Agent, n: usize) {
    let stream = StreamId(1);
    agent.say_to_whom_it_may(ToRelay::Publish { stream, kind: Kind::Video }).await;
    // A few of them, for it is memory that is to be short and not time.
    if n.is_multiple_of(25) {
        agent.say_to_whom_it_may(ToRelay::Subscribe { route: Route(1) }).await;
    }
    let mut groups = Vec::new();
    for group in 0..8 {
        let Ok(mut send) = agent.connection.open_uni().await else { return };
        let header = meeting_wire::GroupHeader { route: Route(stream.0), group, layer: group as u8 };
        let whole =
            Record { kind: RecordKind::Frame, body: vec![n as u8; 2 * 1024 * 1024].into() }.to_bytes();
        let sent = whole.len() - usize::from(group % 2 == 0);
        if send.write_all(&header.to_bytes()).await.is_err() || send.write_all(&whole[..sent]).await.is_err()
        {
            continue;
        }
        groups.push(send);
    }
    // No faster than one may speak to everybody.
    while agent.connection.close_reason().is_none() {
        let body = Bytes::from(vec![n as u8; 256 * 1024]);
        agent.say_to_whom_it_may(ToRelay::Post { slot: Slot::Log, body }).await;
        tokio::time::sleep(Duration::from_millis(1_200)).await;
    }
}

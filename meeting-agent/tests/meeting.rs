//! Whole meetings: a relay and several agents in one process, spoken to as elements and the command line do.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/relay.rs"]
mod relay;

use std::time::Duration;

use common::{Client, Running};
use meeting_agent::control::{Answer, Request};
use meeting_protocol::{
    frame::{Header, KeyId},
    local::{FromAgent, Purpose, ToAgent},
};
use meeting_wire::{Envelope, Flags, Kind, ParticipantId, StreamId};
use relay::Relay;
use tempfile::TempDir;
use tokio::time::timeout;

/// Everybody of a test.
struct Stage {
    folder: TempDir,
    relay: Relay,
}

impl Stage {
    fn open() -> Self {
        let folder = TempDir::new().unwrap();
        let relay = Relay::start(folder.path());
        Self { folder, relay }
    }

    fn agent(&self, name: &str) -> Running {
        Running::start(&self.folder.path().join(name), name)
    }

    async fn create(&self, agent: &Running) -> String {
        let Answer::Created { link, .. } = agent.ask(self.relay.create()).await else {
            panic!("not created")
        };
        agent.until("the leader is live", |status| status.phase == "live").await;
        link
    }

    /// Alice leads, Bob has joined.
    async fn two(&self) -> (Running, Running, String) {
        let (alice, bob) = (self.agent("Alice"), self.agent("Bob"));
        let link = self.create(&alice).await;
        join(&bob, &link).await;
        alice
            .until("Bob is there", |status| status.people.iter().filter(|person| person.present).count() == 2)
            .await;
        (alice, bob, link)
    }
}

async fn join(agent: &Running, link: &str) {
    ask_in(agent, link).await;
    agent.until("keys are there", |status| status.phase == "live").await;
}

async fn ask_in(agent: &Running, link: &str) {
    let request =
        Request::Join { link: link.to_owned(), name: None, role: "participant".into(), guest: false };
    assert!(matches!(agent.ask(request).await, Answer::Joined { .. }));
}

async fn done(agent: &Running, request: Request) {
    let answer = agent.ask(request).await;
    assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
}

async fn element(agent: &Running, purpose: Purpose) -> Client {
    let mut client = agent.client().await;
    client.hello(purpose).await;
    assert!(matches!(client.hear().await, Some(FromAgent::Welcome { .. })));
    client
}

async fn keys(agent: &Running) -> Client {
    element(agent, Purpose::Keys { meeting: None }).await
}

/// Waits for a state in which the code is compared, or is not.
fn verified(wanted: bool) -> impl FnMut(FromAgent) -> Option<()> {
    move |message| matches!(message, FromAgent::State(state) if state.verified == wanted).then_some(())
}

async fn watch(agent: &Running) -> Client {
    element(agent, Purpose::Watch { meeting: None, participant: String::new(), track: String::new() }).await
}

async fn open(
    client: &mut Client,
    request: u32,
    kind: Kind,
    track: &str,
) -> Result<(StreamId, String), String> {
    let caps = "video/x-h264, width=(int)320".to_owned();
    client
        .say(&ToAgent::OpenStream { request, kind, track: track.into(), caps, random: [request as u8; 16] })
        .await;
    client
        .hear_until("an answer to OpenStream", |message| match message {
            FromAgent::StreamOpened { request: of, stream, track } if of == request => {
                Some(Ok((stream, track)))
            }
            FromAgent::StreamRefused { request: of, text } if of == request => Some(Err(text)),
            _ => None,
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_see_the_same_code_and_the_same_roster() {
    let stage = Stage::open();
    let (alice, bob, _) = stage.two().await;
    let (at_alice, at_bob) = (alice.status().await, bob.status().await);
    assert_eq!(at_alice.code, at_bob.code);
    assert_eq!(at_alice.code.chars().filter(char::is_ascii_digit).count(), 40);
    let names = |status: &meeting_agent::control::Status| -> Vec<String> {
        status.people.iter().map(|person| person.name.clone()).collect()
    };
    assert_eq!(
        (names(&at_alice), names(&at_bob)),
        (vec!["Alice".into(), "Bob".into()], vec!["Alice".into(), "Bob".into()])
    );
    assert!(at_alice.leading && !at_bob.leading && at_bob.leader_verified);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roster_code_is_the_same_for_all_and_changes_with_the_roster() {
    let stage = Stage::open();
    let (alice, bob, _) = stage.two().await;
    let both_present =
        |status: &meeting_agent::control::Status| status.people.iter().all(|person| person.present);
    alice.until("both to be present", both_present).await;
    bob.until("both to be present", both_present).await;
    let before = (roster_code(&alice).await, roster_code(&bob).await);
    assert_eq!(before.0, before.1);
    assert_ne!(before.0, alice.status().await.code);
    done(&alice, Request::Lock { meeting: None, locked: true }).await;
    bob.until("the lock", |status| status.locked).await;
    let after = (roster_code(&alice).await, roster_code(&bob).await);
    assert_eq!(after.0, after.1);
    assert_ne!(before.0, after.0);
}

async fn roster_code(agent: &Running) -> String {
    let Answer::Done { text } = agent.ask(Request::RosterCode { meeting: None }).await else {
        panic!("no roster code")
    };
    assert_eq!(text.chars().filter(char::is_ascii_digit).count(), 40, "{text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shield_is_green_only_for_the_code_that_was_compared() {
    let stage = Stage::open();
    let (alice, bob, _) = stage.two().await;
    let before = bob.status().await;
    assert_eq!((before.verified, &*before.shield), (false, "amber"), "the link vouches, nobody has compared");
    let verify = |code: Option<&str>| Request::Verify { meeting: None, code: code.map(str::to_owned) };
    let mut element = keys(&bob).await;
    done(&bob, verify(Some(&alice.status().await.code))).await;
    element.hear_until("word of it at an element", verified(true)).await;
    let after = bob.status().await;
    assert_eq!((after.verified, &*after.shield), (true, "green"));
    assert_eq!(alice.status().await.shield, "amber", "Alice has not compared anything");
    // Any doubt takes the mark away: digits that differ, digits that are missing, and a plain no.
    let mut other = after.code.clone().into_bytes();
    other[0] = if other[0] == b'1' { b'2' } else { b'1' };
    let other = String::from_utf8(other).expect("digits");
    for doubt in [Some(&*other), Some("12345"), None] {
        done(&bob, verify(Some(&after.code))).await;
        let Answer::Refused { text } = bob.ask(verify(doubt)).await else { panic!("the same: {doubt:?}") };
        assert!(text.contains("differ") || text.contains("40 digits"), "{text}");
        assert_eq!(bob.status().await.shield, "amber", "{doubt:?}");
        element.hear_until("word of the doubt at an element", verified(false)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_reaches_everybody_and_only_the_leader_may() {
    let stage = Stage::open();
    let (alice, bob, _) = stage.two().await;
    let before = bob.until("an epoch", |status| status.epoch > 0).await.epoch;
    done(&alice, Request::Rotate { meeting: None }).await;
    let after = bob.until("the next epoch", |status| status.epoch > before).await.epoch;
    alice.until("the same epoch", |status| status.epoch == after).await;
    let Answer::Refused { text } = bob.ask(Request::Rotate { meeting: None }).await else {
        panic!("Bob may")
    };
    assert!(text.contains("leader"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_removed_is_out_and_hears_why() {
    let stage = Stage::open();
    let (alice, bob, _) = stage.two().await;
    let before = alice.status().await.epoch;
    let nobody = Request::Remove { meeting: None, who: "Carol".into() };
    let Answer::Refused { text } = alice.ask(nobody).await else { panic!("removed") };
    assert!(text.contains("roster"), "{text}");
    done(&alice, Request::Remove { meeting: None, who: "Bob".into() }).await;
    let ended = bob.until("Bob is out", |status| status.phase == "ended").await;
    assert!(ended.detail.contains("removed"), "{}", ended.detail);
    alice.until("alone under a new key", |status| status.people.len() == 1 && status.epoch > before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_is_gone_and_may_come_back() {
    let stage = Stage::open();
    let (alice, bob, link) = stage.two().await;
    done(&bob, Request::Leave { meeting: None }).await;
    alice.until("Alice alone", |status| status.people.len() == 1).await;
    let Answer::Refused { text } = bob.ask(Request::Status { meeting: None }).await else {
        panic!("still in")
    };
    assert!(text.contains("meeting-agent join"), "{text}");
    join(&bob, &link).await;
    alice.until("Bob again", |status| status.people.len() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_agent_leaves() {
    let stage = Stage::open();
    let (alice, bob, _) = stage.two().await;
    bob.stop().await;
    alice.until("Alice alone", |status| status.people.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_meeting_lets_nobody_in_until_unlocked() {
    let stage = Stage::open();
    let (alice, bob, link) = stage.two().await;
    done(&alice, Request::Lock { meeting: None, locked: true }).await;
    bob.until("Bob knows", |status| status.locked).await;
    let carol = stage.agent("Carol");
    ask_in(&carol, &link).await;
    let waits = carol
        .until("Carol is told", |status| status.phase == "ended" || status.detail.contains("lock"))
        .await;
    assert!(waits.detail.contains("lock"), "{}", waits.detail);
    assert_eq!(alice.status().await.people.len(), 2);
    done(&alice, Request::Lock { meeting: None, locked: false }).await;
    bob.until("Bob knows", |status| !status.locked).await;
    let _ = carol.ask(Request::Leave { meeting: None }).await;
    join(&carol, &link).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_frames_go_from_pipeline_to_pipeline() {
    let stage = Stage::open();
    let (alice, bob, _) = stage.two().await;
    let mut seals = keys(&alice).await;
    let (stream, track) = open(&mut seals, 1, Kind::Video, "").await.unwrap();
    assert_eq!(track, "video");
    let (kid, key) = seals
        .hear_until("a key to seal with", |message| match message {
            FromAgent::SealKey { stream: of, kid, base_key, .. } if of == stream => Some((kid, base_key)),
            _ => None,
        })
        .await;

    let mut opens = keys(&bob).await;
    opens.say(&ToAgent::WantOpenKeys).await;
    opens
        .hear_until("the key to open with", |message| match message {
            FromAgent::OpenKey { kid: id, base_key, name, track, .. } if id == kid => {
                assert_eq!((&*name, &*track), ("Alice", "video"));
                assert!(base_key.ct_eq(key.expose()));
                Some(())
            }
            _ => None,
        })
        .await;
    // somebody who comes later gets the keys in force, and the lease
    let mut late = keys(&bob).await;
    late.say(&ToAgent::WantOpenKeys).await;
    let (mut leased, mut keyed) = (false, false);
    late.hear_until("lease and key", |message| {
        leased |= matches!(message, FromAgent::Lease { .. });
        keyed |= matches!(message, FromAgent::OpenKey { kid: id, .. } if id == kid);
        (leased && keyed).then_some(())
    })
    .await;

    let mut publishes = element(&alice, Purpose::Publish { meeting: None }).await;
    let mut watches = watch(&bob).await;
    let from = watches
        .hear_until("a track", |message| match message {
            FromAgent::Track { from, name, track, kind: Kind::Video, caps, .. } => {
                assert_eq!((&*name, &*track), ("Alice", "video"));
                assert!(caps.contains("width=(int)320"));
                Some(from)
            }
            _ => None,
        })
        .await;
    let envelope = picture(kid, 0, Flags(Flags::KEYFRAME));
    assert_eq!(first_picture((&mut publishes, stream), &mut watches, &envelope).await, (from, envelope));
    assert!(alice.status().await.frames_out > 0 && bob.status().await.frames_in > 0);

    watches.say(&ToAgent::KeyframeRequest { from, stream }).await;
    publishes
        .hear_until("a keyframe wish", |message| {
            matches!(message, FromAgent::KeyframeWanted { stream: of } if of == stream).then_some(())
        })
        .await;

    drop(seals);
    opens
        .hear_until("the key's end", |message| {
            matches!(message, FromAgent::CloseKey { from: whose, stream: of } if (whose, of) == (from, stream)).then_some(())
        })
        .await;
    watches
        .hear_until("the track's end", |message| {
            matches!(message, FromAgent::TrackGone { from: whose, stream: of } if (whose, of) == (from, stream)).then_some(())
        })
        .await;
}

/// Fewer than wait anywhere on their way.
const BATCH: usize = 20;

/// A frame that nobody could open.
fn picture(kid: KeyId, ctr: u64, flags: Flags) -> Envelope {
    let mut sealed = vec![7; 5_000];
    Header { kid: kid.into(), ctr }.emit(sealed.first_chunk_mut().unwrap());
    Envelope { pts: Some(40), dts: None, duration: Some(40), flags, layer: 0, sealed: sealed.into() }
}

/// The relay forwards from the subscription on: this keyframe is sent until one arrives.
async fn first_picture(
    (publishes, stream): (&mut Client, StreamId),
    watches: &mut Client,
    keyframe: &Envelope,
) -> (ParticipantId, Envelope) {
    let arrived = watches.hear_until("a frame", |message| match message {
        FromAgent::Frame { from, stream: of, envelope } => {
            assert_eq!(of, stream);
            Some((from, envelope))
        }
        _ => None,
    });
    tokio::pin!(arrived);
    loop {
        publishes.say(&ToAgent::Frame { stream, envelope: keyframe.clone() }).await;
        tokio::select! {
            got = &mut arrived => return got,
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_a_slow_pipeline_lost_is_asked_for_anew_once_it_reads_on() {
    let stage = Stage::open();
    let (alice, bob, _) = stage.two().await;
    let mut seals = keys(&alice).await;
    let (stream, _) = open(&mut seals, 1, Kind::Video, "").await.unwrap();
    let kid = seals
        .hear_until("a key to seal with", |message| match message {
            FromAgent::SealKey { stream: of, kid, .. } if of == stream => Some(kid),
            _ => None,
        })
        .await;
    let mut publishes = element(&alice, Purpose::Publish { meeting: None }).await;
    let mut watches = watch(&bob).await;
    first_picture((&mut publishes, stream), &mut watches, &picture(kid, 0, Flags(Flags::KEYFRAME))).await;
    let mut counters = 1..10_000;
    let mut status = bob.status().await;
    while !status.dropped_by.contains_key("queue-full") {
        for ctr in counters.by_ref().take(BATCH) {
            let envelope = picture(kid, ctr, Flags::default());
            publishes.say(&ToAgent::Frame { stream, envelope }).await;
        }
        assert!(!counters.is_empty(), "{status:?}");
        let before = status.frames_in;
        status = bob.until("some more", |status| status.frames_in >= before + BATCH as u64).await;
    }
    // What was asked for so far was for its coming, and nobody asks while nobody reads.
    while let Ok(Some(_)) = timeout(Duration::from_secs(1), publishes.hear()).await {}
    let reads = tokio::spawn(async move { while watches.hear().await.is_some() {} });
    publishes
        .hear_until("a keyframe wish", |message| {
            matches!(message, FromAgent::KeyframeWanted { stream: of } if of == stream).then_some(())
        })
        .await;
    reads.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_are_given_once_and_streams_belong_to_their_opener() {
    let stage = Stage::open();
    let alice = stage.agent("Alice");
    stage.create(&alice).await;
    let (mut first, mut second) = (keys(&alice).await, keys(&alice).await);
    let (one, label) = open(&mut first, 1, Kind::Video, "").await.unwrap();
    assert_eq!(label, "video");
    assert_eq!(open(&mut second, 2, Kind::Video, "").await.unwrap().1, "video-2");
    assert_eq!(open(&mut second, 3, Kind::Audio, "").await.unwrap().1, "audio");
    let refused = open(&mut second, 4, Kind::Video, "video").await.unwrap_err();
    assert!(refused.contains("in use"), "{refused}");
    // not hers to close
    second.say(&ToAgent::CloseStream { stream: one }).await;
    assert!(open(&mut second, 5, Kind::Video, "video").await.is_err());
    first.say(&ToAgent::CloseStream { stream: one }).await;
    let (again, _) = open(&mut first, 6, Kind::Video, "video").await.unwrap();
    assert!(again > one, "numbers are never used again");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_several_meetings_one_has_to_be_named() {
    let stage = Stage::open();
    let alice = stage.agent("Alice");
    let mut ids = Vec::new();
    for _ in 0..2 {
        let Answer::Created { meeting, .. } = alice.ask(stage.relay.create()).await else {
            panic!("not created")
        };
        ids.push(meeting);
    }
    let Answer::Refused { text } = alice.ask(Request::Status { meeting: None }).await else {
        panic!("which?")
    };
    assert!(ids.iter().all(|id| text.contains(id)) && text.contains("--meeting"), "{text}");
    let named = Request::Status { meeting: Some(ids[1][..12].to_owned()) };
    let Answer::Status(status) = alice.ask(named).await else { panic!("not found") };
    assert_eq!(status.meeting, ids[1]);
    done(&alice, Request::Leave { meeting: Some(ids[0].clone()) }).await;
    assert_eq!(alice.status().await.meeting, ids[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_removal_strangers_need_approval() {
    let stage = Stage::open();
    let (alice, _bob, link) = stage.two().await;
    done(&alice, Request::Remove { meeting: None, who: "Bob".into() }).await;
    alice.until("Bob is out", |status| status.people.len() == 1).await;
    let carol = stage.agent("Carol");
    ask_in(&carol, &link).await;
    carol
        .until("Carol hears what to ask for", |status| status.detail.contains("meeting-agent approve"))
        .await;
    alice.until("Carol waits", |status| status.waiting.iter().any(|who| who.name == "Carol")).await;
    let refused = alice.ask(Request::Approve { meeting: None, who: "Bob".into() }).await;
    assert!(matches!(refused, Answer::Refused { .. }), "Bob does not wait");
    done(&alice, Request::Approve { meeting: None, who: "Carol".into() }).await;
    carol.until("Carol is in", |status| status.phase == "live").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_changes_the_keys_of_running_streams() {
    let stage = Stage::open();
    let (alice, bob, _) = stage.two().await;
    let (mut seals, mut opens) = (keys(&alice).await, keys(&bob).await);
    opens.say(&ToAgent::WantOpenKeys).await;
    let (stream, _) = open(&mut seals, 1, Kind::Audio, "").await.unwrap();
    let sealed = |message| match message {
        FromAgent::SealKey { stream: of, epoch, kid, .. } if of == stream => Some((epoch, kid)),
        _ => None,
    };
    let (first, old) = seals.hear_until("a key", sealed).await;
    done(&alice, Request::Rotate { meeting: None }).await;
    let mut retired = 0;
    let (second, new) = seals
        .hear_until("the next key", |message| {
            if let FromAgent::Retire { before, .. } = message {
                retired = before;
            }
            sealed(message)
        })
        .await;
    assert!(second > first && new != old);
    for wanted in [old, new] {
        opens
            .hear_until("the key to open with", |message| {
                matches!(message, FromAgent::OpenKey { kid, .. } if kid == wanted).then_some(())
            })
            .await;
    }
    if retired < second {
        seals
            .hear_until("the old key's end", |message| {
                matches!(message, FromAgent::Retire { before, .. } if before >= second).then_some(())
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_comes_back_finds_the_meeting_going_on() {
    let mut stage = Stage::open();
    let (alice, bob, _) = stage.two().await;
    let code = alice.status().await.code;
    stage.relay.stop();
    bob.until("Bob notices", |status| !status.connected).await;
    alice.until("Alice notices", |status| !status.connected).await;
    stage.relay.restart(stage.folder.path());
    for agent in [&alice, &bob] {
        agent.until("live again", |status| status.connected && status.phase == "live").await;
    }
    let before = bob.status().await.epoch;
    done(&alice, Request::Rotate { meeting: None }).await;
    let status = bob.until("a key of the time after", |status| status.epoch > before).await;
    assert_eq!((status.code, status.people.len()), (code, 2));
}

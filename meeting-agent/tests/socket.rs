//! The local socket: private, one agent each, and nothing that one client does is another's trouble.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, symlink},
        net::UnixListener,
    },
    time::Duration,
};

use common::{Client, Running, config, within};
use meeting_agent::{
    Agent, AgentError,
    control::{Answer, Request},
};
use meeting_protocol::local::{self, FromAgent, MAX_MESSAGE, Purpose, ToAgent};
use meeting_wire::{Envelope, Flags, StreamId};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A whole exchange works.
async fn served(agent: &Running) {
    let Answer::Refused { text } = agent.ask(Request::Status { meeting: None }).await else {
        panic!("a meeting?")
    };
    assert!(text.contains("meeting-agent join"), "{text}");
}

/// The agent closes the connection.
async fn closed(client: &mut Client) {
    let mut rest = Vec::new();
    let _ = within("the end of a connection", client.0.read_to_end(&mut rest)).await;
}

#[tokio::test]
async fn the_socket_is_private_and_goes_with_its_agent() {
    let folder = TempDir::new().unwrap();
    let agent = Running::start(folder.path(), "Alice");
    let mode = |path: &std::path::Path| fs::symlink_metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&agent.socket), 0o600);
    assert_eq!(mode(agent.socket.parent().unwrap()), 0o700);
    served(&agent).await;
    let socket = agent.socket.clone();
    agent.stop().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_second_agent_is_told_what_to_do() {
    let folder = TempDir::new().unwrap();
    let agent = Running::start(folder.path(), "Alice");
    let error = Agent::bind(config(folder.path(), "Alice")).err().unwrap();
    assert!(
        matches!(error, AgentError::AlreadyRunning(_)) && error.to_string().contains("--socket"),
        "{error}"
    );
    served(&agent).await;
}

#[tokio::test]
async fn a_socket_left_behind_is_replaced_and_a_living_one_is_not() {
    let folder = TempDir::new().unwrap();
    let config = config(folder.path(), "Alice");
    let directory = config.socket.parent().unwrap();
    fs::create_dir(directory).unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();

    // somebody who listens and holds no lock
    let living = UnixListener::bind(&config.socket).unwrap();
    assert!(matches!(Agent::bind(config.clone()), Err(AgentError::AlreadyRunning(_))));
    drop(living);
    assert!(config.socket.exists());
    served(&Running::with(config)).await;
}

#[tokio::test]
async fn what_is_no_socket_or_open_to_others_is_refused() {
    let folder = TempDir::new().unwrap();
    let config = config(folder.path(), "Alice");
    let directory = config.socket.parent().unwrap();
    fs::create_dir(directory).unwrap();
    let refused = || Agent::bind(config.clone()).err().unwrap().to_string();

    fs::set_permissions(directory, fs::Permissions::from_mode(0o750)).unwrap();
    assert!(refused().contains("chmod 700"));
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();

    fs::write(&config.socket, "mine").unwrap();
    assert!(refused().contains("no socket"));
    assert_eq!(fs::read(&config.socket).unwrap(), b"mine");
    fs::remove_file(&config.socket).unwrap();

    let target = folder.path().join("target");
    let _target = UnixListener::bind(&target).unwrap();
    symlink(&target, &config.socket).unwrap();
    assert!(refused().contains("symbolic"));
    assert!(target.exists());
}

#[tokio::test]
async fn another_version_is_refused_in_words() {
    let folder = TempDir::new().unwrap();
    let agent = Running::start(folder.path(), "Alice");
    let mut client = agent.client().await;
    client.say(&ToAgent::Hello { version: local::VERSION + 1, purpose: Purpose::Control }).await;
    let Some(FromAgent::Refused { text }) = client.hear().await else { panic!("served") };
    assert!(text.contains("version") && text.contains("install"), "{text}");
    closed(&mut client).await;
}

#[tokio::test]
async fn without_a_meeting_elements_hear_which_command_to_type() {
    let folder = TempDir::new().unwrap();
    let agent = Running::start(folder.path(), "Alice");
    for purpose in [
        Purpose::Keys { meeting: None },
        Purpose::Publish { meeting: None },
        Purpose::Watch { meeting: None, participant: String::new(), track: String::new() },
        Purpose::Tracks { meeting: None },
    ] {
        let mut client = agent.client().await;
        client.hello(purpose).await;
        let Some(FromAgent::Refused { text }) = client.hear().await else { panic!("served") };
        assert!(text.contains("meeting-agent join"), "{text}");
    }
}

#[tokio::test]
async fn garbage_ends_its_own_connection_alone() {
    let folder = TempDir::new().unwrap();
    let agent = Running::start(folder.path(), "Alice");
    let mut bystander = agent.control().await;
    let hello = local::packed(&ToAgent::Hello { version: local::VERSION, purpose: Purpose::Control });
    let frame = local::packed(&ToAgent::Frame {
        stream: StreamId(1),
        envelope: Envelope {
            pts: None,
            dts: None,
            duration: None,
            flags: Flags(0),
            layer: 0,
            sealed: vec![1].into(),
        },
    });
    let cases: [Vec<u8>; 8] = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 64],
        vec![0, 0, 0, 0],
        vec![0, 0, 0, 1, 99],
        (MAX_MESSAGE as u32 + 1).to_be_bytes().to_vec(),
        // allowed later, too long for a hello
        (MAX_MESSAGE as u32).to_be_bytes().to_vec(),
        frame.to_vec(),
        [&hello[..], &frame].concat(),
    ];
    for bytes in cases {
        let mut client = agent.client().await;
        client.0.write_all(&bytes).await.unwrap();
        closed(&mut client).await;
        let answer = bystander.ask(&Request::Rotate { meeting: None }).await;
        assert!(matches!(answer, Answer::Refused { .. }));
    }
}

#[tokio::test]
async fn a_request_the_agent_does_not_know_is_refused_without_an_echo() {
    let folder = TempDir::new().unwrap();
    let agent = Running::start(folder.path(), "Alice");
    let mut client = agent.control().await;
    for json in ["", "{}", "{\"do\":\"dance\"}", "{\"do\":\"join\",\"link\":\"canary\",\"role\":7}"] {
        client.say(&ToAgent::Control(json.into())).await;
        let Some(FromAgent::Control(answer)) = client.hear().await else { panic!("hung up") };
        assert!(answer.contains("refused") && !answer.contains("canary"), "{answer}");
    }
}

#[tokio::test]
async fn silent_connections_are_closed_and_in_nobodys_way() {
    let folder = TempDir::new().unwrap();
    let mut config = config(folder.path(), "Alice");
    config.handshake = Duration::from_secs(2);
    config.max_clients = 110;
    let agent = Running::with(config);
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(agent.client().await);
    }
    served(&agent).await;
    for client in &mut silent {
        closed(client).await;
    }
    // their places are free again: as many clients that do speak are served at one time
    let mut speaking = Vec::new();
    for _ in 0..100 {
        speaking.push(agent.control().await);
    }
    served(&agent).await;
}

#[tokio::test]
async fn above_the_limit_connections_are_closed_at_once() {
    let folder = TempDir::new().unwrap();
    let mut config = config(folder.path(), "Alice");
    config.max_clients = 2;
    let agent = Running::with(config);
    let (first, _second) = (agent.control().await, agent.control().await);
    closed(&mut agent.client().await).await;
    drop(first);
    // the place is free as soon as the agent has seen the end
    within("a free place", async {
        loop {
            let mut client = agent.client().await;
            let hello = local::packed(&ToAgent::Hello { version: local::VERSION, purpose: Purpose::Control });
            if client.0.write_all(&hello).await.is_ok() && client.hear().await.is_some() {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_bad_relay_address_or_link_is_named() {
    let folder = TempDir::new().unwrap();
    let agent = Running::start(folder.path(), "Alice");
    let join = |link: &str| Request::Join {
        link: link.into(),
        name: None,
        role: "participant".into(),
        guest: false,
    };
    let Answer::Refused { text } = agent.ask(join("meeting://r/00112233445566778899aabbccddeeff")).await
    else {
        panic!("joined")
    };
    assert!(text.contains("whole link"), "{text}");
    let Answer::Refused { text } = agent.ask(join("https://canary")).await else { panic!("joined") };
    assert!(text.contains("meeting://") && !text.contains("canary"), "{text}");
}

//! An agent inside the test, and clients that speak its local messages.

#![allow(clippy::unwrap_used, dead_code)]

use std::{future::Future, path::Path, path::PathBuf, time::Duration};

use meeting_agent::{
    Agent, Config,
    control::{Answer, Request, Status},
};
use meeting_protocol::local::{self, FromAgent, Purpose, ToAgent};
use meeting_wire::Decode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

/// Nothing on loopback takes this long, unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running agent; dropped, it stops.
pub struct Running {
    pub socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Running {
    pub fn start(folder: &Path, name: &str) -> Self {
        Self::with(config(folder, name))
    }

    pub fn with(config: Config) -> Self {
        let socket = config.socket.clone();
        let agent = Agent::bind(config).unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            agent.run(async { stopped.await.unwrap_or(()) }).await.unwrap();
        });
        Self { socket, stop: Some(stop), task }
    }

    /// Stops it and waits until it has.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        within("the agent's end", &mut self.task).await.unwrap();
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.socket).await
    }

    pub async fn control(&self) -> Client {
        let mut client = self.client().await;
        client.hello(Purpose::Control).await;
        assert!(matches!(client.hear().await, Some(FromAgent::Welcome { .. })));
        client
    }

    pub async fn ask(&self, request: Request) -> Answer {
        self.control().await.ask(&request).await
    }

    pub async fn status(&self) -> Status {
        match self.ask(Request::Status { meeting: None }).await {
            Answer::Status(status) => *status,
            other => panic!("no status: {other:?}"),
        }
    }

    /// Asks until the status is as wanted; each ask waits for the agent, and the whole has an end.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        let mut last = Status::default();
        let found = timeout(PATIENCE, async {
            let mut control = self.control().await;
            loop {
                if let Answer::Status(status) = control.ask(&Request::Status { meeting: None }).await {
                    last = *status;
                }
                if wanted(&last) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(found.await.is_ok(), "{what}: {last:#?}");
        last
    }
}

pub fn config(folder: &Path, name: &str) -> Config {
    Config::new(folder.join("run/agent.sock"), folder.join("state"), name.into())
}

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(done) => done,
        Err(_) => panic!("{what} did not come"),
    }
}

/// Somebody on the local socket.
pub struct Client(pub UnixStream);

impl Client {
    pub async fn connect(socket: &Path) -> Self {
        Self(UnixStream::connect(socket).await.unwrap())
    }

    pub async fn hello(&mut self, purpose: Purpose) {
        self.say(&ToAgent::Hello { version: local::VERSION, purpose }).await;
    }

    pub async fn say(&mut self, message: &ToAgent) {
        self.0.write_all(&local::packed(message)).await.unwrap();
    }

    /// The next message; none when the agent has closed the connection.
    pub async fn hear(&mut self) -> Option<FromAgent> {
        within("a message", async {
            let mut len = [0; 4];
            self.0.read_exact(&mut len).await.ok()?;
            let mut message = vec![0; local::message_len(len).unwrap()];
            self.0.read_exact(&mut message).await.ok()?;
            Some(FromAgent::from_bytes(&message).unwrap())
        })
        .await
    }

    /// The next message that `wanted` takes something from.
    pub async fn hear_until<T>(&mut self, what: &str, mut wanted: impl FnMut(FromAgent) -> Option<T>) -> T {
        within(what, async {
            loop {
                let message = self.hear().await.unwrap_or_else(|| panic!("{what}: the agent hung up"));
                if let Some(found) = wanted(message) {
                    return found;
                }
            }
        })
        .await
    }

    pub async fn ask(&mut self, request: &Request) -> Answer {
        self.say(&ToAgent::Control(serde_json::to_string(request).unwrap())).await;
        match self.hear().await {
            Some(FromAgent::Control(json)) => serde_json::from_str(&json).unwrap(),
            other => panic!("no answer: {other:?}"),
        }
    }
}

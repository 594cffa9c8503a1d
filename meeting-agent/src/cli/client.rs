//! The command line's end of the local socket.

use std::{
    io::{Read, Write},
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail};
use meeting_protocol::local::{self, FromAgent, Purpose, ToAgent};
use meeting_wire::Decode;
use rustix::{net::sockopt::socket_peercred, process::getuid};
use tokio::io::AsyncReadExt;
use zeroize::Zeroizing;

use crate::control::{Answer, Request, Status};

/// A connection to the daemon.
pub struct Client(UnixStream);

impl Client {
    pub fn connect(path: &Path) -> anyhow::Result<Self> {
        Self::connect_for(path, Purpose::Control)
    }

    /// Connects for something else than commands.
    pub fn connect_for(path: &Path, purpose: Purpose) -> anyhow::Result<Self> {
        let no_agent = || {
            format!(
                "no agent is running on {}: start one with `meeting-agent run`, or name its `--socket`",
                path.display()
            )
        };
        let stream = UnixStream::connect(path).with_context(no_agent)?;
        let (me, peer) = (getuid(), socket_peercred(&stream)?.uid);
        let folder = path.parent().unwrap_or(path).canonicalize().with_context(no_agent)?;
        let meta = folder.metadata().with_context(no_agent)?;
        let directory = local::Directory { path: folder, owner: meta.uid(), mode: meta.mode() };
        if !local::trusts(me.as_raw(), peer.as_raw(), &directory) && !me.is_root() {
            bail!(
                "the agent on {} is another user's, or others can write to its directory: name your own with `--socket`",
                path.display()
            );
        }
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut client = Self(stream);
        client.say(&ToAgent::Hello { version: local::VERSION, purpose })?;
        match client.hear()? {
            FromAgent::Welcome { version: local::VERSION, .. } => Ok(client),
            FromAgent::Refused { text } => bail!(text),
            _ => bail!("the agent is of another version: restart `meeting-agent run`"),
        }
    }

    /// Asks; a refusal is an error.
    pub fn ask(&mut self, request: &Request) -> anyhow::Result<Answer> {
        let json = Zeroizing::new(serde_json::to_string(request)?);
        self.say(&ToAgent::Control(json.to_string()))?;
        let FromAgent::Control(json) = self.hear()? else {
            bail!("the agent is of another version: restart `meeting-agent run`");
        };
        match serde_json::from_str(&json)
            .context("the agent is of another version: restart `meeting-agent run`")?
        {
            Answer::Refused { text } => bail!(text),
            answer => Ok(answer),
        }
    }

    /// Asks for what is answered by a status.
    pub fn status(&mut self, request: &Request) -> anyhow::Result<Status> {
        match self.ask(request)? {
            Answer::Status(status) => Ok(*status),
            _ => bail!("the agent is of another version: restart `meeting-agent run`"),
        }
    }

    /// Goes on as a stream that can be waited for among other things.
    pub fn into_async(self) -> anyhow::Result<tokio::net::UnixStream> {
        self.0.set_nonblocking(true)?;
        Ok(tokio::net::UnixStream::from_std(self.0)?)
    }

    pub fn say(&mut self, message: &ToAgent) -> anyhow::Result<()> {
        self.0.write_all(&local::packed(message)).context("the agent hung up: look at its log")
    }

    fn hear(&mut self) -> anyhow::Result<FromAgent> {
        let hung_up = "the agent hung up or does not answer: look at its log, or restart `meeting-agent run`";
        let mut len = [0; 4];
        self.0.read_exact(&mut len).context(hung_up)?;
        let mut message = Zeroizing::new(vec![0; local::message_len(len)?]);
        self.0.read_exact(&mut message).context(hung_up)?;
        Ok(FromAgent::from_bytes(&message)?)
    }
}

/// The next message, none when the agent hangs up.
pub async fn hear(stream: &mut tokio::net::UnixStream) -> anyhow::Result<Option<FromAgent>> {
    let mut len = [0; 4];
    if stream.read_exact(&mut len).await.is_err() {
        return Ok(None);
    }
    let mut message = Zeroizing::new(vec![0; local::message_len(len)?]);
    if stream.read_exact(&mut message).await.is_err() {
        return Ok(None);
    }
    Ok(Some(FromAgent::from_bytes(&message)?))
}

/// Above the longest wait that is asked for.
const PATIENCE: Duration = Duration::from_secs(70);

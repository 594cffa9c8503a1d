//! The socket for this machine's elements and command line.
//!
//! ```text
//!  accept --whose?-->  hello (in time, small) --> keys     keys::serve
//!                                                    publish  media::publish
//!                                                    watch    media::watch
//!                                                    control  control::serve
//!                                                    tracks   media::watch, without frames
//! ```
//!
//! Whatever one connection says, it can end no other.

mod control;
mod keys;
mod listener;
mod media;
mod pace;
mod wire;

pub use listener::Listener;
pub use pace::Pace;

use std::sync::Arc;

use meeting_protocol::local::{self, FromAgent, Purpose, ToAgent};
use meeting_wire::MeetingId;
use thiserror::Error;
use tokio::{net::UnixStream, time::timeout};
use tracing::debug;
use wire::{read, write};

use crate::{agent::Shared, meeting::Meeting, private::may_command, watch::Watcher};

/// Why a local connection ends early; the fault is the client's, and only its connection is affected.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    /// It is another user.
    #[error("a process of user {0} may not connect")]
    Stranger(u32),
    /// It did not introduce itself.
    #[error("no hello in time")]
    Silent,
    /// It spoke out of turn or made no sense.
    #[error("{0}")]
    Garbage(#[from] meeting_wire::DecodeError),
    /// It said something that its purpose does not have.
    #[error("a message that does not belong to its purpose")]
    OutOfPlace,
    /// It went away, or the system took it.
    #[error("gone: {0}")]
    Gone(#[from] std::io::Error),
}

/// Serves one connection to its end.
pub(crate) async fn serve(stream: UnixStream, shared: Arc<Shared>) {
    if let Err(error) = admit(stream, &shared).await {
        debug!(%error, "a local connection ended");
    }
}

async fn admit(mut stream: UnixStream, shared: &Arc<Shared>) -> Result<(), ClientError> {
    let peer = stream.peer_cred()?.uid();
    let commands = may_command(peer);
    // the modes of socket and directory have let in members of the group alone
    if !commands && shared.config.group.is_none() {
        return Err(ClientError::Stranger(peer));
    }
    let hello = timeout(shared.config.handshake, read(&mut stream, MAX_HELLO)).await;
    let (version, purpose) = match hello.map_err(|_| ClientError::Silent)?? {
        Some(ToAgent::Hello { version, purpose }) => (version, purpose),
        Some(_) => return Err(ClientError::OutOfPlace),
        None => return Ok(()),
    };
    if version != local::VERSION {
        let text = format!(
            "this agent speaks version {} of the local messages, the client version {version}: install agent and \
             plugin of the same release, then restart `meeting-agent run`",
            local::VERSION
        );
        return refuse(&mut stream, text).await;
    }
    let selected = match &purpose {
        Purpose::Control if !commands => {
            let text =
                "this agent takes commands from its own user and from root alone; your pipelines may use it";
            return refuse(&mut stream, text.into()).await;
        }
        Purpose::Control => {
            write(&mut stream, &FromAgent::Welcome { version, meeting: MeetingId([0; 16]) }).await?;
            return control::serve(stream, shared).await;
        }
        Purpose::Keys { meeting }
        | Purpose::Publish { meeting }
        | Purpose::Watch { meeting, .. }
        | Purpose::Tracks { meeting } => shared.select(meeting.map(|id| id.to_string()).as_deref()),
    };
    let meeting: Meeting = match selected {
        Ok(meeting) => meeting,
        Err(text) => return refuse(&mut stream, text).await,
    };
    write(&mut stream, &FromAgent::Welcome { version, meeting: meeting.id }).await?;
    let id = shared.next_connection();
    match purpose {
        Purpose::Keys { .. } => keys::serve(stream, id, peer, meeting).await,
        Purpose::Publish { .. } => media::publish(stream, peer, meeting).await,
        Purpose::Watch { participant, track, .. } => {
            media::watch(stream, id, meeting, Watcher::new(participant, track, Arc::default())).await
        }
        Purpose::Tracks { .. } => media::watch(stream, id, meeting, Watcher::of_names(Arc::default())).await,
        Purpose::Control => Ok(()),
    }
}

async fn refuse(stream: &mut UnixStream, text: String) -> Result<(), ClientError> {
    Ok(write(stream, &FromAgent::Refused { text }).await?)
}

/// A hello with the longest names is shorter.
const MAX_HELLO: usize = 1024;

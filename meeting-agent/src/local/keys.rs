//! A connection of purpose `Keys`: what it says goes to the driver, what the driver has for it goes out.

use meeting_protocol::local::ToAgent;
use tokio::{net::UnixStream, sync::mpsc};

use super::{
    ClientError,
    wire::{read, write_bytes},
};
use crate::{
    keyholders::{Packed, QUEUED},
    meeting::{Meeting, ToMeeting},
};

pub async fn serve(mut stream: UnixStream, id: u64, user: u32, meeting: Meeting) -> Result<(), ClientError> {
    let (out, mut messages) = mpsc::channel::<Packed>(QUEUED);
    let (commands, pace) = (meeting.commands.clone(), meeting.pace.clone());
    // not `meeting` itself: a meeting that ends takes its connections with it
    drop(meeting);
    if commands.send(ToMeeting::Keys(id, user, out)).await.is_err() {
        return Ok(());
    }
    let (mut from, mut to) = stream.split();
    let reading = async {
        while let Some(message) = read(&mut from, MAX_SAID).await? {
            match message {
                ToAgent::OpenStream { .. }
                | ToAgent::StreamCaps { .. }
                | ToAgent::CloseStream { .. }
                | ToAgent::WantOpenKeys
                | ToAgent::Floor { .. } => {
                    if let ToAgent::OpenStream { caps, .. } | ToAgent::StreamCaps { caps, .. } = &message {
                        pace.turn(user, caps.len()).await;
                    }
                    if commands.send(ToMeeting::Said(id, message)).await.is_err() {
                        break;
                    }
                }
                _ => return Err(ClientError::OutOfPlace),
            }
        }
        Ok(())
    };
    let writing = async {
        while let Some(packed) = messages.recv().await {
            write_bytes(&mut to, &packed).await?;
        }
        Ok(())
    };
    let end = tokio::select! {
        end = reading => end,
        end = writing => end,
    };
    let _ = commands.send(ToMeeting::KeysGone(id)).await;
    end
}

/// A stream with the longest caps is shorter.
const MAX_SAID: usize = 32 * 1024;

//! Connections of purpose `Publish`, `Watch` and `Tracks`: sealed frames through, both ways. No key passes here.

use std::time::Instant;

use meeting_protocol::local::{FromAgent, MAX_MESSAGE, ToAgent};
use tokio::{net::UnixStream, sync::mpsc};

use super::{
    ClientError,
    wire::{read, write, write_bytes},
};
use crate::{
    meeting::{Meeting, ToMeeting},
    publish::Pipeline,
    watch::Watcher,
};

pub async fn publish(mut stream: UnixStream, user: u32, meeting: Meeting) -> Result<(), ClientError> {
    let publisher = meeting.publisher.clone();
    let commands = meeting.commands.clone();
    drop(meeting);
    let (wishes, mut wished) = mpsc::channel(WISHES);
    let pipeline = Pipeline { user, wishes };
    let (mut from, mut to) = stream.split();
    let reading = async {
        while let Some(message) = read(&mut from, MAX_MESSAGE).await? {
            match message {
                ToAgent::Frame { stream, envelope } => {
                    publisher.push(stream, envelope, &pipeline, Instant::now());
                }
                _ => return Err(ClientError::OutOfPlace),
            }
        }
        Ok(())
    };
    let writing = async {
        while let Some(stream) = wished.recv().await {
            write(&mut to, &FromAgent::KeyframeWanted { stream }).await?;
        }
        Ok(())
    };
    tokio::select! {
        end = reading => end,
        end = writing => end,
        () = commands.closed() => Ok(()),
    }
}

pub async fn watch(
    mut stream: UnixStream,
    id: u64,
    meeting: Meeting,
    watcher: Watcher,
) -> Result<(), ClientError> {
    let commands = meeting.commands.clone();
    drop(meeting);
    let (frames, queue) = (watcher.frames, watcher.queue.clone());
    if commands.send(ToMeeting::Watch(id, watcher)).await.is_err() {
        return Ok(());
    }
    let (mut from, mut to) = stream.split();
    let reading = async {
        while let Some(message) = read(&mut from, MAX_SAID).await? {
            match message {
                ToAgent::KeyframeRequest { from, stream } if frames => {
                    if commands.send(ToMeeting::Keyframe(from, stream)).await.is_err() {
                        break;
                    }
                }
                _ => return Err(ClientError::OutOfPlace),
            }
        }
        Ok(())
    };
    let writing = async {
        while let Some(frame) = queue.pop().await {
            write_bytes(&mut to, &frame).await?;
        }
        Ok(())
    };
    let end = tokio::select! {
        end = reading => end,
        end = writing => end,
        () = commands.closed() => Ok(()),
    };
    let _ = commands.send(ToMeeting::WatchGone(id)).await;
    end
}

/// Keyframe wishes of all streams of one pipeline.
const WISHES: usize = 64;
/// A keyframe request is shorter.
const MAX_SAID: usize = 1024;

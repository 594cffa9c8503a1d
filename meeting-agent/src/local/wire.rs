//! Length-prefixed messages on a local stream.

use std::{io, time::Duration};

use meeting_protocol::local::{self, FromAgent, ToAgent};
use meeting_wire::{Decode, DecodeError};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use zeroize::Zeroizing;

use super::ClientError;

/// The next message, none at the end of the stream. One above `max` bytes is refused before anything is
/// allocated, and memory grows with the bytes that are there.
pub async fn read(stream: &mut (impl AsyncRead + Unpin), max: usize) -> Result<Option<ToAgent>, ClientError> {
    let mut len = [0; 4];
    match stream.read_exact(&mut len).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let len = local::message_len(len)?;
    if len > max {
        return Err(DecodeError::TooLong("a local message").into());
    }
    // wiped, because a request of the command line may hold a link; room for one is there from the start
    let mut message = Zeroizing::new(Vec::with_capacity(len.min(128 * 1024)));
    let read = timeout(PATIENCE, stream.take(len as u64).read_to_end(&mut message)).await;
    match read {
        Ok(Ok(n)) if n == len => Ok(Some(ToAgent::from_bytes(&message)?)),
        Ok(Ok(_)) => Err(DecodeError::UnexpectedEnd.into()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(ClientError::Silent),
    }
}

/// Writes a message. A client that does not read for a while is gone.
pub async fn write(stream: &mut (impl AsyncWrite + Unpin), message: &FromAgent) -> io::Result<()> {
    write_bytes(stream, &local::packed(message)).await
}

/// Writes what [`local::packed`] made.
pub async fn write_bytes(stream: &mut (impl AsyncWrite + Unpin), packed: &[u8]) -> io::Result<()> {
    match timeout(PATIENCE, stream.write_all(packed)).await {
        Ok(written) => written,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// A local message is never half sent for long, but a pipeline may be stopped in a debugger or by SIGSTOP.
const PATIENCE: Duration = Duration::from_secs(60);

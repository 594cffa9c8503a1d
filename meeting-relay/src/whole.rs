//! What comes with its length before it, and is wanted whole.

use quinn::RecvStream;
use tokio::time::{Instant, timeout_at};

use crate::limits;

/// Why something did not come whole.
pub enum Unfinished {
    /// There is no room for more of it.
    NoRoom,
    /// What comes of it is too little.
    Stopped,
    /// The stream ends inside of it.
    Truncated,
    /// The stream was reset, or the connection is gone.
    Broken,
}

/// Reads on until `bytes` has `len` of them. Memory grows with the bytes that are there, not with the length claimed, and
/// never beyond that; `grow` makes room for so many more, or says that there is none. As what is there keeps its room, some
/// more has to come each [`limits::PROGRESS`].
pub async fn read_on(
    recv: &mut RecvStream,
    bytes: &mut Vec<u8>,
    len: usize,
    mut grow: impl FnMut(usize) -> bool,
) -> Result<(), Unfinished> {
    let step = len.div_ceil(limits::STEPS);
    let next = |have: usize| (have + step, Instant::now() + limits::PROGRESS);
    let (mut enough, mut due) = next(bytes.len());
    while bytes.len() < len {
        let chunk = match timeout_at(due, recv.read_chunk(len - bytes.len(), true)).await {
            Ok(Ok(Some(chunk))) => chunk.bytes,
            Ok(Ok(None)) => return Err(Unfinished::Truncated),
            Ok(Err(_)) => return Err(Unfinished::Broken),
            Err(_) => return Err(Unfinished::Stopped),
        };
        let free = bytes.capacity() - bytes.len();
        if free < chunk.len() {
            let more = bytes.len().max(chunk.len()).min(len - bytes.len());
            if !grow(more - free) {
                return Err(Unfinished::NoRoom);
            }
            bytes.reserve_exact(more);
        }
        bytes.extend_from_slice(&chunk);
        if bytes.len() >= enough {
            (enough, due) = next(bytes.len());
        }
    }
    Ok(())
}

//! What comes with its length before it, and is wanted whole.

use quinn::RecvStream;

/// Why something did not come whole.
pub enum Unfinished {
    /// There is no room for more of it.
    NoRoom,
    /// The stream ends inside of it.
    Truncated,
    /// The stream was reset, or the connection is gone.
    Broken,
}

/// Reads on until `bytes` has `len` of them. Memory grows with the bytes that are there, not with the length claimed, and
/// never beyond that; `grow` makes room for so many more, or says that there is none.
pub async fn read_on(
    recv: &mut RecvStream,
    bytes: &mut Vec<u8>,
    len: usize,
    mut grow: impl FnMut(usize) -> bool,
) -> Result<(), Unfinished> {
    while bytes.len() < len {
        let chunk = match recv.read_chunk(len - bytes.len(), true).await {
            Ok(Some(chunk)) => chunk.bytes,
            Ok(None) => return Err(Unfinished::Truncated),
            Err(_) => return Err(Unfinished::Broken),
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
    }
    Ok(())
}

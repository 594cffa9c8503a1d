//! How data goes to one subscriber. It is never late, so whoever sends much of it could keep what can be late from going at
//! all: of one publisher one piece is written at a time, and pictures that wait beside it go first.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use quinn::{SendStream, WriteError};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::limits;

/// Held by whichever of a publisher's groups of data is written now: however many it opens, they have the room of one.
pub type Turn = Mutex<()>;

/// Writes a record piece by piece.
pub async fn write(turn: &Turn, stream: &mut SendStream, mut record: Bytes) -> Result<(), WriteError> {
    while !record.is_empty() {
        let piece = record.split_to(record.len().min(limits::DATA_PIECE));
        let turn = turn.lock().await;
        let mut writing = pin!(behind_others(stream.write_chunk(piece)));
        match timeout(limits::DATA_TURN, &mut writing).await {
            Ok(written) => written?,
            // It may be that the subscriber does not read this stream alone.
            Err(_) => {
                drop(turn);
                writing.await?;
            }
        }
    }
    Ok(())
}

/// Whoever is woken at the same time, as there is room again, runs before `writing`: until it has waited for so long that
/// it competes with them.
async fn behind_others<T>(writing: impl Future<Output = T>) -> T {
    let mut writing = pin!(writing);
    let begun = Instant::now();
    let (mut waits, mut stood_back) = (false, false);
    poll_fn(|context| {
        if waits && !stood_back && begun.elapsed() < limits::DATA_STANDS_BACK {
            stood_back = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        (waits, stood_back) = (true, false);
        writing.as_mut().poll(context)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    /// Takes a permit in pieces as `write` does, `n` times, and notes `who` did.
    async fn take(room: &Semaphore, stands_back: bool, who: char, order: &std::sync::Mutex<String>) {
        let once = async { room.acquire().await.expect("open").forget() };
        if stands_back {
            behind_others(once).await
        } else {
            once.await
        }
        order.lock().expect("no panic").push(who);
    }

    #[tokio::test]
    async fn what_is_woken_with_data_goes_before_it() {
        let (room, order) = (Arc::new(Semaphore::new(0)), Arc::new(std::sync::Mutex::new(String::new())));
        let tasks: Vec<_> = [(true, 'd'), (false, 'p'), (false, 'q')]
            .into_iter()
            .map(|(stands_back, who)| {
                let (room, order) = (room.clone(), order.clone());
                tokio::spawn(async move { take(&room, stands_back, who, &order).await })
            })
            .collect();
        tokio::task::yield_now().await;
        room.add_permits(3);
        for task in tasks {
            task.await.expect("no panic");
        }
        assert_eq!(*order.lock().expect("no panic"), "pqd");
    }
}

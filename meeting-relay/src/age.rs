//! What age does to a frame on its way to one subscriber.

use std::time::Duration;

use meeting_wire::Kind;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::limits;

/// What becomes of a frame whose turn has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is worth sending.
    Send,
    /// It goes, and its group goes on.
    Skip,
    /// The rest of its group goes with it.
    End,
}

/// Decides by the age of a frame that is not the first of its group. Those that no other needs go first.
pub fn turn(kind: Kind, droppable: bool, age: Duration) -> Turn {
    match kind {
        Kind::Video if droppable && age > limits::LATE_DROPPABLE => Turn::Skip,
        Kind::Video if age > limits::LATE => Turn::End,
        Kind::Video | Kind::Audio | Kind::Data => Turn::Send,
    }
}

/// Ends when a frame that arrived `at` should not be written any more.
pub async fn out_of_patience(
    kind: Kind,
    first: bool,
    at: Instant,
    newer: &mut watch::Receiver<u64>,
    group: u64,
) {
    match kind {
        Kind::Data => std::future::pending().await,
        Kind::Audio => sleep_until(at + limits::LATE).await,
        Kind::Video => {
            sleep_until(at + limits::LATE).await;
            if first {
                let rest: Duration = limits::STALLED - limits::LATE;
                let _ = timeout(rest, newer.wait_for(|newest| *newest > group)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn droppable_frames_go_first_and_data_never() {
        let ages = [0, 75, 76, 150, 151, 5_000].map(Duration::from_millis);
        let all = |kind, droppable| ages.map(|age| turn(kind, droppable, age));
        use Turn::{End, Send, Skip};
        assert_eq!(all(Kind::Video, false), [Send, Send, Send, Send, End, End]);
        assert_eq!(all(Kind::Video, true), [Send, Send, Skip, Skip, Skip, Skip]);
        for kind in [Kind::Audio, Kind::Data] {
            assert_eq!(all(kind, true), [Send; 6]);
        }
    }
}

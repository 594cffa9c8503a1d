//! What waits to be written to the agent: bounded in messages and bytes.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use meeting_protocol::local;
use meeting_wire::Encode;
use zeroize::Zeroizing;

use crate::lock::lock;

/// A bounded queue of encoded messages.
#[derive(Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Zeroizing<Vec<u8>>>,
    bytes: usize,
    /// The message taken last is on its way.
    writing: bool,
    closed: bool,
}

impl Outbox {
    /// Queues a message; while there is no room, waits for at most `patience`. False if it is not going to be sent.
    pub fn push(&self, message: &impl Encode, patience: Duration) -> bool {
        let bytes = local::packed(message);
        let waited = self
            .changed
            .wait_timeout_while(self.queue(), patience, |queue| !queue.closed && queue.is_full(bytes.len()));
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if queue.closed || queue.is_full(bytes.len()) {
            return false;
        }
        queue.bytes += bytes.len();
        queue.messages.push_back(bytes);
        drop(queue);
        self.changed.notify_all();
        true
    }

    /// Takes the oldest message, waiting for one; none once the queue is closed.
    pub fn pop(&self) -> Option<Zeroizing<Vec<u8>>> {
        self.queue().writing = false;
        self.changed.notify_all();
        let waited =
            self.changed.wait_while(self.queue(), |queue| !queue.closed && queue.messages.is_empty());
        let mut queue = waited.unwrap_or_else(PoisonError::into_inner);
        let message = queue.messages.pop_front()?;
        queue.bytes -= message.len();
        queue.writing = true;
        drop(queue);
        self.changed.notify_all();
        Some(message)
    }

    /// Waits until all is written, for at most `patience`: a last word should arrive.
    pub fn drain(&self, patience: Duration) {
        let unwritten = |queue: &mut Queue| !queue.closed && (queue.writing || !queue.messages.is_empty());
        drop(self.changed.wait_timeout_while(self.queue(), patience, unwritten));
    }

    /// Forgets what waits and refuses more.
    pub fn close(&self) {
        *self.queue() = Queue { closed: true, ..Queue::default() };
        self.changed.notify_all();
    }

    /// Takes messages again.
    pub fn reopen(&self) {
        *self.queue() = Queue::default();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }
}

impl Queue {
    /// A first message always fits, however long.
    fn is_full(&self, more: usize) -> bool {
        self.messages.len() >= MAX_MESSAGES || (!self.messages.is_empty() && self.bytes + more > MAX_BYTES)
    }
}

/// Two seconds of video with audio.
const MAX_MESSAGES: usize = 256;
/// Two seconds at 16 Mbit/s.
const MAX_BYTES: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_last_word_is_waited_for() {
        let (outbox, written) = (Outbox::default(), AtomicBool::new(false));
        assert!(outbox.push(&1u16, Duration::ZERO));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let word = outbox.pop();
                std::thread::sleep(Duration::from_millis(20));
                written.store(word.is_some(), Ordering::Release);
                // Whoever comes for more has written it.
                drop(outbox.pop());
            });
            outbox.drain(Duration::from_secs(60));
            let in_time = written.load(Ordering::Acquire);
            outbox.close();
            assert!(in_time);
        });
    }

    #[test]
    fn a_full_box_refuses_in_time_and_a_closed_one_at_once() {
        let outbox = Outbox::default();
        for _ in 0..MAX_MESSAGES {
            assert!(outbox.push(&1u16, Duration::ZERO));
        }
        assert!(!outbox.push(&1u16, Duration::from_millis(1)));
        assert!(outbox.pop().is_some());
        assert!(outbox.push(&1u16, Duration::ZERO));
        outbox.close();
        assert!(!outbox.push(&1u16, Duration::from_secs(60)));
        assert!(outbox.pop().is_none());
        outbox.reopen();
        assert!(outbox.push(&2u16, Duration::ZERO));
        assert_eq!(outbox.pop().expect("one").as_slice(), [0, 0, 0, 2, 0, 2]);
    }
}

//! How fast pipelines may change what the relay is told. Who is faster waits, and no other user does.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Instant,
};

use meeting_wire::Bucket;
use tokio::{sync::Mutex, time::sleep};

use crate::rates;

/// What is left for the pipelines of one meeting. Of each user one pipeline at a time stands in the line for all, in which
/// whoever came first goes first.
#[derive(Debug)]
pub struct Pace {
    all: Mutex<Bucket>,
    each: StdMutex<HashMap<u32, Arc<Mutex<Bucket>>>>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { all: Mutex::new(Bucket::new(rates::WISHES, Instant::now())), each: StdMutex::default() }
    }
}

impl Pace {
    /// Waits until a pipeline of this user may have its next wish, with caps of so many bytes.
    pub async fn turn(&self, user: u32, caps: usize) {
        let cost = rates::wish(caps);
        let one = self.of(user);
        let mut one = one.lock().await;
        until(&mut one, cost).await;
        let mut all = self.all.lock().await;
        until(&mut all, cost).await;
        one.spend(cost);
        all.spend(cost);
    }

    fn of(&self, user: u32) -> Arc<Mutex<Bucket>> {
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Mutex::new(Bucket::new(rates::WISHES_OF_ONE, Instant::now())));
        each.entry(user).or_insert_with(new).clone()
    }
}

/// Waits until so much is there; nobody else takes of it meanwhile.
async fn until(bucket: &mut Bucket, amount: f64) {
    while !bucket.has(amount, Instant::now()) {
        sleep(bucket.wait(amount)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use meeting_protocol::MAX_CAPS;
    use meeting_relay::limits;
    use tokio::{task::coop::unconstrained, time::timeout};

    use super::*;

    /// How many turns a user has at once.
    async fn taken(pace: &Pace, user: u32, caps: usize) -> usize {
        let mut taken = 0;
        while unconstrained(timeout(Duration::ZERO, pace.turn(user, caps))).await.is_ok() {
            taken += 1;
        }
        taken
    }

    #[tokio::test]
    async fn whoever_has_many_wishes_waits_and_leaves_the_others_theirs() {
        let begun = Instant::now();
        let pace = Pace::default();
        // on a busy machine more is there meanwhile: so much, where so much comes in a second
        let most = |at_once: usize, comes: f64| at_once + (comes * begun.elapsed().as_secs_f64()) as usize;
        let (one, other) = (taken(&pace, 1, 0).await, taken(&pace, 2, 0).await);
        let first = (128..=most(128, 4.0)).contains(&one) && (64..=most(64, 8.0)).contains(&other);
        assert!(first, "{one} and {other}, of 192 at once");
        sleep(Duration::from_secs(1)).await;
        let (ones, others) = (taken(&pace, 1, 0).await, taken(&pace, 2, 0).await);
        let later =
            (4..=most(128, 4.0) - one).contains(&ones) && (3..=most(64, 8.0) - other).contains(&others);
        assert!(later, "{ones} and {others} a second later");
    }

    #[tokio::test]
    async fn the_longest_caps_of_all_users_pass_the_relay_at_once() {
        let pace = Pace::default();
        let mut wishes = 0;
        for user in 1..=4 {
            wishes += taken(&pace, user, MAX_CAPS).await;
        }
        // what a statement with such caps takes of what goes to everybody
        let bytes = wishes as f64 * 17_400.0;
        assert!(wishes >= 20 && bytes < limits::TO_ALL_AT_FIRST, "{wishes} wishes of {bytes} bytes");
    }

    #[tokio::test]
    async fn whoever_has_many_pipelines_stands_in_line_once() {
        let pace = Arc::new(Pace::default());
        for user in (0..200).map(|n| 1 + n % 2) {
            let pace = pace.clone();
            tokio::spawn(async move {
                loop {
                    pace.turn(user, 0).await;
                }
            });
        }
        sleep(Duration::from_millis(300)).await;
        // two before it, each an eighth of a second; all the others would take 25 of them
        let turn = timeout(Duration::from_secs(10), pace.turn(3, 0)).await;
        assert!(turn.is_ok(), "others have hundreds of pipelines");
    }
}

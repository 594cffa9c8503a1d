//! How fast pipelines may change what the relay is told. Who is faster waits, and no other user does.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use crate::bucket::{self, Bucket};

/// What is left for the pipelines of one meeting.
#[derive(Debug)]
pub struct Pace(Mutex<Users>);

#[derive(Debug)]
struct Users {
    all: Bucket,
    each: HashMap<u32, Bucket>,
}

impl Default for Pace {
    fn default() -> Self {
        let all = Bucket::new(bucket::WISHES, Instant::now());
        Self(Mutex::new(Users { all, each: HashMap::new() }))
    }
}

impl Pace {
    /// Waits until a pipeline of this user may have its next wish.
    pub async fn turn(&self, user: u32) {
        while let Some(wait) = self.take(user, Instant::now()) {
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes a turn, or says how long until there may be one.
    fn take(&self, user: u32, now: Instant) -> Option<std::time::Duration> {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Users { all, each } = &mut *users;
        let one = each.entry(user).or_insert_with(|| Bucket::new(bucket::WISHES_OF_ONE, now));
        if !one.has(1.0, now) {
            return Some(one.wait(1.0));
        }
        if !all.has(1.0, now) {
            return Some(all.wait(1.0));
        }
        one.take(1.0);
        all.take(1.0);
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn whoever_has_many_wishes_waits_and_leaves_the_others_theirs() {
        let (pace, now) = (Pace::default(), Instant::now());
        let taken = |user, now| (0..1_000).take_while(|_| pace.take(user, now).is_none()).count();
        assert_eq!(taken(1, now), 128);
        assert_eq!(taken(2, now), 64, "of all there are so many at once");
        let later = now + Duration::from_secs(1);
        assert_eq!((taken(1, later), taken(2, later)), (4, 4));
        assert_eq!(pace.take(1, later), Some(Duration::from_millis(250)));
    }
}

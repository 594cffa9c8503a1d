//! What may still go out: in all, from those who share the agent, and from each of them. Time is an argument.

use std::{collections::HashMap, time::Instant};

use meeting_wire::{Bucket, Rate};

use crate::{private::may_command, rates};

/// Frames and bytes that may go out.
#[derive(Debug)]
pub struct Allowance {
    frames: Bucket,
    bytes: Bucket,
}

/// Those of a connection. Guests are the users who share the agent: they leave a quarter to its own user, and each of them
/// something to the others, whatever number of streams they have.
#[derive(Debug)]
pub struct Allowances {
    /// What the relay takes, in Mbit/s.
    mbit: u32,
    all: Allowance,
    guests: Allowance,
    each: HashMap<u32, Allowance>,
}

impl Allowances {
    /// Full ones, where the relay takes so many Mbit/s.
    pub fn new(mbit: u32, now: Instant) -> Self {
        let (frames, bytes) = (rates::FRAMES, rates::bytes(mbit));
        Self {
            mbit,
            all: Allowance::new(frames, bytes, now),
            guests: Allowance::new(rates::of_guests(frames), rates::of_guests(bytes), now),
            each: HashMap::new(),
        }
    }

    /// A full one for a stream.
    pub fn of_stream(&self, now: Instant) -> Allowance {
        Allowance::new(rates::FRAMES_OF_ONE, rates::bytes_of_one(self.mbit), now)
    }

    /// Takes so many frames and bytes for a stream of this user; false means that this is too much.
    #[must_use]
    pub fn take(&mut self, user: u32, stream: &mut Allowance, cost: (f64, f64), now: Instant) -> bool {
        let Self { mbit, all, guests, each } = self;
        let (guests, guest) = match may_command(user) {
            true => (None, None),
            false => match of_guest(each, user, *mbit, now) {
                Some(guest) => (Some(guests), Some(guest)),
                None => return false,
            },
        };
        let mut asked = [Some(stream), Some(all), guests, guest];
        let there = asked.iter_mut().flatten().all(|allowance| allowance.has(cost, now));
        if there {
            asked.iter_mut().flatten().for_each(|allowance| allowance.spend(cost));
        }
        there
    }
}

impl Allowance {
    fn new(frames: Rate, bytes: Rate, now: Instant) -> Self {
        Self { frames: Bucket::new(frames, now), bytes: Bucket::new(bytes, now) }
    }

    fn has(&mut self, (frames, bytes): (f64, f64), now: Instant) -> bool {
        self.frames.has(frames, now) && self.bytes.has(bytes, now)
    }

    fn spend(&mut self, (frames, bytes): (f64, f64)) {
        self.frames.spend(frames);
        self.bytes.spend(bytes);
    }
}

/// What is left for one guest; none where too many others have spent theirs.
fn of_guest(
    each: &mut HashMap<u32, Allowance>,
    user: u32,
    mbit: u32,
    now: Instant,
) -> Option<&mut Allowance> {
    let (frames, bytes) = (rates::FRAMES_OF_GUEST, rates::bytes_of_one(mbit));
    if !each.contains_key(&user) {
        // One that is full again is as good as a new one.
        each.retain(|_, allowance| !allowance.has((frames.burst, bytes.burst), now));
        if each.len() >= MAX_GUESTS {
            return None;
        }
    }
    Some(each.entry(user).or_insert_with(|| Allowance::new(frames, bytes, now)))
}

/// Guests who have spent something: more than have a stream at one time.
const MAX_GUESTS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_shares_the_agent_leaves_its_user_a_quarter_whatever_number_of_streams_they_have() {
        let now = Instant::now();
        let me = rustix::process::getuid().as_raw();
        let users = [me + 1, me + 2, me];
        // So often each of them takes so much, by many streams.
        let taken = |cost| {
            let mut allowances = Allowances::new(8, now);
            users.map(|user| {
                let streams = (0..64).map(|_| {
                    let mut stream = allowances.of_stream(now);
                    (0..).take_while(|_| allowances.take(user, &mut stream, cost, now)).count()
                });
                streams.sum::<usize>()
            })
        };
        assert_eq!(taken((1.0, 0.0)), [4_096, 2_048, 2_048]);
        assert_eq!(taken((0.0, 1024.0 * 1024.0)), [16, 2, 6], "of 24 MiB at once");
    }

    #[test]
    fn of_guests_who_come_and_go_few_are_remembered() {
        let now = Instant::now();
        let me = rustix::process::getuid().as_raw();
        let mut allowances = Allowances::new(8, now);
        let mut taken = |users: std::ops::Range<u32>, now| {
            let mut stream = allowances.of_stream(now);
            let taken = users.filter(|user| allowances.take(me + user, &mut stream, (1.0, 1.0), now)).count();
            (taken, allowances.each.len())
        };
        assert_eq!(taken(1..1_001, now), (MAX_GUESTS, MAX_GUESTS));
        assert_eq!(taken(1_001..1_002, now + std::time::Duration::from_secs(60)), (1, 1));
    }
}

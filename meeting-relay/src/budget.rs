//! Accounts of what is bounded, memory above all: what is charged is given back when nobody has it any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::limits::{SHARE, SPARE};

/// A shared account of something bounded, such as bytes in a queue; it may be a part of a larger one.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    limit: usize,
    whole: Option<Arc<Budget>>,
    /// What is left of that which the whole was charged beforehand.
    own: AtomicUsize,
}

impl Budget {
    /// An empty account of at most `limit`.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limit, whole: None, own: AtomicUsize::new(0) })
    }

    /// An empty account of at most `limit`, whose charges are charges of this one too, but for `own` bytes that this one
    /// was charged already. They leave some of the whole to what is charged to the whole itself.
    pub fn part(self: &Arc<Self>, limit: usize, own: usize) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            limit,
            whole: Some(self.clone()),
            own: AtomicUsize::new(own),
        })
    }

    /// Reserves `amount` until the charge is dropped; `None` when it does not fit. Into an empty account
    /// anything fits, so that one item above the limit is slow rather than impossible.
    pub fn charge(self: &Arc<Self>, amount: usize) -> Option<Charge> {
        self.charge_below(amount, self.limit)
    }

    /// As [`Budget::charge`], for what leaves `rest` of the account to others.
    pub fn charge_leaving(self: &Arc<Self>, amount: usize, rest: usize) -> Option<Charge> {
        self.charge_below(amount, self.limit - rest)
    }

    /// As [`Budget::charge`], for what is new: a part is left for what is there already.
    pub fn charge_new(self: &Arc<Self>, amount: usize) -> Option<Charge> {
        self.charge_below(amount, self.limit - self.limit / SHARE)
    }

    /// Whether [`Budget::charge_new`] would give so much.
    pub fn has_room_for_new(&self, amount: usize) -> bool {
        self.used().saturating_add(amount) <= self.limit - self.limit / SHARE
    }

    fn charge_below(self: &Arc<Self>, amount: usize, limit: usize) -> Option<Charge> {
        let mut charge = Charge { budget: self.clone(), amount: 0, own: 0, of_whole: None };
        charge.grow_below(amount, limit).then_some(charge)
    }

    fn take(&self, amount: usize, limit: usize) -> bool {
        let rest = |used: usize| {
            let sum = used.saturating_add(amount);
            (used == 0 || sum <= limit).then_some(sum)
        };
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest).is_ok()
    }

    fn give_back(&self, amount: usize, own: usize) {
        self.used.fetch_sub(amount, Ordering::Relaxed);
        self.own.fetch_add(own, Ordering::Relaxed);
    }

    /// As much of `amount` as was charged beforehand.
    fn take_own(&self, amount: usize) -> usize {
        let rest = |own: usize| Some(own.saturating_sub(amount));
        let own = self.own.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest);
        own.unwrap_or_default().min(amount)
    }

    /// The most that it holds.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// What is reserved now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// A reserved part of a [`Budget`], given back on drop.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    amount: usize,
    /// How much of it was charged beforehand; the whole has the rest.
    own: usize,
    of_whole: Option<Box<Charge>>,
}

impl Charge {
    /// Reserves so many more with it; false when they do not fit, and then it is as it was.
    #[must_use]
    pub fn grow(&mut self, more: usize) -> bool {
        self.grow_below(more, self.budget.limit)
    }

    fn grow_below(&mut self, more: usize, limit: usize) -> bool {
        if !self.budget.take(more, limit) {
            return false;
        }
        let mut own = 0;
        if let Some(whole) = &self.budget.whole {
            own = self.budget.take_own(more);
            let most = whole.limit - whole.limit / SPARE;
            let fits = match &mut self.of_whole {
                _ if own == more => true,
                Some(charge) => charge.grow_below(more - own, most),
                none => {
                    *none = whole.charge_below(more - own, most).map(Box::new);
                    none.is_some()
                }
            };
            if !fits {
                self.budget.give_back(more, own);
                return false;
            }
        }
        self.amount += more;
        self.own += own;
        true
    }

    /// These bytes, with the charge for as long as anybody has them.
    pub fn hold(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Held(bytes, self))
    }
}

struct Held<B>(B, #[expect(dead_code, reason = "given back on drop")] Charge);

impl<B: AsRef<[u8]>> AsRef<[u8]> for Held<B> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref()
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.give_back(self.amount, self.own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_given_back() {
        let budget = Budget::new(10);
        let first = budget.charge(6).expect("fits");
        assert!(budget.charge(5).is_none());
        let second = budget.charge(4).expect("fits exactly");
        drop((first, second));
        assert_eq!(budget.used(), 0);
        let large = budget.charge(11).expect("one large item into an empty account");
        assert!(budget.charge(1).is_none());
        drop(large);
    }

    #[test]
    fn who_leaves_some_to_others_has_no_room_where_others_have() {
        let budget = Budget::new(20);
        let large = budget.charge_leaving(15, 5).expect("fits exactly");
        assert!(budget.charge_leaving(1, 5).is_none());
        let small = budget.charge(5).expect("what was left");
        drop((large, small));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_part_is_charged_to_the_whole_and_what_is_new_leaves_room() {
        let whole = Budget::new(100);
        let part = whole.part(40, 0);
        let held = part.charge(30).expect("fits").hold(vec![7; 30]);
        assert!(part.charge(20).is_none(), "more than the part");
        let others = whole.charge(60).expect("fits");
        assert!(part.charge(10).is_none(), "fits into the part, not into the whole");
        assert_eq!((part.used(), whole.used()), (30, 90), "a charge in vain leaves nothing behind");
        let spare = whole.limit() / SPARE;
        assert!(part.charge(1).is_none() && whole.charge(spare - 2).is_some(), "the whole leaves some alone");
        let copy = held.slice(10..);
        drop((held, others));
        assert_eq!(
            (&copy[..], part.used(), whole.used()),
            (&[7; 20][..], 30, 30),
            "for as long as anybody has them"
        );
        drop(copy);
        let new = whole.charge_new(75).expect("three quarters");
        assert!(whole.charge_new(1).is_none() && whole.charge(25).is_some());
        drop(new);
        assert_eq!((part.used(), whole.used()), (0, 0));
    }

    #[test]
    fn a_charge_grows_as_far_as_there_is_room() {
        let whole = Budget::new(100);
        let beforehand = whole.charge(10).expect("fits");
        let part = whole.part(60, 10);
        let mut charge = part.charge(5).expect("fits");
        assert!(charge.grow(15), "5 of its own and 10 of the whole");
        assert!(charge.grow(20));
        assert!(!charge.grow(21), "more than the part");
        let others = whole.charge(40).expect("fits");
        assert!(!charge.grow(10), "more than the whole");
        assert_eq!((part.used(), whole.used()), (40, 80));
        assert!(charge.grow(5));
        drop((charge, others));
        assert_eq!((part.used(), whole.used()), (0, 10));
        let own = part.charge(10).expect("its own is there again");
        assert_eq!(whole.used(), 10);
        drop((own, beforehand));
    }

    #[test]
    fn what_is_charged_beforehand_is_there_when_the_whole_has_nothing() {
        let whole = Budget::new(100);
        let beforehand = whole.charge_new(20).expect("fits");
        let part = whole.part(50, 20);
        let others = whole.charge(80).expect("all the rest");
        let first = part.charge(15).expect("its own");
        assert!(part.charge(6).is_none(), "more than its own");
        let second = part.charge(5).expect("the failed one gave back what it took");
        drop(others);
        let third = part.charge(30).expect("the whole has room again");
        assert_eq!((part.used(), whole.used()), (50, 50));
        drop((first, second, third));
        let all = part.charge(20).expect("its own again");
        assert_eq!(whole.used(), 20);
        drop((all, beforehand));
        assert_eq!(whole.used(), 0);
    }
}

//! What a fork has: nothing. Alone in its process, since a fork takes one thread with it and every lock.

use std::panic::{AssertUnwindSafe, catch_unwind};

use secret_memory::{Mark, Slot, testing::in_a_fork};

#[test]
fn a_fork_has_no_secrets_and_knows_that_it_is_one() {
    let mark = Mark::here();
    let mut slot = Slot::<4>::new();
    slot.copy_from_slice(b"abcd");
    assert!(in_a_fork(move || {
        let refused = catch_unwind(AssertUnwindSafe(|| slot[0])).is_err();
        // Neither wiping the parent's bytes nor handing them out anew.
        drop(slot);
        let mut own = Slot::<4>::new();
        own.fill(1);
        refused && !mark.holds() && Mark::here() != mark && Mark::here().holds() && *own == [1; 4]
    }));
    assert!(mark.holds() && Mark::here() == mark);
    let mut kept = Slot::<4>::new();
    kept.copy_from_slice(b"kept");
    assert!(in_a_fork(|| {
        Slot::<4>::new().fill(2);
        true
    }));
    assert_eq!(*kept, *b"kept");
}

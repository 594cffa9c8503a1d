//! What whoever gets the memory next sees. Alone in its process, so that nobody else gets it.

use secret_memory::Slot;

#[test]
fn a_slot_is_zeros_at_first_and_wiped_in_the_end() {
    let mut slot = Slot::<32>::new();
    assert_eq!(*slot, [0; 32]);
    slot.fill(0xab);
    let place = slot.as_ptr();
    drop(slot);
    // The last slot that came back is the next that goes out.
    let next = Slot::<32>::new();
    assert_eq!((next.as_ptr(), *next), (place, [0; 32]));
}

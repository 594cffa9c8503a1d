//! Memory for secrets, and a mark that a fork wipes.
//!
//! | what | from | seen by |
//! |---|---|---|
//! | [`Slot`] | pages of `memfd_secret(2)`, which not even the kernel maps for others | this process alone: `ptrace`, `/proc/PID/mem` and cores fail on them, root's too |
//! | the same, where the kernel has no such pages | anonymous pages with `mlock(2)` and `MADV_DONTDUMP` | not in swap, not in a core |
//! | [`Mark`] | a page with `MADV_WIPEONFORK` | a fork knows that it is one |
//!
//! No fork inherits a slot. This is the one crate of the workspace with `unsafe` code: four small files that map pages, hand out
//! pieces of them, and take them back wiped.

#![allow(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

mod mark;
mod pages;
mod slot;
#[cfg(feature = "testing")]
pub mod testing;

pub use mark::Mark;
pub use pages::Protection;
pub use slot::{Slot, protection};

//! Rules and limits of a session that the models in `models/` use instead of copies of their own.

pub use crate::session::{
    freshness::{Freshness, LIMIT},
    lead::BEAT,
    succession::{MAX_BEHIND, RANK, SILENCE, is_majority},
};

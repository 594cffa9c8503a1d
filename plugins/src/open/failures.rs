//! Why a buffer was not opened.

/// Why a buffer was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// There is no key of that id, or it did not come in time.
    NoKey,
    /// It is not what the holder of the key sealed.
    Forged,
    /// It was opened before, or is too old to tell.
    Replayed,
    /// It is not a sealed frame.
    Malformed,
    /// It belongs to another stream than the caps say.
    Mismatch,
    /// The membership could not be confirmed in time: nothing is opened.
    Stale,
}

impl Reason {
    /// All of them, in the order of [`Reason::index`].
    pub const ALL: [Reason; 6] =
        [Reason::NoKey, Reason::Forged, Reason::Replayed, Reason::Malformed, Reason::Mismatch, Reason::Stale];

    /// The word in messages and statistics.
    pub fn word(self) -> &'static str {
        match self {
            Reason::NoKey => "no-key",
            Reason::Forged => "forged",
            Reason::Replayed => "replayed",
            Reason::Malformed => "malformed",
            Reason::Mismatch => "mismatch",
            Reason::Stale => "stale",
        }
    }

    /// The place in a table of counts.
    pub fn index(self) -> usize {
        self as usize
    }
}

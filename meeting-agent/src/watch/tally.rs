//! How much of a stream got here, as the counters in its frames' headers tell (RFC 9605 4.3).

use meeting_protocol::frame::Header;

/// Frames of one stream since the relay offered it. Unauthenticated: for a glance, for nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames that came.
    pub received: u64,
    /// Counters that were passed over, and have not come late.
    pub lost: u64,
    /// The key in use and the counter expected next under it.
    expected: Option<(u64, u64)>,
}

impl Tally {
    /// A sealed frame came.
    pub fn frame(&mut self, sealed: &[u8]) {
        let Some((Header { kid, ctr }, _)) = Header::parse(sealed) else { return };
        self.received += 1;
        match self.expected {
            Some((key, next)) if key == kid && ctr < next => self.lost = self.lost.saturating_sub(1),
            Some((key, next)) if key == kid => {
                self.lost = self.lost.saturating_add((ctr - next).min(MOST_AT_ONCE));
                self.expected = Some((kid, ctr.saturating_add(1)));
            }
            _ => self.expected = Some((kid, ctr.saturating_add(1))),
        }
    }
}

/// A forged counter adds no more than a long pause would.
const MOST_AT_ONCE: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(kid: u64, ctr: u64) -> Vec<u8> {
        let mut header = [0; Header::MAX_LEN];
        let len = Header { kid, ctr }.emit(&mut header);
        header[..len].to_vec()
    }

    #[test]
    fn gaps_are_counted_and_late_frames_fill_them() {
        let mut tally = Tally::default();
        for ctr in [5, 6, 9, 8] {
            tally.frame(&sealed(1, ctr));
        }
        assert_eq!((tally.received, tally.lost), (4, 1), "7 is missing");
        tally.frame(&sealed(2, 0));
        tally.frame(b"");
        assert_eq!((tally.received, tally.lost), (5, 1), "a new key counts anew");
        tally.frame(&sealed(2, u64::MAX));
        assert_eq!(tally.lost, 1 + MOST_AT_ONCE);
    }
}

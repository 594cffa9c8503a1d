//! The byte in front of each fragment (draft-ietf-avtcore-rtp-sframe-02, section 3).
//!
//! ```text
//!  0 1 2 3 4 5 6 7
//! +-+-+-+-+-+-+-+-+
//! |S|E|T|0 0 0 0 0|
//! +-+-+-+-+-+-+-+-+
//! ```

/// What a packet holds of an SFrame ciphertext.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// S: its first fragment.
    pub start: bool,
    /// E: its last fragment.
    pub end: bool,
    /// T: what was sealed is an RTP payload rather than a whole frame.
    pub packetized: bool,
}

impl Descriptor {
    /// Its length.
    pub const LEN: usize = 1;

    /// The byte.
    pub fn byte(self) -> u8 {
        u8::from(self.start) << 7 | u8::from(self.end) << 6 | u8::from(self.packetized) << 5
    }

    /// Parts an RTP payload into descriptor and fragment. Nothing for an empty fragment, nor for reserved bits: what
    /// they will mean is not known, so what follows them is not either.
    pub fn split(payload: &[u8]) -> Option<(Self, &[u8])> {
        let (&byte, fragment) = payload.split_first()?;
        if byte & RESERVED != 0 || fragment.is_empty() {
            return None;
        }
        let bit = |n: u8| byte >> n & 1 == 1;
        Some((Self { start: bit(7), end: bit(6), packetized: bit(5) }, fragment))
    }
}

const RESERVED: u8 = 0b0001_1111;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_are_the_drafts() {
        let descriptor = |start, end, packetized| Descriptor { start, end, packetized };
        assert_eq!(descriptor(true, false, false).byte(), 0x80);
        assert_eq!(descriptor(false, true, false).byte(), 0x40);
        assert_eq!(descriptor(true, true, true).byte(), 0xe0);
        assert_eq!(descriptor(false, false, false).byte(), 0);
    }

    #[test]
    fn every_byte_is_read_as_written_or_refused() {
        for byte in 0..=u8::MAX {
            match Descriptor::split(&[byte, 7]) {
                Some((descriptor, fragment)) => assert_eq!((descriptor.byte(), fragment), (byte, &[7][..])),
                None => assert_ne!(byte & 0x1f, 0),
            }
            assert_eq!(Descriptor::split(&[byte]), None);
        }
        assert_eq!(Descriptor::split(&[]), None);
    }
}

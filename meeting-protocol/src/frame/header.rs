//! The clear bytes in front of a sealed frame (RFC 9605 4.3).

/// What a sealed frame says in clear: which key, which frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The key identifier.
    pub kid: u64,
    /// The frame counter.
    pub ctr: u64,
}

impl Header {
    /// The longest header: a config byte and two integers of 8 bytes.
    pub const MAX_LEN: usize = 17;

    /// Reads the header at the start of `bytes`; gives it with its length.
    ///
    /// Each integer has exactly one encoding, the shortest; any other is `None`, as is an input that ends early.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<(Header, usize)> {
        let (&config, rest) = bytes.split_first()?;
        let (kid, kid_len) = field(config >> 4, rest)?;
        let (ctr, ctr_len) = field(config & 0xf, rest.get(kid_len..)?)?;
        Some((Header { kid, ctr }, 1 + kid_len + ctr_len))
    }

    /// Writes the header to the start of `out` and gives its length; what follows in `out` is unspecified.
    #[inline]
    pub fn emit(&self, out: &mut [u8; Self::MAX_LEN]) -> usize {
        let (kid_code, kid_len) = code(self.kid);
        let (ctr_code, ctr_len) = code(self.ctr);
        out[0] = kid_code << 4 | ctr_code;
        // Both stores are 8 bytes whatever the length; the later one overwrites what the earlier had too much.
        out[1..9].copy_from_slice(&left_aligned(self.kid, kid_len));
        out[1 + kid_len..9 + kid_len].copy_from_slice(&left_aligned(self.ctr, ctr_len));
        1 + kid_len + ctr_len
    }
}

/// The four bits in the config byte and the bytes after it: below 8 the value itself, else its length less one.
#[inline]
fn code(value: u64) -> (u8, usize) {
    if value < 8 {
        return (value as u8, 0);
    }
    let len = 8 - value.leading_zeros() as usize / 8;
    (8 | (len - 1) as u8, len)
}

/// The last `len` bytes of a number, at the front.
#[inline]
fn left_aligned(value: u64, len: usize) -> [u8; 8] {
    match len {
        0 => [0; 8],
        _ => (value << (64 - 8 * len)).to_be_bytes(),
    }
}

/// Reads an integer with these four bits in the config byte; gives it with the bytes it took.
#[inline]
fn field(code: u8, bytes: &[u8]) -> Option<(u64, usize)> {
    if code < 8 {
        return Some((code.into(), 0));
    }
    let len = usize::from(code & 7) + 1;
    let value = match bytes.first_chunk::<8>() {
        Some(chunk) => u64::from_be_bytes(*chunk) >> (64 - 8 * len),
        None => bytes.get(..len)?.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)),
    };
    let least = if len == 1 { 8 } else { 1 << (8 * (len - 1)) };
    (value >= least).then_some((value, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_shortest_encoding_is_read() {
        for long in [
            &[0x80, 0x07][..],                  // 7 fits the config byte
            &[0x08, 0x00],                      // so does 0
            &[0x90, 0x00, 0xff],                // 255 fits one byte
            &[0x0f, 0, 0xff, 1, 2, 3, 4, 5, 6], // seven bytes
        ] {
            assert_eq!(Header::parse(long), None, "{long:02x?}");
        }
    }

    #[test]
    fn an_early_end_is_refused() {
        let mut bytes = [0; Header::MAX_LEN];
        let header = Header { kid: u64::MAX, ctr: u64::MAX - 1 };
        let len = header.emit(&mut bytes);
        assert_eq!(len, Header::MAX_LEN);
        for end in 0..len {
            assert_eq!(Header::parse(&bytes[..end]), None, "{end} bytes");
        }
        assert_eq!(Header::parse(&bytes), Some((header, len)));
    }
}

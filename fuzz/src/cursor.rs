//! Decisions from bytes, front to back, so that a seed can be written by hand; past the end everything is zero.

/// What is left of the bytes.
pub struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    pub fn u16(&mut self) -> u16 {
        u16::from(self.u8()) << 8 | u16::from(self.u8())
    }

    pub fn u64(&mut self) -> u64 {
        (0..8).fold(0, |value, _| value << 8 | u64::from(self.u8()))
    }

    /// A place below `len`, which is not 0.
    pub fn below(&mut self, len: usize) -> usize {
        usize::from(self.u16()) % len
    }

    /// A number below 2 to the power of `bits`, at most 16: as often of one length as of another, so that most are cheap and none
    /// is left out.
    pub fn scaled(&mut self, bits: u8) -> u64 {
        let len = self.u8() % (bits + 1);
        u64::from(self.u16()) & ((1 << len) - 1)
    }

    /// The next `n` bytes or what there is.
    pub fn take(&mut self, n: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(n.min(self.0.len()));
        self.0 = tail;
        head
    }

    /// As many bytes as the next byte says.
    pub fn short(&mut self) -> &'a [u8] {
        let n = self.u8();
        self.take(n.into())
    }

    /// Changes `bytes` in up to three places: other values, cuts, additions.
    pub fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.u8() % 4 {
            let at = self.below(bytes.len() + 1);
            match self.u8() % 4 {
                0 | 1 if at < bytes.len() => bytes[at] ^= self.u8().max(1),
                2 => bytes.truncate(at),
                _ => {
                    let more = self.short();
                    let end = (at + more.len()).min(bytes.len());
                    bytes.splice(at..end, more.iter().copied());
                }
            }
        }
    }
}

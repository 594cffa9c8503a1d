//! One injective encoding for everything: fixed-size integers big-endian, byte strings behind their length,
//! lists behind their count, variable integers as in RFC 9000 section 16 in their shortest form.

use thiserror::Error;

/// Why bytes are not what they claim to be. The fault is always the sender's.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end before the value does.
    #[error("the bytes end too early")]
    UnexpectedEnd,
    /// Bytes are left after the value.
    #[error("bytes are left over after the end")]
    Trailing,
    /// A length or count is above the limit named here.
    #[error("{0} is longer than allowed")]
    TooLong(&'static str),
    /// A value that the named field cannot have.
    #[error("{0} has a value that means nothing")]
    Invalid(&'static str),
}

/// A value with one byte form.
pub trait Encode {
    /// Appends the byte form.
    fn encode(&self, out: &mut Writer);

    /// The byte form alone.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        self.encode(&mut out);
        out.into_bytes()
    }
}

/// The way back from [`Encode`].
pub trait Decode: Sized {
    /// Reads one value and leaves the reader behind it.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// Reads one value that must fill `bytes` exactly.
    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let value = Self::decode(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }
}

/// Collects bytes.
#[derive(Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Starts empty with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// Appends one byte.
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    /// Appends a 16-bit integer, big-endian.
    pub fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// Appends a 32-bit integer, big-endian.
    pub fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// Appends a 64-bit integer, big-endian.
    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// Appends an integer below 2^62 in the shortest form of RFC 9000 section 16; larger ones are clamped.
    pub fn varint(&mut self, value: u64) {
        match value {
            0..=0x3f => self.u8(value as u8),
            0x40..=0x3fff => self.u16(0x4000 | value as u16),
            0x4000..=0x3fff_ffff => self.u32(0x8000_0000 | value as u32),
            _ => self.u64(0xc000_0000_0000_0000 | value.min(MAX_VARINT)),
        }
    }

    /// Appends bytes whose length the reader knows.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Appends a byte string behind a 32-bit length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.u32(bytes.len() as u32);
        self.raw(bytes);
    }

    /// Appends a text behind a 32-bit length, as UTF-8.
    pub fn str(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Appends a list behind its 32-bit count.
    pub fn list<T: Encode>(&mut self, items: &[T]) {
        self.u32(items.len() as u32);
        for item in items {
            item.encode(self);
        }
    }

    /// Appends a one-byte presence mark and, if there is one, the value.
    pub fn option<T: Encode>(&mut self, value: Option<&T>) {
        self.u8(value.is_some() as u8);
        if let Some(value) = value {
            value.encode(self);
        }
    }

    /// The bytes collected so far.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Takes bytes apart, never past their end.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next `n` bytes.
    pub fn raw(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(DecodeError::UnexpectedEnd)?;
        self.0 = tail;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.raw(N)?);
        Ok(out)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// A 16-bit integer.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// A 32-bit integer.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A 64-bit integer.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A variable integer; longer forms than the shortest are refused.
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let first = *self.0.first().ok_or(DecodeError::UnexpectedEnd)?;
        let (value, least) = match first >> 6 {
            0 => (self.u8()?.into(), 0),
            1 => ((self.u16()? & 0x3fff).into(), 0x40),
            2 => ((self.u32()? & 0x3fff_ffff).into(), 0x4000),
            _ => (self.u64()? & MAX_VARINT, 0x4000_0000),
        };
        if value < least { Err(DecodeError::Invalid("a variable integer")) } else { Ok(value) }
    }

    /// A byte string of at most `max` bytes; `what` names it in the error.
    pub fn bytes(&mut self, max: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.u32()? as usize;
        if len > max {
            return Err(DecodeError::TooLong(what));
        }
        self.raw(len)
    }

    /// A text of at most `max` bytes.
    pub fn str(&mut self, max: usize, what: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(max, what)?).map_err(|_| DecodeError::Invalid(what))
    }

    /// A list of at most `max` items; memory grows with the bytes that are there, not with the count claimed.
    pub fn list<T: Decode>(&mut self, max: usize, what: &'static str) -> Result<Vec<T>, DecodeError> {
        let count = self.u32()? as usize;
        if count > max {
            return Err(DecodeError::TooLong(what));
        }
        let mut items = Vec::with_capacity(count.min(self.0.len()));
        for _ in 0..count {
            items.push(T::decode(self)?);
        }
        Ok(items)
    }

    /// A value behind its presence mark.
    pub fn option<T: Decode>(&mut self) -> Result<Option<T>, DecodeError> {
        match self.u8()? {
            0 => Ok(None),
            1 => T::decode(self).map(Some),
            _ => Err(DecodeError::Invalid("a presence mark")),
        }
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Checks that nothing is left.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }
}

impl Encode for u16 {
    fn encode(&self, out: &mut Writer) {
        out.u16(*self);
    }
}

impl Decode for u16 {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.u16()
    }
}

impl<const N: usize> Encode for [u8; N] {
    fn encode(&self, out: &mut Writer) {
        out.raw(self);
    }
}

impl<const N: usize> Decode for [u8; N] {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array()
    }
}

/// The largest value of a variable integer (RFC 9000 section 16).
const MAX_VARINT: u64 = (1 << 62) - 1;

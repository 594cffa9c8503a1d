//! A recording that is pushed in pieces of any size: records, as soon as they are whole.

use meeting_wire::DecodeError;

use super::{
    format::{FRAME, FrameHead, MAGIC, RECORD_HEAD, Record, RecordHead},
    walk::Stop,
};

/// See the module.
#[derive(Default)]
pub struct Feed {
    bytes: Vec<u8>,
    /// Bytes of these that were taken.
    taken: usize,
    /// Bytes before these.
    before: u64,
}

impl Feed {
    /// Takes in what came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.before += std::mem::take(&mut self.taken) as u64;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole record, and of a frame what is clear; none until more comes.
    pub fn next<E>(&mut self) -> Result<Option<(Record, Option<FrameHead>)>, Stop<E>> {
        if self.before + self.taken as u64 == 0 {
            let Some(magic) = self.bytes.first_chunk() else { return Ok(None) };
            if *magic != MAGIC {
                return Err(Stop::Damaged(0, DecodeError::Invalid("the beginning of a recording")));
            }
            self.taken = MAGIC.len();
        }
        let damaged = |error| Stop::Damaged(self.before + self.taken as u64, error);
        let Some((head, rest)) = self.bytes[self.taken..].split_first_chunk() else { return Ok(None) };
        let RecordHead { kind, len } = RecordHead::parse(head).map_err(damaged)?;
        let Some(body) = rest.get(..len) else { return Ok(None) };
        let clear = (kind == FRAME).then(|| FrameHead::parse(body)).transpose().map_err(damaged)?;
        let record = Record::parse(kind, body).map_err(damaged)?;
        self.taken += RECORD_HEAD + len;
        Ok(Some((record, clear)))
    }

    /// Where it ends within a record, if it does.
    pub fn cut(&self) -> Option<u64> {
        (self.taken < self.bytes.len()).then(|| self.before + self.taken as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use meeting_wire::{Kind, ParticipantId, StreamId};
    use proptest::prelude::*;

    use super::{super::format::Source, *};

    fn records(feed: &mut Feed) -> Vec<Record> {
        std::iter::from_fn(|| feed.next::<Infallible>().ok().flatten()).map(|(record, _)| record).collect()
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same_records(size in 1_usize..90, cut in 0_usize..30) {
            let source = Source { from: ParticipantId([1; 16]), stream: StreamId(3), kind: Kind::Data };
            let all = [Record::Track(source), Record::End(0), Record::Track(source), Record::IndexAt(7)];
            let bytes: Vec<u8> = MAGIC.into_iter().chain(all.iter().flat_map(Record::to_bytes)).collect();
            let (mut feed, mut found) = (Feed::default(), Vec::new());
            for piece in bytes[..bytes.len() - cut].chunks(size) {
                feed.push(piece);
                found.extend(records(&mut feed));
            }
            prop_assert!(all.starts_with(&found));
            prop_assert_eq!(found.len() == all.len(), cut == 0);
            prop_assert_eq!(feed.cut().is_some(), ![0, 13].contains(&cut));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut feed = Feed::default();
            feed.push(&[&MAGIC[..], &bytes].concat());
            records(&mut feed);
        }
    }
}

//! The key file of a sealed recording: the stream keys of the tracks and epochs that were recorded, and nothing that
//! leads to another key, under a passphrase (PROTOCOL.md 8).
//!
//! ```text
//!  magic | version | memory | passes | lanes | salt      the header: additional data of every entry
//!  length | AES-256-GCM, nonce 0 (the meeting)
//!  length | AES-256-GCM, nonce 1 (a stream's key)        appended as keys come
//!  length | AES-256-GCM, nonce 2 (the end)
//! ```
//!
//! Each file has a key of its own, and each entry its number for a nonce: entries of other files, in another order or
//! with some left out do not open. What a crash leaves opens up to its last whole entry.

use argon2::{Algorithm, Argon2, Params, Version};
use meeting_wire::{Decode, DecodeError, Encode, MeetingId, ParticipantId, Reader, StreamId, Writer};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{
    MAX_CAPS,
    crypto::{kdf::HkdfSha256, labels, once},
    frame::{CipherSuite, KeyId},
    secret::Secret,
};

/// What a passphrase costs whoever guesses (RFC 9106 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB.
    pub memory: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for Cost {
    /// The second recommended option of RFC 9106 section 4.
    fn default() -> Self {
        Self { memory: 64 * 1024, passes: 3, lanes: 4 }
    }
}

/// One stream's key in one epoch, and what its frames are.
#[derive(Debug)]
pub struct RecordedKey {
    /// Whose stream.
    pub from: ParticipantId,
    /// Their name.
    pub name: String,
    /// Which stream.
    pub stream: StreamId,
    /// Its label.
    pub track: String,
    /// The caps that its sender signed, codec headers included.
    pub caps: String,
    /// The epoch of the key.
    pub epoch: u64,
    /// The KID.
    pub kid: KeyId,
    /// The cipher suite.
    pub suite: CipherSuite,
    /// RFC 9605 `base_key`.
    pub base_key: Secret<32>,
}

/// Makes a key file, piece by piece.
pub struct KeyFileWriter {
    key: Secret<32>,
    header: [u8; HEADER],
    entries: u64,
}

impl KeyFileWriter {
    /// A file for keys of `meeting`, and the bytes it begins with.
    pub fn new(
        meeting: MeetingId,
        passphrase: &[u8],
        cost: Cost,
        rng: &mut dyn CryptoRng,
    ) -> Result<(Self, Vec<u8>), KeyFileError> {
        let mut salt = [0; SALT];
        rng.fill_bytes(&mut salt);
        let header = header(cost, &salt);
        let mut writer = Self { key: derive(passphrase, cost, &salt)?, header, entries: 0 };
        let mut bytes = header.to_vec();
        bytes.extend(writer.append(&Entry::Meeting(meeting)));
        Ok((writer, bytes))
    }

    /// The bytes of one more key.
    pub fn key(&mut self, key: RecordedKey) -> Vec<u8> {
        self.append(&Entry::Key(key))
    }

    /// The bytes that end the file: without them it was cut.
    pub fn end(mut self) -> Vec<u8> {
        self.append(&Entry::End)
    }

    fn append(&mut self, entry: &Entry) -> Vec<u8> {
        let plaintext = Zeroizing::new(entry.to_bytes());
        let sealed = once::seal_counted(&self.key, self.entries, &self.header, &plaintext)
            .expect("an entry is shorter than what the AEAD takes");
        self.entries += 1;
        let mut out = Writer::with_capacity(sealed.len() + 4);
        out.bytes(&sealed);
        out.into_bytes()
    }
}

/// What a key file holds.
#[derive(Debug)]
pub struct KeyFile {
    /// The meeting whose keys they are.
    pub meeting: MeetingId,
    /// The keys, in the order in which they came.
    pub keys: Vec<RecordedKey>,
    /// How it ends.
    pub ending: Ending,
}

/// How a key file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With its end.
    Whole,
    /// Without: it was cut, or is being written.
    Cut,
    /// With bytes that nobody with the passphrase wrote there.
    Altered,
}

/// Why a key file gives no keys. The text is for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// Something else altogether.
    #[error("this is no key file of a sealed recording")]
    Foreign,
    /// Made by a later release.
    #[error("the key file has version {0}, which this release does not know: install a newer one")]
    Version(u8),
    /// The header asks for what nobody should do to open a file.
    #[error("the key file asks for more memory or time than any key file needs: it was altered")]
    Cost,
    /// Not even the first entry is there.
    #[error("the key file is cut: nothing of it can be read")]
    Cut,
    /// The first entry does not open.
    #[error("the passphrase is another one, or the beginning of the key file was altered")]
    Passphrase,
    /// An entry that opens and means nothing.
    #[error("the key file holds what no release writes: {0}")]
    Invalid(#[from] DecodeError),
}

impl KeyFile {
    /// Opens the bytes of a whole file, or what is there of it.
    ///
    /// # Errors
    ///
    /// [`KeyFileError`], where not even the first entry opens.
    pub fn open(bytes: &[u8], passphrase: &[u8]) -> Result<Self, KeyFileError> {
        let (Header { bytes: header, cost, salt }, entries) = Header::parse(bytes)?;
        let key = derive(passphrase, cost, &salt)?;
        let mut reader = Reader::new(entries);
        let mut number = 0;
        let mut next = |reader: &mut Reader<'_>| -> Option<Result<Zeroizing<Vec<u8>>, Ending>> {
            let sealed = match reader.bytes(MAX_ENTRY, "an entry") {
                Ok(sealed) => sealed,
                Err(DecodeError::UnexpectedEnd) => return None,
                Err(_) => return Some(Err(Ending::Altered)),
            };
            let opened = once::open_counted(&key, number, header, sealed);
            number += 1;
            Some(opened.map(Zeroizing::new).map_err(|_| Ending::Altered))
        };
        let first = match next(&mut reader) {
            None => return Err(KeyFileError::Cut),
            Some(first) => first.map_err(|_| KeyFileError::Passphrase)?,
        };
        let Entry::Meeting(meeting) = Entry::from_bytes(&first)? else {
            return Err(DecodeError::Invalid("the first entry").into());
        };
        let mut file = Self { meeting, keys: Vec::new(), ending: Ending::Cut };
        loop {
            match next(&mut reader) {
                None => return Ok(file),
                Some(Err(ending)) => return Ok(Self { ending, ..file }),
                Some(Ok(entry)) => match Entry::from_bytes(&entry)? {
                    Entry::Key(key) if file.keys.len() < MAX_KEYS => file.keys.push(key),
                    Entry::Key(_) => return Err(DecodeError::TooLong("a key file").into()),
                    Entry::Meeting(_) => return Err(DecodeError::Invalid("a later entry").into()),
                    Entry::End => break,
                },
            }
        }
        file.ending = if reader.finish().is_ok() { Ending::Whole } else { Ending::Altered };
        Ok(file)
    }
}

/// The passphrase in what a person typed or a file holds: without the line's end.
pub fn passphrase(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

enum Entry {
    Meeting(MeetingId),
    Key(RecordedKey),
    End,
}

impl Encode for Entry {
    fn encode(&self, out: &mut Writer) {
        match self {
            Entry::Meeting(meeting) => {
                out.u8(0);
                meeting.encode(out);
            }
            Entry::Key(key) => {
                out.u8(1);
                key.from.encode(out);
                out.str(&key.name);
                key.stream.encode(out);
                out.str(&key.track);
                out.str(&key.caps);
                out.u64(key.epoch);
                out.u64(key.kid.into());
                out.u16(key.suite.into());
                out.raw(key.base_key.expose());
            }
            Entry::End => out.u8(2),
        }
    }
}

impl Decode for Entry {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            0 => Entry::Meeting(MeetingId::decode(reader)?),
            1 => Entry::Key(RecordedKey {
                from: ParticipantId::decode(reader)?,
                name: reader.str(MAX_NAME, "a name")?.to_owned(),
                stream: StreamId::decode(reader)?,
                track: reader.str(MAX_NAME, "a track")?.to_owned(),
                caps: reader.str(MAX_CAPS, "caps")?.to_owned(),
                epoch: reader.u64()?,
                kid: KeyId::from(reader.u64()?),
                suite: CipherSuite::try_from(reader.u16()?).map_err(|_| DecodeError::Invalid("a suite"))?,
                base_key: {
                    let bytes = reader.raw(32)?;
                    Secret::init_with(|key| key.copy_from_slice(bytes))
                },
            }),
            2 => Entry::End,
            _ => return Err(DecodeError::Invalid("an entry of a key file")),
        })
    }
}

fn header(cost: Cost, salt: &[u8; SALT]) -> [u8; HEADER] {
    let mut out = Writer::with_capacity(HEADER);
    out.raw(MAGIC);
    out.u8(VERSION);
    out.u32(cost.memory);
    out.u32(cost.passes);
    out.u32(cost.lanes);
    out.raw(salt);
    let mut header = [0; HEADER];
    header.copy_from_slice(&out.into_bytes());
    header
}

struct Header<'a> {
    bytes: &'a [u8],
    cost: Cost,
    salt: [u8; SALT],
}

impl<'a> Header<'a> {
    /// The header, and what follows it.
    fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), KeyFileError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(KeyFileError::Foreign)?;
        match rest.first() {
            None => return Err(KeyFileError::Cut),
            Some(&VERSION) => {}
            Some(&other) => return Err(KeyFileError::Version(other)),
        }
        let (bytes, entries) = bytes.split_at_checked(HEADER).ok_or(KeyFileError::Cut)?;
        let mut reader = Reader::new(&bytes[MAGIC.len() + 1..]);
        let cost = Cost { memory: reader.u32()?, passes: reader.u32()?, lanes: reader.u32()? };
        Ok((Self { bytes, cost, salt: reader.array()? }, entries))
    }
}

fn derive(passphrase: &[u8], cost: Cost, salt: &[u8; SALT]) -> Result<Secret<32>, KeyFileError> {
    let Cost { memory, passes, lanes } = cost;
    if memory > MOST.memory || passes > MOST.passes || lanes > MOST.lanes {
        return Err(KeyFileError::Cost);
    }
    let params = Params::new(memory, passes, lanes, Some(32)).map_err(|_| KeyFileError::Cost)?;
    let mut failed = false;
    let stretched = Secret::<32>::init_with(|out| {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        failed = argon2.hash_password_into(passphrase, salt, out).is_err();
    });
    if failed {
        return Err(KeyFileError::Cost);
    }
    Ok(HkdfSha256::from_prk(stretched).expand(labels::KEY_FILE, &[]))
}

const MAGIC: &[u8] = b"e2ek";
const VERSION: u8 = 1;
const SALT: usize = 16;
const HEADER: usize = MAGIC.len() + 1 + 3 * 4 + SALT;
/// What a header may ask for at most: nobody's machine is to be filled by a file.
const MOST: Cost = Cost { memory: 1024 * 1024, passes: 16, lanes: 16 };
const MAX_NAME: usize = 256;
/// The longest entry with all its texts.
const MAX_ENTRY: usize = MAX_CAPS + 1024;
/// A day of 50 people with three streams and a key every two minutes is under half of it.
const MAX_KEYS: usize = 256 * 1024;
/// The longest key file in bytes that is worth reading.
pub const MAX_FILE: usize = 256 * 1024 * 1024;
/// The longest passphrase in bytes.
pub const MAX_PASSPHRASE: usize = 1024;

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::{Mutex, PoisonError},
    };

    use proptest::prelude::*;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;

    const CHEAP: Cost = Cost { memory: 8, passes: 1, lanes: 1 };
    const MEETING: MeetingId = MeetingId([7; 16]);

    fn key(epoch: u64) -> RecordedKey {
        RecordedKey {
            from: ParticipantId([0xa1; 16]),
            name: "Alice".into(),
            stream: StreamId(3),
            track: "microphone".into(),
            caps: "audio/x-opus".into(),
            epoch,
            kid: KeyId::new(StreamId(3), 4, epoch),
            suite: CipherSuite::default(),
            base_key: Secret::init_with(|key| *key = [epoch as u8; 32]),
        }
    }

    /// The pieces of a file of three keys.
    fn pieces(seed: u64) -> Vec<Vec<u8>> {
        // Made once: the same salt twice would be the same nonces under the same key.
        static MADE: Mutex<BTreeMap<u64, Vec<Vec<u8>>>> = Mutex::new(BTreeMap::new());
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        made.entry(seed).or_insert_with(|| make(seed)).clone()
    }

    fn make(seed: u64) -> Vec<Vec<u8>> {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let (mut writer, first) =
            KeyFileWriter::new(MEETING, b"open sesame", CHEAP, &mut rng).expect("a file");
        let mut pieces = vec![first];
        pieces.extend((5..8).map(|epoch| writer.key(key(epoch))));
        pieces.push(writer.end());
        pieces
    }

    fn open(bytes: &[u8]) -> Result<KeyFile, KeyFileError> {
        KeyFile::open(bytes, b"open sesame")
    }

    #[test]
    fn what_was_written_reads_back() {
        let file = open(&pieces(1).concat()).expect("opens");
        assert_eq!((file.meeting, file.keys.len(), file.ending), (MEETING, 3, Ending::Whole));
        for (got, epoch) in file.keys.iter().zip(5..) {
            assert_eq!(Entry::Key(key(epoch)).to_bytes(), encoded(got));
        }
    }

    fn encoded(got: &RecordedKey) -> Vec<u8> {
        let copy = RecordedKey {
            name: got.name.clone(),
            track: got.track.clone(),
            caps: got.caps.clone(),
            base_key: got.base_key.duplicate(),
            ..*got
        };
        Entry::Key(copy).to_bytes()
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let whole = pieces(1).concat();
        for bit in 0..whole.len() * 8 {
            // In the header's costs some bits ask for seconds of work and a gigabyte: those of the top bytes are enough.
            if (5 * 8..17 * 8).contains(&bit) && bit / 8 % 4 != 1 {
                continue;
            }
            let mut altered = whole.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let noticed = open(&altered).map_or(true, |file| file.ending != Ending::Whole);
            assert!(noticed, "bit {bit}");
        }
    }

    #[test]
    fn a_cut_file_opens_up_to_the_cut() {
        let pieces = pieces(1);
        let whole = pieces.concat();
        let ends: Vec<usize> = (1..=pieces.len()).map(|n| pieces[..n].concat().len()).collect();
        for cut in 0..whole.len() {
            let entries = ends.iter().filter(|end| **end <= cut).count();
            match open(&whole[..cut]) {
                Ok(file) => assert_eq!((file.keys.len() + 1, file.ending), (entries, Ending::Cut), "{cut}"),
                Err(error) => {
                    assert_eq!(entries, 0);
                    assert!(matches!(error, KeyFileError::Cut | KeyFileError::Foreign), "{cut}: {error}");
                }
            }
        }
    }

    #[test]
    fn entries_stay_in_their_file_and_their_place() {
        let (ours, others) = (pieces(1), pieces(2));
        let with = |order: &[&Vec<u8>]| {
            let bytes: Vec<u8> = order.iter().flat_map(|piece| piece.iter().copied()).collect();
            let file = open(&bytes).expect("the first entry is ours");
            (file.keys.len(), file.ending)
        };
        assert_eq!(with(&[&ours[0], &ours[2], &ours[1], &ours[3], &ours[4]]), (0, Ending::Altered));
        assert_eq!(with(&[&ours[0], &ours[1], &ours[3], &ours[4]]), (1, Ending::Altered));
        assert_eq!(with(&[&ours[0], &ours[1], &ours[1]]), (1, Ending::Altered));
        assert_eq!(with(&[&ours[0], &ours[1], &others[2]]), (1, Ending::Altered));
        assert_eq!(with(&[&ours[0], &ours[1], &ours[2], &ours[4]]), (2, Ending::Altered));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let whole = pieces(1).concat();
        let error = |bytes: &[u8], words: &[u8]| KeyFile::open(bytes, words).expect_err("refused");
        assert_eq!(error(&whole, b"open says me"), KeyFileError::Passphrase);
        assert_eq!(error(b"RIFF....", b""), KeyFileError::Foreign);
        let mut newer = whole.clone();
        newer[4] = 2;
        assert_eq!(error(&newer, b"open sesame"), KeyFileError::Version(2));
        let mut greedy = whole.clone();
        greedy[5] = 0xff;
        assert_eq!(error(&greedy, b"open sesame"), KeyFileError::Cost);
    }

    #[test]
    fn the_bytes_are_pinned() {
        let header = header(CHEAP, &[9; SALT]);
        let entry = Entry::Key(key(5)).to_bytes();
        let secret = derive(b"open sesame", CHEAP, &[9; SALT]).expect("derives");
        let sealed = once::seal_counted(&secret, 1, &header, &entry).expect("seals");
        let now = [&header[..], &entry, secret.expose(), &sealed].map(hex::encode);
        assert_eq!(now.each_ref().map(String::as_str), PINNED);
    }

    #[test]
    fn a_passphrase_ends_with_its_line() {
        assert_eq!(passphrase(b"a b\r\n"), b"a b");
        assert_eq!(passphrase(b" a \n\n"), b" a \n");
    }

    /// Header, an entry, the file's key, and the entry as the second one of the file: made by other libraries.
    const PINNED: [&str; 4] = [
        "6532656b0100000008000000010000000109090909090909090909090909090909",
        "01a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a100000005416c696365000000030000000a6d6963726f70686f6e650000000c617564696f2f782d6f\
         7075730000000000000005000000000300040500050505050505050505050505050505050505050505050505050505050505050505",
        "5a4f864ad108c84f0913f655ffabd3acddf2a0efd480d8f2fe912781bb38c5e7",
        "009f4138c060f11a6e02b09f11faf46fb3f838707259d51154c3532f1df4dafe6a2bd371d909d690d2b01d8580392e0a67d95d7e987fc38e9d\
         6800d06188a4cadc9b3839e1cc6a53f0f47b5e36f0db5850548dc90ef54c60abf0ce60dfd79999f6d4728147090b2bbeaab000bae9830e44be\
         e6f03abb5962807ec811091b",
    ];

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), known in 0_usize..2) {
            let bytes = [&header(CHEAP, &[1; SALT])[..HEADER * known], &bytes[..]].concat();
            let _ = open(&bytes);
        }
    }
}

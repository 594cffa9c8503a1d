//! The keys of a key file, for openers and the demuxer: a KID names a key of its own only within 256 epochs, so which one
//! is meant follows from where in the recording a frame stands.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::Read,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
};

use meeting_protocol::{
    frame::{CipherSuite, KeyId, OpenKey},
    keyfile::{Ending, KeyFile, KeyFileError, MAX_FILE, MAX_PASSPHRASE, RecordedKey, passphrase},
    secret::Secret,
};
use meeting_wire::{Flags, MeetingId, ParticipantId, StreamId};
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::{Found, Sender};
use crate::caps;

/// Why a key file gives no keys. The text is for a person.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// No such file, or not for us.
    #[error("cannot read {0}: {1}")]
    Unread(String, std::io::Error),
    /// More than belongs there.
    #[error("{0} is longer than any such file")]
    TooLong(String),
    /// Others may read the passphrase.
    #[error("{0} can be read by others: `chmod 600` it, and take another passphrase if somebody has")]
    Exposed(String),
    /// No passphrase was given.
    #[error("the key file needs its passphrase: set `passphrase-file` to a file that holds it")]
    NoPassphrase,
    /// See there.
    #[error("{0}: {1}")]
    KeyFile(String, KeyFileError),
}

/// The keys of one file.
#[derive(Debug, Default)]
pub struct Archive {
    keys: BTreeMap<(KeyId, ParticipantId), BTreeMap<u64, Key>>,
    keys_told: u64,
}

#[derive(Debug)]
struct Key {
    serial: u64,
    who: Arc<Sender>,
    suite: CipherSuite,
    base_key: Secret<32>,
    /// Each caps that the sender stated under this key, in their order.
    caps: Vec<String>,
}

impl Archive {
    /// Reads a key file: its meeting, its keys, and what is wrong with its end, in words.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`], if there is no key to be had.
    pub fn read(
        path: &Path,
        words: Option<&Path>,
    ) -> Result<(MeetingId, Self, Option<String>), ArchiveError> {
        let words = secret(words.ok_or(ArchiveError::NoPassphrase)?)?;
        let (_, file) = read(path, MAX_FILE)?;
        let name = path.display().to_string();
        let file = KeyFile::open(&file, passphrase(&words))
            .map_err(|error| ArchiveError::KeyFile(name.clone(), error))?;
        let keys = file.keys.len();
        let problem = match file.ending {
            Ending::Whole => None,
            Ending::Cut => Some(format!("{name} has no end, so keys may be missing: {keys} are there")),
            Ending::Altered => {
                Some(format!("{name} was altered after its first {keys} keys: only these are used"))
            }
        };
        Ok((file.meeting, file.keys.into_iter().collect(), problem))
    }

    /// Whether it has a key of this stream.
    pub fn knows(&self, from: ParticipantId, stream: StreamId) -> bool {
        self.keys.keys().any(|(kid, whose)| (*whose, kid.stream()) == (from, stream))
    }

    /// The epoch of a stream's first recorded frame: the earliest whose key it names, else the one of that number before
    /// the first that is here.
    pub fn first_epoch(&self, from: ParticipantId, kid: KeyId) -> u64 {
        if let Some(epoch) = self.keys.get(&(kid, from)).and_then(|epochs| epochs.keys().next()) {
            return *epoch;
        }
        let stream =
            |(other, whose): &(KeyId, ParticipantId)| (*whose, other.stream()) == (from, kid.stream());
        let of_stream = self.keys.iter().filter(|(place, _)| stream(place));
        let first = of_stream.filter_map(|(_, epochs)| epochs.keys().next().copied()).min().unwrap_or(0);
        first.saturating_sub(u64::from((first as u8).wrapping_sub(kid.epoch_byte())))
    }

    /// The key that a frame of `kid` near epoch `near` was sealed with, and its epoch: one key, whether it opens the
    /// frame or not.
    pub fn find(&self, from: Option<ParticipantId>, kid: KeyId, near: u64) -> Option<(u64, Found)> {
        let (epoch, key) = self.locate(from, kid, near)?;
        let open = OpenKey { kid, suite: key.suite, base_key: key.base_key.duplicate(), floor: 0 };
        Some((epoch, Found { key: open, who: key.who.clone(), serial: key.serial }))
    }

    /// Which key that is, without a copy of it.
    pub fn serial(&self, from: Option<ParticipantId>, kid: KeyId, near: u64) -> Option<(u64, u64)> {
        self.locate(from, kid, near).map(|(epoch, key)| (epoch, key.serial))
    }

    /// Caps of sealed frames under a key that have this number (see [`Flags::caps_version`]), or else of the newest.
    pub fn caps(&self, from: ParticipantId, kid: KeyId, near: u64, version: u8) -> Option<gst::Caps> {
        let (_, key) = self.locate(Some(from), kid, near)?;
        let of_track =
            |stated: &String| caps::of_track(stated, from, &key.who.name, kid.stream(), &key.who.track);
        let numbered = |caps: &gst::Caps| {
            Flags::default().with_caps_version(caps::version(caps)).caps_version() == version
        };
        let newest_first = || key.caps.iter().rev().filter_map(of_track);
        newest_first().find(numbered).or_else(|| newest_first().next())
    }

    fn locate(&self, from: Option<ParticipantId>, kid: KeyId, near: u64) -> Option<(u64, &Key)> {
        let epochs = match from {
            Some(from) => self.keys.get(&(kid, from))?,
            None => {
                let (first, last) = (ParticipantId([0; 16]), ParticipantId([0xff; 16]));
                let mut named = self.keys.range((kid, first)..=(kid, last));
                // Two people's streams: nothing says which is meant.
                named.next().filter(|_| named.next().is_none())?.1
            }
        };
        // A late frame may be of an epoch before the newest; one of the same KID is 256 epochs away.
        let (epoch, key) = epochs.range(near.saturating_sub(127)..).next()?;
        Some((*epoch, key))
    }
}

impl FromIterator<RecordedKey> for Archive {
    fn from_iter<T: IntoIterator<Item = RecordedKey>>(keys: T) -> Self {
        let mut archive = Self::default();
        for key in keys {
            let epochs = archive.keys.entry((key.kid, key.from)).or_default();
            match epochs.get_mut(&key.epoch).filter(|known| known.base_key.ct_eq(key.base_key.expose())) {
                Some(known) => known.caps.push(key.caps),
                None => {
                    archive.keys_told += 1;
                    let who = Sender { participant: key.from, name: key.name, track: key.track };
                    let (suite, base_key, caps) = (key.suite, key.base_key, vec![key.caps]);
                    let kept = Key { serial: archive.keys_told, who: Arc::new(who), suite, base_key, caps };
                    epochs.insert(key.epoch, kept);
                }
            }
        }
        archive
    }
}

/// The passphrase of a file that nobody else may read.
fn secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, ArchiveError> {
    let (mode, words) = read(path, MAX_PASSPHRASE)?;
    if mode & 0o077 != 0 {
        return Err(ArchiveError::Exposed(path.display().to_string()));
    }
    Ok(words)
}

/// A file's mode and bytes, at most `limit`.
fn read(path: &Path, limit: usize) -> Result<(u32, Zeroizing<Vec<u8>>), ArchiveError> {
    let unread = |error| ArchiveError::Unread(path.display().to_string(), error);
    // Not waiting for somebody to write into a pipe of that name.
    let flags = OFlags::NONBLOCK.bits() as i32;
    let file: File = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unread)?;
    let meta = file.metadata().map_err(unread)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity((meta.len() as usize).min(limit) + 1));
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(unread)?;
    if bytes.len() > limit {
        return Err(ArchiveError::TooLong(path.display().to_string()));
    }
    Ok((meta.mode(), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: ParticipantId = ParticipantId([0xa1; 16]);
    const BOB: ParticipantId = ParticipantId([0xb0; 16]);

    fn key(from: ParticipantId, epoch: u64, caps: &str) -> RecordedKey {
        RecordedKey {
            from,
            name: "somebody".into(),
            stream: StreamId(3),
            track: "camera".into(),
            caps: caps.into(),
            epoch,
            kid: KeyId::new(StreamId(3), 4, epoch),
            suite: CipherSuite::default(),
            base_key: Secret::init_with(|key| key[..8].copy_from_slice(&epoch.to_be_bytes())),
        }
    }

    fn kid(epoch: u64) -> KeyId {
        KeyId::new(StreamId(3), 4, epoch)
    }

    #[test]
    fn which_of_two_epochs_with_one_kid_follows_from_the_place() {
        let archive: Archive = [10, 11, 266, 267].map(|epoch| key(ALICE, epoch, "")).into_iter().collect();
        let epoch = |near| archive.serial(Some(ALICE), kid(10), near).map(|(epoch, _)| epoch);
        assert_eq!([10, 11, 137].map(epoch), [Some(10); 3]);
        assert_eq!([138, 266, 300].map(epoch), [Some(266); 3]);
        assert_eq!(epoch(500), None, "never an earlier one");
        assert_eq!(archive.serial(Some(BOB), kid(10), 10), None);
    }

    #[test]
    fn the_first_epoch_is_counted_back_where_its_key_is_missing() {
        let archive: Archive = [300, 301].map(|epoch| key(ALICE, epoch, "")).into_iter().collect();
        assert_eq!(archive.first_epoch(ALICE, kid(300)), 300);
        assert_eq!(archive.first_epoch(ALICE, kid(298)), 298);
        assert_eq!(archive.first_epoch(ALICE, kid(301)), 301);
    }

    #[test]
    fn without_a_name_only_what_is_clear_is_found() {
        let archive: Archive = [key(ALICE, 10, ""), key(BOB, 10, ""), key(BOB, 11, "")].into_iter().collect();
        assert!(archive.serial(None, kid(10), 10).is_none());
        assert!(archive.serial(None, kid(11), 10).is_some());
    }

    #[test]
    fn caps_are_those_of_their_number() {
        gst::init().expect("GStreamer");
        let archive: Archive =
            [key(ALICE, 10, "video/x-vp8"), key(ALICE, 10, "video/x-vp9, caps-version=(uint)9")]
                .into_iter()
                .collect();
        let caps = |version| archive.caps(ALICE, kid(10), 10, version).map(|caps| caps.to_string());
        assert!(caps(0).is_some_and(|caps| caps.contains("vp8")));
        assert!([1, 2].iter().all(|n| caps(*n).is_some_and(|caps| caps.contains("vp9"))));
    }
}

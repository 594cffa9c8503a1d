//! Opening: many keys, each with the counters it has seen.

use std::{collections::HashMap, fmt};

use crate::{
    crypto::aead::{Aead, AeadKey, TAG_LEN},
    frame::{
        CipherSuite, FrameKey, Header, KeyId,
        replay::{Screened, Window},
    },
    secret::Secret,
};

/// What an [`Opener`] needs to open the frames of one KID.
#[derive(Debug)]
pub struct OpenKey {
    /// The KID of those frames.
    pub kid: KeyId,
    /// Their cipher suite.
    pub suite: CipherSuite,
    /// Their base key.
    pub base_key: Secret<32>,
    /// Counters below are refused: what was accepted before a restart.
    pub floor: u64,
}

impl OpenKey {
    /// A second one, see [`Secret::duplicate`].
    pub fn duplicate(&self) -> Self {
        Self { base_key: self.base_key.duplicate(), ..*self }
    }
}

/// Why a frame was not opened. Each but `UnknownKey` and `OutputTooSmall` is the fault of the bytes: drop them and count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Too short, or no SFrame header in its shortest form.
    #[error("not a sealed frame")]
    Malformed,
    /// There is no key of this id, not yet or no more.
    #[error("no key of id {0}")]
    UnknownKey(KeyId),
    /// A frame of this key and counter was opened before.
    #[error("replayed")]
    Replayed,
    /// The counter is below the floor or has left the replay window.
    #[error("too old for the replay window")]
    TooOld,
    /// The frame is not what the holder of the key sealed.
    #[error("forged")]
    Forged,
    /// The output is shorter than the frame.
    #[error("the output buffer is too small")]
    OutputTooSmall,
}

impl From<Screened> for OpenError {
    fn from(screened: Screened) -> Self {
        match screened {
            Screened::Replayed => Self::Replayed,
            Screened::TooOld => Self::TooOld,
        }
    }
}

/// Opens sealed frames with whichever key each of them names.
pub struct Opener<A = AeadKey> {
    keys: Vec<Live<A>>,
    /// From KID to place in `keys`.
    places: HashMap<KeyId, usize>,
    /// The place used last: frames come in runs of one key.
    recent: usize,
    inserts: u64,
}

/// A key in use.
struct Live<A> {
    kid: KeyId,
    key: FrameKey<A>,
    suite: CipherSuite,
    base_key: Secret<32>,
    window: Window,
    /// When it was inserted, counted in inserts.
    age: u64,
}

impl Opener {
    /// An opener without keys.
    pub fn new() -> Self {
        Self::with_backend()
    }
}

impl Default for Opener {
    fn default() -> Self {
        Self::new()
    }
}

impl<A: Aead> Opener<A> {
    /// As [`Opener::new`], over a back end of choice.
    pub fn with_backend() -> Self {
        Self { keys: Vec::new(), places: HashMap::new(), recent: 0, inserts: 0 }
    }

    /// Takes in a key.
    ///
    /// The same key again keeps its window and at most raises the floor; another key of the same KID replaces the old
    /// one. Beyond [`MAX_KEYS`] the key inserted longest ago goes.
    pub fn insert(&mut self, key: OpenKey) {
        self.inserts += 1;
        let age = self.inserts;
        let OpenKey { kid, suite, base_key, floor } = key;

        if let Some(live) = self.places.get(&kid).and_then(|&place| self.keys.get_mut(place)) {
            live.age = age;
            if live.suite == suite && live.base_key.ct_eq(base_key.expose()) {
                live.window.raise_floor(floor);
                return;
            }
            live.key = FrameKey::new(suite, kid, base_key.expose());
            live.suite = suite;
            live.base_key = base_key;
            live.window = Window::new(floor);
            return;
        }

        if self.keys.len() >= MAX_KEYS
            && let Some(oldest) = self.keys.iter().min_by_key(|live| live.age).map(|live| live.kid)
        {
            self.remove(oldest);
        }
        let key = FrameKey::new(suite, kid, base_key.expose());
        self.places.insert(kid, self.keys.len());
        self.keys.push(Live { kid, key, suite, base_key, window: Window::new(floor), age });
    }

    /// Forgets a key and its window. Whoever might insert it again asks for its [`floor`](Self::floor) first.
    pub fn remove(&mut self, kid: KeyId) {
        let Some(place) = self.places.remove(&kid) else {
            return;
        };
        self.keys.swap_remove(place);
        if let Some(moved) = self.keys.get(place) {
            self.places.insert(moved.kid, place);
        }
    }

    /// Forgets every key of which `keep` says no.
    pub fn retain(&mut self, mut keep: impl FnMut(KeyId) -> bool) {
        self.keys.retain(|live| keep(live.kid));
        self.places = self.keys.iter().enumerate().map(|(place, live)| (live.kid, place)).collect();
    }

    /// Whether there is a key of this id.
    pub fn knows(&self, kid: KeyId) -> bool {
        self.places.contains_key(&kid)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// One above the newest accepted counter of a key, or the floor it came with if that is higher.
    pub fn floor(&self, kid: KeyId) -> Option<u64> {
        self.places.get(&kid).and_then(|&place| self.keys.get(place)).map(|live| live.window.floor())
    }

    /// Opens `sealed` into the start of `out` and gives the frame's length; `sealed.len()` is always enough room.
    ///
    /// The order is the point: parse, screen, decrypt, and only then record. Until the tag has verified, the counter
    /// is a stranger's word, and a stranger must not move our window.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]. After [`OpenError::Forged`] the place of the frame in `out` holds zeros; after any other
    /// error `out` is as it was.
    #[inline]
    pub fn open_into(&mut self, sealed: &[u8], out: &mut [u8]) -> Result<usize, OpenError> {
        let (header, header_len) = Header::parse(sealed).ok_or(OpenError::Malformed)?;
        let (aad, rest) = sealed.split_at(header_len);
        let (ciphertext, tag) = rest.split_last_chunk::<TAG_LEN>().ok_or(OpenError::Malformed)?;
        let live = self.live(header.kid.into())?;
        let frame = out.get_mut(..ciphertext.len()).ok_or(OpenError::OutputTooSmall)?;

        live.window.screen(header.ctr)?;
        let nonce = live.key.nonce(header.ctr);
        live.key.aead.open(&nonce, aad, ciphertext, tag, frame).map_err(|_| OpenError::Forged)?;
        live.window.record(header.ctr);

        Ok(frame.len())
    }

    /// As [`open_into`](Self::open_into), into a new buffer.
    ///
    /// # Errors
    ///
    /// [`OpenError`], but for [`OpenError::OutputTooSmall`].
    pub fn open(&mut self, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let mut frame = vec![0; sealed.len()];
        let len = self.open_into(sealed, &mut frame)?;
        frame.truncate(len);
        Ok(frame)
    }

    #[inline]
    fn live(&mut self, kid: KeyId) -> Result<&mut Live<A>, OpenError> {
        if self.keys.get(self.recent).is_none_or(|live| live.kid != kid) {
            self.recent = *self.places.get(&kid).ok_or(OpenError::UnknownKey(kid))?;
        }
        self.keys.get_mut(self.recent).ok_or(OpenError::UnknownKey(kid))
    }
}

impl<A> fmt::Debug for Opener<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

/// Keys an opener holds at most: 1,000 participants with four each, of about 1 KiB.
pub const MAX_KEYS: usize = 4096;

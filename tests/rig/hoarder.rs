//! A member who keeps every key it was ever given, to try them on everything the relay saw.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use meeting_protocol::{
    frame::{CipherSuite, Header, KeyId, OpenKey, Opener, SealKey, Sealer},
    local::{self, FromAgent, Purpose, ToAgent},
    secret::Secret,
};
use meeting_wire::{Decode, ParticipantId};

use crate::until;

struct Hoarded {
    from: ParticipantId,
    epoch: u64,
    kid: KeyId,
    suite: u16,
    base_key: Secret<32>,
}

/// Everything one agent hands to opening elements, kept for ever.
pub struct Hoarder {
    keys: Arc<Mutex<Vec<Hoarded>>>,
}

impl Hoarder {
    /// Connects to an agent as an opening element would, and never forgets.
    pub fn start(socket: &Path) -> Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        let purpose = Purpose::Keys { meeting: None };
        stream.write_all(&local::packed(&ToAgent::Hello { version: local::VERSION, purpose }))?;
        stream.write_all(&local::packed(&ToAgent::WantOpenKeys))?;
        let keys = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&keys);
        thread::spawn(move || {
            while let Ok(message) = read(&mut stream) {
                if let FromAgent::OpenKey { from, epoch, kid, suite, base_key, .. } = message {
                    let key = Hoarded { from, epoch, kid, suite, base_key };
                    kept.lock().expect("no panic under the lock").push(key);
                }
            }
        });
        Ok(Self { keys })
    }

    /// Waits for the first key.
    pub fn until_it_has_keys(&self) -> Result<()> {
        until("a key to hoard", Duration::from_secs(20), || Ok((self.count() > 0).then_some(())))
    }

    /// How many keys it has.
    pub fn count(&self) -> usize {
        self.keys.lock().expect("no panic under the lock").len()
    }

    /// The epochs of its keys.
    pub fn epochs(&self) -> BTreeSet<u64> {
        self.keys.lock().expect("no panic under the lock").iter().map(|key| key.epoch).collect()
    }

    /// Whether nobody had two keys for a stream in one epoch.
    pub fn has_one_key_each(&self) -> bool {
        let keys = self.keys.lock().expect("no panic under the lock");
        let mut seen = BTreeMap::new();
        keys.iter().all(|key| {
            let place = (key.from, key.epoch, u64::from(key.kid));
            seen.entry(place).or_insert(&key.base_key).ct_eq(key.base_key.expose())
        })
    }

    /// Whether any of its keys opens a frame.
    pub fn opens(&self, sealed: &[u8]) -> bool {
        self.open(sealed).is_some()
    }

    /// What any of its keys makes of a frame.
    pub fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (header, _) = Header::parse(sealed)?;
        let keys = self.keys.lock().expect("no panic under the lock");
        keys.iter().filter(|key| u64::from(key.kid) == header.kid).find_map(|key| {
            let suite = CipherSuite::try_from(key.suite).ok()?;
            let mut opener = Opener::new();
            opener.insert(OpenKey { kid: key.kid, suite, base_key: key.base_key.duplicate(), floor: 0 });
            opener.open(sealed).ok()
        })
    }

    /// A frame of its own under somebody else's key, as any member can make one.
    pub fn forge(&self, kid: u64, ctr: u64, frame: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys.lock().expect("no panic under the lock");
        let key = keys.iter().find(|key| u64::from(key.kid) == kid)?;
        let suite = CipherSuite::try_from(key.suite).ok()?;
        let stolen = SealKey::new(key.kid, suite, key.base_key.duplicate());
        Sealer::starting_at(stolen, ctr).seal(frame).ok()
    }

    /// Whether any of its keys stands in `bytes`.
    pub fn finds_a_key_in(&self, bytes: &[u8]) -> bool {
        let keys = self.keys.lock().expect("no panic under the lock");
        keys.iter().any(|key| bytes.windows(32).any(|window| window == key.base_key.expose()))
    }
}

pub(crate) fn read(stream: &mut UnixStream) -> Result<FromAgent> {
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let mut body = vec![0; local::message_len(len)?];
    stream.read_exact(&mut body)?;
    FromAgent::from_bytes(&body).context("the agent speaks another language")
}

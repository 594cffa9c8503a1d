//! One opening stream: screen by the caps, fetch the key, open, and count what was refused.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use meeting_protocol::{
    BootTime,
    frame::{Header, KeyId, MAX_KEYS, OpenError, Opener, Rules},
};
use meeting_wire::{ParticipantId, StreamId};

use super::failures::Reason;
use crate::{
    clock,
    store::{Archive, Found, KeyStore, Sender},
};

/// One way from sealed to clear, from READY to PAUSED and back.
pub struct Gate {
    store: Arc<KeyStore>,
    opener: Opener,
    known: HashMap<KeyId, Known>,
    /// The key of the frame before: frames come in runs of one key.
    current: Option<(KeyId, Arc<Sender>)>,
    /// Keys that opened something since the agent was told.
    used: HashSet<KeyId>,
    told: BootTime,
    generation: u64,
    rules: Rules,
    /// Whose stream it must be, where the caps say.
    owner: Option<Owner>,
    /// Of the frame opened last, where the keys are a key file's.
    epoch: u64,
    /// No frame waits for a key before that.
    patience_from: Option<Instant>,
    dropped: bool,
    /// What it did so far.
    pub counts: Counts,
}

struct Known {
    serial: u64,
    who: Arc<Sender>,
}

/// Whose stream it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Who seals it.
    pub participant: ParticipantId,
    /// Its number.
    pub stream: StreamId,
}

/// What a gate did so far.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Frames opened.
    pub opened: u64,
    /// Their bytes after opening.
    pub bytes: u64,
    /// Frames refused, by [`Reason::index`].
    pub refused: [u64; Reason::ALL.len()],
}

/// An opened frame.
pub struct Opened {
    /// So many bytes of the output are the frame.
    pub len: usize,
    /// Frames before it were dropped.
    pub discont: bool,
    /// Whose frame it is.
    pub stream: StreamId,
}

/// A frame that was refused.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub reason: Reason,
    /// The key it names.
    pub kid: Option<KeyId>,
    /// Whose key that is; who sent the frame is another question.
    pub who: Option<Arc<Sender>>,
}

impl Gate {
    /// A gate for what the store has keys for.
    pub fn new(store: Arc<KeyStore>) -> Self {
        store.want_open_keys();
        Self {
            store,
            opener: Opener::new(),
            known: HashMap::new(),
            current: None,
            used: HashSet::new(),
            told: BootTime(0),
            generation: 0,
            rules: Rules::default(),
            owner: None,
            epoch: 0,
            patience_from: None,
            dropped: false,
            counts: Counts::default(),
        }
    }

    /// Says whose stream it must be from now on.
    pub fn bind(&mut self, owner: Option<Owner>) {
        self.owner = owner;
    }

    /// Frames of a recording follow that are of this epoch or later: what was opened before may be opened again. Media that
    /// comes from a meeting never goes back.
    pub fn begin_at(&mut self, epoch: u64) {
        if self.store.archive().is_some() {
            self.opener = Opener::new();
            self.known.clear();
            self.used.clear();
            self.current = None;
            self.epoch = epoch;
        }
    }

    /// Opens `sealed` into `out`, which is at least as long. A frame whose key is on its way waits for it, unless
    /// `cancelled`.
    pub fn open(
        &mut self,
        now: BootTime,
        sealed: &[u8],
        out: &mut [u8],
        cancelled: impl Fn() -> bool,
    ) -> Result<Opened, Refused> {
        let opened = self.try_open(now, sealed, out, cancelled);
        match &opened {
            Ok(opened) => {
                self.counts.opened += 1;
                self.counts.bytes += opened.len as u64;
                self.dropped = false;
            }
            Err(refused) => {
                self.counts.refused[refused.reason.index()] += 1;
                self.dropped = true;
            }
        }
        if now.since(self.told) >= TELL_EVERY {
            self.told = now;
            self.tell(false);
        }
        opened
    }

    fn try_open(
        &mut self,
        now: BootTime,
        sealed: &[u8],
        out: &mut [u8],
        cancelled: impl Fn() -> bool,
    ) -> Result<Opened, Refused> {
        let malformed = Refused { reason: Reason::Malformed, kid: None, who: None };
        let (header, header_len) = Header::parse(sealed).ok_or(malformed)?;
        let kid = KeyId::from(header.kid);
        let refuse = |reason, who| Refused { reason, kid: Some(kid), who };
        if sealed.len() < header_len + TAG {
            return Err(refuse(Reason::Malformed, None));
        }
        if self.owner.is_some_and(|owner| owner.stream != kid.stream()) {
            return Err(refuse(Reason::Mismatch, None));
        }

        self.refresh();
        let current = self.current.take_if(|(current, _)| *current == kid);
        let again = current.is_some();
        let who = current.map(|(_, who)| who).or_else(|| self.sender(kid, cancelled));
        let who = who.ok_or_else(|| refuse(Reason::NoKey, None))?;
        if self.owner.is_some_and(|owner| owner.participant != who.participant) {
            return Err(refuse(Reason::Mismatch, Some(who)));
        }
        // A key that was waited for makes no lease longer.
        let now = if again { now } else { now.max(clock::boot_now()) };
        if !self.rules.may_open(now) {
            return Err(refuse(Reason::Stale, Some(who)));
        }

        match self.opener.open_into(sealed, out) {
            Ok(len) => {
                if !again {
                    self.used.insert(kid);
                }
                self.current = Some((kid, who));
                Ok(Opened { len, discont: self.dropped, stream: kid.stream() })
            }
            Err(error) => Err(refuse(reason(error), Some(who))),
        }
    }

    /// Whose key that is, which the opener has then.
    fn sender(&mut self, kid: KeyId, cancelled: impl Fn() -> bool) -> Option<Arc<Sender>> {
        if let Some(archive) = self.store.archive() {
            return self.recorded(&archive, kid);
        }
        if !self.known.contains_key(&kid) {
            let found = self.fetch(kid, cancelled)?;
            self.insert(kid, found);
            self.refresh();
        }
        self.known.get(&kid).map(|known| known.who.clone())
    }

    /// As [`sender`](Self::sender), from a key file: nothing more will come, so nothing is waited for.
    fn recorded(&mut self, archive: &Archive, kid: KeyId) -> Option<Arc<Sender>> {
        let from = self.owner.map(|owner| owner.participant);
        let (epoch, serial) = archive.serial(from, kid, self.epoch)?;
        if self.known.get(&kid).is_none_or(|known| known.serial != serial) {
            let (_, found) = archive.find(from, kid, self.epoch)?;
            self.forget(kid);
            self.insert(kid, found);
        }
        self.epoch = self.epoch.max(epoch);
        self.known.get(&kid).map(|known| known.who.clone())
    }

    /// Forgets what the store has dropped or replaced.
    fn refresh(&mut self) {
        let generation = self.store.generation();
        if generation == self.generation {
            return;
        }
        self.generation = generation;
        self.current = None;
        self.rules = self.store.rules();
        let (store, opener) = (&self.store, &mut self.opener);
        self.known.retain(|kid, known| {
            let holds = store.holds(*kid, known.serial);
            if !holds {
                // The agent may give it again.
                if let Some(floor) = opener.floor(*kid) {
                    store.report_floor((*kid, known.serial), floor, true);
                }
                opener.remove(*kid);
            }
            holds
        });
    }

    /// After a wait in vain nobody waits for a while, so that made-up keys cannot hold a stream up.
    fn fetch(&mut self, kid: KeyId, cancelled: impl Fn() -> bool) -> Option<Found> {
        if let Some(found) = self.store.find(kid) {
            return Some(found);
        }
        let now = Instant::now();
        if self.patience_from.is_some_and(|from| now < from) {
            return None;
        }
        let found = self.store.wait_for(kid, now + PATIENCE, cancelled);
        if found.is_none() {
            self.patience_from = Some(Instant::now() + REST);
        }
        found
    }

    fn insert(&mut self, kid: KeyId, found: Found) {
        if self.known.len() >= MAX_KEYS
            && let Some(other) = self.known.keys().next().copied()
        {
            self.forget(other);
        }
        self.opener.insert(found.key);
        self.known.insert(kid, Known { serial: found.serial, who: found.who });
    }

    /// What it opened with this key is never opened again by its successor.
    fn forget(&mut self, kid: KeyId) {
        self.report(kid, true);
        self.opener.remove(kid);
        self.current = None;
        self.known.remove(&kid);
        self.used.remove(&kid);
    }

    fn tell(&mut self, last: bool) {
        self.current = None;
        for kid in std::mem::take(&mut self.used) {
            self.report(kid, last);
        }
    }

    fn report(&self, kid: KeyId, last: bool) {
        if let Some((known, floor)) = self.known.get(&kid).zip(self.opener.floor(kid)) {
            self.store.report_floor((kid, known.serial), floor, last);
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.used = self.known.keys().copied().collect();
        self.tell(true);
    }
}

fn reason(error: OpenError) -> Reason {
    match error {
        OpenError::UnknownKey(_) => Reason::NoKey,
        OpenError::Replayed | OpenError::TooOld => Reason::Replayed,
        OpenError::Forged => Reason::Forged,
        _ => Reason::Malformed,
    }
}

/// Bytes of the tag of every suite on offer.
const TAG: usize = 16;
/// How long a frame waits for its key; what piles up behind it meanwhile is the queue before this element.
const PATIENCE: Duration = Duration::from_millis(if cfg!(fuzzing) { 1 } else { 500 });
/// How long nobody waits after that was in vain.
const REST: Duration = Duration::from_secs(3);
/// How often the agent hears how far the counters are.
const TELL_EVERY: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::thread;

    use meeting_protocol::{
        frame::{CipherSuite, SealKey, Sealer},
        local::FromAgent,
        secret::Secret,
    };
    use meeting_wire::MeetingId;

    use super::*;
    use crate::store::for_ever;

    /// A gate, its agent and those who seal.
    struct Scene {
        gate: Gate,
        seed: u8,
        sealers: HashMap<u64, Sealer>,
    }

    impl Scene {
        /// Each with keys of its own, by its seed.
        fn new(seed: u8) -> Self {
            let store = KeyStore::new(MeetingId([1; 16]), false);
            store.apply(FromAgent::Lease { until: for_ever() });
            Self { gate: Gate::new(store), seed, sealers: HashMap::new() }
        }

        fn key(&self, kid: u64) -> FromAgent {
            FromAgent::OpenKey {
                from: ParticipantId([7; 16]),
                name: "Alice".into(),
                stream: StreamId(1),
                track: "camera".into(),
                caps: "video/x-vp8".into(),
                epoch: 1,
                kid: KeyId::from(kid),
                suite: CipherSuite::default().into(),
                base_key: base_key(self.seed),
                floor: 0,
            }
        }

        fn seal(&mut self, kid: u64) -> Vec<u8> {
            let key = SealKey::new(KeyId::from(kid), CipherSuite::default(), base_key(self.seed));
            let sealer = self.sealers.entry(kid).or_insert_with(|| Sealer::new(key));
            sealer.seal(b"frame").expect("sealed")
        }

        /// Why a frame was refused, if it was.
        fn open_this(&mut self, sealed: &[u8]) -> Option<Reason> {
            let opened = self.gate.open(BootTime(1), sealed, &mut vec![0; sealed.len()], || false);
            opened.err().map(|refused| refused.reason)
        }

        /// Why the next frame was refused, if it was, and how long that took.
        fn open(&mut self, kid: u64, cancelled: bool) -> (Option<Reason>, Duration) {
            let sealed = self.seal(kid);
            let start = Instant::now();
            let opened = self.gate.open(BootTime(1), &sealed, &mut vec![0; sealed.len()], || cancelled);
            (opened.err().map(|refused| refused.reason), start.elapsed())
        }
    }

    fn base_key(seed: u8) -> Secret<32> {
        Secret::init_with(|key| key.fill(seed))
    }

    #[test]
    fn a_frame_waits_for_its_key_and_no_longer_than_it_may() {
        let mut scene = Scene::new(1);
        let opens = |kid| {
            scene.gate.patience_from = None;
            let (store, key) = (scene.gate.store.clone(), scene.key(kid));
            let agent = thread::spawn(move || {
                thread::sleep(Duration::from_millis(50));
                store.apply(key);
            });
            let (reason, _) = scene.open(kid, false);
            agent.join().expect("no panic");
            reason.is_none()
        };
        // Where the machine stands still the key is late.
        assert!((1..6).any(opens), "the key came while it waited");
        scene.gate.patience_from = None;
        let (reason, took) = scene.open(6, false);
        assert!(reason == Some(Reason::NoKey) && took >= PATIENCE, "{reason:?} after {took:?}");
    }

    #[test]
    fn after_a_wait_in_vain_frames_without_a_key_hold_nobody_up_for_a_while() {
        let mut scene = Scene::new(2);
        scene.gate.store.apply(scene.key(1));
        let begun = Instant::now();
        let (reason, took) = scene.open(2, false);
        assert!(reason == Some(Reason::NoKey) && took >= PATIENCE, "{reason:?} after {took:?}");
        let rests = scene.gate.patience_from.expect("it rests");
        assert!(rests >= begun + PATIENCE + REST);
        // Nobody waits however slow the machine is, so the rest is made longer than the test.
        scene.gate.patience_from = Some(Instant::now() + REST * 100);
        let waited: Duration = (3..1_003)
            .map(|made_up| {
                let (reason, took) = scene.open(made_up, false);
                assert_eq!(reason, Some(Reason::NoKey));
                took
            })
            .sum();
        assert!(waited < PATIENCE * 10, "a thousand made-up keys took {waited:?}");
        assert_eq!(scene.open(1, false).0, None, "who has a key is opened meanwhile");
        assert_eq!(scene.gate.counts.refused.iter().sum::<u64>(), 1_001);

        scene.gate.patience_from = Some(Instant::now());
        assert!(scene.open(2, false).1 >= PATIENCE, "after the rest one waits again");
    }

    #[test]
    fn who_flushes_or_stops_waits_for_nothing() {
        let mut scene = Scene::new(3);
        let is_let_go = |kid| {
            scene.gate.patience_from = None;
            let (reason, took) = scene.open(kid, true);
            assert_eq!(reason, Some(Reason::NoKey));
            took < PATIENCE
        };
        // Where the machine stands still anything takes so long.
        assert!((1..6).any(is_let_go));
    }

    #[test]
    fn a_key_that_comes_after_the_lease_opens_nothing() {
        let mut scene = Scene::new(5);
        scene.gate.store.apply(FromAgent::Lease { until: BootTime(2) });
        scene.gate.store.apply(scene.key(1));
        // The frame came in time, and the moment in which its key is here is long after the lease.
        assert_eq!(scene.open(1, false).0, Some(Reason::Stale));
    }

    #[test]
    fn after_a_new_connection_only_what_the_agent_gives_again_opens_and_nothing_opens_twice() {
        for looks in [false, true] {
            let mut scene = Scene::new(6 + u8::from(looks));
            let lease = || FromAgent::Lease { until: for_ever() };
            let mut sealed = Vec::new();
            for kid in [1, 2] {
                scene.gate.store.apply(scene.key(kid));
                sealed.push(scene.seal(kid));
                assert_eq!(scene.open_this(&sealed[kid as usize - 1]), None);
            }
            scene.gate.store.reconnected();
            scene.gate.store.apply(lease());
            if looks {
                // A frame between finds nothing, and the opener lets go of its keys.
                scene.gate.patience_from = Some(Instant::now() + REST * 100);
                assert_eq!(scene.open(1, false).0, Some(Reason::NoKey));
            }
            scene.gate.store.apply(scene.key(1));
            scene.gate.patience_from = Some(Instant::now() + REST * 100);
            assert_eq!(scene.open_this(&sealed[0]), Some(Reason::Replayed));
            assert_eq!(scene.open(1, false).0, None, "what is new opens");
            assert_eq!(scene.open(2, false).0, Some(Reason::NoKey), "what it did not give again does not");
        }
    }

    #[test]
    fn it_knows_so_many_keys_and_forgets_one_for_the_next() {
        let mut scene = Scene::new(4);
        for kid in 0..MAX_KEYS as u64 + 10 {
            scene.gate.store.apply(scene.key(kid));
            assert_eq!(scene.open(kid, false).0, None, "{kid}");
            assert!(scene.gate.known.len() <= MAX_KEYS && scene.gate.used.len() <= MAX_KEYS);
        }
    }
}

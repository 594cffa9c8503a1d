//! What others state of their streams.

use meeting_wire::{Kind, ParticipantId, StreamId};

use super::{MAX_CAPS_OF_ALL, MAX_STREAMS, Streams};
use crate::{
    crypto::sign::Signed,
    frame::{CipherSuite, KeyId},
    roster::Entry,
    session::{
        KeyChange,
        context::Cx,
        epoch_key::EpochKey,
        statement::{Said, Statement, StreamFacts},
    },
};

/// Statements kept for an epoch whose key is on its way.
pub(super) const MAX_HELD: usize = 2048;
/// Their bytes: of all, and of one sender.
pub(super) const MAX_HELD_BYTES: usize = 8 << 20;
const MAX_HELD_OF_SENDER: usize = MAX_CAPS_OF_ALL + 32 * 1024;

/// A statement that waits for its epoch's key.
pub(super) struct Held {
    statement: Signed<Statement>,
    /// Its sender had not proved to be here.
    newcomer: bool,
}

impl Held {
    pub fn from(&self) -> ParticipantId {
        self.statement.body.participant
    }

    pub fn len(&self) -> usize {
        self.statement.body.sealed.len()
    }
}

/// A stream of somebody else.
pub(super) struct Theirs {
    pub facts: StreamFacts,
    pub epoch: u64,
    pub counter: u64,
    pub closed: bool,
}

impl Streams {
    /// Keeps a statement, whose signature holds, for when its epoch's key comes. Anybody with the link can have any number
    /// of entries that never prove to be here: all of them have as much room as one of the others.
    pub(in crate::session) fn hold(&mut self, statement: Signed<Statement>, newcomer: bool) -> bool {
        let (from, len) = (statement.body.participant, statement.body.sealed.len());
        let same = |held: &&Held| held.newcomer == newcomer && (newcomer || held.from() == from);
        let of_sender = self.held.iter().filter(same);
        let room = self.held.len() < MAX_HELD
            && self.held.iter().map(Held::len).sum::<usize>() + len <= MAX_HELD_BYTES
            && of_sender.clone().count() < MAX_STREAMS
            && of_sender.map(Held::len).sum::<usize>() + len <= MAX_HELD_OF_SENDER;
        if room {
            self.held.push(Held { statement, newcomer });
        }
        room
    }

    /// What was kept for this epoch; what was for earlier ones is dropped.
    pub(in crate::session) fn take_held(&mut self, epoch: u64) -> Vec<Signed<Statement>> {
        let (due, later): (Vec<_>, _) =
            std::mem::take(&mut self.held).into_iter().partition(|held| held.statement.body.epoch <= epoch);
        self.held = later;
        due.into_iter().map(|held| held.statement).collect()
    }

    /// Takes in a statement, whose signature holds, under its epoch's key. Gives whether it keeps the rules.
    pub(in crate::session) fn stated(
        &mut self,
        statement: &Statement,
        entry: &Entry,
        key: &EpochKey,
        cx: &mut Cx<'_>,
    ) -> bool {
        let Some(said) = statement.open(key, entry.index, &entry.announce) else {
            cx.counters.forged += 1;
            return true;
        };
        let from = entry.participant;
        let stream = match &said {
            Said::Open(facts) => facts.stream,
            Said::Close(stream) => *stream,
        };
        let known = self.theirs.get(&(from, stream.0));
        if known.is_some_and(|known| {
            known.closed || (known.epoch, known.counter) >= (statement.epoch, statement.counter)
        }) {
            cx.counters.stale += 1;
            return true;
        }
        match said {
            Said::Open(facts) => {
                let expected = KeyId::new(stream, entry.index, statement.epoch);
                // A stream goes on as what it was: only its caps may change, its key only with the epoch.
                let goes_on = known.is_none_or(|known| {
                    (known.facts.kind, &known.facts.track, known.facts.instance)
                        == (facts.kind, &facts.track, facts.instance)
                });
                if facts.kid != expected || !goes_on {
                    return false;
                }
                let others = self
                    .theirs
                    .range((from, 0)..=(from, u32::MAX))
                    .filter(|((_, number), theirs)| !theirs.closed && *number != stream.0);
                let caps: usize = others.clone().map(|(_, theirs)| theirs.facts.caps.len()).sum();
                if others.count() >= MAX_STREAMS || caps + facts.caps.len() > MAX_CAPS_OF_ALL {
                    cx.counters.over_limit += 1;
                    return true;
                }
                cx.out.keys(KeyChange::Open {
                    from,
                    stream,
                    track: facts.track.clone(),
                    kind: facts.kind,
                    caps: facts.caps.clone(),
                    epoch: statement.epoch,
                    kid: facts.kid,
                    suite: facts.suite,
                    base_key: key.stream(entry.device, &facts),
                    floor: self.floors.get(&(from, facts.kid)).copied().unwrap_or(0),
                });
                let (epoch, counter) = (statement.epoch, statement.counter);
                self.theirs.insert((from, stream.0), Theirs { facts, epoch, counter, closed: false });
            }
            Said::Close(stream) => {
                match self.theirs.get_mut(&(from, stream.0)) {
                    Some(theirs) => {
                        theirs.close();
                        cx.out.keys(KeyChange::Close { from, stream });
                    }
                    // The end overtook the beginning, which opens nothing any more.
                    None => {
                        self.theirs.insert((from, stream.0), Theirs::ended(stream, statement, entry));
                    }
                }
                self.forget_closed(from);
            }
        }
        true
    }

    /// Closed streams are remembered so that an old statement cannot open them, up to a limit: stream numbers only
    /// grow in use, so the lowest go first.
    fn forget_closed(&mut self, from: ParticipantId) {
        let closed: Vec<u32> = self
            .theirs
            .range((from, 0)..=(from, u32::MAX))
            .filter(|(_, theirs)| theirs.closed)
            .map(|((_, stream), _)| *stream)
            .collect();
        for stream in closed.iter().take(closed.len().saturating_sub(4 * MAX_STREAMS)) {
            self.theirs.remove(&(from, *stream));
        }
    }
}

impl Theirs {
    /// It is remembered so that no old statement opens it, without what it would show.
    pub fn close(&mut self) {
        self.closed = true;
        (self.facts.track, self.facts.caps) = Default::default();
    }

    /// A stream of which only the end was heard.
    fn ended(stream: StreamId, statement: &Statement, entry: &Entry) -> Self {
        let facts = StreamFacts {
            stream,
            kind: Kind::Data,
            track: String::new(),
            caps: String::new(),
            instance: [0; 16],
            kid: KeyId::new(stream, entry.index, statement.epoch),
            suite: CipherSuite::default(),
        };
        Self { facts, epoch: statement.epoch, counter: statement.counter, closed: true }
    }
}

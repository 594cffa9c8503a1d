//! Own streams and everybody else's: from a meeting key to the base keys elements get.

mod theirs;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use meeting_wire::{InstanceId, Kind, ParticipantId, Slot, StreamId};

use self::theirs::{Held, Theirs};
use super::{
    CommandError, KeyChange, OpenStream, StreamInfo,
    context::Cx,
    epoch_key::EpochKey,
    message::Message,
    statement::{MAX_TRACK, Said, Statement, StreamFacts, stream_instance},
};
use crate::{
    MAX_CAPS,
    frame::{CipherSuite, KeyId},
    roster::Entry,
};

/// Streams one participant has at most.
const MAX_STREAMS: usize = 64;
/// The bytes of their caps in all.
const MAX_CAPS_OF_ALL: usize = 128 * 1024;
/// Stream numbers one stay uses at most.
const MAX_USED: usize = 1 << 16;
/// Floors kept.
const MAX_FLOORS: usize = 16 * 1024;

/// All streams.
#[derive(Default)]
pub(super) struct Streams {
    own: BTreeMap<u32, Own>,
    used: HashSet<u32>,
    /// Ended while there was no key to say so under.
    closing: Vec<StreamId>,
    /// The epoch `counter` counts in.
    counter_epoch: u64,
    counter: u64,
    theirs: BTreeMap<(ParticipantId, u32), Theirs>,
    held: Vec<Held>,
    floors: HashMap<(ParticipantId, KeyId), u64>,
    /// Who has said that they leave, until a link says so.
    left: HashSet<ParticipantId>,
}

struct Own {
    kind: Kind,
    track: String,
    caps: String,
    instance: [u8; 16],
    /// The epoch its current key is of.
    epoch: u64,
}

/// The key of the newest epoch and our place in it.
pub(super) struct Sealing<'a> {
    pub key: &'a EpochKey,
    pub instance: InstanceId,
    pub entry: &'a Entry,
    /// Somebody joined with this epoch.
    pub keyframe: bool,
}

impl Streams {
    /// Takes in an element's wish; the key follows with [`Streams::seal_all`].
    pub fn open(&mut self, wish: OpenStream, agent: [u8; 16]) -> Result<(), CommandError> {
        if wish.track.len() > MAX_TRACK || !self.may_have(wish.stream, &wish.caps) {
            return Err(CommandError::TooLong);
        }
        if self.own.len() >= MAX_STREAMS {
            return Err(CommandError::TooManyStreams);
        }
        if self.used.len() >= MAX_USED {
            return Err(CommandError::StreamsUsedUp);
        }
        if !self.used.insert(wish.stream.0) {
            return Err(CommandError::StreamUsed);
        }
        let instance = stream_instance(&wish.random, &agent);
        let own = Own { kind: wish.kind, track: wish.track, caps: wish.caps, instance, epoch: 0 };
        self.own.insert(wish.stream.0, own);
        Ok(())
    }

    /// New caps; gives whether they have to be stated.
    pub fn set_caps(&mut self, stream: StreamId, caps: String) -> Result<bool, CommandError> {
        if !self.may_have(stream, &caps) {
            return Err(CommandError::TooLong);
        }
        let own = self.own.get_mut(&stream.0).ok_or(CommandError::NoStream)?;
        let new = own.caps != caps;
        own.caps = caps;
        Ok(new)
    }

    /// Whether a stream may have these caps beside those of our others: more nobody would keep.
    fn may_have(&self, stream: StreamId, caps: &str) -> bool {
        let others = self.own.iter().filter(|(id, _)| **id != stream.0).map(|(_, own)| own.caps.len());
        caps.len() <= MAX_CAPS && caps.len() + others.sum::<usize>() <= MAX_CAPS_OF_ALL
    }

    /// Ends an own stream.
    pub fn close(
        &mut self,
        stream: StreamId,
        sealing: Option<Sealing<'_>>,
        cx: &mut Cx<'_>,
    ) -> Result<(), CommandError> {
        let own = self.own.remove(&stream.0).ok_or(CommandError::NoStream)?;
        match sealing {
            Some(sealing) => self.post(&Said::Close(stream), &sealing, cx),
            None if own.epoch > 0 => self.closing.push(stream),
            None => {}
        }
        Ok(())
    }

    /// States every own stream that has no key of this epoch yet, then hands the key out; `again` states all.
    pub fn seal_all(&mut self, sealing: &Sealing<'_>, again: Option<StreamId>, cx: &mut Cx<'_>) {
        for stream in std::mem::take(&mut self.closing) {
            self.post(&Said::Close(stream), sealing, cx);
        }
        let due: Vec<u32> = self
            .own
            .iter()
            .filter(|(id, own)| own.epoch != sealing.key.epoch || again == Some(StreamId(**id)))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let Some(own) = self.own.get_mut(&id) else { continue };
            let first = own.epoch != sealing.key.epoch;
            own.epoch = sealing.key.epoch;
            let facts = own.facts(id, sealing);
            self.post(&Said::Open(facts.clone()), sealing, cx);
            if first {
                cx.out.keys(KeyChange::Seal {
                    stream: StreamId(id),
                    epoch: sealing.key.epoch,
                    kid: facts.kid,
                    suite: facts.suite,
                    base_key: sealing.key.stream(sealing.entry.device, &facts),
                    keyframe: sealing.keyframe,
                });
            }
        }
    }

    /// States every own stream anew: the board may have lost what we said.
    pub fn restate(&mut self, sealing: &Sealing<'_>, cx: &mut Cx<'_>) {
        let ids: Vec<u32> = self.own.keys().copied().collect();
        for id in ids {
            self.seal_all(sealing, Some(StreamId(id)), cx);
        }
    }

    fn post(&mut self, said: &Said, sealing: &Sealing<'_>, cx: &mut Cx<'_>) {
        if self.counter_epoch != sealing.key.epoch {
            self.counter_epoch = sealing.key.epoch;
            self.counter = 0;
        }
        let head = Statement {
            meeting: cx.me.meeting,
            instance: sealing.instance,
            participant: cx.me.participant,
            epoch: sealing.key.epoch,
            link: sealing.key.link,
            counter: self.counter,
            sealed: Vec::new(),
        };
        self.counter += 1;
        let sender = (sealing.entry.index, &sealing.entry.announce);
        let statement = Statement::seal(head, said, sealing.key, sender, &cx.me.signer);
        cx.post(Slot::Log, sealing.instance, &Message::Statement(statement));
    }

    /// Somebody says that they leave: their streams end. What is played again of them opens nothing, whenever a link says so.
    pub fn leaves(&mut self, from: ParticipantId, cx: &mut Cx<'_>) {
        self.left.insert(from);
        self.held.retain(|held| held.from() != from);
        let theirs = self.theirs.range_mut((from, 0)..=(from, u32::MAX));
        for ((_, stream), theirs) in theirs.filter(|(_, theirs)| !theirs.closed) {
            theirs.close();
            cx.out.keys(KeyChange::Close { from, stream: StreamId(*stream) });
        }
    }

    /// Whether somebody who is in has said that they leave.
    pub fn has_left(&self, who: ParticipantId) -> bool {
        self.left.contains(&who)
    }

    /// Somebody is gone.
    pub fn gone(&mut self, from: ParticipantId, cx: &mut Cx<'_>) {
        self.left.remove(&from);
        self.held.retain(|held| held.from() != from);
        self.floors.retain(|(participant, _), _| *participant != from);
        self.theirs.retain(|(participant, stream), theirs| {
            if *participant == from && !theirs.closed {
                cx.out.keys(KeyChange::Close { from, stream: StreamId(*stream) });
            }
            *participant != from
        });
    }

    /// Everybody is gone, for us.
    pub fn all_gone(&mut self, cx: &mut Cx<'_>) {
        let everybody: BTreeSet<ParticipantId> =
            self.theirs.keys().map(|(participant, _)| *participant).collect();
        everybody.into_iter().for_each(|participant| self.gone(participant, cx));
        self.held.clear();
    }

    /// Notes what an opening element has accepted.
    pub fn floor(&mut self, from: ParticipantId, kid: KeyId, floor: u64) {
        if self.floors.len() >= MAX_FLOORS && !self.floors.contains_key(&(from, kid)) {
            // Frames of an epoch that is past no longer open: its floors can go.
            let newest = self.theirs.values().map(|theirs| theirs.facts.kid).collect::<HashSet<_>>();
            self.floors.retain(|(_, kid), _| newest.contains(kid));
        }
        if self.floors.len() < MAX_FLOORS || self.floors.contains_key(&(from, kid)) {
            let kept = self.floors.entry((from, kid)).or_default();
            *kept = floor.max(*kept);
        }
    }

    /// What others can fill here.
    #[cfg(feature = "simulator")]
    pub fn sizes(&self, people: usize) -> [super::inside::Size; 9] {
        let labels = |theirs: &Theirs| theirs.facts.track.len() + theirs.facts.caps.len();
        let of_one = MAX_CAPS_OF_ALL + MAX_STREAMS * MAX_TRACK;
        [
            ("own streams", self.own.len(), MAX_STREAMS),
            ("used streams", self.used.len(), MAX_USED),
            ("closing", self.closing.len(), MAX_STREAMS),
            ("streams of others", self.theirs.len(), people * 5 * MAX_STREAMS),
            ("labels and caps of others", self.theirs.values().map(labels).sum(), people * of_one),
            ("held statements", self.held.len(), theirs::MAX_HELD),
            ("bytes held", self.held.iter().map(Held::len).sum(), theirs::MAX_HELD_BYTES),
            ("floors", self.floors.len(), MAX_FLOORS),
            ("left", self.left.len(), people),
        ]
    }

    /// Streams of others that are open.
    pub fn infos(&self) -> Vec<StreamInfo> {
        self.theirs
            .iter()
            .filter(|(_, theirs)| !theirs.closed)
            .map(|((from, stream), theirs)| StreamInfo {
                from: *from,
                stream: StreamId(*stream),
                track: theirs.facts.track.clone(),
                kind: theirs.facts.kind,
                caps: theirs.facts.caps.clone(),
            })
            .collect()
    }
}

impl Own {
    fn facts(&self, id: u32, sealing: &Sealing<'_>) -> StreamFacts {
        StreamFacts {
            stream: StreamId(id),
            kind: self.kind,
            track: self.track.clone(),
            caps: self.caps.clone(),
            instance: self.instance,
            kid: KeyId::new(StreamId(id), sealing.entry.index, sealing.key.epoch),
            suite: CipherSuite::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_all_numbers_are_used_up_it_is_said() {
        let mut streams = Streams::default();
        let mut open = |number| {
            let (track, caps, random) = (String::new(), String::new(), [0; 16]);
            let wish = OpenStream { stream: StreamId(number), kind: Kind::Data, track, caps, random };
            let opened = streams.open(wish, [0; 16]);
            streams.own.clear();
            opened
        };
        assert!((0..MAX_USED as u32).all(|number| open(number).is_ok()));
        assert_eq!(open(MAX_USED as u32), Err(CommandError::StreamsUsedUp));
    }
}

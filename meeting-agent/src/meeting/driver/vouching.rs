//! Beacons: our own made in time, those of others checked, and what they show told once (PROTOCOL.md 5).

use std::time::Duration;

use bytes::Bytes;
use meeting_protocol::{
    BootTime,
    beacon::{BEACONS, EVERY, NOTICE, What},
    local::FromAgent,
    session::{Command, Input},
};
use meeting_wire::{Kind, ParticipantId, StreamId, ToRelay};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

use super::Driver;
use crate::{clock, glance, publish::ONWARD, show::harmless, watch::Outcome};

impl Driver {
    /// When the next beacon is due; none while nothing is sent or checked.
    pub(super) fn vouching_due(&self) -> Option<BootTime> {
        let busy = !self.media.publisher.streams().is_empty() || self.media.watching.is_busy();
        busy.then_some(self.vouched + EVERY)
    }

    /// Signs for what went out, and looks at what came: whether somebody has signed for it, and whether it all found room.
    pub(super) fn vouch(&mut self) {
        let now = clock::now();
        let asleep = now.since(self.vouched) > ASLEEP;
        self.vouched = now;
        let mut spans = self.media.publisher.take_sent();
        // Who has nothing to send says so, or nobody could tell that from a relay that withholds everything.
        let idle = !self.media.publisher.streams().is_empty() && now.since(self.signed) >= IDLE_EVERY;
        if spans.is_empty() && idle {
            spans = self.media.publisher.idle();
        }
        if !spans.is_empty() || idle {
            self.signed = now;
            let _ = self.command(Command::Beacon(spans));
            self.drain();
        }
        for (from, stream) in self.media.watching.cut() {
            self.ask_for_keyframe(from, stream);
        }
        // After a sleep the beacons are still in the sockets: they are read first.
        if !asleep {
            let outcome = self.media.watching.tick();
            self.found(outcome);
            // Of streams that are gone for good there is nothing more to tell.
            let watching = &self.media.watching;
            self.doubted.retain(|source| watching.checks(*source));
        }
    }

    /// Ends what goes out and signs for it: who is gone signs for nothing more. On a long way the relay's word that it has
    /// all comes too late to be waited for.
    pub(super) async fn last_word(&mut self) {
        let publisher = self.media.publisher.clone();
        let (streams, until) = (publisher.streams(), Instant::now() + LAST_WORD / 2);
        if streams.is_empty() {
            return;
        }
        let mut closing = JoinSet::new();
        let streams = streams.into_iter().map(|(stream, _)| stream);
        for stream in streams.filter(|stream| *stream != BEACONS) {
            closing.spawn(publisher.close_within(stream, LAST_WORD / 2));
        }
        while closing.join_next().await.is_some() {}
        let before = async { while self.closing.join_next().await.is_some() {} };
        let _ = timeout_at(until, before).await;
        self.vouch();
        publisher.close_within(BEACONS, LAST_WORD / 2).await;
        sleep(ONWARD).await;
    }

    /// Somebody's beacon came.
    pub(super) fn beacon(&mut self, from: ParticipantId, body: Bytes) {
        let _ = self.feed(Input::Beacon { from, body });
        self.drain();
    }

    /// The relay is told of the stream that carries our beacons, with our first other stream.
    pub(super) fn open_beacons(&mut self) {
        if self.media.publisher.open_beacons() {
            self.send([ToRelay::Publish { stream: BEACONS, kind: Kind::Data }]);
        }
    }

    pub(super) fn found(&mut self, Outcome { found, messages }: Outcome) {
        self.send(messages);
        for ((from, stream), what) in found {
            if matches!(what, What::Forged | What::ForgedBefore) {
                // What was forged may have taken the counters of honest frames.
                let watching = &self.media.watching;
                self.holders.renew(from, stream, |kid| watching.signed_below(from, kid));
                self.ask_for_keyframe(from, stream);
            }
            if what != What::ForgedBefore {
                self.tell(from, stream, what);
            }
        }
    }

    fn tell(&mut self, from: ParticipantId, stream: StreamId, what: What) {
        let (name, track) = self.media.watching.called((from, stream));
        let detail = glance::vouching(what, &harmless(&name), &harmless(&track));
        if what == What::CutOff {
            // Connections that break again and again push nothing else out.
            self.events.retain(|event| *event != detail);
        }
        // That all is well is news only after it was not.
        let bad = !matches!(what, What::Vouched);
        if bad || self.doubted.contains(&(from, stream)) {
            self.remember(detail.clone());
        }
        if bad {
            self.doubted.insert((from, stream));
        } else {
            self.doubted.remove(&(from, stream));
        }
        let trust = glance::trust(self.media.watching.trust((from, stream)).0).into();
        self.holders.trust(&FromAgent::Trust { from, name, stream, track, trust, detail });
    }
}

/// Where nothing is sent: a look later the receivers have not given it up yet.
const IDLE_EVERY: Duration = Duration::from_millis(1_300);
const _: () = assert!(IDLE_EVERY.as_millis() + EVERY.as_millis() < NOTICE.as_millis());
/// How long the relay may take for our last frames, half of it, and for what we sign of them.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Longer than any loop of ours takes: the process was stopped, or the machine asleep.
const ASLEEP: Duration = Duration::from_secs(1);

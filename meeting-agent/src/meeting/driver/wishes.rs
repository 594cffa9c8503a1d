//! What users and elements of this device want of a meeting.

use std::time::Duration;

use meeting_protocol::{
    local::{FromAgent, ToAgent},
    session::{Command, OpenStream},
};
use meeting_wire::{ParticipantId, StreamId, ToRelay};
use tracing::warn;

use super::Driver;
use crate::{
    clock,
    control::{Status, Stream},
    glance,
    keyholders::Own,
    meeting::{ToMeeting, UserCommand},
    people,
    publish::KEYFRAME_EVERY,
    show::harmless,
    verify::{self, SOMEBODY_BETWEEN},
};

impl Driver {
    pub(super) fn wish(&mut self, wish: ToMeeting) {
        match wish {
            ToMeeting::User(command, answer) => {
                let outcome = self.user(command);
                self.drain();
                self.show();
                let _ = answer.send(outcome);
            }
            ToMeeting::Look(answer) => {
                let _ = answer.send(self.status());
            }
            ToMeeting::Leave(done) => drop(done),
            ToMeeting::Keys(id, user, out) => self.holders.add(id, user, out),
            ToMeeting::Said(id, message) => self.said(id, message),
            ToMeeting::KeysGone(id) => {
                for stream in self.holders.remove(id) {
                    self.close_stream(stream);
                }
            }
            ToMeeting::Watch(id, watcher) => {
                let messages = self.media.watching.add(id, watcher);
                self.send(messages);
            }
            ToMeeting::WatchGone(id) => {
                let messages = self.media.watching.remove(id);
                self.send(messages);
            }
            ToMeeting::Keyframe(from, stream) => self.ask_for_keyframe(from, stream),
            ToMeeting::Drained(stream) => {
                self.holders.drained(stream);
                self.send([ToRelay::Unpublish { stream }]);
                let _ = self.command(Command::CloseStream(stream));
                self.drain();
            }
        }
    }

    fn user(&mut self, command: UserCommand) -> Result<String, String> {
        let state = self.session.state();
        match command {
            UserCommand::Remove(who) => {
                let people =
                    state.roster.iter().map(|person| (person.participant, &*person.name, person.device));
                let (person, shown) =
                    people::find(&who, people, "is in the meeting: `meeting-agent roster` lists who is")?;
                self.command(Command::Remove(person))?;
                Ok(format!("removed {shown}; a new key is being made"))
            }
            UserCommand::Rotate => self.command(Command::Rotate).map(|()| "a new key is being made".into()),
            UserCommand::Lock(locked) => {
                self.command(Command::Lock(locked))?;
                let text = if locked { "locked: nobody new gets in" } else { "open to new people again" };
                Ok(text.into())
            }
            UserCommand::Approve(who) => {
                let waiting = state.waiting.iter().map(|one| (one.participant, &*one.name, one.device));
                let (person, shown) =
                    people::find(&who, waiting, "waits: `meeting-agent status` lists who does")?;
                self.command(Command::Approve(person)).map(|()| format!("let in {shown}"))
            }
            UserCommand::RosterCode => {
                let code = self.session.roster_code();
                code.map(|code| code.to_string()).ok_or_else(|| "there is no roster yet".into())
            }
            UserCommand::Verify(None) => {
                self.compared = None;
                Err(format!("the codes differ. {SOMEBODY_BETWEEN}"))
            }
            UserCommand::Verify(Some(digits)) => {
                let code = state.code.ok_or("there is no security code yet")?.to_string();
                // A mark of before would outlive the doubt.
                self.compared = None;
                verify::same(&code, &digits)?;
                self.compared = Some(code);
                Ok("the codes are the same: nobody is in between".into())
            }
        }
    }

    fn said(&mut self, id: u64, message: ToAgent) {
        match message {
            ToAgent::OpenStream { request, kind, track, caps, random } => {
                let Some(user) = self.holders.user(id) else { return };
                let holders = &self.holders;
                let label = holders.room(user, caps.len()).and_then(|()| holders.label(kind, &track));
                let opened = label.and_then(|track| {
                    let (stream, len) = (self.holders.next_stream(), caps.len());
                    let open = OpenStream { stream, kind, track: track.clone(), caps, random };
                    self.command(Command::OpenStream(open)).map(|()| (stream, track, len))
                });
                let answer = match opened {
                    Ok((stream, track, caps)) => {
                        let own = Own { holder: id, user, track: track.clone(), kind, caps };
                        self.holders.opened(stream, own);
                        self.open_beacons();
                        self.media.publisher.open(stream, kind, user);
                        self.send([ToRelay::Publish { stream, kind }]);
                        FromAgent::StreamOpened { request, stream, track }
                    }
                    Err(text) => FromAgent::StreamRefused { request, text },
                };
                self.holders.tell(id, &answer);
            }
            ToAgent::StreamCaps { stream, caps } if self.holders.owns(id, stream) => {
                let len = caps.len();
                let taken = self.holders.takes_caps(stream, len)
                    && self.command(Command::StreamCaps { stream, caps }).is_ok();
                if taken {
                    self.holders.new_caps(stream, len);
                } else {
                    warn!(
                        stream = stream.0,
                        "caps too long beside those of all other streams: nobody is told of them"
                    );
                }
            }
            ToAgent::CloseStream { stream } if self.holders.owns(id, stream) => self.close_stream(stream),
            ToAgent::WantOpenKeys => self.holders.want_open_keys(id),
            ToAgent::Floor { from, kid, floor } => {
                // A forged frame's counter must not keep honest ones out.
                let signed = self.media.watching.signed_below(from, kid);
                let floor = floor.min(signed.unwrap_or(0));
                self.holders.floor(from, kid, floor);
                let _ = self.command(Command::Floor { from, kid, floor });
            }
            // for a stream that is not this connection's, or of another purpose: nothing to do
            _ => {}
        }
        self.drain();
    }

    /// Ends a stream once its last frames, which come by another connection, have gone their way.
    fn close_stream(&mut self, stream: StreamId) {
        self.holders.closed(stream);
        let (publisher, own) = (self.media.publisher.clone(), self.own.clone());
        while self.closing.try_join_next().is_some() {}
        self.closing.spawn(async move {
            tokio::time::sleep(LAST_FRAMES).await;
            publisher.close(stream).await;
            if let Some(own) = own.upgrade() {
                let _ = own.send(ToMeeting::Drained(stream)).await;
            }
        });
    }

    pub(super) fn ask_for_keyframe(&mut self, from: ParticipantId, stream: StreamId) {
        let now = clock::now();
        self.asked.retain(|_, asked| now.since(*asked) < KEYFRAME_EVERY);
        let Some(route) = self.media.watching.route((from, stream)) else { return };
        if self.asked.insert((from, stream), now).is_none() {
            self.send([ToRelay::KeyframeRequest { route }]);
        }
    }

    fn status(&self) -> Status {
        let state = self.session.state();
        let (phase, detail) = self.standing(&state);
        let (frames_out, frames_in, dropped_by) = self.counters.read();
        let mut status = glance::status(&state);
        for (stream, shown) in state.streams.iter().zip(&mut status.streams) {
            let tally = self.media.watching.tally((stream.from, stream.stream));
            (shown.received, shown.lost) = (tally.received, tally.lost);
            let (trust, forged) = self.media.watching.trust((stream.from, stream.stream));
            (shown.trust, shown.forged) = (glance::trust(trust).into(), forged);
        }
        status.verified = self.verified(&status.code);
        let mut status = Status {
            shield: glance::shield(phase, &status).into(),
            meeting: self.plan.link.meeting.to_string(),
            phase: phase.into(),
            detail,
            connected: self.connected,
            epochs: self.epochs,
            frames_out,
            frames_in,
            dropped: dropped_by.values().sum(),
            dropped_by,
            events: self.events.iter().cloned().collect(),
            ..status
        };
        status.streams.extend(self.holders.streams().map(|(stream, own)| Stream {
            from: state.me.to_string(),
            name: harmless(&self.plan.name),
            track: harmless(&own.track),
            kind: glance::kind(own.kind).into(),
            stream: stream.0,
            me: true,
            ..Stream::default()
        }));
        status
    }
}

/// Frames may still be on their way from the element that closed the stream.
const LAST_FRAMES: Duration = Duration::from_millis(200);

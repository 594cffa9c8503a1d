//! What shows something: `status`, `code`, `roster`. Names of others are made harmless once more: the daemon
//! may be of another version.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::bail;
use serde_json::json;

use super::Common;
use crate::{
    control::{Answer, Person, Request, Status, Stream},
    show::{harmless, sentence},
};

fn look(common: &Common) -> anyhow::Result<Status> {
    common.client()?.status(&Request::Status { meeting: common.meeting.clone() })
}

pub fn status(common: &Common) -> anyhow::Result<ExitCode> {
    let status = look(common)?;
    let mut out = io::stdout().lock();
    if common.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&status)?)?;
    } else {
        write!(out, "{}", glance(&status, io::stdout().is_terminal()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows every change: on a terminal in place, else one glance (or one line of JSON) after another.
pub fn watch(common: &Common) -> anyhow::Result<ExitCode> {
    let terminal = io::stdout().is_terminal();
    let mut last = String::new();
    loop {
        let text = match look(common) {
            Ok(status) if common.json => serde_json::to_string(&status)? + "\n",
            Ok(status) => glance(&status, terminal),
            // An agent that starts again is worth waiting for.
            Err(error) if common.json => {
                json!({ "error": sentence(&format!("{error:#}")) }).to_string() + "\n"
            }
            Err(error) => format!("{}\n", sentence(&format!("{error:#}"))),
        };
        if text != last {
            let mut out = io::stdout().lock();
            write!(out, "{}{text}", if terminal { "\x1b[H\x1b[2J" } else { "" })?;
            out.flush()?;
            last = text;
        }
        thread::sleep(EVERY);
    }
}

pub fn code(common: &Common) -> anyhow::Result<ExitCode> {
    let status = look(common)?;
    if common.json && !status.code.is_empty() {
        let code = json!({
            "meeting": status.meeting, "code": status.code, "words": status.words, "leading": status.leading,
            "leader_verified": status.leader_verified, "verified": status.verified,
        });
        writeln!(io::stdout(), "{code}")?;
        return Ok(ExitCode::SUCCESS);
    }
    show_code(&status)?;
    Ok(ExitCode::SUCCESS)
}

/// Shows the code as [`code`] does, and gives it.
pub fn code_shown(common: &Common) -> anyhow::Result<String> {
    let status = look(common)?;
    show_code(&status)?;
    Ok(status.code)
}

fn show_code(status: &Status) -> anyhow::Result<()> {
    if status.code.is_empty() {
        bail!("there is no security code yet: {}", status.detail);
    }
    let mut out = io::stdout().lock();
    let (first, second) = status.code.split_at(status.code.len() / 2);
    writeln!(out, "  {}\n  {}\n  {}", first.trim(), second.trim(), status.words)?;
    let how = if status.leading {
        "You lead: read these 40 digits (or the words) aloud, over a channel where the others know your voice. Whoever sees\n\
         other digits is talking to somebody in between: end the meeting then."
    } else {
        "The leader reads theirs aloud first; compare every digit. Are they the same, nobody is in between:\n\
         `meeting-agent verify`. Are they not, leave: `meeting-agent leave`. After a change of leader, compare again."
    };
    writeln!(out, "{how}")?;
    Ok(())
}

pub fn roster_code(common: &Common) -> anyhow::Result<ExitCode> {
    let answer = common.client()?.ask(&Request::RosterCode { meeting: common.meeting.clone() })?;
    let Answer::Done { text: code } = answer else { bail!("the agent gave another answer: update both") };
    let mut out = io::stdout().lock();
    if common.json {
        writeln!(out, "{}", json!({ "roster_code": code }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let (first, second) = code.split_at(code.len() / 2);
    writeln!(out, "  {}\n  {}", first.trim(), second.trim())?;
    writeln!(
        out,
        "The same digits mean the same list of people. They change whenever anybody comes, goes or proves to be there,\n\
         so lock the meeting before you compare. Are they different, the leader shows different lists to different people."
    )?;
    Ok(ExitCode::SUCCESS)
}

pub fn roster(common: &Common) -> anyhow::Result<ExitCode> {
    let status = look(common)?;
    let mut out = io::stdout().lock();
    if common.json {
        let roster = json!({
            "meeting": status.meeting, "people": status.people, "waiting": status.waiting, "locked": status.locked,
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&roster)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    for person in &status.people {
        writeln!(out, "{}", line(person))?;
    }
    for waiting in &status.waiting {
        let name = harmless(&waiting.name);
        writeln!(
            out,
            "{name:<24} waits: `meeting-agent approve {}`   device {}",
            id(&waiting.id),
            waiting.device
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The meeting on one screen.
fn glance(status: &Status, colours: bool) -> String {
    let paint = |text: &str, code: u8| match colours {
        true => format!("\x1b[{code}m{text}\x1b[0m"),
        false => text.to_owned(),
    };
    let (shield, colour) = match (status.phase.as_str(), status.shield.as_str()) {
        ("live", "green") => ("● end-to-end encrypted, code compared", 32),
        ("live", "amber") => ("◐ end-to-end encrypted, code not compared", 33),
        ("live", _) if status.verified || status.leader_verified || status.leading => {
            ("○ encrypted, but somebody speaks as another", 31)
        }
        ("live", _) => ("○ encrypted to a leader nobody vouches for", 31),
        // Faint stands for the shield's grey, which is the background of some terminals.
        ("joining", _) => ("○ joining", 2),
        ("stale", _) => ("○ stale", 2),
        _ => ("○ ended", 2),
    };
    let mut lines = vec![format!(
        "{}  meeting {}  epoch {} ({} seen){}{}",
        paint(shield, colour),
        status.meeting,
        status.epoch,
        status.epochs,
        if status.locked { "  locked" } else { "" },
        if status.connected { "" } else { "  no relay connection" },
    )];
    if !status.detail.is_empty() {
        lines.push(sentence(&status.detail));
    }
    if !status.code.is_empty() {
        let verified = match (status.leading, status.leader_verified) {
            _ if status.verified => "compared".to_owned(),
            (true, _) => "you lead: read it aloud, then `meeting-agent verify`".to_owned(),
            (false, true) => "leader verified by the link; compare with `meeting-agent verify`".to_owned(),
            (false, false) => paint("UNVERIFIED LEADER: compare the code", 31),
        };
        lines.push(format!("code    {}  ({verified})", status.code));
    }
    lines.push(format!("people  {}", status.people.len()));
    lines.extend(status.people.iter().map(|person| format!("  {}", line(person))));
    for waiting in &status.waiting {
        let who = harmless(&waiting.name);
        let text =
            format!("  {who} (device {}) waits: `meeting-agent approve {}`", waiting.device, id(&waiting.id));
        lines.push(paint(&text, 33));
    }
    if !status.streams.is_empty() {
        lines.push("streams".into());
        lines.extend(status.streams.iter().map(|stream| {
            let whose = if stream.me { "you".to_owned() } else { harmless(&stream.name) };
            format!("  {whose:<24} {} ({}){}", harmless(&stream.track), stream.kind, loss(stream))
        }));
    }
    let dropped = match status.dropped {
        0 => "none dropped".to_owned(),
        n => {
            let by: Vec<String> = status.dropped_by.iter().map(|(why, n)| format!("{why} {n}")).collect();
            format!("{n} dropped ({})", by.join(", "))
        }
    };
    lines.push(format!("frames  {} out, {} in, {dropped}", status.frames_out, status.frames_in));
    if let Some(event) = status.events.last() {
        lines.push(format!("last    {}", sentence(event)));
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// What of a stream got here; nothing for one's own, or one that nobody here watches.
fn loss(stream: &Stream) -> String {
    match stream.received + stream.lost {
        _ if stream.me => String::new(),
        0 => "  not watched".into(),
        all => {
            let lost = 100.0 * stream.lost as f64 / all as f64;
            format!("  {} in, {lost:.1} % lost, {}", stream.received, stream.trust)
        }
    }
}

fn line(person: &Person) -> String {
    let mut marks = Vec::new();
    if person.me {
        marks.push("you".to_owned());
    }
    if person.leader {
        marks.push("leads".to_owned());
    }
    if let Some(place) = person.successor {
        marks.push(format!("successor {place}"));
    }
    if person.role != "participant" {
        marks.push(person.role.clone());
    }
    if !person.present {
        marks.push("not seen yet, can hear".to_owned());
    }
    if person.forked {
        marks.push("SIGNS FOR ANOTHER CHAIN THAN OURS".to_owned());
    }
    let (name, marks) = (harmless(&person.name), marks.join(", "));
    format!("{name:<24} {marks:<20} id {}   device {}", id(&person.id), person.device)
}

/// How often a watcher looks.
const EVERY: Duration = Duration::from_secs(1);

fn id(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let eve = Person { name: "Eve\x1b]0;x\x07".into(), id: "ee".repeat(16), ..Person::default() };
        Status { phase: "live".into(), people: vec![eve], code: "1 2".into(), ..Status::default() }
    }

    #[test]
    fn a_hostile_name_cannot_reach_the_terminal() {
        assert!(!glance(&status(), false).contains('\x1b'));
        assert!(!glance(&status(), true).contains("\x1b]"));
    }

    #[test]
    fn an_unverified_leader_is_said_aloud() {
        assert!(glance(&status(), false).contains("UNVERIFIED"));
        let verified = Status { leader_verified: true, ..status() };
        assert!(!glance(&verified, false).contains("UNVERIFIED"));
    }

    #[test]
    fn whoever_can_hear_and_was_not_seen_is_marked() {
        assert!(glance(&status(), false).contains("not seen yet, can hear"));
        let mut seen = status();
        seen.people[0].present = true;
        assert!(!glance(&seen, false).contains("not seen"));
    }

    #[test]
    fn who_signs_for_another_chain_is_marked() {
        assert!(!glance(&status(), false).contains("ANOTHER"));
        let mut forked = status();
        forked.people[0].forked = true;
        assert!(glance(&forked, false).contains("SIGNS FOR ANOTHER CHAIN THAN OURS"));
    }
}

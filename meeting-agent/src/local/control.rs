//! A connection of the command line: requests in JSON, one answer each.

use std::{sync::Arc, time::Duration};

use meeting_protocol::{
    evidence::Proof,
    link::MeetingLink,
    local::{FromAgent, ToAgent},
    session::{Role, Successors},
};
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use super::{
    ClientError,
    wire::{read, write},
};
use crate::{
    agent::{Shared, Who},
    control::{Answer, Kept, Request},
    evidence,
    glance::role_named,
    meeting::{Creator, Meeting, ToMeeting, UserCommand},
    show::harmless,
};

pub async fn serve(mut stream: UnixStream, shared: &Arc<Shared>) -> Result<(), ClientError> {
    while let Some(message) = read(&mut stream, MAX_REQUEST).await? {
        let ToAgent::Control(json) = message else { return Err(ClientError::OutOfPlace) };
        let json = Zeroizing::new(json);
        let answer = match serde_json::from_str::<Request>(&json) {
            Ok(request) => answer(request, shared).await.unwrap_or_else(|text| Answer::Refused { text }),
            // serde's text would repeat what it read, which may be a link
            Err(_) => Answer::Refused {
                text: "the agent does not know this request: restart `meeting-agent run` after an update"
                    .into(),
            },
        };
        let json = serde_json::to_string(&answer).map_err(std::io::Error::other)?;
        write(&mut stream, &FromAgent::Control(json)).await?;
    }
    Ok(())
}

async fn answer(request: Request, shared: &Arc<Shared>) -> Result<Answer, String> {
    let text = |error: crate::error::AgentError| error.to_string();
    let select = |meeting: &Option<String>| shared.select(meeting.as_deref());
    match request {
        Request::Create { relay, certificate, token, name, successors, guest } => {
            let certificate = certificate.map(|hex| certificate_hash(&hex)).transpose()?;
            let successors = match successors {
                0 => Successors::Nobody,
                n => Successors::FirstPresent(n.min(3)),
            };
            let who = Who { name, role: Role::Participant, guest };
            let (meeting, link) =
                shared.create(relay, certificate, Creator { token, successors }, who).map_err(text)?;
            Ok(Answer::Created { link: link.reveal().to_string(), meeting: meeting.id.to_string() })
        }
        Request::Join { link, name, role, guest } => {
            let link = Zeroizing::new(link);
            let link = MeetingLink::parse(&link).map_err(|error| error.to_string())?;
            let role = role_named(&role).ok_or("a role is participant, recorder, gateway or bot")?;
            let meeting = shared.join(link, Who { name, role, guest }).map_err(text)?;
            Ok(Answer::Joined { meeting: meeting.id.to_string() })
        }
        Request::Leave { meeting } => {
            let meeting = select(&meeting)?;
            let _ = meeting.ask(ToMeeting::Leave).await;
            shared.forget(meeting.id);
            Ok(Answer::Done { text: format!("left meeting {}", meeting.id) })
        }
        Request::Remove { meeting, who } => user(&select(&meeting)?, UserCommand::Remove(who)).await,
        Request::Rotate { meeting } => user(&select(&meeting)?, UserCommand::Rotate).await,
        Request::Lock { meeting, locked } => user(&select(&meeting)?, UserCommand::Lock(locked)).await,
        Request::Approve { meeting, who } => user(&select(&meeting)?, UserCommand::Approve(who)).await,
        Request::RosterCode { meeting } => user(&select(&meeting)?, UserCommand::RosterCode).await,
        Request::Verify { meeting, code } => user(&select(&meeting)?, UserCommand::Verify(code)).await,
        Request::Status { meeting } => status(&select(&meeting)?).await,
        Request::Evidence => Ok(Answer::Evidence {
            proofs: evidence::list(&shared.config.state).into_iter().map(kept).collect(),
        }),
        Request::ExportEvidence { id } => {
            let (_, file) = evidence::find(&shared.config.state, id.as_deref())?;
            Ok(Answer::Exported { hex: hex::encode(file) })
        }
        Request::Wait { meeting, phase, detail, millis } => {
            let meeting = select(&meeting)?;
            let mut glance = meeting.glance.clone();
            let change = glance.wait_for(|seen| seen.phase != phase || seen.detail != detail);
            let _ = tokio::time::timeout(Duration::from_millis(millis.min(MAX_WAIT)), change).await;
            status(&meeting).await
        }
    }
}

fn kept((id, proof): (String, Proof)) -> Kept {
    let (device, leader) =
        proof.device.map(|(device, name)| (device.to_string(), harmless(&name))).unwrap_or_default();
    Kept { id, meeting: proof.meeting.to_string(), leader, device, fault: proof.fault.to_string() }
}

async fn user(meeting: &Meeting, command: UserCommand) -> Result<Answer, String> {
    let outcome = meeting.ask(|answer| ToMeeting::User(command, answer)).await;
    outcome.unwrap_or_else(|| Err(GONE.into())).map(|text| Answer::Done { text })
}

async fn status(meeting: &Meeting) -> Result<Answer, String> {
    let status = meeting.ask(ToMeeting::Look).await.ok_or(GONE)?;
    Ok(Answer::Status(Box::new(status)))
}

fn certificate_hash(digits: &str) -> Result<[u8; 32], String> {
    let mut hash = [0; 32];
    hex::decode_to_slice(digits.trim(), &mut hash)
        .map_err(|_| "a relay certificate's hash is 64 hex digits: the relay's ready file has it")?;
    Ok(hash)
}

const GONE: &str = "the meeting has just ended: `meeting-agent status` says more";
/// The longest request: a link and names, and room.
const MAX_REQUEST: usize = 64 * 1024 + 16;
/// The longest wait for a change, in ms.
const MAX_WAIT: u64 = 60_000;

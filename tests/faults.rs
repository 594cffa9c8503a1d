//! What breaks while a meeting runs, and how it heals: programs killed, stopped and started again.
//!
//! Times asserted are the protocol's own (PROTOCOL.md 3.6 and 3.8); times measured are printed with `--nocapture`.

use std::time::Duration;

use anyhow::Result;
use rig::{Agent, Stage, Stats, until};
use serde_json::Value;

#[path = "faults/clocks.rs"]
mod clocks;
#[path = "faults/leaders.rs"]
mod leaders;
#[path = "faults/limits.rs"]
mod limits;
#[path = "faults/messages.rs"]
mod messages;
#[path = "faults/paths.rs"]
mod paths;
#[path = "faults/pipelines.rs"]
mod pipelines;
#[path = "faults/relays.rs"]
mod relays;
#[path = "faults/sleepers.rs"]
mod sleepers;

const TALKS: &str = "meetingkey audiotestsrc is-live=true samplesperbuffer=960 ! audio/x-raw,rate=48000 ! opusenc \
    ! e2eeseal name=seal track=microphone ! meetingsink";

/// Streams of one person that are heard, one after another: a stream that begins anew has a pad of its own.
const BRANCHES: usize = 6;

fn hearing(whom: &str) -> String {
    let branch = |n| format!(" in.audio_{n} ! e2eeopen name=open-{n} ! fakesink async=false sync=false");
    let branches: String = (0..BRANCHES).map(branch).collect();
    // The fake source keeps the pipeline from ending when all streams that there were have ended.
    format!(
        "meetingkey meetingsrc name=in participant={whom} audiotestsrc is-live=true ! fakesink async=false{branches}"
    )
}

/// Frames opened in all branches.
fn opened(stats: &Stats) -> u64 {
    (0..BRANCHES).map(|n| stats.get(&format!("open-{n}"), "opened")).sum()
}

/// Alice, who leads and names that many successors, Bob and Carol.
fn three(successors: usize) -> Result<(Stage, [Agent; 3], String)> {
    let stage = Stage::with_books()?;
    let (alice, bob, carol) = (stage.agent("Alice")?, stage.agent("Bob")?, stage.agent("Carol")?);
    let link = create(&stage, &alice, successors)?;
    bob.join(&link)?;
    carol.join(&link)?;
    for agent in [&bob, &carol] {
        named(agent, 3, successors)?;
    }
    Ok((stage, [alice, bob, carol], link))
}

/// Opens a meeting whose leader names so many successors.
fn create(stage: &Stage, leader: &Agent, successors: usize) -> Result<String> {
    let relay = stage.relay.address.to_string();
    leader.create_at(&relay, &stage.relay.certificate, &["--successors", &successors.to_string()])
}

/// Waits until an agent sees so many people, so many of them successors.
fn named(agent: &Agent, everybody: usize, successors: usize) -> Result<()> {
    let rank = |person: &&Value| person["successor"].is_u64();
    let seen = |status: &Value| {
        people(status).len() == everybody && people(status).iter().filter(rank).count() == successors
    };
    agent.until("everybody and all successors", seen).map(drop)
}

/// Waits until all of these agents are live, with the same so many people, one leader and one code.
fn one_meeting(agents: &[&Agent], everybody: usize) -> Result<()> {
    for agent in agents {
        agent.until("everybody and one leader", |status| {
            let leaders = people(status).iter().filter(|person| person["leader"] == true).count();
            people(status).len() == everybody && leaders == 1 && status["phase"] == "live"
        })?;
    }
    until("one code", Duration::from_secs(10), || {
        let codes: Vec<String> = agents.iter().map(|agent| agent.code()).collect::<Result<_>>()?;
        Ok(codes.windows(2).all(|two| two[0] == two[1]).then_some(()))
    })
}

fn leads(agent: &Agent) -> Result<bool> {
    Ok(agent.status()?["leading"] == true)
}

fn epoch(agent: &Agent) -> Result<u64> {
    Ok(agent.status()?["epoch"].as_u64().unwrap_or(0))
}

fn people(status: &Value) -> Vec<Value> {
    status["people"].as_array().cloned().unwrap_or_default()
}

fn ids_of(status: &Value) -> Vec<String> {
    let mut ids: Vec<String> = people(status).iter().map(|person| person["id"].to_string()).collect();
    ids.sort();
    ids
}

fn ids(agent: &Agent) -> Result<Vec<String>> {
    Ok(ids_of(&agent.status()?))
}

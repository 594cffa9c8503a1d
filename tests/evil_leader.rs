//! Real agents under a leader with two faces: they find out as soon as they hear each other, and keep the proof.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rig::{Agent, Stage, TwoFaced, until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn two_people_who_hear_each_other_leave_a_two_faced_leader_with_a_proof() -> Result<()> {
    let stage = Stage::open()?;
    let alice = TwoFaced::open(0xa11ce)?;
    let (mut bob, carol) = (stage.agent("Bob")?, stage.agent("Carol")?);
    for agent in [&bob, &carol] {
        agent.join(alice.link())?;
        agent.until("its place", |status| status["phase"] == "live")?;
    }
    assert_eq!(bob.code()?, carol.code()?, "the security code does not show it");
    let people =
        |agent: &Agent| -> Result<usize> { Ok(agent.status()?["people"].as_array().map_or(0, Vec::len)) };
    assert_eq!((people(&bob)?, people(&carol)?), (2, 2), "each sees the leader and no one else");

    alice.let_people_meet();
    for agent in [&bob, &carol] {
        until("the end", PATIENCE, || Ok(Some(agent.status()?).filter(|status| status["phase"] == "ended")))?;
        let status = agent.status()?;
        assert!(
            status["detail"].as_str().is_some_and(|text| text.contains("broke the protocol")),
            "{status}"
        );
        let events = status["events"].to_string();
        assert!(events.contains("Alice, who leads, signed for two different links"), "{events}");
        assert!(events.contains("meeting-agent evidence export"), "{events}");
    }

    // What is on the disk outlives a crash.
    bob.kill()?;
    bob.restart()?;
    let proofs: Value = serde_json::from_str(&bob.run(&["evidence", "list", "--json"], "")?)?;
    assert_eq!((proofs.as_array().map(Vec::len), &proofs[0]["leader"]), (Some(1), &"Alice".into()));
    let file = stage.folder().join("proof");
    let path = file.to_str().context("a path")?;
    let exported = bob.command(&["evidence", "export", "--file", path]).output()?;
    let said = String::from_utf8(exported.stderr)?;
    assert!(exported.status.success() && said.contains("the names Alice"), "{said}");

    // A stranger checks it: no agent, no link.
    let verify = |file: &str| -> Result<(bool, String)> {
        let mut command = stage.programs().command("meeting-agent");
        let output =
            command.args(["evidence", "verify", file]).env("MEETING_AGENT_SOCKET", "/nowhere").output()?;
        Ok((output.status.success(), String::from_utf8([output.stdout, output.stderr].concat())?))
    };
    let (proved, words) = verify(path)?;
    println!("{words}");
    assert!(
        proved && words.contains("Proved: a leader of meeting") && words.contains("Not proved"),
        "{words}"
    );
    assert!(words.contains("two different links number") && words.contains("\"Alice\""), "{words}");
    let bytes = fs::read(&file)?;
    let secret = alice.link().split(['#', '.']).nth_back(2).context("a secret")?;
    let secret = URL_SAFE_NO_PAD.decode(secret)?;
    assert!(!bytes.windows(secret.len()).any(|window| window == secret), "the file holds the invite secret");
    let mut altered = bytes;
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    fs::write(&file, altered)?;
    let (proved, words) = verify(path)?;
    assert!(!proved && !words.contains("Proved"), "{words}");
    Ok(())
}

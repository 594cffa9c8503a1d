//! `create` and `join`: into a meeting, and waiting until one is in.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use zeroize::Zeroizing;

use super::{Common, RoleName, client::Client, link_input};
use crate::{
    control::{Answer, Request, Status},
    meeting::TRYING,
    private,
    show::sentence,
};

#[derive(Debug, Args)]
pub struct Create {
    /// The relay
    #[arg(long, value_name = "HOST[:PORT]", required_unless_present = "relay_ready_file")]
    relay: Option<String>,
    /// SHA-256 of the relay's self-signed certificate, in hex
    #[arg(long, value_name = "HEX", requires = "relay")]
    relay_certificate: Option<String>,
    /// Read relay and certificate from the file that `meeting-relay --ready-file` wrote
    #[arg(long, value_name = "FILE", conflicts_with = "relay")]
    relay_ready_file: Option<PathBuf>,
    /// The relay's token for creating meetings, in a file that only you can read
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// How others see you
    #[arg(long)]
    name: Option<String>,
    /// How many of those present may lead when this device falls silent
    #[arg(long, value_name = "0..3", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=3))]
    successors: u8,
    /// Use a fresh device key for this meeting
    #[arg(long)]
    guest: bool,
    /// Write the link to this file (mode 0600) instead of printing it
    #[arg(long, value_name = "FILE")]
    link_file: Option<PathBuf>,
    /// How long to wait for the relay; without it no meeting is opened
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    wait: u64,
}

#[derive(Debug, Args)]
pub struct Join {
    /// The link, or - for stdin; better typed at the prompt, where nobody else sees it
    #[arg(conflicts_with = "link_file")]
    link: Option<String>,
    /// Read the link from a file that only you can read
    #[arg(long, value_name = "FILE")]
    link_file: Option<PathBuf>,
    /// How others see you
    #[arg(long)]
    name: Option<String>,
    /// Use a fresh device key for this meeting
    #[arg(long)]
    guest: bool,
    /// What this device does in the meeting, shown to everybody
    #[arg(long, value_enum, default_value_t = RoleName::Participant)]
    role: RoleName,
    /// How long to wait until the keys are there; 0 returns at once
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    wait: u64,
}

impl Create {
    pub fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        let (relay, certificate) = self.relay()?;
        let token = match &self.token_file {
            Some(path) => String::from_utf8(private::read(path, 256)?.to_vec())
                .context("the token file is no text: ask the relay's operator for it again")?
                .trim()
                .to_owned(),
            None => String::new(),
        };
        let Self { name, successors, guest, .. } = self;
        let request = Request::Create { relay, certificate, token, name, successors, guest };
        let mut client = common.client()?;
        let Answer::Created { link, meeting } = client.ask(&request)? else { bail!(OTHER_VERSION) };
        let link = Zeroizing::new(link);
        let status = wait_until_live(&mut client, &meeting, Duration::from_secs(self.wait))?;
        if !arrived(&status) {
            let _ = client.ask(&Request::Leave { meeting: Some(meeting) });
            // it no longer tries
            bail!("no meeting was opened: {}", status.detail.trim_end_matches(TRYING));
        }
        match &self.link_file {
            Some(path) => {
                if let Err(error) = private::write(path, format!("{}\n", &*link).as_bytes(), true) {
                    // nobody could ever be invited to it
                    let _ = client.ask(&Request::Leave { meeting: Some(meeting) });
                    bail!("no meeting was opened, for its link cannot be kept: {error}");
                }
                eprintln!("the link is in {}", path.display());
            }
            None if common.json => println!("{}", serde_json::json!({ "link": *link, "meeting": meeting })),
            None => println!("{}", &*link),
        }
        report(&status, self.wait)
    }

    fn relay(&self) -> anyhow::Result<(String, Option<String>)> {
        if let Some(path) = &self.relay_ready_file {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}: is the relay running?", path.display()))?;
            let (relay, hash) = text.trim().split_once(' ').context(
                "that is not a relay's ready file (ADDRESS CERTIFICATE-HASH): `meeting-relay --ready-file` writes one",
            )?;
            return Ok((relay.to_owned(), Some(hash.trim().to_owned())));
        }
        let relay = self.relay.clone().context("name the relay: `--relay HOST[:PORT]`")?;
        Ok((relay, self.relay_certificate.clone()))
    }
}

impl Join {
    pub fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        let link = link_input::read(self.link, self.link_file)?;
        let role = self.role.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let request = Request::Join { link: link.to_string(), name: self.name, role, guest: self.guest };
        let mut client = common.client()?;
        let Answer::Joined { meeting } = client.ask(&request)? else { bail!(OTHER_VERSION) };
        if self.wait == 0 {
            eprintln!("asked for a place: `meeting-agent status` shows how it goes");
            return Ok(ExitCode::SUCCESS);
        }
        let status = wait_until_live(&mut client, &meeting, Duration::from_secs(self.wait))?;
        if common.json {
            println!("{}", serde_json::to_string(&status)?);
        }
        report(&status, self.wait)
    }
}

/// Waits until the meeting is live, over, or the time is up, and says on stderr what it waits for.
fn wait_until_live(client: &mut Client, meeting: &str, limit: Duration) -> anyhow::Result<Status> {
    let until = Instant::now() + limit;
    let meeting = Some(meeting.to_owned());
    let mut status = client.status(&Request::Status { meeting: meeting.clone() })?;
    let mut told = String::new();
    while !arrived(&status) && status.phase != "ended" {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        if told != status.detail && !status.detail.is_empty() {
            told.clone_from(&status.detail);
            eprintln!("{} ...", sentence(&told));
        }
        let Status { phase, detail, .. } = status;
        let millis = left.as_millis().min(60_000) as u64;
        status = client.status(&Request::Wait { meeting: meeting.clone(), phase, detail, millis })?;
    }
    Ok(status)
}

/// In, with keys, and within reach of the others: a leader has keys before anybody can hear of them.
fn arrived(status: &Status) -> bool {
    status.phase == "live" && status.connected
}

fn report(status: &Status, waited: u64) -> anyhow::Result<ExitCode> {
    match status.phase.as_str() {
        _ if arrived(status) => {
            let me = status.people.iter().find(|person| person.me).map_or("", |person| &person.name);
            eprintln!("in meeting {} as {me}, {} in all", status.meeting, status.people.len());
            if !status.leader_verified {
                eprintln!("the leader is not verified: compare the security code with `meeting-agent code`");
            }
            Ok(ExitCode::SUCCESS)
        }
        "ended" => bail!("{}", status.detail),
        _ => bail!(
            "not in the meeting after {waited} s: {}. The agent goes on trying: `meeting-agent status` shows how it \
             goes, `meeting-agent leave` gives up",
            status.detail
        ),
    }
}

const OTHER_VERSION: &str = "the agent is of another version: restart `meeting-agent run`";

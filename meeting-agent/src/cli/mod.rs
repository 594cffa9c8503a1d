//! The command line: parsing, and what the commands have in common.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 wrong usage. What a program reads goes to stdout, all else to
//! stderr.

mod client;
mod enter;
mod evidence;
mod hidden;
mod lead;
mod link_input;
mod look;
mod record_keys;
mod run;
mod verify;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use meeting_protocol::local;

use crate::{
    control::{Answer, Request},
    show::{sentence, without_invitation},
};
use client::Client;

/// Keeps this device's place in end-to-end-encrypted meetings and hands its pipelines their keys.
#[derive(Debug, Parser)]
#[command(name = "meeting-agent", version, after_help = EXAMPLE)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// For every command.
#[derive(Debug, Args)]
pub struct Common {
    /// The agent's socket [default: $MEETING_AGENT_SOCKET, else below $XDG_RUNTIME_DIR]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The meeting's id or its first digits; needed only when the agent is in several
    #[arg(long, global = true, value_name = "ID")]
    meeting: Option<String>,
    /// JSON on stdout, from commands that show something
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the daemon in the foreground
    Run(run::Run),
    /// Open a new meeting, lead it, and print its link
    Create(enter::Create),
    /// Ask for a place in a meeting; the link comes from a prompt, stdin or a file
    Join(enter::Join),
    /// Leave the meeting
    Leave,
    /// Leader: remove somebody and change the key
    Remove(Whom),
    /// Leader: change the key now
    Rotate,
    /// Leader: let nobody new in
    Lock,
    /// Leader: let new people in again
    Unlock,
    /// Leader: let in somebody who waits
    Approve(Whom),
    /// The meeting at a glance
    Status {
        /// Goes on, and shows every change, until Ctrl-C
        #[arg(long)]
        watch: bool,
    },
    /// The security code, for reading aloud
    Code {
        /// The code over the roster as it is now: the same for all who see the same people; lock first
        #[arg(long)]
        roster: bool,
    },
    /// Compare the security code with the leader's: turns the shield from amber to green
    Verify(verify::Verify),
    /// Who is in the meeting
    Roster,
    /// Keep the keys of what is recorded in a file, to open a sealed recording with later
    RecordKeys(record_keys::RecordKeys),
    /// Proofs that a leader broke the protocol: shown, handed out and checked
    #[command(subcommand)]
    Evidence(evidence::Command),
    /// Print the completions for a shell
    Completions {
        /// Which
        shell: clap_complete::Shell,
    },
    /// Print the manual page of the program or of a command
    #[command(hide = true)]
    Man {
        /// Which
        command: Option<String>,
    },
}

#[derive(Debug, Args)]
struct Whom {
    /// A name, or the start of an id as `roster` and `status` show it
    who: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleName {
    Participant,
    Recorder,
    Gateway,
    Bot,
}

impl Common {
    fn socket(&self) -> PathBuf {
        let uid = rustix::process::getuid().as_raw();
        self.socket
            .clone()
            .unwrap_or_else(|| local::socket_path(|name| std::env::var_os(name), uid, |path| path.exists()))
    }

    fn client(&self) -> anyhow::Result<Client> {
        Client::connect(&self.socket())
    }

    /// Asks for something that is answered by a sentence, and prints it.
    fn order(&self, request: Request) -> anyhow::Result<ExitCode> {
        if let Answer::Done { text } = self.client()?.ask(&request)? {
            eprintln!("{}", sentence(&text));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Runs the command of this process's arguments.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match dispatch(cli) {
        Ok(code) => code,
        // whoever reads our output has gone: that is theirs to decide
        Err(error) if broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("meeting-agent: {}", sentence(&without_invitation(&format!("{error:#}"))));
            ExitCode::FAILURE
        }
    }
}

/// Help, or what is wrong with the arguments; one that is a link in the wrong place is not repeated.
fn usage(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    let hidden = without_invitation(&text);
    if hidden == text {
        let _ = error.print();
    } else {
        eprint!("{hidden}");
    }
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { common, command } = cli;
    let meeting = common.meeting.clone();
    match command {
        Command::Run(run) => run.run(common.socket()),
        Command::Create(create) => create.run(&common),
        Command::Join(join) => join.run(&common),
        Command::Leave => common.order(Request::Leave { meeting }),
        Command::Remove(Whom { who }) => lead::remove(&common, who),
        Command::Rotate => lead::rotate(&common),
        Command::Lock => lead::lock(&common, true),
        Command::Unlock => lead::lock(&common, false),
        Command::Approve(Whom { who }) => lead::approve(&common, who),
        Command::Status { watch: false } => look::status(&common),
        Command::Status { watch: true } => look::watch(&common),
        Command::Verify(verify) => verify.run(&common),
        Command::Code { roster: false } => look::code(&common),
        Command::Code { roster: true } => look::roster_code(&common),
        Command::Roster => look::roster(&common),
        Command::RecordKeys(keys) => keys.run(&common),
        Command::Evidence(evidence) => evidence.run(&common),
        Command::Completions { shell } => {
            // Into memory first: the generator panics if its reader has gone.
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "meeting-agent", &mut text);
            io::stdout().write_all(&text)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { command } => {
            let mut page = Cli::command().disable_help_subcommand(true);
            page.build();
            if let Some(name) = command {
                page = page
                    .find_subcommand(&name)
                    .with_context(|| format!("there is no command {name:?}"))?
                    .clone();
            }
            clap_mangen::Man::new(page).render(&mut io::stdout())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

const EXAMPLE: &str = "\
Alice:  meeting-agent run --name Alice &
        meeting-agent create --relay relay.example      prints the link
Bob:    meeting-agent run --name Bob &
        meeting-agent join                              asks for the link
Both:   meeting-agent code                              Alice reads the digits aloud, Bob compares";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_scripts_type_is_understood() {
        for line in [
            "meeting-agent run --socket /s --state /t --name Alice",
            "meeting-agent create --relay r:1 --relay-certificate 00 --name A --successors 2 --json",
            "meeting-agent create --relay-ready-file f --token-file t --link-file l",
            "meeting-agent join",
            "meeting-agent join -",
            "meeting-agent join --link-file l --guest --role recorder --wait 0",
            "meeting-agent --socket /s status --json",
            "meeting-agent remove Bob --meeting 0a",
            "meeting-agent unlock",
            "meeting-agent verify",
            "meeting-agent verify 12345 67890",
            "meeting-agent verify --differs",
            "meeting-agent status --watch",
            "meeting-agent evidence list --json",
            "meeting-agent evidence export 0a --file f",
            "meeting-agent evidence verify -",
            "meeting-agent record-keys f --track camera --track microphone --participant Alice --passphrase-file p",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    #[test]
    fn wrong_usage_is_code_2() {
        for line in [
            "meeting-agent",
            "meeting-agent remove",
            "meeting-agent join --role king",
            "meeting-agent join meeting://x --link-file l",
            "meeting-agent create",
            "meeting-agent create --relay r --successors 4",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}

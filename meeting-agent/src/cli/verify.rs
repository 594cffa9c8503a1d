//! `meeting-agent verify`: what comparing the codes has shown.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    process::ExitCode,
};

use anyhow::bail;
use clap::Args;

use super::{Common, look};
use crate::control::Request;

#[derive(Debug, Args)]
pub struct Verify {
    /// The 40 digits the leader read, in any grouping; without them you are asked
    #[arg(value_name = "DIGITS", conflicts_with = "differs")]
    digits: Vec<String>,
    /// The digits were not the same
    #[arg(long)]
    differs: bool,
}

impl Verify {
    pub fn run(self, common: &Common) -> anyhow::Result<ExitCode> {
        let code = match (self.differs, self.digits.is_empty()) {
            (true, _) => None,
            (false, false) => Some(self.digits.join(" ")),
            (false, true) => ask(common)?,
        };
        common.order(Request::Verify { meeting: common.meeting.clone(), code })
    }
}

/// Shows the code and asks; none if the digits were not the same.
fn ask(common: &Common) -> anyhow::Result<Option<String>> {
    if !io::stdin().is_terminal() {
        bail!("nobody is here to compare: give the leader's 40 digits, or `--differs`");
    }
    let shown = look::code_shown(common)?;
    let mut line = String::new();
    for _ in 0..ASKED {
        eprint!("Are all 40 digits the same as theirs? Type yes or no: ");
        io::stderr().flush()?;
        line.clear();
        if io::stdin().lock().read_line(&mut line)? == 0 {
            break;
        }
        match line.trim() {
            "yes" => return Ok(Some(shown)),
            "no" => return Ok(None),
            _ => {}
        }
    }
    bail!("neither yes nor no: nothing has changed")
}

/// How often the question is asked before it is dropped.
const ASKED: usize = 5;

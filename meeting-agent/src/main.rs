//! `meeting-agent`: the daemon and the commands for it. `meeting-agent --help` lists them.

use std::process::ExitCode;

fn main() -> ExitCode {
    meeting_agent::cli::main()
}

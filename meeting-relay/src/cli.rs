//! The command line around [`Args`]: what an installation asks the program for besides serving.

use std::io::{self, Write};

use clap::{CommandFactory, Parser, Subcommand};
use meeting_relay::Args;

/// Forwards end-to-end-encrypted meetings without being able to read them.
#[derive(Debug, Parser)]
#[command(
    name = "meeting-relay",
    version,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(flatten)]
    pub args: Args,
    #[command(subcommand)]
    pub papers: Option<Papers>,
}

#[derive(Debug, Subcommand)]
pub enum Papers {
    /// Print the completions for a shell
    #[command(hide = true)]
    Completions {
        /// Which
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(hide = true)]
    Man,
}

impl Papers {
    pub fn print(&self) -> io::Result<()> {
        // Into memory first: the generator panics if its reader has gone.
        let mut text = Vec::new();
        match self {
            Self::Completions { shell } => {
                clap_complete::generate(*shell, &mut Cli::command(), "meeting-relay", &mut text);
            }
            Self::Man => clap_mangen::Man::new(Cli::command()).render(&mut text)?,
        }
        io::stdout().write_all(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn settings_and_papers_do_not_mix() {
        assert!(Cli::try_parse_from(["meeting-relay", "--listen", "127.0.0.1:1"]).is_ok());
        assert!(Cli::try_parse_from(["meeting-relay", "completions", "bash"]).is_ok());
        assert!(Cli::try_parse_from(["meeting-relay", "--listen", "127.0.0.1:1", "man"]).is_err());
    }
}

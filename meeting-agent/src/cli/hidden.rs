//! Words that nobody else may read: asked for on the terminal without showing them.

use std::io::{self, BufRead, Read};

use anyhow::Context;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// Asks for `what` and gives the line that is typed, of at most `longest` bytes.
pub fn ask(what: &str, longest: usize) -> anyhow::Result<Zeroizing<String>> {
    let stdin = io::stdin();
    eprint!("{what} (not shown): ");
    let shown = tcgetattr(&stdin)?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Now, &hidden)?;
    let mut line = Zeroizing::new(String::with_capacity(longest));
    let read = stdin.lock().take(longest as u64).read_line(&mut line);
    tcsetattr(&stdin, OptionalActions::Now, &shown)?;
    eprintln!();
    read.context("cannot read from the terminal")?;
    Ok(line)
}

//! A meeting link, from where nobody else reads it: a prompt, stdin or a private file. On a command line it is
//! accepted, taken off the process's arguments, and warned about.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, IsTerminal, Read, Seek, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, bail};
use rustix::fs::{MemfdFlags, memfd_create};
use zeroize::Zeroizing;

use super::hidden;
use crate::private;

/// The link's text. With a link in the arguments this replaces the process by one without it.
pub fn read(argument: Option<String>, file: Option<PathBuf>) -> anyhow::Result<Zeroizing<String>> {
    let link = match (argument.map(Zeroizing::new), file) {
        (_, Some(path)) => Zeroizing::new(
            String::from_utf8(private::read(&path, LONGEST)?.to_vec()).context("the link file is no text")?,
        ),
        (Some(argument), None) if argument.as_str() != "-" => {
            eprintln!(
                "warning: a link on a command line can be read by other users of this machine and stays in the \
                 shell's history; `meeting-agent join` alone asks for it"
            );
            let error = start_again_without(&argument);
            eprintln!(
                "warning: the link stays visible in the list of processes until this command ends: {error}"
            );
            argument
        }
        (argument, None) if argument.is_none() && io::stdin().is_terminal() => {
            hidden::ask("Meeting link", LONGEST as usize)?
        }
        _ => {
            let mut text = Zeroizing::new(String::with_capacity(LONGEST as usize));
            io::stdin()
                .lock()
                .take(LONGEST)
                .read_to_string(&mut text)
                .context("cannot read the link from stdin")?;
            text
        }
    };
    if link.trim().is_empty() {
        bail!("no link was given: paste it at the prompt of `meeting-agent join`, or use `--link-file FILE`");
    }
    Ok(link)
}

/// Replaces this process by itself with `-` for the link and the link on stdin; returns only when that fails.
fn start_again_without(link: &str) -> io::Error {
    let again = || -> io::Result<io::Error> {
        let mut stdin = File::from(memfd_create("link", MemfdFlags::CLOEXEC)?);
        stdin.write_all(link.as_bytes())?;
        stdin.rewind()?;
        let arguments = std::env::args_os()
            .skip(1)
            .map(|argument| if argument.to_str() == Some(link) { OsString::from("-") } else { argument });
        Ok(Command::new("/proc/self/exe").arg0("meeting-agent").args(arguments).stdin(stdin).exec())
    };
    again().unwrap_or_else(|error| error)
}

/// The longest link in bytes: the longest host name and three values of 32 bytes are under 500.
const LONGEST: u64 = 4_096;

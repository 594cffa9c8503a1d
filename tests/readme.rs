//! The pages' commands, run as they stand there: Alice's block, then Bob's beside it; and the two lines over RTP.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rig::{Pipeline, Programs, Stage, until};

#[test]
fn the_commands_of_the_readme_work_as_written() -> Result<()> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md"))?;
    let blocks: Vec<&str> =
        readme.split("```sh\n").skip(1).filter_map(|rest| rest.split("\n```").next()).collect();
    ensure!(blocks.len() == 2, "one block of Alice's and one of Bob's, not {}", blocks.len());
    let folder = tempfile::tempdir()?;
    let mut shell = Shell { folder: folder.path(), environment: Vec::new(), running: Vec::new() };
    for line in blocks.iter().flat_map(|block| block.lines()) {
        shell.type_in(line)?;
    }
    until("a picture on Bob's screen", Duration::from_secs(60), || {
        let said = fs::read_to_string(folder.path().join("screen")).unwrap_or_default();
        Ok(said.contains("chain").then_some(()))
    })
    .with_context(|| fs::read_to_string(folder.path().join("said")).unwrap_or_default())
}

#[test]
fn the_two_lines_over_rtp_work_as_written() -> Result<()> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/README.md"))?;
    let section = page.split("\n## Over RTP\n").nth(1).context("a section")?;
    let block =
        section.split("```sh\n").nth(1).and_then(|rest| rest.split("\n```").next()).context("a block")?;
    let lines: Vec<&str> = block.lines().collect();
    ensure!(lines.len() == 2, "one line to send and one to receive, not {}", lines.len());

    let stage = Stage::open()?;
    let (alice, bob) = (stage.agent("Alice")?, stage.agent("Bob")?);
    let link = alice.create(&stage)?;
    bob.join(&link)?;
    // Somebody else may have the port of the page. This one is below those that are given to whoever asks for any.
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    let free = |port: &u16| std::net::UdpSocket::bind(("0.0.0.0", *port)).is_ok();
    let port = (first..first + 1_000).find(free).context("no free port")?.to_string();
    let folders = ["sends", "receives"].map(|name| stage.folder().join(name));
    let mut shells = Vec::new();
    for ((agent, line), folder) in [(&alice, lines[0]), (&bob, lines[1])].into_iter().zip(&folders) {
        fs::create_dir(folder)?;
        let environment = vec![("MEETING_AGENT_SOCKET".into(), agent.socket().display().to_string())];
        let mut shell = Shell { folder, environment, running: Vec::new() };
        shell.type_in(&line.replace("5004", &port))?;
        shells.push(shell);
    }
    until("a picture on Bob's screen", Duration::from_secs(60), || {
        let said = fs::read_to_string(folders[1].join("screen")).unwrap_or_default();
        Ok(said.contains("chain").then_some(()))
    })
    .with_context(|| fs::read_to_string(folders[1].join("said")).unwrap_or_default())
}

/// What a person at a terminal does, who waits for nothing but looks whether a command worked.
struct Shell<'a> {
    folder: &'a Path,
    environment: Vec<(String, String)>,
    running: Vec<Child>,
}

impl Shell<'_> {
    fn type_in(&mut self, line: &str) -> Result<()> {
        if let Some((name, value)) = line.strip_prefix("export ").and_then(|line| line.split_once('=')) {
            self.environment.push((name.into(), value.replace("$PWD", &self.folder.to_string_lossy())));
            return Ok(());
        }
        // There is no screen here, and the relay of the next test wants the port too.
        let line = line
            .replace("autovideosink", "fakesink silent=false -v > screen")
            .replace("meeting-relay ", "meeting-relay --listen 127.0.0.1:0 ");
        if let Some(line) = line.strip_suffix('&') {
            let child = self.command(line)?.spawn()?;
            self.running.push(child);
            return Ok(());
        }
        if line.starts_with("gst-launch-1.0") {
            let child = self.command(&line)?.spawn()?;
            self.running.push(child);
            return Ok(());
        }
        // A daemon that was started a line before may need a moment: a person would type it again.
        until(&line, Duration::from_secs(10), || Ok(self.command(&line)?.status()?.success().then_some(())))
            .with_context(|| fs::read_to_string(self.folder.join("said")).unwrap_or_default())
    }

    fn command(&self, line: &str) -> Result<Command> {
        let programs = Programs::find()?;
        let said = fs::OpenOptions::new().append(true).create(true).open(self.folder.join("said"))?;
        let folder = programs.command("x").get_program().to_owned();
        let path = Path::new(&folder).parent().context("programs are in a folder")?.to_owned();
        let mut command = Command::new("bash");
        Pipeline::environment(
            &mut command,
            &programs,
            &self.folder.join("runtime/meeting-agent/agent.sock"),
        )?;
        command
            .args(["-c", &format!("exec {line}")])
            .current_dir(self.folder)
            .env("PATH", format!("{}:{}", path.display(), std::env::var("PATH")?))
            .env("XDG_RUNTIME_DIR", self.folder.join("runtime"))
            .env("XDG_STATE_HOME", self.folder.join("state"))
            .env_remove("MEETING_AGENT_SOCKET")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said);
        fs::create_dir_all(self.folder.join("runtime"))?;
        Ok(command)
    }
}

impl Drop for Shell<'_> {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

//! A meeting of two whose programs say all they can, and what its secrets are.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use meeting_protocol::{
    canary,
    frame::{CipherSuite, KeyId},
    local::{self, FromAgent, Purpose, ToAgent},
    secret::Secret,
};
use meeting_wire::Decode;
use rig::{Pipeline, Programs, until};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::PATIENCE;

/// A relay and two agents that say all they can say, each into a file below `said`.
pub struct Stage {
    pub folder: TempDir,
    programs: Programs,
    relay_address: String,
    relay_certificate: String,
    processes: Vec<Killed>,
}

/// Ended with the test.
pub struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Killed {
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// As Ctrl-C does.
    pub fn interrupt(self) -> Result<()> {
        self.end_by(Signal::INT).map(drop)
    }

    /// Sends a signal and gives what became of it.
    pub fn end_by(mut self, signal: Signal) -> Result<ExitStatus> {
        let pid = Pid::from_raw(self.id() as i32).context("no such process")?;
        kill_process(pid, signal)?;
        until("the end of a program", PATIENCE, || Ok(self.0.try_wait()?))
    }

    pub fn wait(mut self) -> Result<()> {
        let status = until("the end of a pipeline", 2 * PATIENCE, || Ok(self.0.try_wait()?))?;
        ensure!(status.success(), "a pipeline ended badly: {status}");
        Ok(())
    }
}

impl Stage {
    pub fn open() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("secrets").tempdir()?;
        let programs = Programs::find()?;
        let said = folder.path().join("said");
        fs::create_dir(&said)?;
        let relay = folder.path().join("relay");
        fs::create_dir(&relay)?;
        let ready = relay.join("ready");
        let mut stage = Self {
            folder,
            programs,
            relay_address: String::new(),
            relay_certificate: String::new(),
            processes: Vec::new(),
        };
        let mut command = stage.programs.command("meeting-relay");
        command.args(["--listen", "127.0.0.1:0", "--state"]).arg(&relay).arg("--ready-file").arg(&ready);
        command.arg("--record").arg(relay.join("view"));
        stage.start(command, "relay.log")?;
        let text = until("the relay", PATIENCE, || {
            Ok(fs::read_to_string(&ready).ok().filter(|text| text.contains(' ')))
        })?;
        let (address, certificate) = text.trim().split_once(' ').context("another ready file")?;
        (stage.relay_address, stage.relay_certificate) = (address.to_owned(), certificate.to_owned());
        for who in 0..2 {
            let folder = stage.folder.path().join(who.to_string());
            fs::create_dir(&folder)?;
            let mut command = stage.programs.command("meeting-agent");
            command.args(["run", "--name", "Somebody", "--socket"]).arg(stage.socket(who));
            command.arg("--state").arg(folder.join("state"));
            command.env("E2EE_CANARIES", stage.told(who));
            stage.start(command, &format!("{who}-agent.log"))?;
            until("an agent", PATIENCE, || Ok(UnixStream::connect(stage.socket(who)).ok()))?;
        }
        Ok(stage)
    }

    fn start(&mut self, mut command: Command, log: &str) -> Result<()> {
        let log = fs::File::create(self.folder.path().join("said").join(log))?;
        let child = command
            .env("RUST_LOG", "trace")
            .stdout(log.try_clone()?)
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()?;
        self.processes.push(Killed(child));
        Ok(())
    }

    pub fn socket(&self, who: usize) -> PathBuf {
        self.folder.path().join(format!("{who}/run/agent.sock"))
    }

    /// What an agent tells of its secrets: it writes nowhere but into its own directories.
    fn told(&self, who: usize) -> PathBuf {
        self.folder.path().join(format!("{who}/state/canaries"))
    }

    /// Of relay and agents.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Killed::id).collect()
    }

    /// Takes the agents out, for a test that ends them.
    pub fn take_agents(&mut self) -> Vec<Killed> {
        // The relay was started first.
        self.processes.split_off(1)
    }

    /// Alice opens a meeting; gives its link.
    pub fn create(&self) -> Result<String> {
        let (relay, certificate) = (&self.relay_address, &self.relay_certificate);
        let arguments = ["create", "--relay", relay, "--relay-certificate", certificate, "--successors", "1"];
        self.agent(0, &arguments, "")
    }

    /// Waits until the pipeline of the second has opened so many frames.
    pub fn until_it_opens(&self, frames: usize) -> Result<()> {
        let shown = self.folder.path().join("said/1/launch.out");
        until("opened frames", PATIENCE, || {
            let text = fs::read_to_string(&shown).unwrap_or_default();
            Ok((text.matches("chain").count() >= frames).then_some(()))
        })
    }

    /// The secrets of the meeting: both device keys, the invite secret, and what the agents tell of theirs.
    pub fn canaries(&self, link: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let mut canaries = Vec::new();
        for who in 0..2 {
            let file = fs::read(self.folder.path().join(format!("{who}/state/device.key")))?;
            let seed = file.last_chunk::<32>().context("a device key of another form")?;
            canaries.push((format!("device key of {who}"), seed.to_vec()));
            let told = canary::read(&fs::read(self.told(who))?);
            for kind in TOLD {
                ensure!(told.iter().any(|(name, _)| name == kind), "agent {who} tells of no {kind}");
            }
            canaries.extend(told.into_iter().map(|(name, secret)| (format!("{name} of {who}"), secret)));
        }
        let (_, fragment) = link.trim().split_once('#').context("a link without a secret")?;
        let secret = fragment.split('.').next().unwrap_or_default();
        canaries.push(("invite secret".into(), URL_SAFE_NO_PAD.decode(secret)?));
        Ok(canaries)
    }

    /// A command of somebody's; gives all it showed, the link of `create` too.
    pub fn agent(&self, who: usize, arguments: &[&str], input: &str) -> Result<String> {
        let mut child = self
            .programs
            .command("meeting-agent")
            .args(arguments)
            .arg("--socket")
            .arg(self.socket(who))
            .env("RUST_LOG", "trace")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("no stdin")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        let (out, said) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{arguments:?}: {said}");
        // What `create` prints is the link itself.
        Ok(if arguments[0] == "create" { out } else { out + &said })
    }

    /// A pipeline whose process stays when it has ended.
    pub fn lingering(&self, who: usize, description: &str) -> Result<Pipeline> {
        let folder = self.folder.path().join(format!("said/{who}"));
        Pipeline::lingering(&self.programs, &folder, self.socket(who), description)
    }

    /// `gst-launch-1.0` at its most talkative.
    pub fn launch(&self, who: usize, description: &str) -> Result<Killed> {
        let said = self.folder.path().join(format!("said/{who}"));
        fs::create_dir_all(&said)?;
        let out = fs::File::create(said.join("launch.out"))?;
        let mut command = Command::new("gst-launch-1.0");
        command.args(["-v", "-m"]).args(description.split_whitespace());
        Pipeline::environment(&mut command, &self.programs, &self.socket(who))?;
        command
            .current_dir(&said)
            .env("GST_DEBUG", "9")
            .env("GST_DEBUG_NO_COLOR", "1")
            .env("GST_DEBUG_FILE", said.join("gst.log"))
            .env("GST_DEBUG_DUMP_DOT_DIR", &said)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        Ok(Killed(command.spawn()?))
    }
}

/// What each agent of a meeting in which somebody talks and somebody listens has had.
const TOLD: [&str; 8] =
    ["meeting key", "chain key", "wrap key", "proof key", "control key", "base key", "stay key", "KEM key"];

/// What an opening element is given.
pub struct StreamKey {
    pub kid: KeyId,
    pub suite: CipherSuite,
    pub base_key: Secret<32>,
}

/// The keys that an agent has for opening elements, once there is one.
pub fn open_keys(socket: &Path) -> Result<Vec<StreamKey>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let purpose = Purpose::Keys { meeting: None };
    stream.write_all(&local::packed(&ToAgent::Hello { version: local::VERSION, purpose }))?;
    stream.write_all(&local::packed(&ToAgent::WantOpenKeys))?;
    let mut keys = Vec::new();
    loop {
        let mut len = [0; 4];
        if stream.read_exact(&mut len).is_err() && !keys.is_empty() {
            return Ok(keys);
        }
        let mut body = vec![0; local::message_len(len)?];
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.read_exact(&mut body)?;
        if let FromAgent::OpenKey { kid, suite, base_key, .. } = FromAgent::from_bytes(&body)? {
            keys.push(StreamKey { kid, suite: CipherSuite::try_from(suite)?, base_key });
            // Those of other epochs follow at once, if there are any.
            stream.set_read_timeout(Some(Duration::from_millis(300)))?;
        }
    }
}

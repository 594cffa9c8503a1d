//! Canaries: real keys of a running meeting are searched for in all that its programs say, write and show.

use std::{
    collections::HashMap,
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use meeting_protocol::local::{self, FromAgent, Purpose, ToAgent};
use meeting_wire::Decode;
use rig::{Pipeline, Programs, until};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn no_log_dump_message_argument_or_environment_holds_a_key() -> Result<()> {
    let stage = Stage::open()?;
    let link = stage.agent(
        0,
        &[
            "create",
            "--relay",
            &stage.relay_address,
            "--relay-certificate",
            &stage.relay_certificate,
            "--successors",
            "1",
        ],
        "",
    )?;
    let joined = stage.agent(1, &["join", "--json", "-"], &link)?;

    let talks = stage.launch(
        0,
        "meetingkey audiotestsrc is-live=true num-buffers=200 samplesperbuffer=960 ! audio/x-raw,rate=48000 ! opusenc \
         ! e2eeseal ! meetingsink",
    )?;
    // Bob's keys are what Alice seals with; they come with the first pulse of the meeting.
    let keys = open_keys(&stage.socket(1))?;
    let watches = stage.launch(
        1,
        "meetingkey meetingsrc name=in in.audio_0 ! queue ! e2eeopen ! fakesink silent=false async=false",
    )?;
    let processes: HashMap<PathBuf, Vec<u8>> = stage
        .pids()
        .into_iter()
        .chain([talks.id(), watches.id()])
        .flat_map(|pid| ["cmdline", "environ"].map(|file| PathBuf::from(format!("/proc/{pid}/{file}"))))
        // An agent's environment is closed to its own user: then there is nothing to search.
        .filter_map(|path| Some((path.clone(), fs::read(&path).ok()?)))
        .collect();
    ensure!(processes.len() >= 8, "only {} files of /proc could be read", processes.len());
    let shown = stage.folder.path().join("said/1/launch.out");
    until("60 opened frames", PATIENCE, || {
        let text = fs::read_to_string(&shown).unwrap_or_default();
        Ok((text.matches("chain").count() >= 60).then_some(()))
    })?;
    watches.interrupt()?;
    let mut answers = joined.into_bytes();
    for who in 0..2 {
        for command in [
            &["status", "--json"][..],
            &["status"],
            &["code", "--json"],
            &["code"],
            &["roster", "--json"],
            &["roster"],
        ] {
            answers.extend(stage.agent(who, command, "")?.into_bytes());
        }
    }
    stage.agent(0, &["rotate"], "")?;
    let more = open_keys(&stage.socket(1))?;
    talks.wait()?;
    stage.agent(1, &["leave"], "")?;

    let mut canaries: Vec<(String, Vec<u8>)> = Vec::new();
    for (n, key) in keys.iter().chain(&more).enumerate() {
        canaries.push((format!("stream key {n}"), key.to_vec()));
    }
    ensure!(canaries.len() >= 2, "only {} keys", canaries.len());
    for who in 0..2 {
        let file = fs::read(stage.folder.path().join(format!("{who}/state/device.key")))?;
        let seed = file.last_chunk::<32>().context("a device key of another form")?;
        canaries.push((format!("device key {who}"), seed.to_vec()));
    }
    let (_, fragment) = link.trim().split_once('#').context("a link without a secret")?;
    let secret = fragment.split('.').next().unwrap_or_default();
    canaries.push(("invite secret".into(), unbase64(secret)));

    let needles = Needles::new(&canaries);
    // The search is worth something: it finds each form of each canary where one is put.
    for form in forms(&canaries[0].1) {
        ensure!(
            needles.find(&[b"some text ", &form[..], b" more"].concat()).is_some(),
            "a form is not found: {form:?}"
        );
    }
    let mut searched = vec![("what commands showed".to_owned(), answers)];
    searched.extend(processes.into_iter().map(|(path, bytes)| (path.display().to_string(), bytes)));
    let mut kinds = HashMap::<&str, usize>::new();
    for path in files(&stage.folder.path().join("said"))? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for (end, kind) in [
            (".dot", "dump"),
            ("gst.log", "debug log"),
            ("launch.out", "output"),
            ("agent.log", "log"),
            ("relay.log", "log"),
        ] {
            if name.ends_with(end) {
                *kinds.entry(kind).or_default() += 1;
            }
        }
        searched.push((path.display().to_string(), fs::read(&path)?));
    }
    searched.push(("what the relay saw".into(), fs::read(stage.folder.path().join("relay/view"))?));
    let bytes: usize = searched.iter().map(|(_, bytes)| bytes.len()).sum();
    ensure!(
        kinds.get("dump").is_some_and(|n| *n >= 6) && kinds.len() == 4 && bytes > 1_000_000,
        "{bytes} bytes in {kinds:?}: something was not written"
    );
    let text = |end: &str| {
        let found = searched.iter().filter(|(name, _)| name.ends_with(end));
        found.map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect::<String>()
    };
    ensure!(text("gst.log").contains("e2ee"), "our elements are in the debug log");
    ensure!(text("launch.out").contains("e2ee-state"), "and their messages in the output");
    ensure!(text("agent.log").contains("TRACE"), "the agents log all they can");
    for (place, bytes) in &searched {
        let found = needles.find(bytes);
        ensure!(found.is_none(), "the {} stands in {place}", found.unwrap_or_default());
    }
    Ok(())
}

/// A relay and two agents that say all they can say, each into a file below `said`.
struct Stage {
    folder: TempDir,
    programs: Programs,
    relay_address: String,
    relay_certificate: String,
    processes: Vec<Killed>,
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Killed {
    fn id(&self) -> u32 {
        self.0.id()
    }

    /// As Ctrl-C does.
    fn interrupt(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_raw(self.id() as i32).context("no such process")?;
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        until("the end of a pipeline", PATIENCE, || Ok(self.0.try_wait()?)).map(drop)
    }

    fn wait(mut self) -> Result<()> {
        let status = until("the end of a pipeline", PATIENCE, || Ok(self.0.try_wait()?))?;
        ensure!(status.success(), "a pipeline ended badly: {status}");
        Ok(())
    }
}

impl Stage {
    fn open() -> Result<Self> {
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

    fn socket(&self, who: usize) -> PathBuf {
        self.folder.path().join(format!("{who}/run/agent.sock"))
    }

    fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Killed::id).collect()
    }

    /// A command of somebody's; gives all it showed, the link of `create` too.
    fn agent(&self, who: usize, arguments: &[&str], input: &str) -> Result<String> {
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

    /// `gst-launch-1.0` at its most talkative.
    fn launch(&self, who: usize, description: &str) -> Result<Killed> {
        let said = self.folder.path().join(format!("said/{who}"));
        fs::create_dir_all(&said)?;
        let out = fs::File::create(said.join("launch.out"))?;
        let mut command = Command::new("gst-launch-1.0");
        command.args(["-v", "-m"]).args(description.split_whitespace());
        Pipeline::environment(&mut command, &self.programs, &self.socket(who))?;
        command
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

/// The base keys that an agent has for opening elements, once there is one.
fn open_keys(socket: &Path) -> Result<Vec<[u8; 32]>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let purpose = Purpose::Keys { meeting: None };
    stream.write_all(&local::to_frame(&ToAgent::Hello { version: local::VERSION, purpose }))?;
    stream.write_all(&local::to_frame(&ToAgent::WantOpenKeys))?;
    let mut keys = Vec::new();
    loop {
        let mut len = [0; 4];
        if stream.read_exact(&mut len).is_err() && !keys.is_empty() {
            return Ok(keys);
        }
        let mut body = vec![0; local::frame_len(len)?];
        stream.read_exact(&mut body)?;
        if let FromAgent::OpenKey { base_key, .. } = FromAgent::from_bytes(&body)? {
            keys.push(*base_key.expose());
            // Those of other epochs follow at once, if there are any.
            stream.set_read_timeout(Some(Duration::from_millis(300)))?;
        }
    }
}

/// Every form in which a program might print 32 bytes, cut so that a part of the secret is found too.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![secret[..16].to_vec(), secret[16..].to_vec()];
    for part in [&secret[..8], &secret[secret.len() - 8..]] {
        let hex: Vec<String> = part.iter().map(|byte| format!("{byte:02x}")).collect();
        for between in ["", " ", ":", ", ", ", 0x", ",", "\\x"] {
            let text = hex.join(between);
            forms.push(text.to_uppercase().replace('X', "x").into_bytes());
            forms.push(text.into_bytes());
        }
        let decimal: Vec<String> = part.iter().map(u8::to_string).collect();
        forms.push(decimal.join(", ").into_bytes());
        forms.push(decimal.join(",").into_bytes());
    }
    // Base64 of bytes that stand at any place of something longer: the digits that only they decide.
    for shift in 0..3 {
        let text = base64(&[&vec![0; shift], secret].concat());
        let text = &text[[0, 2, 3][shift]..][..38];
        forms.push(text.as_bytes().to_vec());
        forms.push(text.replace('-', "+").replace('_', "/").into_bytes());
    }
    forms
}

/// Many needles looked for at once.
struct Needles {
    /// By their first two bytes.
    starts: Vec<Vec<usize>>,
    all: Vec<(String, Vec<u8>)>,
}

impl Needles {
    fn new(canaries: &[(String, Vec<u8>)]) -> Self {
        let all: Vec<_> = canaries
            .iter()
            .flat_map(|(name, secret)| forms(secret).into_iter().map(|form| (name.clone(), form)))
            .collect();
        let mut starts = vec![Vec::new(); 1 << 16];
        for (n, (_, form)) in all.iter().enumerate() {
            starts[usize::from(u16::from_be_bytes([form[0], form[1]]))].push(n);
        }
        Self { starts, all }
    }

    fn find(&self, bytes: &[u8]) -> Option<&str> {
        bytes.windows(2).enumerate().find_map(|(at, two)| {
            let candidates = &self.starts[usize::from(u16::from_be_bytes([two[0], two[1]]))];
            candidates
                .iter()
                .map(|n| &self.all[*n])
                .find_map(|(name, form)| bytes[at..].starts_with(form).then_some(name.as_str()))
        })
    }
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn base64(bytes: &[u8]) -> String {
    let bits = |digit: usize| {
        (0..6).fold(0, |value, bit| {
            let at = digit * 6 + bit;
            let byte = bytes.get(at / 8).copied().unwrap_or(0);
            value << 1 | usize::from(byte >> (7 - at % 8) & 1)
        })
    };
    (0..(bytes.len() * 8).div_ceil(6)).map(|digit| char::from(DIGITS[bits(digit)])).collect()
}

fn unbase64(text: &str) -> Vec<u8> {
    let mut out = vec![0; text.len() * 6 / 8];
    for (digit, c) in text.bytes().enumerate() {
        let value = DIGITS.iter().position(|d| *d == c).unwrap_or(0);
        for bit in 0..6 {
            let at = digit * 6 + bit;
            if let Some(byte) = out.get_mut(at / 8) {
                *byte |= ((value >> (5 - bit) & 1) as u8) << (7 - at % 8);
            }
        }
    }
    out
}

/// Every file below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { all.extend(files(&path)?) } else { all.push(path) }
    }
    Ok(all)
}

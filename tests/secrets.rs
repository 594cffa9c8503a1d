//! Canaries: real keys of a running meeting are searched for in all that its programs say, write and show, and in what
//! others find in their memory.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, ensure};

#[path = "secrets/memory.rs"]
mod memory;
#[path = "secrets/stage.rs"]
mod stage;

use stage::{Stage, open_keys};

const PATIENCE: Duration = Duration::from_secs(30);
/// Long enough for a listener on a busy machine to begin meanwhile, and for all that is asked then.
const TALKS: &str = "meetingkey audiotestsrc is-live=true num-buffers=1200 samplesperbuffer=960 ! audio/x-raw,rate=48000 ! opusenc \
    ! e2eeseal ! meetingsink";
const WATCHES: &str =
    "meetingkey meetingsrc name=in in.audio_0 ! queue ! e2eeopen ! fakesink silent=false async=false";

#[test]
fn no_log_dump_message_argument_or_environment_holds_a_key() -> Result<()> {
    let stage = Stage::open()?;
    let link = stage.create()?;
    let joined = stage.agent(1, &["join", "--json", "-"], &link)?;

    let talks = stage.launch(0, TALKS)?;
    // Bob's keys are what Alice seals with; they come with the first pulse of the meeting.
    let keys = open_keys(&stage.socket(1))?;
    let watches = stage.launch(1, WATCHES)?;
    let processes: HashMap<PathBuf, Vec<u8>> = stage
        .pids()
        .into_iter()
        .chain([talks.id(), watches.id()])
        .flat_map(|pid| ["cmdline", "environ"].map(|file| PathBuf::from(format!("/proc/{pid}/{file}"))))
        // An agent's environment is closed to its own user: then there is nothing to search.
        .filter_map(|path| Some((path.clone(), fs::read(&path).ok()?)))
        .collect();
    ensure!(processes.len() >= 8, "only {} files of /proc could be read", processes.len());
    stage.until_it_opens(60)?;
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

    let mut canaries = stage.canaries(&link)?;
    for (n, key) in keys.iter().chain(&more).enumerate() {
        canaries.push((format!("stream key {n}"), key.base_key.expose().to_vec()));
    }

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

/// Every file below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { all.extend(files(&path)?) } else { all.push(path) }
    }
    Ok(all)
}

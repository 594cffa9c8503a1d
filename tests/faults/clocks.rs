//! Wall clocks that jump by an hour in the middle of a meeting: only certificates know of them, and a person is told.
//!
//! `libfaketime` shifts the wall clock of the real relay and agents; `CLOCK_BOOTTIME`, which counts, is the machine's own.

use std::{
    env, fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, ensure};
use rig::{Agent, Pipeline, Programs, Relay, now, until};

use super::{TALKS, hearing, ids, opened};

#[test]
fn clocks_that_jump_disturb_no_meeting_and_are_asked_about_where_they_matter() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (folder, programs) = (folder.path(), Programs::find()?.with_books());
    let [chain, key] = certificate(folder)?;
    let clocks =
        ["relay", "Alice/state", "Bob/state", "Carol/state"].map(|place| folder.join(place).join("clock"));
    let at = |clock: &Path| shifted(&programs, clock);
    set(&clocks, "+0")?;
    let paths = ["--certificate", path(&chain)?, "--key", path(&key)?].map(str::to_owned);
    let relay = Relay::start_with(&at(&clocks[0])?, folder.join("relay"), "127.0.0.1:0", &paths)?;
    let agent = |name: &str, clock: &Path| {
        // No certificate stands in these links: the authorities of this machine vouch for the relay.
        Agent::start(&at(clock)?.with("SSL_CERT_FILE", chain.clone()), folder.join(name), name)
    };
    let (alice, bob, carol) =
        (agent("Alice", &clocks[1])?, agent("Bob", &clocks[2])?, agent("Carol", &clocks[3])?);
    let address = relay.address.to_string();
    let link = alice.run(&["create", "--relay", &address], "")?;
    bob.join(&link)?;
    let pipelines = folder.join("pipelines");
    let talks = Pipeline::start(&programs, &pipelines, bob.socket(), TALKS)?;
    let mut hears = Pipeline::start(&programs, &pipelines, alice.socket(), &hearing("Bob"))?;
    hears.until("Bob's voice", |stats| opened(stats) > 50)?;
    let before = (bob.code()?, ids(&bob)?);

    for (clocks, jump, said) in [
        (&clocks[..], 3_600, "has run out: is this machine's clock right"),
        (&clocks[..], -3_600, "is not valid yet: is this machine's clock right"),
        // Somebody's alone.
        (&clocks[2..], 3_600, "has run out: is this machine's clock right"),
    ] {
        set(clocks, &format!("{jump:+}"))?;
        let so_far = opened(&hears.stats());
        let jumped = Instant::now();
        let refused = carol.run(&["join", "-", "--wait", "5"], &link).map_err(|error| format!("{error:#}"));
        ensure!(refused.as_ref().is_err_and(|error| error.contains(said)), "{jump}: {refused:?}");
        // It would try on.
        carol.run(&["leave"], "")?;
        let seen = relay.seen()?.last().map_or(0, |seen| seen.at);
        let ahead = (seen as i64 - now() as i64) / 1_000;
        let relays = if clocks.len() == 4 { jump } else { -3_600 };
        ensure!((ahead - relays).abs() < 60, "the relay's clock jumped too: {ahead} s ahead");
        // Longer than any lease.
        until("ten seconds without anybody stale", Duration::from_secs(15), || {
            for agent in [&alice, &bob] {
                let status = agent.status()?;
                ensure!(status["phase"] == "live" && status["connected"] == true, "{jump}: {status}");
            }
            Ok((jumped.elapsed() > Duration::from_secs(10)).then_some(()))
        })?;
        hears.until("Bob's voice all along", |stats| opened(stats) > so_far + 400)?;
    }
    ensure!(talks.stats().get("seal", "dropped-stale") == 0, "{}", talks.stats().0);
    ensure!((bob.code()?, ids(&bob)?) == before, "the same people and the same code");
    for agent in [&alice, &bob] {
        ensure!(agent.log().matches("connected to the relay").count() == 1, "{}", agent.log());
    }
    set(&clocks, "+0")?;
    carol.join(&link)?;
    drop(talks);
    meeting_protocol::ledger::check_dir(folder).map(drop).map_err(anyhow::Error::msg)
}

/// A certificate and its key for loopback, good for half an hour.
fn certificate(folder: &Path) -> Result<[PathBuf; 2]> {
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
    let (now, minutes) = (SystemTime::now(), |minutes: u64| Duration::from_secs(60 * minutes));
    (params.not_before, params.not_after) = ((now - minutes(10)).into(), (now + minutes(30)).into());
    let key = rcgen::KeyPair::generate()?;
    let files = ["chain.pem", "key.pem"].map(|name| folder.join(name));
    fs::write(&files[0], params.self_signed(&key)?.pem())?;
    fs::write(&files[1], key.serialize_pem())?;
    Ok(files)
}

/// The programs with the wall clock that `clock` says, whenever they look at it.
fn shifted(programs: &Programs, clock: &Path) -> Result<Programs> {
    let of = |folder: fs::DirEntry| folder.path().join("faketime/libfaketimeMT.so.1");
    let library = fs::read_dir("/usr/lib")?.flatten().map(of).find(|library| library.is_file());
    let mut library = library.context("no libfaketime: `tests/setup` installs it")?.into_os_string();
    // Behind it, what looks on already.
    if let Some(others) = env::var_os("LD_PRELOAD") {
        library.push(":");
        library.push(others);
    }
    let yes = || PathBuf::from("1");
    Ok(programs
        .clone()
        .with("LD_PRELOAD", library.into())
        .with("FAKETIME_TIMESTAMP_FILE", clock.to_owned())
        .with("FAKETIME_DONT_FAKE_MONOTONIC", yes())
        .with("FAKETIME_NO_CACHE", yes())
        .with("NO_FAKE_STAT", yes()))
}

/// Sets clocks, each in a directory that nobody else may use.
fn set(clocks: &[PathBuf], jump: &str) -> Result<()> {
    for clock in clocks {
        let folder = clock.parent().context("no directory")?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let fresh = clock.with_extension("new");
        fs::write(&fresh, jump)?;
        fs::rename(fresh, clock)?;
    }
    Ok(())
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("no UTF-8")
}

//! A machine that gives no more: what is there goes on, what is new is told whose limit it is.

use std::{os::unix::net::UnixStream, time::Duration};

use anyhow::{Result, ensure};
use rig::{descriptors, until};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::{TALKS, hearing, opened, three};

#[test]
fn an_agent_without_file_descriptors_keeps_its_meeting_and_says_whose_limit_it_is() -> Result<()> {
    let (stage, [alice, bob, _carol], _) = three(0)?;
    let _talks = stage.pipeline(&bob, TALKS)?;
    let mut hears = stage.pipeline(&alice, &hearing("Bob"))?;
    hears.until("Bob's voice", |stats| opened(stats) > 50)?;
    let before = (alice.code()?, super::ids(&alice)?);

    let open = descriptors(bob.pid())? as u64;
    let pid = Pid::from_raw(bob.pid() as i32);
    let limit = |most| Ok::<_, anyhow::Error>(prlimit(pid, Resource::Nofile, most)?);
    let most = getrlimit(Resource::Nofile).maximum;
    let usual = limit(Rlimit { current: Some(open + 4), maximum: most })?;
    let crowd: Vec<UnixStream> =
        (0..16).map(|_| UnixStream::connect(bob.socket())).collect::<Result<_, _>>()?;
    until("the warning", Duration::from_secs(10), || Ok(bob.log().contains("LimitNOFILE").then_some(())))?;
    let so_far = opened(&hears.stats());
    hears.until("Bob's voice all the same", |stats| opened(stats) > so_far + 200)?;
    ensure!(bob.log().matches("LimitNOFILE").count() <= 2, "it is said seldom: {}", bob.log());
    ensure!(bob.log().contains("meetings go on"), "{}", bob.log());

    // The silent are closed after five seconds: then there is room for who has something to say.
    let status = bob.status()?;
    ensure!(status["phase"] == "live" && status["connected"] == true, "{status}");
    drop(crowd);
    limit(usual)?;
    ensure!((bob.code()?, super::ids(&bob)?) == before, "the same meeting");
    stage.check_books().map(drop)
}

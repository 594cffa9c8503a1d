//! All that a relay sees of a meeting holds no plaintext, no key, no name.

use std::fs;

use anyhow::Result;
use rig::{Hoarder, Stage};

/// What the subtitles say, over and over.
const WORDS: &str = "Canary in clear words";

#[test]
fn the_relays_whole_view_contains_no_plaintext_and_no_key() -> Result<()> {
    let stage = Stage::open()?;
    let (alice, bob) = (stage.agent("Alicia-Canary")?, stage.agent("Roberto-Canary")?);
    let link = alice.create(&stage)?;
    bob.join(&link)?;
    let bobs = Hoarder::start(&bob.socket())?;
    let titles = stage.folder().join("titles.srt");
    let title = |n| format!("{n}\n00:00:{n:02},000 --> 00:00:{n:02},900\n{WORDS}\n\n");
    fs::write(&titles, (1..60).map(title).collect::<String>())?;
    // A subtitle track makes the plaintext searchable as it is; H.264 carries the encoder's signature.
    let mut talks = stage.pipeline(
        &alice,
        &format!(
            "meetingkey meetingsink name=out \
             videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=15/1 \
               ! x264enc tune=zerolatency key-int-max=15 ! e2eeseal name=seal track=label-canary ! out. \
             audiotestsrc is-live=true wave=silence ! opusenc ! e2eeseal name=seal-audio ! out. \
             filesrc location={} ! subparse ! text/x-raw ! clocksync ! e2eeseal name=seal-text track=titles ! out.",
            titles.display()
        ),
    )?;
    let mut watches = stage.pipeline(
        &bob,
        "meetingkey meetingsrc name=in in.video_0 ! queue ! e2eeopen name=open ! tee name=t \
         t. ! queue ! fakesink async=false t. ! queue ! filesink location=/dev/null async=false",
    )?;
    watches.until("Bob's frames", |stats| stats.get("open", "opened") >= 45)?;
    bobs.until_it_has_keys()?;
    talks.until("three seconds", |stats| {
        stats.get("seal", "sealed") >= 60 && stats.get("seal-text", "sealed") >= 3
    })?;
    drop((talks, watches));

    let view = stage.relay.view()?;
    assert!(view.len() > 20_000, "the relay saw only {} bytes", view.len());
    let secret = link.split_once('#').map(|(_, secret)| &secret[..43]).unwrap_or_default();
    for canary in [
        "Canary",
        "clear words",
        "label-canary",
        "x264 - core",
        "video/x-h264",
        "text/x-raw",
        "stream-format",
        "microphone",
        secret,
    ] {
        assert!(!holds(&view, canary), "{canary:?} stands in what the relay saw");
    }
    assert!(bobs.count() > 0 && !bobs.finds_a_key_in(&view), "a key stands in what the relay saw");
    // It saw all of that, and whoever has a key finds it there by the same search.
    let frames = stage.relay.seen()?.into_iter().filter_map(|seen| seen.frame);
    let open: Vec<_> = frames.filter_map(|frame| bobs.open(&frame.sealed)).collect();
    for canary in [WORDS, "x264 - core"] {
        assert!(
            open.iter().any(|frame| holds(frame, canary)),
            "{canary:?} stands in no frame that was opened"
        );
    }
    let log = fs::read_to_string(stage.folder().join("relay/log"))?;
    assert!(!log.contains("Canary") && !log.contains(secret), "the relay's log: {log}");
    for agent in [&alice, &bob] {
        assert!(
            !agent.log().contains(secret) && !agent.log().contains("Canary"),
            "an agent's log: {}",
            agent.log()
        );
    }
    Ok(())
}

fn holds(bytes: &[u8], canary: &str) -> bool {
    bytes.windows(canary.len()).any(|window| window == canary.as_bytes())
}

//! All that a relay sees of a meeting holds no plaintext, no key, no name.

use anyhow::Result;
use rig::{Hoarder, Stage};

#[test]
fn the_relays_whole_view_contains_no_plaintext_and_no_key() -> Result<()> {
    let stage = Stage::open()?;
    let (alice, bob) = (stage.agent("Alicia-Canary")?, stage.agent("Roberto-Canary")?);
    let link = alice.create(&stage)?;
    bob.join(&link)?;
    let bobs = Hoarder::start(&bob.socket())?;
    // A subtitle track makes the plaintext searchable as it is; H.264 carries the encoder's signature.
    let mut talks = stage.pipeline(
        &alice,
        "meetingkey meetingsink name=out \
         videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=15/1 \
           ! x264enc tune=zerolatency key-int-max=15 ! e2eeseal name=seal track=label-canary ! out. \
         audiotestsrc is-live=true wave=silence ! opusenc ! e2eeseal name=seal-audio ! out.",
    )?;
    let mut watches = stage.pipeline(
        &bob,
        "meetingkey meetingsrc name=in in.video_0 ! queue ! e2eeopen name=open ! tee name=t \
         t. ! queue ! fakesink async=false t. ! queue ! filesink location=/dev/null async=false",
    )?;
    watches.until("Bob's frames", |stats| stats.get("open", "opened") >= 45)?;
    bobs.until_it_has_keys()?;
    talks.until("three seconds", |stats| stats.get("seal", "sealed") >= 60)?;
    drop((talks, watches));

    let view = stage.relay.view()?;
    assert!(view.len() > 20_000, "the relay saw only {} bytes", view.len());
    let secret = link.split_once('#').map(|(_, secret)| &secret[..43]).unwrap_or_default();
    for canary in
        ["Canary", "label-canary", "x264 - core", "video/x-h264", "stream-format", "microphone", secret]
    {
        let found = view.windows(canary.len()).any(|window| window == canary.as_bytes());
        assert!(!found, "{canary:?} stands in what the relay saw");
    }
    assert!(bobs.count() > 0 && !bobs.finds_a_key_in(&view), "a key stands in what the relay saw");
    let open: Vec<_> = stage.relay.seen()?.into_iter().filter_map(|seen| seen.frame).collect();
    assert!(open.iter().any(|frame| bobs.opens(&frame.sealed)), "the recorded frames are the sealed ones");
    let log = std::fs::read_to_string(stage.folder().join("relay/log"))?;
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

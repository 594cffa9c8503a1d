//! Clients whose address changes in the middle of a meeting, and ways that become narrow.

use std::time::Duration;

use anyhow::{Result, ensure};
use rig::{Agent, Proxy, Stage, Way, Weather, until};

use super::{TALKS, epoch, hearing, ids, one_meeting, opened};

#[test]
fn who_gets_another_address_stays_in_the_meeting() -> Result<()> {
    let stage = Stage::with_books()?;
    let (alice, bob, carol) = (stage.agent("Alice")?, stage.agent("Bob")?, stage.agent("Carol")?);
    let (alices, bobs) = (Proxy::start(stage.relay.address)?, Proxy::start(stage.relay.address)?);
    let link = alice.create_at(&alices.address.to_string(), &stage.relay.certificate, &[])?;
    bob.join(&bobs.bend(&link)?)?;
    let straight = link.replace(&alices.address.to_string(), &stage.relay.address.to_string());
    carol.join(&straight)?;
    let (mut hears_bob, mut hears_alice) =
        (stage.pipeline(&carol, &hearing("Bob"))?, stage.pipeline(&bob, &hearing("Alice"))?);
    let _talk = (stage.pipeline(&alice, TALKS)?, stage.pipeline(&bob, TALKS)?);
    hears_bob.until("Bob's voice", |stats| opened(stats) > 50)?;
    hears_alice.until("Alice's voice", |stats| opened(stats) > 50)?;
    let before = (bob.code()?, ids(&bob)?, epoch(&bob)?);

    // First who speaks and hears, then the leader, then both at once.
    for moving in [&[&bobs][..], &[&alices], &[&alices, &bobs]] {
        for proxy in moving {
            proxy.rebind()?;
        }
        let so_far = (opened(&hears_bob.stats()), opened(&hears_alice.stats()));
        hears_bob.until("Bob's voice from elsewhere", |stats| opened(stats) > so_far.0 + 150)?;
        hears_alice.until("Alice's voice elsewhere", |stats| opened(stats) > so_far.1 + 150)?;
    }
    one_meeting(&[&alice, &bob, &carol], 3)?;
    assert_eq!((bob.code()?, ids(&bob)?, epoch(&bob)?), before);
    for agent in [&alice, &bob, &carol] {
        assert_eq!(calls(agent), 1, "the connection went along: {}", agent.log());
    }

    // Membership goes on too: somebody comes, and a key reaches those who moved.
    let dave = stage.agent("Dave")?;
    dave.join(&straight)?;
    until("Dave at everybody's", Duration::from_secs(20), || {
        Ok((ids(&bob)?.len() == 4 && ids(&alice)?.len() == 4).then_some(()))
    })?;
    let so_far = opened(&hears_bob.stats());
    hears_bob.until("Bob's voice under the next key", |stats| opened(stats) > so_far + 50)?;
    stage.check_books().map(drop)
}

#[test]
fn a_way_that_swallows_long_packets_costs_nobody_the_meeting() -> Result<()> {
    let stage = Stage::with_books()?;
    let (alice, bob, carol) = (stage.agent("Alice")?, stage.agent("Bob")?, stage.agent("Carol")?);
    let relay = stage.relay.address;
    let narrow = Weather { longest: Some(1_200), ..Weather::default() };
    let ways = [Way::start(relay, Weather::default(), 1)?, Way::start(relay, Weather::default(), 2)?];
    let link = alice.create_at(&ways[0].address.to_string(), &stage.relay.certificate, &[])?;
    bob.join(&ways[1].bend(&link)?)?;
    let mut watches = stage.pipeline(&bob, WATCHES)?;
    let _shows = stage.pipeline(&alice, SHOWS)?;
    // Long enough for both ends to find out that longer packets come through.
    watches.until("Alice's picture and voice", |stats| seen(stats) > 60)?;
    let (before, lost) = ((bob.code()?, ids(&bob)?), ways.each_ref().map(|way| way.packets().1));

    // What QUIC may count on, and not a byte more, and nobody says so to those who send more.
    ways.iter().for_each(|way| way.turn(narrow));
    let so_far = seen(&watches.stats());
    watches.until("Alice's picture and voice on the narrow way", |stats| seen(stats) > so_far + 90)?;
    let swallowed = [0, 1].map(|n| ways[n].packets().1 - lost[n]);
    println!("the two ways swallowed {swallowed:?} packets");
    ensure!(swallowed.iter().sum::<u64>() > 0, "nothing was too long");
    assert_eq!((bob.code()?, ids(&bob)?), before);
    for agent in [&alice, &bob] {
        assert_eq!(calls(agent), 1, "nobody was cut off: {}", agent.log());
    }

    // Who comes by such a way from the beginning is in too, with a key that all have.
    let third = Way::start(relay, narrow, 3)?;
    carol.join(&third.bend(&link)?)?;
    one_meeting(&[&alice, &bob, &carol], 3)?;
    let mut carol_watches = stage.pipeline(&carol, WATCHES)?;
    carol_watches.until("Alice's picture and voice at Carol's", |stats| seen(stats) > 30)?;
    stage.check_books().map(drop)
}

/// Pictures that take many packets, and a voice.
const SHOWS: &str = "meetingkey meetingsink name=out \
    videotestsrc is-live=true pattern=snow ! video/x-raw,width=320,height=180,framerate=15/1 \
      ! x264enc tune=zerolatency speed-preset=ultrafast bitrate=1000 key-int-max=15 ! e2eeseal track=camera ! out. \
    audiotestsrc is-live=true samplesperbuffer=960 ! audio/x-raw,rate=48000 ! opusenc ! e2eeseal track=microphone ! out.";
const WATCHES: &str = "meetingkey meetingsrc name=in participant=Alice \
    in.video_0 ! queue ! e2eeopen name=picture ! fakesink async=false sync=false \
    in.audio_0 ! queue ! e2eeopen name=voice ! fakesink async=false sync=false";

/// Frames that were opened of picture or voice, whichever has fewer.
fn seen(stats: &rig::Stats) -> u64 {
    stats.get("picture", "opened").min(stats.get("voice", "opened"))
}

/// How often an agent connected to the relay.
fn calls(agent: &Agent) -> usize {
    agent.log().matches("connected to the relay").count()
}

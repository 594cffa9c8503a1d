//! What `e2eeopen` and `e2eeseal` do with frames and pipelines that are wrong, with real agents behind them.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use gst::prelude::*;
use meeting_wire::{Envelope, StreamId};
use rig::{Agent, EvilRelay, Fate, Stage, Stats, until};

const TALK: &str = "meetingkey audiotestsrc is-live=true samplesperbuffer=960 ! audio/x-raw,rate=48000 ! opusenc \
     ! e2eeseal name=seal ! meetingsink";

/// Longer than a frame that comes twice takes to come again, and than counters take to be shown.
const LAGS: Duration = Duration::from_secs(3);

const H264: &str = "video/x-h264,stream-format=byte-stream";

#[test]
fn a_tampered_and_a_replayed_frame_do_not_come_through() -> Result<()> {
    let (stage, _alice, bob, mut talks) = two_talking()?;
    let watches = in_process(&stage, &bob, |socket| {
        format!(
            "meetingkey agent={socket} meetingsrc agent={socket} name=in in.audio_0 ! queue ! identity name=wire \
             ! e2eeopen name=open ! fakesink name=sink async=false sync=false"
        )
    })?;
    // Of each ten frames one is tampered with and one comes twice.
    let wire = watches.by_name("wire").and_then(|wire| wire.static_pad("src")).context("no pad")?;
    let count = Arc::new(Mutex::new((0_u64, None::<gst::Buffer>)));
    wire.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let mut count = count.lock().expect("no panic under the lock");
        count.0 += 1;
        if let Some(buffer) = info.buffer_mut() {
            match count.0 % 10 {
                3 => count.1 = Some(buffer.copy_deep().expect("a copy")),
                4 => {
                    let replayed = count.1.take().expect("kept one before");
                    let (pts, dts) = (buffer.pts(), buffer.dts());
                    *buffer = replayed;
                    buffer.make_mut().set_pts(pts);
                    buffer.make_mut().set_dts(dts);
                }
                7 => {
                    let mut map = buffer.make_mut().map_writable().expect("writable");
                    let last = map.len() - 1;
                    map[last] ^= 1;
                }
                _ => {}
            }
        }
        gst::PadProbeReturn::Ok
    });
    watches.set_state(gst::State::Playing)?;
    let stats = stats_until(&watches, "open", |get| get("opened") > 80)?;
    assert!(stats.get::<u64>("forged")? >= 5, "{stats}");
    assert!(stats.get::<u64>("replayed")? >= 5, "{stats}");
    let failures = element_messages(&watches, "e2ee-open-failure");
    let reasons: Vec<String> = failures.iter().filter_map(|s| s.get::<String>("reason").ok()).collect();
    assert!(reasons.iter().any(|reason| reason == "forged"), "{failures:?}");
    assert!(failures.len() < 20, "messages are throttled: {}", failures.len());
    assert!(
        failures.iter().any(|s| s.get::<String>("name").is_ok_and(|name| name == "Alice")),
        "{failures:?}"
    );
    watches.set_state(gst::State::Null)?;
    talks.until("Alice to go on", |stats| stats.get("seal", "sealed") > 100)?;
    Ok(())
}

#[test]
fn a_relay_that_delivers_all_frames_twice_adds_none() -> Result<()> {
    const VOICE: StreamId = StreamId(1);
    const FRAMES: u64 = 500;
    let stage = Stage::open()?;
    let (alice, bob) = (stage.agent("Alice")?, stage.agent("Bob")?);
    let evil = EvilRelay::start(stage.relay.address)?;
    let link = alice.create(&stage)?;
    bob.join(&evil.bend(&link)?)?;
    let _talks = stage.pipeline(&alice, &TALK.replace("name=seal", "track=voice"))?;
    let passed = Arc::new(AtomicU64::new(0));
    let counts = passed.clone();
    // All streams, beacons too; of the voice so many frames, and then no more.
    evil.decide(move |stream, _| {
        let one = u64::from(stream == VOICE);
        let count = counts.fetch_add(one, Ordering::Relaxed) + one;
        if stream == VOICE && count > FRAMES {
            return Fate::Drop;
        }
        Fate::Twice(Duration::from_millis(count.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53))
    });
    let mut hears =
        stage.pipeline(&bob, "meetingkey meetingsrc track=voice ! e2eeopen name=open ! fakesink")?;
    until("all frames to be on their way", Duration::from_secs(40), || {
        Ok((passed.load(Ordering::Relaxed) >= FRAMES).then_some(()))
    })?;
    // Some may be lost on the way, as datagrams are.
    hears.until("all of them", |stats| stats.get("open", "opened") >= FRAMES - 5)?;
    std::thread::sleep(LAGS);
    let opened = hears.stats().get("open", "opened");
    println!("of {FRAMES} frames that came twice {opened} were opened");
    assert!(opened <= FRAMES, "{opened} of {FRAMES} frames came out");
    Ok(())
}

#[test]
fn what_was_opened_before_a_crash_never_opens_again() -> Result<()> {
    const VOICE: StreamId = StreamId(1);
    const HEARS: &str = "meetingkey meetingsrc track=voice ! e2eeopen name=open ! fakesink";
    let stage = Stage::open()?;
    let (alice, mut bob) = (stage.agent("Alice")?, stage.agent("Bob")?);
    let evil = EvilRelay::start(stage.relay.address)?;
    let link = evil.bend(&alice.create(&stage)?)?;
    bob.join(&link)?;
    let _talks = stage.pipeline(&alice, &TALK.replace("name=seal", "track=voice"))?;
    // The relay keeps all that it passes on: five seconds, of which almost every frame is opened, and after the crash more.
    let passed = Arc::new(Mutex::new(Vec::<Envelope>::new()));
    let limit = Arc::new(AtomicUsize::new(250));
    let (keeps, may) = (passed.clone(), limit.clone());
    evil.decide(move |stream, envelope| {
        if stream != VOICE {
            return Fate::Pass;
        }
        let mut kept = keeps.lock().expect("no panic under the lock");
        if kept.len() >= may.load(Ordering::Relaxed) {
            return Fate::Drop;
        }
        kept.push(envelope.clone());
        Fate::Pass
    });
    let mut hears = stage.pipeline(&bob, HEARS)?;
    let opened = |stats: &Stats| stats.get("open", "opened");
    let begun = opened(&hears.until("Alice's voice", |stats| opened(stats) > 0)?);
    // A pipeline that does not play yet drops what comes.
    let skipped = passed.lock().expect("no panic under the lock").len() as u64 - begun;
    until("five seconds of Alice to be on their way", Duration::from_secs(40), || {
        Ok((passed.lock().expect("no panic under the lock").len() >= 250).then_some(()))
    })?;
    // Some may be lost before they get there, or for want of room in a pipeline that stood still.
    let _ = until("the last of them", Duration::from_secs(5), || {
        Ok((opened(&hears.stats()) + skipped > 245).then_some(()))
    });
    let unopened = 250 - opened(&hears.kill()?);
    assert!(unopened < skipped + 5, "{unopened} of 250 frames were not opened, {skipped} before it played");

    // First the pipeline alone was killed, then the agent too, which comes back to a key of its own.
    for agent_too in [false, true] {
        if agent_too {
            bob.kill()?;
            bob.restart()?;
            bob.join(&link)?;
        }
        let old = std::mem::take(&mut *passed.lock().expect("no panic under the lock"));
        limit.store(usize::MAX, Ordering::Relaxed);
        let mut hears = stage.pipeline(&bob, HEARS)?;
        hears.until("Alice again", |stats| opened(stats) > 0)?;
        for envelope in &old {
            evil.inject(VOICE, envelope.clone())?;
        }
        let so_far = opened(&hears.stats());
        hears.until("Alice after the old frames", |stats| opened(stats) > so_far + 100)?;
        let opened = opened(&hears.finish()?);
        let new = passed.lock().expect("no panic under the lock").len() as u64;
        println!("{} old frames again: {opened} opened, {new} were new", old.len());
        assert!(old.len() > 50, "only {} frames were there to play again", old.len());
        assert!(opened <= new + unopened, "{opened} opened, {new} were new, {unopened} not opened before");
    }
    Ok(())
}

#[test]
fn damaged_media_of_a_member_end_the_decoder_that_takes_them_at_most() -> Result<()> {
    const SOUND: &str = "audiotestsrc is-live=true samplesperbuffer=960 ! audio/x-raw,rate=48000";
    const PICTURES: &str = "videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=30/1";
    let codecs = [
        ("opus", "opusdec", format!("{SOUND} ! opusenc")),
        ("vp8", "vp8dec", format!("{PICTURES} ! vp8enc deadline=1 keyframe-max-dist=15")),
        ("h264", "avdec_h264", format!("{PICTURES} ! x264enc tune=zerolatency key-int-max=15 ! {H264}")),
    ];
    let stage = Stage::open()?;
    let [alice, bob, eve] = ["Alice", "Bob", "Eve"].map(|name| stage.agent(name));
    let (alice, bob, eve) = (alice?, bob?, eve?);
    let link = alice.create(&stage)?;
    bob.join(&link)?;
    eve.join(&link)?;
    let _talks = stage.pipeline(&alice, TALK)?;
    let from = |whom: &str| format!("meetingkey meetingsrc {whom} ! e2eeopen name=open");
    let mut hears = stage.pipeline(&bob, &format!("{} ! fakesink", from("participant=Alice")))?;
    for (name, decoder, encoder) in codecs {
        // One byte in two hundred is another one, and then sealed as a member may.
        let damaged = format!("{encoder} ! breakmydata seed=7 probability=0.005 ! e2eeseal track={name}");
        let _eves = stage.pipeline(&eve, &format!("meetingkey {damaged} ! meetingsink"))?;
        let eves = from(&format!("track={name}"));
        let mut opens = stage.pipeline(&bob, &format!("{eves} ! fakesink"))?;
        let decodes = format!("{eves} ! queue name=decode-queue ! {decoder} name=decode ! fakesink");
        let mut decodes = stage.pipeline(&bob, &decodes)?;
        let so_far = decodes.until("something to decode", |stats| stats.get("open", "opened") > 0)?;
        let opened = |stats: &rig::Stats| stats.get("open", "opened");
        let after = opened(&opens.stats()) + 150;
        let stats = opens.until("the other pipeline to go on", |stats| opened(stats) > after)?;
        assert_eq!(stats.get("open", "forged"), 0, "it is what Eve sealed");
        let log = decodes.log();
        let fails = |line: &&str| line.starts_with("Error: ") || line.contains("panicked");
        println!("{name}: {:?} frames to decode, then {:?}", opened(&so_far), log.lines().find(fails));
        assert!(log.lines().filter(fails).all(|line| line.starts_with("Error: decode")), "{log}");
        let so_far = opened(&hears.stats());
        hears.until("Alice, still", |stats| opened(stats) > so_far + 50)?;
    }
    assert_eq!(bob.status()?["phase"], "live");
    Ok(())
}

#[test]
fn plaintext_pushed_into_e2eeopen_does_not_come_through() -> Result<()> {
    let (stage, _alice, bob, _talks) = two_talking()?;
    let pipeline = in_process(&stage, &bob, |socket| {
        format!(
            "meetingkey agent={socket} appsrc name=in format=time ! e2eeopen name=open \
             ! fakesink name=sink sync=false async=false"
        )
    })?;
    let source = pipeline.by_name("in").and_downcast::<gst_app::AppSrc>().context("no appsrc")?;
    let caps =
        "application/x-sframe, original-media-type=(string)audio/x-opus, channel-mapping-family=(int)0";
    source.set_caps(Some(&caps.parse()?));
    for n in 0_u8..50 {
        // What an encoder, or a relay that would like to be believed, might send: Opus silence among it.
        source.push_buffer(gst::Buffer::from_slice(vec![
            n.wrapping_mul(5),
            0xff,
            0xfe,
            n,
            n,
            n,
            n,
            n,
            n,
            n,
        ]))?;
        source.push_buffer(gst::Buffer::from_slice([0xf8, 0xff, 0xfe]))?;
    }
    source.end_of_stream()?;
    pipeline.set_state(gst::State::Playing)?;
    let bus = pipeline.bus().context("no bus")?;
    let end = bus.timed_pop_filtered(
        gst::ClockTime::from_seconds(60),
        &[gst::MessageType::Eos, gst::MessageType::Error],
    );
    assert!(
        end.is_some_and(|message| message.type_() == gst::MessageType::Eos),
        "no error, no hang: dropped"
    );
    let stats = pipeline.by_name("open").context("no element")?.property::<gst::Structure>("stats");
    assert_eq!(stats.get::<u64>("opened")?, 0, "{stats}");
    let sink = pipeline.by_name("sink").context("no sink")?.property::<gst::Structure>("stats");
    assert_eq!(sink.get::<u64>("rendered")?, 0, "{sink}");
    pipeline.set_state(gst::State::Null)?;
    Ok(())
}

#[test]
fn without_a_meetingkey_the_error_names_it() -> Result<()> {
    let stage = Stage::open()?;
    let alice = stage.agent("Alice")?;
    let pipeline = stage.pipeline(&alice, "audiotestsrc is-live=true ! opusenc ! e2eeseal ! fakesink")?;
    let said = pipeline.wait_for_failure(Duration::from_secs(20))?;
    assert!(said.contains("meetingkey"), "{said}");
    Ok(())
}

#[test]
fn without_a_meeting_or_an_agent_the_error_names_the_command_to_type() -> Result<()> {
    let stage = Stage::open()?;
    let mut alice = stage.agent("Alice")?;
    let said = stage.pipeline(&alice, TALK)?.wait_for_failure(Duration::from_secs(20))?;
    assert!(said.contains("meeting-agent join"), "no meeting: {said}");
    alice.stop()?;
    let said = stage.pipeline(&alice, TALK)?.wait_for_failure(Duration::from_secs(20))?;
    assert!(said.contains("meeting-agent run"), "no agent: {said}");
    Ok(())
}

#[test]
fn two_meetings_in_one_process_keep_their_keys_apart() -> Result<()> {
    let stage = Stage::open()?;
    let alice = stage.agent("Alice")?;
    let (one, two) = (alice.create(&stage)?, alice.create(&stage)?);
    let id = |link: &str| link.split(['/', '#']).nth(3).map(str::to_owned).context("no id in the link");
    let (one_id, two_id) = (id(&one)?, id(&two)?);
    let said = stage.pipeline(&alice, TALK)?.wait_for_failure(Duration::from_secs(20))?;
    assert!(said.contains(&one_id) && said.contains(&two_id), "with several the error lists them: {said}");

    let (bob, carol) = (stage.agent("Bob")?, stage.agent("Carol")?);
    bob.join(&one)?;
    carol.join(&two)?;
    // One pipeline of Alice's, one process, both meetings: a tone of its own in each.
    let talk = |meeting: &str, hz: u32| {
        format!(
            "meetingkey meeting={meeting} audiotestsrc is-live=true freq={hz} ! opusenc \
             ! e2eeseal meeting={meeting} ! meetingsink meeting={meeting} "
        )
    };
    let _talks = stage.pipeline(&alice, &(talk(&one_id, 440) + &talk(&two_id, 880)))?;
    for (agent, hz) in [(&bob, 440.0), (&carol, 880.0)] {
        let file = stage.folder().join(format!("{}.mkv", agent.name()));
        let mut hears = stage.pipeline(
            agent,
            &format!(
                "meetingkey meetingsrc name=in in.audio_0 ! queue ! e2eeopen name=open ! opusparse ! matroskamux \
                 ! filesink location={}",
                file.display()
            ),
        )?;
        hears.until("3 s of sound", |stats| stats.get("open", "opened") > 150)?;
        let stats = hears.finish()?;
        assert_eq!(stats.get("open", "forged") + stats.get("open", "mismatch"), 0, "{}", stats.0);
        let sound = rig::media::sound(&file)?;
        let heard = rig::media::pitch(&sound[sound.len() / 2..]);
        assert!((heard - hz).abs() <= 2.0, "{} heard {heard} Hz, not {hz}", agent.name());
    }
    Ok(())
}

fn two_talking() -> Result<(Stage, Agent, Agent, rig::Pipeline)> {
    let stage = Stage::open()?;
    let (alice, bob) = (stage.agent("Alice")?, stage.agent("Bob")?);
    let link = alice.create(&stage)?;
    bob.join(&link)?;
    let mut talks = stage.pipeline(&alice, TALK)?;
    talks.until("the first frame", |stats| stats.get("seal", "sealed") > 0)?;
    Ok((stage, alice, bob, talks))
}

/// A pipeline inside the test, for tests that reach into it.
fn in_process(stage: &Stage, agent: &Agent, describe: impl Fn(&str) -> String) -> Result<gst::Pipeline> {
    static PLUGIN: OnceLock<bool> = OnceLock::new();
    gst::init()?;
    let path = stage.programs().plugin_path()?;
    PLUGIN.get_or_init(|| gst::Registry::get().scan_path(path));
    let description = describe(&agent.socket().to_string_lossy());
    gst::parse::launch(&description)?.downcast().map_err(|_| anyhow::anyhow!("not a pipeline"))
}

fn stats_until(
    pipeline: &gst::Pipeline,
    element: &str,
    wanted: impl Fn(&dyn Fn(&str) -> u64) -> bool,
) -> Result<gst::Structure> {
    let element = pipeline.by_name(element).context("no such element")?;
    until("the counters", Duration::from_secs(20), || {
        let stats = element.property::<gst::Structure>("stats");
        let get = |field: &str| stats.get::<u64>(field).unwrap_or(0);
        Ok(wanted(&get).then(|| stats.clone()))
    })
}

fn element_messages(pipeline: &gst::Pipeline, name: &str) -> Vec<gst::Structure> {
    let Some(bus) = pipeline.bus() else {
        return Vec::new();
    };
    bus.iter()
        .filter_map(|message| match message.view() {
            gst::MessageView::Element(element) => element.structure().map(ToOwned::to_owned),
            _ => None,
        })
        .filter(|structure| structure.name() == name)
        .collect()
}

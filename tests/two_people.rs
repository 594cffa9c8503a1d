//! Alice and Bob hear and see each other, with real codecs and real processes.

use std::path::Path;

use anyhow::Result;
use rig::{Stage, media};

/// Frames of film compared: 6 s.
const FRAMES: u64 = 150;

#[test]
fn two_people_hear_and_see_each_other() -> Result<()> {
    let stage = Stage::open()?;
    let (alice, bob) = (stage.agent("Alice")?, stage.agent("Bob")?);
    let link = alice.create(&stage)?;
    bob.join(&link)?;
    assert_eq!(alice.code()?, bob.code()?, "both read the same code");

    let film = Path::new(env!("CARGO_MANIFEST_DIR")).join("../out/film.mkv");
    // Alice shows the film in H.264 with a 440 Hz tone, Bob a test picture in VP8 with 660 Hz.
    let mut shows_film = stage.pipeline(&alice, &publishing(&film_source(&film), h264(), 440))?;
    let mut shows_pattern = stage.pipeline(&bob, &publishing(pattern(), vp8(), 660))?;
    let (alice_file, bob_file) = (stage.folder().join("alice.mkv"), stage.folder().join("bob.mkv"));
    let mut bob_watches = stage.pipeline(&bob, &recording(&bob_file, "h264parse"))?;
    let mut alice_watches = stage.pipeline(&alice, &recording(&alice_file, "identity"))?;
    for (watches, of) in [(&mut bob_watches, "the film"), (&mut alice_watches, "the pattern")] {
        watches.until(of, |stats| stats.get("open-video", "opened") >= FRAMES / 2)?;
    }
    shows_film.until("6 s of film", |stats| stats.get("seal-video", "sealed") >= FRAMES)?;
    shows_pattern.until("6 s of pattern", |stats| stats.get("seal-video", "sealed") >= FRAMES / 2)?;
    for watches in [bob_watches, alice_watches] {
        let stats = watches.finish()?;
        for refused in ["forged", "replayed", "malformed", "mismatch"] {
            assert_eq!(
                stats.get("open-video", refused) + stats.get("open-audio", refused),
                0,
                "{refused}: {}",
                stats.0
            );
        }
    }

    let source = media::pictures(&film, 320, 180, 330)?;
    let seen = media::pictures(&bob_file, 320, 180, usize::MAX)?;
    assert!(seen.len() >= FRAMES as usize / 2, "Bob's file holds only {} pictures", seen.len());
    // Each picture is compared with the film's most alike one, around the place where the last one was found.
    let best = |picture: &media::Picture| source.iter().map(|s| media::psnr(s, picture)).fold(0.0, f64::max);
    let mut ratios: Vec<f64> = seen.iter().step_by(5).map(best).collect();
    ratios.sort_by(f64::total_cmp);
    assert!(
        ratios[ratios.len() / 20] > 30.0,
        "PSNR from {:.1} to {:.1} dB",
        ratios[0],
        ratios[ratios.len() - 1]
    );

    for (file, pitch) in [(&bob_file, 440.0), (&alice_file, 660.0)] {
        let sound = media::sound(file)?;
        let heard = media::pitch(&sound[sound.len() / 2..]);
        assert!((heard - pitch).abs() <= 2.0, "{}: heard {heard} Hz, {pitch} Hz were sent", file.display());
    }
    assert!(media::pictures(&alice_file, 320, 180, 30)?.len() == 30, "Alice sees Bob's pattern");
    drop((shows_film, shows_pattern));
    bob.run(&["leave"], "")?;
    alice.until("Bob's leaving", |status| {
        status["people"].as_array().is_some_and(|people| people.len() == 1)
    })?;
    Ok(())
}

fn film_source(film: &Path) -> String {
    format!(
        "filesrc location={} ! matroskademux ! avdec_h264 ! videoconvert ! videoscale method=lanczos \
         ! video/x-raw,width=320,height=180,pixel-aspect-ratio=1/1",
        film.display()
    )
}

fn pattern() -> &'static str {
    "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=180,framerate=15/1"
}

fn h264() -> &'static str {
    "x264enc tune=zerolatency speed-preset=veryfast bitrate=2000 key-int-max=50"
}

fn vp8() -> &'static str {
    "vp8enc deadline=1 target-bitrate=500000 keyframe-max-dist=30"
}

fn publishing(source: &str, encoder: &str, pitch: u32) -> String {
    format!(
        "meetingkey meetingsink name=out \
         {source} ! {encoder} ! e2eeseal name=seal-video track=camera ! out. \
         audiotestsrc is-live=true freq={pitch} volume=0.3 ! audio/x-raw,rate=48000,channels=1 \
           ! opusenc ! e2eeseal name=seal-audio track=microphone ! out."
    )
}

fn recording(file: &Path, parser: &str) -> String {
    format!(
        "meetingkey meetingsrc name=in matroskamux name=mux ! filesink location={} \
         in.video_0 ! queue ! e2eeopen name=open-video ! {parser} ! queue ! mux. \
         in.audio_0 ! queue ! e2eeopen name=open-audio ! opusparse ! queue ! mux.",
        file.display()
    )
}

//! Any codec: what goes into `e2eeseal` comes out of `e2eeopen` on the other side of a real relay, byte for byte and with all
//! that it says of itself, and a real decoder takes it.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use gst::prelude::*;
use rig::{Agent, Frame, Stage, Tap, until};

/// One codec.
struct Row {
    /// Also the label of its track.
    name: &'static str,
    /// From the source to what is sealed.
    encoder: &'static str,
    /// From what is opened to pictures, samples or bytes.
    decoder: &'static str,
    /// What one frame becomes.
    gives: Gives,
    /// What happens in the middle.
    turn: Turn,
    /// Fields of the caps that would not survive on the clear caps alone.
    headers: &'static [&'static str],
    /// Whether pictures are decoded in another order than they are shown in.
    reordered: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Gives {
    /// One picture, or one piece of data.
    One,
    /// Sound as long as it says.
    Sound,
}

#[derive(Clone, Copy)]
enum Turn {
    /// The element `size` gets other caps.
    Caps(&'static str),
    /// The element `source` falls silent.
    Silence,
    /// Some frames are missing, and a GAP event says so.
    Gap,
}

const ROW: Row = Row {
    name: "",
    encoder: "",
    decoder: "",
    gives: Gives::One,
    turn: Turn::Caps("video/x-raw,format=I420,width=96,height=64,framerate=20/1"),
    headers: &[],
    reordered: false,
};

static ROWS: [Row; 17] = [
    Row {
        name: "h264-b-frames",
        encoder: "PICTURES ! x264enc speed-preset=ultrafast bframes=2 b-adapt=false key-int-max=20 rc-lookahead=2 \
                  sync-lookahead=0 ! video/x-h264,stream-format=byte-stream",
        decoder: "avdec_h264",
        reordered: true,
        ..ROW
    },
    Row {
        name: "h264-avc",
        encoder: "PICTURES ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=20 ! video/x-h264,stream-format=avc",
        decoder: "avdec_h264",
        headers: &["codec_data"],
        ..ROW
    },
    Row {
        name: "h265-b-frames",
        encoder: "PICTURES ! x265enc speed-preset=ultrafast key-int-max=20 \
                  option-string=open-gop=0:bframes=2:b-adapt=0:rc-lookahead=4:frame-threads=1 \
                  ! h265parse config-interval=-1 ! video/x-h265,stream-format=byte-stream,alignment=au",
        decoder: "avdec_h265",
        reordered: true,
        ..ROW
    },
    Row {
        name: "h265-hvc1",
        encoder: "PICTURES ! x265enc tune=zerolatency speed-preset=ultrafast key-int-max=20 ! h265parse \
                  ! video/x-h265,stream-format=hvc1,alignment=au",
        decoder: "avdec_h265",
        headers: &["codec_data"],
        ..ROW
    },
    Row {
        name: "vp8",
        encoder: "PICTURES ! vp8enc deadline=1 keyframe-max-dist=20",
        decoder: "vp8dec",
        ..ROW
    },
    Row {
        name: "vp9",
        encoder: "PICTURES ! vp9enc deadline=1 cpu-used=8 lag-in-frames=0 keyframe-max-dist=20",
        decoder: "vp9dec",
        ..ROW
    },
    Row {
        name: "av1",
        encoder: "PICTURES ! av1enc cpu-used=8 usage-profile=realtime lag-in-frames=0 keyframe-max-dist=20 ! av1parse \
                  ! video/x-av1,stream-format=obu-stream,alignment=tu",
        decoder: "av1dec",
        ..ROW
    },
    Row { name: "jpeg", encoder: "PICTURES ! jpegenc", decoder: "jpegdec", ..ROW },
    Row {
        name: "opus",
        encoder: "SOUND,channels=1 ! opusenc",
        decoder: "opusdec",
        gives: Gives::Sound,
        turn: Turn::Caps("audio/x-raw,rate=48000,channels=2"),
        headers: &["streamheader"],
        ..ROW
    },
    Row {
        name: "opus-dtx",
        encoder: "SOUND,channels=1 ! opusenc dtx=true",
        decoder: "opusdec",
        gives: Gives::Sound,
        turn: Turn::Silence,
        headers: &["streamheader"],
        ..ROW
    },
    Row {
        name: "aac",
        encoder: "SOUND,channels=2 ! avenc_aac",
        decoder: "avdec_aac",
        gives: Gives::Sound,
        turn: Turn::Gap,
        headers: &["codec_data"],
        ..ROW
    },
    Row {
        name: "mp3",
        encoder: "SOUND,channels=2 ! lamemp3enc ! mpegaudioparse",
        decoder: "mpg123audiodec",
        gives: Gives::Sound,
        turn: Turn::Gap,
        ..ROW
    },
    Row {
        name: "flac",
        encoder: "SOUND,format=S16LE,channels=2 ! flacenc blocksize=1152",
        decoder: "flacparse ! flacdec",
        gives: Gives::Sound,
        turn: Turn::Gap,
        headers: &["streamheader"],
        ..ROW
    },
    Row {
        name: "raw",
        encoder: "SOUND,format=S16LE,channels=1",
        decoder: "identity",
        gives: Gives::Sound,
        turn: Turn::Caps("audio/x-raw,rate=48000,format=S16LE,channels=2"),
        ..ROW
    },
    Row {
        name: "klv",
        encoder: "fakesrc is-live=true do-timestamp=true format=time sizetype=fixed sizemax=64 filltype=random \
                  ! identity sleep-time=40000 ! meta/x-klv,parsed=true",
        decoder: "identity",
        turn: Turn::Gap,
        ..ROW
    },
    Row {
        name: "subtitles",
        encoder: "filesrc location=SUBTITLES ! subparse",
        decoder: "textrender ! video/x-raw,width=64,height=48",
        turn: Turn::Gap,
        ..ROW
    },
    Row {
        name: "subrip",
        encoder: "filesrc location=SUBTITLES ! subparse ! srtenc",
        decoder: "subparse ! textrender ! video/x-raw,width=64,height=48",
        turn: Turn::Gap,
        ..ROW
    },
];

/// Frames before the turn, and as many behind it.
const HALF: usize = 30;
/// Frames that a gap leaves out.
const MISSING: u32 = 5;
/// Rows that run at the same time.
const AT_ONCE: usize = 4;

#[test]
fn every_codec_crosses_whole_and_decodes() -> Result<()> {
    let stage = Stage::open()?;
    stage.programs().load_plugin()?;
    let (alice, bob) = (stage.agent("Alice")?, stage.agent("Bob")?);
    bob.join(&alice.create(&stage)?)?;
    let subtitles = stage.folder().join("subtitles.srt");
    std::fs::write(&subtitles, srt(600))?;
    let mut failures = Vec::new();
    for rows in ROWS.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            let start = |row: &'static Row| {
                let (alice, bob, subtitles) = (&alice, &bob, &subtitles);
                (row.name, scope.spawn(move || row.run(alice, bob, subtitles)))
            };
            for (name, row) in rows.iter().map(start).collect::<Vec<_>>() {
                match row.join() {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => failures.push(format!("{name}: {error:#}")),
                    Err(_) => failures.push(format!("{name} panicked")),
                }
            }
        });
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// A pipeline of this process, down when dropped.
struct Line(gst::Pipeline);

impl Line {
    fn start(description: &str) -> Result<Self> {
        let pipeline = gst::parse::launch(description).with_context(|| description.to_owned())?;
        let line = Self(pipeline.downcast().map_err(|_| anyhow::anyhow!("not a pipeline"))?);
        Ok(line)
    }

    fn play(&self) -> Result<()> {
        self.0.set_state(gst::State::Playing).map(drop).or_else(|error| self.check().and(Err(error.into())))
    }

    /// An error if one was posted.
    fn check(&self) -> Result<()> {
        let bus = self.0.bus().context("a pipeline without a bus")?;
        while let Some(message) = bus.pop_filtered(&[gst::MessageType::Error, gst::MessageType::Warning]) {
            match message.view() {
                gst::MessageView::Error(error) => bail!("{}: {:?}", error.error(), error.debug()),
                gst::MessageView::Warning(warning) => bail!("{}: {:?}", warning.error(), warning.debug()),
                _ => {}
            }
        }
        Ok(())
    }

    fn element(&self, name: &str) -> Result<gst::Element> {
        self.0.by_name(name).with_context(|| format!("no element {name}"))
    }

    /// Waits for the end of the stream.
    fn until_end(&self) -> Result<()> {
        let bus = self.0.bus().context("a pipeline without a bus")?;
        let kinds = [gst::MessageType::Eos, gst::MessageType::Error, gst::MessageType::Warning];
        let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(20), &kinds);
        match message.as_ref().map(|message| message.view()) {
            Some(gst::MessageView::Eos(_)) => Ok(()),
            Some(gst::MessageView::Error(error)) => bail!("{}: {:?}", error.error(), error.debug()),
            Some(gst::MessageView::Warning(warning)) => bail!("{}: {:?}", warning.error(), warning.debug()),
            _ => bail!("no end of stream"),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}

impl Row {
    fn run(&self, alice: &Agent, bob: &Agent, subtitles: &Path) -> Result<()> {
        let (here, there) = (alice.socket(), bob.socket());
        let receiver = Line::start(&format!(
            "meetingkey agent={agent} meetingsrc agent={agent} participant=Alice track={} ! e2eeopen name=open ! {} \
             ! fakesink name=end sync=false async=false",
            self.name,
            self.decoder,
            agent = there.display()
        ))?;
        let opened = Tap::on(&receiver.0, "open", "src")?;
        let decoded = Tap::on(&receiver.0, "end", "sink")?;
        receiver.play()?;

        let encoder = self
            .encoder
            .replace(
                "PICTURES",
                "videotestsrc name=source is-live=true pattern=ball \
                 ! capsfilter name=size caps=video/x-raw,format=I420,width=160,height=120,framerate=20/1",
            )
            .replace(
                "SOUND",
                "audiotestsrc name=source is-live=true wave=pink-noise volume=0.3 samplesperbuffer=960 \
                 ! capsfilter name=size caps=audio/x-raw,rate=48000,layout=interleaved",
            )
            .replace("SUBTITLES", &subtitles.display().to_string());
        let sender = Line::start(&format!(
            "meetingkey agent={agent} {encoder} ! e2eeseal name=seal track={} ! meetingsink agent={agent}",
            self.name,
            agent = here.display()
        ))?;
        let sealed = Tap::on(&sender.0, "seal", "sink")?;
        let missing = leave_out(&sender.element("seal")?)?;
        sender.play()?;
        // So many have come since, and gone: those that were on their way do not count.
        let reach = |(came, went): (usize, usize)| {
            until(&format!("{HALF} frames more"), Duration::from_secs(30), || {
                receiver.check()?;
                sender.check()?;
                Ok((opened.count() >= came + HALF && sealed.count() >= went + HALF).then_some(()))
            })
        };
        reach((0, 0))?;
        let before = (opened.count(), sealed.count());
        match self.turn {
            Turn::Caps(caps) => {
                sender.element("size")?.set_property("caps", caps.parse::<gst::Caps>()?);
            }
            Turn::Silence => sender.element("source")?.set_property_from_str("wave", "silence"),
            Turn::Gap => missing.store(MISSING, Ordering::Release),
        }
        reach(before)?;
        sender.0.send_event(gst::event::Eos::new());
        sender.until_end().context("the sender")?;
        let sent = sealed.frames();
        drop(sender);
        receiver.until_end().context("the receiver")?;

        let stats = receiver.element("open")?.property::<gst::Structure>("stats");
        for reason in ["forged", "replayed", "malformed", "mismatch"] {
            ensure!(stats.get::<u64>(reason)? == 0, "{stats}");
        }
        self.compare(&sent, &opened.frames())?;
        self.count(&opened.frames(), &decoded.frames())
    }

    /// Holds what came out against what went in.
    fn compare(&self, sent: &[Frame], got: &[Frame]) -> Result<()> {
        let mut last: Option<(usize, i64)> = None;
        let (mut exact, mut steps, mut lost) = (0, 0, 0);
        for (n, frame) in got.iter().enumerate() {
            let (place, twin) =
                twin(sent, last, frame).with_context(|| format!("{n} is none of the frames sent"))?;
            let missing = last.map_or(0, |(last, _)| place - last - 1);
            lost += missing;
            ensure!(frame.caps == twin.caps, "{n}: {:?}, not {:?}", frame.caps, twin.caps);
            let kept = gst::BufferFlags::DELTA_UNIT
                | gst::BufferFlags::HEADER
                | gst::BufferFlags::MARKER
                | gst::BufferFlags::DROPPABLE;
            ensure!(frame.flags & kept == twin.flags & kept, "{n}: {:?}, not {:?}", frame.flags, twin.flags);
            let discont = |frame: &Frame| frame.flags.contains(gst::BufferFlags::DISCONT);
            ensure!(discont(frame) || !discont(twin), "{n} hides a discontinuity");
            ensure!(!discont(frame) || discont(twin) || missing > 0 || n == 0, "{n} makes one up");
            ensure!(frame.duration == twin.duration, "{n}: {:?}, not {:?}", frame.duration, twin.duration);
            let (Some(pts), Some(twin_pts)) = (frame.pts, twin.pts) else {
                last = Some((place, last.map_or(0, |(_, offset)| offset)));
                continue;
            };
            if let Some(dts) = frame.dts {
                ensure!(
                    twin.dts.is_some_and(|twin| twin - twin_pts == dts - pts),
                    "{n}: {frame:?}, not {twin:?}"
                );
            } else {
                // Of sound only times that differ are carried.
                ensure!(
                    (self.gives == Gives::Sound && twin.dts == twin.pts) || twin.dts.is_none(),
                    "{n}: {frame:?}, not {twin:?}"
                );
            }
            if let Some((_, offset)) = last {
                steps += 1;
                exact += usize::from(offset == pts - twin_pts);
            }
            last = Some((place, pts - twin_pts));
        }
        ensure!(lost * 10 <= got.len(), "{lost} frames were lost between {}", got.len());
        // The receiver's timeline moves for a frame that came quicker than all before, and for no other.
        ensure!(exact * 3 >= steps * 2, "only {exact} of {steps} distances are those of the sender");

        let caps: Vec<_> = got.iter().filter_map(|frame| frame.caps.as_ref()).collect();
        for header in self.headers {
            let all = caps.iter().all(|caps| caps.structure(0).is_some_and(|caps| caps.has_field(*header)));
            ensure!(all, "caps without {header}: {:?}", caps.first());
        }
        let turned = match self.turn {
            Turn::Caps(_) => caps.first() != caps.last(),
            Turn::Silence => got.iter().filter(|frame| frame.len <= 2).count() > 5,
            Turn::Gap => got.windows(2).any(|pair| match (pair[0].pts, pair[1].pts, pair[0].duration) {
                (Some(first), Some(second), Some(duration)) => second - first > 3 * duration,
                (Some(first), Some(second), None) => second - first > 100_000_000,
                _ => false,
            }),
        };
        ensure!(turned, "the turn in the middle did not arrive");
        let reordered = got.windows(2).any(|pair| pair[1].pts < pair[0].pts);
        let apart = got.iter().any(|frame| frame.dts.is_some() && frame.dts != frame.pts);
        ensure!(
            !self.reordered || (reordered && apart),
            "no picture was shown in another order than decoded"
        );
        Ok(())
    }

    /// Holds what the decoder made against what it was given.
    fn count(&self, opened: &[Frame], decoded: &[Frame]) -> Result<()> {
        if self.gives == Gives::One {
            ensure!(opened.len() == decoded.len(), "{} frames became {}", opened.len(), decoded.len());
            return Ok(());
        }
        let long = |frames: &[Frame]| frames.iter().filter_map(|frame| frame.duration).sum::<i64>();
        let (given, made) = (long(opened), long(decoded));
        // Decoders leave out what encoders put in front, and may hold back a frame of up to 50 ms.
        ensure!((given - made).abs() <= 100_000_000, "{given} ns became {made} ns");
        Ok(())
    }
}

/// The frame that was sent as this one: behind the last, with the same bytes, and if there are several (silence), the one
/// whose time is nearest.
fn twin<'a>(sent: &'a [Frame], last: Option<(usize, i64)>, frame: &Frame) -> Option<(usize, &'a Frame)> {
    let (from, offset) = last.map_or((0, None), |(place, offset)| (place + 1, Some(offset)));
    let alike = sent.iter().enumerate().skip(from).filter(|(_, twin)| twin.hash == frame.hash);
    alike.min_by_key(|(_, twin)| match (frame.pts, twin.pts, offset) {
        (Some(pts), Some(twin), Some(offset)) => (pts - twin - offset).abs(),
        _ => 0,
    })
}

/// Lets as many frames as the number says be missing before an element, with a GAP event for each, and marks the frame
/// behind them.
fn leave_out(element: &gst::Element) -> Result<Arc<AtomicU32>> {
    let pad = element.static_pad("sink").and_then(|pad| pad.peer()).context("no pad before the sealer")?;
    let left = Arc::new(AtomicU32::new(0));
    let leaving = left.clone();
    let behind = AtomicBool::new(false);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let Some(buffer) = info.buffer_mut() else { return gst::PadProbeReturn::Ok };
        if leaving.load(Ordering::Acquire) == 0 {
            if behind.swap(false, Ordering::AcqRel) {
                buffer.make_mut().set_flags(gst::BufferFlags::DISCONT);
            }
            return gst::PadProbeReturn::Ok;
        }
        leaving.fetch_sub(1, Ordering::AcqRel);
        behind.store(true, Ordering::Release);
        if let Some(pts) = buffer.pts() {
            pad.push_event(gst::event::Gap::builder(pts).duration(buffer.duration()).build());
        }
        gst::PadProbeReturn::Drop
    });
    Ok(left)
}

/// So many lines of text, twenty a second.
fn srt(lines: u32) -> String {
    let time = |n: u32| {
        let ms = n * 50;
        format!("00:{:02}:{:02},{:03}", ms / 60_000, ms / 1000 % 60, ms % 1000)
    };
    (0..lines).map(|n| format!("{}\n{} --> {}\nline {n}\n\n", n + 1, time(n), time(n + 1))).collect()
}

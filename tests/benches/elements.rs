//! `e2eeseal ! e2eeopen` beside `srtpenc ! srtpdec` with AES-256-GCM, buffer by buffer.
//!
//! Every contestant gets the same buffers of 1,200 bytes on the same bare pad: RTP packets, header included, so that
//! libsrtp takes them. (SRTP seals the 1,188 bytes behind the header and authenticates it; `e2eeseal` seals all, since a
//! frame is any bytes.) The thread that pushes does all the work, down to `fakesink`. What `none` costs, which is the
//! source, a capsfilter and the sink, is the difference between a pipeline's figure and the elements' own.
//!
//! `rtpsframepay ! rtpsframedepay` stands beside GStreamer's `rtpgstpay ! rtpgstdepay` in the same way.
//!
//! CPU time is the median over rounds in which all take turns. Instructions are counted by callgrind, of two lengths
//! of one run, so that start-up cancels; it shows other CPU features than the machine has, so both are printed.

#![allow(missing_docs)]

use std::{env, process::Command};

use anyhow::{Context, Result, ensure};
use gst::prelude::*;
use rig::bench;

const BYTES: usize = 1_200;
const ROUNDS: usize = 41;
const TURN: usize = 4_000;
/// Lengths of the two runs whose instructions are subtracted.
const COUNTED: [usize; 2] = [1_000, 3_000];

const SFRAME: &str = "e2eeseal ! e2eeopen";
const SRTP: &str = "srtpenc ! srtpdec";
const RTP: &str = "rtpsframepay ! rtpsframedepay";
const RTP_GST: &str = "rtpgstpay ! rtpgstdepay";
const CONTESTANTS: [(&str, &str, &str); 6] = [
    ("none", "video/x-vp8", ""),
    ("identity ! identity", "video/x-vp8", "identity ! identity !"),
    (SFRAME, "video/x-vp8", "e2eeseal ! e2eeopen !"),
    (
        SRTP,
        "application/x-rtp,media=video,clock-rate=90000,encoding-name=VP8,payload=96,ssrc=(uint)1",
        // in the clear here, as it always is with these elements
        "srtpenc key=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b \
         rtp-cipher=aes-256-gcm rtp-auth=null rtcp-cipher=aes-256-gcm rtcp-auth=null ! srtpdec !",
    ),
    (RTP, "application/x-sframe,original-media-type=video/x-vp8", "rtpsframepay ! rtpsframedepay !"),
    (RTP_GST, "video/x-vp8", "rtpgstpay ! rtpgstdepay !"),
];

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().collect();
    if let [_, once, contestant, buffers] = &arguments[..]
        && once == "--once"
    {
        return Lane::new(contestant.parse()?).map(|mut lane| drop(lane.push(buffers.parse().unwrap_or(0))));
    }
    if arguments.iter().any(|argument| argument == "--test") {
        return Ok(());
    }
    let mut lanes = (0..CONTESTANTS.len()).map(Lane::new).collect::<Result<Vec<_>>>()?;
    let mut times = vec![Vec::new(); lanes.len()];
    for round in 0..ROUNDS {
        for n in 0..lanes.len() {
            let n = (n * (1 + round % 2 * 2) + round) % lanes.len();
            lanes[n].push(TURN / 8)?;
            times[n].push(lanes[n].push(TURN)? / TURN as f64);
        }
        bench::progress(&format!("round {} of {ROUNDS}", round + 1));
    }
    drop(lanes);
    let times: Vec<f64> = times.into_iter().map(bench::median).collect();
    table("ns of CPU time per buffer", &times);
    report("CPU time", &times, "ns");

    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("no valgrind found: instructions are not counted");
        return Ok(());
    }
    let mut counts = Vec::new();
    for (n, (name, ..)) in CONTESTANTS.iter().enumerate() {
        bench::progress(&format!("callgrind: {name}"));
        let [short, long] = [instructions(n, COUNTED[0])?, instructions(n, COUNTED[1])?];
        counts.push((long - short) / (COUNTED[1] - COUNTED[0]) as f64);
    }
    table("instructions per buffer", &counts);
    report("instructions", &counts, "");
    Ok(())
}

fn table(what: &str, figures: &[f64]) {
    println!("{what}: the whole pipeline, and without what `none` costs");
    for ((name, ..), figure) in CONTESTANTS.iter().zip(figures) {
        println!("{name:>30} {figure:>8.0} {:>8.0}", figure - figures[0]);
    }
}

fn report(what: &str, figures: &[f64], unit: &str) {
    let how = format!("{what} per buffer of {BYTES} B");
    for (row, less) in [("pipeline", 0.0), ("elements alone", figures[0])] {
        for (ours, theirs, aim) in [(2, 3, "at most 0.5"), (4, 5, "at most 1")] {
            let (ours_cost, theirs_cost) = (figures[ours] - less, figures[theirs] - less);
            bench::figure(
                &format!("{}, {row}", CONTESTANTS[ours].0),
                &format!("{ours_cost:.0} {unit}"),
                CONTESTANTS[theirs].0,
                &format!("{theirs_cost:.0} {unit}"),
                ours_cost / theirs_cost,
                aim,
                &how,
            );
        }
    }
}

/// One contestant in a pipeline that plays, with a bare pad in front.
struct Lane {
    pipeline: gst::Pipeline,
    pad: gst::Pad,
    pushed: u64,
}

impl Lane {
    fn new(contestant: usize) -> Result<Self> {
        bench::load_plugin()?;
        let (name, caps, elements) = CONTESTANTS[contestant];
        let key = if name == SFRAME { "meetingkey loopback=true" } else { "" };
        let pipeline = gst::parse::launch(&format!(
            "{key} capsfilter name=first caps={caps} ! {elements} fakesink async=false enable-last-sample=false"
        ))?
        .downcast::<gst::Pipeline>()
        .map_err(|_| anyhow::anyhow!("not a pipeline"))?;
        let first =
            pipeline.by_name("first").and_then(|first| first.static_pad("sink")).context("a first pad")?;
        pipeline.set_state(gst::State::Playing)?;
        let pad = gst::Pad::new(gst::PadDirection::Src);
        pad.set_active(true)?;
        pad.link(&first)?;
        pad.push_event(gst::event::StreamStart::new("bench"));
        pad.push_event(gst::event::Caps::new(&caps.parse()?));
        pad.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        let mut lane = Self { pipeline, pad, pushed: 0 };
        lane.push(8).with_context(|| format!("the pipeline of {name}"))?;
        let sink = lane.pipeline.iterate_sinks().next().ok().flatten().context("a sink")?;
        let rendered = sink.property::<gst::Structure>("stats").get::<u64>("rendered")?;
        ensure!(rendered == 8, "{name}: {rendered} of 8 buffers came through");
        Ok(lane)
    }

    /// Pushes buffers and gives the CPU time of this thread, in ns.
    fn push(&mut self, buffers: usize) -> Result<f64> {
        let mut packet = [0x5a; BYTES];
        packet[..12].copy_from_slice(&[0x80, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        let mut result = Ok(gst::FlowSuccess::Ok);
        let time = bench::cpu(|| {
            for _ in 0..buffers {
                packet[2..4].copy_from_slice(&(self.pushed as u16).to_be_bytes());
                self.pushed += 1;
                let mut buffer = gst::Buffer::from_slice(packet);
                if let Some(buffer) = buffer.get_mut() {
                    buffer.set_pts(gst::ClockTime::from_useconds(self.pushed));
                }
                result = self.pad.push(buffer);
                if result.is_err() {
                    return;
                }
            }
        });
        result?;
        Ok(time)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// All instructions of a process that pushes so many buffers.
fn instructions(contestant: usize, buffers: usize) -> Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .args(["--once", &contestant.to_string(), &buffers.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "callgrind: {said}");
    let count = said
        .lines()
        .find_map(|line| line.split_once("Collected :"))
        .context("no count in callgrind's words")?;
    Ok(count.1.trim().parse()?)
}

//! What we add to a frame's way: `e2eeseal ! meetingsink`, two agents and a relay, `meetingsrc ! e2eeopen`, on loopback.
//!
//! A frame is pushed into three pipelines at the same moment, in turns: ours, the same without us (`appsrc ! queue !
//! queue ! appsink`), and plain UDP (`udpsink`, `udpsrc`). All sources and sinks are threads of this process, so one clock
//! tells how long each way takes. Added latency is, frame by frame, our way less that of the pipeline without us.

#![allow(missing_docs)]

use std::{
    net::UdpSocket,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use gst::prelude::*;
use rig::{Agent, Stage, bench, until};

const WARM_UP: Duration = Duration::from_secs(2);
const SPAN: Duration = Duration::from_secs(20);

struct Medium {
    name: &'static str,
    caps: &'static str,
    every: Duration,
    bytes: usize,
    /// Frames between two keyframes.
    group: usize,
}

const MEDIA: [Medium; 2] = [
    Medium {
        name: "pictures",
        caps: "video/x-vp8",
        every: Duration::from_micros(33_333),
        bytes: 8_300,
        group: 30,
    },
    Medium { name: "sound", caps: "audio/x-opus", every: Duration::from_millis(20), bytes: 160, group: 1 },
];

fn main() -> Result<()> {
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    bench::load_plugin()?;
    let stage = Stage::open()?;
    let (alice, bob) = (stage.agent("Alice")?, stage.agent("Bob")?);
    bob.join(&alice.create(&stage)?)?;
    for medium in &MEDIA {
        measure(medium, &alice, &bob)?;
    }
    Ok(())
}

fn measure(medium: &Medium, alice: &Agent, bob: &Agent) -> Result<()> {
    let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
    let ways = [
        Way::open(
            medium,
            &format!(
                "meetingkey agent={0} {SOURCE} ! e2eeseal track={1} ! meetingsink agent={0}",
                path(alice),
                medium.name
            ),
            &format!(
                "meetingkey agent={0} meetingsrc agent={0} track={1} ! e2eeopen ! {SINK}",
                path(bob),
                medium.name
            ),
        )?,
        Way::open(medium, &format!("{SOURCE} ! queue ! queue ! {SINK}"), "")?,
        Way::open(
            medium,
            &format!("{SOURCE} ! udpsink host=127.0.0.1 port={port} sync=false async=false"),
            &format!("udpsrc address=127.0.0.1 port={port} ! {SINK}"),
        )?,
    ];
    until("first frames on every way", Duration::from_secs(30), || {
        ways.iter().try_for_each(|way| way.push(0, true))?;
        Ok(ways.iter().all(|way| way.came(0).is_some()).then_some(()))
    })?;

    let frames = (WARM_UP + SPAN).div_duration_f64(medium.every) as usize;
    let mut sent = vec![[Instant::now(); 3]; frames + 1];
    let start = Instant::now();
    for (number, sent) in sent.iter_mut().enumerate().skip(1) {
        thread::sleep((medium.every * number as u32).saturating_sub(start.elapsed()));
        for turn in 0..ways.len() {
            let way = (turn + number) % ways.len();
            sent[way] = Instant::now();
            ways[way].push(number, number % medium.group == 0)?;
        }
        if number % 64 == 0 {
            bench::progress(&format!("{}: frame {number} of {frames}", medium.name));
        }
    }
    // the last frames are on their way; one that was lost never comes
    let _ = until("the last frames", Duration::from_secs(2), || {
        Ok(ways.iter().all(|way| way.came(frames).is_some()).then_some(()))
    });
    bench::progress("");

    let first = frames - SPAN.div_duration_f64(medium.every) as usize;
    let ms = |number: usize, way: usize| {
        let came = ways[way].came(number)?;
        Some((came - sent[number][way]).as_secs_f64() * 1e3)
    };
    let all = |way: usize| (first..=frames).filter_map(|number| ms(number, way)).collect::<Vec<_>>();
    let added: Vec<f64> =
        (first..=frames).filter_map(|number| Some(ms(number, 0)? - ms(number, 1)?)).collect();
    let lost = frames + 1 - first - added.len();
    ensure!(lost * 100 <= frames, "{lost} of {frames} frames did not come");
    println!("{}: ms, {} frames, {lost} lost          p50     p99", medium.name, added.len());
    for (name, times) in [("ours", all(0)), ("without us", all(1)), ("UDP", all(2)), ("added", added.clone())]
    {
        let p99 = bench::percentile(times.clone(), 0.99);
        println!("{name:>30} {:>11.2} {p99:>7.2}", bench::median(times));
    }
    for (name, share, aim) in [("p50", 0.5, "none"), ("p99", 0.99, "under 5 ms")] {
        let (ours, theirs) = (bench::percentile(added.clone(), share), bench::percentile(all(2), share));
        bench::figure(
            &format!("latency added to {}, {name}", medium.name),
            &format!("{ours:.2} ms"),
            "udpsink ! udpsrc, its whole way",
            &format!("{theirs:.2} ms"),
            ours / theirs,
            aim,
            &format!("{} frames of {} B on loopback", added.len(), medium.bytes),
        );
    }
    Ok(())
}

const SOURCE: &str = "appsrc name=in is-live=true format=time do-timestamp=true";
const SINK: &str = "appsink name=out sync=false async=false";

/// From an appsrc to an appsink, in one pipeline or two.
struct Way {
    pipelines: Vec<gst::Pipeline>,
    source: gst_app::AppSrc,
    bytes: usize,
    came: Arc<Mutex<Vec<Option<Instant>>>>,
}

impl Way {
    fn open(medium: &Medium, sends: &str, receives: &str) -> Result<Self> {
        let mut pipelines = Vec::new();
        for description in [receives, sends].into_iter().filter(|description| !description.is_empty()) {
            let pipeline = gst::parse::launch(description)?;
            pipelines
                .push(pipeline.downcast::<gst::Pipeline>().map_err(|_| anyhow::anyhow!("not a pipeline"))?);
        }
        let named = |name| pipelines.iter().find_map(|pipeline| pipeline.by_name(name));
        let source = named("in").and_downcast::<gst_app::AppSrc>().context("an appsrc")?;
        source.set_caps(Some(&medium.caps.parse()?));
        let came = Arc::new(Mutex::new(Vec::new()));
        let noted = came.clone();
        let sink = named("out").and_downcast::<gst_app::AppSink>().context("an appsink")?;
        sink.set_callbacks(
            gst_app::AppSinkCallbacks::builder()
                .new_sample(move |sink| {
                    let now = Instant::now();
                    let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                    let map = sample.buffer().and_then(|buffer| buffer.map_readable().ok());
                    let number = map
                        .as_ref()
                        .and_then(|map| map.first_chunk())
                        .map(|bytes| u64::from_be_bytes(*bytes));
                    note(&mut lock(&noted), number.ok_or(gst::FlowError::Error)? as usize, now);
                    Ok(gst::FlowSuccess::Ok)
                })
                .build(),
        );
        for pipeline in &pipelines {
            pipeline.set_state(gst::State::Playing)?;
        }
        Ok(Self { pipelines, source, bytes: medium.bytes, came })
    }

    fn push(&self, number: usize, keyframe: bool) -> Result<()> {
        let mut bytes = vec![0x5a; self.bytes];
        bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let mut buffer = gst::Buffer::from_mut_slice(bytes);
        if !keyframe {
            buffer.make_mut().set_flags(gst::BufferFlags::DELTA_UNIT);
        }
        self.source.push_buffer(buffer)?;
        Ok(())
    }

    fn came(&self, number: usize) -> Option<Instant> {
        lock(&self.came).get(number).copied().flatten()
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        for pipeline in &self.pipelines {
            let _ = pipeline.set_state(gst::State::Null);
        }
    }
}

fn note(came: &mut Vec<Option<Instant>>, number: usize, now: Instant) {
    if came.len() <= number {
        came.resize(number + 1, None);
    }
    came[number].get_or_insert(now);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn path(agent: &Agent) -> String {
    agent.socket().display().to_string()
}

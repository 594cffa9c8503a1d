//! `gst-launch-1.0 -e` with a memory: runs a pipeline, writes the `stats` of our elements to a file ten times a second,
//! prints their messages, and ends the stream cleanly on Ctrl-C.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use gst::prelude::*;
use serde_json::{Map, Value};
use signal_hook::consts::{SIGINT, SIGTERM};

/// Between two writes of the counters.
const BETWEEN_STATS: Duration = Duration::from_millis(100);
/// For the end of the stream after an interruption.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Parser)]
#[command(about = "Runs a pipeline and keeps count of what our elements do")]
struct Arguments {
    /// Where the counters go, as JSON by element name
    #[arg(long)]
    stats: Option<PathBuf>,
    /// Stays until it is told to end once more when the pipeline has ended and is at rest
    #[arg(long)]
    linger: bool,
    /// As gst-launch-1.0 takes it
    description: String,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    gst::init()?;
    let pipeline = gst::parse::launch(&arguments.description)?
        .downcast::<gst::Pipeline>()
        .map_err(|_| anyhow::anyhow!("the description is one element; a pipeline is needed"))?;
    let result = run(&pipeline, &arguments, &interrupted);
    write_stats(&pipeline, &arguments);
    pipeline.set_state(gst::State::Null)?;
    if arguments.linger && result.is_ok() {
        interrupted.store(false, Ordering::Relaxed);
        println!("at rest");
        while !interrupted.load(Ordering::Relaxed) {
            thread::sleep(BETWEEN_STATS);
        }
    }
    result
}

fn run(pipeline: &gst::Pipeline, arguments: &Arguments, interrupted: &AtomicBool) -> Result<()> {
    let bus = pipeline.bus().context("a pipeline without a bus")?;
    let started = pipeline.set_state(gst::State::Playing);
    let (mut ending, mut written) = (None, Instant::now());
    loop {
        if interrupted.load(Ordering::Relaxed) && ending.is_none() {
            ending = Some(Instant::now());
            pipeline.send_event(gst::event::Eos::new());
        }
        if ending.is_some_and(|since| since.elapsed() > PATIENCE) {
            bail!("no end of stream within {PATIENCE:?} of the interruption");
        }
        // By the clock: parsers and decoders may post so much that the bus is never empty.
        if written.elapsed() >= BETWEEN_STATS {
            write_stats(pipeline, arguments);
            written = Instant::now();
        }
        let Some(message) = bus.timed_pop(gst::ClockTime::from_mseconds(100)) else { continue };
        match message.view() {
            gst::MessageView::Eos(_) => return Ok(()),
            gst::MessageView::Error(error) => {
                bail!("{}: {} ({:?})", name(&message), error.error(), error.debug())
            }
            gst::MessageView::Warning(warning) => println!("warning {}: {}", name(&message), warning.error()),
            gst::MessageView::Element(element) => {
                if let Some(structure) = element.structure().filter(|s| s.name().starts_with("e2ee-")) {
                    println!("{}: {structure}", name(&message));
                }
            }
            gst::MessageView::Latency(_) => {
                let _ = pipeline.recalculate_latency();
            }
            _ => {}
        }
        if started.is_err() && bus.peek().is_none() {
            bail!("the pipeline did not start");
        }
    }
}

fn name(message: &gst::Message) -> String {
    message.src().map(|src| src.name().to_string()).unwrap_or_default()
}

/// Puts all counters of all our elements where a reader never sees half of them.
fn write_stats(pipeline: &gst::Pipeline, arguments: &Arguments) {
    let Some(path) = &arguments.stats else { return };
    let mut all = Map::new();
    for element in pipeline.iterate_recurse().into_iter().flatten() {
        if element.has_property("stats")
            && let Ok(stats) = element.property_value("stats").get::<gst::Structure>()
        {
            let fields = stats.iter().filter_map(|(field, value)| Some((field.to_string(), number(value)?)));
            all.insert(element.name().to_string(), Value::Object(fields.collect()));
        }
    }
    let fresh = path.with_extension("part");
    if fs::write(&fresh, Value::Object(all).to_string()).is_ok() {
        let _ = fs::rename(&fresh, path);
    }
}

fn number(value: &gst::glib::Value) -> Option<Value> {
    value
        .get::<u64>()
        .ok()
        .or_else(|| value.get::<u32>().ok().map(Into::into))
        .or_else(|| value.get::<i64>().ok().and_then(|n| n.try_into().ok()))
        .map(Value::from)
}

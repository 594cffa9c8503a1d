//! What benches have in common: CPU time, medians, and the line that `./benches` makes its table of.

use std::io::Write;

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};

use crate::Programs;

/// Starts GStreamer with the plugin of this build.
pub fn load_plugin() -> Result<()> {
    gst::init()?;
    gst::Plugin::load_file(Programs::find()?.folder().join("libgste2ee.so"))?;
    Ok(())
}

/// CPU time of this thread that `work` took, in ns.
pub fn cpu(work: impl FnOnce()) -> f64 {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
    };
    let start = now();
    work();
    now() - start
}

/// The value that this share of all does not exceed.
pub fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.max(1) - 1).or(values.last()).copied().unwrap_or(f64::NAN)
}

/// The middle one.
pub fn median(values: Vec<f64>) -> f64 {
    percentile(values, 0.5)
}

/// One line of the table.
pub fn figure(what: &str, ours: &str, peer: &str, theirs: &str, ratio: f64, aim: &str, how: &str) {
    println!("figure: {what} | {ours} | {peer} | {theirs} | {ratio:.2} | {aim} | {how}");
}

/// Where the bench is, on a line of its own that the next one overwrites.
pub fn progress(text: &str) {
    eprint!("\r\x1b[K{text}");
    let _ = std::io::stderr().flush();
}

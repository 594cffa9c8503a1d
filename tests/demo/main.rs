//! The demo: Alice shows a film, Bob watches and records, Carol comes late and leaves early, and the relay sees
//! noise. It ends with pictures, counters and a verdict, and fails unless the verdict holds.

mod keep;
mod report;
mod show;

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Result, ensure};
use clap::Parser;

#[derive(Parser)]
#[command(about = "An encrypted meeting on this machine, on a real film")]
struct Arguments {
    /// Leave the meeting running and print the lines to join it by hand
    #[arg(long)]
    keep: bool,
    /// Where the pictures and Bob's recording go
    #[arg(long, default_value = "out/demo")]
    out: PathBuf,
    /// The film, as `pipelines/film` makes it
    #[arg(long, default_value = "out/film.mkv")]
    film: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(arguments.film.is_file(), "no film at {}: run pipelines/film", arguments.film.display());
    fs::create_dir_all(&arguments.out)?;
    let clock = Clock(Instant::now());
    let show = show::run(&arguments, &clock)?;
    let verdict = report::print(&arguments, &show)?;
    if arguments.keep {
        keep::wait(&show, &arguments)?;
    }
    ensure!(verdict, "the demo does not hold what it promises: see the lines marked with ✗");
    Ok(())
}

/// Progress with the time since the start.
struct Clock(Instant);

impl Clock {
    fn say(&self, what: &str) {
        println!("{:5.1} s  {what}", self.0.elapsed().as_secs_f64());
    }
}

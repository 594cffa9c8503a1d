//! What Bob saw, what the relay saw, and whether the promises hold.

use std::{collections::HashSet, fs, path::Path, process::Command};

use anyhow::Result;
use rig::media::{self, Picture};

use crate::{Arguments, show::Show};

/// Prints the report and gives the verdict.
pub fn print(arguments: &Arguments, show: &Show) -> Result<bool> {
    let mut verdict = Verdict(true);
    println!("\nThe code everybody reads aloud");
    for (name, code) in &show.codes {
        println!("  {name:6} {}", groups(code));
    }
    verdict.check(
        show.codes.iter().all(|(_, code)| code.len() == 40 && *code == show.codes[0].1),
        "all codes are equal, 40 digits each",
    );

    println!("\nWhat Bob saw and heard: {}", show.bob_file.display());
    let pictures = media::pictures(&show.bob_file, 320, 180, usize::MAX)?;
    let published = show.sealed.1 - show.sealed.0;
    verdict.check(
        pictures.len() as u64 * 100 >= published * 95,
        &format!("his file holds {} of the {published} pictures published while he was in", pictures.len()),
    );
    let step = (pictures.len() / 12).max(1);
    let chosen: Vec<&Picture> = pictures.iter().step_by(step).take(12).collect();
    if let Some(sheet) = media::contact_sheet(&chosen, 4) {
        let path = arguments.out.join("bob-saw.png");
        media::write_png(&path, sheet.width, sheet.height, &sheet.rgb)?;
        println!("    contact sheet: {}", path.display());
    }
    let likeness = likeness(&media::sound(&arguments.film)?, &media::sound(&show.bob_file)?);
    verdict.check(likeness > 0.9, &format!("its sound is the film's (likeness {likeness:.3} of 1)"));

    println!("\nWhat the relay saw");
    let view = show.stage.relay.view()?;
    let frames = show.stage.relay.seen()?.into_iter().filter_map(|seen| seen.frame);
    let sealed: Vec<u8> =
        frames.filter(|frame| frame.sealed.len() > 500).flat_map(|frame| frame.sealed).collect();
    let (width, height) = (640, 360);
    let noise: Vec<u8> = sealed.iter().take(width * height).flat_map(|byte| [*byte, *byte, *byte]).collect();
    let path = arguments.out.join("relay-saw.png");
    media::write_png(&path, width, height, &pad(noise, width * height * 3))?;
    println!(
        "    {} kB of posts and sealed frames; the film's as a picture: {}",
        view.len() / 1000,
        path.display()
    );
    println!("    between relay and Bob, {} kB of UDP captured", show.wire.len() / 1000);
    for (whose, name, bytes) in
        [("what the relay saw", "relay-saw.bin", &sealed), ("what the wire saw", "wire.bin", &show.wire)]
    {
        let path = arguments.out.join(name);
        fs::write(&path, bytes)?;
        let said = decode(&path)?.err();
        let what =
            format!("a decoder makes nothing of {whose}: {}", said.as_deref().unwrap_or("it decoded them"));
        verdict.check(said.is_some(), &what);
    }
    let blocks = blocks(&fs::read(&show.bob_file)?);
    verdict.check(
        blocks.len() > 1_000 && !holds_any(&view, &blocks) && !holds_any(&show.wire, &blocks),
        &format!("none of {} pieces of Bob's file stands in what the relay or the wire saw", blocks.len()),
    );

    println!("\nCounted by the programs");
    let relay = show.stage.relay.counters()?;
    let count = |name: &str| relay.get(name).copied().unwrap_or(0);
    let (alice, bob) = (&show.alice_stats, &show.bob_stats);
    let kinds = |stats: &rig::Stats, element: &str, field: &str| {
        stats.get(&format!("{element}-video"), field) + stats.get(&format!("{element}-audio"), field)
    };
    println!("    sealed by Alice    {:6}", kinds(alice, "seal", "sealed"));
    println!("    relayed            {:6} in, {} out", count("frames_in"), count("frames_out"));
    println!("    opened by Bob      {:6}", kinds(bob, "open", "opened"));
    let lost = published.saturating_sub(bob.get("open-video", "opened"));
    println!("    lost               {lost:6} pictures of those published while Bob was in");
    println!("    dropped as late    {:6} at the relay", count("frames_dropped_late"));
    println!("    the key changed    {:6} times", show.epochs.saturating_sub(1));
    let refused: u64 =
        ["forged", "replayed", "malformed", "mismatch"].iter().map(|r| kinds(bob, "open", r)).sum();
    verdict.check(refused == 0, "nothing forged, replayed or malformed reached Bob");
    verdict.check(show.epochs >= 5, "a new key for Bob, by hand, for Carol's coming and for her going");
    let opened = show.carol_stats.get("open-video", "opened");
    let what = format!("Carol opened {opened} pictures of the {} sealed during her stay", show.carol_stay);
    verdict.check(0 < opened && opened <= show.carol_stay, &what);
    let (inside, outside) = carols(show)?;
    let what = format!(
        "of all {} frames the relay saw from outside her stay, all her keys together open {}",
        outside.frames, outside.opened
    );
    verdict.check(inside.opened > 0 && outside.frames > 0 && outside.opened == 0, &what);
    println!();
    Ok(verdict.0)
}

#[derive(Default)]
struct Count {
    frames: usize,
    opened: usize,
}

/// What all keys of Carol's open of what the relay saw during her stay, and outside of it: before she asked for a
/// place, and from a second after she left.
fn carols(show: &Show) -> Result<(Count, Count)> {
    let (mut inside, mut outside) = (Count::default(), Count::default());
    for seen in show.stage.relay.seen()? {
        let Some(frame) = seen.frame else { continue };
        let count = match seen.at {
            at if show.carol_in.contains(&at) => &mut inside,
            at if at >= show.carol_in.start && at < show.carol_in.end + 1_000 => continue,
            _ => &mut outside,
        };
        count.frames += 1;
        count.opened += usize::from(show.carol_keys.opens(&frame.sealed));
    }
    Ok((inside, outside))
}

struct Verdict(bool);

impl Verdict {
    fn check(&mut self, holds: bool, what: &str) {
        println!("  {} {what}", if holds { '✓' } else { '✗' });
        self.0 &= holds;
    }
}

fn groups(code: &str) -> String {
    code.as_bytes().chunks(5).map(String::from_utf8_lossy).collect::<Vec<_>>().join(" ")
}

fn pad(mut bytes: Vec<u8>, len: usize) -> Vec<u8> {
    bytes.resize(len, 0);
    bytes
}

/// Pieces of 16 bytes from all over a file, those left out that could stand anywhere.
fn blocks(file: &[u8]) -> HashSet<[u8; 16]> {
    let telling = |block: &[u8; 16]| block.iter().collect::<HashSet<_>>().len() >= 12;
    file.as_chunks::<16>().0.iter().step_by(8).filter(|block| telling(block)).copied().collect()
}

fn holds_any(bytes: &[u8], blocks: &HashSet<[u8; 16]>) -> bool {
    bytes.windows(16).any(|window| window.try_into().is_ok_and(|window: [u8; 16]| blocks.contains(&window)))
}

/// What an H.264 decoder says to a file: how many pictures, or why none.
fn decode(path: &Path) -> Result<Result<String, String>> {
    let output = Command::new("timeout")
        .args(["20", "gst-launch-1.0", "-q", "filesrc"])
        .arg(format!("location={}", path.display()))
        .args(["!", "h264parse", "!", "avdec_h264", "!", "fakesink", "async=false"])
        .env_remove("G_DEBUG")
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text
        .lines()
        .find_map(|line| line.split_once("ERROR: from element "))
        .map_or("it failed", |(_, said)| said.rsplit(": ").next().unwrap_or(said));
    Ok(if output.status.success() { Ok(text) } else { Err(line.to_owned()) })
}

/// How alike two recordings sound, 0 to 1: the best correlation of their loudness over time at any offset.
fn likeness(film: &[i16], heard: &[i16]) -> f64 {
    let (film, heard) = (loudness_curve(film), loudness_curve(heard));
    // The middle of what was heard, so that neither the start nor the end of the stay matters.
    let middle = &heard[heard.len() / 4..heard.len() * 3 / 4];
    (0..film.len().saturating_sub(middle.len()))
        .map(|at| correlation(&film[at..], middle))
        .fold(0.0, f64::max)
}

fn loudness_curve(sound: &[i16]) -> Vec<f64> {
    sound.chunks(960).map(|chunk| chunk.iter().map(|s| f64::from(*s).abs()).sum()).collect()
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let n = b.len().max(1) as f64;
    let a = &a[..b.len()];
    let (mean_a, mean_b) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
    let sum =
        |f: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(a, b)| f(a - mean_a, b - mean_b)).sum::<f64>();
    let scale = (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt();
    if scale == 0.0 { 0.0 } else { sum(&|a, b| a * b) / scale }
}

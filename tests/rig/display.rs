//! A screen without a monitor.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::media::{self, Picture};

/// An X server that keeps its screen in memory.
pub struct Display {
    server: Child,
    name: String,
    width: usize,
    height: usize,
    folder: TempDir,
}

impl Display {
    /// Starts one whose screen has that many pixels.
    pub fn open(width: usize, height: usize) -> Result<Self> {
        let mut server = Command::new("Xvfb")
            .args(["-displayfd", "1", "-nolisten", "tcp", "-screen", "0"])
            .arg(format!("{width}x{height}x24"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("Xvfb")?;
        // It writes the number of its display once it listens.
        let mut number = String::new();
        BufReader::new(server.stdout.take().context("no stdout")?).read_line(&mut number)?;
        let name = format!(":{}", number.trim());
        let display = Self { server, name, width, height, folder: tempfile::tempdir()? };
        ensure!(!number.trim().is_empty(), "Xvfb gave no display");
        Ok(display)
    }

    /// For `DISPLAY`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is to be seen on it now.
    pub fn picture(&self) -> Result<Picture> {
        let file = self.folder.path().join("screen.png");
        let status = Command::new("timeout")
            .args([
                "20",
                "gst-launch-1.0",
                "-q",
                "ximagesrc",
                "use-damage=false",
                "show-pointer=false",
                "num-buffers=1",
            ])
            .arg(format!("display-name={}", self.name))
            .args(["!", "videoconvert", "!", "pngenc", "!", "filesink", "async=false"])
            .arg(format!("location={}", file.display()))
            .status()?;
        ensure!(status.success(), "no picture of the screen");
        media::pictures(&file, self.width, self.height, 1)?.pop().context("no picture")
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

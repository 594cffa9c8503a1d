//! `--record`: all that this relay sees of its meetings, written down, so that anybody can look for themselves that
//! it is noise.
//!
//! ```text
//! record:  kind(1) | ms since 1970 (8) | length(4) | bytes       kind 0: a post's body, 1: an envelope
//! ```

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, BufWriter, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use tracing::warn;

use crate::error::Error;

/// Where what is seen goes, if anywhere.
#[derive(Debug, Default)]
pub struct Recorder(Option<Mutex<Recording>>);

#[derive(Debug)]
struct Recording {
    file: BufWriter<File>,
    left: usize,
}

impl Recorder {
    /// Starts a new file that only its owner reads, also in the place of one that others could read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let problem = || Error::io(format!("opening {}", path.display()));
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        let file = file.map_err(problem())?;
        if file.metadata().map_err(problem())?.is_file() {
            file.set_permissions(Permissions::from_mode(0o600)).map_err(problem())?;
        }
        let file = BufWriter::new(file);
        Ok(Self(Some(Mutex::new(Recording { file, left: MOST }))))
    }

    /// A post's body, as an agent sent it.
    pub fn post(&self, body: &[u8]) {
        self.write(0, body);
    }

    /// A frame in its envelope, as an agent sent it.
    pub fn frame(&self, envelope: &[u8]) {
        self.write(1, envelope);
    }

    /// Puts on disk what has been seen so far.
    pub fn flush(&self) {
        let Some(recording) = &self.0 else { return };
        let mut recording = recording.lock().unwrap_or_else(PoisonError::into_inner);
        let flushed = recording.file.flush();
        recording.go_on(flushed);
    }

    fn write(&self, kind: u8, bytes: &[u8]) {
        let Some(recording) = &self.0 else { return };
        let mut recording = recording.lock().unwrap_or_else(PoisonError::into_inner);
        if recording.left == 0 {
            return;
        }
        recording.left = recording.left.saturating_sub(bytes.len() + 13);
        if recording.left == 0 {
            return warn!("the recording has its full length: no more is written");
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let parts: [&[u8]; 4] = [&[kind], &now.to_be_bytes(), &(bytes.len() as u32).to_be_bytes(), bytes];
        let written = parts.iter().try_for_each(|part| recording.file.write_all(part));
        recording.go_on(written);
    }
}

impl Recording {
    /// Ends it where the disk ends it; the meetings go on.
    fn go_on(&mut self, written: io::Result<()>) {
        if let Err(error) = written
            && self.left > 0
        {
            warn!("cannot write the recording: {error}; it ends here, and the relay goes on");
            self.left = 0;
        }
    }
}

/// The longest recording in bytes: an hour of a 2 Mbit/s meeting.
const MOST: usize = 1024 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_is_written_as_it_came() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("view");
        let recorder = Recorder::open(&path).expect("opened");
        recorder.post(b"sealed post");
        recorder.frame(b"sealed frame");
        recorder.flush();
        let bytes = std::fs::read(&path).expect("written");
        assert_eq!(bytes.len(), 13 + 11 + 13 + 12);
        assert_eq!((bytes[0], &bytes[13..24]), (0, b"sealed post".as_slice()));
        assert_eq!((bytes[24], &bytes[37..]), (1, b"sealed frame".as_slice()));
        Recorder::default().post(b"nothing happens");
    }

    #[test]
    fn a_file_that_others_could_read_is_closed_to_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("view");
        std::fs::write(&path, "old").expect("written");
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("ours");
        Recorder::open(&path).expect("opened");
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(Recorder::open(Path::new("/dev/null")).is_ok(), "what is no file keeps its mode");
    }
}

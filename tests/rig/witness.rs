//! Somebody who writes down which frames reach an agent, without opening one.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    os::unix::net::UnixStream,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::Instant,
};

use anyhow::Result;
use meeting_protocol::{
    frame::Header,
    local::{self, FromAgent, Purpose, ToAgent},
};
use meeting_wire::{ParticipantId, StreamId};

use crate::hoarder::read;

type Source = (ParticipantId, StreamId);

/// Watches everybody's streams as `meetingsrc` does.
pub struct Witness {
    book: Arc<Mutex<Book>>,
}

#[derive(Default)]
struct Book {
    tracks: BTreeMap<Source, (String, String)>,
    /// The counters of the frames that came, and when they came; counters go on over all keys of a stream.
    frames: BTreeMap<Source, BTreeMap<u64, Instant>>,
}

impl Witness {
    /// Connects to an agent that is in a meeting.
    pub fn start(socket: &Path) -> Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        let purpose = Purpose::Watch { meeting: None, participant: String::new(), track: String::new() };
        stream.write_all(&local::packed(&ToAgent::Hello { version: local::VERSION, purpose }))?;
        let book = Arc::new(Mutex::new(Book::default()));
        let kept = Arc::clone(&book);
        thread::spawn(move || {
            while let Ok(message) = read(&mut stream) {
                kept.lock().expect("no panic under the lock").note(message);
            }
        });
        Ok(Self { book })
    }

    /// The counters of all frames that came of somebody's stream.
    pub fn counters(&self, name: &str, track: &str) -> BTreeSet<u64> {
        self.arrivals(name, track).into_keys().collect()
    }

    /// The same, with the moments at which they came.
    pub fn arrivals(&self, name: &str, track: &str) -> BTreeMap<u64, Instant> {
        let book = self.book();
        let named = book.tracks.iter().filter(|(_, (who, label))| (&**who, &**label) == (name, track));
        let frames = named.flat_map(|(source, _)| book.frames.get(source).into_iter().flatten());
        frames.map(|(counter, at)| (*counter, *at)).collect()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no panic under the lock")
    }
}

impl Book {
    fn note(&mut self, message: FromAgent) {
        match message {
            FromAgent::Track { from, name, stream, track, .. } => {
                self.tracks.insert((from, stream), (name, track));
            }
            FromAgent::Frame { from, stream, envelope } => {
                if let Some((header, _)) = Header::parse(&envelope.sealed) {
                    self.frames
                        .entry((from, stream))
                        .or_default()
                        .entry(header.ctr)
                        .or_insert_with(Instant::now);
                }
            }
            _ => {}
        }
    }
}

//! What lies between the two elements: it passes sealed frames on, loses, alters and repeats them.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gst::prelude::*;
use gst_check::Harness;

use crate::{CRYPTO, cursor::Cursor};

/// The road.
#[derive(Clone, Default)]
pub struct Road(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The frame that is pushed now, and what happens to it.
    frame: Vec<u8>,
    fate: Fate,
    sealed: Vec<Sealed>,
    /// Which of them the opener has now, for the first time.
    due: Option<usize>,
}

#[derive(Default)]
enum Fate {
    #[default]
    Pass,
    Lose,
    /// By these decisions.
    Alter(Vec<u8>),
    /// An earlier one comes in its place.
    Instead(usize),
}

/// A frame as it was sealed, and whether it has come to the opener so.
struct Sealed {
    bytes: Vec<u8>,
    frame: Vec<u8>,
    came: bool,
}

impl Road {
    /// The road from `seal` to the element behind it.
    pub fn of(bin: &gst::Bin) -> Self {
        let road = Self::default();
        let theirs = road.clone();
        let pad = bin.by_name("seal").and_then(|seal| seal.static_pad("src")).expect("a pad of `e2eeseal`");
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let Some(buffer) = info.buffer_mut() else { return gst::PadProbeReturn::Ok };
            let sealed = buffer.map_readable().expect("a buffer that can be read").to_vec();
            let Some(on) = theirs.state().pass(&sealed) else { return gst::PadProbeReturn::Drop };
            if on != sealed {
                let mut other = gst::Buffer::from_slice(on);
                let out = other.get_mut().expect("a buffer of our own");
                buffer.copy_into(out, gst::BUFFER_COPY_METADATA, ..).expect("flags and times");
                *buffer = other;
            }
            gst::PadProbeReturn::Ok
        });
        road
    }

    /// A frame will be pushed; the bytes decide what happens to it.
    pub fn begin(&self, frame: &[u8], bytes: &mut Cursor<'_>) {
        let fate = match bytes.u8() % 8 {
            0..=2 => Fate::Pass,
            3 => Fate::Lose,
            4..=6 => Fate::Alter(bytes.take(12).to_vec()),
            _ => Fate::Instead(bytes.u8().into()),
        };
        let mut state = self.state();
        (state.frame, state.fate, state.due) = (frame.to_vec(), fate, None);
    }

    /// It was pushed, and this came out.
    pub fn end(&self, pushed: Result<gst::FlowSuccess, gst::FlowError>, harness: &mut Harness) {
        let mut out = Vec::new();
        while let Some(buffer) = harness.try_pull() {
            out.push(buffer.map_readable().expect("a buffer that can be read").to_vec());
        }
        // Where every tag is right, an altered frame opens, and may take the counters of those behind it.
        if !CRYPTO {
            return;
        }
        let mut state = self.state();
        let (due, newest) = (state.due, state.sealed.len().checked_sub(1));
        let frame: Vec<_> = due.map(|number| state.sealed[number].frame.clone()).into_iter().collect();
        assert!(out.is_empty() || out == frame, "an altered or repeated frame opens");
        // An earlier one may come too late, and while the pads flush nothing comes.
        match due {
            Some(number) if pushed.is_err() => state.sealed[number].came = false,
            Some(_) => assert!(due != newest || !out.is_empty(), "it does not open as it was"),
            None => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What goes on in the place of a sealed frame.
    fn pass(&mut self, sealed: &[u8]) -> Option<Vec<u8>> {
        let newest = self.sealed.len();
        self.sealed.push(Sealed { bytes: sealed.to_vec(), frame: mem::take(&mut self.frame), came: false });
        let on = match mem::take(&mut self.fate) {
            Fate::Pass => sealed.to_vec(),
            Fate::Lose => return None,
            Fate::Alter(decisions) => {
                let mut altered = sealed.to_vec();
                Cursor(&decisions).mutate(&mut altered);
                altered
            }
            Fate::Instead(back) => self.sealed[newest.saturating_sub(back)].bytes.clone(),
        };
        let known = self.sealed.iter().rposition(|known| known.bytes == on);
        self.due = known.filter(|number| !mem::replace(&mut self.sealed[*number].came, true));
        Some(on)
    }
}

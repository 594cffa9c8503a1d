//! What the tests share: the plugin registered once, a pipeline that stops on drop, waiting for messages.

#![allow(dead_code, clippy::unwrap_used)]

use std::{
    sync::Once,
    time::{Duration, Instant},
};

use gst::prelude::*;

/// Initialises GStreamer and registers the elements.
pub fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().unwrap();
        // Warnings of GLib and GStreamer are bugs of ours.
        let bad = gst::glib::LogLevels::LEVEL_CRITICAL | gst::glib::LogLevels::LEVEL_WARNING;
        gst::glib::log_set_always_fatal(bad);
        gste2ee::plugin_register_static().unwrap();
    });
}

/// A pipeline that goes to NULL when the test ends, however it ends.
pub struct Pipeline(pub gst::Pipeline);

impl Pipeline {
    pub fn parse(line: &str) -> Self {
        init();
        Self(gst::parse::launch(line).unwrap().downcast().unwrap())
    }

    pub fn element(&self, name: &str) -> gst::Element {
        self.0.by_name(name).unwrap()
    }

    /// Links each new pad of `src` to the element `to`: a link in the description would be made once, and each start has
    /// pads of its own.
    pub fn link_new_pads(&self, src: &str, to: &str) {
        let sink = self.element(to).static_pad("sink").unwrap();
        // The end of one stream is no end here: a sink that has seen one takes nothing more.
        sink.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |_, info| {
            if info.event().is_some_and(|event| event.type_() == gst::EventType::Eos) {
                info.data = None;
                return gst::PadProbeReturn::Handled;
            }
            gst::PadProbeReturn::Ok
        });
        let sink = sink.downgrade();
        self.element(src).connect_pad_added(move |_, pad| {
            let Some(sink) = sink.upgrade() else { return };
            if let Some(before) = sink.peer() {
                let _ = before.unlink(&sink);
            }
            let _ = pad.link(&sink);
        });
    }

    pub fn play(&self) {
        if let Err(error) = self.try_state(gst::State::Playing) {
            panic!("{error}");
        }
    }

    /// Goes to a state, or gives the error's text. An agent that answers late, as one of a test does where the machine stands
    /// still, is asked again.
    pub fn try_state(&self, state: gst::State) -> Result<(), String> {
        let mut tries = 0;
        while self.0.set_state(state).is_err() {
            let error = self.until_error();
            tries += 1;
            if tries == TRIES || !error.contains("does not answer") {
                return Err(error);
            }
            let _ = self.0.set_state(gst::State::Null);
        }
        Ok(())
    }

    /// Waits for the end of the stream; anything else that ends it fails the test.
    pub fn until_eos(&self) {
        let message = self.wait(&[gst::MessageType::Eos, gst::MessageType::Error], |_| true).expect("an end");
        if let gst::MessageView::Error(error) = message.view() {
            panic!("{error:?}");
        }
    }

    /// Waits for an error and gives its text.
    pub fn until_error(&self) -> String {
        let message = self.wait(&[gst::MessageType::Error], |_| true).expect("an error");
        match message.view() {
            gst::MessageView::Error(error) => error.error().to_string(),
            _ => unreachable!(),
        }
    }

    /// Waits for a warning and gives its text.
    pub fn until_warning(&self) -> String {
        let message = self.wait(&[gst::MessageType::Warning], |_| true).expect("a warning");
        match message.view() {
            gst::MessageView::Warning(warning) => warning.error().to_string(),
            _ => unreachable!(),
        }
    }

    /// Waits for an element message of this name that `wanted` wants.
    pub fn until_says(&self, name: &str, wanted: impl Fn(&gst::StructureRef) -> bool) -> gst::Structure {
        let says =
            |message: &gst::Message| message.structure().is_some_and(|s| s.name() == name && wanted(s));
        let message = self.wait(&[gst::MessageType::Element], says);
        message.expect(name).structure().unwrap().to_owned()
    }

    /// Waits for a message of these types that `wanted` wants; none if it does not come in time.
    pub fn wait(
        &self,
        types: &[gst::MessageType],
        wanted: impl Fn(&gst::Message) -> bool,
    ) -> Option<gst::Message> {
        let deadline = Instant::now() + PATIENCE;
        let bus = self.0.bus().unwrap();
        loop {
            let left = deadline.checked_duration_since(Instant::now())?;
            let left = gst::ClockTime::from_mseconds(left.as_millis() as u64);
            let message = bus.timed_pop_filtered(left, types)?;
            if wanted(&message) {
                return Some(message);
            }
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}

/// Waits until `done`, which some other thread brings about.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Has this frame sealed. The very first one waits for its key, but not for longer than half a second: where the machine stands
/// still meanwhile it is dropped, and comes again.
pub fn push_sealed(input: &gst_app::AppSrc, seal: &gst::Element, frame: &[u8]) {
    let (sealed, before) = (stat(seal, "sealed"), stat(seal, "dropped-no-key"));
    let (started, mut pushed) = (Instant::now(), before);
    until("the frame is sealed", || {
        let dropped = stat(seal, "dropped-no-key");
        assert!(dropped == before || started.elapsed() >= FIRST_KEY, "it does not wait for its key");
        if dropped == pushed {
            input.push_buffer(buffer(frame)).unwrap();
            pushed += 1;
        }
        stat(seal, "sealed") > sealed
    });
}

/// Fails if each of a few tries takes `limit` or longer. One says little: the machine may stand still for a second.
pub fn takes_less(limit: Duration, mut once: impl FnMut() -> Duration) {
    let took: Vec<_> = (0..TRIES).map(|_| once()).take_while(|took| *took >= limit).collect();
    assert!(took.len() < TRIES, "it took {took:?}, {limit:?} are too long");
}

/// A count in an element's `stats`.
pub fn stat(element: &gst::Element, name: &str) -> u64 {
    element.property::<gst::Structure>("stats").get(name).unwrap()
}

/// A buffer with these bytes.
pub fn buffer(bytes: &[u8]) -> gst::Buffer {
    gst::Buffer::from_slice(bytes.to_vec())
}

/// The bytes of a buffer.
pub fn bytes(buffer: &gst::Buffer) -> Vec<u8> {
    buffer.map_readable().unwrap().to_vec()
}

/// Far more than anything here takes, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// So often in a row no machine stands still.
pub const TRIES: usize = 5;

/// How long the first frame waits for its key.
const FIRST_KEY: Duration = Duration::from_millis(500);

/// Caps of the codecs that must work everywhere, and a few more.
pub const CODECS: [&str; 7] = [
    "video/x-h264, stream-format=(string)byte-stream, alignment=(string)au, width=(int)640, height=(int)480",
    "video/x-h264, stream-format=(string)avc, alignment=(string)au, codec_data=(buffer)014d401f",
    "video/x-vp8, width=(int)320",
    "audio/x-opus, rate=(int)48000, channels=(int)2",
    "video/x-av1, stream-format=(string)obu-stream, alignment=(string)tu",
    "audio/mpeg, mpegversion=(int)4, codec_data=(buffer)1210",
    "meta/x-klv, parsed=(boolean)true",
];

//! Alice seals and sends, Bob receives and opens, in one pipeline; every frame that he opens is held against hers.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use gst::{glib, prelude::*};
use rig::until;

use crate::{PATIENCE, Peer};

const KINDS: [&str; 2] = ["video", "audio"];
/// Frames of each kind that have to come through.
const ENOUGH: u64 = 75;

pub struct Call {
    pipeline: gst::Pipeline,
    address: &'static str,
    sent: Arc<Mutex<HashSet<Vec<u8>>>>,
    opened: [Arc<AtomicU64>; 2],
    foreign: Arc<AtomicU64>,
    /// Keyframes that Alice's encoder was asked for.
    asked: Arc<AtomicU64>,
    /// Keyframes that Bob opened.
    keyframes: Arc<AtomicU64>,
    lose: Arc<AtomicBool>,
}

impl Call {
    /// A call between two at this address.
    pub fn at(address: &'static str) -> Result<Self> {
        rig::bench::load_plugin()?;
        let pipeline = gst::parse::launch(
            "meetingkey loopback=true \
             videotestsrc is-live=true pattern=ball ! video/x-raw,width=640,height=360,framerate=30/1 ! \
             x264enc name=encoder tune=zerolatency speed-preset=ultrafast bitrate=1500 key-int-max=100000 ! \
             video/x-h264,profile=constrained-baseline ! e2eeseal name=seal-video ! \
             rtpsframepay name=pay-video mtu=1200 pt=96 ! queue name=video ! fakesink name=nowhere-video \
             audiotestsrc is-live=true samplesperbuffer=960 ! audio/x-raw,rate=48000 ! opusenc ! \
             e2eeseal name=seal-audio ! rtpsframepay mtu=1200 pt=97 ! queue name=audio ! fakesink name=nowhere-audio",
        )?
        .downcast::<gst::Pipeline>()
        .map_err(|_| anyhow::anyhow!("not a pipeline"))?;
        let call = Self {
            pipeline,
            address,
            sent: Arc::default(),
            opened: Default::default(),
            foreign: Arc::default(),
            asked: Arc::default(),
            keyframes: Arc::default(),
            lose: Arc::default(),
        };
        call.watch()?;
        Ok(call)
    }

    /// Who sends: the queues lead to her instead of nowhere, in this order.
    pub fn alice(&self, m_lines: [&str; 2]) -> Result<Peer> {
        let alice = Peer::new(&self.pipeline, "alice", self.address)?;
        for kind in m_lines {
            let (queue, nowhere) = (self.element(kind)?, self.element(&format!("nowhere-{kind}"))?);
            queue.unlink(&nowhere);
            self.pipeline.remove(&nowhere)?;
            queue.link(&alice.0)?;
        }
        Ok(alice)
    }

    /// Who receives and opens.
    pub fn bob(&self) -> Result<Peer> {
        let bob = Peer::new(&self.pipeline, "bob", self.address)?;
        // What is expected of him: that is how `a=sframe` comes into an answer.
        bob.0.connect("on-new-transceiver", false, |values| {
            let transceiver = values.get(1)?.get::<glib::Object>().ok()?;
            let caps = "application/x-rtp, media=video, encoding-name=H264, clock-rate=90000, a-sframe=(string)\"\"; \
                        application/x-rtp, media=audio, encoding-name=OPUS, clock-rate=48000, a-sframe=(string)\"\"";
            transceiver.set_property("codec-preferences", caps.parse::<gst::Caps>().ok()?);
            None
        });
        let pipeline = self.pipeline.downgrade();
        let watches = [self.watch_opened(0), self.watch_opened(1)];
        bob.0.connect_pad_added(move |_, pad| {
            let Some(pipeline) = pipeline.upgrade().filter(|_| pad.direction() == gst::PadDirection::Src)
            else {
                return;
            };
            let video = pad.current_caps().is_some_and(|caps| caps.to_string().contains("video"));
            let (kind, decoder) = if video { (0, "h264parse ! avdec_h264") } else { (1, "opusdec") };
            let name = KINDS[kind];
            let description = format!(
                "rtpsframedepay name=depay-{name} ! e2eeopen name=open-{name} ! {decoder} ! \
                 fakesink name=sink-{name} sync=false async=false"
            );
            let Ok(bin) = gst::parse::bin_from_description(&description, true) else { return };
            if let Some(open) = bin.by_name(&format!("open-{name}")).and_then(|open| open.static_pad("src")) {
                let watch = watches[kind].clone();
                open.add_probe(gst::PadProbeType::BUFFER, move |_, info| watch(info));
            }
            let linked = pipeline.add(&bin).is_ok()
                && bin.sync_state_with_parent().is_ok()
                && bin.static_pad("sink").is_some_and(|sink| pad.link(&sink).is_ok());
            assert!(linked, "{name} is not linked");
        });
        Ok(bob)
    }

    pub fn play(&self) -> Result<()> {
        self.pipeline.set_state(gst::State::Playing)?;
        Ok(())
    }

    /// Waits until Bob has opened and decoded enough of both, all of it byte for byte what Alice's encoders made.
    pub fn until_seen_and_heard(&self) -> Result<()> {
        for (kind, opened) in KINDS.iter().zip(&self.opened) {
            until(&format!("{ENOUGH} frames of {kind}"), PATIENCE, || {
                self.check()?;
                Ok((opened.load(Ordering::Relaxed) >= ENOUGH).then_some(()))
            })?;
            let sink = self.element(&format!("sink-{kind}"))?;
            until(&format!("{kind} out of its decoder"), PATIENCE, || {
                let rendered = sink.property::<gst::Structure>("stats").get::<u64>("rendered")?;
                Ok((rendered >= ENOUGH / 2).then_some(()))
            })?;
            let open = self.element(&format!("open-{kind}"))?.property::<gst::Structure>("stats");
            for refused in ["no-key", "forged", "replayed", "malformed", "mismatch", "stale"] {
                ensure!(open.get::<u64>(refused)? == 0, "{kind}: {open}");
            }
            println!("{kind}: {} frames, {}", opened.load(Ordering::Relaxed), self.depayed(kind)?);
        }
        ensure!(self.foreign.load(Ordering::Relaxed) == 0, "a frame was opened that nobody sent");
        Ok(())
    }

    /// Who comes later gets a keyframe, which Alice's encoder makes when it is asked and not otherwise.
    pub fn who_came_late_got_a_keyframe(&self) -> Result<()> {
        self.until_more("keyframes asked for", &self.asked, 0)?;
        self.until_more("keyframes opened", &self.keyframes, 0)
    }

    /// Takes the packets of one picture off the road: Alice's encoder is asked for a keyframe, all the way back from
    /// Bob's depayloader, who gets it.
    pub fn a_lost_picture_brings_a_keyframe(&self) -> Result<()> {
        let asked = self.asked.load(Ordering::Relaxed);
        let keyframes = self.keyframes.load(Ordering::Relaxed);
        self.lose.store(true, Ordering::Relaxed);
        self.until_more("keyframes asked for", &self.asked, asked)?;
        self.until_more("keyframes opened", &self.keyframes, keyframes)
    }

    fn until_more(&self, what: &str, count: &AtomicU64, than: u64) -> Result<()> {
        until(&format!("more {what} than {than}"), PATIENCE, || {
            self.check()?;
            Ok((count.load(Ordering::Relaxed) > than).then_some(()))
        })
    }

    pub fn hang_up(self) -> Result<()> {
        self.check()
    }

    fn depayed(&self, kind: &str) -> Result<gst::Structure> {
        Ok(self.element(&format!("depay-{kind}"))?.property("stats"))
    }

    /// Notes what the encoders give and what is asked of them.
    fn watch(&self) -> Result<()> {
        for kind in KINDS {
            let sent = self.sent.clone();
            self.pad(&format!("seal-{kind}"), "sink")?.add_probe(
                gst::PadProbeType::BUFFER,
                move |_, info| {
                    if let (Some(frame), Ok(mut sent)) = (info.buffer().and_then(bytes), sent.lock()) {
                        sent.insert(frame);
                    }
                    gst::PadProbeReturn::Ok
                },
            );
        }
        let asked = self.asked.clone();
        self.pad("encoder", "src")?.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
            let event = info.event().and_then(|event| event.structure());
            if event.is_some_and(|structure| structure.name() == "GstForceKeyUnit") {
                asked.fetch_add(1, Ordering::Relaxed);
            }
            gst::PadProbeReturn::Ok
        });
        let lose = self.lose.clone();
        let packets = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        self.pad("video", "src")?.add_probe(packets, move |_, _| {
            let lost = lose.swap(false, Ordering::Relaxed);
            if lost { gst::PadProbeReturn::Handled } else { gst::PadProbeReturn::Ok }
        });
        Ok(())
    }

    fn watch_opened(
        &self,
        kind: usize,
    ) -> Arc<dyn Fn(&mut gst::PadProbeInfo) -> gst::PadProbeReturn + Send + Sync> {
        let (sent, opened, foreign) = (self.sent.clone(), self.opened[kind].clone(), self.foreign.clone());
        let keyframes = self.keyframes.clone();
        Arc::new(move |info| {
            let frame = info.buffer().and_then(bytes).unwrap_or_default();
            if kind == 0 && is_keyframe(&frame) {
                keyframes.fetch_add(1, Ordering::Relaxed);
            }
            if sent.lock().is_ok_and(|sent| sent.contains(&frame)) {
                opened.fetch_add(1, Ordering::Relaxed);
            } else {
                foreign.fetch_add(1, Ordering::Relaxed);
            }
            gst::PadProbeReturn::Ok
        })
    }

    /// Fails where the pipeline has.
    fn check(&self) -> Result<()> {
        let bus = self.pipeline.bus().context("a bus")?;
        while let Some(message) = bus.pop_filtered(&[gst::MessageType::Error]) {
            if let gst::MessageView::Error(error) = message.view() {
                anyhow::bail!(
                    "{}: {} {:?}",
                    error.src().map(|s| s.name()).unwrap_or_default(),
                    error.error(),
                    error.debug()
                );
            }
        }
        Ok(())
    }

    fn element(&self, name: &str) -> Result<gst::Element> {
        self.pipeline.by_name(name).with_context(|| format!("no {name}"))
    }

    fn pad(&self, element: &str, pad: &str) -> Result<gst::Pad> {
        self.element(element)?.static_pad(pad).with_context(|| format!("{element} has no {pad}"))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Whether a picture of H.264 needs none before it: it has a slice of an IDR picture.
fn is_keyframe(frame: &[u8]) -> bool {
    frame.windows(4).any(|unit| unit[..3] == [0, 0, 1] && unit[3] & 0x1f == 5)
}

fn bytes(buffer: &gst::Buffer) -> Option<Vec<u8>> {
    buffer.map_readable().ok().map(|map| map.to_vec())
}

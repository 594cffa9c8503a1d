//! The shell GStreamer sees: map, [`Assembler::take`], push.

use std::{
    borrow::Cow,
    sync::{LazyLock, Mutex, MutexGuard},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_rtp::{RTPBuffer, prelude::*, rtp_buffer::Readable, subclass::prelude::*};

use super::{
    assembler::{Assembler, Counts, Flaw, Of, Packet},
    codec::{self, Codec},
    descriptor::Descriptor,
};
use crate::{
    CAT, clock,
    lock::lock,
    report,
    throttle::Throttle,
    wish::{ASK_EVERY, Wish},
};

#[derive(Default)]
struct State {
    assembler: Assembler,
    throttle: Throttle<Flaw>,
    video: bool,
    /// Something was lost since the last frame.
    lost: bool,
    wish: Wish,
}

#[derive(Default)]
pub struct RtpSFrameDepay(Mutex<State>);

impl RtpSFrameDepay {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    fn stats(&self) -> gst::Structure {
        let counts = self.state().assembler.counts;
        gst::Structure::builder("rtpsframedepay-stats")
            .field("frames", counts.frames)
            .field("bytes", counts.bytes)
            .field("incomplete", counts.incomplete)
            .field("gaps", counts.gaps)
            .field(Flaw::Malformed.word(), counts.malformed)
            .field(Flaw::Packetized.word(), counts.packetized)
            .field(Flaw::TooLong.word(), counts.too_long)
            .build()
    }

    fn say_flaw(&self, flaw: Flaw, counts: &Counts) {
        let (count, detail) = match flaw {
            Flaw::Malformed => {
                (counts.malformed, "not a packet of a sealed frame: is the sender's m-line `a=sframe`?")
            }
            Flaw::Packetized => (counts.packetized, "the sender seals packets, this element opens frames"),
            Flaw::TooLong => (counts.too_long, "the frame has no end"),
        };
        gst::warning!(CAT, imp = self, "dropped: {detail}");
        let structure = gst::Structure::builder("rtp-sframe-dropped")
            .field("reason", flaw.word())
            .field("detail", detail)
            .field("count", count)
            .build();
        let _ = self.obj().post_message(gst::message::Element::builder(structure).src(&*self.obj()).build());
    }
}

#[glib::object_subclass]
impl ObjectSubclass for RtpSFrameDepay {
    const NAME: &'static str = "GstRtpSFrameDepay";
    type Type = super::RtpSFrameDepay;
    type ParentType = gst_rtp::RTPBaseDepayload;
}

impl ObjectImpl for RtpSFrameDepay {
    fn properties() -> &'static [glib::ParamSpec] {
        // In place of what the base class has under this name.
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb("frames, bytes, and what was dropped: incomplete, gaps, malformed, packetized, too-long")
                    .read_only()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn property(&self, _id: usize, _pspec: &glib::ParamSpec) -> glib::Value {
        self.stats().to_value()
    }
}

impl GstObjectImpl for RtpSFrameDepay {}

impl ElementImpl for RtpSFrameDepay {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "RTP depayloader of sealed frames",
                "Codec/Depayloader/Network/RTP",
                "Puts sealed frames together from RTP packets (draft-ietf-avtcore-rtp-sframe, whole frames) for \
                 `e2eeopen`, drops what is not complete and asks for a keyframe then",
                "The gst-e2ee authors",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> =
            LazyLock::new(|| report::always_pads(&codec::all_rtp(), &codec::all_sealed()));
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::ReadyToPaused {
            *self.state() = State::default();
        }
        self.parent_change_state(transition)
    }
}

impl RTPBaseDepayloadImpl for RtpSFrameDepay {
    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let codec = Codec::of_rtp(caps)
            .ok_or_else(|| gst::loggable_error!(CAT, "no format that frames are known of: {caps}"))?;
        {
            let mut state = self.state();
            state.video = codec.media == "video";
            if state.video {
                // Of a stream that began before, nothing can be seen without one.
                state.wish.want();
            }
        }
        self.obj().src_pad().push_event(gst::event::Caps::new(&codec.sealed()));
        Ok(())
    }

    fn handle_event(&self, event: gst::Event) -> bool {
        if event.type_() == gst::EventType::FlushStop {
            self.state().assembler.reset();
        }
        self.parent_handle_event(event)
    }

    fn process_rtp_packet(&self, rtp: &RTPBuffer<Readable>) -> Option<gst::Buffer> {
        // What the binding lends is a copy: the base class would never unmap a payload apart from the header.
        let rtp = RTPBuffer::from_buffer_readable(rtp.buffer()).ok()?;
        let of = Of { ssrc: rtp.ssrc(), timestamp: rtp.timestamp(), payload_type: rtp.payload_type() };
        let mut state = self.state();
        let taken =
            state.assembler.take(Packet { seq: rtp.seq(), of, payload: rtp.payload().unwrap_or_default() });
        let mut frame = taken.frame.and_then(|frame| match frame {
            Cow::Borrowed(_) => {
                let mut payload = rtp.payload_buffer().ok()?;
                payload.make_mut().resize(Descriptor::LEN..).ok()?;
                Some(payload)
            }
            Cow::Owned(frame) => Some(gst::Buffer::from_mut_slice(frame)),
        });
        state.lost |= taken.lost;
        if let Some(frame) = frame.as_mut().filter(|_| std::mem::take(&mut state.lost)) {
            frame.make_mut().set_flags(gst::BufferFlags::DISCONT);
        }
        if taken.lost && state.video {
            state.wish.want();
        }
        let ask = state.wish.due(ASK_EVERY, clock::boot_now);
        let say = taken.flaw.filter(|flaw| state.throttle.admits(*flaw, clock::boot_now()));
        let counts = state.assembler.counts;
        drop(state);
        if let Some(flaw) = say {
            self.say_flaw(flaw, &counts);
        }
        if ask {
            self.obj().sink_pad().push_event(report::lost_picture());
        }
        frame
    }
}

//! The shell GStreamer sees: caps, then a list of packets for each frame.

use std::{
    ops::Range,
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
};

use gst::{glib, subclass::prelude::*};
use gst_rtp::{prelude::*, subclass::prelude::*};
use meeting_wire::MAX_FRAME;

use super::{
    codec::{self, Codec},
    descriptor::Descriptor,
};
use crate::{CAT, report};

#[derive(Default)]
pub struct RtpSFramePay {
    /// Sound has its marker where a talkspurt begins (RFC 3551, 4.1), all else where a frame ends.
    audio: AtomicBool,
}

impl RtpSFramePay {
    /// The packet with one fragment of `frame`.
    fn packet(
        &self,
        frame: &gst::BufferRef,
        fragment: Range<usize>,
        sources: u8,
        marks: bool,
    ) -> Result<gst::Buffer, glib::BoolError> {
        let descriptor =
            Descriptor { start: fragment.start == 0, end: fragment.end == frame.size(), packetized: false };
        let len = Descriptor::LEN + fragment.len();
        let mut packet = self.obj().allocate_output_buffer(len as u32, 0, sources);
        let buffer = packet.make_mut();
        let marker = marks && descriptor.end;
        {
            let mut rtp = gst_rtp::RTPBuffer::from_buffer_writable(buffer)?;
            rtp.set_marker(marker);
            // Copied: to share them would cost more, here and wherever the packet is wanted in one piece.
            if let Some((first, rest)) = rtp.payload_mut()?.split_first_mut() {
                *first = descriptor.byte();
                frame
                    .copy_to_slice(fragment.start, rest)
                    .map_err(|_| glib::bool_error!("the frame cannot be read"))?;
            }
        }
        buffer.set_pts(frame.pts());
        buffer.set_dts(frame.dts());
        buffer.set_duration(frame.duration());
        if marker {
            buffer.set_flags(gst::BufferFlags::MARKER);
        }
        if frame.flags().contains(gst::BufferFlags::DELTA_UNIT) {
            buffer.set_flags(gst::BufferFlags::DELTA_UNIT);
        }
        Ok(packet)
    }

    /// All packets of `frame`.
    fn packets(&self, frame: &gst::Buffer) -> Result<Packets, glib::BoolError> {
        let (obj, size) = (self.obj(), frame.size());
        let sources = obj.source_count(frame) as u8;
        let headers = gst_rtp::calc_header_len(sources) as usize + Descriptor::LEN;
        let marks = !self.audio.load(Ordering::Relaxed) || frame.flags().contains(gst::BufferFlags::DISCONT);
        // Most frames of sound fit. To ask so costs less than to read the property.
        if !obj.is_filled((headers + size) as u32, gst::ClockTime::ZERO) {
            return self.packet(frame, 0..size, sources, marks).map(Packets::One);
        }
        let room = (obj.mtu() as usize).saturating_sub(headers).max(1);
        let mut list = gst::BufferList::new_sized(size.div_ceil(room));
        let packets = list.make_mut();
        for start in (0..size).step_by(room) {
            packets.add(self.packet(frame, start..size.min(start + room), sources, marks)?);
        }
        Ok(Packets::Many(list))
    }
}

enum Packets {
    One(gst::Buffer),
    Many(gst::BufferList),
}

#[glib::object_subclass]
impl ObjectSubclass for RtpSFramePay {
    const NAME: &'static str = "GstRtpSFramePay";
    type Type = super::RtpSFramePay;
    type ParentType = gst_rtp::RTPBasePayload;
}

impl ObjectImpl for RtpSFramePay {}

impl GstObjectImpl for RtpSFramePay {}

impl ElementImpl for RtpSFramePay {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "RTP payloader of sealed frames",
                "Codec/Payloader/Network/RTP",
                "Sends the sealed frames of `e2eeseal` through any RTP transport (draft-ietf-avtcore-rtp-sframe, whole \
                 frames), under the name of the format that is sealed, with `a=sframe` in SDP",
                "The gst-e2ee authors",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> =
            LazyLock::new(|| report::always_pads(&codec::all_sealed(), &codec::all_rtp()));
        &TEMPLATES
    }
}

impl RTPBasePayloadImpl for RtpSFramePay {
    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let codec = Codec::of_sealed(caps)
            .ok_or_else(|| gst::loggable_error!(CAT, "RTP has no name for what is sealed: {caps}"))?;
        self.audio.store(codec.media == "audio", Ordering::Relaxed);
        self.obj().set_options(codec.media, true, codec.encoding_name, codec.clock_rate as u32);
        // Fields with this prefix become attributes of the m-line: `a=sframe`.
        let mut more = gst::Structure::builder("more").field("a-sframe", "").build();
        if let Some(params) = codec.encoding_params {
            more.set("encoding-params", params);
        }
        self.obj().set_outcaps(Some(&more)).map_err(|error| gst::loggable_error!(CAT, "{error}"))
    }

    fn handle_buffer(&self, frame: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        if frame.size() == 0 {
            return Ok(gst::FlowSuccess::Ok);
        }
        if frame.size() > MAX_FRAME {
            gst::warning!(
                CAT,
                imp = self,
                "dropped: a frame of {} bytes is too long for anybody",
                frame.size()
            );
            return Ok(gst::FlowSuccess::Ok);
        }
        let packets = self.packets(&frame).map_err(|error| {
            gst::error!(CAT, imp = self, "no packets of a frame: {error}");
            gst::FlowError::Error
        })?;
        match packets {
            Packets::One(packet) => self.obj().push(packet),
            Packets::Many(list) => self.obj().push_list(list),
        }
    }
}

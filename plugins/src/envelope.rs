//! Between GStreamer's buffers and the envelopes of sealed frames.

use meeting_wire::{Envelope, Flags};

/// A buffer of a sealed frame, with times of the pipeline's.
pub fn to_buffer(envelope: Envelope, pts: Option<u64>, dts: Option<u64>) -> gst::Buffer {
    let mut buffer = gst::Buffer::from_slice(envelope.sealed);
    let target = buffer.make_mut();
    target.set_pts(pts.map(gst::ClockTime::from_nseconds));
    target.set_dts(dts.map(gst::ClockTime::from_nseconds));
    target.set_duration(envelope.duration.map(gst::ClockTime::from_nseconds));
    for (set, flag) in [
        (!envelope.flags.has(Flags::KEYFRAME), gst::BufferFlags::DELTA_UNIT),
        (envelope.flags.has(Flags::DROPPABLE), gst::BufferFlags::DROPPABLE),
        (envelope.flags.has(Flags::DISCONT), gst::BufferFlags::DISCONT),
        (envelope.flags.has(Flags::HEADER), gst::BufferFlags::HEADER),
        (envelope.flags.has(Flags::MARKER), gst::BufferFlags::MARKER),
    ] {
        if set {
            target.set_flags(flag);
        }
    }
    buffer
}

/// What the envelope says of a buffer.
pub fn flags(flags: gst::BufferFlags) -> Flags {
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    Flags(
        bit(!flags.contains(gst::BufferFlags::DELTA_UNIT), Flags::KEYFRAME)
            | bit(flags.contains(gst::BufferFlags::DROPPABLE), Flags::DROPPABLE)
            | bit(flags.contains(gst::BufferFlags::DISCONT), Flags::DISCONT)
            | bit(flags.contains(gst::BufferFlags::HEADER), Flags::HEADER)
            | bit(flags.contains(gst::BufferFlags::MARKER), Flags::MARKER),
    )
}

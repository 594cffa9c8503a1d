//! `e2eeseal` and `e2eeopen` with buffers, caps and events in any order, as GStreamer may push them; where they stand behind each
//! other, with a road between them that alters what it carries.

mod road;

use std::sync::Once;

use gst::prelude::*;
use gst_check::Harness;

use self::road::Road;
use crate::{CRYPTO, cursor::Cursor};

pub fn run(bytes: &[u8]) {
    init();
    let mut bytes = Cursor(bytes);
    let (line, caps) = match bytes.u8() % 3 {
        0 => ("e2eeseal", CLEAR[0]),
        1 => ("e2eeopen", SEALED[0]),
        _ => ("e2eeseal name=seal ! e2eeopen", CLEAR[0]),
    };
    let opens = line == "e2eeopen";
    let mut harness = Harness::new_parse(&format!("meetingkey name=keys loopback=true {line}"));
    let bin = harness.element().and_downcast::<gst::Bin>().expect("a line in a bin");
    let road = bin.by_name("seal").map(|_| Road::of(&bin));
    harness.set_src_caps_str(caps);
    harness.play();
    for _ in 0..64 {
        if bytes.is_empty() {
            break;
        }
        match bytes.u8() % 8 {
            0..=3 => {
                let frame = bytes.short();
                if let Some(road) = &road {
                    road.begin(frame, &mut bytes);
                }
                let pushed = harness.push(buffer(frame, &mut bytes));
                if let Some(road) = &road {
                    road.end(pushed, &mut harness);
                }
                while let Some(out) = harness.try_pull() {
                    let out = out.map_readable().expect("a buffer that can be read");
                    assert!(!opens || !CRYPTO, "made-up bytes open: {pushed:?}");
                    let clear = !opens && frame.len() >= 8 && contains(&out, frame);
                    assert!(!clear || !CRYPTO, "it leaves in clear");
                }
            }
            4 => {
                let all = if opens { &SEALED[..] } else { &CLEAR[..] };
                let caps: gst::Caps = all[bytes.below(all.len())].parse().expect("caps of our own");
                harness.push_event(gst::event::Caps::new(&caps));
            }
            5 => {
                harness.push_event(event(&mut bytes));
            }
            6 if road.is_some() && bytes.u8() % 2 == 1 => {
                let keys = bin.by_name("keys").expect("`meetingkey` is in the line");
                keys.emit_by_name::<u64>("rotate", &[]);
            }
            6 => {
                let force = gst::event::CustomUpstream::new(gst::Structure::new_empty("GstForceKeyUnit"));
                harness.push_upstream_event(force);
            }
            _ => {
                if let Ok(text) = std::str::from_utf8(bytes.short()) {
                    let _ = gste2ee::caps::from_statement(text);
                }
            }
        }
    }
}

fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().expect("GStreamer");
        gste2ee::plugin_register_static().expect("the elements");
    });
}

fn buffer(frame: &[u8], bytes: &mut Cursor<'_>) -> gst::Buffer {
    let mut buffer = gst::Buffer::from_slice(frame.to_vec());
    let flags = bytes.u8();
    let out = buffer.get_mut().expect("a buffer of our own");
    if flags & 1 != 0 {
        out.set_pts(gst::ClockTime::from_nseconds(bytes.u64() >> 1));
    }
    if flags & 2 != 0 {
        out.set_dts(gst::ClockTime::from_nseconds(bytes.u64() >> 1));
    }
    out.set_flags(gst::BufferFlags::from_bits_truncate(u32::from(flags >> 2) << 4));
    buffer
}

fn event(bytes: &mut Cursor<'_>) -> gst::Event {
    match bytes.u8() % 7 {
        0 => gst::event::FlushStart::new(),
        1 => gst::event::FlushStop::new(bytes.u8() % 2 == 1),
        2 => gst::event::Gap::new(gst::ClockTime::from_nseconds(bytes.u64() >> 1), gst::ClockTime::NONE),
        3 => gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()),
        4 => gst::event::StreamStart::new("again"),
        5 => gst::event::Tag::new(gst::TagList::new()),
        _ => gst::event::CustomDownstream::new(gst::Structure::new_empty("anything")),
    }
}

fn contains(whole: &[u8], part: &[u8]) -> bool {
    whole.windows(part.len()).any(|window| window == part)
}

const CLEAR: [&str; 5] = [
    "video/x-h264, stream-format=(string)byte-stream, alignment=(string)au",
    "video/x-h264, stream-format=(string)avc, alignment=(string)au, codec_data=(buffer)014d401f",
    "audio/x-opus, rate=(int)48000, channels=(int)2",
    "audio/mpeg, mpegversion=(int)4, codec_data=(buffer)1210",
    "meta/x-klv, parsed=(boolean)true",
];
const SEALED: [&str; 3] = [
    "application/x-sframe, original-media-type=(string)video/x-vp8",
    "application/x-sframe, original-media-type=(string)audio/x-opus, stream=(uint)1, participant=(string)00000000000000000000000000000000",
    "application/x-sframe, original-media-type=(string)\"\"",
];

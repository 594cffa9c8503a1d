//! `application/x-sframe` and back. What links only to it cannot leak.
//!
//! ```text
//!  video/x-h264, width=640, codec_data=..      <-- open --
//!            |                                            |
//!            '-- seal --> application/x-sframe, original-media-type=video/x-h264, width=640
//! ```
//!
//! `codec_data` and `streamheader` hold codec headers, so they leave the clear caps: they travel in the stream's
//! sealed statement, and `meetingsrc` puts them back.
//!
//! A stream's caps are numbered from 0. From 1 on the number is in the sealed caps, in the statement and in the envelope of
//! each frame, so that a frame and its caps find each other, whichever comes first.

use meeting_wire::{Kind, ParticipantId, StreamId};

/// The media type of sealed frames.
pub const SFRAME: &str = "application/x-sframe";

/// What `e2eeseal` takes: whole frames, one per buffer. A further codec needs a further line here and no more.
pub fn plain() -> gst::Caps {
    let mut caps = gst::Caps::new_empty();
    {
        let caps = caps.make_mut();
        for (name, formats) in [
            ("video/x-h264", &["byte-stream", "avc"][..]),
            ("video/x-h265", &["byte-stream", "hvc1", "hev1"][..]),
        ] {
            let structure = gst::Structure::builder(name)
                .field("stream-format", gst::List::new(formats))
                .field("alignment", "au")
                .build();
            caps.append_structure(structure);
        }
        let av1 = gst::Structure::builder("video/x-av1")
            .field("stream-format", "obu-stream")
            .field("alignment", "tu")
            .build();
        caps.append_structure(av1);
        for name in [
            "video/x-vp8",
            "video/x-vp9",
            "image/jpeg",
            "audio/x-opus",
            "audio/mpeg",
            "audio/x-flac",
            "audio/x-raw",
            "meta/x-klv",
            "text/x-raw",
            "application/x-subtitle",
        ] {
            caps.append_structure(gst::Structure::new_empty(name));
        }
    }
    caps
}

/// Sealed frames of anything.
pub fn sframe() -> gst::Caps {
    gst::Caps::new_empty_simple(SFRAME)
}

/// The caps of frames with these caps once they are sealed: no codec headers.
pub fn sealed(plain: &gst::CapsRef) -> gst::Caps {
    wrap(plain, |structure| structure.remove_fields(CODEC_HEADERS))
}

/// As [`sealed`], codec headers kept: for an opener, which is to restore them.
pub fn sealed_for_opening(plain: &gst::CapsRef) -> gst::Caps {
    wrap(plain, |_| ())
}

/// The number of these caps among those of their stream.
pub fn version(caps: &gst::CapsRef) -> u32 {
    caps.structure(0).and_then(|structure| structure.get(VERSION).ok()).unwrap_or_default()
}

/// The same caps with their number; the first ones go without.
pub fn with_version(mut caps: gst::Caps, version: u32) -> gst::Caps {
    for structure in caps.make_mut().iter_mut() {
        match version {
            0 => structure.remove_field(VERSION),
            version => structure.set(VERSION, version),
        }
    }
    caps
}

/// What is wrong with caps that `e2eeseal` does not take, and what to do about it; for a person.
pub fn advice(plain: &gst::CapsRef) -> String {
    let name = plain.structure(0).map_or("nothing", |structure| structure.name().as_str());
    let parser = match name {
        "video/x-h264" => "h264parse",
        "video/x-h265" => "h265parse",
        "video/x-av1" => "av1parse",
        "video/x-raw" => {
            return "pictures are sealed encoded: put an encoder, such as x264enc, before e2eeseal".into();
        }
        SFRAME => return "these frames are sealed already: link them to meetingsink or e2eeopen".into(),
        _ => {
            return format!(
                "{name} is none of the formats that e2eeseal takes: `gst-inspect-1.0 e2eeseal` lists them"
            );
        }
    };
    format!("{name} is sealed in whole pictures (alignment au or tu): put {parser} before e2eeseal")
}

/// What `e2eeseal` could take to give these caps.
pub fn before_sealing(sealed: &gst::CapsRef) -> gst::Caps {
    if sealed.is_any() {
        return self::plain();
    }
    let mut plain = gst::Caps::new_empty();
    for structure in sealed.iter().filter(|structure| structure.name() == SFRAME) {
        match unwrap(structure) {
            Some(structure) => plain.make_mut().append_structure(structure),
            None if !structure.has_field(ORIGINAL) => return self::plain(),
            None => {}
        }
    }
    plain.intersect_with_mode(&self::plain(), gst::CapsIntersectMode::First)
}

/// The caps of frames with these sealed caps once they are open: any where they do not say.
pub fn opened(sealed: &gst::CapsRef) -> gst::Caps {
    if sealed.is_any() {
        return gst::Caps::new_any();
    }
    let mut plain = gst::Caps::new_empty();
    for structure in sealed.iter().filter(|structure| structure.name() == SFRAME) {
        match unwrap(structure) {
            Some(structure) => plain.make_mut().append_structure(structure),
            None if !structure.has_field(ORIGINAL) => return gst::Caps::new_any(),
            None => {}
        }
    }
    plain
}

/// The caps of a track's sealed frames, with whose it is; none if the statement names nothing that can be opened.
pub fn of_track(
    statement: &str,
    from: ParticipantId,
    name: &str,
    stream: StreamId,
    track: &str,
) -> Option<gst::Caps> {
    let stated = from_statement(statement)?;
    let mut sealed = sealed_for_opening(&stated);
    let structure = sealed.make_mut().structure_mut(0)?;
    structure.set("participant", from.to_string());
    structure.set("participant-name", name);
    structure.set("stream", stream.0);
    structure.set("track", track);
    Some(sealed)
}

/// Whose stream sealed caps say it is, for a person.
pub fn owner_name(sealed: &gst::CapsRef) -> &str {
    let name = sealed.structure(0).and_then(|structure| structure.get("participant-name").ok());
    name.unwrap_or("a participant")
}

/// The kind of stream for a media type.
pub fn kind(caps: &gst::CapsRef) -> Kind {
    caps.structure(0).map_or(Kind::Data, kind_of)
}

fn kind_of(structure: &gst::StructureRef) -> Kind {
    match structure.name().split('/').next() {
        Some("video" | "image") => Kind::Video,
        Some("audio") => Kind::Audio,
        _ => Kind::Data,
    }
}

/// The kind of what is sealed inside.
pub fn sealed_kind(caps: &gst::CapsRef) -> Kind {
    kind(&opened(caps))
}

/// Whether all that these caps allow may come seldom, or not for minutes: captions, measurements.
pub fn is_sparse(sealed: &gst::CapsRef) -> bool {
    let plain = opened(sealed);
    !plain.is_any() && !plain.is_empty() && plain.iter().all(|structure| kind_of(structure) == Kind::Data)
}

/// Caps from a stream's statement: one fixed structure that `e2eeseal` could have been fed, or nothing.
pub fn from_statement(text: &str) -> Option<gst::Caps> {
    if !is_flat(text) {
        return None;
    }
    let caps = text.parse::<gst::Caps>().ok()?;
    let usable = caps.size() == 1 && caps.is_fixed() && caps.can_intersect(&plain());
    usable.then_some(caps)
}

/// Whether GStreamer's parser may see a stranger's text. It calls itself for each bracket without limit, for some more
/// than once, and again for what an escaped text in a container holds: it would overflow the stack, or never end.
fn is_flat(text: &str) -> bool {
    let plain = |cast: &str| {
        CASTS.iter().any(|name| cast.strip_prefix(name).is_some_and(|rest| rest.starts_with(')')))
    };
    text.bytes().filter(|byte| b"{<[".contains(byte)).count() <= MAX_BRACKETS
        && text.split('(').skip(1).all(plain)
}

fn wrap(plain: &gst::CapsRef, strip: impl Fn(&mut gst::StructureRef)) -> gst::Caps {
    if plain.is_any() {
        return sframe();
    }
    let mut sealed = gst::Caps::new_empty();
    for structure in plain.iter().filter(|structure| structure.name() != SFRAME) {
        let mut structure = structure.to_owned();
        let name = structure.name().to_string();
        structure.set_name(SFRAME);
        strip(&mut structure);
        structure.set(ORIGINAL, name);
        sealed.make_mut().append_structure(structure);
    }
    sealed
}

/// Never gives sealed caps back: a frame sealed twice would make an autoplugger go on for ever.
fn unwrap(structure: &gst::StructureRef) -> Option<gst::Structure> {
    let name = structure.get::<String>(ORIGINAL).ok()?;
    let (major, minor) = name.split_once('/')?;
    let word = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c))
    };
    if !word(major) || !word(minor) || name == SFRAME || name.len() > 128 {
        return None;
    }
    let mut plain = structure.to_owned();
    plain.set_name(&name);
    plain.remove_fields([ORIGINAL, VERSION]);
    plain.remove_fields(OWNER);
    Some(plain)
}

const ORIGINAL: &str = "original-media-type";
const VERSION: &str = "caps-version";
/// Fields that hold codec headers.
pub const CODEC_HEADERS: [&str; 2] = ["codec_data", "streamheader"];
/// What fixed caps need: an array of headers, one of channels. Each more may double the work.
const MAX_BRACKETS: usize = 4;
/// Types as GStreamer writes them whose values hold no further ones.
const CASTS: [&str; 11] = [
    "int",
    "uint",
    "gint64",
    "guint64",
    "double",
    "fraction",
    "boolean",
    "string",
    "bitmask",
    "buffer",
    "GstVideoMultiviewFlagsSet",
];
/// Fields that `meetingsrc` adds to say whose stream it is.
const OWNER: [&str; 4] = ["participant", "participant-name", "stream", "track"];

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    fn caps(text: &str) -> gst::Caps {
        gst::init().expect("GStreamer");
        gst::Caps::from_str(text).expect("caps")
    }

    #[test]
    fn seal_and_open_are_each_other_s_way_back() {
        let plain = caps("video/x-h264, stream-format=byte-stream, alignment=au, width=640, height=480");
        let sealed = sealed(&plain);
        assert_eq!(sealed.structure(0).expect("one").name(), SFRAME);
        assert_eq!(opened(&sealed), plain);
        assert_eq!(before_sealing(&sealed), plain);
    }

    #[test]
    fn codec_headers_leave_the_clear_caps() {
        let plain = caps("video/x-h264, stream-format=avc, alignment=au, codec_data=(buffer)0142");
        assert!(!sealed(&plain).to_string().contains("0142"));
        assert_eq!(opened(&sealed_for_opening(&plain)), plain);
    }

    #[test]
    fn whose_it_is_does_not_reach_the_decoder() {
        let sealed = caps(
            "application/x-sframe, original-media-type=audio/x-opus, rate=48000, \
             participant=0a, participant-name=Bob, stream=(uint)7, track=audio",
        );
        assert_eq!(opened(&sealed), caps("audio/x-opus, rate=48000"));
    }

    #[test]
    fn the_number_of_the_caps_does_not_reach_the_decoder() {
        let plain = caps("audio/x-opus, rate=48000");
        let second = with_version(sealed(&plain), 2);
        assert_eq!((version(&sealed(&plain)), version(&second)), (0, 2));
        assert_eq!((opened(&second), before_sealing(&second)), (plain.clone(), plain.clone()));
        assert_eq!(with_version(second, 0), sealed(&plain));
    }

    #[test]
    fn nothing_is_sealed_twice_or_opened_to_a_bad_name() {
        assert!(sealed(&sframe()).is_empty());
        for name in ["application/x-sframe", "", "video", "video/", "/x", "vi deo/x", "video/x;a=1"] {
            let mut caps = sframe();
            caps.make_mut().set("original-media-type", name);
            assert!(opened(&caps).is_empty(), "{name}");
        }
    }

    #[test]
    fn a_statement_names_one_fixed_codec() {
        gst::init().expect("GStreamer");
        assert!(from_statement("video/x-vp8, width=16").is_some());
        for text in [
            "ANY",
            "EMPTY",
            "video/x-raw",
            "application/x-sframe",
            "video/x-vp8; audio/x-opus",
            "=",
            "video/x-vp8, width=[1,2]",
        ] {
            assert!(from_statement(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_nested_statement_costs_neither_the_stack_nor_time() {
        gst::init().expect("GStreamer");
        let parsed = |text: String| {
            // On a stack as those of the threads that hear the agent.
            std::thread::spawn(move || from_statement(&text)).join().expect("no panic")
        };
        for unit in ["{", "<", "[", "[x,a=", "<[x,a=", "(structure)[x,a=", "{(int)"] {
            let text = format!("video/x-vp8, a={}", unit.repeat(16_000 / unit.len()));
            assert!(parsed(text).is_none(), "{unit}");
            let text = format!("video/x-vp8, a={}", unit.repeat(64));
            assert!(parsed(text).is_none(), "{unit}");
        }
        // Brackets that show only once a container's text is unescaped.
        for unit in [r"\173", r"\133x,a="] {
            let text = format!("video/x-vp8, a=(structure)\"x\\,a\\={}\"", unit.repeat(64));
            assert!(parsed(text).is_none(), "{unit}");
        }
    }

    #[test]
    fn what_parsers_say_of_their_streams_is_taken() {
        for text in [
            "video/x-h264, stream-format=(string)avc, alignment=(string)au, width=(int)640, framerate=(fraction)30/1, \
             pixel-aspect-ratio=(fraction)1/1, bit-depth-luma=(uint)8, parsed=(boolean)true, codec_data=(buffer)0142, \
             multiview-flags=(GstVideoMultiviewFlagsSet)0:ffffffff:/right-view-first/left-flipped",
            "audio/x-opus, rate=(int)48000, channels=(int)2, channel-mapping=(int)< 0, 1 >, \
             streamheader=(buffer)< 4f70, 4f71 >",
            "audio/x-raw, format=(string)S16LE, rate=(int)8000, channels=(int)2, channel-mask=(bitmask)0x3",
        ] {
            let again = from_statement(text).map(|caps| caps.to_string());
            assert!(again.as_deref().and_then(from_statement).is_some(), "{text}: {again:?}");
        }
    }
}

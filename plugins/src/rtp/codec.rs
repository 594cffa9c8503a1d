//! Which format has which name in RTP. A further one needs a further line here and no more.

use crate::caps;

/// A format of frames that RTP has a name for.
pub struct Codec {
    /// The media of its m-line.
    pub media: &'static str,
    /// Its name in `a=rtpmap`.
    pub encoding_name: &'static str,
    /// Ticks a second of the RTP time.
    pub clock_rate: i32,
    /// What follows the clock rate in `a=rtpmap`.
    pub encoding_params: Option<&'static str>,
    /// Whole frames of it, in the one form that needs no word beside the stream: codec headers cannot travel in the clear.
    caps: &'static str,
}

const fn video(encoding_name: &'static str, caps: &'static str) -> Codec {
    Codec { media: "video", encoding_name, clock_rate: 90_000, encoding_params: None, caps }
}

/// All of them. H.264 and H.265 as W3C's encoded transform has them: Annex B, parameter sets in the stream.
pub const CODECS: [Codec; 9] = [
    video("H264", "video/x-h264, stream-format=(string)byte-stream, alignment=(string)au"),
    video("H265", "video/x-h265, stream-format=(string)byte-stream, alignment=(string)au"),
    video("VP8", "video/x-vp8"),
    video("VP9", "video/x-vp9"),
    video("AV1", "video/x-av1, stream-format=(string)obu-stream, alignment=(string)tu"),
    video("JPEG", "image/jpeg"),
    Codec {
        media: "audio",
        encoding_name: "OPUS",
        clock_rate: 48_000,
        encoding_params: Some("2"),
        caps: "audio/x-opus, channel-mapping-family=(int)0",
    },
    Codec {
        media: "audio",
        encoding_name: "MPA",
        clock_rate: 90_000,
        encoding_params: None,
        caps: "audio/mpeg, mpegversion=(int)1",
    },
    Codec {
        media: "application",
        encoding_name: "SMPTE336M",
        clock_rate: 90_000,
        encoding_params: None,
        caps: "meta/x-klv, parsed=(boolean)true",
    },
];

impl Codec {
    /// The codec of sealed frames with these caps.
    pub fn of_sealed(sealed: &gst::CapsRef) -> Option<&'static Self> {
        CODECS.iter().find(|codec| sealed.is_subset(&codec.sealed()))
    }

    /// The codec of RTP packets with these caps.
    pub fn of_rtp(rtp: &gst::CapsRef) -> Option<&'static Self> {
        let structure = rtp.structure(0)?;
        let media = structure.get::<&str>("media").ok()?;
        let name = structure.get::<&str>("encoding-name").ok()?;
        CODECS.iter().find(|codec| codec.media == media && codec.encoding_name == name)
    }

    /// Sealed frames of it.
    pub fn sealed(&self) -> gst::Caps {
        let plain = self.caps.parse::<gst::Caps>().unwrap_or_else(|_| gst::Caps::new_empty());
        caps::sealed(&plain)
    }

    /// RTP packets of it.
    pub fn rtp(&self) -> gst::structure::Builder {
        gst::Structure::builder("application/x-rtp")
            .field("media", self.media)
            .field("clock-rate", self.clock_rate)
            .field("encoding-name", self.encoding_name)
    }
}

/// Sealed frames of all formats.
pub fn all_sealed() -> gst::Caps {
    CODECS.iter().map(Codec::sealed).fold(gst::Caps::new_empty(), |mut all, caps| {
        all.merge(caps);
        all
    })
}

/// RTP packets of all formats. No payload type: it is the sender's choice, and SDP's to say.
pub fn all_rtp() -> gst::Caps {
    CODECS.iter().map(|codec| codec.rtp().build()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_caps_that_the_sealer_takes_and_leads_back_to_itself() {
        gst::init().expect("GStreamer");
        for codec in &CODECS {
            let plain: gst::Caps = codec.caps.parse().expect(codec.caps);
            assert!(plain.can_intersect(&caps::plain()), "{plain}");
            assert!(plain.is_fixed(), "{plain}");
            let rtp: gst::Caps = [codec.rtp().build()].into_iter().collect();
            let found = [Codec::of_sealed(&codec.sealed()), Codec::of_rtp(&rtp)];
            assert!(found.iter().flatten().all(|found| found.encoding_name == codec.encoding_name));
            assert_eq!(found.iter().flatten().count(), 2);
            assert_eq!(caps::opened(&codec.sealed()), plain);
        }
    }

    #[test]
    fn what_needs_codec_headers_is_of_no_line() {
        gst::init().expect("GStreamer");
        for plain in [
            "video/x-h264, stream-format=avc, alignment=au, codec_data=(buffer)0142",
            "audio/mpeg, mpegversion=(int)4, codec_data=(buffer)1210",
            "audio/x-flac",
            "audio/x-raw",
        ] {
            let plain: gst::Caps = plain.parse().expect(plain);
            assert!(Codec::of_sealed(&caps::sealed(&plain)).is_none(), "{plain}");
        }
        assert!(Codec::of_sealed(&caps::sframe()).is_none(), "caps that say nothing");
    }
}

//! Sealed frames over RTP: what comes out was sent, byte for byte, whatever happens to the packets.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use gst::prelude::*;
use gst_check::Harness;
use gst_rtp::RTPBuffer;
use proptest::prelude::*;
use support::{Pipeline, buffer, bytes, init, stat, until};

const SEALED_VP8: &str = "application/x-sframe, original-media-type=(string)video/x-vp8";
const SEALED_OPUS: &str =
    "application/x-sframe, original-media-type=(string)audio/x-opus, channel-mapping-family=(int)0";
const VP8: &str = "application/x-rtp, media=(string)video, clock-rate=(int)90000, encoding-name=(string)VP8, \
                   payload=(int)96";
const OPUS: &str = "application/x-rtp, media=(string)audio, clock-rate=(int)48000, encoding-name=(string)OPUS, \
                    payload=(int)97";

/// The same numbers for the same seed.
struct XorShift(u64);

impl XorShift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

fn harness(element: &str, caps: &str) -> Harness {
    init();
    let mut harness = Harness::new(element);
    harness.set_src_caps_str(caps);
    harness.play();
    harness
}

fn drain(harness: &mut Harness) -> Vec<gst::Buffer> {
    std::iter::from_fn(|| harness.try_pull()).collect()
}

/// The packets of each frame.
fn packets(caps: &str, mtu: u32, first: i32, frames: &[Vec<u8>]) -> Vec<Vec<gst::Buffer>> {
    init();
    let mut pay = Harness::new("rtpsframepay");
    let element = pay.element().unwrap();
    element.set_property("mtu", mtu);
    element.set_property("seqnum-offset", first);
    pay.set_src_caps_str(caps);
    pay.play();
    let packets = |(n, frame): (usize, &Vec<u8>)| {
        let mut frame = buffer(frame);
        frame.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(n as u64 * 20));
        pay.push(frame).unwrap();
        drain(&mut pay)
    };
    frames.iter().enumerate().map(packets).collect()
}

fn received(packets: impl IntoIterator<Item = gst::Buffer>) -> Vec<Vec<u8>> {
    let mut depay = harness("rtpsframedepay", VP8);
    for packet in packets {
        depay.push(packet).unwrap();
    }
    drain(&mut depay).iter().map(bytes).collect()
}

fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let size = prop_oneof![4 => 1..100usize, 4 => 1..4_000usize, 1 => 4_000..200_000usize];
    (prop::collection::vec(size, 1..12), any::<u64>()).prop_map(|(sizes, seed)| {
        let mut random = XorShift(seed | 1);
        sizes.into_iter().map(|size| random.bytes(size)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn any_frames_come_through_any_mtu_byte_for_byte(frames in frames(), mtu in 28..1600u32, first in 0..=65_535i32) {
        let packets = packets(SEALED_VP8, mtu, first, &frames);
        for packet in packets.iter().flatten() {
            prop_assert!(packet.size() <= mtu as usize);
        }
        prop_assert_eq!(received(packets.into_iter().flatten()), frames);
    }

    #[test]
    fn loss_takes_the_frames_it_hits_and_no_others(frames in frames(), mtu in 300..1600u32, seed in any::<u64>()) {
        let mut random = XorShift(seed | 1);
        let (mut arrived, mut whole) = (Vec::new(), Vec::new());
        for (packets, frame) in packets(SEALED_VP8, mtu, 65_530, &frames).into_iter().zip(frames) {
            let sent = packets.len();
            let rest: Vec<_> = packets.into_iter().filter(|_| !random.percent(10)).collect();
            whole.extend((rest.len() == sent).then_some(frame));
            arrived.extend(rest);
        }
        prop_assert_eq!(received(arrived), whole);
    }

    #[test]
    fn whatever_order_packets_come_in_no_frame_comes_out_that_was_not_sent(
        frames in frames(), mtu in 300..1600u32, seed in any::<u64>(),
    ) {
        let mut random = XorShift(seed | 1);
        let mut arrived: Vec<gst::Buffer> = Vec::new();
        for packet in packets(SEALED_VP8, mtu, 65_530, &frames).into_iter().flatten() {
            if random.percent(10) {
                continue;
            }
            let back = if random.percent(20) { random.next() as usize % 8 } else { 0 };
            arrived.insert(arrived.len().saturating_sub(back), packet.clone());
            if random.percent(10) {
                arrived.push(packet);
            }
        }
        // Each that comes out is a frame behind the last one.
        let mut sent = frames.iter();
        for frame in received(arrived) {
            prop_assert!(sent.any(|sent| *sent == frame));
        }
    }
}

#[test]
fn a_hundred_thousand_packets_of_garbage_are_counted_and_break_nothing() {
    let mut depay = harness("rtpsframedepay", VP8);
    let element = depay.element().unwrap();
    let mut random = XorShift(2);
    for n in 0..100_000u32 {
        let mut packet = vec![0x80, 96];
        packet.extend((n as u16).to_be_bytes());
        packet.extend([0, 0, 0, random.percent(10) as u8, 0, 0, 0, 1]);
        // Half of them start as the draft has it: otherwise no frame would ever begin.
        let descriptor = if random.percent(50) { random.next() as u8 & 0xe0 } else { random.next() as u8 };
        packet.extend((!random.percent(5)).then_some(descriptor));
        let len = random.next() as usize % 30;
        packet.extend(random.bytes(len));
        if random.percent(1) {
            let len = random.next() as usize % 40;
            packet = random.bytes(len);
        }
        depay.push(buffer(&packet)).unwrap();
    }
    let frames = drain(&mut depay);
    assert_eq!(frames.len() as u64, stat(&element, "frames"));
    for reason in ["malformed", "packetized", "incomplete", "gaps"] {
        assert!(stat(&element, reason) > 100, "{reason}: {:?}", element.property::<gst::Structure>("stats"));
    }
    // A panic would have ended the element: it still works.
    let sent = vec![vec![7; 5_000]];
    for packet in packets(SEALED_VP8, 1200, 1, &sent).into_iter().flatten() {
        depay.push(packet).unwrap();
    }
    assert_eq!(drain(&mut depay).iter().map(bytes).collect::<Vec<_>>(), sent);
}

#[test]
fn packets_are_the_drafts_and_the_marker_stands_where_the_format_has_it() {
    let frames = vec![vec![1; 25], vec![2; 3]];
    let first_bytes = |packets: &[gst::Buffer]| -> Vec<(u8, bool)> {
        let read = |packet: &gst::Buffer| {
            let rtp = RTPBuffer::from_buffer_readable(packet).unwrap();
            (rtp.payload().unwrap()[0], rtp.is_marker())
        };
        packets.iter().map(read).collect()
    };
    // 28 bytes: a header of 12, the descriptor, 15 of the frame.
    let video = packets(SEALED_VP8, 28, 0, &frames);
    assert_eq!(first_bytes(&video[0]), [(0x80, false), (0x40, true)]);
    assert_eq!(first_bytes(&video[1]), [(0xc0, true)]);
    // Sound is marked where a talkspurt begins, and these frames go on.
    let audio = packets(SEALED_OPUS, 28, 0, &frames);
    assert_eq!(first_bytes(&audio[0]), [(0x80, false), (0x40, false)]);
    assert_eq!(first_bytes(&audio[1]), [(0xc0, false)]);
}

#[test]
fn the_caps_name_the_format_and_say_nothing_else_of_it() {
    for (sealed, rtp) in [
        (
            "application/x-sframe, original-media-type=video/x-h264, stream-format=byte-stream, alignment=au, \
             width=640, height=480, framerate=30/1, profile=high, track=private",
            "media=(string)video, clock-rate=(int)90000, encoding-name=(string)H264, a-sframe=(string)\"\", \
             payload=(int)96",
        ),
        (
            "application/x-sframe, original-media-type=audio/x-opus, channel-mapping-family=0, rate=16000, channels=1",
            "media=(string)audio, clock-rate=(int)48000, encoding-name=(string)OPUS, a-sframe=(string)\"\", \
             encoding-params=(string)2, payload=(int)96",
        ),
    ] {
        let mut pay = harness("rtpsframepay", sealed);
        pay.push(buffer(b"sealed")).unwrap();
        let mut caps = pay.sinkpad().unwrap().current_caps().unwrap();
        for own in ["ssrc", "timestamp-offset", "seqnum-offset"] {
            caps.make_mut().structure_mut(0).unwrap().remove_field(own);
        }
        assert_eq!(caps, format!("application/x-rtp, {rtp}").parse::<gst::Caps>().unwrap());
    }
}

#[test]
fn what_needs_codec_headers_is_refused_and_encoders_choose_what_does_not() {
    let pipeline = Pipeline::parse(
        "meetingkey loopback=true appsrc name=in format=time \
         caps=\"video/x-h264, stream-format=avc, alignment=au, codec_data=(buffer)014d401f\" ! \
         e2eeseal ! rtpsframepay ! fakesink",
    );
    pipeline.play();
    let input: gst_app::AppSrc = pipeline.element("in").downcast().unwrap();
    let _ = input.push_buffer(buffer(b"frame"));
    pipeline.until_error();

    let pipeline = Pipeline::parse(
        "meetingkey loopback=true videotestsrc num-buffers=3 ! x264enc ! e2eeseal name=seal ! rtpsframepay ! fakesink",
    );
    pipeline.play();
    pipeline.until_eos();
    let caps = pipeline.element("seal").static_pad("sink").unwrap().current_caps().unwrap();
    assert_eq!(caps.structure(0).unwrap().get::<&str>("stream-format").unwrap(), "byte-stream");
}

#[test]
fn a_loss_of_pictures_asks_for_a_keyframe_and_marks_the_next_frame() {
    for (caps, sealed, asks) in [(VP8, SEALED_VP8, true), (OPUS, SEALED_OPUS, false)] {
        let sent: Vec<Vec<u8>> = (1..4).map(|n| vec![n; 3_000]).collect();
        let mut lossy = packets(sealed, 1_200, 9, &sent);
        lossy[1].remove(1);
        let mut depay = harness("rtpsframedepay", caps);
        for packet in lossy.into_iter().flatten() {
            depay.push(packet).unwrap();
        }
        let got = drain(&mut depay);
        assert_eq!(got.iter().map(bytes).collect::<Vec<_>>(), [sent[0].clone(), sent[2].clone()]);
        assert!(got[1].flags().contains(gst::BufferFlags::DISCONT));
        // One for the beginning, one for the loss, which came too soon after and is told later.
        let (wanted, mut told, mut seq) = (if asks { 2 } else { 0 }, asked(&mut depay), 17);
        until("each wish is told", || {
            seq += 1;
            depay.push(packets(sealed, 1_200, seq, &[vec![7]]).remove(0).remove(0)).unwrap();
            told += asked(&mut depay);
            told >= wanted
        });
        assert_eq!(told, wanted, "{caps}");
    }
}

#[test]
fn packets_are_let_go_once_their_frame_is_out() {
    struct Part(Vec<u8>, Arc<Mutex<u32>>);
    impl AsRef<[u8]> for Part {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    impl Drop for Part {
        fn drop(&mut self) {
            *self.1.lock().unwrap() += 1;
        }
    }

    let (gone, mut sent) = (Arc::default(), 0);
    let mut depay = harness("rtpsframedepay", VP8);
    for packet in packets(SEALED_VP8, 1_200, 1, &[vec![1; 5_000], vec![2; 500]]).into_iter().flatten() {
        let mut parted = gst::Buffer::new();
        // Header and payload apart, as payloaders make them.
        let packet = bytes(&packet);
        for part in [&packet[..12], &packet[12..]] {
            sent += 1;
            let part = gst::Memory::from_slice(Part(part.to_vec(), Arc::clone(&gone)));
            parted.make_mut().append_memory(part);
        }
        depay.push(parted).unwrap();
    }
    assert_eq!(drain(&mut depay).len(), 2);
    assert_eq!(*gone.lock().unwrap(), sent);
}

/// How often a keyframe was asked for since the last look.
fn asked(depay: &mut Harness) -> u32 {
    let events = std::iter::from_fn(|| depay.try_pull_upstream_event());
    events.filter(|event| event.structure().is_some_and(|s| s.name() == "GstForceKeyUnit")).count() as u32
}

#[test]
fn a_sender_that_seals_packets_is_told_of_once_a_second() {
    let pipeline = Pipeline::parse(&format!(
        "appsrc name=in format=time caps=\"{VP8}\" ! rtpsframedepay name=depay ! fakesink"
    ));
    pipeline.play();
    let input: gst_app::AppSrc = pipeline.element("in").downcast().unwrap();
    let started = Instant::now();
    for n in 0..50u8 {
        input.push_buffer(buffer(&[0x80, 96, 0, n, 0, 0, 0, 0, 0, 0, 0, 1, 0xe0, 1, 2])).unwrap();
    }
    let depay = pipeline.element("depay");
    until("all are refused", || stat(&depay, "packetized") == 50);
    // The clock of what is told shows whole milliseconds.
    let seconds = started.elapsed().as_millis() / 999;
    let said = pipeline.until_says("rtp-sframe-dropped", |_| true);
    assert_eq!((said.get::<&str>("reason").unwrap(), said.get::<u64>("count").unwrap()), ("packetized", 1));
    let bus = pipeline.0.bus().unwrap();
    let again = std::iter::from_fn(|| bus.pop_filtered(&[gst::MessageType::Element])).count();
    assert!(again as u128 <= seconds, "{again} times more in {seconds} s");
}

/// Which frames a lossy road let through whole: how many packets of each were sent and have come, by their RTP times.
#[derive(Default)]
struct Road {
    sent: HashMap<u32, u64>,
    came: HashMap<u32, u64>,
    lost: u64,
}

impl Road {
    fn whole(&self) -> u64 {
        self.sent.iter().filter(|(time, sent)| self.came.get(*time) == Some(*sent)).count() as u64
    }

    fn packets(&self) -> u64 {
        self.sent.values().sum()
    }

    /// Whether whatever was not lost on purpose has come.
    fn is_empty(&self) -> bool {
        self.came.values().sum::<u64>() + self.lost == self.packets()
    }

    /// Counts what comes out of `pad`, which is its end.
    fn ends_at(road: &Arc<Mutex<Self>>, pad: &gst::Pad) {
        let road = road.clone();
        pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, info| {
            let mut road = road.lock().unwrap();
            let mut came = |packet: &gst::BufferRef| {
                let time = RTPBuffer::from_buffer_readable(packet).unwrap().timestamp();
                *road.came.entry(time).or_default() += 1;
            };
            match &info.data {
                Some(gst::PadProbeData::Buffer(packet)) => came(packet),
                Some(gst::PadProbeData::BufferList(list)) => list.iter().for_each(came),
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Loses packets out of `pad`, the same ones each time.
    fn lossy(pad: &gst::Pad, seed: u64, percent: u64) -> Arc<Mutex<Self>> {
        let road = Arc::new(Mutex::new(Self::default()));
        let (theirs, mut random) = (road.clone(), XorShift(seed));
        // The state of the draw is behind a lock because a probe may be called from any thread.
        let random = Mutex::new(move || random.percent(percent));
        pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, info| {
            let mut road = theirs.lock().unwrap();
            let mut lost = |packet: &gst::BufferRef| {
                let time = RTPBuffer::from_buffer_readable(packet).unwrap().timestamp();
                let lost = random.lock().unwrap()();
                *road.sent.entry(time).or_default() += 1;
                road.lost += u64::from(lost);
                lost
            };
            match &mut info.data {
                Some(gst::PadProbeData::Buffer(packet)) if lost(packet) => gst::PadProbeReturn::Handled,
                Some(gst::PadProbeData::BufferList(list)) => {
                    *list = list.iter_owned().filter(|packet| !lost(packet)).collect();
                    if list.is_empty() { gst::PadProbeReturn::Handled } else { gst::PadProbeReturn::Ok }
                }
                _ => gst::PadProbeReturn::Ok,
            }
        });
        road
    }
}

#[test]
fn over_udp_with_two_percent_loss_every_complete_frame_opens_and_none_is_forged() {
    const FRAMES: u32 = 90;
    let [video_port, audio_port] = free_ports();
    let pipeline = Pipeline::parse(&format!(
        "meetingkey loopback=true \
         rtpbin name=out rtpbin name=in latency=2000 \
         videotestsrc is-live=true num-buffers={FRAMES} ! video/x-raw,width=640,height=360,framerate=30/1 ! \
         x264enc tune=zerolatency speed-preset=ultrafast bitrate=2000 key-int-max=15 ! e2eeseal name=seal-video ! \
         rtpsframepay ! out.send_rtp_sink_0 \
         out.send_rtp_src_0 ! udpsink name=video-road host=127.0.0.1 port={video_port} sync=false async=false \
         audiotestsrc is-live=true num-buffers=150 samplesperbuffer=960 ! audio/x-raw,rate=48000 ! opusenc ! \
         e2eeseal name=seal-audio ! rtpsframepay pt=97 ! out.send_rtp_sink_1 \
         out.send_rtp_src_1 ! udpsink name=audio-road host=127.0.0.1 port={audio_port} sync=false async=false \
         udpsrc name=video-end address=127.0.0.1 port={video_port} buffer-size=2000000 caps=\"{H264}\" ! in.recv_rtp_sink_0 \
         udpsrc name=audio-end address=127.0.0.1 port={audio_port} buffer-size=2000000 caps=\"{OPUS}\" ! in.recv_rtp_sink_1 \
         in. ! application/x-rtp,media=video ! rtpsframedepay name=depay-video ! e2eeopen name=open-video ! h264parse ! \
         avdec_h264 ! fakesink name=screen sync=false async=false \
         in. ! application/x-rtp,media=audio ! rtpsframedepay name=depay-audio ! e2eeopen name=open-audio ! opusdec ! \
         fakesink name=speaker sync=false async=false"
    ));
    let road = |name: &str, seed| Road::lossy(&pipeline.element(name).static_pad("sink").unwrap(), seed, 2);
    let roads = [road("video-road", 3), road("audio-road", 5)];
    for (road, end) in roads.iter().zip(["video-end", "audio-end"]) {
        Road::ends_at(road, &pipeline.element(end).static_pad("src").unwrap());
    }
    let asked = Arc::new(Mutex::new(0u32));
    let counter = asked.clone();
    pipeline.element("depay-video").static_pad("sink").unwrap().add_probe(
        gst::PadProbeType::EVENT_UPSTREAM,
        move |_, info| {
            let keyframe =
                info.event().and_then(|e| e.structure()).is_some_and(|s| s.name() == "GstForceKeyUnit");
            *counter.lock().unwrap() += u32::from(keyframe);
            gst::PadProbeReturn::Ok
        },
    );
    pipeline.play();
    for (kind, road, sealed) in [("video", &roads[0], u64::from(FRAMES)), ("audio", &roads[1], 150)] {
        let element = |name: &str| pipeline.element(&format!("{name}-{kind}"));
        let (seal, depay, open) = (element("seal"), element("depay"), element("open"));
        until("all is sealed", || stat(&seal, "sealed") >= sealed);
        until("all is on its way", || road.lock().unwrap().sent.len() as u64 == stat(&seal, "sealed"));
        // What finds no room in the socket, since its reader stands still, is lost on the way too.
        let sent = Instant::now();
        until("all has come", || road.lock().unwrap().is_empty() || sent.elapsed() > Duration::from_secs(10));
        let whole = || road.lock().unwrap().whole();
        until("all that is whole has come", || stat(&depay, "frames") == whole());
        until("all that has come is open", || stat(&open, "opened") == whole());
        let road = road.lock().unwrap();
        assert!(road.lost > 0 && road.whole() > sealed / 2, "{} of {sealed}", road.whole());
        for reason in ["no-key", "forged", "replayed", "malformed", "mismatch", "stale"] {
            assert_eq!(stat(&open, reason), 0, "{kind}: {reason}");
        }
        assert_eq!(stat(&depay, "malformed") + stat(&depay, "packetized"), 0);
        assert!(stat(&depay, "gaps") > 0);
        println!("{kind}: {} packets, {} of {sealed} frames whole and opened", road.packets(), road.whole());
    }
    assert!(*asked.lock().unwrap() > 0);
    for sink in ["screen", "speaker"] {
        let sink = pipeline.element(sink);
        let rendered = || sink.property::<gst::Structure>("stats").get::<u64>("rendered").unwrap();
        until("most of it is decoded", || rendered() > 40);
    }
}

const H264: &str = "application/x-rtp, media=(string)video, clock-rate=(int)90000, encoding-name=(string)H264, \
                    payload=(int)96";

/// Two ports that nobody has on the loopback, held until both are known.
fn free_ports() -> [u16; 2] {
    let sockets = [(); 2].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    sockets.map(|socket| socket.local_addr().unwrap().port())
}

//! Who vouches for a frame: an honest sender, a relay and a member that meddle, and the checker between them.

use std::time::Duration;

use meeting_protocol::{
    BootTime,
    beacon::{Checker, FrameDigest, Sent, Span, Vouch},
    frame::{Header, KeyId},
};
use meeting_wire::{Envelope, Flags, StreamId};

use crate::cursor::Cursor;

const STREAM: StreamId = StreamId(1);
/// Long ones in one input: as many frames as the backlog holds.
const BURSTS: usize = 5;

pub fn run(bytes: &[u8]) {
    let mut bytes = Cursor(bytes);
    let (mut sent, mut checker, mut now) = (Sent::default(), Checker::default(), BootTime(1_000));
    checker.opened(KeyId::new(STREAM, 1, 0), 0, now);
    checker.watch(STREAM, now);
    let mut on_its_way: Vec<Envelope> = Vec::new();
    let mut beacons: Vec<Vec<Span>> = Vec::new();
    let (mut ctr, mut bursts) = (0u64, 0);
    for _ in 0..256 {
        if bytes.is_empty() {
            break;
        }
        match bytes.u8() % 11 {
            0 | 1 => {
                let frame = frame(STREAM, bytes.u8() % 3, ctr, bytes.short());
                sent.frame(&frame);
                ctr += 1;
                on_its_way.push(frame);
            }
            2 => ctr = ctr.saturating_add(bytes.u16().into()),
            9 if bursts < BURSTS => {
                // Nobody takes it, and the counter jumps or stays.
                bursts += 1;
                let (count, step, keys) = (bytes.scaled(12), bytes.u8() % 128, 1 + bytes.u8() % 2);
                for n in 0..count {
                    sent.frame(&frame(STREAM, n as u8 % keys, ctr, &[]));
                    ctr = ctr.saturating_add(step.into());
                }
            }
            3 if !on_its_way.is_empty() => {
                let frame = on_its_way[bytes.below(on_its_way.len())].clone();
                let digest = FrameDigest::of(&frame);
                went_on(checker.frame(STREAM, frame, digest, now));
            }
            4 => {
                let forged = frame(StreamId(bytes.u8().into()), bytes.u8(), bytes.u64(), bytes.short());
                let digest = FrameDigest::of(&forged);
                went_on(checker.frame(STREAM, forged, digest, now));
            }
            5 => beacons.push(sent.take()),
            6 if !beacons.is_empty() => {
                let spans = beacons[bytes.below(beacons.len())].clone();
                let delay = Some(bytes.u16().into()).filter(|delay| *delay != 0);
                released(&checker.beacon(&Vouch { spans, delay }, now));
            }
            7 => {
                let frames = vec![FrameDigest([bytes.u8(); 16]); bytes.scaled(12) as usize];
                let kid = KeyId::new(STREAM, 1, bytes.u8().into());
                let span = Span { kid, first: bytes.u64() >> 2, frames, closed: bytes.u8() % 2 == 1 };
                released(&checker.beacon(&Vouch { spans: vec![span], delay: None }, now));
            }
            8 => sent.ended(STREAM),
            _ => {
                now = now + Duration::from_millis(bytes.u16().into());
                released(&checker.tick(now));
            }
        }
        assert!(checker.findings().len() <= 16, "a person is told once");
    }
    checker.trust(STREAM);
    drained(&mut sent);
}

/// What goes on at once is of the stream that was asked for, by its sender's index.
fn went_on(frame: Option<Envelope>) {
    let header = frame.and_then(|frame| Header::parse(&frame.sealed).map(|(header, _)| header));
    let kid = header.map(|header| KeyId::from(header.kid));
    assert!(kid.is_none_or(|kid| (kid.stream(), kid.index()) == (STREAM, 1)));
}

/// Frames that have waited are of the stream that was asked for.
fn released(frames: &[(StreamId, Envelope)]) {
    assert!(frames.iter().all(|(stream, _)| *stream == STREAM));
}

/// What waits for a beacon is no more than four of the longest carry, and the counters before the last frame.
fn drained(sent: &mut Sent) {
    let mut waited = 0;
    for _ in 0..200 {
        let spans = sent.take();
        if spans.is_empty() {
            return;
        }
        waited += spans.iter().map(|span| span.frames.len()).sum::<usize>();
        assert!(waited <= 4 * 4_096 + 64, "{waited} frames wait");
    }
    panic!("more than two hundred beacons wait");
}

fn frame(stream: StreamId, epoch: u8, ctr: u64, body: &[u8]) -> Envelope {
    let mut head = [0; Header::MAX_LEN];
    let len = Header { kid: KeyId::new(stream, 1, epoch.into()).into(), ctr }.emit(&mut head);
    let sealed = [&head[..len], body, &[0; 16]].concat().into();
    Envelope { pts: None, dts: None, duration: None, flags: Flags(0), layer: 0, sealed }
}

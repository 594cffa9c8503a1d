//! Fragments in, whole frames out: no GStreamer, no clock.
//!
//! A frame is complete when its packets came one after another, from S to E, of one source, time and payload type.
//! Anything else breaks it, and the rest of a broken frame is passed over.

use std::borrow::Cow;

use meeting_wire::MAX_FRAME;

use super::descriptor::Descriptor;

/// What counts of an RTP packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The sequence number.
    pub seq: u16,
    /// What all packets of a frame have in common.
    pub of: Of,
    /// Descriptor and fragment.
    pub payload: &'a [u8],
}

/// What all packets of a frame have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Of {
    /// The source.
    pub ssrc: u32,
    /// The RTP time.
    pub timestamp: u32,
    /// The format of what is sealed.
    pub payload_type: u8,
}

/// What is wrong with a packet by itself, whatever was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// No fragment, reserved bits, no beginning, two beginnings, or parts of two frames.
    Malformed,
    /// Sealed after it was packetized (T): it would take the depayloader of the format to make frames of it.
    Packetized,
    /// Its frame is longer than any may be.
    TooLong,
}

impl Flaw {
    /// The word in messages and statistics.
    pub fn word(self) -> &'static str {
        match self {
            Flaw::Malformed => "malformed",
            Flaw::Packetized => "packetized",
            Flaw::TooLong => "too-long",
        }
    }
}

/// What became of a packet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken<'a> {
    /// The frame it completed; where it is all of it, the packet's own bytes.
    pub frame: Option<Cow<'a, [u8]>>,
    /// A frame, or part of one, will not come any more.
    pub lost: bool,
    /// What is wrong with the packet.
    pub flaw: Option<Flaw>,
}

/// What an assembler did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames completed.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames of which a part came, and not all.
    pub incomplete: u64,
    /// Breaks in the sequence numbers.
    pub gaps: u64,
    /// Packets with [`Flaw::Malformed`].
    pub malformed: u64,
    /// Packets with [`Flaw::Packetized`].
    pub packetized: u64,
    /// Packets with [`Flaw::TooLong`].
    pub too_long: u64,
}

/// Puts frames together.
#[derive(Default)]
pub struct Assembler {
    next: Option<u16>,
    stage: Stage,
    /// What it did so far.
    pub counts: Counts,
}

#[derive(Default)]
enum Stage {
    /// Somewhere in a frame whose beginning is missing, as at the very start.
    #[default]
    Astray,
    /// Between two frames.
    Between,
    /// Within a frame.
    Within(Of, Vec<u8>),
}

impl Assembler {
    /// Forgets where it is, not what it counted.
    pub fn reset(&mut self) {
        self.next = None;
        self.stage = Stage::Astray;
    }

    /// Takes the next packet.
    pub fn take<'a>(&mut self, packet: Packet<'a>) -> Taken<'a> {
        let mut taken = Taken::default();
        let expected = self.next.replace(packet.seq.wrapping_add(1));
        if expected.is_some_and(|seq| seq != packet.seq) {
            self.counts.gaps += 1;
            self.lose(&mut taken);
        }
        match Descriptor::split(packet.payload) {
            None => self.refuse(Flaw::Malformed, &mut taken),
            Some((descriptor, _)) if descriptor.packetized => self.refuse(Flaw::Packetized, &mut taken),
            Some((descriptor, fragment)) => self.add(descriptor, packet.of, fragment, &mut taken),
        }
        taken
    }

    fn add<'a>(&mut self, descriptor: Descriptor, of: Of, fragment: &'a [u8], taken: &mut Taken<'a>) {
        let mut begun = match std::mem::take(&mut self.stage) {
            // The lost beginning was seen to when it was lost.
            Stage::Astray if !descriptor.start => return,
            Stage::Within(whole, begun) if !descriptor.start && whole == of => begun,
            Stage::Astray | Stage::Between if descriptor.start => Vec::new(),
            broken => {
                self.stage = broken;
                self.refuse(Flaw::Malformed, taken);
                if !descriptor.start {
                    return;
                }
                Vec::new()
            }
        };
        if begun.len() + fragment.len() > MAX_FRAME {
            self.stage = Stage::Within(of, begun);
            return self.refuse(Flaw::TooLong, taken);
        }
        let frame = if begun.is_empty() {
            Cow::Borrowed(fragment)
        } else {
            begun.extend_from_slice(fragment);
            Cow::Owned(begun)
        };
        if descriptor.end {
            self.stage = Stage::Between;
            self.counts.frames += 1;
            self.counts.bytes += frame.len() as u64;
            taken.frame = Some(frame);
        } else {
            self.stage = Stage::Within(of, frame.into_owned());
        }
    }

    fn refuse(&mut self, flaw: Flaw, taken: &mut Taken<'_>) {
        taken.flaw = Some(flaw);
        match flaw {
            Flaw::Malformed => self.counts.malformed += 1,
            Flaw::Packetized => self.counts.packetized += 1,
            Flaw::TooLong => self.counts.too_long += 1,
        }
        self.lose(taken);
    }

    fn lose(&mut self, taken: &mut Taken<'_>) {
        taken.lost = true;
        if let Stage::Within(..) = std::mem::take(&mut self.stage) {
            self.counts.incomplete += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: Of = Of { ssrc: 1, timestamp: 2, payload_type: 96 };
    const S: u8 = 0x80;
    const E: u8 = 0x40;
    const T: u8 = 0x20;

    fn take(assembler: &mut Assembler, seq: u16, descriptor: u8, fragment: &[u8]) -> Taken<'static> {
        take_of(assembler, seq, OF, descriptor, fragment)
    }

    fn take_of(
        assembler: &mut Assembler,
        seq: u16,
        of: Of,
        descriptor: u8,
        fragment: &[u8],
    ) -> Taken<'static> {
        let payload = [&[descriptor], fragment].concat();
        let Taken { frame, lost, flaw } = assembler.take(Packet { seq, of, payload: &payload });
        Taken { frame: frame.map(|frame| frame.into_owned().into()), lost, flaw }
    }

    fn frame(bytes: &'static [u8]) -> Taken<'static> {
        Taken { frame: Some(bytes.into()), ..Taken::default() }
    }

    #[test]
    fn frames_of_one_packet_and_of_many_come_out_whole() {
        let mut assembler = Assembler::default();
        assert_eq!(take(&mut assembler, 65_534, S | E, b"one"), frame(b"one"));
        assert_eq!(take(&mut assembler, 65_535, S, b"t"), Taken::default());
        assert_eq!(take(&mut assembler, 0, 0, b"w"), Taken::default());
        assert_eq!(take(&mut assembler, 1, E, b"o"), frame(b"two"));
        assert_eq!(assembler.counts, Counts { frames: 2, bytes: 6, ..Counts::default() });
    }

    #[test]
    fn a_gap_loses_the_frame_and_what_is_left_of_it_is_passed_over() {
        let mut assembler = Assembler::default();
        take(&mut assembler, 1, S, b"a");
        assert_eq!(take(&mut assembler, 3, 0, b"c"), Taken { lost: true, ..Taken::default() });
        assert_eq!(take(&mut assembler, 4, E, b"d"), Taken::default());
        assert_eq!(take(&mut assembler, 5, S | E, b"next"), frame(b"next"));
        assert_eq!(
            assembler.counts,
            Counts { frames: 1, bytes: 4, incomplete: 1, gaps: 1, ..Counts::default() }
        );
    }

    #[test]
    fn a_gap_between_frames_is_a_loss_too() {
        let mut assembler = Assembler::default();
        take(&mut assembler, 1, S | E, b"a");
        assert_eq!(take(&mut assembler, 3, S | E, b"c"), Taken { lost: true, ..frame(b"c") });
        assert_eq!((assembler.counts.gaps, assembler.counts.incomplete), (1, 0));
    }

    #[test]
    fn who_comes_in_the_middle_of_a_frame_waits_for_the_next() {
        let mut assembler = Assembler::default();
        assert_eq!(take(&mut assembler, 1, E, b"tail"), Taken::default());
        assert_eq!(take(&mut assembler, 2, S | E, b"next"), frame(b"next"));
        assert_eq!(assembler.counts.malformed, 0);
    }

    #[test]
    fn two_beginnings_and_none_are_malformed_and_a_beginning_begins() {
        let mut assembler = Assembler::default();
        let malformed = Taken { flaw: Some(Flaw::Malformed), lost: true, frame: None };
        take(&mut assembler, 1, S, b"a");
        assert_eq!(take(&mut assembler, 2, S, b"b"), malformed);
        assert_eq!(take(&mut assembler, 3, E, b"c"), frame(b"bc"));
        assert_eq!(take(&mut assembler, 4, E, b"d"), malformed);
        assert_eq!(assembler.counts.malformed, 2);
        assert_eq!(assembler.counts.incomplete, 1);
    }

    #[test]
    fn no_frame_is_made_of_parts_of_two() {
        for of in [Of { ssrc: 9, ..OF }, Of { timestamp: 9, ..OF }, Of { payload_type: 9, ..OF }] {
            let mut assembler = Assembler::default();
            take(&mut assembler, 1, S, b"a");
            let taken = take_of(&mut assembler, 2, of, E, b"b");
            assert_eq!(taken, Taken { flaw: Some(Flaw::Malformed), lost: true, frame: None });
        }
    }

    #[test]
    fn empty_packets_reserved_bits_and_packetized_payloads_break_the_frame_they_are_in() {
        for (payload, flaw) in [
            (&[][..], Flaw::Malformed),
            (&[S], Flaw::Malformed),
            (&[1, b'b'], Flaw::Malformed),
            (&[T, b'b'], Flaw::Packetized),
            (&[S | E | T, b'b'], Flaw::Packetized),
        ] {
            let mut assembler = Assembler::default();
            take(&mut assembler, 1, S, b"a");
            let taken = assembler.take(Packet { seq: 2, of: OF, payload });
            assert_eq!(taken, Taken { flaw: Some(flaw), lost: true, frame: None });
            assert_eq!(take(&mut assembler, 3, E, b"c"), Taken::default());
            assert_eq!(assembler.counts.incomplete, 1);
        }
    }

    #[test]
    fn a_frame_without_end_is_dropped_at_the_limit_and_its_memory_with_it() {
        let mut assembler = Assembler::default();
        let fragment = vec![0; 60_000];
        let mut seq = 0u16;
        let mut next = |assembler: &mut Assembler, descriptor| {
            seq = seq.wrapping_add(1);
            take(assembler, seq, descriptor, &fragment)
        };
        next(&mut assembler, S);
        let fits = MAX_FRAME / fragment.len() - 1;
        assert!((0..fits).all(|_| next(&mut assembler, 0) == Taken::default()));
        let dropped = Taken { flaw: Some(Flaw::TooLong), lost: true, frame: None };
        assert_eq!(next(&mut assembler, 0), dropped);
        assert!(matches!(assembler.stage, Stage::Astray));
        assert!((0..1_000).all(|_| next(&mut assembler, 0) == Taken::default()));
    }
}

//! How much may go out: below what the relay takes of one connection, which it ends for more, with every stream of this
//! device.

use meeting_wire::{Envelope, Flags, Kind, MAX_FRAME, Rate, Record};

/// What a frame counts for.
pub fn cost(kind: Kind, flags: Flags) -> f64 {
    match kind {
        Kind::Video if flags.has(Flags::KEYFRAME | Flags::HEADER) => GROUP,
        _ => 1.0,
    }
}

/// What a frame counts in bytes, as the relay counts them: the whole record at its longest.
pub fn size(envelope: &Envelope) -> f64 {
    (envelope.sealed.len() + AROUND) as f64
}

/// What a wish with caps of so many bytes counts for: everybody in the meeting gets them.
pub fn wish(caps: usize) -> f64 {
    1.0 + caps as f64 / 2_048.0
}

/// Frames of all streams: the relay takes 4,000 a second and 16,384 at once, beacons among them.
pub const FRAMES: Rate = Rate { per_second: 3_000.0, burst: 8_192.0 };
/// Frames of one stream, so that one that floods leaves the others theirs.
pub const FRAMES_OF_ONE: Rate = Rate { per_second: 1_000.0, burst: 4_096.0 };
/// Frames of one user who shares the agent, so that one who floods leaves the others theirs.
pub const FRAMES_OF_GUEST: Rate = Rate { per_second: 1_500.0, burst: 4_096.0 };
/// Of groups the relay takes 1,000 a second and 2,048 at once.
const GROUP: f64 = 5.0;
/// What a record has beside its sealed frame: kind and length, three bytes, three times.
const AROUND: usize = Record::HEAD + 3 + 3 * 8;
/// The longest record.
const LONGEST: f64 = (MAX_FRAME + AROUND) as f64;

/// Bytes of all streams, where the relay takes so many Mbit/s, and four seconds of it or two of the largest frames at once.
pub fn bytes(mbit: u32) -> Rate {
    let per_second = f64::from(mbit) * 125_000.0 * 0.9;
    Rate { per_second, burst: (2.0 * per_second).max(1.5 * LONGEST) }
}

/// Bytes of one stream, and of one user who shares the agent.
pub fn bytes_of_one(mbit: u32) -> Rate {
    let per_second = bytes(mbit).per_second / 2.0;
    Rate { per_second, burst: (2.0 * per_second).max(LONGEST) }
}

/// What all users who share the agent may have together of a rate: a quarter is its own user's.
pub fn of_guests(rate: Rate) -> Rate {
    Rate { per_second: 0.75 * rate.per_second, burst: 0.75 * rate.burst }
}

/// Streams opened, and caps changed, by the pipelines of all users. Each is a post on the log, and so is its end: of those
/// the relay takes 256 a second and 512 at once, most of them for what says in each epoch anew which streams there are.
/// Long caps count for more ([`wish`]): of the bytes of posts the relay takes 640 KiB at first.
pub const WISHES: Rate = Rate { per_second: 8.0, burst: 192.0 };
/// The same of one user.
pub const WISHES_OF_ONE: Rate = Rate { per_second: 4.0, burst: 128.0 };
/// Subscriptions begun and ended: of all messages the relay takes 1,000 a second and 8,192 at once.
pub const SUBSCRIPTIONS: Rate = Rate { per_second: 500.0, burst: 4_096.0 };
/// Keyframes asked for, out of the same.
pub const KEYFRAMES: Rate = Rate { per_second: 200.0, burst: 1_024.0 };
/// Beacons of one sender that are looked at: about two a second are made.
pub const BEACONS_OF_ONE: Rate = Rate { per_second: 8.0, burst: 16.0 };

#[cfg(test)]
mod tests {
    use meeting_relay::limits;
    use meeting_wire::Encode;

    use super::*;

    #[test]
    fn what_goes_out_is_below_what_the_relay_takes() {
        let times = |n: f64, rate: Rate| Rate { per_second: n * rate.per_second, burst: n * rate.burst };
        let both = |one: Rate, other: Rate| Rate {
            per_second: one.per_second + other.per_second,
            burst: one.burst + other.burst,
        };
        // Each stream is a post, and so is its end; and so are all in each epoch, of which there may be three a second.
        let (ends, all) = (times(2.0, WISHES), limits::STREAMS as f64);
        let posts = Rate { per_second: ends.per_second + 3.0 * all, burst: ends.burst + all };
        for (what, ours, theirs) in [
            ("frames", FRAMES, limits::FRAMES),
            ("groups", times(1.0 / GROUP, FRAMES), limits::GROUPS),
            ("log posts", posts, limits::LOG),
            ("messages", both(posts, both(SUBSCRIPTIONS, KEYFRAMES)), limits::MESSAGES),
            ("bytes of media", bytes(100), limits::media_bytes(100)),
            ("bytes of media where they are few", bytes(1), limits::media_bytes(1)),
        ] {
            assert!(
                ours.per_second < theirs.per_second && ours.burst < theirs.burst,
                "{what}: {ours:?}, {theirs:?}"
            );
        }
    }

    #[test]
    fn bytes_are_counted_as_the_relay_counts_them() {
        let time = Some(u64::MAX);
        let sealed = vec![0; 100].into();
        let envelope = Envelope { pts: time, dts: time, duration: time, flags: Flags(0), layer: 0, sealed };
        assert_eq!(size(&envelope), Record::frame(&envelope).to_bytes().len() as f64);
        assert!(of_guests(bytes(1)).burst >= LONGEST, "whoever shares the agent may send the largest frame");
    }

    #[test]
    fn a_keyframe_costs_a_group() {
        assert_eq!(cost(Kind::Video, Flags(Flags::KEYFRAME)), GROUP);
        assert_eq!(cost(Kind::Video, Flags(0)), 1.0);
        assert_eq!(cost(Kind::Audio, Flags(Flags::KEYFRAME)), 1.0);
    }
}

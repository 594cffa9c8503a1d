//! What others can make us keep by stating streams.

use super::{
    forks::{BOB, CAROL, group, states},
    samples::*,
    streams::Streams,
    *,
};
use crate::testing::Meeting;

/// A statement of so many bytes in somebody's name.
fn held(from: u8, bytes: usize) -> Signed<Statement> {
    let body =
        Statement { participant: ParticipantId([from; 16]), sealed: vec![0; bytes], ..statement().body };
    Signed::new(body, &signer())
}

/// How many of these are kept.
fn kept(streams: &mut Streams, statements: impl Iterator<Item = Signed<Statement>>, newcomer: bool) -> usize {
    statements.filter(|statement| streams.hold(statement.clone(), newcomer)).count()
}

#[test]
fn statements_that_wait_for_a_key_are_bounded_for_each_sender_and_for_all_newcomers() {
    let mut streams = Streams::default();
    let newcomers = (0..100).map(|from| held(from, 16 << 10));
    assert_eq!(kept(&mut streams, newcomers, true), 10, "all newcomers together");
    for from in 200..205 {
        let long = (0..100).map(|_| held(from, 16 << 10));
        assert_eq!(kept(&mut streams, long, false), 10, "who is here has room of its own");
        let short = (0..100).map(|_| held(from + 10, 100));
        assert_eq!(kept(&mut streams, short, false), 64);
    }
    assert_eq!(streams.take_held(9).len(), 10 + 5 * (10 + 64));
    assert_eq!(kept(&mut streams, (0..100).map(|from| held(from, 100)), true), 64, "and again");
}

/// The bytes that Bob keeps of others' labels and caps.
fn kept_by_bob(meeting: &Meeting) -> usize {
    let sizes = group(meeting, BOB).sizes();
    sizes.iter().find(|(what, ..)| *what == "labels and caps of others").unwrap().1
}

#[test]
fn streams_that_are_over_leave_no_caps_and_those_of_one_sender_are_bounded() {
    let mut meeting = Meeting::of(3, 9_401, Successors::Nobody);
    let streams: Vec<StreamId> = (0..9).map(|number| meeting.stream(CAROL, &format!("{number}"))).collect();
    let caps = |n: usize| "c".repeat(n);
    let mut set = |number: usize, bytes| {
        meeting.command(CAROL, Command::StreamCaps { stream: streams[number], caps: caps(bytes) })
    };
    (0..7).for_each(|number| set(number, 16 << 10).unwrap());
    assert_eq!(set(7, 16 << 10), Err(CommandError::TooLong), "128 KiB with those of the others");
    set(7, 15 << 10).unwrap();
    meeting.run(std::time::Duration::from_secs(1));
    assert!(kept_by_bob(&meeting) > 127 << 10);
    for stream in streams {
        meeting.command(CAROL, Command::CloseStream(stream)).unwrap();
    }
    meeting.run(std::time::Duration::from_secs(1));
    assert_eq!(kept_by_bob(&meeting), 0);

    // A program of Carol's own states what it likes.
    for number in 100..140 {
        states(&mut meeting, CAROL, BOB, u64::from(number) * 1_000, |index, epoch| StreamFacts {
            stream: StreamId(number),
            kind: Kind::Video,
            track: String::new(),
            caps: caps(16 << 10),
            instance: [1; 16],
            kid: KeyId::new(StreamId(number), index, epoch),
            suite: CipherSuite::default(),
        });
    }
    assert_eq!(kept_by_bob(&meeting), 128 << 10);
}

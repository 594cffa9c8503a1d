//! One form only: what is encoded decodes to itself, what decodes encodes to the same bytes, and no bytes at all
//! make a decoder panic.

use bytes::Bytes;
use meeting_wire::{
    Admission, AudioDatagram, Decode, Encode, Envelope, Flags, FromRelay, GroupHeader, Kind, MeetingId,
    ParticipantId, Post, Reader, Record, Refusal, Route, Slot, StreamId, ToRelay, Writer, message_len,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn body() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn participant() -> impl Strategy<Value = ParticipantId> {
    any::<[u8; 16]>().prop_map(ParticipantId)
}

fn stream() -> impl Strategy<Value = StreamId> {
    any::<u32>().prop_map(StreamId)
}

fn route() -> impl Strategy<Value = Route> {
    any::<u32>().prop_map(Route)
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Video), Just(Kind::Audio), Just(Kind::Data)]
}

fn slot() -> impl Strategy<Value = Slot> {
    prop_oneof![Just(Slot::Log), Just(Slot::Cell), participant().prop_map(Slot::Direct)]
}

fn admission() -> impl Strategy<Value = Admission> {
    prop_oneof![Just(Admission::Join), "\\PC{0,60}".prop_map(|token| Admission::Create { token })]
}

fn to_relay() -> impl Strategy<Value = ToRelay> {
    let hello =
        (any::<u16>(), any::<[u8; 16]>(), participant(), any::<[u8; 16]>(), any::<u64>(), admission());
    prop_oneof![
        hello.prop_map(|(version, meeting, participant, claim, since, admission)| ToRelay::Hello {
            version,
            meeting: MeetingId(meeting),
            participant,
            claim: meeting_wire::Claim(claim),
            since,
            admission,
        }),
        (slot(), body()).prop_map(|(slot, body)| ToRelay::Post { slot, body }),
        (stream(), kind()).prop_map(|(stream, kind)| ToRelay::Publish { stream, kind }),
        stream().prop_map(|stream| ToRelay::Unpublish { stream }),
        route().prop_map(|route| ToRelay::Subscribe { route }),
        route().prop_map(|route| ToRelay::Unsubscribe { route }),
        route().prop_map(|route| ToRelay::KeyframeRequest { route }),
        Just(ToRelay::Goodbye),
    ]
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        Just(Refusal::Version),
        Just(Refusal::Token),
        Just(Refusal::NoMeeting),
        Just(Refusal::Full),
        Just(Refusal::Busy),
        Just(Refusal::Protocol),
        Just(Refusal::Replaced),
    ]
}

fn from_relay() -> impl Strategy<Value = FromRelay> {
    let post = (any::<u64>(), participant(), slot(), body());
    prop_oneof![
        any::<(u16, u32, u32)>().prop_map(|(version, max_participants, max_publish_mbit)| {
            FromRelay::Welcome { version, max_participants, max_publish_mbit }
        }),
        refusal().prop_map(FromRelay::Refused),
        post.prop_map(|(seq, from, slot, body)| FromRelay::Post(Post { seq, from, slot, body })),
        (participant(), stream(), kind(), route())
            .prop_map(|(from, stream, kind, route)| { FromRelay::Published { from, stream, kind, route } }),
        route().prop_map(|route| FromRelay::Unpublished { route }),
        stream().prop_map(|stream| FromRelay::KeyframeWanted { stream }),
        participant().prop_map(|participant| FromRelay::Gone { participant }),
    ]
}

fn time() -> impl Strategy<Value = Option<u64>> {
    // Every length that a variable integer has, and no more than it can hold.
    option::of((0u32..62, any::<u64>()).prop_map(|(bits, value)| value >> 2 >> bits))
}

fn envelope() -> impl Strategy<Value = Envelope> {
    (time(), time(), time(), any::<u8>(), any::<u8>(), body()).prop_map(
        |(pts, dts, duration, flags, layer, sealed)| Envelope {
            pts,
            dts,
            duration,
            flags: Flags(flags),
            layer,
            sealed,
        },
    )
}

/// Decodes `bytes` and, if they mean something, wants them back exactly.
fn has_one_form<T: Encode + Decode>(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(value) = T::from_bytes(bytes) {
        prop_assert_eq!(value.to_bytes(), bytes);
    }
    Ok(())
}

fn all_have_one_form(bytes: &[u8]) -> Result<(), TestCaseError> {
    has_one_form::<ToRelay>(bytes)?;
    has_one_form::<FromRelay>(bytes)?;
    has_one_form::<Envelope>(bytes)?;
    has_one_form::<AudioDatagram>(bytes)?;
    has_one_form::<GroupHeader>(bytes)?;
    has_one_form::<Post>(bytes)
}

/// Changes, cuts or extends an encoding: far more often nearly right than random bytes are.
fn damage(mut bytes: Vec<u8>, at: prop::sample::Index, change: u8, cut: bool) -> Vec<u8> {
    let at = at.index(bytes.len());
    if cut {
        bytes.truncate(at);
    } else if change == 0 {
        bytes.push(at as u8);
    } else {
        bytes[at] ^= change;
    }
    bytes
}

proptest! {
    #[test]
    fn to_relay_round_trips(message in to_relay()) {
        prop_assert_eq!(ToRelay::from_bytes(&message.to_bytes()), Ok(message));
    }

    #[test]
    fn from_relay_round_trips(message in from_relay()) {
        prop_assert_eq!(FromRelay::from_bytes(&message.to_bytes()), Ok(message));
    }

    #[test]
    fn envelopes_and_datagrams_round_trip(envelope in envelope(), route in route()) {
        prop_assert_eq!(Envelope::from_bytes(&envelope.to_bytes()), Ok(envelope.clone()));
        let datagram = AudioDatagram { route, envelope };
        prop_assert_eq!(AudioDatagram::from_bytes(&datagram.to_bytes()), Ok(datagram));
    }

    #[test]
    fn varints_round_trip_in_their_shortest_form(bits in 0u32..62, value: u64) {
        let value = value >> 2 >> bits;
        let mut out = Writer::default();
        out.varint(value);
        let bytes = out.into_bytes();
        let shortest = match value { 0..0x40 => 1, 0x40..0x4000 => 2, 0x4000..0x4000_0000 => 4, _ => 8 };
        prop_assert_eq!(bytes.len(), shortest);
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(reader.varint(), Ok(value));
        prop_assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn arbitrary_bytes_have_one_form(bytes in vec(any::<u8>(), 0..300)) {
        all_have_one_form(&bytes)?;
        if let Some(head) = bytes.first_chunk() {
            let _ = Record::head(*head);
        }
        if let Some(len) = bytes.first_chunk() {
            let _ = message_len(*len);
        }
    }

    #[test]
    fn damaged_messages_have_one_form(
        to in to_relay(),
        from in from_relay(),
        envelope in envelope(),
        at: prop::sample::Index,
        change: u8,
        cut: bool,
    ) {
        for bytes in [to.to_bytes(), from.to_bytes(), envelope.to_bytes()] {
            all_have_one_form(&damage(bytes, at, change, cut))?;
        }
    }

    #[test]
    fn a_cut_control_message_is_refused(to in to_relay(), from in from_relay(), at: prop::sample::Index) {
        let bytes = to.to_bytes();
        prop_assert!(ToRelay::from_bytes(&bytes[..at.index(bytes.len())]).is_err());
        let bytes = from.to_bytes();
        prop_assert!(FromRelay::from_bytes(&bytes[..at.index(bytes.len())]).is_err());
    }
}

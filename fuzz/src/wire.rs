//! Everything that agents and relay say to each other. The first byte names the type.

use std::fmt::Debug;

use meeting_wire::{
    AudioDatagram, Decode, Encode, Envelope, FromRelay, GroupHeader, MAX_CONTROL, MeetingId, Post, Record,
    RecordKind, ToRelay, message_len,
};

pub fn run(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind {
        0 => one_form::<ToRelay>(bytes),
        1 => one_form::<FromRelay>(bytes),
        2 => one_form::<Envelope>(bytes),
        3 => one_form::<Post>(bytes),
        4 => one_form::<GroupHeader>(bytes),
        5 => one_form::<AudioDatagram>(bytes),
        6 => control(bytes),
        7 => group(bytes),
        _ => id(bytes),
    }
}

/// Whatever is read is written as the same bytes.
pub fn one_form<T: Decode + Encode + Debug>(bytes: &[u8]) {
    if let Ok(value) = T::from_bytes(bytes) {
        assert_eq!(value.to_bytes(), bytes, "{value:?}");
    }
}

/// A control stream.
fn control(mut bytes: &[u8]) {
    while let Some((head, rest)) = bytes.split_first_chunk() {
        let Ok(len) = message_len(*head) else { return };
        assert!(len <= MAX_CONTROL);
        let Some((message, rest)) = rest.split_at_checked(len) else { return };
        one_form::<ToRelay>(message);
        one_form::<FromRelay>(message);
        bytes = rest;
    }
}

/// A group stream.
fn group(bytes: &[u8]) {
    let Some((head, mut bytes)) = bytes.split_first_chunk::<{ GroupHeader::LEN }>() else { return };
    one_form::<GroupHeader>(head);
    while let Some((head, rest)) = bytes.split_first_chunk() {
        let Ok((kind, len)) = Record::head(*head) else { return };
        assert!(len <= Record::MAX);
        let Some((body, rest)) = rest.split_at_checked(len) else { return };
        let record = Record { kind, body: body.to_vec().into() };
        assert_eq!(record.to_bytes(), [&head[..], body].concat());
        if kind == RecordKind::Frame {
            one_form::<Envelope>(body);
        }
        bytes = rest;
    }
}

fn id(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(id) = text.parse::<MeetingId>() {
        assert_eq!(id.to_string(), text.to_lowercase());
    }
}

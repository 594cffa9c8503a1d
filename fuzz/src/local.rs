//! The local socket, both ways: a stream of messages as an agent and as an element read it. The first byte says which.

use meeting_protocol::local::{FromAgent, MAX_MESSAGE, ToAgent, message_len, packed};
use meeting_wire::{Decode, Encode};

pub fn run(bytes: &[u8]) {
    match bytes.split_first() {
        Some((0, bytes)) => stream::<ToAgent>(bytes),
        Some((_, bytes)) => stream::<FromAgent>(bytes),
        None => {}
    }
}

fn stream<T: Decode + Encode>(mut bytes: &[u8]) {
    while let Some((head, rest)) = bytes.split_first_chunk() {
        let Ok(len) = message_len(*head) else { return };
        assert!(len <= MAX_MESSAGE);
        let Some((message, rest)) = rest.split_at_checked(len) else { return };
        if let Ok(value) = T::from_bytes(message) {
            assert_eq!(&packed(&value)[4..], message, "one byte form for each value");
        }
        bytes = rest;
    }
}

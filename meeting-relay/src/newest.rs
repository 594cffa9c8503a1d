//! The newest group of each of a publisher's streams and layers: what makes an older one worthless.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use meeting_wire::{GroupHeader, StreamId};
use tokio::sync::watch;

use crate::limits;

/// Those of one publisher.
#[derive(Debug, Default)]
pub struct Newest(Mutex<HashMap<(StreamId, u8), watch::Sender<u64>>>);

impl Newest {
    /// Notes a group and gives the means to learn of newer ones. Where too many are noted already it is as if one were
    /// there.
    pub fn note(&self, stream: StreamId, header: &GroupHeader) -> watch::Receiver<u64> {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = newest.len() >= limits::NEWEST;
        let key = (stream, header.layer);
        if full && !newest.contains_key(&key) {
            return watch::channel(header.group).1;
        }
        let sender = newest.entry(key).or_insert_with(|| watch::channel(header.group).0);
        sender.send_if_modified(|group| {
            let newer = header.group > *group;
            *group = header.group.max(*group);
            newer
        });
        sender.subscribe()
    }

    /// Forgets an unpublished stream.
    pub fn forget(&self, stream: StreamId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(other, _), _| *other != stream);
    }
}

#[cfg(test)]
mod tests {
    use meeting_wire::Route;

    use super::*;

    #[test]
    fn all_streams_and_layers_of_one_publisher_take_a_fraction_of_what_a_member_is_charged() {
        let newest = Newest::default();
        let note = |stream, layer, group| {
            newest.note(StreamId(stream), &GroupHeader { route: Route(stream), group, layer })
        };
        let camera = note(1, 0, 1);
        for stream in 0..limits::STREAMS as u32 {
            (0..limits::LAYERS).for_each(|layer| drop(note(stream, layer, 2)));
        }
        // A watch channel is some 400 bytes.
        let noted = newest.0.lock().expect("no panic").len();
        assert!(noted * 400 < limits::MEMBER_BYTES / 4, "{noted}");
        assert_eq!(*camera.borrow(), 2, "those that are noted hear of newer ones");
        assert_eq!(*note(1_000, 0, 7).borrow(), 7, "and others do not");
        newest.forget(StreamId(1));
        let screen = note(1_000, 0, 7);
        note(1_000, 0, 8);
        assert_eq!(*screen.borrow(), 8, "there is room again");
    }
}

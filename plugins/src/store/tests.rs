use std::sync::{Arc, Mutex};

use meeting_protocol::local::{FromAgent, ToAgent};
use meeting_wire::{Kind, MeetingId, StreamId};

use super::{KeyStore, Stated, Uplink};

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<ToAgent>>>);

impl Uplink for Heard {
    fn send(&self, message: ToAgent) {
        self.0.lock().expect("heard").push(message);
    }
}

impl Heard {
    fn caps(&self) -> Vec<String> {
        let heard = std::mem::take(&mut *self.0.lock().expect("heard"));
        let caps = heard.into_iter().filter_map(|message| match message {
            ToAgent::OpenStream { caps, .. } | ToAgent::StreamCaps { caps, .. } => Some(caps),
            _ => None,
        });
        caps.collect()
    }
}

fn stated(version: u32) -> Stated {
    Stated { version, caps: format!("x/n{version}") }
}

#[test]
fn caps_that_change_before_the_stream_is_open_are_stated_when_it_is() {
    let (store, heard) = (KeyStore::new(MeetingId([1; 16]), true), Heard::default());
    store.attach(Box::new(heard.clone()));
    let stream = store.open_stream(Kind::Video, "", stated(0));
    stream.set_caps(stated(1));
    assert_eq!(heard.caps(), ["x/n0"], "nobody could place the others yet");
    let opened = || FromAgent::StreamOpened { request: 1, stream: StreamId(1), track: "video".into() };
    store.apply(opened());
    store.apply(opened());
    assert_eq!(heard.caps(), ["x/n1"]);
    stream.set_caps(stated(1));
    stream.set_caps(stated(2));
    assert_eq!(heard.caps(), ["x/n2"]);
    store.reconnected();
    assert_eq!(heard.caps(), ["x/n2"]);
    assert_eq!(store.stated(StreamId(1), 2), None, "the stream is another one now");
    store.apply(opened());
    assert_eq!((heard.caps(), store.stated(StreamId(1), 1)), (vec![], Some("x/n1".into())));
}

//! The shell GStreamer sees: pads on request, frames in the order in which they come.

use std::{
    collections::BTreeMap,
    sync::{LazyLock, Mutex, MutexGuard},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use meeting_protocol::frame::Header;
use meeting_wire::{Envelope, MAX_FRAME, StreamId};

use super::{
    format::{FrameHead, MAGIC, RECORD_HEAD, Record, Source, frame_head},
    index::Indexer,
};
use crate::{caps, envelope, lock::lock, random};

#[derive(Default)]
struct State {
    /// By the pad's name.
    pads: BTreeMap<String, Input>,
    next_pad: u32,
    indexer: Indexer,
    /// Bytes written.
    offset: u64,
    finished: bool,
    frames: u64,
    malformed: u64,
}

#[derive(Default)]
struct Input {
    segment: gst::FormattedSegment<gst::ClockTime>,
    /// The number of the caps.
    version: u32,
    track: Option<(u32, Source)>,
    ended: bool,
}

pub struct E2eeMux {
    src: gst::Pad,
    /// Held while bytes go out, so that records do not mix.
    state: Mutex<State>,
}

type Flow = Result<gst::FlowSuccess, gst::FlowError>;

impl E2eeMux {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn chain(&self, pad: &gst::Pad, buffer: &gst::Buffer) -> Flow {
        let mut guard = self.state();
        let state = &mut *guard;
        if state.finished {
            return Err(gst::FlowError::Eos);
        }
        let input = state.pads.get(pad.name().as_str()).ok_or(gst::FlowError::NotLinked)?;
        let (track, _) = input.track.ok_or(gst::FlowError::NotNegotiated)?;
        let sealed = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
        if Header::parse(&sealed).is_none() || sealed.len() > MAX_FRAME {
            state.malformed += 1;
            if state.malformed == 1 {
                gst::element_imp_warning!(
                    self,
                    gst::StreamError::Format,
                    ("these buffers are not sealed frames")
                );
            }
            return Ok(gst::FlowSuccess::Ok);
        }
        let time = |time: Option<gst::ClockTime>| {
            time.and_then(|time| input.segment.to_running_time(time)).map(gst::ClockTime::nseconds)
        };
        let frame = Envelope {
            pts: time(buffer.pts()),
            dts: time(buffer.dts()),
            duration: buffer.duration().map(gst::ClockTime::nseconds),
            flags: envelope::flags(buffer.flags()).with_caps_version(input.version),
            layer: 0,
            sealed: bytes::Bytes::copy_from_slice(&sealed),
        };
        drop(sealed);
        let offset = state.offset.max(MAGIC.len() as u64);
        let head = frame_head(track, &frame);
        let clear = [&head[RECORD_HEAD..], &frame.sealed[..frame.sealed.len().min(Header::MAX_LEN)]].concat();
        if let Ok(clear) = FrameHead::parse(&clear) {
            state.indexer.frame(offset, &clear);
        }
        state.frames += 1;
        self.write(state, [&head[..], &frame.sealed].concat())
    }

    fn event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Caps(caps) => self.set_caps(pad, caps.caps_owned()),
            gst::EventView::Segment(segment) => {
                if let Some(segment) = segment.segment().downcast_ref::<gst::ClockTime>()
                    && let Some(input) = self.state().pads.get_mut(pad.name().as_str())
                {
                    input.segment = segment.clone();
                }
                true
            }
            gst::EventView::Eos(_) => {
                let mut state = self.state();
                self.end(&mut state, &pad.name());
                if state.pads.values().all(|input| input.ended) {
                    self.finish(&mut state);
                }
                true
            }
            gst::EventView::FlushStart(_) | gst::EventView::FlushStop(_) => {
                gst::Pad::event_default(pad, Some(&*self.obj()), event)
            }
            // Each pad's own; ours begins with the first byte.
            _ => true,
        }
    }

    /// A track begins, or goes on with other caps.
    fn set_caps(&self, pad: &gst::Pad, caps: gst::Caps) -> bool {
        let Some(source) = source(&caps) else {
            gst::element_imp_error!(
                self,
                gst::StreamError::Format,
                ("only tracks of a `meetingsrc` can be recorded: these caps do not say whose they are")
            );
            return false;
        };
        let mut guard = self.state();
        let state = &mut *guard;
        let name = pad.name();
        let Some(input) = state.pads.get_mut(name.as_str()) else { return false };
        input.version = caps::version(&caps);
        match input.track {
            Some((_, known)) if known == source && !input.ended => true,
            _ => {
                self.end(state, &name);
                let Some(track) = state.indexer.track(source) else {
                    gst::element_imp_error!(
                        self,
                        gst::StreamError::Mux,
                        ("too many tracks for one recording")
                    );
                    return false;
                };
                if let Some(input) = state.pads.get_mut(name.as_str()) {
                    input.track = Some((track, source));
                    input.ended = false;
                }
                self.write(state, Record::Track(source).to_bytes()).is_ok()
            }
        }
    }

    fn end(&self, state: &mut State, pad: &str) {
        let Some(input) = state.pads.get_mut(pad) else { return };
        if !std::mem::replace(&mut input.ended, true)
            && let Some((track, _)) = input.track
        {
            let _ = self.write(state, Record::End(track).to_bytes());
        }
    }

    /// The index, and no byte after it.
    fn finish(&self, state: &mut State) {
        if state.finished {
            return;
        }
        let pads: Vec<String> = state.pads.keys().cloned().collect();
        pads.iter().for_each(|pad| self.end(state, pad));
        let at = state.offset.max(MAGIC.len() as u64);
        let index = [state.indexer.index.to_record(), Record::IndexAt(at).to_bytes()].concat();
        let _ = self.write(state, index);
        state.finished = true;
        self.src.push_event(gst::event::Eos::new());
    }

    fn write(&self, state: &mut State, bytes: Vec<u8>) -> Flow {
        let bytes = if state.offset == 0 {
            let id = format!("recording-{}", hex::encode(random::bytes::<8>()));
            self.src.push_event(gst::event::StreamStart::builder(&id).group_id(gst::GroupId::next()).build());
            self.src.push_event(gst::event::Caps::new(&super::caps()));
            let segment = gst::FormattedSegment::<gst::format::Bytes>::new();
            self.src.push_event(gst::event::Segment::new(&segment));
            [&MAGIC[..], &bytes].concat()
        } else {
            bytes
        };
        let mut buffer = gst::Buffer::from_slice(bytes);
        let size = buffer.size() as u64;
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_offset(state.offset);
        }
        state.offset += size;
        self.src.push(buffer)
    }

    fn stats(&self) -> gst::Structure {
        let state = self.state();
        gst::Structure::builder("e2eemux-stats")
            .field("tracks", state.indexer.index.tracks.len() as u32)
            .field("frames", state.frames)
            .field("bytes", state.offset)
            .field("malformed", state.malformed)
            .build()
    }
}

/// Whose stream the caps say it is.
fn source(caps: &gst::CapsRef) -> Option<Source> {
    let structure = caps.structure(0)?;
    Some(Source {
        from: structure.get::<&str>("participant").ok()?.parse().ok()?,
        stream: StreamId(structure.get::<u32>("stream").ok()?),
        kind: caps::sealed_kind(caps),
    })
}

#[glib::object_subclass]
impl ObjectSubclass for E2eeMux {
    const NAME: &'static str = "GstE2eeMux";
    type Type = super::E2eeMux;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> Self {
        let template = class.pad_template("src").expect("the template below");
        Self { src: gst::Pad::from_template(&template), state: Mutex::default() }
    }
}

impl ObjectImpl for E2eeMux {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb("tracks, frames, bytes, malformed (not a sealed frame)")
                    .read_only()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn property(&self, _id: usize, _pspec: &glib::ParamSpec) -> glib::Value {
        self.stats().to_value()
    }

    fn constructed(&self) {
        self.parent_constructed();
        let _ = self.obj().add_pad(&self.src);
    }
}

impl GstObjectImpl for E2eeMux {}

impl ElementImpl for E2eeMux {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Sealed recording muxer",
                "Codec/Muxer",
                "Writes the sealed frames of `meetingsrc` into one file, as they come and without a key. The file holds no \
                 name, label or codec header: what it shows, the relay knows",
                "The gst-e2ee authors",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let (request, always) = (gst::PadPresence::Request, gst::PadPresence::Always);
            [
                gst::PadTemplate::new("sink_%u", gst::PadDirection::Sink, request, &caps::sframe()),
                gst::PadTemplate::new("src", gst::PadDirection::Src, always, &super::caps()),
            ]
            .into_iter()
            .flatten()
            .collect()
        });
        &TEMPLATES
    }

    fn request_new_pad(
        &self,
        template: &gst::PadTemplate,
        name: Option<&str>,
        _caps: Option<&gst::Caps>,
    ) -> Option<gst::Pad> {
        let name = {
            let mut state = self.state();
            let name = match name.filter(|name| !name.contains('%')) {
                Some(name) => name.to_owned(),
                None => loop {
                    let name = format!("sink_{}", state.next_pad);
                    state.next_pad += 1;
                    if !state.pads.contains_key(&name) {
                        break name;
                    }
                },
            };
            if state.pads.contains_key(&name) {
                return None;
            }
            state.pads.insert(name.clone(), Input::default());
            name
        };
        let pad = gst::Pad::builder_from_template(template)
            .name(name)
            .chain_function(|pad, parent, buffer| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |imp| imp.chain(pad, &buffer),
                )
            })
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.event(pad, event))
            })
            .build();
        pad.set_active(true).ok()?;
        self.obj().add_pad(&pad).ok()?;
        Some(pad)
    }

    fn release_pad(&self, pad: &gst::Pad) {
        let _ = pad.set_active(false);
        let name = pad.name();
        {
            let mut state = self.state();
            self.end(&mut state, &name);
            state.pads.remove(name.as_str());
        }
        let _ = self.obj().remove_pad(pad);
    }

    /// End-of-stream from the application: people may still be talking, and the recording is over.
    fn send_event(&self, event: gst::Event) -> bool {
        if event.type_() != gst::EventType::Eos {
            return self.parent_send_event(event);
        }
        self.finish(&mut self.state());
        true
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        let success = self.parent_change_state(transition)?;
        if transition == gst::StateChange::PausedToReady {
            let mut state = self.state();
            let pads = std::mem::take(&mut state.pads);
            let next_pad = state.next_pad;
            let pads = pads.into_keys().map(|name| (name, Input::default())).collect();
            *state = State { pads, next_pad, ..State::default() };
        }
        Ok(success)
    }
}

//! The pads: a bounded number, and answers to what is asked of them.

use gst::{prelude::*, subclass::prelude::*};
use meeting_wire::Kind;

use super::E2eeDemux;
use crate::{
    lock::lock,
    recording::{film::Target, format::Source},
};

/// The pads there are.
#[derive(Default)]
pub(super) struct Pads {
    numbers: [u32; 3],
    group: Option<gst::GroupId>,
    pub(super) all: Vec<gst::Pad>,
    /// It was said that there are more tracks than pads.
    crowded: bool,
}

impl E2eeDemux {
    /// A pad for a track, not in the element yet; none if there are too many.
    pub(super) fn add_pad(&self, source: Source, number: u32) -> Option<(gst::Pad, gst::Event)> {
        if !self.has_room() {
            return None;
        }
        let obj = self.obj();
        let (word, kind) = match source.kind {
            Kind::Video => ("video", 0),
            Kind::Audio => ("audio", 1),
            Kind::Data => ("data", 2),
        };
        let (n, group) = {
            let mut pads = lock(&self.pads);
            let n = pads.numbers[kind];
            pads.numbers[kind] += 1;
            (n, *pads.group.get_or_insert_with(gst::GroupId::next))
        };
        let pad = gst::Pad::builder_from_template(&obj.pad_template(&format!("{word}_%u"))?)
            .name(format!("{word}_{n}"))
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.src_event(pad, event))
            })
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.src_query(pad, query))
            })
            .build();
        pad.use_fixed_caps();
        let id = pad.create_stream_id(&*obj, Some(&format!("{}/{}/{number}", source.from, source.stream.0)));
        let start = gst::event::StreamStart::builder(&id).group_id(group).build();
        pad.set_active(true).ok()?;
        lock(&self.combiner).add_pad(&pad);
        lock(&self.pads).all.push(pad.clone());
        Some((pad, start))
    }

    /// Whether one more pad may come; that none may is told once.
    fn has_room(&self) -> bool {
        let mut pads = lock(&self.pads);
        let room = pads.all.len() < MAX_PADS;
        let first = !room && !std::mem::replace(&mut pads.crowded, true);
        drop(pads);
        if first {
            gst::element_imp_warning!(
                self,
                gst::StreamError::Demux,
                ("the recording has more than {MAX_PADS} tracks: the others are left out")
            );
        }
        room
    }

    pub(super) fn src_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Seek(seek) => self.seek(seek),
            // Nobody who is asked for a keyframe is there.
            gst::EventView::Qos(_) | gst::EventView::Latency(_) | gst::EventView::Reconfigure(_) => true,
            _ => gst::Pad::event_default(pad, Some(&*self.obj()), event),
        }
    }

    fn seek(&self, event: &gst::event::Seek) -> bool {
        let Some(film) = lock(&self.film).clone() else { return false };
        let (segment, places) = match film.seek(event) {
            Ok(Target::There(segment, places)) => (segment, places),
            Ok(Target::Known) => return true,
            Ok(Target::Refused) => return false,
            Err(stop) => {
                self.tell(&stop);
                return false;
            }
        };
        let flush = event.get().1.contains(gst::SeekFlags::FLUSH);
        if flush {
            for player in &film.players {
                player.pad.push_event(gst::event::FlushStart::builder().seqnum(event.seqnum()).build());
            }
            for player in &film.players {
                let _ = player.pad.stop_task();
            }
            lock(&self.combiner).reset();
        }
        for (player, place) in film.players.iter().zip(places) {
            let begin = gst::event::Segment::builder(&segment).seqnum(event.seqnum()).build();
            player.go_to(place, begin);
            if flush {
                player.pad.push_event(gst::event::FlushStop::builder(true).seqnum(event.seqnum()).build());
            }
            self.start(player);
        }
        true
    }

    pub(super) fn src_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        let film = lock(&self.film).clone();
        let duration = film.map(|film| film.duration());
        match query.view_mut() {
            gst::QueryViewMut::Duration(query) if query.format() == gst::Format::Time => {
                if let Some(duration) = duration {
                    query.set(duration);
                }
                duration.is_some()
            }
            gst::QueryViewMut::Seeking(query) if query.format() == gst::Format::Time => {
                query.set(duration.is_some(), gst::ClockTime::ZERO, duration.unwrap_or_default());
                true
            }
            gst::QueryViewMut::Duration(_) | gst::QueryViewMut::Seeking(_) => false,
            _ => gst::Pad::query_default(pad, Some(&*self.obj()), query),
        }
    }
}

/// A thread each, that reads the whole file: 80 people with a camera, a microphone and a screen.
const MAX_PADS: usize = 256;

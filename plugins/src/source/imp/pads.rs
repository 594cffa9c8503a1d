//! What a pad needs: a name, its first events, and answers to what is asked of it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use gst::{prelude::*, subclass::prelude::*};
use meeting_wire::{Kind, ParticipantId};

use super::MeetingSrc;
use crate::{
    CAT,
    lock::lock,
    source::track::{About, Id, Track},
};

impl MeetingSrc {
    /// A pad for a track, and the thread behind it.
    pub(super) fn add(&self, about: &About, pad_caps: gst::Caps) {
        let obj = self.obj();
        let (word, number, stream_type) = match about.kind {
            Kind::Video => ("video", 0, gst::StreamType::VIDEO),
            Kind::Audio => ("audio", 1, gst::StreamType::AUDIO),
            Kind::Data => ("data", 2, gst::StreamType::TEXT),
        };
        // One participant has one track of a label: a new one takes the place of the old.
        let replaced = |track: &&Arc<Track>| track.id.from == about.id.from && track.label == about.track;
        lock(&self.tracks).values().filter(replaced).for_each(|track| track.end());
        let Some(template) = obj.pad_template(&format!("{word}_%u")) else { return };
        let pad_name = {
            let mut numbers = lock(&self.numbers);
            loop {
                let name = format!("{word}_{}", numbers[number]);
                numbers[number] += 1;
                // One from before the last stop may be on its way out still.
                if obj.static_pad(&name).is_none() {
                    break name;
                }
            }
        };
        lock(&self.first_pad).get_or_insert_with(Instant::now);
        let id = about.id;
        let pad = gst::Pad::builder_from_template(&template)
            .name(pad_name)
            .event_function(move |pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.src_event(pad, id, event))
            })
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.src_query(pad, query))
            })
            .build();
        let stream_id = pad
            .create_stream_id(&*obj, Some(&format!("{}/{}/{}", id.from, about.track, id.stream.0)))
            .to_string();
        let stream =
            gst::Stream::new(Some(&stream_id), Some(&pad_caps), stream_type, gst::StreamFlags::empty());
        let track = Track::new(about, pad.clone(), stream.clone(), pad_caps.clone());
        lock(&self.tracks).insert(id, track.clone());

        let group = *lock(&self.group).get_or_insert_with(gst::GroupId::next);
        let collection = self.collection();
        let _ = pad.set_active(true);
        let start = gst::event::StreamStart::builder(&stream_id).group_id(group).stream(stream).build();
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        for event in [
            start,
            gst::event::StreamCollection::new(&collection),
            gst::event::Caps::new(&pad_caps),
            gst::event::Segment::new(&segment),
        ] {
            let _ = pad.store_sticky_event(&event);
        }
        lock(&self.combiner).add_pad(&pad);
        self.tell_collection(Some(id));
        if obj.add_pad(&pad).is_err() || track.start(&obj).is_err() {
            gst::warning!(CAT, imp = self, "no pad for {}", about.track);
            self.remove(id);
        }
        self.ask_for_keyframe(&track);
    }

    /// Whether one more track of this person may come. Where a pad is blocked its end never leaves it: the oldest such gives
    /// way.
    pub(super) fn has_room(&self, from: ParticipantId) -> bool {
        let mut tracks = lock(&self.tracks);
        let theirs = || tracks.values().filter(|track| track.id.from == from);
        if tracks.len() < MAX_TRACKS && theirs().count() < MAX_THEIRS {
            return true;
        }
        let ended = theirs().filter(|track| track.has_ended()).map(|track| track.id);
        let oldest = ended.min_by_key(|id| id.stream);
        let Some(track) = oldest.and_then(|id| tracks.remove(&id)) else { return false };
        drop(tracks);
        lock(&self.combiner).remove_pad(&track.pad);
        self.obj().call_async(move |element| {
            track.cut(element);
            element.imp().removed(track.id);
        });
        true
    }

    fn collection(&self) -> gst::StreamCollection {
        let mut tracks: Vec<_> = lock(&self.tracks).values().cloned().collect();
        tracks.sort_by_key(|track| (track.id.from, track.id.stream));
        gst::StreamCollection::builder(None).streams(tracks.iter().map(|track| track.stream.clone())).build()
    }

    /// Says which streams there are now: to the application, and down every pad but the new one, which knows.
    pub(super) fn tell_collection(&self, new: Option<Id>) {
        let collection = self.collection();
        let tracks: Vec<_> = lock(&self.tracks).values().cloned().collect();
        let event = gst::event::StreamCollection::new(&collection);
        tracks.iter().filter(|track| Some(track.id) != new).for_each(|track| track.tell(event.clone()));
        let message = gst::message::StreamCollection::builder(&collection).src(&*self.obj()).build();
        let _ = self.obj().post_message(message);
    }

    fn src_event(&self, pad: &gst::Pad, id: Id, event: gst::Event) -> bool {
        if gst_video::UpstreamForceKeyUnitEvent::parse(&event).is_ok() {
            let track = lock(&self.tracks).get(&id).cloned();
            if let Some(track) = track {
                self.ask_for_keyframe(&track);
            }
            return true;
        }
        match event.type_() {
            gst::EventType::Qos | gst::EventType::Latency | gst::EventType::Reconfigure => true,
            // What the others say now cannot be wound back.
            gst::EventType::Seek => false,
            _ => gst::Pad::event_default(pad, Some(&*self.obj()), event),
        }
    }

    fn src_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        match query.view_mut() {
            gst::QueryViewMut::Latency(latency) => {
                let ours = gst::ClockTime::from_mseconds(self.latency_ms.load(Ordering::Relaxed));
                latency.set(true, ours, gst::ClockTime::NONE);
                true
            }
            gst::QueryViewMut::Seeking(seeking) => {
                let nowhere = gst::GenericFormattedValue::none_for_format(seeking.format());
                seeking.set(false, nowhere, nowhere);
                true
            }
            _ => gst::Pad::query_default(pad, Some(&*self.obj()), query),
        }
    }
}

/// 200 people with video, sound and a screen, and room for more.
const MAX_TRACKS: usize = 1024;
/// Of one person, so that nobody takes everybody's.
const MAX_THEIRS: usize = 64;

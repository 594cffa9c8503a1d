//! A recording in a file that can be read anywhere: its players, and where a seek takes them.

use std::sync::{Arc, Mutex};

use super::{
    index::Index,
    player::{Place, Player},
    walk::Stop,
};
use crate::lock::lock;

/// See the module.
pub struct Film {
    index: Index,
    /// One for each track that comes out.
    pub players: Vec<Arc<Player>>,
    seek: Mutex<Seek>,
}

struct Seek {
    /// In force.
    segment: gst::FormattedSegment<gst::ClockTime>,
    /// What made it: the same seek comes from each sink.
    seqnum: Option<gst::Seqnum>,
}

/// Where a seek leads.
pub enum Target {
    /// Nowhere: it is not of a kind that is done here.
    Refused,
    /// Where the players are going already.
    Known,
    /// The segment to say, and each player's place.
    There(gst::FormattedSegment<gst::ClockTime>, Vec<Place>),
}

impl Film {
    /// A film at its beginning.
    pub fn new(index: Index, players: Vec<Arc<Player>>) -> Self {
        let mut segment = gst::FormattedSegment::new();
        segment.set_duration(gst::ClockTime::from_nseconds(index.duration()));
        Self { index, players, seek: Mutex::new(Seek { segment, seqnum: None }) }
    }

    /// How long it is.
    pub fn duration(&self) -> gst::ClockTime {
        gst::ClockTime::from_nseconds(self.index.duration())
    }

    /// Where a seek leads: with KEY_UNIT to the last keyframe before, else there, decoding from that keyframe on.
    pub fn seek(&self, event: &gst::event::Seek) -> Result<Target, Stop<gst::FlowError>> {
        let (rate, flags, start_type, start, stop_type, stop) = event.get();
        let (gst::GenericFormattedValue::Time(start), gst::GenericFormattedValue::Time(stop)) = (start, stop)
        else {
            return Ok(Target::Refused);
        };
        if rate <= 0.0 || flags.contains(gst::SeekFlags::SEGMENT) {
            return Ok(Target::Refused);
        }
        let mut seek = lock(&self.seek);
        if seek.seqnum == Some(event.seqnum()) {
            return Ok(Target::Known);
        }
        let mut segment = seek.segment.clone();
        if segment.do_seek(rate, flags, start_type, start, stop_type, stop).is_none() {
            return Ok(Target::Refused);
        }
        let origin = self.index.origin();
        let in_file = |time: gst::ClockTime| origin.saturating_add(time.nseconds());
        let mut from = segment.start().map_or(origin, in_file);
        let until = segment.stop().map(in_file);
        if flags.contains(gst::SeekFlags::KEY_UNIT) {
            // A picture says where: sound begins anywhere.
            let videos = self.players.iter().filter(|player| player.is_video());
            let keyframes = videos.filter_map(|player| player.find(from, until).ok()).map(|(_, shows)| shows);
            from = keyframes.filter(|shows| *shows <= from).max().unwrap_or(from);
            let start = gst::ClockTime::from_nseconds(from.saturating_sub(origin));
            segment.set_start(start);
            segment.set_time(start);
            segment.set_position(start);
        }
        let places = self.players.iter().map(|player| Ok(player.find(from, until)?.0));
        let places = places.collect::<Result<_, _>>()?;
        *seek = Seek { segment: segment.clone(), seqnum: Some(event.seqnum()) };
        Ok(Target::There(segment, places))
    }
}

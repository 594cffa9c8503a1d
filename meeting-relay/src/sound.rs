//! Sound that comes in datagrams, on its way to its stream's subscribers.
//!
//! QUIC's library sends datagrams before all else. Where more of them come than a subscriber's path takes nothing else would
//! go, no post either: so there nobody has more than a voice.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use meeting_wire::{Encode, GroupHeader, Kind, Record, RecordKind, Route};
use quinn::SendDatagramError;
use tokio::sync::watch;

use crate::counters::Counters;
use crate::forward::{Arrival, Group};
use crate::limits;
use crate::outlet::Outlet;
use crate::room::Audience;

/// A frame of sound from its publisher.
#[derive(Clone, Copy, Debug)]
pub struct Sound<'a> {
    /// The frame, as on the wire.
    pub envelope: &'a [u8],
    /// Numbers the group that it is where a path is too narrow for the datagram.
    pub group: u64,
    /// Whether that group goes before pictures.
    pub urgent: bool,
    /// Whether it is more than a voice of this publisher's.
    pub loud: bool,
}

/// Whether datagrams pile up towards a subscriber.
#[derive(Debug, Default)]
pub struct Pile {
    since: Option<Instant>,
    narrow_until: Option<Instant>,
}

impl Pile {
    /// Whether a datagram goes by this path, where so much waits for it now or not: a voice always does. Each has to be told
    /// of, or what waits at two moments would seem to wait all the time between.
    pub fn takes(&mut self, loud: bool, piled: bool, now: Instant) -> bool {
        let more = self.takes_more(piled, now);
        !loud || more
    }

    /// Whether the path takes more than voices.
    fn takes_more(&mut self, piled: bool, now: Instant) -> bool {
        if !piled {
            self.since = None;
        } else if now.duration_since(*self.since.get_or_insert(now)) >= limits::PILED {
            self.narrow_until = Some(now + limits::NARROW);
        }
        self.narrow_until.is_none_or(|until| now >= until)
    }
}

/// Hands it to everybody in the audience, as a datagram or, where the path is too narrow for it, as a group of one record.
pub fn pass(sound: Sound<'_>, audience: &Audience<Arc<Outlet>>, counters: &Arc<Counters>) {
    let datagram = datagram(audience.route, sound.envelope);
    for outlet in audience.to.iter() {
        if !outlet.takes_sound(sound.loud, Instant::now()) {
            counters.frames_dropped_full.one();
            continue;
        }
        match outlet.connection().send_datagram(datagram.clone()) {
            Ok(()) => {
                counters.frames_out.one();
                counters.bytes_out.add(datagram.len());
            }
            Err(SendDatagramError::TooLarge | SendDatagramError::UnsupportedByPeer) => {
                pass_alone(outlet, sound, audience, counters);
            }
            Err(SendDatagramError::Disabled | SendDatagramError::ConnectionLost(_)) => {}
        }
    }
}

fn datagram(route: Route, envelope: &[u8]) -> Bytes {
    [&route.0.to_be_bytes()[..], envelope].concat().into()
}

fn pass_alone(
    outlet: &Arc<Outlet>,
    Sound { envelope, group, urgent, .. }: Sound<'_>,
    audience: &Audience<Arc<Outlet>>,
    counters: &Arc<Counters>,
) {
    let record = Record { kind: RecordKind::Frame, body: Bytes::copy_from_slice(envelope) };
    let arrival = Arrival {
        record: record.to_bytes().into(),
        at: tokio::time::Instant::now(),
        droppable: false,
        urgent,
    };
    let header = GroupHeader { route: audience.route, group, layer: 0 };
    let alone = Audience { kind: Kind::Audio, to: Arc::new([outlet.clone()]), ..*audience };
    let mut group = Group::new(header, watch::channel(group).1, false, counters.clone());
    group.pass(&arrival, Some(&alone));
    group.finish();
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_waits_for_a_moment_is_no_narrow_path() {
        let (mut pile, start) = (Pile::default(), Instant::now());
        let mut at = |ms, piled| pile.takes_more(piled, start + Duration::from_millis(ms));
        assert!(at(0, true) && at(49, true) && at(50, false));
        assert!(at(60, true) && at(109, true), "it was not there all the time");
    }

    #[test]
    fn a_path_that_takes_too_little_takes_voices_alone_for_a_second() {
        let (mut pile, start) = (Pile::default(), Instant::now());
        let mut at = |ms, piled| pile.takes_more(piled, start + Duration::from_millis(ms));
        assert!(at(0, true) && !at(50, true));
        assert!(!at(60, false) && !at(1_049, false), "the rest goes first");
        assert!(at(1_050, false) && at(1_060, true), "and then it is tried again");
        assert!(!at(1_110, true));
    }

    #[test]
    fn what_is_loud_at_two_moments_goes_where_nothing_waits_between() {
        let (mut pile, start) = (Pile::default(), Instant::now());
        let mut at = |ms, loud, piled| pile.takes(loud, piled, start + Duration::from_millis(ms));
        assert!(at(0, true, true) && at(500, false, false) && at(1_000, true, true));
        assert!(at(1_050, false, true) && !at(1_051, true, true), "in the end voices alone");
    }
}

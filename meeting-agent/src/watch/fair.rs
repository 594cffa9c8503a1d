//! What a relay is asked for where it is more than one connection may have.

use std::collections::{BTreeSet, HashMap};

use meeting_wire::Route;

use super::Source;

/// Of each sender the first stream, its beacons, then of each the second, and so on: whoever offers many streams crowds out
/// nobody else's.
pub fn fair(mut wanted: Vec<(Source, Route)>, most: usize) -> BTreeSet<Route> {
    if wanted.len() > most {
        wanted.sort_unstable();
        let mut ranks = HashMap::new();
        wanted.sort_by_cached_key(|((from, _), _)| {
            let rank = ranks.entry(*from).or_insert(0_usize);
            *rank += 1;
            *rank
        });
        wanted.truncate(most);
    }
    wanted.into_iter().map(|(_, route)| route).collect()
}

#[cfg(test)]
mod tests {
    use meeting_wire::{ParticipantId, StreamId};

    use super::*;

    #[test]
    fn whoever_offers_many_streams_crowds_out_nobody_elses() {
        let of = |who: u8, streams: u32| {
            let source = move |stream| {
                ((ParticipantId([who; 16]), StreamId(stream)), Route(u32::from(who) * 100 + stream))
            };
            (0..streams).map(source)
        };
        let wanted: Vec<_> = of(1, 65).chain(of(2, 65)).chain(of(3, 3)).collect();
        assert_eq!(fair(wanted.clone(), 133).len(), 133);
        let some = fair(wanted.into_iter().rev().collect(), 10);
        assert_eq!(some, [100, 101, 102, 103, 200, 201, 202, 300, 301, 302].map(Route).into());
    }
}

//! Those who have connected and have not said hello yet. Nobody knows them, so they are few, and a newcomer always
//! finds a place: the one who has been silent for longest goes. Pure but for the news to whoever has to go.
//!
//! However many say nothing, an honest agent gets in as long as its hello comes before [`limits::LOBBY`] others; and
//! those of one network can only crowd out one another.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::limits;

/// The place for strangers.
#[derive(Debug, Default)]
pub struct Lobby(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// In the order they came.
    strangers: VecDeque<Stranger>,
}

#[derive(Debug)]
struct Stranger {
    number: u64,
    network: IpAddr,
    /// Dropped with the place.
    _place: oneshot::Sender<()>,
}

/// A stranger's place; it is given back on drop.
#[derive(Debug)]
pub struct Place {
    lobby: Arc<Lobby>,
    number: u64,
    lost: oneshot::Receiver<()>,
}

impl Lobby {
    /// Gives a newcomer a place, at the cost of another if there are too many.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Place {
        let network = network(address);
        let (place, lost) = oneshot::channel();
        let mut waiting = self.lock();
        let neighbours = waiting.strangers.iter().filter(|stranger| stranger.network == network).count();
        if neighbours >= limits::LOBBY_OF_NETWORK {
            let longest = waiting.strangers.iter().position(|stranger| stranger.network == network);
            longest.and_then(|longest| waiting.strangers.remove(longest));
        } else if waiting.strangers.len() >= limits::LOBBY {
            waiting.strangers.pop_front();
        }
        let number = waiting.next;
        waiting.next += 1;
        waiting.strangers.push_back(Stranger { number, network, _place: place });
        Place { lobby: self.clone(), number, lost }
    }

    /// Whether so many wait that an address has to show first that it is not made up.
    pub fn is_busy(&self) -> bool {
        self.lock().strangers.len() >= limits::LOBBY / 8
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until somebody else needs the place more.
    pub async fn lost(&mut self) {
        let _ = (&mut self.lost).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.lobby.lock().strangers.retain(|stranger| stranger.number != self.number);
    }
}

/// What one customer of a network has all to itself: an IPv4 address, or a /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: usize) -> IpAddr {
        IpAddr::from([10, 0, (n / 256) as u8, (n % 256) as u8])
    }

    #[test]
    fn a_network_crowds_out_only_itself() {
        let lobby = Arc::new(Lobby::default());
        let mut bob = lobby.enter(address(1));
        let mut crowd: Vec<_> = (0..limits::LOBBY_OF_NETWORK)
            .map(|n| lobby.enter(IpAddr::from([0x2001, 0, 0, 0, n as u16, 0, 0, 1])))
            .collect();
        assert!(
            crowd.iter_mut().all(|place| place.lost.try_recv() == Err(oneshot::error::TryRecvError::Empty))
        );
        let _newest = lobby.enter(IpAddr::from([0x2001, 0, 0, 0, 0xffff, 0, 0, 2]));
        assert_eq!(crowd[0].lost.try_recv(), Err(oneshot::error::TryRecvError::Closed), "the longest silent");
        assert_eq!(crowd[1].lost.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        assert_eq!(bob.lost.try_recv(), Err(oneshot::error::TryRecvError::Empty));
    }

    #[test]
    fn the_lobby_is_bounded_and_the_newest_gets_in() {
        let lobby = Arc::new(Lobby::default());
        let mut crowd: Vec<_> = (0..3 * limits::LOBBY).map(|n| lobby.enter(address(n))).collect();
        assert_eq!(lobby.lock().strangers.len(), limits::LOBBY);
        assert!(lobby.is_busy());
        let kept =
            crowd.iter_mut().map(|place| place.lost.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        assert!(kept.enumerate().all(|(n, kept)| kept == (n >= 2 * limits::LOBBY)));
        drop(crowd);
        assert_eq!(lobby.lock().strangers.len(), 0);
    }
}

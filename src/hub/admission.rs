//! Who is let in: limits on connections in all, of one address, and in their handshake.
//!
//! Each is met where it costs least, at `accept`. A newcomer beyond the first two is closed unseen. Beyond the third it is
//! the *oldest* handshake that goes: age is what a peer that only holds a place cannot hide, whatever it trickles, while
//! a client in good faith needs a round trip or two. So a flood of half-open connections locks nobody out unless it fills
//! all places anew within such a round trip.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use super::table::{Hub, Slot};
use crate::{
    config::Config,
    conn::{Conn, State},
    id::MAX_SLOTS,
};

/// The books about it. What no limit asks for stays empty.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// Connections of each address, if there is a limit on them.
    by_address: HashMap<IpAddr, u32>,
    /// Slot and generation of handshakes in the order in which they came. Those that are over are skipped, and swept out
    /// when they are more than the others.
    handshakes: VecDeque<(u32, u32)>,
    /// Connections of others in the state `Connecting`.
    half_open: usize,
}

/// So many handshakes that are over may stay in the queue before it is worth sweeping.
const SLACK: usize = 64;

/// Whose connections are counted together. A site is given a /64 of IPv6 addresses at the least (RFC 6177), and its hosts
/// choose among them as they like; so the /64 is what an IPv4 address is.
fn neighbourhood(address: SocketAddr) -> IpAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & u128::MAX << 64)),
    }
}

impl Config {
    fn handshake_limit(&self) -> usize {
        self.max_handshakes.unwrap_or((self.max_connections / 2).clamp(64, 16 << 10)).max(1)
    }
}

impl<D> Hub<D> {
    /// Whether there is room for one more connection from there.
    pub(super) fn admits(&self, peer: SocketAddr) -> bool {
        let of_this_address = || self.admission.by_address.get(&neighbourhood(peer)).copied().unwrap_or(0);
        self.slots.len() < self.config.max_connections.min(MAX_SLOTS)
            && self.config.max_connections_per_address.is_none_or(|limit| of_this_address() < limit)
    }

    /// It was let in. If its handshake is one too many, the oldest is cut off.
    pub(super) fn note_accepted(&mut self, slot: usize, peer: SocketAddr) {
        if self.config.max_connections_per_address.is_some() {
            *self.admission.by_address.entry(neighbourhood(peer)).or_default() += 1;
        }
        let Some((key, entry)) = u32::try_from(slot).ok().zip(self.slots.get(slot)) else { return };
        self.admission.handshakes.push_back((key, entry.conn.generation));
        self.admission.half_open += 1;
        while self.admission.half_open > self.config.handshake_limit()
            && let Some((slot, generation)) = self.admission.handshakes.pop_front()
        {
            let slot = slot as usize;
            if self.slots.get(slot).is_some_and(|entry| is_half_open(entry, generation)) {
                self.with(slot, Conn::evict);
            }
        }
    }

    /// A handshake is over, however.
    pub(super) fn note_handshake_over(&mut self) {
        let Admission { handshakes, half_open, .. } = &mut self.admission;
        *half_open -= 1;
        if *half_open == 0 {
            *handshakes = VecDeque::new();
        } else if handshakes.len() > 2 * *half_open + SLACK {
            let slots = &self.slots;
            handshakes.retain(|&(slot, generation)| {
                slots.get(slot as usize).is_some_and(|entry| is_half_open(entry, generation))
            });
            handshakes.shrink_to(2 * *half_open + SLACK);
        }
    }

    /// Its slot is about to be freed.
    pub(super) fn note_released(&mut self, slot: usize) {
        if self.config.max_connections_per_address.is_none() {
            return;
        }
        let Some(conn) = self.slots.get(slot).map(|entry| &entry.conn).filter(|conn| !conn.is_client())
        else {
            return;
        };
        if let Entry::Occupied(mut count) = self.admission.by_address.entry(neighbourhood(conn.peer())) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        if self.admission.by_address.is_empty() {
            self.admission.by_address = HashMap::new();
        }
    }
}

fn is_half_open<D>(entry: &Slot<D>, generation: u32) -> bool {
    entry.conn.generation == generation && entry.conn.state() == State::Connecting
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::HandshakeCause, event::Event, hub::table::Action};

    fn hub(change: impl FnOnce(&mut Config)) -> Hub<()> {
        let mut config = Config::default();
        change(&mut config);
        Hub::new(config, 0, 1)
    }

    fn from(ip: &str, port: u16) -> SocketAddr {
        SocketAddr::new(ip.parse().expect("an address"), port)
    }

    /// Ports of those that failed for want of room, and slots that were given back.
    fn settle(hub: &mut Hub<()>) -> (Vec<u16>, Vec<usize>) {
        let (mut ports, mut released) = (vec![], vec![]);
        while let Some(event) = hub.poll_event() {
            if let Event::HandshakeFailed { peer, cause: HandshakeCause::TooManyConnections, .. } = event {
                ports.push(peer.port());
            }
        }
        while let Some(action) = hub.poll_action() {
            if let Action::Release(slot, _) = action {
                released.push(slot);
            }
        }
        (ports, released)
    }

    #[test]
    fn addresses_are_counted_as_their_owners_have_them() {
        let rows = [
            ("the same", "192.0.2.1", "192.0.2.1", true),
            ("a neighbour in IPv4", "192.0.2.1", "192.0.2.2", false),
            ("the same, through a socket for both", "192.0.2.1", "::ffff:192.0.2.1", true),
            ("a neighbour, through a socket for both", "::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
            ("one /64", "2001:db8::1", "2001:db8::ffff:1", true),
            ("another /64", "2001:db8::1", "2001:db8:0:1::1", false),
        ];
        for (what, one, other, same) in rows {
            assert_eq!(neighbourhood(from(one, 1)) == neighbourhood(from(other, 2)), same, "{what}");
        }
    }

    #[test]
    fn an_address_has_its_share_and_no_more() {
        let mut hub = hub(|config| config.max_connections_per_address = Some(2));
        let first = hub.accept(from("192.0.2.1", 1)).expect("the first");
        assert!(hub.accept(from("192.0.2.1", 2)).is_some());
        assert!(hub.accept(from("192.0.2.1", 3)).is_none());
        assert!(hub.accept(from("192.0.2.2", 4)).is_some(), "others have theirs");
        assert_eq!(settle(&mut hub), (vec![3], vec![]));
        hub.handle_eof(first);
        assert!(hub.accept(from("192.0.2.1", 5)).is_none(), "it still has its descriptor");
        assert_eq!(settle(&mut hub), (vec![5], vec![first]));
        assert!(hub.accept(from("192.0.2.1", 6)).is_some());
    }

    #[test]
    fn nothing_is_kept_of_those_that_went() {
        let mut hub = hub(|config| config.max_connections_per_address = Some(2));
        for port in 1..1000 {
            let slot = hub.accept(from("192.0.2.1", port)).expect("room");
            hub.handle_eof(slot);
            settle(&mut hub);
        }
        assert_eq!(hub.admission.by_address.capacity() + hub.admission.handshakes.capacity(), 0);
        assert_eq!(hub.admission.half_open, 0);
    }

    #[test]
    fn the_oldest_handshake_makes_room() {
        let mut hub = hub(|config| config.max_handshakes = Some(3));
        let slots: Vec<_> = (0..5).filter_map(|port| hub.accept(from("192.0.2.1", port))).collect();
        assert_eq!(slots.len(), 5, "nobody is turned away");
        assert_eq!(settle(&mut hub), (vec![0, 1], vec![0, 1]));
        // One that is over by itself makes room as well.
        hub.handle_eof(slots[3]);
        settle(&mut hub);
        hub.accept(from("192.0.2.1", 5));
        assert!(settle(&mut hub).0.is_empty());
        hub.accept(from("192.0.2.1", 6));
        assert_eq!(settle(&mut hub).0, [2]);
    }

    #[test]
    fn the_queue_of_handshakes_is_no_longer_than_what_is_in_it() {
        let mut hub = hub(|_| {});
        let old = hub.accept(from("192.0.2.1", 0)).expect("room");
        for port in 1..10_000 {
            let slot = hub.accept(from("192.0.2.1", port)).expect("room");
            hub.handle_eof(slot);
            settle(&mut hub);
            assert!(hub.admission.handshakes.len() <= 2 + SLACK + 1);
        }
        assert_eq!(hub.admission.half_open, 1);
        hub.handle_eof(old);
        assert_eq!(hub.admission.handshakes.capacity(), 0);
    }

    #[test]
    fn handshakes_leave_places_for_connections() {
        let limit = |max_connections, max_handshakes| {
            Config { max_connections, max_handshakes, ..Config::default() }.handshake_limit()
        };
        assert_eq!(limit(MAX_SLOTS, None), 16 << 10);
        assert_eq!(limit(1000, None), 500);
        assert_eq!(limit(10, None), 64);
        assert_eq!(limit(10, Some(0)), 1);
    }
}

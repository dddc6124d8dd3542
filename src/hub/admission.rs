//! Who is let in: limits on connections in all, of one address, and in their handshake. Counts and ages only: the hub says
//! what happens to its connections, and closes those that are named here. No connection enters.
//!
//! Each limit is met where it costs least, at `accept`. A newcomer from an address that has its share is closed unseen. Where
//! all places are taken, a newcomer gets the place of the oldest connection that was refused, whose answer is all that it
//! still waits for, or else that of the oldest handshake. Where there is one handshake too many, the oldest is closed. A
//! client that only holds a place cannot hide its age, whatever it trickles, while an honest one completes its handshake
//! within two round trips. So half-open and refused connections do not lock newcomers out, unless they take all places anew within
//! such a time.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use crate::{
    config::LoopConfig,
    conn::State,
    id::ConnectionId,
    stats::{Cap, Caps},
};

/// What the limits are counted by. What no limit needs stays empty.
#[derive(Debug)]
pub(super) struct Admission {
    limits: Limits,
    /// Connections of each address, if there is a limit on them. Those that were refused do not count.
    by_address: HashMap<IpAddr, u32>,
    /// The most that one of them has had at once.
    most_of_one: u32,
    /// Connections of peers in the state `Connecting` that wait for the peer.
    handshakes: BTreeSet<Age>,
    /// Connections of peers that were refused, until they are closed.
    refused: BTreeSet<Age>,
    /// Of connections of peers in that state, those whose upgrade is deferred.
    deferred: usize,
    /// The generation that came last.
    latest: u32,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    connections: usize,
    per_address: Option<u32>,
    handshakes: usize,
    deferred: usize,
}

/// A connection. The older of two is the lesser, until generations wrap: see [`Admission::oldest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Age {
    generation: u32,
    slot: usize,
}

impl Age {
    const fn of(id: ConnectionId) -> Self {
        Self { generation: id.generation(), slot: id.slot() }
    }
}

impl Admission {
    pub(super) fn new(settings: &LoopConfig) -> Self {
        Self {
            limits: Limits {
                connections: settings.max_connections,
                per_address: settings.max_connections_per_address,
                handshakes: handshake_limit(settings),
                deferred: settings.max_deferred,
            },
            by_address: HashMap::new(),
            most_of_one: 0,
            handshakes: BTreeSet::new(),
            refused: BTreeSet::new(),
            deferred: 0,
            latest: 0,
        }
    }

    /// The limit on all connections.
    pub(super) const fn max_connections(&self) -> usize {
        self.limits.connections
    }

    /// How much of each limit is used, `total` being the connections in any state.
    pub(super) fn caps(&self, total: usize) -> Caps {
        let Limits { connections, per_address, handshakes, deferred } = self.limits;
        Caps {
            connections: Cap::new(total, Some(connections)),
            handshakes: Cap::new(self.handshakes.len(), Some(handshakes)),
            deferred: Cap::new(self.deferred, Some(deferred)),
            per_address: Cap::new(self.most_of_one as usize, per_address.map(|limit| limit as usize)),
            ..Caps::default()
        }
    }

    /// Whether one more connection may come from there. One that comes from nowhere, as by a Unix domain socket, may.
    pub(super) fn admits(&self, peer: Option<SocketAddr>) -> bool {
        let (Some(limit), Some(peer)) = (self.limits.per_address, peer) else { return true };
        self.by_address.get(&neighbourhood(peer)).is_none_or(|count| *count < limit)
    }

    /// The slot whose connection is to be closed so that one more fits, `live` being those that are not closed: the oldest
    /// refused one, else the oldest handshake. `None` if one fits, or neither is there.
    pub(super) fn next_to_evict(&self, live: usize) -> Option<usize> {
        if live < self.limits.connections {
            return None;
        }
        self.oldest(&self.refused).or_else(|| self.oldest(&self.handshakes))
    }

    /// A connection of a peer was let in. Returns the slot of the oldest handshake if there is one too many.
    pub(super) fn accepted(&mut self, id: ConnectionId, peer: Option<SocketAddr>) -> Option<usize> {
        self.take_share(peer);
        self.handshakes.insert(Age::of(id));
        self.latest = id.generation();
        if self.handshakes.len() <= self.limits.handshakes {
            return None;
        }
        self.oldest(&self.handshakes)
    }

    /// A peer's connection was let in whose handshake is complete.
    pub(super) fn adopted(&mut self, id: ConnectionId, peer: Option<SocketAddr>) {
        self.take_share(peer);
        // For the moment until it is open.
        self.handshakes.insert(Age::of(id));
        self.latest = id.generation();
    }

    /// Whether the upgrade of one more may be deferred.
    pub(super) const fn may_defer(&self) -> bool {
        self.deferred < self.limits.deferred
    }

    /// The upgrade of a peer's connection is deferred: it waits for the application, so no newcomer gets its place.
    pub(super) fn deferred(&mut self, id: ConnectionId) {
        self.deferred += usize::from(self.handshakes.remove(&Age::of(id)));
    }

    /// The slot of the oldest of them. Generations wrap: half of all numbers are before the latest one.
    fn oldest(&self, of: &BTreeSet<Age>) -> Option<usize> {
        let from = Age { generation: self.latest.wrapping_add(1 << 31), slot: 0 };
        of.range(from..).next().or_else(|| of.first()).map(|oldest| oldest.slot)
    }

    /// The state of a peer's connection has changed from `before`.
    #[inline]
    pub(super) fn changed(
        &mut self,
        id: ConnectionId,
        peer: impl FnOnce() -> Option<SocketAddr>,
        before: State,
        after: State,
    ) {
        match before {
            State::Connecting => {
                let waited_for_the_peer = self.handshakes.remove(&Age::of(id));
                self.deferred = self.deferred.saturating_sub(usize::from(!waited_for_the_peer));
            }
            // It was aborted by FIN, and lingers.
            State::Closed => return self.take_share(peer()),
            _ => {}
        }
        match after {
            State::Refusing => {
                self.refused.insert(Age::of(id));
                self.release(peer);
            }
            // A refused one has released its share already.
            State::Closed if !self.refused.is_empty() && self.refused.remove(&Age::of(id)) => {}
            State::Closed => self.release(peer),
            State::Connecting
            | State::Open
            | State::LocalClosing
            | State::RemoteClosing
            | State::Failing
            | State::Lingering => {}
        }
    }

    /// One more from there.
    pub(super) fn take_share(&mut self, peer: Option<SocketAddr>) {
        if let (Some(limit), Some(peer)) = (self.limits.per_address, peer) {
            let count = self.by_address.entry(neighbourhood(peer)).or_default();
            *count += 1;
            // One more than that is refused, as soon as the header of its proxy has said where it comes from.
            self.most_of_one = self.most_of_one.max((*count).min(limit));
        }
    }

    /// One less from there.
    #[inline]
    fn release(&mut self, peer: impl FnOnce() -> Option<SocketAddr>) {
        if self.limits.per_address.is_some()
            && let Some(peer) = peer()
        {
            self.release_share(peer);
        }
    }

    fn release_share(&mut self, peer: SocketAddr) {
        if let Entry::Occupied(mut count) = self.by_address.entry(neighbourhood(peer)) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        if self.by_address.is_empty() {
            self.by_address = HashMap::new();
        }
    }
}

/// Whose connections are counted together. A site is given a /64 of IPv6 addresses at the least (RFC 6177), and its hosts
/// choose among them as they like; so the /64 is what an IPv4 address is.
fn neighbourhood(address: SocketAddr) -> IpAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & u128::MAX << 64)),
    }
}

fn handshake_limit(settings: &LoopConfig) -> usize {
    settings.max_handshakes.unwrap_or((settings.max_connections / 2).clamp(64, 16 << 10))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MAX_SLOTS;

    /// Connections as a hub has them: the state of each slot, in the order in which they came.
    struct Hub {
        admission: Admission,
        states: Vec<(SocketAddr, State)>,
    }

    impl Hub {
        fn new(change: impl FnOnce(&mut LoopConfig)) -> Self {
            let mut settings = LoopConfig::default();
            change(&mut settings);
            Self { admission: Admission::new(&settings), states: Vec::new() }
        }

        fn live(&self) -> usize {
            self.states.iter().filter(|(_, state)| *state != State::Closed).count()
        }

        fn set(&mut self, slot: usize, after: State) {
            let (peer, before) = self.states[slot];
            self.states[slot].1 = after;
            self.admission.changed(id(slot), || Some(peer), before, after);
        }

        /// Lets one in, if that is allowed. Returns the slots that were evicted for it.
        fn accept(&mut self, ip: &str) -> Option<Vec<usize>> {
            let peer = from(ip);
            if !self.admission.admits(Some(peer)) {
                return None;
            }
            let room = self.admission.next_to_evict(self.live());
            if let Some(slot) = room {
                self.set(slot, State::Closed);
            }
            if self.live() >= self.admission.max_connections() {
                return None;
            }
            self.states.push((peer, State::Connecting));
            let oldest = self.admission.accepted(id(self.states.len() - 1), Some(peer));
            if let Some(slot) = oldest {
                self.set(slot, State::Closed);
            }
            Some(room.into_iter().chain(oldest).collect())
        }
    }

    fn id(slot: usize) -> ConnectionId {
        let slot = u32::try_from(slot).expect("few");
        ConnectionId::new(0, slot, slot + 1)
    }

    fn from(ip: &str) -> SocketAddr {
        SocketAddr::new(ip.parse().expect("an address"), 1)
    }

    const A: &str = "192.0.2.1";
    const B: &str = "192.0.2.2";

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
            assert_eq!(neighbourhood(from(one)) == neighbourhood(from(other)), same, "{what}");
        }
    }

    #[test]
    fn an_address_has_its_share_and_no_more() {
        let mut hub = Hub::new(|settings| settings.max_connections_per_address = Some(2));
        assert_eq!(hub.accept(A), Some(vec![]));
        assert_eq!(hub.accept(A), Some(vec![]));
        assert_eq!(hub.accept(A), None);
        assert_eq!(hub.accept(B), Some(vec![]), "others have theirs");
        hub.set(0, State::Open);
        assert_eq!(hub.accept(A), None);
        hub.set(0, State::Lingering);
        assert_eq!(hub.accept(A), None, "it still has its descriptor");
        hub.set(0, State::Closed);
        assert_eq!(hub.accept(A), Some(vec![]));
    }

    #[test]
    fn a_refused_connection_takes_no_share_of_its_address() {
        let mut hub = Hub::new(|settings| settings.max_connections_per_address = Some(1));
        assert_eq!(hub.accept(A), Some(vec![]));
        hub.set(0, State::Refusing);
        assert_eq!(hub.accept(A), Some(vec![]));
        assert_eq!(hub.accept(A), None);
        hub.set(0, State::Lingering);
        hub.set(0, State::Closed);
        assert_eq!(hub.accept(A), None, "its share was released before");
    }

    #[test]
    fn an_abort_by_fin_keeps_its_share_until_it_has_lingered() {
        let mut hub = Hub::new(|settings| settings.max_connections_per_address = Some(2));
        for slot in 0..2 {
            hub.accept(A).expect("room");
            hub.set(slot, State::Open);
        }
        hub.set(0, State::Closed);
        hub.set(0, State::Lingering);
        assert_eq!(hub.accept(A), None, "it lingers");
        hub.set(0, State::Closed);
        assert_eq!(hub.accept(A), Some(vec![]));
        assert_eq!(hub.accept(A), None, "the other one is still there");
    }

    #[test]
    fn nothing_is_kept_of_those_that_went() {
        let mut hub = Hub::new(|settings| settings.max_connections_per_address = Some(2));
        for slot in 0..1000 {
            hub.accept(A).expect("room");
            if slot % 2 == 0 {
                hub.set(slot, State::Refusing);
            }
            hub.set(slot, State::Closed);
        }
        let Admission { by_address, handshakes, refused, .. } = &hub.admission;
        assert_eq!((by_address.capacity(), handshakes.len(), refused.len()), (0, 0, 0));
    }

    #[test]
    fn the_oldest_handshake_makes_room() {
        let mut hub = Hub::new(|settings| settings.max_handshakes = Some(3));
        for slot in 0..3 {
            assert_eq!(hub.accept(A), Some(vec![]), "{slot}");
        }
        assert_eq!(hub.accept(A), Some(vec![0]));
        assert_eq!(hub.accept(A), Some(vec![1]));
        hub.set(3, State::Open);
        assert_eq!(hub.accept(A), Some(vec![]), "one that is complete makes room as well");
        assert_eq!(hub.accept(A), Some(vec![2]));
    }

    #[test]
    fn a_newcomer_gets_the_place_of_a_refused_one_then_of_a_handshake_and_none_of_another() {
        let mut hub = Hub::new(|settings| settings.max_connections = 4);
        for _ in 0..4 {
            assert_eq!(hub.accept(A), Some(vec![]));
        }
        hub.set(0, State::Open);
        hub.set(2, State::Refusing);
        hub.set(3, State::Refusing);
        hub.set(3, State::Lingering);
        assert_eq!(hub.accept(A), Some(vec![2]), "the oldest refused one");
        assert_eq!(hub.accept(A), Some(vec![3]), "the other one, which lingers");
        assert_eq!(hub.accept(A), Some(vec![1]), "the oldest handshake");
        for slot in 4..7 {
            hub.set(slot, State::Open);
        }
        hub.set(0, State::LocalClosing);
        assert_eq!(hub.accept(A), None);
        hub.set(0, State::Lingering);
        assert_eq!(hub.accept(A), None, "it was not refused");
    }

    #[test]
    fn handshakes_leave_places_for_connections() {
        let limit = |max_connections, max_handshakes| {
            handshake_limit(&LoopConfig { max_connections, max_handshakes, ..LoopConfig::default() })
        };
        assert_eq!(limit(MAX_SLOTS, None), 16 << 10);
        assert_eq!(limit(1000, None), 500);
        assert_eq!(limit(10, None), 64, "here the limit on all of them is met first");
        assert_eq!(limit(10, Some(1)), 1);
    }
}

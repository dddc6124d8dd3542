//! How often a wrong password may be tried. Time is a parameter.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// Wrong passwords of one address in [`WINDOW`]: more than a person types.
const MAX_OF_ADDRESS: u32 = 10;
/// Of all addresses: who has many of them is slowed down, too. It also bounds the addresses that are remembered.
const MAX_OF_ALL: u32 = 100;
const WINDOW: Duration = Duration::from_mins(1);

/// Wrong passwords since the present window began.
#[derive(Default)]
pub(super) struct Guesses {
    since: Duration,
    all: u32,
    of_address: HashMap<Option<IpAddr>, u32>,
}

impl Guesses {
    /// Was the password wrong so often that none is looked at?
    pub(super) fn are_too_many(&self, from: Option<IpAddr>) -> bool {
        let of_address = self.of_address.get(&from.map(network)).copied().unwrap_or_default();
        self.all >= MAX_OF_ALL || of_address >= MAX_OF_ADDRESS
    }

    /// One was wrong.
    pub(super) fn count(&mut self, from: Option<IpAddr>) {
        self.all += 1;
        *self.of_address.entry(from.map(network)).or_default() += 1;
    }

    /// Begins the next window if this one is over.
    pub(super) fn tick(&mut self, now: Duration) {
        if now >= self.since + WINDOW {
            *self = Self { since: now, ..Self::default() };
        }
    }
}

/// An IPv4 address; of an IPv6 address what a single customer is given, 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_of_one_address_are_bounded() {
        let mut guesses = Guesses::default();
        for last in 0..MAX_OF_ADDRESS {
            assert!(!guesses.are_too_many("2001:db8::1".parse().ok()));
            guesses.count(format!("2001:db8::{last}").parse().ok());
        }
        assert!(guesses.are_too_many("2001:db8::ffff".parse().ok()), "one network");
        assert!(!guesses.are_too_many("2001:db8:0:1::1".parse().ok()));
        guesses.tick(WINDOW.saturating_sub(Duration::from_nanos(1)));
        assert!(guesses.are_too_many("2001:db8::1".parse().ok()));
        guesses.tick(WINDOW);
        assert!(!guesses.are_too_many("2001:db8::1".parse().ok()));
    }

    #[test]
    fn guesses_of_all_addresses_are_bounded() {
        let mut guesses = Guesses::default();
        for last in 0..MAX_OF_ALL {
            assert!(!guesses.are_too_many("192.0.2.1".parse().ok()));
            guesses.count(format!("10.0.0.{last}").parse().ok());
        }
        assert!(guesses.are_too_many("192.0.2.1".parse().ok()));
        assert!(guesses.of_address.len() <= MAX_OF_ALL as usize);
    }
}

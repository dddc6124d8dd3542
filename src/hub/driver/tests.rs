//! What only the inside of the hub shows.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::testing::{Memory, REQUEST, Session};

use super::*;
use crate::{
    event::Event,
    hub::{Upgrade, UpgradeRequest},
};

struct Quiet;

impl Handler for Quiet {
    type Data = ();

    fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        Upgrade::accept(())
    }

    fn on_event(&mut self, _: &mut Clients<'_, ()>, _: Event<'_>) {}
}

#[test]
fn a_panic_in_a_broadcast_gives_the_output_buffer_back() {
    let mut session = Session::new(Config::default(), Quiet);
    session.read(REQUEST);
    for _ in 0..10 {
        let panic = catch_unwind(AssertUnwindSafe(|| {
            session.act(|clients, _| clients.broadcast(&[b'x'; 10_000], |_| panic!("as it was asked to")))
        }));
        assert!(panic.is_err());
        session.turn();
        session.act(|clients, _| clients.broadcast("hello", |_| true));
        assert_eq!(session.driver().hub.batched(), 0);
    }
}

/// 100,000 connections that ended at once cost 100,000 looks in each of the turns that delivered their `Close`.
#[test]
fn a_slot_that_waits_for_its_close_to_be_delivered_is_not_looked_at() {
    let mut config = Config::default();
    config.event_loop.turn_callbacks = 10;
    let mut driver = Driver::new(config, 0, 1, Memory::default());
    for slot in 0..5000 {
        driver.accept(([127, 0, 0, 1], 40_000).into()).expect("room");
        driver.transport().socket(slot).input = REQUEST.to_vec();
        driver.begin_turn(&mut Quiet);
        driver.ready(slot, Readiness { readable: true, ..Readiness::default() }, &mut Quiet);
        driver.end_turn(&mut Quiet);
    }
    let ids: Vec<_> = driver.clients().iter().map(|client| client.id()).collect();
    assert_eq!(ids.iter().filter(|id| driver.clients().terminate(**id)).count(), 5000);
    let mut room = None;
    for _ in 0..500 {
        driver.begin_turn(&mut Quiet);
        driver.end_turn(&mut Quiet);
        assert_eq!(driver.hub.unserved.len() + driver.hub.served.len(), 0, "for the next turn");
        assert_eq!(driver.hub.slots.len(), driver.hub.event_queue.len(), "released when it was delivered");
        if driver.hub.has_undelivered() {
            let capacity = driver.hub.event_queue.capacity();
            assert_eq!(*room.get_or_insert(capacity), capacity, "the event queue is not moved");
        }
    }
    assert!(!driver.has_more());
}

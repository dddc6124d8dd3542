//! `max_backlog_total`: all backlogs of a loop together.

use std::time::Duration;

use adjourn::{
    Clients, Config, SendError, close::Cause, config::OnTotalOverflow, hub::Readiness, testing::REQUEST,
};

use crate::Fleet;

fn capped(total: usize, policy: OnTotalOverflow) -> Fleet {
    let mut config = Config::default();
    config.connection.heartbeat.interval = None;
    (config.event_loop.max_backlog_total, config.event_loop.on_total_overflow) = (Some(total), policy);
    Fleet::new(config)
}

#[test]
fn all_backlogs_together_hold_no_more_than_their_cap_and_count_what_is_shared_once() {
    let mut fleet = capped(100_000, OnTotalOverflow::Refuse);
    fleet.open(20, 0, REQUEST);
    let ids = fleet.app.open.clone();
    let sent = std::iter::repeat_with(|| fleet.broadcast(&[1; 996])).take_while(|sent| *sent == 20).count();
    assert_eq!(sent, 100, "1,000 bytes each, for all of them");
    assert_eq!(fleet.held(), 100_000);
    let told = fleet.act(|clients| clients.broadcast(b"no", |_| true));
    assert_eq!((told.sent, told.refused), (0, 20));
    let refused = Err(SendError::Overflow { queued: 100_000, message: 12, limit: 100_000 });
    assert_eq!(fleet.act(|clients| clients.send(ids[3], &[2; 10])), refused);

    // One that has read everything is refused, too, until the others have.
    assert_eq!(fleet.reads(3, usize::MAX).len(), 100_000);
    assert_eq!(fleet.act(|clients| clients.send(ids[3], &[2; 10])), refused);
    (0..20).for_each(|slot| drop(fleet.reads(slot, usize::MAX)));
    assert_eq!(fleet.held(), 0);
    assert_eq!(fleet.act(|clients| clients.send(ids[3], &[2; 10])), Ok(()));
    assert_eq!(
        fleet.app.drained.len(),
        21,
        "the one that was refused with nothing queued gets its `Drain`, too"
    );

    // Messages of their own count for each; what waits for the end of the callback counts, too.
    let mut fleet = capped(100_000, OnTotalOverflow::Refuse);
    fleet.open(20, 0, REQUEST);
    let ids = fleet.app.open.clone();
    let sends = |clients: &mut Clients<'_, ()>| {
        ids.iter().filter(|id| clients.send(**id, &[2; 9_996]).is_ok()).count()
    };
    assert_eq!(fleet.act(sends), 10);
    assert_eq!((fleet.act(sends), fleet.held()), (0, 100_000));
}

#[test]
fn the_largest_backlogs_make_room_if_that_is_the_policy() {
    let mut fleet = capped(100_000, OnTotalOverflow::CloseLargest);
    fleet.open(20, 0, REQUEST);
    let ids = fleet.app.open.clone();
    for (id, size) in ids.iter().zip((1..).map(|n| n * 400)) {
        fleet.act(|clients| clients.send(*id, vec![1; size])).expect("84,000 bytes in all");
    }
    assert_eq!(fleet.app.open.len(), 20);
    // An eighth of the cap has to be free when room is made: the one with 16,300 bytes goes.
    assert_eq!(fleet.act(|clients| clients.send(ids[0], &[1; 15_900])), Ok(()));
    assert_eq!(fleet.app.open.len(), 20, "99,900 bytes and headers");
    assert_eq!(fleet.act(|clients| clients.send(ids[1], &[2; 100])), Ok(()));
    assert!(fleet.held() <= 87_604, "{} bytes", fleet.held());
    for _ in 0..2 {
        fleet.clock.pass(Duration::from_mins(1));
        fleet.act(|_| {});
    }
    let slow: Vec<_> = (fleet.app.ended.iter())
        .filter(|report| matches!(report.cause, Cause::Overflow { .. }))
        .map(|report| (report.effective_code(), report.lost.messages))
        .collect();
    assert_eq!(slow, [(1013, 2)], "the largest has two messages");

    // What never fits closes nobody.
    let mut fleet = capped(100_000, OnTotalOverflow::CloseLargest);
    fleet.open(2, 0, REQUEST);
    let ids = fleet.app.open.clone();
    fleet.act(|clients| clients.send(ids[0], vec![1; 50_000])).expect("there is room");
    assert!(matches!(
        fleet.act(|clients| clients.send(ids[1], vec![2; 100_001])),
        Err(SendError::Overflow { .. })
    ));
    assert_eq!((fleet.app.open.len(), fleet.app.ended.len()), (2, 0));
    assert_eq!(fleet.broadcast(&vec![3; 60_000]), 1, "room was made, and one of the two is gone");
}

/// What is in its way is queued for others, so that no write of its own would bring its `Drain`.
#[test]
fn who_is_refused_for_what_others_hold_gets_a_drain_when_there_is_room() {
    let mut fleet = capped(10_000, OnTotalOverflow::Refuse);
    fleet.open(5, 0, REQUEST);
    let ids = fleet.app.open.clone();
    fleet.act(|clients| clients.send(ids[0], vec![0; 8_000])).expect("there is room");
    let sends = |fleet: &mut Fleet, by: usize, size: usize| {
        fleet.driver.transport().socket(by).room = usize::MAX;
        fleet.act(|clients| clients.send(ids[by], vec![1; size])).is_ok()
    };
    // Each is refused; one asks for less after that, one is gone before there is room, and one asks for what never fits.
    assert!(!sends(&mut fleet, 1, 9_000));
    assert!(!sends(&mut fleet, 1, 3_000) && !sends(&mut fleet, 1, 4_000));
    assert!(!sends(&mut fleet, 2, 7_000) && !sends(&mut fleet, 3, 4_000) && !sends(&mut fleet, 4, 10_000));
    fleet.act(|clients| clients.terminate(ids[3]));
    assert_eq!((fleet.app.drained.len(), fleet.driver.has_more()), (0, false));

    // 3,004 bytes of 10,000 are held: there is room for the first alone, and it takes it.
    assert_eq!(fleet.reads(0, 5_000).len(), 5_000);
    assert_eq!(fleet.app.drained, [ids[1]]);
    assert_eq!(fleet.held(), 3_004);
    fleet.driver.transport().socket(1).room = 0;
    fleet.act(|clients| clients.send(ids[1], vec![1; 3_000])).expect("there is room");
    assert_eq!(fleet.held(), 6_008);
    assert_eq!(fleet.app.drained, [ids[1]], "nor for the second, now");
    fleet.act(|clients| clients.terminate(ids[1]));
    assert_eq!(fleet.reads(0, 1_000).len(), 1_000);
    assert_eq!(fleet.app.drained, [ids[1], ids[2]]);
    assert!(sends(&mut fleet, 2, 7_000));
    fleet.reads(0, usize::MAX);
    assert_eq!(fleet.held(), 0);
    // What never fits has nothing to wait for.
    assert_eq!(fleet.app.drained, [ids[1], ids[2], ids[0]]);
}

/// Room for one message is no reason to ask a thousand for theirs.
#[test]
fn room_is_given_to_as_many_as_it_is_enough_for() {
    let mut fleet = capped(10_000, OnTotalOverflow::Refuse);
    fleet.open(101, 0, REQUEST);
    let ids = fleet.app.open.clone();
    fleet.act(|clients| clients.send(ids[0], vec![0; 9_996])).expect("there is room");
    let told = fleet.act(|clients| clients.send_to(ids.iter().skip(1).copied(), [&[1; 996]]));
    assert_eq!((told.sent, told.refused.len()), (0, 100));
    fleet.driver.begin_turn(&mut fleet.app);
    fleet.driver.transport().socket(0).room = 3_500;
    let writable = Readiness { writable: true, ..Readiness::default() };
    fleet.driver.ready(0, writable, &mut fleet.app);
    fleet.driver.end_turn(&mut fleet.app);
    assert!(fleet.driver.has_more() && fleet.app.drained.is_empty(), "it is the next turn's");
    fleet.driver.begin_turn(&mut fleet.app);
    assert_eq!(fleet.app.drained, ids[1..4], "in the order in which they asked");
    fleet.rest();
    assert_eq!(fleet.app.drained.len(), 101 - 1, "they left it to the others");
}

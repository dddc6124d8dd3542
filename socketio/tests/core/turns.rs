//! Chains of the application's calls, each made by the one before: others have their turn between two.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use adjourn_socketio::core::{Inbox, Io};

use super::world::{World, quick};

/// A chain that is never left ends here, so that the test fails instead of hanging.
const MANY: usize = 100_000;

fn push_again(inbox: &Inbox, calls: &Arc<AtomicUsize>) {
    let (next, count) = (inbox.clone(), Arc::clone(calls));
    let call = move |_: &mut Io<'_>| {
        if count.fetch_add(1, Ordering::Relaxed) < MANY {
            push_again(&next, &count);
        }
    };
    inbox.push(call).expect("room");
}

fn wait_again(io: &mut Io<'_>, calls: Arc<AtomicUsize>) {
    if calls.fetch_add(1, Ordering::Relaxed) < MANY {
        io.after(Duration::ZERO, move |io| wait_again(io, calls));
    }
}

#[test]
fn s1_a_call_that_leaves_another_for_the_loop_leaves_others_their_turn() {
    let mut world = World::new(quick(), |_, _| {});
    let calls = Arc::new(AtomicUsize::new(0));
    push_again(&world.core.inbox(), &calls);
    for _ in 0..3 {
        let before = calls.load(Ordering::Relaxed);
        world.input(|core, now, wire| core.handle_inbox(now, wire));
        let made = calls.load(Ordering::Relaxed) - before;
        assert!((1..100).contains(&made), "{made} in one turn");
    }
}

#[test]
fn s1_a_call_after_no_time_is_made_in_a_later_turn() {
    let mut world = World::new(quick(), |_, _| {});
    world.halts = true;
    let calls = Arc::new(AtomicUsize::new(0));
    let first = Arc::clone(&calls);
    world.call(move |io| wait_again(io, first));
    for turn in 1..4 {
        assert_eq!(calls.load(Ordering::Relaxed), turn);
        world.now += Duration::from_nanos(1);
        assert_eq!(world.core.next_timeout(), Some(world.now), "the loop does not sleep");
        world.input(|core, now, wire| core.handle_timeout(now, wire));
    }
}

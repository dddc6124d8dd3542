//! Section 8: an ack, and `saved`, come after what was done before them in the same handler call, or not at all.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjourn_socketio::core::{Core, Io};
use adjourn_socketio::store::Tx;

use super::basics::note;
use super::recovery::{numbers, say};
use super::world::{Client, StoreMode, World, quick};

fn set_up(core: &mut Core, log: &Arc<Mutex<Vec<String>>>) {
    let (saved, transacted) = (Arc::clone(log), Arc::clone(log));
    let namespace = core.namespace("/");
    namespace.on("do", move |socket, args, ack| {
        let (emits, joins): (u32, bool) = args.parse().expect("numbers");
        for number in 0..emits {
            socket.emit("n", (number,)).expect("is connected");
        }
        if joins {
            socket.join("r").expect("fits");
        }
        let log = Arc::clone(&saved);
        socket.saved(move |_, done| note(&log, format!("saved {}", done.is_ok())));
        ack.expect("asked for").send(socket.io(), ()).expect("is connected");
    });
    let log = Arc::clone(log);
    namespace.on("join", move |socket, args, ack| {
        let room: String = args.get(0).expect("text");
        let joined = socket.join(&room);
        socket.set_data("{}").expect("fits");
        let sent = ack.expect("asked for").send(socket.io(), ());
        let told = Arc::clone(&log);
        socket.saved(move |_, done| note(&told, format!("saved {}", done.is_ok())));
        note(&log, format!("{joined:?} {sent:?}"));
    });
    namespace.on("transact", move |socket, args, ack| {
        let fails: bool = args.get(0).expect("a boolean");
        let run = move |_: &mut Tx<'_>| if fails { Err("as the test wants it".into()) } else { Ok(()) };
        let log = Arc::clone(&transacted);
        let then = move |_: &mut Io<'_>, done: Result<(), _>| note(&log, format!("done {}", done.is_ok()));
        socket.transact(run, then).expect("is connected");
        ack.expect("asked for").send(socket.io(), ()).expect("is connected");
    });
}

/// Another call, whose entry is refused by nobody, has its ack.
fn next_call(world: &mut World, client: &mut Client, before: u64) {
    client.pump(world);
    assert!(client.packets.is_empty(), "{:?}", client.packets);
    assert_eq!(world.core.stats().acks_withheld, before);
    client.emit_with_ack(world, 9, r#"["do",1,true]"#);
    world.run_store();
    world.advance(Duration::from_secs(1));
    world.run_store();
    client.pump(world);
    assert_eq!(client.packets, ["439[]"]);
    assert_eq!(world.noted(), ["saved true"]);
}

#[test]
fn an_ack_is_not_sent_if_an_earlier_batch_of_its_call_failed() {
    let mut config = quick();
    config.storage.batch = 2;
    let mut world = World::new(config, set_up);
    let mut client = Client::new(&mut world);
    world.mode = StoreMode::Held;
    client.emit_with_ack(&mut world, 1, r#"["do",3,false]"#);
    world.fail_held();
    world.run_store();
    assert_eq!(client.take(&mut world), numbers(2..3), "the third is another batch");
    assert_eq!(world.noted(), ["saved false"]);
    next_call(&mut world, &mut client, 1);
}

#[test]
fn an_ack_behind_a_join_is_not_sent_if_the_emit_before_it_failed() {
    let mut world = World::new(quick(), set_up);
    let mut client = Client::new(&mut world);
    world.mode = StoreMode::Held;
    client.emit_with_ack(&mut world, 1, r#"["do",1,true]"#);
    world.fail_held();
    world.advance(Duration::from_secs(1));
    world.run_store();
    assert_eq!(world.noted(), ["saved false"]);
    say(&mut world, "r", 7);
    world.run_store();
    assert_eq!(client.take(&mut world), numbers(7..8), "the join has taken effect");
    next_call(&mut world, &mut client, 1);
}

/// Calls that wait behind one that fails are none of it.
#[test]
fn acks_of_other_calls_are_sent() {
    let mut world = World::new(quick(), set_up);
    let mut client = Client::new(&mut world);
    world.mode = StoreMode::Held;
    client.emit_with_ack(&mut world, 1, r#"["do",1,true]"#);
    client.emit_with_ack(&mut world, 2, r#"["do",1,true]"#);
    world.fail_held();
    world.advance(Duration::from_secs(1));
    world.run_store();
    client.pump(&mut world);
    assert_eq!(client.packets, ["432[]"]);
    assert_eq!(world.noted(), ["saved false", "saved true"]);
}

#[test]
fn an_ack_behind_a_transaction_that_fails_is_not_sent() {
    let mut world = World::new(quick(), set_up);
    let mut client = Client::new(&mut world);
    client.emit_with_ack(&mut world, 1, r#"["transact",true]"#);
    client.emit_with_ack(&mut world, 2, r#"["transact",false]"#);
    client.pump(&mut world);
    assert_eq!(std::mem::take(&mut client.packets), ["432[]"]);
    assert_eq!(world.noted(), ["done false", "done true"]);
    next_call(&mut world, &mut client, 1);
}

#[test]
fn what_waits_for_a_store_that_is_declared_down_is_told() {
    let mut world = World::new(quick(), set_up);
    let mut client = Client::new(&mut world);
    world.mode = StoreMode::Held;
    say(&mut world, "", 0);
    client.emit_with_ack(&mut world, 1, r#"["do",1,false]"#);
    client.emit_with_ack(&mut world, 2, r#"["do",1,false]"#);
    world.advance(Duration::from_secs(1));
    assert_eq!(world.noted(), ["saved false", "saved false"]);
    world.run_store();
    world.mode = StoreMode::Inline;
    assert_eq!(client.take(&mut world), numbers(0..1));
    next_call(&mut world, &mut client, 2);
}

/// A client that sends on while a commit is in flight, whose events join, change data and ask for acks.
#[test]
fn what_waits_for_a_commit_is_bounded() {
    let room = "r".repeat(500);
    let mut config = quick();
    config.storage.queue = 10_000;
    let mut world = World::new(config, set_up);
    let mut client = Client::new(&mut world);
    for _ in 0..2 {
        world.mode = StoreMode::Held;
        say(&mut world, "", 0);
        for number in 0..100 {
            client.emit_with_ack(&mut world, number, &format!(r#"["join","{number}{room}"]"#));
        }
        let noted = world.noted();
        let count = |what: &str| noted.iter().filter(|line| *line == what).count();
        let taken = count("Ok(()) Ok(())");
        assert!((5..20).contains(&taken), "{taken}");
        assert!(count("Err(StoreUnavailable) Err(StoreUnavailable)") > 50, "{noted:?}");
        assert!(count("saved false") > 50 && count("saved true") == 0, "each is told");
        world.run_store();
        world.mode = StoreMode::Inline;
        world.advance(Duration::from_secs(1));
        client.pump(&mut world);
        assert!(client.packets.len() >= taken, "{:?}", client.packets);
        client.packets.clear();
        assert_eq!(world.core.stats().store_queue, 0, "nothing waits, so nothing counts");
        world.noted();
    }
}

/// What comes while the store is down would wait until it is back.
#[test]
fn an_ack_with_effects_is_refused_while_the_store_is_down() {
    let mut world = World::new(quick(), set_up);
    let mut client = Client::new(&mut world);
    world.mode = StoreMode::Held;
    say(&mut world, "", 0);
    world.advance(Duration::from_secs(1));
    client.emit_with_ack(&mut world, 1, r#"["join","r"]"#);
    assert_eq!(world.noted(), ["Ok(()) Err(StoreUnavailable)"]);
    world.advance(Duration::from_secs(1));
    world.call(|io| assert_eq!(io.of("/").to("r").emit_volatile("v", (1,)), 1, "joined"));
    world.run_store();
    world.advance(Duration::from_secs(1));
    world.run_store();
    assert_eq!(world.noted(), ["saved true"]);
    assert_eq!(world.core.stats().store_queue, 0);
    client.events.clear();
    client.pump(&mut world);
    next_call(&mut world, &mut client, 1);
}

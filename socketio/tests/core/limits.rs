//! Section 18: what is too large, what waits for the store, and timers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjourn_socketio::config::{ConnectPolicy, EmitPolicy, SocketIoConfig};
use adjourn_socketio::core::{AckOptions, Core, Io, KeyFrom};
use adjourn_socketio::packet::Binary;
use adjourn_socketio::store::{AckValue, Tx};

use super::basics::{handlers, note};
use super::recovery::{numbers, say, world_with};
use super::world::{Client, StoreMode, World, quick};

const QUEUE: usize = 16 << 10;

fn small_queue() -> SocketIoConfig {
    let mut config = quick();
    config.output.send_queue = QUEUE;
    config.output.volatile_limit = QUEUE;
    config
}

#[test]
fn s18_an_event_that_no_send_queue_takes_is_refused_at_the_call() {
    let mut world = world_with(small_queue());
    let mut client = Client::new(&mut world);
    world.stick(client.link.expect("is open"), QUEUE);
    let sid = client.sid.clone();
    let log = Arc::clone(&world.log);
    world.noted();
    world.call(move |io| {
        let large = "x".repeat(QUEUE);
        let (once, again) = (Duration::from_secs(1), Duration::from_secs(1));
        assert!(io.of("/").emit("x", (&large,)).is_err());
        assert!(io.of("/").local().emit("x", (&large,)).is_err());
        assert_eq!(io.of("/").emit_volatile("x", (&large,)), 0);
        assert!(io.of("/").emit_with_acks("x", (&large,), AckOptions::once(once), |_, _| {}).is_err());
        assert!(io.of("/").emit_with_acks("x", (&large,), AckOptions::redeliver(again), |_, _| {}).is_err());
        let mut socket = io.socket("/", &sid).expect("is connected");
        assert!(socket.emit("x", (&large,)).is_err());
        assert!(socket.emit_with_ack("x", (&large,), AckOptions::once(once), |_, _| {}).is_err());
        // Over long-polling an attachment is base64.
        let binary = Binary(vec![0; QUEUE / 4 * 3].into());
        assert!(socket.emit("x", (&binary,)).is_err());
        let run = move |tx: &mut Tx<'_>| Ok(tx.emit("x", (large,))?);
        let then = move |_: &mut Io<'_>, done: Result<(), _>| note(&log, format!("run {}", done.is_ok()));
        socket.transact(run, then).expect("is taken");
    });
    assert_eq!(world.noted(), ["run false"]);
    let link = client.link.expect("is open");
    assert_eq!(world.closed(link), None, "nobody is cut for it");
    world.call(|io| io.of("/").emit("x", ("x".repeat(QUEUE - 100),)).expect("fits"));
    assert_eq!(client.take(&mut world).len(), 1);
}

#[test]
fn s18_an_ack_that_no_send_queue_takes_is_refused_at_the_call() {
    let mut world = World::new(small_queue(), |core, log| {
        let log = Arc::clone(log);
        core.namespace("/").on("size", move |socket, args, ack| {
            let text = "x".repeat(args.get(0).expect("a number"));
            let sent = ack.expect("asked for").send(socket.io(), (text,));
            note(&log, format!("sent {}", sent.is_ok()));
        });
    });
    let mut client = Client::new(&mut world);
    let link = client.link.expect("is open");
    client.pump(&mut world);
    world.stick(link, QUEUE);
    client.emit_with_ack(&mut world, 1, &format!(r#"["size",{QUEUE}]"#));
    client.emit_with_ack(&mut world, 2, r#"["size",1000]"#);
    assert_eq!(world.noted(), ["sent false", "sent true"]);
    assert_eq!(world.closed(link), None);
    assert_eq!(world.core.stats().events_too_large, 1);
    client.pump(&mut world);
}

#[test]
fn s18_a_logged_event_that_no_send_queue_takes_is_passed_over() {
    let mut world = world_with(quick());
    let mut client = Client::new(&mut world);
    client.cut(&mut world);
    say(&mut world, "", 0);
    world.call(|io| io.of("/").emit("x", ("x".repeat(2 * QUEUE),)).expect("fits"));
    say(&mut world, "", 1);
    // It comes back to a server that was started anew, with less room.
    world.restart(small_queue(), |core, log| handlers(core.namespace("/"), log));
    let link = world.open();
    client.link = Some(link);
    world.stick(link, QUEUE);
    client.send_connect(&mut world);
    for _ in 0..4 {
        client.pump(&mut world);
        world.drain(link);
    }
    assert_eq!(world.closed(link), None);
    assert_eq!(client.take(&mut world), numbers(0..2));
}

#[test]
fn s13_asks_that_are_sent_again_are_paged() {
    let mut world = world_with(small_queue());
    let mut client = Client::new(&mut world);
    client.answers = false;
    for number in 0..10 {
        world.call(move |io| {
            let options = AckOptions::redeliver(Duration::from_mins(1));
            let args = (number, "x".repeat(QUEUE / 4));
            io.of("/").emit_with_acks("q", args, options, |_, _| {}).expect("is logged");
        });
    }
    say(&mut world, "", 0);
    assert_eq!(client.take(&mut world).len(), 11);
    client.cut(&mut world);
    say(&mut world, "", 1);
    let link = world.open();
    client.link = Some(link);
    world.stick(link, QUEUE);
    client.send_connect(&mut world);
    for _ in 0..20 {
        client.pump(&mut world);
        assert_eq!(world.closed(link), None, "pages at its pace");
        world.drain(link);
    }
    let events = client.take(&mut world);
    let asks: Vec<_> = events.iter().map(|event| event.starts_with(r#"["q","#)).collect();
    assert_eq!(asks, [[true; 10].as_slice(), &[false]].concat(), "asks first, each once");
    assert_eq!(events.last(), numbers(1..2).last());
    say(&mut world, "", 2);
    assert_eq!(client.take(&mut world), numbers(2..3), "it is live");
}

#[test]
fn s13_first_pages_of_one_connection_share_its_queue() {
    let mut config = small_queue();
    config.recovery.as_mut().expect("is on").replay_page = QUEUE;
    let mut world = World::new(config, |core, log| {
        handlers(core.namespace("/"), log);
        handlers(core.namespace("/other"), log);
    });
    let mut client = Client::new(&mut world);
    let mut other = Client::of(&mut world, "/other");
    client.cut(&mut world);
    other.cut(&mut world);
    for name in ["/", "/other"] {
        world.call(|io| io.of(name).emit("x", ("x".repeat(QUEUE / 4 * 3),)).expect("fits"));
    }
    let link = world.open();
    world.stick(link, QUEUE);
    (client.link, other.link) = (Some(link), Some(link));
    client.send_connect(&mut world);
    other.send_connect(&mut world);
    let mut received = Vec::new();
    for _ in 0..6 {
        assert_eq!(world.closed(link), None, "the second waits");
        received.extend(world.received(link));
        world.drain(link);
    }
    let events: Vec<&str> = received.iter().filter(|text| text.len() > 1000).map(|text| &text[..6]).collect();
    assert_eq!(events, [r#"42["x""#, "42/oth"]);
}

fn once_world(config: SocketIoConfig) -> World {
    World::new(config, |core: &mut Core, log: &Arc<Mutex<Vec<String>>>| {
        let (dropped, log) = (Arc::clone(log), Arc::clone(log));
        core.on_store_state(move |up| note(&log, format!("up {up}")));
        core.namespace("/")
            .on_once("store", KeyFrom::argument(0), |_, _| Ok(AckValue::new((1,))?))
            .on_event_error(move |_, name, error| note(&dropped, format!("{name}: {error}")));
    })
}

fn store(world: &mut World, client: &mut Client, number: u64, bytes: usize) {
    let text = "x".repeat(bytes);
    client.emit_with_ack(world, number, &format!(r#"["store","k{number}","{text}"]"#));
}

#[test]
fn s17_a_store_that_does_not_begin_a_transaction_is_down() {
    let config = quick();
    let stall = config.storage.stall;
    let mut world = once_world(config);
    let mut client = Client::new(&mut world);
    world.mode = StoreMode::Held;
    for number in 0..100 {
        store(&mut world, &mut client, number, 10);
    }
    world.call(|io| io.of("/").emit("n", (0,)).expect("is accepted"));
    world.noted();
    world.advance(stall);
    assert_eq!(world.noted(), ["up false"], "nothing of the application's runs");
    world.call(|io| assert!(io.of("/").emit("n", (1,)).is_err()));
    let held = world.core.stats().store_queue;
    assert!(held < 20_000, "what has not been handed over has failed: {held}");
    world.run_store();
    let answered = client.take(&mut world).len() + client.packets.len();
    assert!((1..100).contains(&answered), "those that were handed over: {answered}");
    // The client tries the others again.
    client.packets.clear();
    for number in 0..100 {
        store(&mut world, &mut client, number, 10);
    }
    world.run_store();
    client.pump(&mut world);
    assert_eq!(client.packets.len(), 100);
}

#[test]
fn s18_what_transactions_hold_counts_for_the_store_queue() {
    let mut config = quick();
    config.storage.queue = 1 << 20;
    config.storage.on_emit = EmitPolicy::Queue;
    let mut world = once_world(config);
    let mut client = Client::new(&mut world);
    world.noted();
    world.mode = StoreMode::Held;
    for number in 0..50 {
        store(&mut world, &mut client, number, 100_000);
    }
    let refused = world.noted();
    assert!(refused.len() >= 39 && refused[0].starts_with("store: "), "{}", refused.len());
    assert!(world.core.stats().store_queue <= 1 << 20);
    world.run_store();
    client.pump(&mut world);
    assert_eq!(client.packets.len(), 50 - refused.len());
    assert_eq!(world.core.stats().store_queue, 0);
}

#[test]
fn s18_timers_of_acks_that_were_answered_are_forgotten() {
    let mut world = world_with(quick());
    let mut client = Client::new(&mut world);
    let sid = client.sid.clone();
    for _ in 0..200 {
        let sid = sid.clone();
        world.call(move |io| {
            let mut socket = io.socket("/", &sid).expect("is connected");
            for _ in 0..100 {
                socket.emit_with_ack("q", (), AckOptions::once(Duration::MAX), |_, _| {}).expect("goes");
            }
        });
        client.pump(&mut world);
    }
    assert_eq!(world.core.stats().acks_received, 20_000);
    assert!(world.core.timers() < 5000, "{}", world.core.timers());
}

#[test]
fn a_time_that_never_comes_is_no_overflow() {
    let mut world = world_with(quick());
    let mut client = Client::new(&mut world);
    world.advance(Duration::from_secs(1));
    let sid = client.sid.clone();
    world.call(move |io| {
        let never = Duration::MAX;
        io.after(never, |_| panic!("never"));
        io.of("/").emit_with_acks("q", (), AckOptions::redeliver(never), |_, _| {}).expect("goes");
        io.of("/").emit_with_acks("q", (), AckOptions::once(never), |_, _| {}).expect("goes");
        io.of("/").fetch(never, |_, _| {});
        let mut socket = io.socket("/", &sid).expect("is connected");
        socket.emit_with_ack("q", (), AckOptions::once(never), |_, _| {}).expect("goes");
        socket.emit_with_ack("q", (), AckOptions::redeliver(never), |_, _| {}).expect("goes");
        socket.warn_then_disconnect("w", (), never).expect("goes");
    });
    assert_eq!(client.take(&mut world).len(), 5);
    assert_eq!(world.core.stats().acks_received, 4);
}

#[test]
fn s18_a_stored_ack_that_no_send_queue_takes_is_refused_where_it_is_made() {
    let mut world = World::new(small_queue(), |core, _| {
        core.namespace("/").on_once("size", KeyFrom::argument(1), |call, _| {
            let size: usize = call.args.as_args().get(0)?;
            Ok(AckValue::new(("x".repeat(size),))?)
        });
    });
    let mut client = Client::new(&mut world);
    let link = client.link.expect("is open");
    client.pump(&mut world);
    world.stick(link, QUEUE);
    for ack in 1..3 {
        client.emit_with_ack(&mut world, ack, &format!(r#"["size",{QUEUE},"large"]"#));
        assert_eq!(world.closed(link), None, "it would come back, ask again and be cut again");
    }
    assert_eq!(world.core.stats().once_rolled_back, 2);
    client.emit_with_ack(&mut world, 3, r#"["size",1000,"small"]"#);
    client.pump(&mut world);
    assert_eq!(client.packets.len(), 1);
}

/// The setting that is refused.
fn wrong(adapt: impl FnOnce(&mut SocketIoConfig)) -> &'static str {
    let mut config = SocketIoConfig::default();
    adapt(&mut config);
    config.check().expect_err("it cannot be").setting
}

#[test]
fn s18_times_that_no_timer_has_and_a_heartbeat_that_no_client_has_are_refused() {
    let (never, month) = (Duration::MAX, Duration::from_hours(31 * 24));
    assert_eq!(wrong(|config| config.times.connect_timeout = never), "times.connect_timeout");
    assert_eq!(wrong(|config| config.times.upgrade_timeout = never), "times.upgrade_timeout");
    assert_eq!(wrong(|config| config.times.close_timeout = never), "times.close_timeout");
    assert_eq!(wrong(|config| config.storage.stall = never), "storage.stall");
    assert_eq!(
        wrong(|config| config.storage.on_connect = ConnectPolicy::WaitUpTo(never)),
        "storage.on_connect"
    );
    assert_eq!(wrong(|config| config.once.window = never), "once.window");
    assert_eq!(wrong(|config| config.recovery.get_or_insert_default().window = never), "recovery.window");
    assert_eq!(wrong(|config| config.counts.http_idle_timeout = never), "counts.http_idle_timeout");
    // A timer of JavaScript that is longer than 2^31 - 1 ms fires at once: each client would time out as soon as it is connected.
    assert_eq!(wrong(|config| config.times.ping_interval = month), "times.ping_interval");
    assert_eq!(wrong(|config| config.times.ping_timeout = month), "times.ping_interval");
    assert_eq!(wrong(|config| config.input.max_payload = 5_000_000), "input.max_attachment_bytes");
    let mut config = SocketIoConfig::default();
    config.times.ping_interval = Duration::from_hours(24 * 24);
    config.times.connect_timeout = Duration::from_hours(24 * 365);
    assert_eq!(config.check(), Ok(()));
}

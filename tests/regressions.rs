//! Bugs that were, each named after what went wrong.

use std::{
    io::{ErrorKind, Write as _},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use adjourn::{
    Clients, CloseFrame, CloseReport, Config, ConnectionId, Event, Handle, Handler, SendError, Server,
    ShutdownPlan, accept_all,
    close::{Cause, CloseTiming, Initiator},
    config::{CloseAnswer, OnPeerClose},
    error::HandleError,
    http::{ConnectRequest, Upgrade, UpgradeRequest},
    shutdown::{Pace, ShutdownPhase},
    testing::{Session, frame},
};
use testkit::net::{Echo, wait_until};

const PING: u8 = 0x89;
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const CODE_1000: &[u8] = &[0x03, 0xe8];

/// Does what a text says, and keeps what it hears.
#[derive(Default)]
struct Actor {
    id: Option<ConnectionId>,
    closed: Option<CloseReport>,
    sweeps_done: u32,
    drains: u32,
}

impl Handler for Actor {
    type Data = ();

    fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        Upgrade::accept(())
    }

    fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
        match event {
            Event::Open { id } => self.id = Some(id),
            Event::Message { id, message, .. } if message.as_text() == Some("close") => {
                clients.close(id, CloseFrame::NORMAL);
            }
            Event::Message { id, message, .. } if message.as_text() == Some("kick") => {
                clients.kick_now(id, "bye", CloseFrame::NORMAL);
            }
            Event::Close { report: closed, .. } => self.closed = Some(*closed),
            Event::Drain { .. } => self.drains += 1,
            Event::SweepDone { .. } => self.sweeps_done += 1,
            _ => {}
        }
    }
}

/// An open connection whose kernel takes so many bytes.
fn session(config: Config, room: usize) -> (Session<Actor>, ConnectionId) {
    let mut session = Session::open(config, Actor::default());
    session.make_room(room);
    let id = session.handler().id.expect("it is open");
    (session, id)
}

fn send(session: &mut Session<Actor>, id: ConnectionId, texts: &[&'static str]) {
    session.act(|clients, _| texts.iter().for_each(|text| clients.send(id, *text).expect("there is room")));
}

fn close(session: &mut Session<Actor>, id: ConnectionId) {
    session.act(|clients, _| assert!(clients.close(id, CloseFrame::NORMAL)));
}

#[test]
fn a_longer_pong_in_front_of_the_close_made_it_count_as_flushed() {
    let (mut session, id) = session(Config::default(), 3);
    send(&mut session, id, &["0123456789"]);
    session.read(&frame(PING, b""));
    close(&mut session, id);
    session.read(&frame(PING, &[b'x'; 125]));
    // The rest of the message, the first Pong, the Close, and no byte of the second Pong.
    session.make_room(12 - 3 + 2 + 4);
    assert!(session.take_written().ends_with(&[CLOSE, 2, 0x03, 0xe8]));
    session.read(&frame(CLOSE, CODE_1000));
    let closed = session.handler().closed.clone().expect("it has ended");
    assert!(closed.was_clean() && closed.sent_flushed);
}

#[test]
fn a_shorter_pong_in_front_of_the_close_kept_it_from_being_flushed() {
    let (mut session, id) = session(Config::default(), 3);
    send(&mut session, id, &["0123456789"]);
    session.read(&frame(PING, &[b'x'; 125]));
    close(&mut session, id);
    session.read(&frame(PING, b""));
    session.make_room(usize::MAX);
    session.read(&frame(CLOSE, CODE_1000));
    assert!(session.handler().closed.clone().expect("it has ended").was_clean());
}

#[test]
fn pongs_and_a_close_of_one_turn_that_met_a_full_kernel_were_never_flushed() {
    let (mut session, _) = session(Config::default(), 0);
    let pings = frame(PING, b"abc").repeat(3);
    session.read(&[pings, frame(TEXT, b"close")].concat());
    session.make_room(usize::MAX);
    session.read(&frame(CLOSE, CODE_1000));
    assert!(session.handler().closed.clone().expect("it has ended").was_clean());
}

#[test]
fn a_ping_behind_a_kick_that_drops_what_is_queued_mixed_up_the_frames() {
    for room in 1..12 {
        let (mut session, id) = session(Config::default(), 12);
        send(&mut session, id, &["0123456789", "never begun"]);
        assert_eq!(session.take_written(), b"\x81\x0a0123456789");
        session.make_room(0);
        session.read(&[frame(TEXT, b"kick"), frame(PING, b"")].concat());
        session.make_room(room);
        session.make_room(usize::MAX);
        assert_eq!(
            session.take_written(),
            b"\x81\x03bye\x88\x02\x03\xe8\x8a\x00",
            "the kernel took {room} first"
        );
    }
}

#[test]
fn what_is_sent_before_a_manual_answer_waited_although_there_was_room() {
    let mut config = Config::default();
    (config.connection.answer, config.connection.on_peer_close) =
        (CloseAnswer::Manual, OnPeerClose::DropQueued);
    let (mut session, id) = session(config, 12);
    send(&mut session, id, &["0123456789", "never begun"]);
    session.read(&frame(CLOSE, CODE_1000));
    send(&mut session, id, &["last words"]);
    session.take_written();
    session.make_room(usize::MAX);
    assert_eq!(session.take_written(), b"\x81\x0alast words");
    session.act(|clients, _| assert!(clients.answer_close(id, CloseFrame::NORMAL)));
    assert_eq!(session.take_written(), b"\x88\x02\x03\xe8");
}

#[test]
fn a_shortened_deadline_left_the_close_no_time() {
    let (mut session, id) = session(Config::default(), 3);
    send(&mut session, id, &["0123456789", "a", "b", "c"]);
    close(&mut session, id);
    session.act(|clients, _| {
        let timing = CloseTiming { close_timeout: Some(Duration::from_secs(2)), ..CloseTiming::default() };
        assert!(!clients.close_with(id, CloseFrame::NORMAL, timing));
    });
    session.advance(Duration::from_millis(1500));
    session.make_room(9 + 4);
    assert!(
        session.take_written().ends_with(&[b'9', CLOSE, 2, 0x03, 0xe8]),
        "half of what was left was its own"
    );
}

#[test]
fn who_paused_on_a_backlog_that_the_kernel_took_whole_waited_for_a_drain_for_ever() {
    for size in [1, 16 << 10, 1 << 20] {
        let (mut session, id) = session(Config::default(), usize::MAX);
        session.act(|clients, _| {
            clients.send(id, vec![0; size]).expect("there is room");
            assert!(clients.get(id).is_some_and(|client| client.buffered_amount() > size));
            clients.pause(id);
        });
        assert_eq!(session.handler().drains, 1, "{size} bytes");
    }
}

#[test]
fn a_sweep_waited_for_the_instant_of_those_who_had_left() {
    let (mut session, _) = session(Config::default(), usize::MAX);
    let pace = Pace::Spread(Duration::from_hours(1));
    session.act(|clients, _| {
        clients.close_where(CloseFrame::NORMAL, pace, |_| true);
    });
    session.advance(Duration::from_millis(10));
    session.read_eof();
    session.advance(Duration::from_millis(10));
    assert_eq!(session.handler().sweeps_done, 1);
}

#[test]
fn a_second_shutdown_did_not_shorten_the_pace() {
    let (mut session, _) = session(Config::default(), usize::MAX);
    session.act(|clients, _| {
        let mut plan = ShutdownPlan::default();
        plan.pace = Pace::Spread(Duration::from_hours(1));
        clients.shutdown(plan);
    });
    session.advance(Duration::from_millis(10));
    session.act(|clients, _| clients.shutdown(ShutdownPlan::hard()));
    session.advance(Duration::from_millis(500));
    session.act(|clients, _| assert_eq!(clients.phase(), ShutdownPhase::Done));
}

#[test]
fn a_rate_of_nobody_a_second_told_everybody_at_once() {
    let mut config = Config::default();
    config.connection.heartbeat.interval = None;
    let (mut session, _) = session(config, usize::MAX);
    session.act(|clients, _| {
        clients.close_where(CloseFrame::NORMAL, Pace::Rate(0.0), |_| true);
    });
    session.advance(Duration::from_millis(100));
    assert!(session.take_written().ends_with(&[CLOSE, 2, 0x03, 0xe8]), "the first of one a second");
}

#[test]
fn more_connections_than_two_batches_of_accept_kept_the_next_one_waiting() {
    let server = Echo::start(Config::default());
    let silent: Vec<_> = (0..700).map(|_| server.connect()).collect();
    let honest = server.open();
    wait_until("all are accepted", || server.stats().total() == 701);
    drop((silent, honest));
    server.shut_down(ShutdownPlan::hard());
}

#[test]
fn a_command_that_pushed_another_kept_the_loop_from_its_sockets() {
    fn again(handle: &adjourn::Handle) {
        let next = handle.clone();
        // It ends when the server does.
        let _ = handle.defer(move |_| again(&next));
    }
    let server = Echo::start(Config::default());
    again(&server.handle);
    let mut client = server.open();
    client.write_all(&frame(TEXT, b"still there?")).expect("it is open");
    let mut echo = [0; 14];
    std::io::Read::read_exact(&mut client, &mut echo).expect("an echo");
    assert_eq!(&echo, b"\x81\x0cstill there?");
    server.shut_down(ShutdownPlan::hard());
}

/// Who pauses because of what is queued resumes when `Drain` comes; it did not come if the next write took everything.
#[test]
fn a_pause_before_the_first_write_never_got_its_drain() {
    for size in [10, 100_000] {
        let mut session = Session::open(Config::default(), Resumer::default());
        session.read(&frame(TEXT, &vec![b'a'; size]));
        session.read(&frame(TEXT, b"more"));
        assert_eq!((session.handler().drains, session.handler().messages), (2, 2), "{size}");
    }
}

/// Echoes, and reads on when the echo is gone.
#[derive(Default)]
struct Resumer {
    messages: u32,
    drains: u32,
}

impl Handler for Resumer {
    type Data = ();

    fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        Upgrade::accept(())
    }

    fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
        match event {
            Event::Message { id, message, .. } => {
                self.messages += 1;
                clients.send(id, message).expect("there is room");
                clients.pause(id);
            }
            Event::Drain { id } => {
                self.drains += 1;
                clients.resume(id);
            }
            _ => {}
        }
    }
}

/// A loop that is polled by hand, with a connection that takes no messages since it is not made yet.
fn idle_loop(config: Config) -> (Server, Handle, ConnectionId) {
    let mut server = Server::outgoing(config).expect("a poll");
    let request = ConnectRequest::new("ws://127.0.0.1:1/").expect("a URL");
    let id = server.connect(request, ()).expect("room");
    let handle = server.handle();
    (server, handle, id)
}

/// Serves until the shutdown that was asked for is complete.
fn run(server: &mut Server) {
    server.run(|_, _| {}).expect("the poll works");
}

#[test]
fn a_handle_said_ok_after_run_had_returned() {
    let (mut server, handle, id) = idle_loop(Config::default());
    handle.shutdown(ShutdownPlan::hard()).expect("it has room");
    run(&mut server);
    assert_eq!(handle.send(id, "hello"), Err(HandleError::Stopped));
    assert_eq!(handle.close(id, CloseFrame::NORMAL), Err(HandleError::Stopped));
    assert_eq!(handle.terminate(id), Err(HandleError::Stopped));
    assert_eq!(handle.defer(|_| {}), Err(HandleError::Stopped));
    assert_eq!(handle.shutdown(ShutdownPlan::hard()), Err(HandleError::Stopped));
    assert_eq!(server.handle().escalate(), Err(HandleError::Stopped));
    drop(server);
    assert_eq!(handle.abort(), Err(HandleError::Stopped));
}

/// What was accepted before the end is executed, also if it came behind the command that ended it.
#[test]
fn a_command_that_was_accepted_is_executed_before_run_returns() {
    let (mut server, handle, _) = idle_loop(Config::default());
    let ran = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let there = std::sync::Arc::clone(&ran);
    handle.shutdown(ShutdownPlan::hard()).expect("it has room");
    handle
        .defer(move |_| there.store(true, std::sync::atomic::Ordering::Release))
        .expect("the server has not stopped");
    run(&mut server);
    assert!(ran.load(std::sync::atomic::Ordering::Acquire));
}

#[test]
fn the_queue_of_a_handle_had_no_bound() {
    let mut config = Config::default();
    config.event_loop.max_handle_queue = 10_000;
    let (mut server, handle, id) = idle_loop(config);
    let message = [0; 1000];
    let queued = (0..20).take_while(|_| handle.send(id, &message).is_ok()).count();
    assert!((5..10).contains(&queued), "{queued} of 1,000 bytes and a little more");
    assert_eq!(handle.send(id, &message), Err(HandleError::Full));
    server.poll_with(Some(Duration::ZERO), &mut Actor::default()).expect("the poll works");
    assert_eq!(handle.send(id, &message), Ok(()), "there is room again");
    while handle.send(id, "").is_ok() {}
    handle.shutdown(ShutdownPlan::hard()).expect("a shutdown always has room");
    run(&mut server);
}

/// Whatever each of them did, a turn executed 1,024 of them, and `turn_callbacks` was no bound for that.
#[test]
fn commands_of_handles_had_a_bound_that_could_not_be_set() {
    let mut config = Config::default();
    config.event_loop.turn_callbacks = 3;
    let mut server = Server::outgoing(config).expect("a poll");
    let ran = Arc::new(AtomicUsize::new(0));
    for _ in 0..10 {
        let ran = Arc::clone(&ran);
        let count = move |_: &mut Clients<'_, ()>| {
            ran.fetch_add(1, Ordering::Relaxed);
        };
        server.handle().defer(count).expect("it has room");
    }
    let turns = [(); 5].map(|()| {
        server.poll(Some(Duration::ZERO), |_, _| {}).expect("the poll works");
        ran.swap(0, Ordering::Relaxed)
    });
    assert_eq!(turns, [3, 3, 3, 1, 0]);
}

/// A session took a timer of its handler that is set anew each time for something that keeps the connection from ending, and four hours
/// of it for a time that does not pass.
#[test]
fn a_session_ends_although_its_handler_keeps_a_timer() {
    let second = Duration::from_secs(1);
    let handler = accept_all::<u64>(move |clients, event| {
        if let Event::Open { .. } | Event::Timer { .. } = event {
            clients.set_loop_timer(second, 0);
        }
    });
    let mut config = Config::default();
    config.connection.heartbeat.interval = None;
    let mut session = Session::open(config, handler);
    session.advance(Duration::from_hours(4));
    session.end();
    assert!(session.is_gone());
}

#[test]
fn a_message_of_a_handle_was_dropped_without_being_counted() {
    let (mut server, handle, id) = idle_loop(Config::default());
    handle.send(id, "hello").expect("it has room");
    server.poll_with(Some(Duration::ZERO), &mut Actor::default()).expect("the poll works");
    assert_eq!(server.clients().stats().unsent, 1);
}

/// `listen` after a shutdown said `Ok`, and the listener was closed without a word.
#[test]
fn a_listener_was_opened_after_a_shutdown() {
    let mut server: Server<()> = Server::bind("127.0.0.1:0", Config::default()).expect("a port is free");
    server.clients().shutdown(ShutdownPlan::hard());
    server.run(|_, _| {}).expect("the poll works");
    let listening = server.listen("127.0.0.1:0");
    assert!(matches!(listening, Err(adjourn::error::BindError::ShuttingDown)), "{listening:?}");
}

#[test]
fn after_an_overflow_of_less_than_16_kib_no_drain_came() {
    let mut config = Config::default();
    config.connection.max_backlog = 100;
    let (mut session, id) = session(config, usize::MAX);
    session.act(|clients, _| {
        clients.send(id, "a".repeat(60)).expect("there is room");
        assert!(matches!(clients.send(id, "b".repeat(60)), Err(SendError::Overflow { .. })));
    });
    assert_eq!(session.handler().drains, 1);
    session.act(|clients, _| {
        assert_eq!(clients.broadcast("c".repeat(60), |_| true).sent, 1);
        assert_eq!(clients.broadcast("d".repeat(60), |_| true).refused, 1);
    });
    assert_eq!(session.handler().drains, 2, "a refused broadcast is an overflow, too");
}

#[test]
fn whoever_saw_bytes_queued_below_16_kib_waited_for_a_drain_for_ever() {
    let (mut session, id) = session(Config::default(), usize::MAX);
    session.act(|clients, _| {
        clients.send(id, "hello").expect("there is room");
        assert!(clients.get(id).is_some_and(|client| client.buffered_amount() > 0));
    });
    assert_eq!(session.handler().drains, 1);
    session.act(|clients, _| {
        assert!(clients.get(id).is_some_and(|client| client.buffered_amount() == 0));
        clients.send(id, "hello").expect("there is room");
    });
    assert_eq!(session.handler().drains, 1, "nobody has asked since");
}

#[test]
fn no_drain_came_while_the_peers_close_waited_for_the_applications_answer() {
    let mut config = Config::default();
    config.connection.answer = CloseAnswer::Manual;
    let (mut session, id) = session(config, 3);
    send(&mut session, id, &["0123456789"]);
    session.read(&frame(CLOSE, CODE_1000));
    session.make_room(usize::MAX);
    assert_eq!(session.handler().drains, 1);
    session.act(|clients, _| assert!(clients.answer_close(id, CloseFrame::NORMAL)));
    assert_eq!(session.handler().drains, 1, "nothing can be sent any more");
    assert!(session.handler().closed.clone().expect("it has ended").was_clean());
}

#[test]
fn the_answer_to_a_close_left_its_reason_out() {
    let (mut session, _) = session(Config::default(), usize::MAX);
    session.take_written();
    session.read(&frame(CLOSE, b"\x0f\xa0see you"));
    assert_eq!(session.take_written(), b"\x88\x09\x0f\xa0see you");
}

#[test]
fn a_close_that_was_held_behind_a_pause_was_ignored_when_the_socket_failed() {
    let (mut session, id) = session(Config::default(), usize::MAX);
    session.act(|clients, _| assert!(clients.pause(id)));
    session.read(&[frame(TEXT, b"unheard"), frame(CLOSE, CODE_1000)].concat());
    session.socket().error = Some(ErrorKind::BrokenPipe);
    send(&mut session, id, &["hello"]);
    let closed = session.handler().closed.clone().expect("it has ended");
    assert_eq!((closed.code(), closed.initiator), (1000, Initiator::Remote));
    assert_eq!((closed.cause, closed.was_clean()), (Cause::PeerResetDuringClose, false));
    assert_eq!((closed.lost.inbound_messages, closed.lost.inbound_bytes), (1, 7));
}

/// Reading is paused, `held` was read all the same, and the peer has left.
fn left_while_paused(held: &[u8]) -> (Session<Actor>, ConnectionId) {
    let mut config = Config::default();
    config.connection.close_timeout = Duration::from_secs(4);
    let (mut session, id) = session(config, usize::MAX);
    session.act(|clients, _| assert!(clients.pause(id)));
    session.read(held);
    session.read_eof();
    assert!(session.handler().closed.is_none(), "the application may still resume");
    session.advance(Duration::from_millis(3990));
    assert!(session.handler().closed.is_none(), "the application may still resume");
    (session, id)
}

#[test]
fn a_peer_that_left_a_paused_connection_kept_it_for_ever() {
    let (mut session, _) = left_while_paused(&frame(TEXT, b"unheard"));
    session.advance(Duration::from_millis(60));
    let closed = session.handler().closed.clone().expect("it has ended");
    assert_eq!((closed.code(), closed.cause, closed.initiator), (1006, Cause::PeerFin, Initiator::Transport));
    assert_eq!((closed.lost.inbound_messages, closed.lost.inbound_bytes), (1, 7));
}

#[test]
fn a_close_on_a_paused_connection_is_answered_at_last() {
    let (mut session, _) = left_while_paused(&[frame(TEXT, b"unheard"), frame(CLOSE, CODE_1000)].concat());
    session.take_written();
    session.advance(Duration::from_millis(60));
    assert_eq!(session.take_written(), b"\x88\x02\x03\xe8");
    let closed = session.handler().closed.clone().expect("it has ended");
    assert!(closed.was_clean() && closed.code() == 1000 && closed.lost.inbound_messages == 1, "{closed:?}");
}

#[test]
fn who_resumes_in_time_gets_what_a_peer_sent_before_it_left() {
    let (mut session, id) = left_while_paused(&frame(TEXT, b"close"));
    session.act(|clients, _| assert!(clients.resume(id)));
    session.read_eof();
    let closed = session.handler().closed.clone().expect("it has ended");
    assert_eq!(closed.sent, Some(CloseFrame::NORMAL), "the message was delivered");
}

#[test]
fn a_pause_without_end_is_ended_by_pause_timeout() {
    let mut config = Config::default();
    (config.connection.pause_timeout, config.connection.close_timeout) =
        (Some(Duration::from_mins(1)), Duration::from_secs(4));
    let (mut session, id) = session(config, usize::MAX);
    session.act(|clients, _| assert!(clients.pause(id)));
    session.read(&frame(TEXT, b"unheard"));
    session.advance(Duration::from_millis(63_900));
    session.read(&frame(TEXT, b"unheard"));
    session.advance(Duration::from_millis(200));
    session.read(&[frame(TEXT, b"unheard"), frame(PING, b"?")].concat());
    assert!(session.take_written().ends_with(b"\x8a\x01?"), "it is read from again");
    session.act(|clients, _| assert!(!clients.resume(id), "too late"));
    session.read(&frame(CLOSE, CODE_1000));
    let closed = session.handler().closed.clone().expect("it has ended");
    assert!(closed.was_clean() && closed.lost.inbound_messages == 3, "{closed:?}");
}

#[test]
fn a_resume_made_a_silent_peer_look_as_if_it_had_just_spoken() {
    let (mut session, id) = session(Config::default(), usize::MAX);
    let idle = |session: &mut Session<Actor>| {
        let mut idle = None;
        session.act(|clients, _| idle = clients.get(id).map(|client| client.idle_for()));
        idle.expect("it is open")
    };
    session.act(|clients, _| assert!(clients.pause(id)));
    session.advance(Duration::from_secs(50));
    session.act(|clients, _| assert!(clients.resume(id)));
    assert_eq!(idle(&mut session), Duration::from_secs(50));
    session.take_written();
    // But silence that we imposed is not held against the peer.
    session.advance(Duration::from_millis(29_900));
    assert_eq!(session.take_written(), b"");
    session.advance(Duration::from_millis(200));
    assert_eq!(session.take_written(), [PING, 0]);
}

/// A server whose one connection is paused, and its client.
fn paused(config: Config) -> (Echo, std::net::TcpStream) {
    let server = Echo::start(config);
    let client = server.open();
    wait_until("it is open", || server.stats().open == 1);
    let paused = server.ask(|clients| {
        let id = clients.iter().next().map(|client| client.id());
        id.is_some_and(|id| clients.pause(id))
    });
    assert!(paused);
    (server, client)
}

#[test]
fn a_reset_of_a_paused_connection_was_never_seen() {
    let (server, client) = paused(Config::default());
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("a socket");
    drop(client);
    wait_until("it has ended", || !server.closed.lock().expect("not poisoned").is_empty());
    let cause = server.closed.lock().expect("not poisoned")[0].cause;
    assert_eq!(cause, Cause::PeerReset);
    server.shut_down(ShutdownPlan::hard());
}

#[test]
fn a_fin_on_a_paused_connection_was_never_seen() {
    let mut config = Config::default();
    config.connection.close_timeout = Duration::from_millis(100);
    let (server, mut client) = paused(config);
    client.write_all(&frame(TEXT, b"unheard")).expect("it is open");
    drop(client);
    wait_until("it has ended", || !server.closed.lock().expect("not poisoned").is_empty());
    let closed = server.closed.lock().expect("not poisoned")[0].clone();
    assert_eq!((closed.cause, closed.lost.inbound_messages), (Cause::PeerFin, 1));
    server.shut_down(ShutdownPlan::hard());
}

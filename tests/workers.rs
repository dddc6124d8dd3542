//! Several loops, and several servers, in one process.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Command,
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use adjourn::{
    Clients, CloseFrame, Config, ConnectionId, Event, Handle, Handler, Server, ShutdownPlan, Workers,
    WorkersHandle,
    error::HandleError,
    http::{ConnectRequest, Upgrade, UpgradeRequest},
    shutdown::{ListenerInShutdown, Pace, ShutdownPhase, ShutdownReport},
};
use testkit::net::{Echo, REQUEST, wait_until};

struct AcceptAll;

impl Handler for AcceptAll {
    type Data = ();

    fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        Upgrade::accept(())
    }

    fn on_event(&mut self, _: &mut Clients<'_, ()>, _: Event<'_>) {}
}

struct Running {
    address: SocketAddr,
    loops: WorkersHandle<()>,
    thread: JoinHandle<ShutdownReport>,
}

impl Running {
    fn start(count: u8) -> Self {
        Self::start_with(count, |_| AcceptAll)
    }

    /// Each loop with a handler of its own, made of its handle.
    fn start_with<H: Handler<Data = ()>>(
        count: u8,
        make: impl Fn(Handle) -> H + Send + Sync + 'static,
    ) -> Self {
        let workers = Workers::bind("127.0.0.1:0", count, Config::default()).expect("a port is free");
        let (address, loops) = (workers.local_addr().expect("it listens"), workers.handle());
        let handles = loops.clone();
        let make = move |place| make(handles.iter().nth(place).expect("it is one of them").clone());
        let thread = std::thread::spawn(move || {
            workers.run_with(|place| make(usize::from(place))).expect("the polls work")
        });
        Self { address, loops, thread }
    }

    fn open(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).expect("the server listens");
        stream.write_all(REQUEST).expect("the server reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("the server answers");
            head.push(byte[0]);
        }
        stream
    }

    /// The connections of each loop.
    fn ids(&self) -> Vec<Vec<ConnectionId>> {
        let of_loop = |handle: &adjourn::Handle| {
            let (sender, receiver) = mpsc::channel();
            let list = move |clients: &mut Clients<'_, ()>| {
                let ids: Vec<_> = clients.iter().map(|client| client.id()).collect();
                sender.send(ids).expect("the test waits");
            };
            handle.defer(list).expect("the loop runs");
            receiver.recv_timeout(Duration::from_secs(10)).expect("the loop turns")
        };
        self.loops.iter().map(of_loop).collect()
    }

    /// Opens connections until `count` of them are on one loop, the first of those with `is_meant`, and ends all others.
    fn open_on_one(&self, count: usize, is_meant: impl Fn(usize) -> bool) -> (usize, Vec<TcpStream>) {
        let mut streams = Vec::new();
        loop {
            streams.push(self.open());
            let ids = self.ids();
            let found = ids.iter().enumerate().find(|(place, ids)| is_meant(*place) && ids.len() >= count);
            let Some((chosen, _)) = found else { continue };
            for (place, ids) in ids.iter().enumerate() {
                let rest =
                    if place == chosen { ids.get(count..).unwrap_or_default() } else { ids.as_slice() };
                for id in rest {
                    self.loops.of(*id).expect("it is one of ours").terminate(*id).expect("the loop runs");
                }
            }
            wait_until("the others are gone", || self.ids().iter().map(Vec::len).sum::<usize>() == count);
            return (chosen, streams);
        }
    }
}

#[test]
fn a_rate_was_shared_by_the_loops_whatever_each_of_them_held() {
    let running = Running::start(4);
    let (_, streams) = running.open_on_one(10, |_| true);
    let mut plan = ShutdownPlan::hard();
    plan.pace = Pace::Rate(20.0);
    running.loops.shutdown(plan).expect("the loops run");
    let report = running.thread.join().expect("no callback panics");
    assert_eq!(report.live_at_start, 10);
    let sweep =
        report.phases.iter().find(|timing| timing.phase == ShutdownPhase::SoftSweep).expect("it was swept");
    // By live / rate half a second. Divided by four, whatever each has, the rate would take 1.8 s.
    assert!(sweep.length < Duration::from_millis(1500), "{:?}", sweep.length);
    drop(streams);
}

#[test]
fn what_is_deferred_to_all_loops_stopped_at_the_first_that_had_stopped() {
    let running = Running::start(2);
    let (_, streams) = running.open_on_one(1, |place| place == 1);
    running.loops.shutdown(ShutdownPlan::soft(Duration::from_mins(1))).expect("the loops run");
    // The other one waits for its peer's answer.
    let first = running.loops.iter().next().expect("there are two");
    wait_until("the first loop is done", || first.defer(|_| ()).is_err());
    let (sender, receiver) = mpsc::channel();
    let reached = running.loops.defer(move |_| {
        let _ = sender.send(());
    });
    assert_eq!(reached, Ok(()));
    receiver.recv_timeout(Duration::from_secs(10)).expect("the second loop turns");
    running.loops.abort().expect("one loop runs");
    running.thread.join().expect("no callback panics");
    assert!(running.loops.defer(|_| ()).is_err(), "none is left");
    drop(streams);
}

/// With room in no queue the error was `Stopped`, and with room in some `Ok`: the others went without.
#[test]
fn a_queue_without_room_was_a_loop_that_has_stopped_or_nothing_at_all() {
    let mut config = Config::default();
    config.event_loop.max_handle_queue = 1024;
    let workers = Workers::<()>::bind("127.0.0.1:0", 2, config).expect("a port is free");
    let loops = workers.handle();
    assert_eq!(loops.broadcast(&[0; 2000], |_| true), Err(HandleError::Full));
    let second = loops.iter().nth(1).expect("there are two");
    while second.defer(|_| ()).is_ok() {}
    assert_eq!(loops.defer(|_| ()), Err(HandleError::Full), "the first has room");
    drop(workers);
    assert_eq!(loops.defer(|_| ()), Err(HandleError::Stopped));
}

/// Gives its loop a last command.
struct AbortsWhenDone(Handle);

impl Handler for AbortsWhenDone {
    type Data = ();

    fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        Upgrade::accept(())
    }

    fn on_event(&mut self, _: &mut Clients<'_, ()>, event: Event<'_>) {
        if let Event::Phase { phase: ShutdownPhase::Done, .. } = event {
            self.0.abort().expect("it has not stopped");
        }
    }
}

/// A loop executed what came in its last turn, but did not pass it on.
#[test]
fn an_abort_in_the_last_turn_of_a_loop_did_not_reach_the_others() {
    let running = Running::start_with(2, AbortsWhenDone);
    let (_, streams) = running.open_on_one(1, |place| place == 0);
    running.loops.shutdown(ShutdownPlan::soft(Duration::from_mins(1))).expect("the loops run");
    // The second loop is done at once; the peer of the first one does not answer.
    let report = running.thread.join().expect("no callback panics");
    assert_eq!((report.terminated, report.timed_out), (1, 0));
    drop(streams);
}

#[test]
fn two_servers_of_a_process_gave_out_equal_ids() {
    let (one, other, several) =
        (Echo::start(Config::default()), Echo::start(Config::default()), Running::start(3));
    let (_one, _other, _third) = (one.open(), other.open(), several.open());
    let ids = |clients: &mut Clients<'_, ()>| clients.iter().map(|client| client.id()).collect::<Vec<_>>();
    let (of_one, of_other) = (one.ask(ids)[0], other.ask(ids)[0]);
    let of_several = several.ids().concat()[0];
    assert!(of_one != of_other && of_other != of_several && of_one != of_several);
    assert!(!other.ask(move |clients| clients.close(of_one, CloseFrame::NORMAL)), "it is not its own");
    assert!(several.loops.of(of_one).is_none() && several.loops.of(of_several).is_some());
    assert!(one.ask(move |clients| clients.close(of_one, CloseFrame::NORMAL)));
    several.loops.shutdown(ShutdownPlan::hard()).expect("the loops run");
    several.thread.join().expect("no callback panics");
}

#[test]
fn a_server_obeyed_the_ids_of_one_that_was_dropped() {
    let mut seen = Vec::new();
    for _ in 0..20 {
        let server = Echo::start(Config::default());
        let _stream = server.open();
        let id = server.ask(|clients| clients.iter().map(|client| client.id()).next()).expect("it is open");
        assert!(!seen.contains(&id), "{id}");
        seen.push(id);
        server.shut_down(ShutdownPlan::hard());
    }
}

#[test]
fn a_thread_that_was_denied_left_the_other_loops_running() {
    const GIB: u64 = 1 << 30;
    if std::env::var_os("ADJOURN_CHILD").is_none() {
        let name = "a_thread_that_was_denied_left_the_other_loops_running";
        let mut child = Command::new(std::env::current_exe().expect("it runs"));
        child.args(["--exact", name, "--test-threads=1", "--nocapture"]);
        // There is room for one more stack of this size, and not for two.
        child.env("ADJOURN_CHILD", "1").env("RUST_MIN_STACK", GIB.to_string());
        let mut child = child.spawn().expect("a process can be started");
        let deadline = Instant::now() + Duration::from_secs(20);
        while child.try_wait().expect("it is our child").is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let status = child.wait().expect("it is our child");
        return assert!(status.success(), "{status}");
    }
    let workers = Workers::bind("127.0.0.1:0", 3, Config::default()).expect("a port is free");
    let (address, loops) = (workers.local_addr().expect("it listens"), workers.handle());
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = pages.split(' ').next().and_then(|size| size.parse().ok()).expect("a number of pages");
    let limit = rustix::process::Rlimit { current: Some(pages * 4096 + GIB * 3 / 2), maximum: None };
    rustix::process::setrlimit(rustix::process::Resource::As, limit).expect("it is a lower limit");
    let result = workers.run_with(|_| AcceptAll);
    assert!(result.is_err(), "{result:?}");
    assert!(TcpStream::connect(address).is_err(), "nobody listens");
    assert!(loops.shutdown(ShutdownPlan::hard()).is_err(), "no loop is left");
}

#[test]
fn a_server_that_was_never_run_gives_its_number_back() {
    // As many as there may be in a process, several times over.
    for _ in 0..1000 {
        drop(Server::<()>::outgoing(Config::default()).expect("a number is free"));
    }
}

#[test]
fn a_panic_of_a_predicate_that_was_caught_leaves_a_server_that_serves() {
    let mut server = Server::<()>::bind("127.0.0.1:0", Config::default()).expect("a port is free");
    let address = server.local_addr().expect("it listens");
    let client = std::thread::spawn(move || {
        let mut streams: Vec<_> = (0..3).map(|_| TcpStream::connect(address).expect("it listens")).collect();
        for stream in &mut streams {
            stream.write_all(REQUEST).expect("the server reads");
        }
        for stream in &mut streams {
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    let mut handler = AcceptAll;
    while server.clients().len() < 3 {
        assert!(server.poll_with(None, &mut handler).expect("the poll works").is_none());
    }
    let mut clients = server.clients();
    clients.close_where(CloseFrame::NORMAL, Pace::AtOnce, |_| panic!("this is what the test wants"));
    clients.shutdown(ShutdownPlan::soft(Duration::from_millis(100)));
    let mut panics = 0;
    let report = loop {
        let turn = std::panic::AssertUnwindSafe(|| server.poll_with(None, &mut handler));
        match std::panic::catch_unwind(turn) {
            Err(_) => panics += 1,
            Ok(done) => {
                if let Some(report) = done.expect("the poll works") {
                    break report;
                }
            }
        }
    };
    assert!(panics <= 3, "each connection is asked about once");
    assert_eq!((report.live_at_start, report.ended()), (3, 3));
    client.join().expect("its end is orderly");
}

#[test]
fn a_listener_that_stays_in_a_shutdown_refuses_upgrades_until_the_end() {
    let server = Echo::start(Config::default());
    let _mute = server.open();
    let mut plan = ShutdownPlan::soft(Duration::from_mins(1));
    plan.listener_in_shutdown = ListenerInShutdown::PlainHttp;
    server.handle.shutdown(plan).expect("the server runs");
    wait_until("everyone was closed", || server.ask(|clients| clients.phase()) == ShutdownPhase::Grace);
    let mut late = server.connect();
    late.write_all(REQUEST).expect("the server reads");
    let mut answer = [0; 13];
    late.read_exact(&mut answer).expect("the server answers");
    assert_eq!(&answer, b"HTTP/1.1 503 ");
    let (address, silent) = (server.address, server.connect());
    let report = server.shut_down(ShutdownPlan::hard());
    assert_eq!((report.refused_503, report.terminated), (1, 1));
    assert!(TcpStream::connect(address).is_err(), "nobody listens");
    drop(silent);
}

/// The calls of a server and of several loops have the same shape.
#[test]
fn a_closure_serves_all_loops() {
    let workers = Workers::bind("127.0.0.1:0", 2, Config::default()).expect("a port is free");
    let (address, loops) = (workers.local_addr().expect("it listens"), workers.handle());
    let thread = std::thread::spawn(move || {
        workers.run(|clients, event| {
            if let Event::Message { id, message, .. } = event {
                clients.send(id, message).expect("room");
            }
        })
    });
    let mut streams: Vec<_> = (0..4).map(|_| TcpStream::connect(address).expect("it listens")).collect();
    for stream in &mut streams {
        stream
            .write_all(&[REQUEST, &adjourn::testing::frame(0x81, b"hello")].concat())
            .expect("the server reads");
        let mut received = Vec::new();
        while !received.ends_with(b"\x81\x05hello") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("the server answers");
            received.push(byte[0]);
        }
    }
    let mut other = Server::outgoing(Config::default()).expect("a loop");
    let request = ConnectRequest::new("ws://127.0.0.1:9/").expect("a URL");
    let foreign = other.connect(request, ()).expect("room");
    assert_eq!(loops.send(foreign, "x"), Err(HandleError::UnknownLoop));
    loops.broadcast("news", |_| true).expect("they run");
    for stream in &mut streams {
        let mut frame = [0; 6];
        stream.read_exact(&mut frame).expect("it arrives");
        assert_eq!(&frame, b"\x81\x04news");
    }
    let open: usize = loops
        .iter()
        .map(|handle| {
            handle.ask(|clients| clients.stats().open).expect("it runs").recv().expect("it answers")
        })
        .sum();
    assert_eq!(open, 4);
    loops.shutdown(ShutdownPlan::hard()).expect("they run");
    let report = thread.join().expect("no panic").expect("the polls work");
    assert_eq!((report.live_at_start, report.ended()), (4, 4));
    assert!(loops.broadcast("late", |_| true).is_err());
}

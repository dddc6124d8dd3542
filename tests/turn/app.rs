//! What the tests of the turn share: an application, and turns over [`Memory`].

use std::{net::SocketAddr, time::Duration};

use adjourn::{
    Clients, CloseReport, Config, ConnectionId, Event, Handler,
    http::{Upgrade, UpgradeRequest},
    hub::{Driver, Readiness},
    testing::{Clock, Memory, REQUEST},
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const READABLE: Readiness = Readiness { readable: true, writable: false, ended: false };
pub(crate) const WRITABLE: Readiness = Readiness { readable: false, writable: true, ended: false };
/// What a connection may write in a turn by default.
pub(crate) const SHARE: usize = (1 << 20) + (64 << 10);

/// Calls `act` at each event, and records the names of the events and the reports of the ends.
pub(crate) struct App<F> {
    act: F,
    /// Every upgrade waits for an answer.
    pub(crate) defers: bool,
    pub(crate) closed: Vec<CloseReport>,
    pub(crate) events: Vec<String>,
}

impl<F: FnMut(&mut Clients<'_, ()>, &Event<'_>)> App<F> {
    pub(crate) fn new(act: F) -> Self {
        Self { act, defers: false, closed: Vec::new(), events: Vec::new() }
    }

    pub(crate) fn count(&self, what: &str) -> usize {
        self.events.iter().filter(|event| *event == what).count()
    }
}

impl<F: FnMut(&mut Clients<'_, ()>, &Event<'_>)> Handler for App<F> {
    type Data = ();

    fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        if self.defers { Upgrade::Defer } else { Upgrade::accept(()) }
    }

    fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
        let text = format!("{event:?}");
        self.events.push(text.split([' ', '{']).next().unwrap_or_default().to_owned());
        (self.act)(clients, &event);
        if let Event::Close { report: closed, .. } = event {
            self.closed.push(*closed);
        }
    }
}

pub(crate) fn nothing() -> App<impl FnMut(&mut Clients<'_, ()>, &Event<'_>)> {
    App::new(|_: &mut Clients<'_, ()>, _: &Event<'_>| {})
}

pub(crate) fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    change(&mut config);
    config
}

pub(crate) fn address() -> SocketAddr {
    ([127, 0, 0, 1], 40_000).into()
}

pub(crate) fn turn<H: Handler<Data = ()>>(
    driver: &mut Driver<(), Memory>,
    handler: &mut H,
    ready: &[(usize, Readiness)],
) {
    driver.begin_turn(handler);
    for (slot, readiness) in ready {
        driver.ready(*slot, *readiness, handler);
    }
    driver.end_turn(handler);
}

pub(crate) fn rest<H: Handler<Data = ()>>(driver: &mut Driver<(), Memory>, handler: &mut H) {
    for _ in 0..100 {
        if !driver.has_more() {
            return;
        }
        turn(driver, handler, &[]);
    }
}

/// A loop with `n` open connections, on `clock`.
pub(crate) fn open_at<H: Handler<Data = ()>>(
    config: Config,
    n: usize,
    handler: &mut H,
    clock: &Clock,
) -> Driver<(), Memory> {
    let mut driver = Driver::new(config, 0, 1, Memory::new(clock));
    for already in 0..n {
        let slot = driver.accept(address()).expect("room");
        driver.transport().socket(slot).input = REQUEST.to_vec();
        turn(&mut driver, handler, &[(slot, READABLE)]);
        for _ in 0..100 {
            if driver.stats().open > already {
                break;
            }
            turn(&mut driver, handler, &[]);
        }
    }
    assert_eq!(driver.stats().open, n);
    driver
}

pub(crate) fn open<H: Handler<Data = ()>>(config: Config, n: usize, handler: &mut H) -> Driver<(), Memory> {
    open_at(config, n, handler, &Clock::default())
}

pub(crate) fn id_of(driver: &mut Driver<(), Memory>, slot: usize) -> ConnectionId {
    driver.clients().iter().find(|client| client.id().slot() == slot).expect("open").id()
}

pub(crate) fn unread(driver: &mut Driver<(), Memory>) -> usize {
    driver.transport().sockets.iter().map(|socket| socket.input.len()).sum()
}

pub(crate) fn written(driver: &mut Driver<(), Memory>) -> usize {
    driver.transport().sockets.iter().map(|socket| socket.written.len()).sum()
}

pub(crate) fn text_of(event: &Event<'_>) -> Vec<u8> {
    match event {
        Event::Message { message, .. } => message.as_bytes().to_vec(),
        _ => Vec::new(),
    }
}

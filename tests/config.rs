//! Settings: what cannot work is refused before anything listens, and a connection's own settings hold to its end.

use std::time::Duration;

use adjourn::{
    Clients, Config, Event, Handler, Server, Workers,
    config::{ConnectionConfig, SharedConfig},
    error::BindError,
    http::{Accept, Upgrade, UpgradeRequest},
    testing::{Session, frame},
};

#[test]
fn a_server_says_which_setting_cannot_work() {
    let mut config = Config::default();
    config.event_loop.reads_per_turn = 0;
    let expected = "event_loop.reads_per_turn is 0, but has to be from 1 to 255";
    let refusal = Server::<()>::bind("127.0.0.1:0", config.clone()).map(drop).expect_err(expected);
    assert_eq!(refusal.to_string(), expected);
    let refusal = Server::<()>::outgoing(config.clone()).map(drop).expect_err(expected);
    assert_eq!(refusal.to_string(), expected);
    let refusal = Workers::<()>::bind("127.0.0.1:0", 2, config.clone()).map(drop).expect_err(expected);
    assert_eq!(refusal.to_string(), expected);
    let refusal = Workers::<()>::bind("127.0.0.1:0", 0, Config::default()).map(drop).expect_err("no loop");
    assert!(matches!(refusal, BindError::Config(_)), "{refusal:?}");
    assert_eq!(refusal.to_string(), "count of Workers::bind is 0, but has to be from 1 to 255");
}

/// Accepts with settings of its own for paths that begin with `/own`.
struct Chooser(SharedConfig);

impl Handler for Chooser {
    type Data = ();

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        if request.path().starts_with("/own") {
            Upgrade::Accept(Accept::new(()).config(self.0.clone()))
        } else {
            Upgrade::accept(())
        }
    }

    fn on_event(&mut self, _: &mut Clients<'_, ()>, _: Event<'_>) {}
}

fn open(path: &str, change: impl FnOnce(&mut ConnectionConfig)) -> Session<Chooser> {
    let mut own = ConnectionConfig::default();
    change(&mut own);
    let mut session = Session::new(Config::default(), Chooser(own.share().expect("valid settings")));
    let request = adjourn::testing::REQUEST.strip_prefix(b"GET /").expect("its beginning");
    session.read(&[b"GET ", path.as_bytes(), request].concat());
    session.take_written();
    session
}

const CLOSE: u8 = 0x88;
const TEXT: u8 = 0x81;

/// When a connection lingers its buffers and its data are given back; its settings still say for how long.
#[test]
fn its_own_linger_timeout_and_linger_bytes_hold_after_its_end_is_reported() {
    for (path, after) in [("/own", 0), ("/others", 1)] {
        let mut session = open(path, |own| own.linger_timeout = Duration::from_millis(100));
        session.read(&frame(CLOSE, &1000_u16.to_be_bytes()));
        assert_eq!(session.stats().lingering, 1, "{path}");
        session.advance(Duration::from_millis(160));
        assert_eq!(session.stats().lingering, after, "{path}");

        let mut session = open(path, |own| own.linger_bytes = 10);
        session.read(&frame(CLOSE, &1000_u16.to_be_bytes()));
        session.read(&[0; 11]);
        assert_eq!(session.stats().lingering, after, "{path}");
    }
}

#[test]
fn its_own_limits_hold_from_its_first_frame_on() {
    for (path, expected) in [("/own", &b"\x88\x11\x03\xf1message too big"[..]), ("/others", &[])] {
        let mut session = open(path, |own| own.max_payload = 3);
        session.read(&frame(TEXT, b"four"));
        assert_eq!(session.take_written(), expected, "{path}");
        let mut session = open(path, |own| own.max_fragments = 1);
        session.read(&[frame(0x01, b"a"), frame(0x00, b"b"), frame(0x80, b"c")].concat());
        assert_eq!(session.take_written(), expected, "{path}");
    }
}

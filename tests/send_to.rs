//! Messages to a list of connections: all of them for each, or none.

use std::net::SocketAddr;

use adjourn::{
    Clients, CloseFrame, Config, ConnectionId, Event, Handler, Message, SendError,
    clients::SentTo,
    config::{ConnectionConfig, OnOverflow, SharedConfig},
    http::{Accept, Upgrade, UpgradeRequest},
    hub::{Driver, Readiness},
    testing::{Memory, REQUEST},
};
use proptest::prelude::*;

/// Keeps who opened and for whom there was a `Drain`.
#[derive(Default)]
struct App {
    open: Vec<ConnectionId>,
    drained: Vec<ConnectionId>,
    ended: Vec<String>,
    own: Option<SharedConfig>,
}

impl Handler for App {
    type Data = ();

    fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        let accept = Accept::new(());
        Upgrade::Accept(match &self.own {
            Some(own) => accept.config(own.clone()),
            None => accept,
        })
    }

    fn on_event(&mut self, _: &mut Clients<'_, ()>, event: Event<'_>) {
        match event {
            Event::Open { id } => self.open.push(id),
            Event::Drain { id } => self.drained.push(id),
            Event::Close { report, .. } => self.ended.push(report.cause.name().to_owned()),
            _ => {}
        }
    }
}

struct Room {
    driver: Driver<(), Memory>,
    app: App,
}

impl Room {
    fn new(config: Config) -> Self {
        Self { driver: Driver::new(config, 0, 1, Memory::default()), app: App::default() }
    }

    /// So many open connections, whose kernels take everything.
    fn of(members: usize) -> Self {
        let mut room = Self::new(Config::default());
        (0..members).for_each(|_| room.join());
        room
    }

    fn join(&mut self) {
        let peer: SocketAddr = ([127, 0, 0, 1], 40_000).into();
        let slot = self.driver.accept(peer).expect("there is room");
        self.driver.transport().socket(slot).input.extend_from_slice(REQUEST);
        self.driver.begin_turn(&mut self.app);
        self.driver.ready(slot, Readiness { readable: true, ..Readiness::default() }, &mut self.app);
        self.rest();
        self.written(slot);
    }

    fn act<T>(&mut self, act: impl FnOnce(&mut Clients<'_, ()>) -> T) -> T {
        let result = self.driver.act(&mut self.app, |clients, _| act(clients));
        self.driver.begin_turn(&mut self.app);
        self.rest();
        result
    }

    fn rest(&mut self) {
        self.driver.end_turn(&mut self.app);
        while self.driver.has_more() {
            self.driver.begin_turn(&mut self.app);
            self.driver.end_turn(&mut self.app);
        }
    }

    fn set_room(&mut self, slot: usize, room: usize) {
        self.driver.transport().socket(slot).room = room;
        self.driver.begin_turn(&mut self.app);
        self.driver.ready(slot, Readiness { writable: true, ..Readiness::default() }, &mut self.app);
        self.rest();
    }

    fn written(&mut self, slot: usize) -> Vec<u8> {
        std::mem::take(&mut self.driver.transport().socket(slot).written)
    }
}

fn framed(payloads: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for payload in payloads {
        out.push(0x82);
        match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
            (Ok(length @ 0..126), _) => out.push(length),
            (_, Ok(length)) => out.extend([&[126], &length.to_be_bytes()[..]].concat()),
            _ => out.extend([&[127], &(payload.len() as u64).to_be_bytes()[..]].concat()),
        }
        out.extend_from_slice(payload);
    }
    out
}

#[test]
fn the_list_gets_all_messages_in_order_and_others_get_none() {
    let mut room = Room::of(5);
    let ids = room.app.open.clone();
    let told = room.act(|clients| clients.send_to([ids[3], ids[0], ids[4]], ["one", "two", "three"]));
    assert_eq!((told.sent, told.refused), (3, vec![]));
    for slot in 0..5 {
        let expected: &[u8] =
            if [0, 3, 4].contains(&slot) { b"\x81\x03one\x81\x03two\x81\x05three" } else { b"" };
        assert_eq!(room.written(slot), expected, "{slot}");
    }
}

#[test]
fn text_and_bytes_go_together_and_nothing_goes_for_nothing() {
    let mut room = Room::of(2);
    let ids = room.app.open.clone();
    let told = room.act(|clients| {
        clients.send_to(
            ids.iter().copied(),
            [Message::Text("text"), Message::Binary(b"bytes"), Message::Text("")],
        )
    });
    assert_eq!(told.sent, 2);
    assert_eq!(room.written(1), b"\x81\x04text\x82\x05bytes\x81\x00");
    let none: [&str; 0] = [];
    let told = room.act(|clients| clients.send_to(ids.iter().copied(), none));
    assert_eq!((told.sent, room.written(0)), (2, b"\x81\x04text\x82\x05bytes\x81\x00".to_vec()));
    assert!(room.driver.clients().iter().all(|client| !client.owns_buffers()));
    let told = room.act(|clients| clients.send_to([], ["to nobody"]));
    assert_eq!(told, SentTo::default());
}

#[test]
fn who_is_refused_is_named_with_the_reason() {
    let mut room = Room::of(4);
    let ids = room.app.open.clone();
    room.act(|clients| clients.terminate(ids[0]));
    room.join();
    room.act(|clients| clients.close(ids[1], CloseFrame::NORMAL));
    room.written(0);
    room.written(1);
    let told = room.act(|clients| clients.send_to(ids.iter().copied(), ["a", "b"]));
    assert_eq!(told.sent, 2);
    assert_eq!(told.refused, [(ids[0], SendError::NotFound), (ids[1], SendError::Closing)]);
    assert!(room.written(0).is_empty(), "the next tenant of the slot is somebody else");
    assert!(room.written(1).is_empty());
    assert_eq!(room.written(2), b"\x81\x01a\x81\x01b");
}

#[test]
fn the_sum_has_to_fit() {
    // 3 x (2 + 10) bytes.
    for (limit, fits) in [(36, true), (35, false)] {
        let mut room = Room::new(Config::default());
        let mut own = ConnectionConfig::default();
        own.max_backlog = limit;
        room.app.own = Some(own.share().expect("valid settings"));
        room.join();
        let id = room.app.open[0];
        room.set_room(0, 0);
        let told =
            room.act(|clients| clients.send_to([id], [[b'x'; 10]; 3].each_ref().map(|bytes| &bytes[..])));
        assert_eq!(told.sent, usize::from(fits));
        let overflow = SendError::Overflow { queued: 0, message: 36, limit: 35 };
        assert_eq!(told.refused, Vec::from_iter(Some((id, overflow)).filter(|_| !fits)));
        room.set_room(0, usize::MAX);
        assert_eq!(room.written(0), if fits { framed(&[&[b'x'; 10][..]; 3]) } else { vec![] });
    }
}

#[test]
fn a_refused_one_gets_its_drain_and_a_slow_consumer_its_close() {
    for on_overflow in [OnOverflow::Refuse, OnOverflow::Fail] {
        let mut config = Config::default();
        (config.connection.max_backlog, config.connection.on_overflow) = (100, on_overflow);
        let mut room = Room::new(config);
        (0..2).for_each(|_| room.join());
        let ids = room.app.open.clone();
        room.set_room(0, 0);
        let twice = [[b'x'; 40]; 2];
        let messages = || twice.each_ref().map(|bytes| &bytes[..]);
        assert_eq!(room.act(|clients| clients.send_to(ids.iter().copied(), messages())).sent, 2);
        let told = room.act(|clients| clients.send_to(ids.iter().copied(), messages()));
        let overflow = SendError::Overflow { queued: 84, message: 84, limit: 100 };
        assert_eq!((told.sent, told.refused), (1, vec![(ids[0], overflow)]));
        room.app.drained.clear();
        room.set_room(0, usize::MAX);
        let written = room.written(0);
        assert!(written.starts_with(&framed(&messages())));
        match on_overflow {
            OnOverflow::Refuse => assert_eq!((written.len(), room.app.drained.as_slice()), (84, &ids[..1])),
            OnOverflow::Fail => assert!(written[84..].starts_with(b"\x88\x0f\x03\xf5slow consumer")),
        }
        assert_eq!(room.written(1), framed(&messages()).repeat(2));
    }
}

/// Whoever has something queued already gets it first.
#[test]
fn what_was_queued_before_stays_before() {
    let mut room = Room::of(3);
    let ids = room.app.open.clone();
    let big = vec![b'y'; 100_000];
    room.act(|clients| {
        clients.send(ids[1], "before").expect("it is open");
        clients.send(ids[2], big.as_slice()).expect("it is open");
        clients.send_to(ids.iter().copied(), [b"one".as_slice(), b"two"]);
        clients.send(ids[1], "after").expect("it is open");
    });
    assert_eq!(room.written(0), framed(&[b"one", b"two"]));
    assert_eq!(
        room.written(1),
        [&b"\x81\x06before"[..], &framed(&[b"one", b"two"]), b"\x81\x05after"].concat()
    );
    assert_eq!(room.written(2), framed(&[&big, b"one", b"two"]));
}

proptest! {
    /// However much the kernels take, each gets the messages as if they had been sent to it alone.
    #[test]
    fn a_list_gets_what_each_would_get_alone(
        rounds in prop::collection::vec(
            (prop::collection::vec(0usize..10_000, 0..4), prop::collection::vec(any::<bool>(), 4), prop::collection::vec(0usize..9_000, 4)),
            1..8,
        ),
    ) {
        let mut rooms = [Room::of(4), Room::of(4)];
        let ids = rooms[0].app.open.clone();
        let mut written = [[const { Vec::new() }; 4], [const { Vec::new() }; 4]];
        for (lengths, to, takes) in &rounds {
            let messages: Vec<_> = lengths.iter().map(|length| vec![b'm'; *length]).collect();
            let list: Vec<_> = ids.iter().zip(to).filter(|(_, to)| **to).map(|(id, _)| *id).collect();
            for (which, room) in rooms.iter_mut().enumerate() {
                for (slot, takes) in takes.iter().enumerate() {
                    room.set_room(slot, *takes);
                }
                room.act(|clients| if which == 0 {
                    assert_eq!(clients.send_to(list.iter().copied(), messages.iter().map(Vec::as_slice)).sent, list.len());
                } else {
                    for id in &list {
                        for message in &messages {
                            clients.send(*id, message.as_slice()).expect("there is room");
                        }
                    }
                });
                for (slot, written) in written[which].iter_mut().enumerate() {
                    written.extend(room.written(slot));
                }
            }
        }
        for (which, room) in rooms.iter_mut().enumerate() {
            for (slot, written) in written[which].iter_mut().enumerate() {
                room.set_room(slot, usize::MAX);
                written.extend(room.written(slot));
            }
        }
        prop_assert!(written[0] == written[1]);
    }
}

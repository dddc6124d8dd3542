//! One connection by itself: what can be reached neither through the public API nor in time.

use std::{collections::VecDeque, io, time::Duration};

use super::{
    CloseTiming, Common, Conn, Context, Cursor, PeerFin, Pending, QueuedEvent, State, broken::Broken,
    life::Life, output::OutputBuffer,
};
use crate::{
    close::{Cause, CloseFrame, CloseReport},
    config::{Abort, Config},
    id::ConnectionId,
    message::Payload,
    testing::frame,
    time::Time,
    wire::keys::MaskKeys,
};

const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;

/// A connection and all that it needs from a hub.
struct Bench {
    config: Config,
    common: Common,
    now: Time,
    event_queue: VecDeque<QueuedEvent>,
    conn: Conn,
}

impl Bench {
    fn new(config: Config) -> Self {
        let (common, now) =
            (Common::new(&config.event_loop, MaskKeys::new(1)), Time::from_start(Duration::from_secs(1)));
        let conn = Conn::new(&crate::newcomer::Newcomer::tcp(([127, 0, 0, 1], 1).into()), 1, now);
        Self { config, common, now, event_queue: VecDeque::new(), conn }
    }

    fn open(config: Config) -> Self {
        let mut bench = Self::new(config);
        bench.with(|conn, cx| conn.establish(Vec::new(), "/", None, None, None, cx));
        bench
    }

    fn with<R>(&mut self, happen: impl FnOnce(&mut Conn, &mut Context<'_>) -> R) -> R {
        let Self { config, common, now, event_queue, conn } = self;
        let mut cx = Context { config, common, now: *now, event_queue, id: ConnectionId::new(0, 0, 1) };
        happen(conn, &mut cx)
    }

    fn read(&mut self, mut bytes: Vec<u8>) {
        let mut scratch = Vec::new();
        self.with(|conn, cx| {
            let mut cursor = Cursor::new(&mut bytes, &mut scratch);
            while conn.next(&mut cursor, cx).is_some() {}
        });
    }

    /// What a kernel gets that takes `room` bytes, of `limit` that it may be offered.
    fn write(&mut self, limit: usize, mut room: usize) -> Vec<u8> {
        let mut written = Vec::new();
        let result = self.with(|conn, cx| {
            conn.pending.take(Pending::WRITE);
            conn.transmit(limit, cx, &mut |slices: &[io::IoSlice<'_>]| {
                let offered: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
                let taken = offered.get(..room).unwrap_or(&offered);
                room -= taken.len();
                written.extend_from_slice(taken);
                if taken.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken.len()) }
            })
        });
        result.expect("this kernel has no errors");
        written
    }

    fn write_all(&mut self) -> Vec<u8> {
        self.write(usize::MAX, usize::MAX)
    }

    fn close(&mut self) {
        assert!(self.with(|conn, cx| {
            conn.close(CloseFrame::NORMAL, Cause::LocalClose, CloseTiming::default(), cx)
        }));
    }

    fn closed(&self) -> Option<&CloseReport> {
        self.event_queue.iter().find_map(|note| match note {
            QueuedEvent::Close(_, ended) => Some(&*ended.closed),
            _ => None,
        })
    }
}

/// What does not fit into the output buffer is queued beside it.
#[test]
fn a_message_that_the_output_buffer_cannot_number_is_written_all_the_same() {
    let mut bench = Bench::open(Config::default());
    bench.common.output = OutputBuffer::with_limit(20_000);
    let (small, large) = (vec![1; 100], vec![2; 50_000]);
    for message in [&small, &large, &small] {
        bench.with(|conn, cx| conn.send(Payload::from(message), cx)).expect("there is room");
    }
    let written = bench.write_all();
    assert_eq!(written.len(), (2 + 100) + (4 + 50_000) + (2 + 100));
    assert!(written.ends_with(&small));
    assert_eq!(bench.conn.queued(), 0);
}

/// The frame of another connection followed the first Pong in the output buffer, so the second one moved it to the backlog, and was
/// queued after it. A third one took the place of the first, and so came before the second (4.4).
#[test]
fn a_newer_pong_does_not_overtake_an_older_one() {
    let mut bench = Bench::open(Config::default());
    bench.read(frame(PING, b"1"));
    bench.common.output.append(|out| out.extend_from_slice(b"\x81\x00"));
    bench.read(frame(PING, b"2"));
    assert_eq!(bench.write(usize::MAX, 0), []);
    bench.read(frame(PING, b"3"));
    bench.conn.handle_writable();
    let written = bench.write_all();
    let pongs: Vec<_> = written.chunks(3).map(|pong| pong[2]).collect();
    assert!(pongs.is_sorted() && pongs.ends_with(b"3"), "{pongs:?}");
}

#[test]
fn a_turn_writes_no_more_than_it_may() {
    let mut bench = Bench::open(Config::default());
    let message = vec![7; 30_000];
    bench.with(|conn, cx| conn.send(Payload::from(&message), cx)).expect("there is room");
    assert_eq!(bench.write(0, usize::MAX), []);
    assert!(bench.conn.pending.has(Pending::WRITE), "nothing was tried");
    let mut written = bench.write(10_000, usize::MAX);
    assert_eq!(written.len(), 10_000);
    assert!(bench.conn.pending.has(Pending::WRITE), "the kernel would take more");
    assert!(!bench.conn.pending.has(Pending::DRAIN));
    written.extend(bench.write(10_000, usize::MAX));
    assert_eq!(bench.write(0, usize::MAX), []);
    written.extend(bench.write(20_000, usize::MAX));
    assert_eq!(written.len(), 30_004);
    assert!(bench.conn.pending.has(Pending::DRAIN));
}

/// The hub counted one more that had ended than there were, and one less when it released it.
#[test]
fn an_abort_that_nobody_asked_for_is_ignored() {
    for by_fin in [false, true] {
        let mut bench = Bench::open(Config::default());
        bench.with(|conn, cx| conn.handle_aborted(None, by_fin, cx));
        assert_eq!(bench.conn.state(), State::Open);
        assert!(bench.conn.pending.is_idle());
        assert!(bench.with(|conn, cx| conn.terminate(Some(Abort::Reset), cx)));
        bench.with(|conn, cx| conn.handle_aborted(None, false, cx));
        assert!(bench.conn.pending.has(Pending::RELEASE));
        bench.with(|conn, cx| conn.handle_aborted(None, by_fin, cx));
        assert_eq!(bench.conn.state(), State::Closed, "once is enough");
    }
}

#[test]
fn a_broken_invariant_fails_the_connection_with_1011() {
    let mut bench = Bench::open(Config::default());
    bench.with(|conn, cx| conn.send(Payload::from("lost"), cx)).expect("there is room");
    bench.with(|conn, cx| conn.fail_internally(Broken, cx));
    assert_eq!(bench.common.internal_errors, 1);
    assert_eq!(bench.conn.state(), State::Failing);
    assert_eq!(bench.write_all(), b"\x88\x10\x03\xf3internal error");
    let closed = bench.closed().expect("it is reported");
    assert_eq!((closed.cause, closed.effective_code(), closed.was_clean()), (Cause::Internal, 1011, false));
    assert_eq!((closed.lost.messages, closed.lost.bytes), (1, 4), "counted");
}

#[test]
fn a_broken_invariant_ends_a_closing_connection() {
    let mut bench = Bench::open(Config::default());
    bench.with(|conn, cx| conn.send(Payload::from("lost"), cx)).expect("there is room");
    bench.close();
    bench.with(|conn, cx| conn.fail_internally(Broken, cx));
    assert_eq!(bench.conn.state(), State::Closed);
    bench.with(|conn, cx| conn.handle_aborted(None, false, cx));
    let closed = bench.closed().expect("it is reported");
    assert_eq!((closed.cause, closed.lost.messages), (Cause::Internal, 1));
}

/// What a driver finds on a paused connection: its peer has left, or a write fails.
#[test]
fn a_paused_connection_is_read_from_before_it_is_given_up() {
    let mut bench = Bench::open(Config::default());
    bench.with(|conn, cx| conn.pause(cx.now));
    assert!(!bench.conn.wants_read());
    assert_eq!(bench.conn.deadline(&bench.config), None, "heartbeats rest");
    bench.with(Conn::handle_read_closed);
    let due = bench.conn.deadline(&bench.config).expect("the application has so long");
    assert_eq!(due, bench.now.after(bench.config.connection.close_timeout));
    bench.with(Conn::handle_failed);
    assert!(bench.conn.wants_read());
    bench.read([frame(0x81, b"unheard"), frame(CLOSE, b"")].concat());
    assert_eq!(bench.conn.state(), State::RemoteClosing);
    bench.with(|conn, cx| conn.handle_reset(io::ErrorKind::BrokenPipe, cx));
    bench.with(|conn, cx| conn.handle_aborted(None, false, cx));
    let closed = bench.closed().expect("it is reported");
    assert_eq!((closed.code(), closed.lost.inbound_messages), (1005, 1));
}

#[test]
fn a_close_that_was_held_counts_when_a_write_fails() {
    let mut bench = Bench::open(Config::default());
    bench.with(|conn, cx| conn.pause(cx.now));
    bench.read(frame(CLOSE, &[0x03, 0xe8]));
    bench.with(Conn::handle_failed);
    let held = bench.conn.take_held();
    bench.read(held);
    bench.with(|conn, cx| conn.handle_reset(io::ErrorKind::BrokenPipe, cx));
    bench.with(|conn, cx| conn.handle_aborted(None, false, cx));
    assert_eq!(bench.closed().expect("it is reported").code(), 1000);
}

/// Every way into each state.
fn everywhere() -> Vec<Bench> {
    let mut all: Vec<_> = (0..12).map(|_| Bench::open(Config::default())).collect();
    all[0].with(|conn, cx| conn.pause(cx.now));
    all[0].with(Conn::handle_read_closed);
    for (index, bench) in all.iter_mut().enumerate().skip(1) {
        // Something is queued, and half of it is in the kernel.
        bench.with(|conn, cx| conn.send(Payload::from("0123456789"), cx)).expect("there is room");
        match index {
            1 | 2 => bench.close(),
            3 => bench.read(frame(CLOSE, b"")),
            4 => {
                bench.config.connection.answer = crate::config::CloseAnswer::Manual;
                bench.read(frame(CLOSE, b""));
            }
            5 => bench.read(vec![0xff; 10]),
            6 => {
                bench.close();
                bench.read(frame(CLOSE, b""));
            }
            7 => {
                bench.close();
                bench.read(vec![0xff; 10]);
            }
            8 => {
                bench.close();
                bench.write_all();
                bench.read(frame(CLOSE, b""));
            }
            9 => {
                bench.with(|conn, cx| conn.handle_reset(io::ErrorKind::ConnectionReset, cx));
            }
            10 => {
                bench.read(frame(CLOSE, b""));
                bench.with(|conn, cx| conn.handle_eof(PeerFin::default(), cx));
            }
            _ => {
                bench.with(|conn, cx| conn.terminate(Some(Abort::Fin), cx));
                bench.with(|conn, cx| conn.handle_aborted(None, true, cx));
            }
        }
        if index % 2 == 0 {
            bench.write(usize::MAX, 5);
        }
    }
    let mut refused = Bench::new(Config::default());
    refused.with(|conn, cx| conn.refuse(b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec(), None, cx));
    all.extend([Bench::new(Config::default()), refused]);
    all
}

/// Every state but `Open` is left by its deadline, whatever came before and although nothing else ever happens.
#[test]
fn every_state_is_left_by_its_deadline() {
    let mut seen = Vec::new();
    for (index, mut bench) in everywhere().into_iter().enumerate() {
        let mut waits = 0;
        while bench.conn.state() != State::Closed {
            seen.push(bench.conn.state());
            let paused = matches!(&bench.conn.life, Life::Paused(paused) if paused.discards);
            if paused {
                break; // Heartbeats from here on.
            }
            let due = bench.conn.deadline(&bench.config);
            let due = due.unwrap_or_else(|| panic!("{index}: {:?} has no deadline", bench.conn.state()));
            bench.now = bench.now.max(due).after(Duration::from_micros(1));
            bench.with(Conn::handle_timeout);
            waits += 1;
            assert!(waits < 5, "{index}: {:?} is not left", bench.conn.state());
        }
        if bench.conn.pending.has(Pending::ABORT) {
            bench.with(|conn, cx| conn.handle_aborted(None, false, cx));
        }
        let established = index < 12 && index > 0;
        assert_eq!(bench.closed().is_some(), established, "{index}: reported");
        assert!(!established || bench.conn.pending.has(Pending::RELEASE), "{index}: released");
    }
    for state in State::ALL.into_iter().filter(|state| *state != State::Closed) {
        assert!(seen.contains(&state), "{state:?} was seen");
    }
}

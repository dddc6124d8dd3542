//! The loop's transport: what would be sockets are links. Every operation is written down in the checker, which thereby
//! knows all that passes between the loop and the kernel.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    rc::Rc,
    time::Duration,
};

use adjourn::{
    ConnectionId, Time,
    config::Abort,
    conn::Target,
    http::DetachedStream,
    hub::{Ahead, Noticed, Readiness, Transport},
};

use super::{
    checker::ensure,
    observe::End,
    outside::{Outside, time},
    peer::Kind,
};

pub struct Wire {
    outside: Rc<RefCell<Outside>>,
    /// The coarse clock, when it was asked last.
    lap: u64,
    /// The last write took less than it was offered: the clock is read to say when that was, and for nothing else.
    refused: bool,
}

impl Wire {
    pub fn new(outside: Rc<RefCell<Outside>>) -> Self {
        Self { outside, lap: 0, refused: false }
    }
}

impl Transport for Wire {
    fn now(&mut self) -> Time {
        let outside = &mut *self.outside.borrow_mut();
        if !std::mem::take(&mut self.refused) {
            outside.checker.set_now(outside.now);
        }
        time(outside.now)
    }

    fn lap(&mut self) -> Option<Duration> {
        // Nothing is being parsed when the loop asks this.
        self.outside.borrow_mut().checker.parsing_ends();
        let now = self.outside.borrow().now;
        let took = now - std::mem::replace(&mut self.lap, now);
        (took > 0).then(|| Duration::from_micros(took))
    }

    fn await_writable(&mut self, slot: usize, _: bool) -> io::Result<()> {
        let outside = &mut *self.outside.borrow_mut();
        if let Some(conn) = outside.conn(slot) {
            outside.links[conn as usize].await_writable();
            outside.tell_if_writable(conn);
        }
        Ok(())
    }

    fn detach(&mut self, slot: usize) -> Option<DetachedStream> {
        let outside = &mut *self.outside.borrow_mut();
        let conn = outside.conn(slot)?;
        outside.released(slot);
        outside.checker.released(conn);
        let link = &mut outside.links[conn as usize];
        link.slot = None;
        // Whoever serves it now says goodbye at once.
        link.server_gone = true;
        link.taken = match &link.records {
            Some(records) => records.given,
            None => link.said.len() - link.up.used(),
        };
        link.down.send_fin();
        outside.set_down_moving(conn);
        Some(DetachedStream::Memory)
    }

    fn connect(&mut self, slot: usize, id: ConnectionId, target: Target<'_>) -> io::Result<()> {
        unreachable!("nobody connects from slot {slot}: {id:?} {target:?}")
    }

    fn connected(&mut self, slot: usize) -> io::Result<bool> {
        unreachable!("nobody connects from slot {slot}")
    }

    fn read(&mut self, slot: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let outside = &mut *self.outside.borrow_mut();
        let conn = outside.conn(slot).ok_or(io::ErrorKind::WouldBlock)?;
        outside.checker.will_read(conn);
        let link = &mut outside.links[conn as usize];
        let result = link.read_by_layer(buffer);
        let (more, truncated) = link
            .records
            .as_ref()
            .map_or((false, false), |records| (records.has_more(), records.is_truncated()));
        match &result {
            Ok(0) => {
                outside.checker.of(conn).truncated = truncated;
                outside.checker.ends(conn, End::Eof);
            }
            Ok(n) => {
                outside.moved = true;
                outside.checker.read(conn, &buffer[..*n]);
                if *n < buffer.len() && !more {
                    outside.checker.drained(conn);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => outside.checker.blocked(conn),
            // It has read, and nothing of that is for the loop.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => outside.moved = true,
            Err(error) => outside.checker.ends(conn, End::Error(error.kind())),
        }
        outside.refill(conn);
        outside.layer_has_written(conn);
        result
    }

    fn write(&mut self, slot: usize, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let outside = &mut *self.outside.borrow_mut();
        let conn = outside.conn(slot).ok_or(io::ErrorKind::WouldBlock)?;
        outside.checker.will_write(conn);
        let link = &mut outside.links[conn as usize];
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let again = link.records.as_ref().is_none_or(|records| records.is_offered_again(slices));
        ensure!(outside.checker, conn, "what_is_encrypted_stays", again, "something else is offered");
        let result = link.write_by_layer(slices);
        outside.checker.of(conn).ahead = link.records.as_ref().map_or(0, |records| records.ahead());
        outside.layer_has_written(conn);
        let room = match result {
            Ok(0) => {
                self.refused = true;
                outside.checker.refused(conn, outside.now);
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(room) => room,
            Err(error) => {
                outside.checker.failed(conn, error.kind());
                return Err(error);
            }
        };
        self.refused = room < offered;
        outside.moved = true;
        let closes = outside.checker.of(conn).close_begun;
        let mut left = room;
        for slice in slices {
            let piece = &slice[..left.min(slice.len())];
            left -= piece.len();
            outside.checker.wrote(conn, piece);
        }
        if self.refused {
            outside.checker.refused(conn, outside.now);
        } else {
            outside.checker.took_all(conn);
        }
        let crosses = !closes && outside.checker.of(conn).close_begun;
        outside.set_down_moving(conn);
        if crosses && outside.peers[conn as usize].kind == Kind::Crosser {
            let doing = outside.peers[conn as usize].close_now();
            outside.carry_out(conn, &doing);
        }
        Ok(room)
    }

    fn shutdown_write(&mut self, slot: usize) {
        let outside = &mut *self.outside.borrow_mut();
        let Some(conn) = outside.conn(slot) else { return };
        if outside.checker.is_abort(conn) {
            outside.checker.aborted(conn, Abort::Fin);
            outside.checker.lingers(conn);
        } else {
            outside.checker.sent_fin(conn);
        }
        outside.links[conn as usize].end_by_layer();
        outside.layer_has_written(conn);
        outside.set_down_moving(conn);
    }

    fn ready(&mut self, slot: usize, readiness: Readiness) -> Readiness {
        let outside = &mut *self.outside.borrow_mut();
        let Some(conn) = outside.conn(slot) else { return readiness };
        if let Some(records) = outside.links[conn as usize].records.as_mut().filter(|_| readiness.ended) {
            records.note_ended();
        }
        if readiness.writable {
            outside.links[conn as usize].flush_layer();
            outside.layer_has_written(conn);
        }
        readiness
    }

    fn noticed(&mut self, slot: usize) -> Noticed {
        let outside = &mut *self.outside.borrow_mut();
        let records = outside.conn(slot).and_then(|conn| outside.links[conn as usize].records.as_mut());
        records.map(|records| records.take_noticed()).unwrap_or_default()
    }

    fn ahead(&mut self, slot: usize) -> Ahead {
        let outside = &mut *self.outside.borrow_mut();
        let Some(conn) = outside.conn(slot) else { return Ahead::default() };
        let records = outside.links[conn as usize].records.as_mut();
        let ahead = records.map(|records| records.take_ahead()).unwrap_or_default();
        if ahead.progressed {
            outside.checker.of(conn).progress = outside.now;
        }
        ahead
    }

    fn is_truncated(&mut self, slot: usize) -> bool {
        let outside = &*self.outside.borrow();
        outside.conn(slot).is_some_and(|conn| outside.checker.facts[conn as usize].truncated)
    }

    fn take_error(&mut self, slot: usize) -> Option<io::ErrorKind> {
        let outside = &mut *self.outside.borrow_mut();
        let conn = outside.conn(slot)?;
        let error = outside.links[conn as usize].take_error();
        match error {
            Some(kind) => outside.checker.reset_while_paused(conn, kind),
            None => outside.checker.left_while_paused(conn),
        }
        error
    }

    fn unsent(&mut self, slot: usize) -> Option<u32> {
        let outside = &mut *self.outside.borrow_mut();
        let conn = outside.conn(slot)?;
        let unsent = u32::try_from(outside.links[conn as usize].down.used()).ok();
        outside.checker.of(conn).unsent = unsent;
        unsent
    }

    fn close(&mut self, slot: usize, reset: bool) {
        let outside = &mut *self.outside.borrow_mut();
        let Some(conn) = outside.conn(slot) else { return };
        if reset && outside.checker.is_abort(conn) {
            outside.checker.aborted(conn, Abort::Reset);
            let link = &mut outside.links[conn as usize];
            link.send_reset();
            link.slot = None;
            return;
        }
        outside.released(slot);
        outside.checker.released(conn);
        let link = &mut outside.links[conn as usize];
        link.slot = None;
        if std::mem::replace(&mut link.server_gone, true) {
            return;
        }
        // Closing a socket with unread input makes the kernel send RST.
        if reset || link.up.arrived() > 0 {
            link.send_reset();
        } else {
            link.close_by_layer();
            outside.set_down_moving(conn);
        }
    }
}

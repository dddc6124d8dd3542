//! The driver: a turn as in `server.rs`, with links for sockets; and what must be true after it.

use std::io;

use adjourn::{Abort, Handler, State, conn::Cursor, hub::Action};

use super::{
    app::given,
    book::ensure,
    peer::Kind,
    world::{Edge, Item, World, address, micros, time},
};

impl World {
    pub fn turn(&mut self) {
        self.hub.begin_turn(time(self.now));
        self.read_again();
        let mut edges = std::mem::take(&mut self.edges);
        if !self.size.crowd {
            self.rng.shuffle(&mut edges);
        }
        for edge in edges {
            self.dispatch(edge);
        }
        self.accept();
        self.settle();
        self.time_out();
        self.settle();
        self.check_turn();
    }

    fn accept(&mut self) {
        for conn in std::mem::take(&mut self.arrivals) {
            if !self.hub.is_listening() {
                self.links[conn as usize].server_gone = true;
                continue;
            }
            let Some(slot) = self.hub.accept(address(conn)) else {
                self.links[conn as usize].server_gone = true;
                continue;
            };
            if self.slots.len() <= slot {
                self.slots.resize(slot + 1, None);
            }
            let before = self.slots[slot].replace(conn);
            ensure!(self.app.book, conn, "slots_are_free", before.is_none(), "{slot} is taken by {before:?}");
            self.links[conn as usize].slot = u32::try_from(slot).ok();
            self.app.book.accepted(conn);
            let delay = self.rng.u64(..50_000);
            self.soon(delay, Item::Act(conn));
        }
    }

    fn dispatch(&mut self, edge: Edge) {
        let Some(slot) = self.links[edge.conn as usize].slot else { return };
        let slot = slot as usize;
        if edge.writable {
            self.app.book.touch(edge.conn);
            self.hub.handle_writable(slot);
        }
        if edge.readable {
            self.read(slot, edge.ended);
        }
    }

    fn read_again(&mut self) {
        for slot in std::mem::take(&mut self.readable) {
            self.read(slot, true);
        }
    }

    fn read(&mut self, slot: usize, ended: bool) {
        if let Err(error) = self.read_share(slot, ended) {
            self.read_last(slot, error.kind());
        }
        self.reads += 1;
        if self.reads >= self.batch {
            self.reads = 0;
            while let Some(slot) = self.hub.poll_write() {
                if let Err(error) = self.write(slot) {
                    self.read_last(slot, error.kind());
                }
            }
        }
    }

    fn read_last(&mut self, slot: usize, kind: io::ErrorKind) {
        while self.hub.wants_read(slot) && matches!(self.read_once(slot), Ok(Read::Full | Read::Short)) {}
        if let Some(conn) = self.conn(slot) {
            self.app.book.reset(conn, kind);
        }
        self.hub.handle_reset(slot, kind);
        self.deliver();
    }

    fn read_share(&mut self, slot: usize, ended: bool) -> io::Result<()> {
        let mut held = self.hub.take_held(slot);
        if !held.is_empty() {
            if let Some(conn) = self.conn(slot) {
                self.app.book.take_held(conn);
            }
            let pristine = held.clone();
            self.feed(slot, &mut held, &pristine);
        }
        let mut reads = self.hub.config().reads_per_turn.max(1);
        while self.hub.wants_read(slot) {
            if reads == 0 {
                self.readable.push(slot);
                break;
            }
            reads -= 1;
            let read = self.read_once(slot);
            let drained = matches!(read, Ok(Read::Short)) && !ended;
            match read {
                Ok(Read::Full | Read::Short) => {}
                Ok(Read::Eof) => {
                    self.write_now(slot, 0)?;
                    if let Some(conn) = self.conn(slot) {
                        self.app.book.eof(conn);
                    }
                    self.hub.handle_eof(slot);
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.write_now(slot, 0)?;
                    if let Some(conn) = self.conn(slot) {
                        self.app.book.reset(conn, error.kind());
                    }
                    self.hub.handle_reset(slot, error.kind());
                    break;
                }
            }
            self.write_now(slot, self.batch_bytes)?;
            if drained {
                break;
            }
        }
        Ok(())
    }

    fn read_once(&mut self, slot: usize) -> io::Result<Read> {
        let Some(conn) = self.conn(slot) else { return Err(io::ErrorKind::WouldBlock.into()) };
        let link = &mut self.links[conn as usize];
        if let Some((message, left)) = self.hub.direct(slot, self.direct) {
            let from = message.len();
            let asked = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            message.resize(from + asked, 0);
            let result = link.read(&mut message[from..]);
            message.truncate(from + result.as_ref().copied().unwrap_or(0));
            let n = result?;
            self.moved |= n > 0;
            if n > 0 {
                let pristine = message[from..].to_vec();
                self.refill(conn);
                self.take_in_direct(slot, conn, from, &pristine);
            }
            return Ok(Read::of(n, asked));
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let asked = buffer.len();
        let result = link.read(&mut buffer);
        self.moved |= matches!(result, Ok(1..));
        if let Ok(n @ 1..) = result {
            let pristine = buffer[..n].to_vec();
            self.refill(conn);
            self.hub.handle_readable(slot);
            let head = self.app.book.read(conn, &pristine);
            self.feed(slot, &mut buffer[..n], &pristine[head..]);
        }
        self.buffer = buffer;
        result.map(|n| Read::of(n, asked))
    }

    /// What did not fit into the server's receive buffer comes now.
    fn refill(&mut self, conn: u32) {
        let link = &mut self.links[conn as usize];
        if link.up.has_more() && !link.is_dead() && !std::mem::replace(&mut link.up.moving, true) {
            self.soon(1, Item::Up(conn));
        }
    }

    fn take_in_direct(&mut self, slot: usize, conn: u32, from: usize, pristine: &[u8]) {
        self.hub.handle_readable(slot);
        self.app.book.read(conn, &[]);
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut cursor = Cursor::new(&mut [], &mut scratch);
        let mut rest = pristine;
        if let Some(event) = self.hub.handle_direct(slot, from, &mut cursor) {
            if let Some(given) = given(&event) {
                self.app.book.fed(conn, &mut rest, given);
            }
            self.app.on_event(&mut self.hub.clients(), event);
        }
        let state = self.state_at(conn);
        self.app.book.fed_up(conn, rest, state);
        self.deliver();
        self.scratch = scratch;
    }

    fn feed(&mut self, slot: usize, bytes: &mut [u8], pristine: &[u8]) {
        let Some(conn) = self.conn(slot) else { return };
        self.deliver();
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut cursor = Cursor::new(bytes, &mut scratch);
        let mut rest = pristine;
        let connecting = self.app.book.state(conn) == Some(State::Connecting);
        while let Some(event) = self.hub.next(slot, &mut cursor, &mut self.app) {
            if let Some(given) = given(&event) {
                self.app.book.fed(conn, &mut rest, given);
            }
            self.app.on_event(&mut self.hub.clients(), event);
            self.deliver();
        }
        // How much of what is behind a bad request counts as part of it, is the scanner's business.
        if !(connecting && self.app.book.state(conn) == Some(State::Refusing)) {
            let state = self.state_at(conn);
            self.app.book.fed_up(conn, rest, state);
        }
        self.deliver();
        self.scratch = scratch;
    }

    /// The state as the hub tells it; only for what the book leaves open.
    fn state_at(&mut self, conn: u32) -> Option<State> {
        let id = self.app.book.facts[conn as usize].id?;
        self.hub.clients().get(id).map(|client| client.state())
    }

    pub fn deliver(&mut self) {
        while let Some(event) = self.hub.poll_event() {
            self.app.on_event(&mut self.hub.clients(), event);
        }
    }

    fn write_now(&mut self, slot: usize, worth: usize) -> io::Result<()> {
        if self.hub.wants_write(slot, worth) { self.write(slot) } else { Ok(()) }
    }

    fn write(&mut self, slot: usize) -> io::Result<()> {
        let Some(conn) = self.conn(slot) else { return Ok(()) };
        let (link, book) = (&mut self.links[conn as usize], &mut self.app.book);
        book.touch(conn);
        let closes = book.facts[conn as usize].close_begun;
        let moved = &mut self.moved;
        book.will_write(conn);
        self.hub.transmit(slot, &mut |slices| {
            let offered: usize = slices.iter().map(|slice| slice.len()).sum();
            let room = link.room(offered)?;
            if room == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            *moved = true;
            let mut left = room;
            for slice in slices {
                let piece = &slice[..left.min(slice.len())];
                left -= piece.len();
                link.down.put(piece);
                book.wrote(conn, piece);
            }
            Ok(room)
        })?;
        let crosses = !closes && self.app.book.facts[conn as usize].close_begun;
        self.set_down_moving(conn);
        if crosses && self.peers[conn as usize].kind == Kind::Crosser {
            let doing = self.peers[conn as usize].close_now();
            self.carry_out(conn, &doing);
        }
        Ok(())
    }

    pub fn set_down_moving(&mut self, conn: u32) {
        let link = &mut self.links[conn as usize];
        if link.down.has_more() && !std::mem::replace(&mut link.down.moving, true) {
            let latency = u64::from(link.latency);
            self.soon(latency, Item::Down(conn));
        }
    }

    fn time_out(&mut self) {
        let clients = self.hub.clients();
        let due = self.app.book.ring(|id| clients.get(id).map_or(0, |client| client.buffered_amount()));
        self.hub.handle_timeout();
        // Deadlines expire in slices. The book does not know which come first, so all that are due have their turn.
        let slices = self.size.connections as usize / self.hub.config().sweep_slice.max(1) + 1;
        for _ in 0..slices {
            if !due || self.hub.poll_timeout().is_none_or(|at| micros(at) > self.now) {
                break;
            }
            self.app.book.sliced = self.now;
            self.hub.handle_timeout();
        }
        self.app.book.check_sweeps();
    }

    fn settle(&mut self) {
        let mut steps = 0_u64;
        loop {
            self.deliver();
            let Some(action) = self.hub.poll_action() else { return };
            steps += 1;
            let endless = steps > 100_000 + 100 * u64::from(self.size.connections);
            ensure!(self.app.book, None, "actions_are_bounded", !endless, "{steps} actions in one turn");
            if endless {
                return;
            }
            match action {
                Action::Write(slot) => {
                    if let Err(error) = self.write(slot) {
                        self.read_last(slot, error.kind());
                    }
                }
                Action::Read(slot) => self.readable.push(slot),
                Action::Connect(slot) => unreachable!("nobody connects from slot {slot}"),
                Action::Fin(slot) => {
                    if let Some(conn) = self.conn(slot) {
                        self.app.book.sent_fin(conn);
                        self.links[conn as usize].down.send_fin();
                        self.set_down_moving(conn);
                    }
                }
                Action::Abort(slot, style) => self.abort(slot, style),
                Action::Release(slot, reset) => self.release(slot, reset),
            }
        }
    }

    fn abort(&mut self, slot: usize, style: Abort) {
        let Some(conn) = self.conn(slot) else { return };
        let link = &mut self.links[conn as usize];
        let unsent = u32::try_from(link.down.used()).ok();
        self.app.book.aborted(conn, style, unsent);
        let link = &mut self.links[conn as usize];
        if style == Abort::Reset {
            link.send_reset();
            link.slot = None;
            self.hub.handle_aborted(slot, unsent);
        } else {
            link.down.send_fin();
            self.set_down_moving(conn);
            self.app.book.lingers(conn);
            self.hub.handle_aborted_by_fin(slot, unsent);
        }
    }

    fn release(&mut self, slot: usize, reset: bool) {
        let Some(conn) = self.slots[slot].take() else { return };
        self.app.book.released(conn);
        let link = &mut self.links[conn as usize];
        link.slot = None;
        if std::mem::replace(&mut link.server_gone, true) {
            return;
        }
        // Closing a socket with unread input makes the kernel send RST.
        if reset || link.up.arrived() > 0 {
            link.send_reset();
        } else {
            link.down.send_fin();
            self.set_down_moving(conn);
        }
    }

    fn conn(&self, slot: usize) -> Option<u32> {
        self.slots.get(slot).copied().flatten()
    }

    fn check_turn(&mut self) {
        self.app.book.check_turn();
        for conn in std::mem::take(&mut self.app.book.touched) {
            self.app.book.of(conn).touched = false;
            self.check_connection(conn);
        }
    }

    /// What must be true of a connection between two turns.
    fn check_connection(&mut self, conn: u32) {
        let facts = &self.app.book.facts[conn as usize];
        let (Some(id), Some(slot), Some(state)) = (facts.id, self.links[conn as usize].slot, facts.state)
        else {
            return;
        };
        let link = &self.links[conn as usize];
        let clients = self.hub.clients();
        let client = clients.get(id);
        let seen = client.as_ref().map(adjourn::Client::state);
        let (queued, owns) =
            client.map_or((0, false), |client| (client.buffered_amount(), client.owns_buffers()));
        let expected = Some(state).filter(|_| state.is_established());
        let book = &mut self.app.book;
        ensure!(book, conn, "state_by_the_book", seen == expected, "{seen:?} instead of {expected:?}");
        if !state.is_established() {
            return;
        }
        let stuck = queued > 0 && !link.hungry && !link.is_dead();
        ensure!(book, conn, "what_fits_is_written", !stuck, "{queued} bytes are queued");
        let slot = slot as usize;
        let wants = self.hub.wants_read(slot);
        let listed = self.readable.contains(&slot);
        let unread = link.up.arrived() > 0 && !listed && !link.is_dead();
        ensure!(book, conn, "input_is_not_forgotten", !(wants && unread), "{} bytes", link.up.arrived());
        let facts = &self.app.book.facts[conn as usize];
        let (busy, paused) = (facts.busy.as_ref(), facts.paused);
        let held = busy.is_some_and(|busy| !busy.held.is_empty());
        let idle = queued == 0 && !held && busy.is_none_or(|busy| busy.inbound.is_idle());
        let book = &mut self.app.book;
        let parses = state == State::LocalClosing || (state == State::Open && !paused);
        ensure!(book, conn, "held_input_is_not_forgotten", !held || !parses || listed, "paused no more");
        ensure!(
            book,
            conn,
            "a_quiet_one_owns_nothing",
            state != State::Open || !idle || !owns,
            "it owns a buffer"
        );
        book.note_queue(conn, queued);
        if queued == 0 {
            book.check_control_frames(conn);
        }
    }
}

/// How a read went.
enum Read {
    Full,
    Short,
    Eof,
}

impl Read {
    const fn of(n: usize, asked: usize) -> Self {
        match n {
            0 => Self::Eof,
            n if n < asked => Self::Short,
            _ => Self::Full,
        }
    }
}

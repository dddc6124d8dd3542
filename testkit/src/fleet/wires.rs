//! The transport of a loop: the kernels of its connections. What is connected to, and what becomes of that, is drawn here.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    rc::Rc,
    time::Duration,
};

use adjourn::{ConnectionId, Time, conn::Target, http::DetachedStream, hub::Transport};

use super::facts::{Item, Link, World, link_at, time};

pub struct Wires {
    world: Rc<RefCell<World>>,
    number: usize,
    slots: Vec<Option<u32>>,
}

impl Wires {
    pub const fn new(world: Rc<RefCell<World>>, number: usize) -> Self {
        Self { world, number, slots: Vec::new() }
    }

    /// A connection is in this slot from now on.
    pub fn insert(&mut self, slot: usize, link: u32) {
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, None);
        }
        let before = self.slots[slot].replace(link).filter(|before| *before != link);
        let world = &mut *self.world.borrow_mut();
        world.check("slots_are_free", Some(link), before.is_none(), || format!("{slot}: {before:?}"));
        world.of(link).slot = Some(slot);
    }

    fn with<T>(&self, slot: usize, act: impl FnOnce(&mut World, u32) -> T) -> Option<T> {
        let link = self.slots.get(slot).copied().flatten()?;
        Some(act(&mut self.world.borrow_mut(), link))
    }

    fn link<T>(&self, slot: usize, act: impl FnOnce(&mut Link) -> T) -> Option<T> {
        self.with(slot, |world, link| act(world.of(link)))
    }
}

impl Transport for Wires {
    fn read(&mut self, slot: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.link(slot, |link| {
            let n = link.input.len().min(buffer.len());
            if n == 0 && !link.eof {
                return Err(link.error.unwrap_or(io::ErrorKind::WouldBlock).into());
            }
            for (to, from) in buffer.iter_mut().zip(link.input.drain(..n)) {
                *to = from;
            }
            Ok(n)
        });
        read.unwrap_or(Err(io::ErrorKind::WouldBlock.into()))
    }

    fn write(&mut self, slot: usize, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = self.link(slot, |link| {
            if let Some(kind) = link.error {
                return Err(kind.into());
            }
            let before = link.written.len();
            for slice in slices {
                link.written.extend_from_slice(slice);
            }
            Ok(link.written.len() - before)
        });
        written.unwrap_or(Err(io::ErrorKind::WouldBlock.into()))
    }

    fn await_writable(&mut self, _: usize, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn shutdown_write(&mut self, slot: usize) {
        let number = self.number;
        self.with(slot, |world, link| {
            world.of(link).fin = true;
            // It answers with its own FIN, if it answers.
            world.soon(100_000, number, Item::Peer(link));
        });
    }

    fn close(&mut self, slot: usize, _: bool) {
        self.link(slot, |link| (link.slot, link.peer_gone) = (None, true));
        if let Some(taken) = self.slots.get_mut(slot) {
            *taken = None;
        }
    }

    fn detach(&mut self, _: usize) -> Option<DetachedStream> {
        None
    }

    fn connect(&mut self, slot: usize, _: ConnectionId, target: Target<'_>) -> io::Result<()> {
        let Target::Address(address) = target else { return Err(io::ErrorKind::InvalidInput.into()) };
        let link = link_at(address);
        self.insert(slot, link);
        let number = self.number;
        let world = &mut *self.world.borrow_mut();
        world.loops[number].connects += 1;
        world.summary.connects += 1;
        match world.rng.u8(..8) {
            0..3 => {
                world.of(link).failed_at_once = Some(world.loops[number].turn);
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            3 => {}
            4 => world.soon(300_000, number, Item::Connected(link, false)),
            _ => world.soon(300_000, number, Item::Connected(link, true)),
        }
        Ok(())
    }

    fn connected(&mut self, slot: usize) -> io::Result<bool> {
        match self.link(slot, |link| link.connected).flatten() {
            Some(false) => Err(io::ErrorKind::ConnectionRefused.into()),
            connected => Ok(connected.is_some()),
        }
    }

    fn take_error(&mut self, slot: usize) -> Option<io::ErrorKind> {
        self.link(slot, |link| link.error.take()).flatten()
    }

    fn unsent(&mut self, _: usize) -> Option<u32> {
        None
    }

    fn now(&mut self) -> Time {
        time(self.world.borrow().now)
    }

    fn lap(&mut self) -> Option<Duration> {
        None
    }
}

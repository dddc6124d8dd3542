//! The application of a loop. It connects again at once, from inside the callback that says that a connection of its own has failed
//! or ended, or when a timer fires.

use std::{cell::RefCell, rc::Rc, time::Duration};

use adjourn::{
    Clients, CloseFrame, Event, Handler, SendError,
    error::ConnectError,
    http::{ConnectRequest, Upgrade, UpgradeRequest},
    shutdown::ShutdownPhase,
};

use super::facts::{How, Item, World, at, link_at};

pub struct App {
    world: Rc<RefCell<World>>,
    pub number: usize,
}

impl App {
    pub const fn new(world: Rc<RefCell<World>>, number: usize) -> Self {
        Self { world, number }
    }
}

impl Handler for App {
    type Data = u32;

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, u32> {
        Upgrade::accept(link_at(request.peer_addr()))
    }

    fn on_event(&mut self, clients: &mut Clients<'_, u32>, event: Event<'_>) {
        let world = Rc::clone(&self.world);
        let world = &mut *world.borrow_mut();
        let link = event.id().and_then(|id| clients.get(id).map(|client| *client.data()));
        world.trace(|| format!("loop {} {link:?} {event:?}", self.number));
        match (event, link) {
            (Event::Open { id }, Some(link)) => {
                let client = clients.get(id).expect("it is open");
                world.opened(link, id, client.peer_addr(), client.proxy_addr());
                self.set_timer(world, clients, Some(link));
            }
            (Event::Message { id, message, .. }, Some(link)) => {
                let expected = format!("{link}.{}", world.link(link).delivered);
                let right = message.as_text() == Some(&expected);
                world.check("messages_in_order", Some(link), right, || format!("{message:?}, {expected}"));
                world.of(link).delivered += 1;
                let _ = clients.send(id, message);
            }
            (Event::Closing { frame, .. }, Some(_)) if frame.reason() == "shutdown" => {
                world.swept.push(world.now);
            }
            (Event::Close { report, .. }, Some(link)) => {
                let known = world.link(link);
                let once = known.opened && !known.closed;
                let (delivered, sent) = (known.delivered, known.sent);
                world.check("one_end_each", Some(link), once, || "Close".to_owned());
                let all = !report.was_clean() || delivered == sent || report.lost.inbound_messages > 0;
                let answered =
                    world.link(link).peer_closed && report.initiator == adjourn::close::Initiator::Remote;
                world.check("all_that_was_sent_is_delivered", Some(link), all || !answered, || {
                    format!("{delivered} of {sent}")
                });
                world.of(link).closed = true;
                world.of(link).timers.clear();
                self.connect_again(world, clients, link);
            }
            (Event::HandshakeFailed { id, peer, error }, _) => {
                let ours = id.and_then(|id| world.links.iter().position(|link| link.id == Some(id)));
                let link = ours.and_then(|link| u32::try_from(link).ok()).unwrap_or_else(|| link_at(peer));
                world.handshake_failed(link, error);
                self.connect_again(world, clients, link);
            }
            (Event::Timer { id, key }, link) => self.timer_fired(world, clients, id.is_none(), link, key),
            (Event::Phase { phase, .. }, _) => match phase {
                ShutdownPhase::SoftSweep => world.sweep_begins(self.number),
                ShutdownPhase::Done => world.loops[self.number].done = Some(world.now),
                _ => {}
            },
            _ => {}
        }
    }
}

impl App {
    /// What comes from a handle.
    pub fn apply(&mut self, clients: &mut Clients<'_, u32>, order: &Item) {
        let world = Rc::clone(&self.world);
        let world = &mut *world.borrow_mut();
        match order {
            Item::Shutdown if world.asked_at.is_none() => {
                world.asked_at = Some(world.now);
                clients.shutdown(world.plan.clone());
            }
            Item::Command(what) => self.command(world, clients, *what),
            _ => {}
        }
    }

    fn command(&self, world: &mut World, clients: &mut Clients<'_, u32>, what: u8) {
        match what {
            0..110 => {
                for _ in 0..world.rng.u8(1..4) {
                    Self::connect(self.number, world, clients);
                }
            }
            110..180 => self.set_timer(world, clients, None),
            180..200 => {
                clients.broadcast("to all", |_| true);
            }
            200..206 if world.asked_at.is_some() => {
                world.shortened = true;
                if what.is_multiple_of(2) { clients.escalate() } else { clients.abort() }
            }
            _ => self.name_others(world, clients),
        }
    }

    /// The ids of other loops, and of connections that are gone, name nobody here.
    fn name_others(&self, world: &mut World, clients: &mut Clients<'_, u32>) {
        for index in 0..world.links.len() {
            let link = &world.links[index];
            let foreign = link.number != self.number || (link.closed || link.failed) && link.slot.is_none();
            if let Some(id) = link.id.filter(|_| foreign) {
                let nobody = clients.get(id).is_none()
                    && !clients.close(id, CloseFrame::NORMAL)
                    && !clients.terminate(id)
                    && clients.send(id, "x") == Err(SendError::NotFound)
                    && !clients.set_timer(id, Duration::ZERO, 1);
                let link = u32::try_from(index).ok();
                world.check("ids_of_others_name_nobody", link, nobody, || format!("{id:?}"));
            }
        }
    }

    // Connections of our own.

    fn connect(number: usize, world: &mut World, clients: &mut Clients<'_, u32>) {
        let link = world.add_link(How::Dialled, number);
        let url = format!("ws://{}/", at([127, 0, 0, 1], link));
        let request = ConnectRequest::new(&url).expect("a URL");
        match clients.connect(request, link) {
            Ok(id) => world.note_id(link, id),
            Err(error) => {
                let right = error == ConnectError::ShuttingDown && world.asked_at.is_some();
                world.check("connects_unless_shutting_down", Some(link), right, || format!("{error:?}"));
            }
        }
    }

    /// One of our own has failed or ended.
    fn connect_again(&self, world: &mut World, clients: &mut Clients<'_, u32>, link: u32) {
        if world.link(link).how != How::Dialled || world.redials == 0 {
            return;
        }
        world.redials -= 1;
        if world.rng.u8(..4) > 0 {
            Self::connect(self.number, world, clients);
        } else {
            self.set_timer(world, clients, None);
        }
    }

    // Timers.

    /// Sets, moves or clears a timer, of a connection or of the loop.
    fn set_timer(&self, world: &mut World, clients: &mut Clients<'_, u32>, link: Option<u32>) {
        let (key, after) = (world.rng.u64(..3), world.rng.u64(..1_500_000));
        let (due, clears) = (world.now + after, world.rng.u8(..5) == 0);
        let after = Duration::from_micros(after);
        let right = match link {
            None if clears => {
                clients.clear_loop_timer(key) == world.loops[self.number].timers.remove(&key).is_some()
            }
            None => {
                clients.set_loop_timer(after, key);
                world.loops[self.number].timers.insert(key, due);
                true
            }
            Some(link) => {
                world.of(link).timers.insert(key, due);
                world.link(link).id.is_some_and(|id| clients.set_timer(id, after, key))
            }
        };
        world.check("timer_answers", link, right, || format!("key {key}, clears: {clears}"));
    }

    fn timer_fired(
        &self,
        world: &mut World,
        clients: &mut Clients<'_, u32>,
        is_loops: bool,
        link: Option<u32>,
        key: u64,
    ) {
        world.summary.timers += 1;
        let now = world.now;
        let due = match link {
            Some(link) => world.of(link).timers.remove(&key),
            None if is_loops => world.loops[self.number].timers.remove(&key),
            None => None,
        };
        world.check("timers_fire", link, due.is_some(), || format!("{key} was not set"));
        let in_time = due.is_none_or(|due| due <= now && now <= due + 50_000);
        world.check("timers_fire", link, in_time, || format!("{key} was due at {due:?}"));
        if is_loops && world.asked_at.is_none() && world.redials > 0 {
            world.redials -= 1;
            Self::connect(self.number, world, clients);
        }
    }
}

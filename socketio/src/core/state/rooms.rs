//! Who is in which room, and whom a broadcast concerns (specification 10).
//!
//! A room is a list of sockets, and each socket knows its places in those lists: joining, leaving and walking look up
//! one name each. The room of a socket's own id is not kept: the namespace finds sockets by id.

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;

use super::arena::Arena;
use super::{SocketKey, SocketState, SpaceKey, State};

/// The rooms of a namespace that have members.
#[derive(Default)]
pub(crate) struct Rooms {
    names: HashMap<Arc<str>, usize>,
    rooms: Slab<Room>,
}

struct Room {
    name: Arc<str>,
    members: Vec<SocketKey>,
}

/// A socket's place in a room.
pub(crate) struct Joined {
    pub(crate) name: Arc<str>,
    room: usize,
    place: usize,
}

/// Whom an event concerns.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    /// None: everyone in the namespace.
    pub(crate) rooms: Arc<[Arc<str>]>,
    /// Not those in these.
    pub(crate) except: Arc<[Arc<str>]>,
}

impl Address {
    pub(crate) fn one(id: &Arc<str>) -> Self {
        Self { rooms: Arc::new([Arc::clone(id)]), except: Arc::new([]) }
    }
}

impl Rooms {
    /// Puts a socket into a room; `false`: it is in it.
    pub(crate) fn join(&mut self, key: SocketKey, name: &Arc<str>, sockets: &mut Arena<SocketState>) -> bool {
        let Some(socket) = sockets.get_mut(key) else { return false };
        if socket.is_in(name) {
            return false;
        }
        let room = self.names.get(name).copied().unwrap_or_else(|| {
            let room = self.rooms.insert(Room { name: Arc::clone(name), members: Vec::new() });
            self.names.insert(Arc::clone(name), room);
            room
        });
        let Some(Room { name, members }) = self.rooms.get_mut(room) else { return false };
        socket.rooms.push(Joined { name: Arc::clone(name), room, place: members.len() });
        members.push(key);
        true
    }

    /// Takes a socket out of a room; `false`: it is not in it.
    pub(crate) fn leave(&mut self, key: SocketKey, name: &str, sockets: &mut Arena<SocketState>) -> bool {
        let Some(socket) = sockets.get_mut(key) else { return false };
        let Some(index) = socket.rooms.iter().position(|joined| &*joined.name == name) else { return false };
        let joined = socket.rooms.swap_remove(index);
        self.remove(&joined, sockets);
        true
    }

    /// Takes a socket out of all rooms; its list stays, for those who still read it.
    pub(crate) fn leave_all(&mut self, key: SocketKey, sockets: &mut Arena<SocketState>) {
        let Some(socket) = sockets.get_mut(key) else { return };
        let list = std::mem::take(&mut socket.rooms);
        for joined in &list {
            self.remove(joined, sockets);
        }
        if let Some(socket) = sockets.get_mut(key) {
            socket.rooms = list;
        }
    }

    fn remove(&mut self, joined: &Joined, sockets: &mut Arena<SocketState>) {
        let Some(room) = self.rooms.get_mut(joined.room) else { return };
        room.members.swap_remove(joined.place);
        if let Some(moved) = room.members.get(joined.place)
            && let Some(socket) = sockets.get_mut(*moved)
            && let Some(entry) = socket.rooms.iter_mut().find(|entry| entry.room == joined.room)
        {
            entry.place = joined.place;
        }
        if room.members.is_empty() {
            let room = self.rooms.remove(joined.room);
            self.names.remove(&room.name);
        }
    }

    fn members(&self, name: &str) -> &[SocketKey] {
        self.names.get(name).and_then(|room| self.rooms.get(*room)).map_or(&[], |room| &room.members)
    }

    /// How many rooms have members.
    pub(crate) fn len(&self) -> usize {
        self.rooms.len()
    }
}

impl SocketState {
    pub(crate) fn is_in(&self, name: &str) -> bool {
        self.rooms.iter().any(|joined| &*joined.name == name)
    }
}

impl State {
    /// The sockets that an address concerns, each once. Takes the buffer for them, which is given back afterwards.
    pub(crate) fn targets(&mut self, space: SpaceKey, to: &Address) -> Vec<SocketKey> {
        let mut targets = std::mem::take(&mut self.scratch.targets);
        targets.clear();
        let Some(space) = self.spaces.get(space) else { return targets };
        let one = to.except.is_empty() && to.rooms.len() <= 1;
        if let Some(room) = to.rooms.first().filter(|_| one) {
            // A room that is named like a socket's id has that socket, too.
            targets.extend_from_slice(space.rooms.members(room));
            let own = space.by_id.get(room).filter(|own| !targets.contains(own));
            targets.extend(own);
            return targets;
        }
        if one {
            targets.extend_from_slice(&space.everyone);
            return targets;
        }
        self.stamp += 1;
        let stamp = self.stamp;
        let sockets = &mut self.sockets;
        let mut first_sight = |key: SocketKey| {
            let Some(socket) = sockets.get_mut(key) else { return false };
            std::mem::replace(&mut socket.stamp, stamp) != stamp
        };
        for room in &*to.except {
            for key in space.rooms.members(room).iter().chain(space.by_id.get(room)) {
                first_sight(*key);
            }
        }
        if to.rooms.is_empty() {
            targets.extend(space.everyone.iter().copied().filter(|key| first_sight(*key)));
        }
        for room in &*to.rooms {
            let members = space.rooms.members(room).iter().chain(space.by_id.get(room));
            targets.extend(members.copied().filter(|key| first_sight(*key)));
        }
        targets
    }

    /// Gives the buffer of [`State::targets`] back.
    pub(crate) fn done_with(&mut self, targets: Vec<SocketKey>) {
        self.scratch.targets = targets;
    }
}

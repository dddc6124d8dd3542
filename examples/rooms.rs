//! A chat with rooms and bans. `ws://127.0.0.1:9001/ROOM?name=NAME` enters a room under a name; what one says, the others in the room
//! hear. The first in a room may `/ban NAME`: that name gets a last word and a Close, and 403 from then on.
//!
//! `cargo run --example rooms [ADDRESS]`, then connect several clients.

use std::collections::{HashMap, HashSet};

use adjourn::{
    Clients, CloseCode, CloseFrame, Config, ConnectionId, Event, Handler, Message, Server,
    config::OnOverflow,
    http::{Response, Upgrade, UpgradeRequest},
};

#[derive(Default)]
pub(crate) struct Chat {
    /// Who is in a room, in the order of entering.
    rooms: HashMap<String, Vec<ConnectionId>>,
    banned: HashSet<Member>,
}

/// What is kept of a connection.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Member {
    room: String,
    name: String,
}

impl Handler for Chat {
    type Data = Member;

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, Member> {
        let name = request.query_value("name").unwrap_or("somebody".into());
        let member = Member { room: request.path().to_owned(), name: name.into_owned() };
        if self.banned.contains(&member) {
            return Upgrade::Reject(Response::new(403).expect("a final status"));
        }
        Upgrade::accept(member)
    }

    fn on_event(&mut self, clients: &mut Clients<'_, Member>, event: Event<'_>) {
        let Some(id) = event.id() else { return };
        let Some(member) = clients.get(id).map(|client| client.data().clone()) else { return };
        match event {
            Event::Open { .. } => {
                self.rooms.entry(member.room.clone()).or_default().push(id);
                self.say(clients, id, &member, "enters");
            }
            Event::Message { message: Message::Text(text), closing: false, .. } => {
                match text.strip_prefix("/ban ") {
                    Some(name) => self.ban(clients, id, Member { name: name.to_owned(), ..member }),
                    None => self.say(clients, id, &member, text),
                }
            }
            Event::Close { .. } => {
                if let Some(room) = self.rooms.get_mut(&member.room) {
                    room.retain(|other| *other != id);
                }
                self.say(clients, id, &member, "leaves");
                self.rooms.retain(|_, room| !room.is_empty());
            }
            _ => {}
        }
    }
}

impl Chat {
    /// Tells the others in the room: one frame, whose bytes all of them share.
    fn say(&self, clients: &mut Clients<'_, Member>, from: ConnectionId, member: &Member, text: &str) {
        let others = self.rooms.get(&member.room).into_iter().flatten().filter(|id| **id != from);
        clients.send_to(others.copied(), [format!("{}: {text}", member.name)]);
    }

    fn ban(&mut self, clients: &mut Clients<'_, Member>, by: ConnectionId, member: Member) {
        let room = self.rooms.get(&member.room).map_or(&[][..], Vec::as_slice);
        if room.first() != Some(&by) {
            let _ = clients.send(by, "only the first in the room bans");
            return;
        }
        for id in room {
            if clients.get(*id).is_some_and(|client| *client.data() == member) {
                // What is queued is dropped for it, so that one who does not read gets the last word, too.
                clients.kick_now(*id, "you are banned", CloseFrame::of(CloseCode::POLICY));
            }
        }
        self.banned.insert(member);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".into());
    let mut config = Config::default();
    // Who reads too slowly is closed with 1013, and the others are not delayed.
    config.connection.max_backlog = 1 << 20;
    config.connection.on_overflow = OnOverflow::Fail;
    let mut server = Server::bind(address, config)?;
    println!("listening on ws://{}/ROOM?name=NAME", server.local_addr().ok_or("not listening")?);
    server.run_with(&mut Chat::default())?;
    Ok(())
}

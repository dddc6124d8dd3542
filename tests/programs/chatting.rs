//! `examples/rooms.rs`.

use tungstenite::Message;

use crate::{Running, connect, next, rooms::Chat};

#[test]
fn a_room_hears_what_is_said_in_it_and_no_other_does() {
    let server = Running::of(Chat::default());
    let mut ann = connect(server.address, "/garden?name=ann").expect("101");
    let mut eve = connect(server.address, "/cellar?name=eve").expect("101");
    let mut bob = connect(server.address, "/garden?name=bob").expect("101");
    assert_eq!(next(&mut ann), Ok("bob: enters".into()));
    bob.send(Message::text("hello")).expect("it is open");
    assert_eq!(next(&mut ann), Ok("bob: hello".into()));
    bob.close(None).expect("it is open");
    assert_eq!(next(&mut bob), Err(1005));
    assert_eq!(next(&mut ann), Ok("bob: leaves".into()));
    let mut zoe = connect(server.address, "/cellar?name=zoe").expect("101");
    assert_eq!(next(&mut eve), Ok("zoe: enters".into()), "nothing of the garden came before");
    eve.send(Message::text("psst")).expect("it is open");
    assert_eq!(next(&mut zoe), Ok("eve: psst".into()));
}

#[test]
fn the_first_in_a_room_bans_a_name_from_it() {
    let server = Running::of(Chat::default());
    let mut ann = connect(server.address, "/garden?name=ann").expect("101");
    let mut bob = connect(server.address, "/garden?name=bob").expect("101");
    assert_eq!(next(&mut ann), Ok("bob: enters".into()));
    bob.send(Message::text("/ban ann")).expect("it is open");
    assert_eq!(next(&mut bob), Ok("only the first in the room bans".into()));
    ann.send(Message::text("/ban bob")).expect("it is open");
    assert_eq!(next(&mut bob), Ok("you are banned".into()));
    assert_eq!(next(&mut bob), Err(1008));
    assert_eq!(next(&mut ann), Ok("bob: leaves".into()));
    assert_eq!(connect(server.address, "/garden?name=bob").err(), Some(403));
    assert!(connect(server.address, "/cellar?name=bob").is_ok(), "another room");
}

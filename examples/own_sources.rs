//! Sources of the application's own on the server's loop: a UDP socket whose datagrams go to all clients, and a pipe that
//! ends the server with the standard input. `own_sources [PORT]`

use std::{
    io::{self, Read as _},
    thread,
};

use adjourn::{Config, Event, Server, ShutdownPlan, shutdown::ShutdownReport};
use mio::{Interest, net::UdpSocket, unix::pipe};

pub(crate) fn run(
    mut server: Server,
    mut udp: UdpSocket,
    mut commands: pipe::Receiver,
) -> io::Result<ShutdownReport> {
    let sources = server.sources()?;
    let datagrams = sources.register(&mut udp, Interest::READABLE)?;
    sources.register(&mut commands, Interest::READABLE)?;
    let mut buffer = [0; 2048];
    server.run(move |clients, event| match event {
        Event::Source { source, .. } if source == datagrams => loop {
            match udp.recv(&mut buffer) {
                Ok(n) => drop(clients.broadcast(&buffer[..n], |_| true)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return eprintln!("{error}"),
            }
        },
        Event::Source { source, .. } => loop {
            match commands.read(&mut buffer) {
                // The other end was closed.
                Ok(0) => {
                    let _ = sources.deregister(&mut commands);
                    return clients.shutdown(ShutdownPlan::default());
                }
                Ok(_) => println!("{} clients; {source:?} goes on", clients.len()),
                Err(_) => return,
            }
        },
        other => println!("{other:?}"),
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).map_or(Ok(9001), |port| port.parse())?;
    let server = Server::bind(("127.0.0.1", port), Config::default())?;
    let udp = UdpSocket::bind(([127, 0, 0, 1], port).into())?;
    let (mut sender, receiver) = pipe::new()?;
    sender.set_nonblocking(false)?;
    thread::spawn(move || io::copy(&mut io::stdin(), &mut sender));
    run(server, udp, receiver)?;
    Ok(())
}

//! A restart that refuses nobody: started again, the server takes the listening socket over from the process that runs, which then
//! sends its clients to the new one, with 1012 and spread over two seconds.
//!
//! `cargo run --example restart -- 127.0.0.1:9001 /tmp/restart.sock`, and the same again in another terminal, as often as you like.

use std::{
    error::Error,
    io::{IoSlice, IoSliceMut, Read as _, Write as _},
    mem::MaybeUninit,
    net::TcpListener,
    os::{
        fd::AsFd as _,
        unix::net::{UnixListener, UnixStream},
    },
    thread,
    time::Duration,
};

use adjourn::{
    CloseFrame, Config, Event, Handle, Server, ShutdownPlan,
    shutdown::{LameDuckPolicy, Pace},
};
use rustix::{
    cmsg_space,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg,
    },
};

const READY: &[u8; 5] = b"ready";

fn main() -> Result<(), Box<dyn Error>> {
    let (Some(address), Some(control)) = (std::env::args().nth(1), std::env::args().nth(2)) else {
        return Err("usage: restart ADDRESS CONTROL_SOCKET".into());
    };
    run(&address, &control)
}

/// A process that can write to the file `control` can take the port over: keep it in a directory of your own.
pub(crate) fn run(address: &str, control: &str) -> Result<(), Box<dyn Error>> {
    let predecessor = UnixStream::connect(control).ok();
    let listener = match &predecessor {
        Some(predecessor) => receive(predecessor)?,
        None => TcpListener::bind(address)?,
    };
    let mut server = Server::outgoing(Config::default())?;
    server.listen_on(listener.try_clone()?)?;
    println!("{}: listening on {}", std::process::id(), listener.local_addr()?);
    // All that can fail comes before the predecessor is asked to stop, or nobody might have the port.
    let successors = bind_in_place(control)?;
    if let Some(mut predecessor) = predecessor {
        // One that has ended meanwhile needs no message.
        let _ = predecessor.write_all(READY);
    }
    let handle = server.handle();
    thread::spawn(move || wait_for_successor(&successors, &listener, &handle));

    let report = server.run(|clients, event| {
        if let Event::Message { id, message, closing: false } = event {
            let _ = clients.send(id, message);
        }
    })?;
    println!("{}: {report}", std::process::id());
    Ok(())
}

/// Listens at a path that the predecessor may still have.
fn bind_in_place(control: &str) -> std::io::Result<UnixListener> {
    let fresh = format!("{control}.{}", std::process::id());
    let _ = std::fs::remove_file(&fresh);
    let socket = UnixListener::bind(&fresh)?;
    std::fs::rename(&fresh, control)?;
    Ok(socket)
}

/// Hands the listener over, and shuts down as soon as the successor serves it. One that fails before that changes nothing.
fn wait_for_successor(control: &UnixListener, listener: &TcpListener, handle: &Handle) {
    for mut successor in control.incoming().flatten() {
        let _ = successor.set_read_timeout(Some(Duration::from_secs(30)));
        let mut answer = [0; READY.len()];
        if send(&successor, listener).is_ok() && successor.read_exact(&mut answer).is_ok() && answer == *READY
        {
            let mut plan = ShutdownPlan::soft(Duration::from_secs(5));
            // We do not accept any more; who is in the handshake has a second to complete it.
            (plan.listeners, plan.lame_duck) = (LameDuckPolicy::HandOver, Duration::from_secs(1));
            (plan.frame, plan.pace) = (CloseFrame::SERVICE_RESTART, Pace::Spread(Duration::from_secs(2)));
            let _ = handle.shutdown(plan);
            return;
        }
    }
}

fn send(stream: &UnixStream, listener: &TcpListener) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    let descriptors = [listener.as_fd()];
    message.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(stream, &[IoSlice::new(b"l")], &mut message, SendFlags::empty()).map(drop)
}

fn receive(stream: &UnixStream) -> Result<TcpListener, Box<dyn Error>> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    // Children would have it, too; this process has none. Linux has `RecvFlags::CMSG_CLOEXEC` for that.
    recvmsg(stream, &mut [IoSliceMut::new(&mut [0])], &mut message, RecvFlags::empty())?;
    let mut descriptors = message.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptor = descriptors.next().and_then(|mut descriptors| descriptors.next());
    Ok(descriptor.ok_or("the predecessor sent no listener")?.into())
}

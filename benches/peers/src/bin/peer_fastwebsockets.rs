//! fastwebsockets on tokio, single-threaded, after a handshake of our own (its `upgrade` feature would add hyper to
//! the bill). The library writes once per frame; it has no way to say "nothing more to read, flush now".

use adjourn_peers::tasks::{self, Hub, Membership};
use bytes::{Bytes, BytesMut};
use fastwebsockets::{FragmentCollector, FragmentCollectorRead, Frame, OpCode, Payload, Role, WebSocket};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Only as much of a frame as another task needs to send it.
#[derive(Clone)]
struct Out(OpCode, Bytes);

impl Out {
    fn frame(self) -> Frame<'static> {
        Frame::new(true, self.0, None, Payload::Bytes(BytesMut::from(self.1)))
    }
}

fn main() -> std::io::Result<()> {
    tasks::run(connection)
}

async fn connection(mut stream: TcpStream, hub: Arc<Hub<Out>>) {
    let mut head = BytesMut::with_capacity(1024);
    let upgrade = loop {
        match stream.read_buf(&mut head).await {
            Ok(n) if n > 0 => {}
            _ => return,
        }
        if let Some(upgrade) = adjourn_peers::parse_upgrade(&head) {
            break upgrade;
        }
    };
    drop(head);
    if stream.write_all(adjourn_peers::accept_response(&upgrade.key).as_bytes()).await.is_err() {
        return;
    }
    if upgrade.broadcast { broadcast(stream, hub).await } else { echo(stream, hub).await }
}

/// The result of a read, or `None` when SIGTERM came first.
async fn unless_closing<F: Future>(member: &Membership<Out>, close_sent: bool, read: F) -> Option<F::Output> {
    let mut read = pin!(read);
    poll_fn(|cx| match read.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if member.hub.closing() && !close_sent => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

async fn echo(stream: TcpStream, hub: Arc<Hub<Out>>) {
    let member = hub.join(false).await;
    let mut socket = FragmentCollector::new(WebSocket::after_handshake(stream, Role::Server));
    let mut close_sent = false;
    loop {
        let Some(read) = unless_closing(&member, close_sent, socket.read_frame()).await else {
            close_sent = true;
            if socket.write_frame(Frame::close(1001, b"")).await.is_err() {
                return;
            }
            continue;
        };
        let Ok(frame) = read else { return };
        if frame.opcode == OpCode::Close {
            return;
        }
        if matches!(frame.opcode, OpCode::Text | OpCode::Binary) {
            let reply = Frame::new(true, frame.opcode, None, frame.payload);
            if socket.write_frame(reply).await.is_err() {
                return;
            }
        }
    }
}

/// Two tasks per connection, as the library's documentation splits them: this one reads, the other one writes.
async fn broadcast(stream: TcpStream, hub: Arc<Hub<Out>>) {
    let (read, write) = stream.into_split();
    let (read, mut write) = fastwebsockets::after_handshake_split(read, write, Role::Server);
    let (ready, member) = tokio::sync::oneshot::channel();
    let writer_hub = Arc::clone(&hub);
    let writer = tokio::spawn(async move {
        let member = Arc::new(writer_hub.join(true).await);
        let _ = ready.send(Arc::clone(&member));
        let mut close_sent = false;
        loop {
            let next = poll_fn(|_| match member.client.pop() {
                Some(out) => Poll::Ready(out),
                None if member.hub.closing() && !close_sent => {
                    close_sent = true;
                    Poll::Ready(Out(OpCode::Close, Bytes::from_static(&[0x03, 0xe9])))
                }
                None => Poll::Pending,
            })
            .await;
            if write.write_frame(next.frame()).await.is_err() {
                return;
            }
        }
    });
    if let Ok(member) = member.await {
        let mut read = FragmentCollectorRead::new(read);
        let mut answer = |frame: Frame<'_>| {
            if frame.opcode != OpCode::Close {
                member.client.push(Out(frame.opcode, Bytes::copy_from_slice(&frame.payload)));
            }
            std::future::ready(Ok::<(), Infallible>(()))
        };
        while let Ok(frame) = read.read_frame(&mut answer).await {
            match frame.opcode {
                OpCode::Close => break,
                opcode => member.relay(&Out(opcode, Bytes::copy_from_slice(&frame.payload))),
            }
        }
    }
    writer.abort();
    let _ = writer.await;
}

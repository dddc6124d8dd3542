//! socketioxide with the events that the load generator asks for, on one thread: `echo`, `join`, `burst`.

use axum::Router;
use serde_json::Value;
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, Data, SocketRef};

fn on_connection(socket: SocketRef) {
    socket.on("echo", async |Data::<Value>(argument), ack: AckSender| {
        let _ = ack.send(&argument);
    });
    socket.on("join", async |socket: SocketRef, Data::<String>(room), ack: AckSender| {
        socket.join(room.clone());
        let _ = ack.send(&[room]);
    });
    socket.on("burst", async |socket: SocketRef, Data::<(String, u64, String, u64)>((room, count, tag, _)), ack: AckSender| {
        for i in 0..count {
            let _ = socket.to(room.clone()).emit("msg", &(&tag, i)).await;
        }
        let _ = ack.send(&count);
    });
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let port: u16 = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(0);
    let (layer, io) = SocketIo::builder().max_buffer_size(1 << 16).build_layer();
    io.ns("/", async |socket: SocketRef| on_connection(socket));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("{{\"event\":\"listening\",\"port\":{}}}", listener.local_addr()?.port());
    axum::serve(listener, Router::new().layer(layer)).await
}

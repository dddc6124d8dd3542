//! What the official protocol suites speak to.

use adjourn_socketio::SocketIo;
use adjourn_socketio::links::FrameRef;
use adjourn_socketio::packet::ArgsBuf;

/// `/` and `/custom`, as `docs/socket.io-protocol/v5-test-suite` of the official repository wants them.
pub(crate) fn serve_socket(io: &mut SocketIo) {
    for name in ["/", "/custom"] {
        io.namespace(name).on_connection(|socket| {
            let auth = socket.handshake().auth().unwrap_or("{}");
            let args = ArgsBuf::from_json(format!("[{auth}]"), Vec::new()).unwrap_or_default();
            let _ = socket.emit("auth", &args);
        });
    }
    let main = io.namespace("/");
    main.on("message", |socket, args, _| {
        let _ = socket.emit("message-back", args);
    });
    main.on("message-with-ack", |socket, args, ack| {
        if let Some(ack) = ack {
            let _ = ack.send(socket.io(), args);
        }
    });
}

/// Every message is sent back, as `docs/engine.io-protocol/v4-test-suite` wants it.
pub(crate) fn serve_engine(io: &mut SocketIo) {
    io.on_engine_message(|session, message| match message {
        FrameRef::Text(text) => session.send_text(text),
        FrameRef::Binary(bytes) => session.send_binary(bytes.to_vec()),
    });
}

//! An echo over TLS, whose certificate is read again when somebody presses Enter.
//!
//! `cargo run --example wss_echo --features tls -- CERT KEY [ADDRESS [--deflate]]`, with two PEM files. A certificate to try it with:
//! `openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 30 -subj /CN=localhost -addext
//! basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:localhost,IP:127.0.0.1`

use adjourn::{
    CloseCode, CloseFrame, Config, Event, Server,
    config::Deflate,
    tls::{Identity, ServerTls},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (chain, key) = args.next().zip(args.next()).ok_or("wss_echo CERT KEY [ADDRESS [--deflate]]")?;
    let address = args.next().unwrap_or_else(|| "127.0.0.1:9443".into());
    let tls = ServerTls::new(Identity::from_files(&chain, &key)?);
    let mut config = Config::default();
    config.deflate = args.next().is_some_and(|switch| switch == "--deflate").then(|| {
        let mut deflate = Deflate::default();
        (deflate.server_no_context_takeover, deflate.client_no_context_takeover) = (false, false);
        deflate
    });
    config.listener.tls = Some(tls.clone());
    let mut server = Server::bind(address, config)?;
    println!("listening on wss://{}", server.local_addr().ok_or("not listening")?);

    std::thread::spawn(move || {
        for _ in std::io::stdin().lines() {
            match Identity::from_files(&chain, &key) {
                // Handshakes that begin from now on have the new one.
                Ok(identity) => tls.replace(&ServerTls::new(identity)),
                Err(error) => eprintln!("the certificate stays: {error}"),
            }
        }
    });
    server.run(|clients, event| match event {
        Event::Message { id, message, closing: false } => {
            if let Some(frame) = message.as_text().and_then(asked_to_close) {
                clients.close(id, frame);
            } else if let Err(error) = clients.send(id, message) {
                eprintln!("{id}: {error}");
            }
        }
        Event::HandshakeFailed { peer, error, .. } => eprintln!("{peer}: {error}"),
        _ => {}
    })?;
    Ok(())
}

/// `close 4000 good bye` -> the frame, if it is a legal one.
fn asked_to_close(text: &str) -> Option<CloseFrame> {
    let (code, reason) = text.strip_prefix("close ")?.split_once(' ').unwrap_or((text.get(6..)?, ""));
    CloseFrame::new(CloseCode::new(code.parse().ok()?).ok()?, reason.to_owned()).ok()
}

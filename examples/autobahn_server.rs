//! The echo server that the Autobahn suite drives: limits high enough for its 16 MiB cases.
//!
//! `cargo run --release --example autobahn_server [ADDRESS [CERT KEY]]`: with two PEM files over TLS.

use adjourn::{Config, Event, Server, ShutdownPlan, config::Deflate};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9002".into());
    let mut config = Config::default();
    config.connection.max_payload = 64 << 20;
    config.connection.max_backlog = 256 << 20;
    config.deflate = Some(Deflate::default());
    let scheme = if let (Some(chain), Some(key)) = (std::env::args().nth(2), std::env::args().nth(3)) {
        set_tls(&mut config, &chain, &key)?;
        "wss"
    } else {
        "ws"
    };
    let mut server = Server::bind(address, config)?;
    server.shutdown_on_signals(ShutdownPlan::hard())?;
    println!("listening on {scheme}://{}", server.local_addr().ok_or("not listening")?);

    server.run(|clients, event| {
        if let Event::Message { id, message, closing: false } = event
            && let Err(error) = clients.send(id, message)
        {
            eprintln!("{id}: {error}");
        }
    })?;
    Ok(())
}

#[cfg(feature = "tls")]
fn set_tls(config: &mut Config, chain: &str, key: &str) -> Result<(), Box<dyn std::error::Error>> {
    use adjourn::tls::{Identity, ServerTls};

    config.listener.tls = Some(ServerTls::new(Identity::from_files(chain, key)?));
    Ok(())
}

#[cfg(not(feature = "tls"))]
fn set_tls(_: &mut Config, _: &str, _: &str) -> Result<(), Box<dyn std::error::Error>> {
    Err("built without the feature `tls`".into())
}

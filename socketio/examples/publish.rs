//! Publishes one event to the clients of all nodes on a Redis store, from a process that serves none.
//!
//!     publish redis://127.0.0.1:6379 sio-lab / ROOM EVENT '["argument", 2]'

use std::process::ExitCode;

use adjourn_socketio::Emitter;
use serde_json::value::RawValue;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [url, prefix, namespace, room, event, args] = words.as_slice() else {
        eprintln!("publish URL PREFIX NAMESPACE ROOM EVENT ARGUMENTS, the last as a JSON array");
        return ExitCode::from(2);
    };
    match publish(url, prefix, namespace, room, event, args) {
        Ok(position) => {
            println!("{position}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("publish: {error}");
            ExitCode::FAILURE
        }
    }
}

fn publish(
    url: &str,
    prefix: &str,
    namespace: &str,
    room: &str,
    event: &str,
    args: &str,
) -> Result<String, Box<dyn std::error::Error>> {
    let args: Vec<Box<RawValue>> = serde_json::from_str(args)?;
    let mut emitter = Emitter::connect(url, prefix)?;
    let rooms: &[&str] = if room.is_empty() { &[] } else { &[room] };
    Ok(emitter.emit(namespace, rooms, event, args)?.to_string())
}

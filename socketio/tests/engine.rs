//! Sections 2 to 5 of specification: admission, transports, upgrade, heartbeat. Virtual time; bytes literal in and out.

#[path = "support/engine_script.rs"]
mod script;

#[path = "engine/heartbeat.rs"]
mod heartbeat;
#[path = "engine/polling.rs"]
mod polling;
#[path = "engine/requests.rs"]
mod requests;
#[path = "engine/suite.rs"]
mod suite;
#[path = "engine/upgrade.rs"]
mod upgrade;
#[path = "engine/websocket.rs"]
mod websocket;

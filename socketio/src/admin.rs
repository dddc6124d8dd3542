//! A namespace for the official admin page (npm `@socket.io/admin-ui`): servers, namespaces, sockets, rooms and events, live; and
//! to emit, join, leave and disconnect from there.
//!
//! ```no_run
//! use adjourn_socketio::{MemoryStore, SocketIo, SocketIoConfig, admin::AdminConfig};
//!
//! let mut io = SocketIo::new(SocketIoConfig::default(), MemoryStore::new())?;
//! io.admin(AdminConfig::basic("admin", std::env::var("ADMIN_PASSWORD")?));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! The page shows each socket's query, data and kept headers, so a password is for those who may see them. A page that reads too
//! slowly misses events, and is sent all sockets anew. With events on, each event costs a copy for each of its receivers: switch
//! that off on a busy server ([`AdminConfig::events`]). Of several processes on a shared store a page sees everything, whichever it is
//! connected to, if each has opened the namespace.
//!
//! Passwords are compared in constant time, but for their length. Ten wrong ones of an address (of an IPv6 address, its /64), or a
//! hundred in all, and none is looked at for the rest of a minute, in each process; a page that was let in before can still be loaded
//! again. Behind a proxy all clients have one address.

mod guesses;
mod others;
mod page;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use subtle::ConstantTimeEq as _;

use self::guesses::Guesses;
use self::others::Others;
use self::page::Page;
use crate::core::{Core, Handshake, Io, Observed, Socket, Verdict};
use crate::error::ConnectError;
use crate::packet::Args;

/// How often the page gets numbers, as officially.
const STATS_INTERVAL: Duration = Duration::from_secs(2);

/// Bytes that may wait for a page before events for it are left out.
const MAX_UNSENT: usize = 64 * 1024;

/// Pages that may be open again without a password. The oldest is forgotten first.
const MAX_SESSIONS: usize = 1_000;

/// The settings of the admin namespace.
#[derive(Clone)]
#[non_exhaustive]
pub struct AdminConfig {
    /// Its name: what the page asks for. `/admin`.
    pub namespace: String,
    /// Name and password that the page asks for; `None`: everybody who can connect is let in.
    pub login: Option<(String, String)>,
    /// Whether the page may only look. False.
    pub read_only: bool,
    /// Whether it gets sockets, rooms and events as they happen, or numbers alone (as the official mode "production"). True.
    pub events: bool,
    /// The name of this process among several. The name of the host, and the process id.
    pub server_id: String,
}

impl AdminConfig {
    /// Lets in who has this name and password.
    pub fn basic(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { login: Some((username.into(), password.into())), ..Self::open() }
    }

    /// Lets everybody in. For a port that only operators can reach.
    pub fn open() -> Self {
        let server_id = format!("{}#{}", page::hostname(), std::process::id());
        Self { namespace: String::from("/admin"), login: None, read_only: false, events: true, server_id }
    }

    fn allows(&self, username: &str, password: &str) -> bool {
        let Some(login) = &self.login else { return true };
        let name = login.0.as_bytes().ct_eq(username.as_bytes());
        let word = login.1.as_bytes().ct_eq(password.as_bytes());
        (name & word).into()
    }

    fn features(&self) -> Vec<&'static str> {
        let mut features = vec!["AGGREGATED_EVENTS"];
        if !self.read_only {
            features.extend(["EMIT", "JOIN", "LEAVE", "DISCONNECT", "MJOIN", "MLEAVE", "MDISCONNECT"]);
        }
        if self.events {
            features.push("ALL_EVENTS");
        }
        features
    }
}

/// Without the password.
impl fmt::Debug for AdminConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminConfig")
            .field("namespace", &self.namespace)
            .field("read_only", &self.read_only)
            .field("events", &self.events)
            .field("server_id", &self.server_id)
            .finish_non_exhaustive()
    }
}

/// What all handlers of the namespace share.
struct Admin {
    config: AdminConfig,
    sessions: Mutex<VecDeque<String>>,
    page: Mutex<Page>,
    guesses: Mutex<Guesses>,
    others: Mutex<Others>,
}

/// What the page sends with CONNECT: name and password, or a session that it was given before.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Login {
    username: Option<String>,
    password: Option<String>,
    session_id: Option<String>,
}

impl Login {
    fn of(handshake: &Handshake) -> Self {
        handshake.auth().and_then(|auth| serde_json::from_str(auth).ok()).unwrap_or_default()
    }
}

/// Opens the namespace on a core. [`SocketIo::admin`](crate::SocketIo::admin) does it for a server.
pub fn install(core: &mut Core, config: AdminConfig) {
    let namespace = config.namespace.clone();
    let (read_only, events) = (config.read_only, config.events);
    let admin = Arc::new(Admin {
        config,
        sessions: Mutex::default(),
        page: Mutex::default(),
        guesses: Mutex::default(),
        others: Mutex::default(),
    });

    let handlers = core.namespace(&namespace);
    let this = Arc::clone(&admin);
    handlers.check(move |handshake, verdict| this.check(handshake, verdict));
    let this = Arc::clone(&admin);
    handlers.on_connection(move |socket| this.connected(socket));
    let this = Arc::clone(&admin);
    handlers.on_disconnect(move |socket, _| locked(&this.page).watchers.retain(|id| id != socket.id()));
    if !read_only {
        handlers.on("emit", |socket, args, _| emit(socket, args));
        handlers.on("join", |socket, args, _| change_room(socket, args, true));
        handlers.on("leave", |socket, args, _| change_room(socket, args, false));
        handlers.on("_disconnect", |socket, args, _| disconnect(socket, args));
    }
    if events {
        let this = Arc::clone(&admin);
        core.observe(&namespace, move |io, observed| this.observed(io, observed));
        others::install(core, &admin);
    }
    core.after(STATS_INTERVAL, move |io| admin.tick(io));
}

impl Admin {
    fn check(&self, handshake: &Handshake, verdict: Verdict) {
        let login = Login::of(handshake);
        if self.knows(&login) {
            return verdict.accept("");
        }
        let from = handshake.peer().address.map(|address| address.ip());
        let mut guesses = locked(&self.guesses);
        if guesses.are_too_many(from) {
            return verdict.refuse(ConnectError::new("too many wrong passwords, try again in a minute"));
        }
        let (name, word) = (login.username.as_deref(), login.password.as_deref());
        if self.config.allows(name.unwrap_or_default(), word.unwrap_or_default()) {
            return verdict.accept("");
        }
        if name.is_some() || word.is_some() {
            guesses.count(from);
        }
        // The page shows this text as a wrong password.
        verdict.refuse(ConnectError::new("invalid credentials"));
    }

    fn knows(&self, login: &Login) -> bool {
        let Some(session) = &login.session_id else { return false };
        locked(&self.sessions).iter().any(|known| known.as_bytes().ct_eq(session.as_bytes()).into())
    }

    fn connected(self: &Arc<Self>, socket: &mut Socket<'_>) {
        locked(&self.page).watchers.push(Arc::clone(socket.id()));
        let is_new = self.config.login.is_some() && !self.knows(&Login::of(socket.handshake()));
        let this = Arc::clone(socket.id());
        let mut begin = |event, argument| self.send_to(socket.io(), &this, event, &[argument]);
        if let Some(session) = is_new.then(|| self.new_session()).flatten() {
            begin("session", json!(session));
        }
        begin("config", json!({ "supportedFeatures": self.config.features() }));
        if self.config.events {
            // Others have begun to send what happens when they say which sockets they have.
            self.ask_others(socket.io());
            page::send_all_sockets(&self.config.namespace, Some(&this), socket.io());
        }
    }

    fn new_session(&self) -> Option<String> {
        let session = format!("{:016x}{:016x}", getrandom::u64().ok()?, getrandom::u64().ok()?);
        let mut sessions = locked(&self.sessions);
        sessions.truncate(MAX_SESSIONS - 1);
        sessions.push_front(session.clone());
        Some(session)
    }

    fn observed(self: &Arc<Self>, io: &mut Io<'_>, observed: &Observed) {
        let Some((event, arguments)) = page::arguments(io, observed) else { return };
        self.send(io, event, &arguments);
        self.send_to_others(io, event, arguments);
    }

    /// Sends to all pages of this process that keep up; the others are sent all sockets once they do.
    fn send(&self, io: &mut Io<'_>, event: &str, arguments: &[serde_json::Value]) {
        let watchers = locked(&self.page).watchers.clone();
        for page in watchers {
            let unsent = io.socket(&self.config.namespace, &page).map_or(0, |mut page| page.unsent());
            if unsent > MAX_UNSENT {
                locked(&self.page).is_stale = true;
            } else {
                self.send_to(io, &page, event, arguments);
            }
        }
    }

    /// Not logged. Not volatile either: that would be dropped while a page polls.
    fn send_to(&self, io: &mut Io<'_>, page: &str, event: &str, arguments: &[serde_json::Value]) {
        report(event, io.of(&self.config.namespace).to(page).local().emit(event, arguments));
    }

    fn tick(self: Arc<Self>, io: &mut Io<'_>) {
        let dropped = io.take_dropped_observations() > 0;
        let is_stale = std::mem::take(&mut locked(&self.page).is_stale);
        locked(&self.guesses).tick(io.now());
        self.send_stats(io);
        if self.config.events && (is_stale || dropped) {
            page::send_all_sockets(&self.config.namespace, None, io);
        }
        if self.config.events && !locked(&self.page).watchers.is_empty() {
            self.ask_others(io);
        }
        io.after(STATS_INTERVAL, move |io| self.tick(io));
    }

    fn send_stats(&self, io: &mut Io<'_>) {
        let stats = locked(&self.page).stats(&self.config.server_id, io);
        io.of(&self.config.namespace).emit_volatile("server_stats", (stats,));
    }
}

/// A handler that panicked while it held the lock leaves numbers that are still numbers.
fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sockets that the page means: all of a namespace, or those of a room or with an id.
fn chosen<'s>(socket: &'s mut Socket<'_>, namespace: &str, room: Option<&str>) -> crate::core::Broadcast<'s> {
    let all = socket.io().of(namespace);
    match room {
        Some(room) if !room.is_empty() => all.to(room),
        _ => all,
    }
}

/// `emit(namespace, room or null, event, ...args)`.
fn emit(socket: &mut Socket<'_>, args: Args<'_>) {
    let Ok((namespace, room, event)) = args.parse::<(String, Option<String>, String)>() else { return };
    let rest: Result<Vec<serde_json::Value>, _> = (3..args.len()).map(|index| args.get(index)).collect();
    let Ok(rest) = rest else { return };
    report("emit", chosen(socket, &namespace, room.as_deref()).emit(&event, rest.as_slice()));
}

/// `join(namespace, room, room or id of those who join)`, `leave` likewise.
fn change_room(socket: &mut Socket<'_>, args: Args<'_>, join: bool) {
    let Ok((namespace, room)) = args.parse::<(String, String)>() else { return };
    let filter: Option<String> = args.get(2).ok().flatten();
    let sockets = chosen(socket, &namespace, filter.as_deref());
    if join {
        report("join", sockets.join(room.as_str()));
    } else {
        report("leave", sockets.leave(room.as_str()));
    }
}

/// `_disconnect(namespace, with the connection?, room or id)`.
fn disconnect(socket: &mut Socket<'_>, args: Args<'_>) {
    let Ok((namespace, with_connection)) = args.parse::<(String, bool)>() else { return };
    let filter: Option<String> = args.get(2).ok().flatten();
    report("disconnect", chosen(socket, &namespace, filter.as_deref()).disconnect(with_connection));
}

/// The page has no place for an error, so it goes to the log.
fn report(what: &str, result: Result<(), crate::error::EmitError>) {
    if let Err(error) = result {
        tracing::warn!(target: "adjourn_socketio", what, %error, "an event of the admin page, or for it, failed");
    }
}

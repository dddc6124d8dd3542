//! The lab's events.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adjourn::shutdown::ShutdownPlan;
use adjourn_socketio::core::{
    Ack, AckOptions, Handshake, Io, Namespace, Once, ResumeOutcome, Socket, Transport,
};
use adjourn_socketio::error::ConnectError;
use adjourn_socketio::packet::{Args, Raw, ToArgs};
use adjourn_socketio::reason::Reason;
use adjourn_socketio::store::AckValue;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::http::LateHandle;
use crate::print_line;
use crate::process;
use crate::rows::Rows;

/// Reasons of disconnects that are kept.
const REASONS: usize = 100_000;

/// The room of all who get `row`. Rooms that begin with `~` are never listed.
const ROWS: &str = "~rows";

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Lab {
    pub(crate) handle: LateHandle,
    pub(crate) rows: Rows,
    pub(crate) plan: ShutdownPlan,
    pub(crate) log: bool,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// Receipts of a client offset, by namespace.
    attempts: HashMap<(Arc<str>, String), u64>,
    reasons: HashMap<Arc<str>, Reason>,
    /// The ids of `reasons`, oldest first.
    ids: VecDeque<Arc<str>>,
}

impl Lab {
    pub(crate) fn new(handle: LateHandle, rows: Rows, plan: ShutdownPlan, log: bool) -> Self {
        Self { handle, rows, plan, log, seen: Arc::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A namespace with all events.
    pub(crate) fn serve(&self, namespace: &mut Namespace) {
        self.serve_connections(namespace);
        serve_session(namespace);
        serve_rooms(namespace);
        self.serve_ends(namespace);
        self.serve_rows(namespace);
        serve_process(namespace);
    }

    fn serve_connections(&self, namespace: &mut Namespace) {
        let lab = self.clone();
        namespace.on_connection(move |socket| {
            lab.connected(socket);
            if !socket.rooms().iter().any(|room| &**room == ROWS) {
                lab.subscribe(socket);
            }
        });
        self.log_disconnects(namespace);
    }

    /// A namespace that only echoes.
    pub(crate) fn serve_echo(&self, namespace: &mut Namespace) {
        let lab = self.clone();
        namespace.on_connection(move |socket| lab.connected(socket));
        self.log_disconnects(namespace);
        namespace.on("echo", echo);
    }

    fn connected(&self, socket: &Socket<'_>) {
        if self.log {
            print_line(&json!({
                "event": "connected",
                "nsp": socket.handshake().namespace(),
                "id": &**socket.id(),
                "transport": transport_name(socket.transport()),
                "resume": socket.resume().as_str(),
                "missed": missed(socket.resume()),
            }));
        }
    }

    fn log_disconnects(&self, namespace: &mut Namespace) {
        let lab = self.clone();
        namespace.on_disconnect(move |socket, disconnect| {
            lab.seen().note(Arc::clone(socket.id()), disconnect.reason);
            if lab.log {
                print_line(&json!({
                    "event": "disconnected",
                    "nsp": socket.handshake().namespace(),
                    "id": &**socket.id(),
                    "reason": disconnect.reason.as_str(),
                    "close_code": disconnect.close_code,
                }));
            }
        });
    }

    /// A session without the room gets the rows that it says it has not, and then each that is stored; or comes back.
    fn subscribe(&self, socket: &mut Socket<'_>) {
        let auth = socket.handshake().auth().and_then(|auth| serde_json::from_str::<Value>(auth).ok());
        let after = auth.as_ref().and_then(|auth| auth.get("serverOffset")).and_then(Value::as_f64);
        let Some(after) = after else {
            let _ = socket.join(ROWS);
            return;
        };
        let rows = self.rows.clone();
        #[allow(clippy::cast_possible_truncation, reason = "a float beyond an integer saturates")]
        let after = after.floor() as i64;
        let (namespace, id) = (socket.handshake().namespace().to_owned(), Arc::clone(socket.id()));
        let joined = socket.transact(
            move |tx| {
                for row in rows.select(tx, after, "")? {
                    tx.emit("row", (&row.content, row.id))?;
                }
                tx.join(ROWS);
                Ok(())
            },
            move |io, done| {
                if let (Err(error), Some(mut socket)) = (done, io.socket(&namespace, &id)) {
                    eprintln!("no rows: {error}");
                    socket.close_engine();
                }
            },
        );
        if let Err(error) = joined {
            eprintln!("no rows: {error}");
            socket.close_engine();
        }
    }

    fn serve_ends(&self, namespace: &mut Namespace) {
        let lab = self.clone();
        namespace.on("reason-of", move |socket, args, ack| {
            let Ok((id,)) = args.parse::<(String,)>() else { return wrong_arguments() };
            let reason = lab.seen().reasons.get(&*id).map(|reason| reason.as_str());
            reply(socket, ack, (reason,));
        });
        namespace.on("kick", |socket, args, _| match args.parse::<(bool,)>() {
            Ok((true,)) => socket.disconnect_connection(),
            Ok((false,)) => socket.disconnect(),
            Err(_) => wrong_arguments(),
        });
        namespace.on("warn-then-kick", |socket, args, _| {
            let Ok((text, ms)) = args.parse::<(String, u64)>() else { return wrong_arguments() };
            let _ = socket.warn_then_disconnect("warning", (text,), Duration::from_millis(ms));
        });
        namespace.on("kick-room", |socket, args, ack| {
            let Ok((room, close)) = args.parse::<(String, bool)>() else { return wrong_arguments() };
            if everybody(socket).to(&room).disconnect(close).is_ok() {
                reply(socket, ack, (true,));
            }
        });
        namespace.on("cut", |socket, _, _| socket.cut());
        namespace.on("engine-close", |socket, _, _| socket.close_engine());
        let lab = self.clone();
        namespace.on("shutdown", move |_, _, _| {
            if let Some(handle) = lab.handle.get() {
                let _ = handle.drain(lab.plan.clone());
            }
        });
    }

    fn serve_rows(&self, namespace: &mut Namespace) {
        let lab = self.clone();
        namespace.on("store", move |socket, args, ack| match args.parse::<(StoreAsk,)>() {
            Ok((ask,)) => lab.store(socket, ask, ack),
            Err(_) => wrong_arguments(),
        });
        let lab = self.clone();
        namespace.on("rows", move |socket, args, ack| {
            let Ok((prefix,)) = args.parse::<(String,)>() else { return wrong_arguments() };
            let (rows, found) = (lab.rows.clone(), Arc::new(Mutex::new(Vec::new())));
            let of_run = Arc::clone(&found);
            let _ = socket.transact(
                move |tx| {
                    *of_run.lock().unwrap_or_else(PoisonError::into_inner) = rows.select(tx, 0, &prefix)?;
                    Ok(())
                },
                move |io, done| {
                    if let (Ok(()), Some(ack)) = (done, ack) {
                        let rows = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
                        let _ = ack.send(io, (rows,));
                    }
                },
            );
        });
    }

    /// One row per client offset, whatever the repeats come by.
    fn store(&self, socket: &mut Socket<'_>, ask: StoreAsk, ack: Option<Ack>) {
        let StoreAsk { client_offset, content, fault, late_ms } = ask;
        let namespace: Arc<str> = socket.handshake().namespace().into();
        let attempt = self.seen().attempt(&namespace, &client_offset);
        let fault = fault.filter(|_| attempt == 1);
        let (mut cut, mut late) = (false, None);
        match fault.as_deref() {
            Some("cut-before-store") => return socket.cut(),
            Some("ignore") => return,
            Some("cut-after-store") => cut = true,
            Some("late-ack") => late = Some(Duration::from_millis(late_ms.unwrap_or(900))),
            _ => {}
        }
        let (rows, offset, id) = (self.rows.clone(), client_offset.clone(), Arc::clone(socket.id()));
        let run = move |tx: &mut adjourn_socketio::store::Tx<'_>| {
            let row = rows.insert(tx, &offset, &content)?;
            tx.emit_to(&[ROWS.into()], "row", (&content, row))?;
            Ok(AckValue::new((row,))?)
        };
        let stored = socket.once(&client_offset, run, move |io, once| {
            let (value, duplicate) = match once {
                Ok(Once::First(value)) => (value, false),
                Ok(Once::Repeat(value)) => (value, true),
                _ => return,
            };
            if cut {
                if let Some(mut socket) = io.socket(&namespace, &id) {
                    socket.cut();
                }
                return;
            }
            let (Some(ack), Ok((row,))) = (ack, serde_json::from_str::<(i64,)>(&value.json)) else { return };
            let answer = json!({ "id": row, "duplicate": duplicate, "attempt": attempt });
            match late {
                Some(late) => io.after(late, move |io| drop(ack.send(io, (answer,)))),
                None => drop(ack.send(io, (answer,))),
            }
        });
        if stored.is_err() {
            wrong_arguments();
        }
    }
}

/// The argument of `store`.
#[derive(Deserialize)]
struct StoreAsk {
    #[serde(rename = "clientOffset")]
    client_offset: String,
    content: String,
    #[serde(default)]
    fault: Option<String>,
    #[serde(default, rename = "lateMs")]
    late_ms: Option<u64>,
}

impl Seen {
    fn note(&mut self, id: Arc<str>, reason: Reason) {
        if self.reasons.insert(Arc::clone(&id), reason).is_none() {
            self.ids.push_back(id);
        }
        if self.ids.len() > REASONS
            && let Some(oldest) = self.ids.pop_front()
        {
            self.reasons.remove(&oldest);
        }
    }

    fn attempt(&mut self, namespace: &Arc<str>, client_offset: &str) -> u64 {
        let attempt = self.attempts.entry((Arc::clone(namespace), client_offset.to_owned())).or_default();
        *attempt += 1;
        *attempt
    }
}

/// A `burst` under way.
struct Burst {
    namespace: Arc<str>,
    room: String,
    n: u64,
    tag: Raw,
    gap: Duration,
    ack: Option<Ack>,
}

impl Burst {
    fn run(self, io: &mut Io<'_>, mut i: u64) {
        while i < self.n {
            if io.of(&self.namespace).to(&self.room).emit("msg", (&self.tag, i)).is_err() {
                return;
            }
            i += 1;
            if !self.gap.is_zero() && i < self.n {
                return io.after(self.gap, move |io| self.run(io, i));
            }
        }
        if let Some(ack) = self.ack {
            let _ = ack.send(io, (self.n,));
        }
    }
}

fn serve_session(namespace: &mut Namespace) {
    namespace.on("whoami", |socket, _, ack| {
        let data = socket.data().map_or_else(empty_object, |data| parse_object(data));
        let answer = json!({
            "id": &**socket.id(),
            "recovered": socket.resume().is_resumed(),
            "rooms": rooms(socket),
            "data": data,
        });
        reply(socket, ack, (answer,));
    });
    namespace.on("resume-info", |socket, _, ack| {
        let outcome = *socket.resume();
        let away = match outcome {
            ResumeOutcome::Resumed { away, .. } => u64::try_from(away.as_millis()).unwrap_or(u64::MAX),
            _ => 0,
        };
        let answer = json!({ "outcome": outcome.as_str(), "missed": missed(&outcome), "away_ms": away });
        reply(socket, ack, (answer,));
    });
    namespace.on("set-data", |socket, args, ack| {
        let Ok((new,)) = args.parse::<(Map<String, Value>,)>() else { return wrong_arguments() };
        let mut data = socket.data().map_or_else(Map::new, |data| parse_object(data));
        data.extend(new);
        if socket.set_data(&Value::Object(data).to_string()).is_ok() {
            reply(socket, ack, (true,));
        }
    });
    namespace.on("echo", echo);
    namespace.on("burst", |socket, args, ack| {
        let Ok((room, n, tag, gap)) = args.parse::<(String, u64, Raw, u64)>() else {
            return wrong_arguments();
        };
        let namespace: Arc<str> = socket.handshake().namespace().into();
        let burst = Burst { namespace, room, n, tag, gap: Duration::from_millis(gap), ack };
        burst.run(socket.io(), 0);
    });
    namespace.on("flood", |socket, args, ack| {
        let Ok((n, size)) = args.parse::<(u64, usize)>() else { return wrong_arguments() };
        let text = "x".repeat(size);
        for i in 0..n {
            if socket.emit("blob", (i, &text)).is_err() {
                return;
            }
        }
        reply(socket, ack, (n,));
    });
}

fn serve_rooms(namespace: &mut Namespace) {
    namespace.on("join", |socket, args, ack| {
        let Ok((room,)) = args.parse::<(String,)>() else { return wrong_arguments() };
        if socket.join(&room).is_ok() {
            let rooms = rooms(socket);
            reply(socket, ack, (rooms,));
        }
    });
    namespace.on("leave", |socket, args, ack| {
        let Ok((room,)) = args.parse::<(String,)>() else { return wrong_arguments() };
        if socket.leave(&room).is_ok() {
            let rooms = rooms(socket);
            reply(socket, ack, (rooms,));
        }
    });
    namespace.on("say", |socket, args, ack| {
        let Ok((room, event, args)) = args.parse::<(String, String, Vec<Raw>)>() else {
            return wrong_arguments();
        };
        if everybody(socket).to(&room).emit(&event, &args).is_ok() {
            reply(socket, ack, (true,));
        }
    });
    namespace.on("say-volatile", |socket, args, ack| {
        let Ok((room, event, args)) = args.parse::<(String, String, Vec<Raw>)>() else {
            return wrong_arguments();
        };
        everybody(socket).to(&room).emit_volatile(&event, &args);
        reply(socket, ack, (true,));
    });
    namespace.on("ask", |socket, args, ack| {
        let Ok((room, event, args, ms)) = args.parse::<(String, String, Vec<Raw>, u64)>() else {
            return wrong_arguments();
        };
        let options = AckOptions::redeliver(Duration::from_millis(ms));
        let _ = everybody(socket).to(&room).emit_with_acks(&event, &args, options, move |io, answers| {
            let Some(ack) = ack else { return };
            let first: Vec<Option<Raw>> =
                answers.answers.iter().map(|answer| answer.args.as_args().get(0).ok()).collect();
            let _ = ack.send(io, (answers.error.is_none(), first));
        });
    });
    namespace.on("sockets", |socket, args, ack| {
        let Ok((room,)) = args.parse::<(String,)>() else { return wrong_arguments() };
        everybody(socket).to(&room).fetch(Duration::from_secs(5), move |io, fetched| {
            let Some(ack) = ack else { return };
            let ids: Vec<&str> = fetched.sockets.iter().map(|socket| &*socket.id).collect();
            let _ = ack.send(io, (ids,));
        });
    });
}

fn serve_process(namespace: &mut Namespace) {
    namespace.on("cpu", |socket, _, ack| {
        let answer = json!({ "us": process::cpu_us(), "rss": process::rss(), "pid": std::process::id() });
        reply(socket, ack, (answer,));
    });
    namespace.on("block", |socket, args, ack| {
        let Ok((ms,)) = args.parse::<(u64,)>() else { return wrong_arguments() };
        std::thread::sleep(Duration::from_millis(ms));
        reply(socket, ack, (true,));
    });
    namespace.on("panic", |_, _, _| panic!("asked for"));
}

/// Only who has the token may connect.
pub(crate) fn check_token(handshake: &Handshake) -> Result<(), ConnectError> {
    let auth = handshake.auth().and_then(|auth| serde_json::from_str::<Value>(auth).ok());
    let token = auth.as_ref().and_then(|auth| auth.get("token")).and_then(Value::as_str);
    if token == Some("good") || handshake.query("token") == Some("good") {
        return Ok(());
    }
    Err(ConnectError { message: "unauthorized".to_owned(), data: Some("{\"code\":401}".to_owned()) })
}

/// An event whose arguments have wrong types: nothing happens, and it is counted.
fn wrong_arguments() {
    process::WRONG_ARGUMENTS.fetch_add(1, Ordering::Relaxed);
}

fn echo(socket: &mut Socket<'_>, args: Args<'_>, ack: Option<Ack>) {
    reply(socket, ack, args);
}

fn reply(socket: &mut Socket<'_>, ack: Option<Ack>, args: impl ToArgs) {
    if let Some(ack) = ack {
        // A client that has gone needs no answer.
        let _ = ack.send(socket.io(), args);
    }
}

/// All sockets of the namespace, the sender too.
fn everybody<'s>(socket: &'s mut Socket<'_>) -> adjourn_socketio::core::Broadcast<'s> {
    let namespace: Arc<str> = socket.handshake().namespace().into();
    socket.io().of(&namespace)
}

fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Polling => "polling",
        Transport::WebSocket => "websocket",
    }
}

/// The rooms that are listed, its own id among them.
fn rooms(socket: &Socket<'_>) -> Vec<String> {
    let all = socket.rooms();
    all.iter().filter(|room| !room.starts_with('~')).map(ToString::to_string).collect()
}

fn missed(outcome: &ResumeOutcome) -> u64 {
    match outcome {
        ResumeOutcome::Resumed { missed, .. } => *missed,
        _ => 0,
    }
}

fn empty_object() -> Map<String, Value> {
    Map::new()
}

fn parse_object(data: &str) -> Map<String, Value> {
    serde_json::from_str(data).unwrap_or_default()
}

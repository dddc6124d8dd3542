//! From CONNECT to the answer (specification 7, 13).
//!
//! ```text
//! CONNECT --> Checking --(all accept)--> Storing: create --(saved)-----------------> socket, fresh
//!                 |                         |  ^    `---(failed, too late: policy)-> socket without pid, or error
//!                 |                         |  `(refused)
//!                 |                         attach --> Reading --(first page)------> socket, resumed
//!                 `--(one refuses, timeout)--> CONNECT_ERROR
//! ```
//!
//! With `skip_middleware` the attach comes first, and the middlewares only if it is refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use super::state::{
    Ask, Bound, BoundTo, Claim, ConnKey, ConnectStep, Connecting, ConnectingKey, Handshake, Io, Item,
    Observation, Progress, Reliability, Resume, ResumeOutcome, SessionKey, SocketKey, SocketState, SpaceKey,
    Timer, Upcall, refusal_name,
};
use crate::config::ConnectPolicy;
use crate::error::ConnectError;
use crate::offset::Position;
use crate::packet::{self, Event};
use crate::store::{Attach, AttachError, Attached, ResumeRefusal};

impl Io<'_> {
    /// A CONNECT to a namespace that exists.
    pub(super) fn begin_connect(&mut self, conn: ConnKey, space_key: SpaceKey, auth: Option<&str>) {
        self.find_log(space_key);
        let deadline = self.now + self.state.config.times.connect_timeout;
        let id: Arc<str> = Arc::from(self.state.new_sid().as_str());
        let Some(space) = self.state.spaces.get_mut(space_key) else { return };
        let recovers = space.log.is_some();
        let Some(peer) = self.state.conns.get(conn).map(|conn| Arc::clone(&conn.peer)) else { return };
        let handshake = Handshake { peer, namespace: Arc::clone(&space.name), auth: auth.map(Arc::from) };
        space.connecting += 1;
        let ask = if recovers { auth.and_then(asked) } else { None };
        let skip = self.state.config.recovery.as_ref().is_some_and(|recovery| recovery.skip_middleware);
        let skip = skip && ask.is_some();
        let key = self.state.connecting.insert(Connecting {
            conn,
            space: space_key,
            id,
            pid: None,
            principal: Arc::from(""),
            handshake: Arc::new(handshake),
            ask,
            step: ConnectStep::Checking(0),
            deadline,
            refusal: None,
            record: None,
            resume: None,
        });
        if let Some(conn) = self.state.conns.get_mut(conn) {
            conn.bound.push(Bound { space: space_key, to: BoundTo::Connecting(key) });
            conn.connect_deadline = None;
        }
        if skip {
            self.enter_store(key);
        } else {
            self.state.timers.set(deadline, Timer::Connecting(key));
            self.state.upcalls.push_back(Upcall::Check(key));
        }
    }

    /// A middleware has answered. One that has answered already, or too late, changes nothing.
    pub(super) fn verdict(
        &mut self,
        key: ConnectingKey,
        check: usize,
        verdict: Result<Arc<str>, ConnectError>,
    ) {
        let Some(connecting) = self.state.connecting.get_mut(key) else { return };
        if connecting.step != ConnectStep::Checking(check) {
            return;
        }
        match verdict {
            Ok(principal) => {
                if !principal.is_empty() {
                    connecting.principal = principal;
                }
                connecting.step = ConnectStep::Checking(check + 1);
                self.state.upcalls.push_back(Upcall::Check(key));
            }
            Err(error) => self.refuse_connect(key, &error.message, error.data.as_deref()),
        }
    }

    /// CONNECT_ERROR: no socket, no event.
    pub(super) fn refuse_connect(&mut self, key: ConnectingKey, message: &str, data: Option<&str>) {
        let Some(connecting) = self.state.connecting.get(key) else { return };
        let (conn, space) = (connecting.conn, connecting.space);
        let name = self.state.spaces.get(space).map(|space| Arc::clone(&space.name));
        if let Some(name) = name {
            self.connect_error(conn, &name, message, data);
        }
        self.abandon_connecting(key);
    }

    pub(super) fn connect_error(
        &mut self,
        conn: ConnKey,
        namespace: &str,
        message: &str,
        data: Option<&str>,
    ) {
        self.state.stats.connects_refused += 1;
        let span = self.state.span_of(conn).entered();
        tracing::debug!(target: "adjourn_socketio", namespace, message, "refused");
        drop(span);
        self.send_conn(conn, &[packet::connect_error(namespace, message, data)]);
    }

    // ---- the store

    /// All middlewares have accepted, or are skipped.
    pub(super) fn enter_store(&mut self, key: ConnectingKey) {
        let down = self.is_store_down();
        let storage = &self.state.config.storage;
        let patience = match storage.on_connect {
            ConnectPolicy::WaitUpTo(patience) => patience,
            _ if down => Duration::ZERO,
            _ => storage.stall,
        };
        let Some(connecting) = self.state.connecting.get_mut(key) else { return };
        let recovers = self.state.spaces.get(connecting.space).is_some_and(|space| space.log.is_some());
        connecting.step = ConnectStep::Storing;
        if !recovers {
            return self.finish_connect(key, None);
        }
        connecting.deadline = self.now + patience;
        if down && patience.is_zero() {
            return self.store_too_late(key);
        }
        self.state.timers.set(connecting.deadline, Timer::Connecting(key));
        match &connecting.ask {
            Some(ask) if connecting.refusal.is_none() => {
                let skip =
                    self.state.config.recovery.as_ref().is_some_and(|recovery| recovery.skip_middleware);
                let ask = Attach {
                    pid: Arc::clone(&ask.pid),
                    namespace: Arc::clone(&connecting.handshake.namespace),
                    principal: (!skip).then(|| Arc::clone(&connecting.principal)),
                    offset: ask.offset,
                };
                let item = Item::Attach { connecting: key, ask: Box::new(ask) };
                self.state.queue.items.push_back(item);
            }
            _ => {
                let pid = self.state.new_sid();
                if let Some(connecting) = self.state.connecting.get_mut(key) {
                    connecting.pid = Some(Arc::from(pid.as_str()));
                }
                self.state.queue.items.push_back(Item::Create(key));
            }
        }
    }

    /// The step takes too long.
    pub(super) fn connecting_due(&mut self, key: ConnectingKey) {
        let Some(connecting) = self.state.connecting.get(key) else { return };
        if connecting.deadline > self.now {
            return;
        }
        match connecting.step {
            ConnectStep::Checking(_) => self.refuse_connect(key, "timeout", None),
            ConnectStep::Storing | ConnectStep::Reading => self.store_too_late(key),
        }
    }

    /// The store does not answer: a session that cannot be resumed, or none, as the policy says.
    fn store_too_late(&mut self, key: ConnectingKey) {
        let Some(connecting) = self.state.connecting.get_mut(key) else { return };
        if self.state.config.storage.on_connect == ConnectPolicy::Refuse {
            return self.refuse_connect(key, "store unavailable", None);
        }
        if connecting.ask.is_some() {
            connecting.refusal.get_or_insert(ResumeRefusal::StoreUnavailable);
        }
        // A session that is being resumed has a name; the fresh socket gets one of its own.
        if let Some(record) = connecting.record.take() {
            self.end_claim(key, &record);
            self.give_up_session(record);
        }
        let id: Arc<str> = Arc::from(self.state.new_sid().as_str());
        if let Some(connecting) = self.state.connecting.get_mut(key) {
            connecting.id = id;
            connecting.resume = None;
        }
        self.finish_connect(key, None);
    }

    /// The store has been declared down: those who need not wait get their answer.
    pub(super) fn connecting_without_store(&mut self) {
        if matches!(self.state.config.storage.on_connect, ConnectPolicy::WaitUpTo(_)) {
            return;
        }
        let waiting = self.state.connecting.iter();
        let keys: Vec<ConnectingKey> = waiting
            .filter(|(_, connecting)| !matches!(connecting.step, ConnectStep::Checking(_)))
            .map(|(key, _)| key)
            .collect();
        for key in keys {
            self.store_too_late(key);
        }
    }

    /// The commit that was to save a new session is over.
    pub(super) fn created(&mut self, key: ConnectingKey, saved: bool) {
        let Some(space) = self.state.connecting.get(key).map(|connecting| connecting.space) else { return };
        if saved && self.is_unread(space) {
            return self.resume_when_read(key, space, Position::START);
        }
        let Some(connecting) = self.state.connecting.get_mut(key) else { return };
        match connecting.record.take() {
            Some(mut record) if saved => {
                // What others have appended to a shared log while it was saved was before it.
                let shared = self.state.cluster.is_some();
                let floor = self
                    .log(space)
                    .map_or(Position::START, |log| if shared { log.dispatched } else { log.floor });
                let raised = record.first < floor;
                for place in [&mut record.first, &mut record.checkpoint, &mut record.last] {
                    *place = (*place).max(floor);
                }
                let session = self.hold_session(record, None);
                if raised {
                    self.mark_unsaved(session);
                }
                self.finish_connect(key, Some(session));
            }
            _ => self.store_too_late(key),
        }
    }

    /// The answer to an attach (13, steps 2 and 3).
    pub(super) fn attached(&mut self, key: ConnectingKey, answer: Result<Box<Attached>, AttachError>) {
        match answer {
            Ok(attached) => self.attach_granted(key, *attached),
            Err(error) => {
                let why = match error {
                    AttachError::Refused { why, .. } => why,
                    AttachError::Store(_) => ResumeRefusal::StoreUnavailable,
                };
                self.resume_refused(key, why);
            }
        }
    }

    fn attach_granted(&mut self, key: ConnectingKey, attached: Attached) {
        let Attached { mut session, away, start, tail } = attached;
        // Stores give them in any order.
        session.memberships.sort_by(|a, b| a.room.cmp(&b.room));
        let Some(connecting) =
            self.state.connecting.get_mut(key).filter(|it| it.step == ConnectStep::Storing)
        else {
            return self.give_up_session(session);
        };
        let space = connecting.space;
        connecting.id = Arc::clone(&session.sid);
        connecting.principal = Arc::clone(&session.principal);
        let resume = Resume { away, start, applied: session.checkpoint };
        connecting.resume = Some(resume);
        connecting.step = ConnectStep::Reading;
        let claim = Claim { by: key, generation: session.generation };
        self.state.claims.insert(Arc::clone(&session.sid), claim);
        let holder = self.state.spaces.get(space).and_then(|space| space.by_id.get(&session.sid).copied());
        if let Some(connecting) = self.state.connecting.get_mut(key) {
            connecting.record = Some(session);
        }
        // Before the answer is written, so that there are never two with one id.
        if let Some(holder) = holder {
            self.take_over(holder);
        }
        if self.state.cluster.is_some() {
            return self.resume_when_read(key, space, tail);
        }
        self.read_first_page(key, space, resume);
    }

    /// A fresh session instead (13, step 6).
    pub(super) fn resume_refused(&mut self, key: ConnectingKey, why: ResumeRefusal) {
        let skip = self.state.config.recovery.as_ref().is_some_and(|recovery| recovery.skip_middleware);
        let deadline = self.now + self.state.config.times.connect_timeout;
        let id: Arc<str> = Arc::from(self.state.new_sid().as_str());
        let Some(conn) = self.state.connecting.get(key).map(|connecting| connecting.conn) else { return };
        let span = self.state.span_of(conn).entered();
        tracing::debug!(target: "adjourn_socketio", %why, "resume_refused");
        drop(span);
        let Some(connecting) = self.state.connecting.get_mut(key) else { return };
        connecting.refusal = Some(why);
        connecting.id = id;
        connecting.resume = None;
        if skip {
            connecting.step = ConnectStep::Checking(0);
            connecting.principal = Arc::from("");
            connecting.deadline = deadline;
            self.state.timers.set(deadline, Timer::Connecting(key));
            self.state.upcalls.push_back(Upcall::Check(key));
        } else {
            self.enter_store(key);
        }
    }

    // ---- the answer

    /// The socket begins: its CONNECT is answered, `on_connection` follows.
    fn finish_connect(&mut self, key: ConnectingKey, session: Option<SessionKey>) {
        let Some(connecting) = self.state.connecting.remove(key) else { return };
        let refusal = connecting.refusal;
        let conn = connecting.conn;
        let pid = connecting.pid.clone().filter(|_| session.is_some());
        let dispatched = self.dispatched(connecting.space);
        let outcome = refusal.map_or(ResumeOutcome::Fresh, ResumeOutcome::Refused);
        let socket = self.insert_socket(key, connecting, session, dispatched, Progress::Live, outcome);
        self.answer_connect(socket, pid.as_deref());
        if let Some(why) = refusal {
            self.state.stats.resume_refused(refusal_name(why));
            self.tell_refusal(socket, why);
        }
        self.arm_conn(conn);
    }

    pub(super) fn answer_connect(&mut self, key: SocketKey, pid: Option<&str>) {
        let Some(socket) = self.state.sockets.get(key) else { return };
        let Some(space) = self.state.spaces.get(socket.space) else { return };
        let frame = packet::connect(&space.name, &socket.id, pid);
        self.send(key, &[frame]);
    }

    /// The event that says why a session was not resumed, if there is one.
    fn tell_refusal(&mut self, key: SocketKey, why: ResumeRefusal) {
        let recovery = self.state.config.recovery.as_ref();
        let Some(name) = recovery.and_then(|recovery| recovery.failed_event.clone()) else { return };
        let Some(socket) = self.state.sockets.get(key) else { return };
        let space = socket.space;
        let Some(namespace) = self.state.spaces.get(space).map(|space| Arc::clone(&space.name)) else {
            return;
        };
        let argument = RefusalNotice(why).to_json();
        let Ok(raw) = RawValue::from_string(argument) else { return };
        if let Ok(event) = Event::new(&namespace, &name, &(raw,)) {
            self.deliver_to(space, &[key], &event, Reliability::Direct);
        }
    }

    pub(super) fn insert_socket(
        &mut self,
        key: ConnectingKey,
        connecting: Connecting,
        session: Option<SessionKey>,
        start: Position,
        progress: Progress,
        outcome: ResumeOutcome,
    ) -> SocketKey {
        let Connecting { conn, space: space_key, id, principal, handshake, .. } = connecting;
        let link = self.state.conns.get(conn).and_then(|conn| conn.engine.link());
        let record =
            session.and_then(|session| self.state.sessions.get(session)).map(|session| &session.record);
        let data = record.and_then(|record| record.data.clone());
        let last = record.map_or(start, |record| record.last);
        let catches_up = matches!(progress, Progress::CatchingUp(_));
        let socket = self.state.sockets.insert(SocketState {
            stamp: 0,
            link,
            progress,
            start,
            last,
            session,
            conn,
            space: space_key,
            place: 0,
            id: Arc::clone(&id),
            rooms: Vec::new(),
            pending_rooms: Vec::new(),
            handshake,
            principal,
            data,
            outcome,
            pending_acks: Vec::new(),
            last_event: self.now,
            idle_at: Duration::ZERO,
            idle_warned: false,
            span: self.state.span_of(conn),
        });
        if let Some(session) = session.and_then(|session| self.state.sessions.get_mut(session)) {
            session.socket = Some(socket);
        }
        if let Some(space) = self.state.spaces.get_mut(space_key) {
            space.connecting -= 1;
            space.by_id.insert(id, socket);
            space.enter_everyone(socket, &mut self.state.sockets);
        }
        if let Some(conn) = self.state.conns.get_mut(conn) {
            conn.replays += u32::from(catches_up);
            for bound in conn.bound.iter_mut().filter(|bound| bound.to == BoundTo::Connecting(key)) {
                bound.to = BoundTo::Socket(socket);
            }
        }
        self.state.stats.connects += 1;
        self.state.notice(socket, || Observation::Connected);
        // Before anything is sent, which may end it.
        self.state.upcalls.push_back(Upcall::Connected(socket));
        self.arm_idle(socket);
        socket
    }
}

/// The argument of `failed_event`.
struct RefusalNotice(ResumeRefusal);

impl RefusalNotice {
    fn to_json(&self) -> String {
        let reason = refusal_name(self.0);
        match self.0 {
            ResumeRefusal::OffsetTrimmed { floor } => {
                format!("{{\"reason\":\"{reason}\",\"floor\":\"{floor}\"}}")
            }
            _ => format!("{{\"reason\":\"{reason}\"}}"),
        }
    }
}

/// The session that a CONNECT asks for: a `pid` that is text, and an `offset` if it is one of ours.
fn asked(auth: &str) -> Option<Ask> {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(auth).ok()?;
    let text = |name: &str| {
        let value = fields.get(name)?;
        serde_json::from_str::<String>(value.get()).ok()
    };
    let pid = text("pid")?;
    let offset = text("offset").and_then(|offset| offset.parse().ok());
    Some(Ask { pid: Arc::from(pid), offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_asked_for_by_a_text() {
        let offset = |auth: &str| asked(auth).map(|ask| ask.offset.map(|offset| offset.to_string()));
        assert_eq!(offset(r#"{"pid":"a","offset":"2-7"}"#), Some(Some("2-7".to_owned())));
        assert_eq!(offset(r#"{"pid":"a","offset":7}"#), Some(None));
        assert_eq!(offset(r#"{"pid":"a","offset":"x"}"#), Some(None));
        assert_eq!(offset(r#"{"pid":1,"offset":"2-7"}"#), None);
        assert_eq!(offset(r#"{"token":"a"}"#), None);
    }
}

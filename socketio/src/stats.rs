//! What can be counted (specification 20). Depends on `reason` only.

use std::time::Duration;

use crate::reason::Reason;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)*) => {
        /// Counters since the start, and numbers as of now. Taking them allocates the lists.
        #[derive(Clone, Debug, Default)]
        #[non_exhaustive]
        pub struct SocketIoStats {
            $($(#[doc = $doc])+ pub $name: u64,)*
            /// Sockets by namespace, now.
            pub sockets: Vec<(String, u64)>,
            /// Disconnects by reason.
            pub disconnects: Vec<(Reason, u64)>,
            /// Sessions asked for and not resumed, by the name of the refusal.
            pub resume_refusals: Vec<(&'static str, u64)>,
            /// Packets that could not be decoded, by [`DecodeError::name`](crate::packet::DecodeError::name).
            pub decode_error_kinds: Vec<(&'static str, u64)>,
            /// Packets that the state did not allow, by kind: `not_connected` (the first packet to a namespace is no CONNECT),
            /// `connected_already`, `not_answered` (a packet before its CONNECT is answered), `connect_error` (only servers send
            /// it), `attachments_late` (they did not come in time).
            pub state_error_kinds: Vec<(&'static str, u64)>,
            /// The longest time between a call of the store and its answer.
            pub commit_time_max: Duration,
            /// For how long the store was down in all.
            pub store_down_time: Duration,
        }

        impl SocketIoStats {
            /// The counters by name.
            pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
                self.described().map(|(name, _, count)| (name, count))
            }

            /// The counters: name, what it counts, number.
            pub fn described(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), concat!($($doc),+).trim_ascii(), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Connections on polling, now.
    connections_polling,
    /// Connections on WebSocket, now.
    connections_websocket,
    /// Requests of polling sessions without an answer, now: GETs that are held, POSTs whose body has not come.
    requests_waiting,
    /// Upgrades done.
    upgrades,
    /// Probes that failed.
    upgrades_failed,
    /// Sessions connected, now.
    sessions_connected,
    /// Sessions away and not saved yet, now.
    sessions_unsaved,
    /// Sockets that connected.
    connects,
    /// CONNECTs answered by CONNECT_ERROR.
    connects_refused,
    /// Sessions resumed.
    resumes,
    /// Sessions asked for and not resumed.
    resumes_refused,
    /// Sessions that ended without being resumed.
    sessions_expired,
    /// Sessions lost since the store did not take them.
    unsaved_sessions,
    /// Connections refused with code 0: unknown transport.
    refused_transport,
    /// Code 1: unknown session.
    refused_session,
    /// Code 2: method.
    refused_method,
    /// Code 3: bad request.
    refused_request,
    /// Code 4: forbidden.
    refused_forbidden,
    /// Code 5: protocol version.
    refused_version,
    /// 503: shutdown or a limit.
    refused_unavailable,
    /// Engine.IO sessions opened.
    connections_opened,
    /// Engine.IO sessions that have ended.
    connections_closed,
    /// Messages from clients.
    messages_in,
    /// Their bytes.
    bytes_in,
    /// Bytes of messages to clients, by receiver.
    bytes_out,
    /// Engine.IO packets without a meaning from a client.
    packets_ignored,
    /// Connections closed since a packet could not be decoded.
    decode_errors,
    /// Connections closed since the state did not allow a packet.
    state_errors,
    /// Connections closed without a CONNECT in time.
    connect_timeouts,
    /// Events from clients.
    events_in,
    /// Events without a handler.
    events_unhandled,
    /// Events that a filter dropped.
    events_filtered,
    /// Events sent, by receiver.
    events_out,
    /// Packets for a socket that had been disconnected.
    packets_late,
    /// Events and acks that are larger than `send_queue`: refused by the call, or passed over in the log.
    events_too_large,
    /// Durable emits refused at once.
    emits_refused,
    /// Durable emits that the store failed.
    emits_failed,
    /// Acks sent.
    acks_sent,
    /// Acks that were not sent, since their effects were not committed.
    acks_withheld,
    /// Acks that the application gave after the disconnect.
    acks_after_disconnect,
    /// Answers received in time.
    acks_received,
    /// Answers to nothing.
    acks_unknown,
    /// Answers that did not come.
    acks_timed_out,
    /// Emits with ack refused: `pending_acks_per_socket`.
    acks_refused,
    /// Answers awaited, now.
    acks_pending,
    /// Volatile events dropped, by receiver.
    volatile_dropped,
    /// Clients disconnected since they were too slow.
    slow_consumers,
    /// Handlers, and other code of the application on the loop, that panicked.
    handler_panics,
    /// Rooms refused: `max_room_name`, `rooms_per_socket`.
    rooms_refused,
    /// Session data refused: `session_data`.
    data_refused,
    /// CONNECTs refused: `namespaces_per_connection`, `dynamic_namespaces`.
    namespaces_refused,
    /// Namespaces made on demand.
    namespaces_made,
    /// Namespaces made on demand and dropped.
    namespaces_dropped,
    /// Namespaces, now.
    namespaces,
    /// Logs of the store whose namespaces are not in use, now.
    logs_unused,
    /// Rooms with members, now.
    rooms,
    /// Entries appended to logs.
    log_entries,
    /// Bytes appended to logs.
    log_bytes,
    /// Entries that could not be read.
    log_entries_invalid,
    /// Entries trimmed.
    log_trimmed,
    /// Sockets that are catching up, now.
    replays,
    /// Events sent again.
    replayed_events,
    /// Bytes sent again.
    replayed_bytes,
    /// Replays ended since trimming had overtaken them, or the store failed.
    replays_overtaken,
    /// Once keys run for the first time.
    once_first,
    /// Once keys that had run.
    once_repeats,
    /// Transactions rolled back.
    once_rolled_back,
    /// Bytes of entries and transactions that wait for the store, now.
    store_queue,
    /// Commits.
    batches,
    /// Entries of all commits.
    batch_entries,
    /// Commits that failed.
    commits_failed,
    /// Membership changes and disconnects that did not wait for the log any longer.
    effects_overdue,
    /// Times that the store was declared down.
    store_downs,
    /// Logs of a shared store that were trimmed, or lost, before this node had read them: their sockets were cut.
    fell_behind,
    /// Messages to other nodes dropped, since too many waited for the store.
    node_messages_dropped,
    /// Nodes alive, this one included; 0: the store is not shared.
    nodes,
}

impl SocketIoStats {
    /// A request was refused with this code.
    pub(crate) const fn refused(&mut self, code: u16) {
        let counter = match code {
            0 => &mut self.refused_transport,
            1 => &mut self.refused_session,
            2 => &mut self.refused_method,
            3 => &mut self.refused_request,
            4 => &mut self.refused_forbidden,
            5 => &mut self.refused_version,
            _ => &mut self.refused_unavailable,
        };
        *counter += 1;
    }

    /// A packet of a client could not be decoded.
    pub(crate) fn decode_error(&mut self, kind: &'static str) {
        self.decode_errors += 1;
        count(&mut self.decode_error_kinds, kind);
    }

    /// The state did not allow a packet of a client.
    pub(crate) fn state_error(&mut self, kind: &'static str) {
        self.state_errors += 1;
        count(&mut self.state_error_kinds, kind);
    }

    pub(crate) fn disconnected(&mut self, reason: Reason) {
        count(&mut self.disconnects, reason);
    }

    pub(crate) fn resume_refused(&mut self, why: &'static str) {
        self.resumes_refused += 1;
        count(&mut self.resume_refusals, why);
    }
}

/// Counts in a short list.
fn count<T: PartialEq>(list: &mut Vec<(T, u64)>, what: T) {
    match list.iter_mut().find(|entry| entry.0 == what) {
        Some(entry) => entry.1 += 1,
        None => list.push((what, 1)),
    }
}
